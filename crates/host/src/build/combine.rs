//! The artifacts of a batch as one: the files of all of its builds, side by side.
//!
//! CodeBuild's `combineArtifacts` puts the primary artifacts of all builds into one archive. Two builds that leave one
//! file and not the same bytes are not combined: whose would win is nobody's to guess.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use model::port::Fault;
use sha2::{Digest as _, Sha256};

use crate::tree::{self, Kind, Limits, Member};

/// Paths and targets of links, together. They are held in memory.
const NAMES_BYTES: usize = 128 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the builds `{one}` and `{other}` of the batch both leave `{path}`, and not the same")]
    Conflict {
        path: String,
        one: String,
        other: String,
    },
    #[error("the artifact of the build `{build}` cannot be combined")]
    Part {
        build: String,
        #[source]
        source: tree::Error,
    },
    #[error(
        "the artifacts of the batch have {bytes} bytes together, and a revision may have {}",
        Limits::SOURCE.total_bytes
    )]
    TooLarge { bytes: u64 },
    #[error("the artifacts of the batch have more than {0} files together")]
    TooMany(usize),
    #[error("the names of the files in the artifacts of the batch have more than {0} bytes together")]
    LongNames(usize),
    #[error("nobody waits any more for the artifacts of the batch")]
    Stopped,
    /// Of this machine, and not of what the artifacts hold.
    #[error("the artifacts of the batch cannot be read or written")]
    Io(#[from] io::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error {
            Error::Io(_) => Self::platform(text).next("see whether the data directory's disk is full"),
            Error::Stopped => Self::platform(text),
            Error::Conflict { .. } | Error::Part { .. } => {
                Self::customer(text).next("correct the builds' `artifacts` and push again")
            }
            Error::TooLarge { .. } | Error::TooMany(_) | Error::LongNames(_) => Self::customer(text).next(
                "leave less in the builds' `artifacts`, or do without `combine_artifacts`, and push again",
            ),
        }
    }
}

/// Whether artifacts of these sizes may become one: to be asked before any of them is fetched.
pub fn fits(sizes: impl IntoIterator<Item = u64>) -> Result<(), Error> {
    let bytes = sizes.into_iter().fold(0, u64::saturating_add);
    match bytes > Limits::SOURCE.total_bytes {
        true => Err(Error::TooLarge { bytes }),
        false => Ok(()),
    }
}

/// What is at a path, and whose it was first.
struct Found {
    whose: usize,
    what: What,
}

#[derive(PartialEq)]
enum What {
    File { mode: u32, digest: Vec<u8> },
    Directory,
    Link(PathBuf),
}

/// What there is, by path; bounded.
struct All {
    found: BTreeMap<PathBuf, Found>,
    names_bytes: usize,
    most: usize,
    most_names_bytes: usize,
}

/// Writes the tars of builds, by their names, as one, until it is to stop. In the same order they make the same bytes.
pub fn combine(
    mut parts: Vec<(String, File)>,
    to: impl Write,
    stopped: impl Fn() -> bool,
) -> Result<(), Error> {
    let mut all = All::new(
        usize::try_from(Limits::SOURCE.entries).unwrap_or(usize::MAX),
        NAMES_BYTES,
    );
    for whose in 0..parts.len() {
        take(&mut all, &mut parts, whose, &stopped)?;
    }
    let mut builder = tar::Builder::new(to);
    for (whose, part) in parts.iter_mut().enumerate() {
        each(part, |member, bytes| {
            if stopped() {
                return Err(Step::Refused(Error::Stopped));
            }
            let own = all.found.get(&member.path);
            match own.is_some_and(|found| found.whose == whose) {
                // The bytes were read to their end before: what fails now is the disk.
                true => append(&mut builder, member, bytes).map_err(|error| Step::Refused(Error::Io(error))),
                false => Ok(()),
            }
        })?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

/// Why the members of a part are not gone through to their end.
enum Step {
    /// What is read is not well.
    Read(tree::Error),
    Refused(Error),
}

/// Goes through the members of a part from its start.
fn each(
    (build, file): &mut (String, File),
    mut step: impl FnMut(&Member, &mut dyn Read) -> Result<(), Step>,
) -> Result<(), Error> {
    file.seek(SeekFrom::Start(0))?;
    let mut refused = None;
    let visited = tree::visit(&*file, &Limits::SOURCE, |member, bytes| {
        step(member, bytes).map_err(|why| match why {
            Step::Read(error) => error,
            Step::Refused(error) => {
                refused = Some(error);
                tree::Error::Archive(io::ErrorKind::Interrupted.into())
            }
        })
    });
    match (refused, visited) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(tree::Error::Archive(error))) if is_of_the_machine(&error) => Err(Error::Io(error)),
        (None, Err(source)) => Err(Error::Part {
            build: build.clone(),
            source,
        }),
    }
}

/// Whether the system refused to read, and not the reader what it read.
fn is_of_the_machine(error: &io::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error().is_some())
}

/// Notes what one build has, and finds what another has otherwise.
fn take(
    all: &mut All,
    parts: &mut [(String, File)],
    whose: usize,
    stopped: impl Fn() -> bool,
) -> Result<(), Error> {
    let mut conflict = None;
    each(&mut parts[whose], |member, bytes| {
        if stopped() {
            return Err(Step::Refused(Error::Stopped));
        }
        let own = what(member, bytes).map_err(Step::Read)?;
        let other = all.note(&member.path, own, whose).map_err(Step::Refused)?;
        conflict = conflict.take().or(other);
        Ok(())
    })?;
    match conflict {
        Some((path, one)) => Err(Error::Conflict {
            path: path.display().to_string(),
            one: parts[one].0.clone(),
            other: parts[whose].0.clone(),
        }),
        None => Ok(()),
    }
}

impl All {
    fn new(most: usize, most_names_bytes: usize) -> Self {
        Self {
            found: BTreeMap::new(),
            names_bytes: 0,
            most,
            most_names_bytes,
        }
    }

    /// Notes a member and the directories above it. What another build has there otherwise, and which one.
    fn note(&mut self, path: &Path, own: What, whose: usize) -> Result<Option<(PathBuf, usize)>, Error> {
        let mut conflict = None;
        for above in path.ancestors().skip(1) {
            if above.as_os_str().is_empty() {
                break;
            }
            if self
                .found
                .get(above)
                .is_some_and(|found| found.what == What::Directory)
            {
                // And so is all above it.
                break;
            }
            conflict = conflict.or(self.put(above, What::Directory, whose)?);
        }
        Ok(conflict.or(self.put(path, own, whose)?))
    }

    fn put(&mut self, path: &Path, what: What, whose: usize) -> Result<Option<(PathBuf, usize)>, Error> {
        if let Some(taken) = self.found.get(path) {
            let same = taken.what == what || taken.whose == whose;
            return Ok((!same).then(|| (path.to_owned(), taken.whose)));
        }
        if self.found.len() >= self.most {
            return Err(Error::TooMany(self.most));
        }
        let target = match &what {
            What::Link(target) => target.as_os_str().len(),
            What::File { .. } | What::Directory => 0,
        };
        self.names_bytes += path.as_os_str().len() + target;
        if self.names_bytes > self.most_names_bytes {
            return Err(Error::LongNames(self.most_names_bytes));
        }
        self.found.insert(path.to_owned(), Found { whose, what });
        Ok(None)
    }
}

fn what(member: &Member, bytes: &mut dyn Read) -> Result<What, tree::Error> {
    Ok(match &member.kind {
        Kind::Directory => What::Directory,
        Kind::Symlink(target) | Kind::Hardlink(target) => What::Link(target.clone()),
        Kind::File => {
            let digest = digest(bytes).map_err(tree::Error::Archive)?;
            let mode = member.mode;
            What::File { mode, digest }
        }
    })
}

fn digest(bytes: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let mut buffer = [0; 1 << 14];
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn append(builder: &mut tar::Builder<impl Write>, member: &Member, bytes: &mut dyn Read) -> io::Result<()> {
    if member.path.as_os_str().is_empty() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(member.mode);
    header.set_mtime(member.mtime);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    let (kind, target) = match &member.kind {
        Kind::File => {
            header.set_size(member.size);
            return builder.append_data(&mut header, &member.path, bytes);
        }
        Kind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            return builder.append_data(&mut header, &member.path, io::empty());
        }
        Kind::Symlink(target) => (tar::EntryType::Symlink, target),
        Kind::Hardlink(target) => (tar::EntryType::Link, target),
    };
    header.set_entry_type(kind);
    builder.append_link(&mut header, &member.path, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `path=text`, `path>target`.
    fn part(name: &str, members: &str) -> (String, File) {
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        for member in members.split_whitespace() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(7);
            match member.split_once('=') {
                Some((path, text)) => {
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, path, text.as_bytes()).unwrap();
                }
                None => {
                    let (path, target) = member.split_once('>').unwrap();
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        (name.to_owned(), tar.into_inner().unwrap())
    }

    #[track_caller]
    fn check(parts: &[(&str, &str)], expected: Result<&str, &str>) {
        let parts = parts.iter().map(|(name, members)| part(name, members)).collect();
        let mut bytes = Vec::new();
        let combined = combine(parts, &mut bytes, || false).map_err(|error| error.to_string());
        let combined = combined.map(|()| {
            let mut found = Vec::new();
            tree::visit(&bytes[..], &Limits::SOURCE, |member, bytes| {
                let mut text = String::new();
                bytes.read_to_string(&mut text).unwrap();
                found.push(match &member.kind {
                    Kind::Symlink(target) => format!("{}>{}", member.path.display(), target.display()),
                    _ => format!("{}={text}", member.path.display()),
                });
                Ok(())
            })
            .unwrap();
            found.join(" ")
        });
        assert_eq!(combined.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn what_all_builds_leave_is_one_tree() {
        check(
            &[("a", "x=1 d/y=2"), ("b", "d/z=3 l>x")],
            Ok("x=1 d/y=2 d/z=3 l>x"),
        );
        check(&[("a", "x=1 l>x"), ("b", "l>x x=1 w=4")], Ok("x=1 l>x w=4"));
        check(&[("a", "x=1")], Ok("x=1"));
        check(&[], Ok(""));
    }

    #[test]
    fn what_builds_leave_otherwise_is_not_combined() {
        let both =
            |path: &str| format!("the builds `a` and `b` of the batch both leave `{path}`, and not the same");
        check(&[("a", "x=1"), ("b", "x=2")], Err(&both("x")));
        check(&[("a", "x=1"), ("b", "x/y=1")], Err(&both("x")));
        check(&[("a", "x/y=1"), ("b", "x=1")], Err(&both("x")));
        check(&[("a", "x=1 l>x"), ("b", "l>y")], Err(&both("l")));
    }

    #[test]
    fn directories_above_a_file_count() {
        let note = |paths: &[&str], most, most_names_bytes| {
            let mut all = All::new(most, most_names_bytes);
            let noted = paths
                .iter()
                .try_for_each(|path| all.note(Path::new(path), What::Directory, 0).map(drop));
            assert!(all.found.len() <= most, "never more than it may have");
            noted.map_err(|error| error.to_string())
        };
        let many = "the artifacts of the batch have more than 3 files together";
        assert_eq!(note(&["a/b/c"], 3, 100), Ok(()));
        assert_eq!(note(&["a/b/c", "a/b", "a/b/c"], 3, 100), Ok(()));
        assert_eq!(note(&["a/b/c/d"], 3, 100), Err(many.to_owned()));
        assert_eq!(note(&["a/b/c", "a/b/d"], 3, 100), Err(many.to_owned()));
        let long = "the names of the files in the artifacts of the batch have more than 9 bytes together";
        assert_eq!(note(&["a/b/c"], 3, 9), Ok(()));
        assert_eq!(note(&["a/b/cc"], 3, 9), Err(long.to_owned()));
    }

    #[test]
    fn one_member_of_many_directories_is_refused_before_they_are_all_held() {
        let deep = |number: usize| format!("{number}/{}f=1", "d/".repeat(120));
        let members: Vec<String> = (0..2600).map(deep).collect();
        let error = combine(vec![part("a", &members.join(" "))], io::sink(), || false).unwrap_err();
        assert!(matches!(error, Error::TooMany(300_000)), "{error}");
    }

    #[test]
    fn the_machine_is_to_blame_for_its_disk_alone() {
        use model::port::Blame;
        /// A disk that is full.
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(28))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let blames = |parts: Vec<(String, File)>, to: &mut dyn Write| {
            let fault = Fault::from(combine(parts, to, || false).unwrap_err());
            (fault.blame, fault.message)
        };
        let (blame, message) = blames(vec![part("a", "x=1")], &mut Full);
        assert_eq!(blame, Blame::Platform, "{message}");
        assert!(message.contains("No space left on device"), "{message}");
        // A directory can be opened, and not be read.
        let unreadable = (
            "b".to_owned(),
            File::open(tempfile::tempdir().unwrap().path()).unwrap(),
        );
        let (blame, message) = blames(vec![unreadable], &mut io::sink());
        assert_eq!(blame, Blame::Platform, "{message}");
        let (name, mut file) = part("c", "x=1");
        file.set_len(700).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        let (blame, message) = blames(vec![(name, file)], &mut io::sink());
        assert_eq!(blame, Blame::Customer, "{message}");
        assert!(message.contains("the artifact of the build `c`"), "{message}");
    }

    #[test]
    fn what_nobody_waits_for_is_not_written() {
        let mut bytes = Vec::new();
        let error = combine(vec![part("a", "x=1")], &mut bytes, || true).unwrap_err();
        assert!(matches!(error, Error::Stopped), "{error}");
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_larger_than_a_revision_is_refused_by_its_size() {
        let most = Limits::SOURCE.total_bytes;
        assert!(fits([most - 7, 7]).is_ok());
        for sizes in [[most, 1], [u64::MAX, u64::MAX]] {
            let fault = Fault::from(fits(sizes).unwrap_err());
            assert_eq!(fault.blame, model::port::Blame::Customer);
            assert!(
                fault.message.contains("and a revision may have 4294967296"),
                "{fault}"
            );
            assert!(fault.next.is_some());
        }
    }
}
