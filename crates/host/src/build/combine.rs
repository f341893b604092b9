//! The artifacts of a batch as one: the files of all of its builds, side by side.
//!
//! CodeBuild's `combineArtifacts` puts the primary artifacts of all builds into one archive. Two builds that leave one
//! file and not the same bytes are not combined: whose would win is nobody's to guess.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::tree::{self, Kind, Limits, Member};

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
    #[error("the artifacts of the batch have more than {} files together", Limits::SOURCE.entries)]
    TooMany,
    #[error("the artifacts of the batch cannot be combined")]
    Io(#[from] io::Error),
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

/// Writes the tars of builds, by their names, as one. In the same order they make the same bytes.
pub fn combine(mut parts: Vec<(String, File)>, to: impl Write) -> Result<(), Error> {
    let mut all = BTreeMap::new();
    for whose in 0..parts.len() {
        take(&mut all, &mut parts, whose)?;
    }
    let mut builder = tar::Builder::new(to);
    for (whose, (build, file)) in parts.iter_mut().enumerate() {
        file.seek(SeekFrom::Start(0))?;
        let written = tree::visit(&*file, &Limits::SOURCE, |member, bytes| {
            let own = all
                .get(&member.path)
                .is_some_and(|found: &Found| found.whose == whose);
            match own {
                true => append(&mut builder, member, bytes).map_err(tree::Error::Archive),
                false => Ok(()),
            }
        });
        written.map_err(|source| part(build, source))?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn part(build: &str, source: tree::Error) -> Error {
    Error::Part {
        build: build.to_owned(),
        source,
    }
}

/// Notes what one build has, and finds what another has otherwise.
fn take(all: &mut BTreeMap<PathBuf, Found>, parts: &mut [(String, File)], whose: usize) -> Result<(), Error> {
    let mut conflict = None;
    let (build, file) = &mut parts[whose];
    file.seek(SeekFrom::Start(0))?;
    let read = tree::visit(&*file, &Limits::SOURCE, |member, bytes| {
        let above = member
            .path
            .ancestors()
            .skip(1)
            .map(|path| (path, What::Directory));
        let above: Vec<(&Path, What)> = above.filter(|(path, _)| !path.as_os_str().is_empty()).collect();
        let own = what(member, bytes)?;
        for (path, what) in above.into_iter().chain([(member.path.as_path(), own)]) {
            match all.entry(path.to_owned()) {
                Entry::Vacant(free) => drop(free.insert(Found { whose, what })),
                Entry::Occupied(taken) if taken.get().what == what || taken.get().whose == whose => {}
                Entry::Occupied(taken) => {
                    conflict.get_or_insert((path.to_owned(), taken.get().whose));
                }
            }
        }
        Ok(())
    });
    read.map_err(|source| part(build, source))?;
    if let Some((path, one)) = conflict {
        return Err(Error::Conflict {
            path: path.display().to_string(),
            one: parts[one].0.clone(),
            other: parts[whose].0.clone(),
        });
    }
    match all.len() as u64 > Limits::SOURCE.entries {
        true => Err(Error::TooMany),
        false => Ok(()),
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
        let combined = combine(parts, &mut bytes).map_err(|error| error.to_string());
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
}
