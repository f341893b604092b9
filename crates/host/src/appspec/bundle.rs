//! A revision on the disk: unpacked from its tar, and listed.
//!
//! Both refuse what could reach outside: absolute and climbing paths, links that leave the revision, names that cannot
//! be written into a line, devices, and more of anything than a revision has.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    ops::Bound,
    path::{Component, Path},
};

use camino::{Utf8Path, Utf8PathBuf};

use super::Error;

/// Most entries of a revision.
const ENTRIES: usize = 500_000;

/// Most bytes of a revision when unpacked.
const BYTES: u64 = 16 << 30;

/// Absolute links may point here: interpreters and libraries of the system, which a Python environment links to.
const SYSTEM: [&str; 5] = ["/usr/", "/bin/", "/lib/", "/lib64/", "/sbin/"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    File,
    Directory,
    /// And what it says.
    Link(Utf8PathBuf),
}

/// What a revision holds, by path in it.
#[derive(Debug, Clone)]
pub struct Bundle {
    root: Utf8PathBuf,
    entries: BTreeMap<Utf8PathBuf, Entry>,
}

impl Bundle {
    pub fn new(root: Utf8PathBuf, entries: BTreeMap<Utf8PathBuf, Entry>) -> Self {
        Self { root, entries }
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// When a name is not UTF-8 or has a line break, or when there are too many.
    pub fn list(root: &Utf8Path) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        let mut open = vec![Utf8PathBuf::new()];
        while let Some(directory) = open.pop() {
            let full = root.join(&directory);
            for entry in full.read_dir_utf8().map_err(Error::files("list", &full))? {
                let entry = entry.map_err(Error::files("list", &full))?;
                let path = directory.join(entry.file_name());
                if path.as_str().contains(['\n', '\r', '\0']) {
                    return Err(Error::Refused(format!("the revision has a name with a line break: {path:?}")));
                }
                let kind = entry.file_type().map_err(Error::files("look at", entry.path()))?;
                let found = if kind.is_symlink() {
                    Entry::Link(entry.path().read_link_utf8().map_err(Error::files("read", entry.path()))?)
                } else if kind.is_dir() {
                    open.push(path.clone());
                    Entry::Directory
                } else {
                    Entry::File
                };
                entries.insert(path, found);
                if entries.len() > ENTRIES {
                    return Err(too_many());
                }
            }
        }
        Ok(Self::new(root.to_owned(), entries))
    }

    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// What is at a path. The empty path is the revision itself.
    pub fn get(&self, path: &Utf8Path) -> Option<&Entry> {
        if path.as_str().is_empty() { Some(&Entry::Directory) } else { self.entries.get(path) }
    }

    /// The entries of one directory.
    pub fn children<'a>(&'a self, directory: &Utf8Path) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let start = directory.to_owned();
        self.entries
            .range((Bound::Excluded(directory.to_owned()), Bound::Unbounded))
            .take_while({
                let start = start.clone();
                move |(path, _)| path.starts_with(&start)
            })
            .filter(move |(path, _)| path.parent() == Some(start.as_path()))
            .filter_map(|(path, entry)| Some((path.file_name()?, entry)))
    }

    /// Is a directory on the way to this path a link?
    pub fn goes_through_link(&self, path: &Utf8Path) -> bool {
        path.ancestors().skip(1).any(|above| matches!(self.entries.get(above), Some(Entry::Link(_))))
    }
}

/// Unpacks a revision into a new directory. Nothing is left when it fails.
///
/// # Errors
/// When it is no tar, or has something that is refused.
pub fn unpack(tar: &Path, into: &Path) -> Result<(), Error> {
    if into.symlink_metadata().is_ok() {
        fs::remove_dir_all(into).map_err(Error::files("remove", into))?;
    }
    fs::create_dir_all(into).map_err(Error::files("make", into))?;
    let outcome = unpack_entries(tar, into);
    if outcome.is_err() {
        // The directory was ours a moment ago; what stays of it is replaced by the next attempt.
        let _ = fs::remove_dir_all(into);
    }
    outcome
}

fn unpack_entries(tar: &Path, into: &Path) -> Result<(), Error> {
    let file = fs::File::open(tar).map_err(Error::files("open", tar))?;
    let mut archive = tar::Archive::new(io::BufReader::new(file).take(BYTES));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    archive.set_unpack_xattrs(false);
    archive.set_overwrite(false);
    let (mut count, mut bytes) = (0, 0);
    for entry in archive.entries().map_err(Error::Tar)? {
        let mut entry = entry.map_err(Error::Tar)?;
        let path = entry.path().map_err(Error::Tar)?.into_owned();
        count += 1;
        bytes += entry.size();
        if count > ENTRIES || bytes > BYTES {
            return Err(too_many());
        }
        allowed(&path, entry.header().entry_type(), entry.link_name().map_err(Error::Tar)?.as_deref())?;
        // Refuses to write through a link that an earlier entry made.
        entry.unpack_in(into).map_err(Error::Tar)?;
    }
    Ok(())
}

fn allowed(path: &Path, kind: tar::EntryType, link: Option<&Path>) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::Refused(format!("the revision is refused: {} {why}", path.display())));
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return refuse("leaves the revision");
    }
    match kind {
        kind if kind.is_file() || kind.is_dir() => Ok(()),
        kind if kind.is_pax_global_extensions() => Ok(()),
        kind if kind.is_symlink() => match link {
            Some(target) if stays(path, target) => Ok(()),
            _ => refuse("is a symbolic link that leaves the revision"),
        },
        kind if kind.is_hard_link() => match link {
            Some(target) if target.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) => {
                Ok(())
            }
            _ => refuse("is a hard link that leaves the revision"),
        },
        _ => refuse("is neither a file nor a directory nor a link"),
    }
}

/// Does a link at `path` stay in the revision, as text? Or point to the system's own programs?
fn stays(path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        let text = target.to_string_lossy();
        return SYSTEM.iter().any(|system| text.starts_with(system))
            && !target.components().any(|part| part == Component::ParentDir);
    }
    let mut depth = path.components().filter(|part| matches!(part, Component::Normal(_))).count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    true
}

fn too_many() -> Error {
    Error::Refused(format!("the revision is refused: more than {ENTRIES} entries or {} GiB", BYTES >> 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let data = if kind.is_file() { content.as_bytes() } else { b"" };
            if !kind.is_file() && !content.is_empty() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_size(data.len() as u64);
            let name = header.as_gnu_mut().unwrap();
            name.name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    #[test]
    fn hostile_revisions_leave_nothing() {
        use tar::EntryType;
        let cases: &[&[(&str, EntryType, &str)]] = &[
            &[("../out", EntryType::Regular, "x")],
            &[("/etc/out", EntryType::Regular, "x")],
            &[("a", EntryType::Symlink, "../../out")],
            &[("a", EntryType::Symlink, "/etc/passwd")],
            &[("a", EntryType::Symlink, "/usr/../etc/passwd")],
            &[("a", EntryType::Link, "/etc/passwd")],
            &[("null", EntryType::Char, "")],
            &[("pipe", EntryType::Fifo, "")],
            &[("d", EntryType::Symlink, "e"), ("d/f", EntryType::Regular, "x")],
        ];
        for case in cases {
            let directory = tempfile::tempdir().unwrap();
            let into = directory.path().join("archive");
            let outcome = unpack(tar_of(case).path(), &into);
            assert!(outcome.is_err(), "{case:?}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{case:?}");
        }
    }

    #[test]
    fn a_revision_with_links_of_its_own_unpacks() {
        use tar::EntryType;
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("archive");
        let tar = tar_of(&[
            ("bin/python", EntryType::Symlink, "/usr/bin/python3"),
            ("lib/a", EntryType::Regular, "text"),
            ("lib/b", EntryType::Symlink, "../lib/a"),
        ]);
        unpack(tar.path(), &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("lib/b")).unwrap(), "text");
        let root = Utf8PathBuf::from_path_buf(into).unwrap();
        let bundle = Bundle::list(&root).unwrap();
        let names: Vec<&str> = bundle.children(Utf8Path::new("lib")).map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
        let top: Vec<&str> = bundle.children(Utf8Path::new("")).map(|(name, _)| name).collect();
        assert_eq!(top, ["bin", "lib"]);
        assert!(bundle.goes_through_link(Utf8Path::new("bin/python/x")));
    }

    #[test]
    fn garbage_is_no_tar() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![b'x'; 4096]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        assert!(unpack(file.path(), &directory.path().join("a")).is_err());
    }
}
