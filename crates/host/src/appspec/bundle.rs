//! A revision on the disk: unpacked from a tar, tgz or zip, and listed.
//!
//! Names that cannot be a line of the clean-up file are refused: a line break in one could name any other file.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
};

use camino::{Utf8Path, Utf8PathBuf};

use super::Error;
use crate::tree::{self, Format, Limits};

/// Most entries of a revision.
const ENTRIES: usize = 500_000;

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
                    return Err(Error::Refused(format!(
                        "the revision has a name with a line break: {path:?}"
                    )));
                }
                let kind = entry.file_type().map_err(Error::files("look at", entry.path()))?;
                let found = if kind.is_symlink() {
                    Entry::Link(
                        entry
                            .path()
                            .read_link_utf8()
                            .map_err(Error::files("read", entry.path()))?,
                    )
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
        if path.as_str().is_empty() {
            Some(&Entry::Directory)
        } else {
            self.entries.get(path)
        }
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
        path.ancestors()
            .skip(1)
            .any(|above| matches!(self.entries.get(above), Some(Entry::Link(_))))
    }
}

/// Unpacks a revision into a new directory. Nothing is left when it fails.
///
/// # Errors
/// When it is not of that format, or has something that is refused: see [`crate::tree`].
pub fn unpack(bundle: &Path, format: Format, into: &Path) -> Result<(), Error> {
    if into.symlink_metadata().is_ok() {
        fs::remove_dir_all(into).map_err(Error::files("remove", into))?;
    }
    fs::create_dir_all(into).map_err(Error::files("make", into))?;
    let unpack = || {
        let file = fs::File::open(bundle).map_err(Error::files("open", bundle))?;
        let into =
            Utf8Path::from_path(into).ok_or_else(|| Error::Refused("a path that is not UTF-8".to_owned()))?;
        tree::unpack_file(file, format, into, &Limits::SOURCE).map_err(Error::Archive)
    };
    let outcome = unpack();
    if outcome.is_err() {
        // The directory was ours a moment ago; what stays of it is replaced by the next attempt.
        let _ = fs::remove_dir_all(into);
    }
    outcome.map(drop)
}

/// Takes away a directory around everything, as archives of a repository have one: when no appspec is at the top and
/// one is in exactly one directory, that directory becomes the revision. `named`: what the appspec is called, where it
/// is not `appspec.*`.
///
/// # Errors
/// When something cannot be listed or moved, or a link leads out of that directory.
pub fn strip(archive: &Path, named: Option<&Utf8Path>) -> Result<(), Error> {
    let top = entries(archive)?;
    if has_appspec(&top, archive, named) {
        return Ok(());
    }
    let mut holders = Vec::new();
    for directory in top.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        if has_appspec(&entries(directory)?, directory, named) {
            holders.push(directory.clone());
        }
    }
    let [holder] = holders.as_slice() else {
        return Ok(());
    };
    let name = holder.file_name().unwrap_or_default();
    let aside = archive.with_extension("temp");
    if aside.symlink_metadata().is_ok() {
        fs::remove_dir_all(&aside).map_err(Error::files("remove", &aside))?;
    }
    fs::rename(archive, &aside).map_err(Error::files("move", archive))?;
    fs::rename(aside.join(name), archive).map_err(Error::files("move", holder))?;
    fs::remove_dir_all(&aside).map_err(Error::files("remove", &aside))?;
    // One that led to what was beside the directory leads out of the revision now.
    check_links(archive)
}

/// Refuses a revision with a link out of it, as archives with one are refused.
///
/// # Errors
/// When it has one, or cannot be read.
pub fn check_links(root: &Path) -> Result<(), Error> {
    let out = tree::links_out(root, u64::MAX, |_| false).map_err(Error::files("list", root))?;
    match out.first() {
        Some(path) => Err(Error::Refused(format!(
            "the revision has an entry `{}` that is refused: it is a link out of the tree",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Copies a tree into a new directory: links as links, modes kept.
///
/// # Errors
/// When something cannot be read or written, or is no file, directory or link.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else if !kind.is_file() {
            let path = entry.path();
            return Err(io::Error::other(format!(
                "{} is a device or a pipe",
                path.display()
            )));
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).map_err(Error::files("list", directory))?;
    Ok(listed.filter_map(Result::ok).map(|entry| entry.path()).collect())
}

fn has_appspec(entries: &[PathBuf], directory: &Path, named: Option<&Utf8Path>) -> bool {
    let appspec = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("appspec."))
    };
    entries.iter().any(appspec) || named.is_some_and(|named| directory.join(named).is_file())
}

fn too_many() -> Error {
    Error::Refused(format!("the revision is refused: more than {ENTRIES} entries"))
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
            &[
                ("a", EntryType::Symlink, "/etc"),
                ("a/out", EntryType::Regular, "x"),
            ],
            &[("a", EntryType::Link, "/etc/passwd")],
            &[("null", EntryType::Char, "")],
            &[("pipe", EntryType::Fifo, "")],
            &[("d", EntryType::Symlink, "e"), ("d/f", EntryType::Regular, "x")],
        ];
        for case in cases {
            let directory = tempfile::tempdir().unwrap();
            let into = directory.path().join("archive");
            let outcome = unpack(tar_of(case).path(), Format::Any, &into);
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
            ("bin/python", EntryType::Symlink, "../lib/a"),
            ("lib/a", EntryType::Regular, "text"),
            ("lib/b", EntryType::Symlink, "../lib/a"),
        ]);
        unpack(tar.path(), Format::Tar, &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("lib/b")).unwrap(), "text");
        let root = Utf8PathBuf::from_path_buf(into).unwrap();
        let bundle = Bundle::list(&root).unwrap();
        let names: Vec<&str> = bundle
            .children(Utf8Path::new("lib"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        let top: Vec<&str> = bundle.children(Utf8Path::new("")).map(|(name, _)| name).collect();
        assert_eq!(top, ["bin", "lib"]);
        assert!(bundle.goes_through_link(Utf8Path::new("bin/python/x")));
    }

    #[test]
    fn a_directory_around_everything_is_taken_away() {
        let cases: &[(&[&str], Option<&str>, &[&str])] = &[
            (&["shop-1/appspec.yml", "shop-1/a"], None, &["a", "appspec.yml"]),
            (&["shop-1/appspec.json", "other/a"], None, &["appspec.json"]),
            (&["shop-1/my.yml"], Some("my.yml"), &["my.yml"]),
            (&["shop-1/my.yml"], None, &["shop-1"]),
            (&["a/appspec.yml", "b/appspec.yml"], None, &["a", "b"]),
            (&["a/appspec.yml", "appspec.yml"], None, &["a", "appspec.yml"]),
            (&["a/b/appspec.yml"], None, &["a"]),
        ];
        for (files, named, expected) in cases {
            let scratch = tempfile::tempdir().unwrap();
            let archive = scratch.path().join("deployment-archive");
            for file in *files {
                let path = archive.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            strip(&archive, named.map(Utf8Path::new)).unwrap();
            let mut found: Vec<String> = fs::read_dir(&archive)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            assert_eq!(found, *expected, "{files:?}");
            assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "{files:?}");
        }
    }

    #[test]
    fn garbage_is_no_tar() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![b'x'; 4096]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        assert!(unpack(file.path(), Format::Any, &directory.path().join("a")).is_err());
    }
}
