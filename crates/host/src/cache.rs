//! Directories that are kept from one build to the next: what tools downloaded, and what a buildspec names.
//!
//! A container never writes to a cache. It is the lowest layer below the container's files; what the container added is
//! taken out of its upper directory afterwards, as a new generation. So a cache cannot fill the disk beyond a build's own
//! limit, two builds at a time do not see each other, and a crash leaves the generation before.

mod stock;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{Digest, Place};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::layer::{
    Error,
    copy::{self, Copied, Copy, Deletions},
    io_error, remove_tree, remove_trees, size,
};

/// The directories where pip, npm and apt keep what they downloaded, relative to a container's root.
pub(crate) const DOWNLOADS: [&str; 3] = ["root/.cache/pip", "root/.npm", ARCHIVES];
/// Where apt also keeps its lock, and what it has in part.
const ARCHIVES: &str = "var/cache/apt/archives";
/// Where generations are made and go away, beside the caches. No tenant can have this name.
const STAGING: &str = "+new";
/// So begin the names of what goes away there.
const OLD: &str = "old-";

/// Caches under `<node>/cache/<name>/<generation>`. No two processes may have them open.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    root: Utf8PathBuf,
    limit_bytes: u64,
    /// How many containers stand on a generation.
    used: Arc<Mutex<HashMap<Utf8PathBuf, usize>>>,
    /// Held by who sweeps: another would look for what it removes.
    sweeping: Arc<Mutex<()>>,
}

/// A generation that a container stands on: not removed before this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub files: Utf8PathBuf,
    used: Arc<Mutex<HashMap<Utf8PathBuf, usize>>>,
}

/// What of a container's files becomes a cache's next generation.
#[derive(Debug)]
pub(crate) struct Crop<'a> {
    /// Of the cache.
    pub name: &'a str,
    /// Another cache that the container stood on: the first generation goes on from that.
    pub restored: Option<&'a Lease>,
    /// What the container wrote.
    pub upper: &'a Utf8Path,
    /// Relative to the container's root.
    pub directories: &'a [String],
    pub uid_base: u32,
    pub deletions: Deletions,
    /// A cache that has a generation stays as it is.
    pub once: bool,
}

/// What came of a container's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harvest {
    /// They are the cache's newest generation.
    Kept,
    /// There were none.
    Nothing,
    /// The cache has a generation, and was to have no other.
    There,
    /// The cache would have more bytes than this, and is begun anew.
    TooLarge(u64),
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&self.files) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.files);
            }
        }
    }
}

impl Crop<'_> {
    /// Those of the directories that the container wrote. One within another is taken with that.
    fn written(&self) -> Vec<(&Utf8Path, OwnedFd)> {
        let mut directories: Vec<&Utf8Path> = self.directories.iter().map(Utf8Path::new).collect();
        // Part by part, so that what is within a directory comes right after it.
        directories.sort_unstable();
        directories.dedup_by(|inner, outer| inner.starts_with(*outer));
        let open = |directory| Some((directory, inside(self.upper, directory)?));
        directories.into_iter().filter_map(open).collect()
    }
}

impl Caches {
    /// A cache that grows beyond `limit_bytes` is begun anew. What a node that was killed left half-made or half-removed goes.
    pub fn open(node: &Utf8Path, limit_bytes: u64) -> Result<Self, Error> {
        let root = node.join("cache");
        remove_tree(&root.join(STAGING))?;
        let own = Self {
            root,
            limit_bytes,
            used: Arc::default(),
            sweeping: Arc::default(),
        };
        own.staging("")?;
        Ok(own)
    }

    /// Removes all caches of a node that has them not open.
    pub fn remove_all(node: &Utf8Path) -> Result<(), Error> {
        remove_tree(&node.join("cache"))
    }

    /// The newest generation of a cache, if it has any. `name` is a relative path of plain names.
    pub fn lease(&self, name: &str) -> Result<Option<Lease>, Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = self.generations(name)?.pop() else {
            return Ok(None);
        };
        let home = self.root.join(name);
        stock::touch(&home, crate::now());
        let files = home.join(newest.to_string());
        *used.entry(files.clone()).or_default() += 1;
        Ok(Some(Lease {
            files,
            used: Arc::clone(&self.used),
        }))
    }

    /// The first of these caches that has anything, and which it is.
    pub fn lease_first<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Option<(usize, Lease)>, Error> {
        for (at, name) in names.enumerate() {
            if let Some(lease) = self.lease(name)? {
                return Ok(Some((at, lease)));
            }
        }
        Ok(None)
    }

    /// The names of the caches below `name`, the newest first.
    pub fn inner(&self, name: &str) -> Result<Vec<String>, Error> {
        let home = self.root.join(name);
        let entries = match home.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &home)(error)),
        };
        let mut found: Vec<(std::time::SystemTime, String)> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| {
                Some((
                    entry.metadata().ok()?.modified().ok()?,
                    entry.file_name().to_owned(),
                ))
            })
            .collect();
        found.sort_unstable();
        Ok(found.into_iter().rev().map(|(_, name)| name).collect())
    }

    /// Removes the caches below `name` but the newest so many, and those that a container stands on.
    pub fn trim(&self, name: &str, most: usize) -> Result<(), Error> {
        for inner in self.inner(name)?.into_iter().skip(most) {
            let path = self.root.join(name).join(inner);
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            if used.keys().any(|own| own.starts_with(&path)) {
                continue;
            }
            let aside = self.set_aside(&path)?;
            drop(used);
            remove_trees(aside)?;
        }
        Ok(())
    }

    /// Takes a tree out of sight at once. It is the caller's to remove, without the lock: that takes as long as it has files.
    fn set_aside(&self, path: &Utf8Path) -> Result<Option<Utf8PathBuf>, Error> {
        let aside = self.staging(OLD)?;
        match fs::rename(path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("rename", path)(error)),
        }
    }

    /// A file beside a cache's generations, which goes when the cache is forgotten; `None` when there is none.
    pub fn note(&self, name: &str, file: &str, most: usize) -> Option<Vec<u8>> {
        use io::Read as _;
        let file = fs::File::open(self.root.join(name).join(file)).ok()?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Writes such a file, at once or not at all.
    pub fn write_note(&self, name: &str, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let home = self.root.join(name);
        let new = self.staging("")?;
        fs::write(&new, bytes).map_err(io_error("write", &new))?;
        let _used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&home).map_err(io_error("create", &home))?;
        fs::rename(&new, home.join(file)).map_err(io_error("rename", &new))?;
        stock::begin(&home)
    }

    /// Takes what a container wrote into a new generation.
    pub fn harvest(&self, crop: &Crop<'_>) -> Result<Harvest, Error> {
        let written = crop.written();
        if written.is_empty() {
            return Ok(Harvest::Nothing);
        }
        if crop.once && !self.generations(crop.name)?.is_empty() {
            return Ok(Harvest::There);
        }
        let new = self.staging("")?;
        let taken = match self.take(crop, &written, &new) {
            Ok(()) => size(&new).and_then(|bytes| self.publish(crop, &new, bytes)),
            Err(Error::Large { .. }) => self.publish(crop, &new, u64::MAX),
            Err(error) => Err(error),
        };
        if !matches!(taken, Ok(Harvest::Kept)) {
            remove_tree(&new)?;
        }
        taken
    }

    /// Makes the generation where nobody looks for it.
    fn take(&self, crop: &Crop<'_>, written: &[(&Utf8Path, OwnedFd)], new: &Utf8Path) -> Result<(), Error> {
        fs::create_dir(new).map_err(io_error("create", new))?;
        let previous = match crop.once {
            true => None,
            false => self.lease(crop.name)?,
        };
        if let Some(previous) = previous.as_ref().or(crop.restored) {
            link_tree(&previous.files, new)?;
        }
        let mut so_far = Copied::default();
        for (directory, open) in written {
            let to = new.join(directory);
            make_directories(new, directory)?;
            let from = Utf8PathBuf::from(format!("/proc/self/fd/{}/.", open.as_raw_fd()));
            Copy {
                uid_base: crop.uid_base,
                skip: match directory.as_str() {
                    ARCHIVES => &["lock", "partial"],
                    _ => &[],
                },
                deletions: crop.deletions,
                epoch: None,
                most: self.limit_bytes,
            }
            .further(&mut so_far, &from, &to)?;
        }
        Ok(())
    }

    /// Puts a generation in its place, and removes those before it that nobody stands on.
    fn publish(&self, crop: &Crop<'_>, new: &Utf8Path, bytes: u64) -> Result<Harvest, Error> {
        let home = self.root.join(crop.name);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = self.generations(crop.name)?;
        // Only here is it certain that no other build was first.
        if crop.once && !generations.is_empty() {
            return Ok(Harvest::There);
        }
        let next = generations.last().map_or(1, |newest| newest + 1);
        let fits = bytes <= self.limit_bytes;
        if fits {
            fs::create_dir_all(&home).map_err(io_error("create", &home))?;
            stock::record(&home, bytes)?;
            fs::rename(new, home.join(next.to_string())).map_err(io_error("rename", new))?;
        } else if !generations.is_empty() {
            stock::record(&home, 0)?;
        }
        let mut aside = Vec::new();
        for generation in generations {
            let path = home.join(generation.to_string());
            if !used.contains_key(&path) {
                aside.extend(self.set_aside(&path)?);
            }
        }
        drop(used);
        remove_trees(aside)?;
        Ok(match fits {
            true => Harvest::Kept,
            false => Harvest::TooLarge(self.limit_bytes),
        })
    }

    /// A new name there. The directory is made each time: whoever needs room removes the caches of a node that runs.
    fn staging(&self, prefix: &str) -> Result<Utf8PathBuf, Error> {
        let home = self.root.join(STAGING);
        fs::create_dir_all(&home).map_err(io_error("create", &home))?;
        Ok(home.join(format!("{prefix}{}", random())))
    }

    /// Removes caches whose names begin with these parts. Containers that stand on one see it vanish.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        remove_trees(self.set_aside(&self.root.join(name))?)
    }

    fn generations(&self, name: &str) -> Result<Vec<u64>, Error> {
        let home = self.root.join(name);
        let entries = match home.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &home)(error)),
        };
        let mut numbers: Vec<u64> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// The name of an app's cache: one for each branch, so that a branch cannot put anything into another's. The digest is
/// whole: its pusher chooses a branch's name, and could find one that begins like another's.
pub(crate) fn of_branch(place: &Place, branch: &str) -> String {
    format!("{}/app-{}/{}", place.tenant, place.app, Digest::of(branch).hex())
}

/// The branches on whose caches another may go on: its own first, and the one that all come from: that of production, or by
/// its usual names where there is none; those begin with nobody's then. What another branch left is never trusted.
pub(crate) fn branches<'a>(own: &'a str, trunk: Option<&'a str>) -> Vec<&'a str> {
    const USUAL: [&str; 2] = ["main", "master"];
    let usual: &[&str] = match trunk {
        None if !USUAL.contains(&own) => &USUAL,
        _ => &[],
    };
    let mut all = vec![own];
    all.extend(
        trunk
            .into_iter()
            .chain(usual.iter().copied())
            .filter(|branch| *branch != own),
    );
    all
}

/// Makes the name of a file that nobody else has.
pub(crate) fn random() -> String {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).expect("the kernel gives random bytes");
    hex::encode(bits)
}

/// A directory that a container wrote. It may have put a link anywhere in its place or above: that is none.
pub(crate) fn inside(upper: &Utf8Path, directory: impl AsRef<Utf8Path>) -> Option<OwnedFd> {
    let root = openat(
        CWD,
        upper.as_std_path(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        &root,
        directory.as_ref().as_std_path(),
        flags,
        Mode::empty(),
        resolve,
    )
    .ok()
}

/// Makes a path of directories in a new generation. What an earlier build left in their place goes: a link there would
/// lead out of the cache.
fn make_directories(generation: &Utf8Path, directory: &Utf8Path) -> Result<(), Error> {
    let mut path = generation.to_owned();
    for part in directory {
        path.push(part);
        if !copy::is_directory(&path) {
            copy::remove(&path)?;
            fs::create_dir(&path).map_err(io_error("create", &path))?;
        }
    }
    Ok(())
}

/// A copy that shares its files with the original: neither may be written to, only replaced.
fn link_tree(from: &Utf8Path, to: &Utf8Path) -> Result<(), Error> {
    for entry in from.read_dir_utf8().map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(io_error("read", from))?.is_dir() {
            fs::create_dir(&to).map_err(io_error("create", &to))?;
            let mode = fs::metadata(from).map_err(io_error("read", from))?.permissions();
            fs::set_permissions(&to, mode).map_err(io_error("change", &to))?;
            link_tree(from, &to)?;
        } else {
            fs::hard_link(from, &to).map_err(io_error("link", &to))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
