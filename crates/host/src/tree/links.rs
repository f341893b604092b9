//! Symbolic links of a tree, and which of them lead out of it. One with an absolute target does not: it is about the root
//! where the tree will be used.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsFd,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::stays_inside;

/// The symbolic links of a tree, and what they say.
#[derive(Default)]
pub(super) struct Links(BTreeMap<PathBuf, PathBuf>);

impl Links {
    pub fn insert(&mut self, path: PathBuf, target: PathBuf) {
        self.0.insert(path, target);
    }

    pub fn remove(&mut self, path: &Path) {
        self.0.remove(path);
    }

    /// Those that lead out of the tree that is at `root`. A link's text can stay inside while what it leads through does
    /// not: the kernel knows.
    pub fn out_of(&self, root: impl AsFd) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(move |(path, target)| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            let looked = openat2(&root, path, flags, Mode::empty(), resolve);
            let leads_out = matches!(looked, Err(Errno::XDEV)) && !self.is_absolute(path);
            (leads_out || !stays_inside(path, target)).then_some(path.as_path())
        })
    }

    /// Whether a path ends or goes on at an absolute link, from where on it is not about this tree.
    fn is_absolute(&self, path: &Path) -> bool {
        // As many as the kernel follows: it found the way out within them.
        const LINKS: usize = 40;
        let mut at = PathBuf::new();
        let mut rest: Vec<PathBuf> = vec![path.to_owned()];
        let mut followed = 0;
        while let Some(next) = rest.pop() {
            let mut components = next.components();
            let Some(component) = components.next() else {
                continue;
            };
            rest.push(components.as_path().to_owned());
            match component {
                Component::Normal(name) => at.push(name),
                Component::ParentDir if !at.pop() => return false,
                _ => continue,
            }
            if let Some(target) = self.0.get(&at) {
                followed += 1;
                if target.is_absolute() || followed > LINKS {
                    return target.is_absolute();
                }
                at.pop();
                rest.push(target.clone());
            }
        }
        false
    }
}

/// The symbolic links of a directory that lead out of it, of its first `most` entries. Those that `is_left_out` says are
/// not looked into.
///
/// # Errors
/// When something cannot be read.
pub fn links_out(root: &Path, most: u64, is_left_out: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, root, flags, Mode::empty())?;
    let mut links = Links::default();
    let mut open = vec![PathBuf::new()];
    let mut count = 0;
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(root.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type()?;
            count += 1;
            if count > most {
                open.clear();
                break;
            }
            if is_left_out(&path) {
                continue;
            }
            if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                links.insert(path, target);
            } else if kind.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(links.out_of(&directory).map(Path::to_owned).collect())
}
