//! Layers: directories owned by real ids 0 to 65535, by the digest of what made them.
//!
//! The room exists so that what was made once is never made again, and so that a layer is either all there or not there.
//! It knows nothing of scripts or bases.

pub(crate) mod archive;
pub(crate) mod copy;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::{
    Digest,
    port::{Commit, Fault, Layer},
};
use serde::{Deserialize, Serialize};

use crate::{cache::random, mount};

/// So begin the names of layers that go away.
const OLD: &str = ".old-";

/// Layers under `<node>/layers/<64 hex digits of the key>`: the directory `root` and the file `layer.json`.
#[derive(Debug, Clone)]
pub struct Layers {
    root: Utf8PathBuf,
}

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub key: Digest,
    /// The layer that it stands on; `None` for a base.
    pub parent: Option<Digest>,
    /// For people: `base debian-12`, `infra/install.sh`.
    pub made_by: String,
    pub size_bytes: u64,
    /// The commit that it was first made for.
    pub commit: Option<Commit>,
    pub created_at: Timestamp,
    /// The digest of its files as a tar: the `diff_id` of the OCI image specification. A layer that was made before they
    /// were kept has none.
    #[serde(default)]
    pub content: Option<Digest>,
    /// Of the script that made it, or of what a base was made from: a list of packages, a manifest, a tar.
    #[serde(default)]
    pub source: Option<Digest>,
    /// Nothing in it, and in what is made on it, is later, in seconds since 1970.
    #[serde(default)]
    pub epoch: i64,
}

impl Record {
    /// What it is, apart from what made it.
    pub fn identity(&self) -> Digest {
        self.content.unwrap_or(self.key)
    }

    pub fn summary(&self) -> Layer {
        Layer {
            key: self.key,
            made_by: self.made_by.clone(),
            size_bytes: self.size_bytes,
            source: self.source,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the record of layer {path} cannot be read")]
    Record {
        path: Utf8PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("there is no layer {0}")]
    Missing(Digest),
    #[error("{path} belongs to user {id}, who is none of the container's")]
    Stranger { path: Utf8PathBuf, id: u32 },
    #[error("the directories in {0} lie too deep in each other")]
    Deep(Utf8PathBuf),
    #[error("with {path} there are more than {} MiB of files, holes counted", most >> 20)]
    Large { path: Utf8PathBuf, most: u64 },
    #[error(
        "{0} has a name that says in an image that another file is deleted (`.wh.`, see \"Whiteouts\" in OCI's image specification)"
    )]
    Marked(Utf8PathBuf),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Deep(_) | Error::Large { .. } | Error::Marked(_) => Self::customer(error.to_string()),
            error => Self::platform(crate::logs::chain(&error))
                .next("see whether the data directory's disk is full"),
        }
    }
}

/// A layer in the making. Dropped before it is published, it is removed.
#[derive(Debug)]
pub struct Staging {
    path: Utf8PathBuf,
}

impl Layers {
    /// The layers under `<data>/node`. What an interrupted node was making is removed.
    pub fn open(node: &Utf8Path) -> Result<Self, Error> {
        let root = node.join("layers");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self { root })
    }

    /// Removes what a node that was killed left half-made. To be called while nothing is being made.
    pub fn clean(&self) -> Result<(), Error> {
        for path in self.entries()? {
            let unfinished = path.file_name().is_some_and(|name| name.starts_with('.'));
            // A base is installed below a mount. That of a killed process is still there for who shares its namespace.
            if unfinished && let Err(error) = mount::detach_below(&path) {
                tracing::warn!(%path, error = crate::logs::chain(&error), "a mount in an unfinished layer stays");
            }
            // What a program that outlived its node still writes to is removed the next time.
            if unfinished && let Err(error) = remove_tree(&path) {
                tracing::warn!(%path, error = crate::logs::chain(&error), "an unfinished layer stays");
            }
        }
        Ok(())
    }

    pub fn get(&self, key: &Digest) -> Result<Option<Record>, Error> {
        let path = self.directory(key).join("layer.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Record { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// The files of a layer, as an overlay's lower directory.
    pub fn files(&self, key: &Digest) -> Utf8PathBuf {
        self.directory(key).join("root")
    }

    /// What the next script of the same image finds and the image does not have, such as lists of packages, if the layer
    /// has any: an overlay's lower directory.
    pub fn aside(&self, key: &Digest) -> Option<Utf8PathBuf> {
        let path = self.directory(key).join("aside");
        path.is_dir().then_some(path)
    }

    /// A place to make a layer in, on the same disk.
    pub fn stage(&self) -> Result<Staging, Error> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).expect("the kernel gives random bytes");
        let path = self.root.join(format!(".new-{}", hex::encode(bits)));
        fs::create_dir_all(path.join("root")).map_err(io_error("create", &path))?;
        Ok(Staging { path })
    }

    /// The layer appears, whole and durable. One that is there already stays.
    pub fn publish(&self, staging: Staging, record: &Record) -> Result<(), Error> {
        let path = staging.path.join("layer.json");
        let json = serde_json::to_vec_pretty(record).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        fs::write(&path, json).map_err(io_error("write", &path))?;
        let directory = fs::File::open(&staging.path).map_err(io_error("open", &staging.path))?;
        // Thousands of files: one flush of the disk is cheaper than one of each.
        rustix::fs::syncfs(&directory).map_err(|errno| io_error("flush", &staging.path)(errno.into()))?;
        let to = self.directory(&record.key);
        match fs::rename(&staging.path, &to) {
            Ok(()) => {}
            Err(_) if self.get(&record.key)?.is_some() => return Ok(()),
            Err(error) => return Err(io_error("rename", &staging.path)(error)),
        }
        fs::File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(io_error("flush", &self.root))
    }

    /// Notes that a layer is used now: [`Layers::sweep`] spares what was used lately.
    pub fn touch(&self, key: &Digest, now: Timestamp) -> Result<(), Error> {
        touch(&self.directory(key).join("layer.json"), now)
    }

    pub fn list(&self) -> Result<Vec<Record>, Error> {
        let keys = self.entries()?;
        let keys = keys
            .iter()
            .filter_map(|path| format!("sha256:{}", path.file_name()?).parse().ok());
        let records: Result<Vec<Option<Record>>, Error> = keys.map(|key: Digest| self.get(&key)).collect();
        Ok(records?.into_iter().flatten().collect())
    }

    /// Sets aside the layers that are neither in `keep` nor used since `unused_since`, nor stand below such a one, and gives
    /// their records. A layer that a container is mounted on must be in `keep`. It is quick:
    /// [`Layers::remove_old`] gives the room back.
    pub fn sweep(&self, keep: &BTreeSet<Digest>, unused_since: Timestamp) -> Result<Vec<Record>, Error> {
        let records: BTreeMap<Digest, Record> = self
            .list()?
            .into_iter()
            .map(|record| (record.key, record))
            .collect();
        let mut needed = keep.clone();
        for key in records.keys() {
            if used_since(&self.directory(key).join("layer.json"), unused_since)? {
                let mut below = Some(*key);
                while let Some(key) = below.filter(|key| needed.insert(*key)) {
                    below = records.get(&key).and_then(|record| record.parent);
                }
            }
        }
        let mut removed = Vec::new();
        for (key, record) in records {
            if !needed.contains(&key) {
                // It may be made and set aside again before this one is away.
                let away = self.root.join(format!("{OLD}{}-{}", key.hex(), random()));
                let directory = self.directory(&key);
                fs::rename(&directory, &away).map_err(io_error("rename", &directory))?;
                removed.push(record);
            }
        }
        Ok(removed)
    }

    /// Removes what was set aside: of gigabytes and many files, so that nobody should have to wait for it.
    pub fn remove_old(&self) -> Result<(), Error> {
        let is_old = |path: &Utf8PathBuf| path.file_name().is_some_and(|name| name.starts_with(OLD));
        remove_trees(self.entries()?.into_iter().filter(is_old))
    }

    fn directory(&self, key: &Digest) -> Utf8PathBuf {
        self.root.join(key.hex())
    }

    fn entries(&self) -> Result<Vec<Utf8PathBuf>, Error> {
        self.root
            .read_dir_utf8()
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.into_path()))
                    .collect()
            })
            .map_err(io_error("read", &self.root))
    }
}

impl Staging {
    /// Where the layer's files belong.
    pub fn files(&self) -> Utf8PathBuf {
        self.path.join("root")
    }

    /// Where there is room for what does not belong to the layer. To be removed before the layer is published.
    pub fn workshop(&self) -> Utf8PathBuf {
        self.path.join("work")
    }

    /// Where belongs what only the next script finds.
    pub fn aside(&self) -> Utf8PathBuf {
        self.path.join("aside")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Sets when a file was last used: its time of modification, which nothing else needs.
pub(crate) fn touch(path: &Utf8Path, now: Timestamp) -> Result<(), Error> {
    fs::File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(now.into()))
        .map_err(io_error("touch", path))
}

/// One whose time cannot be told counts as used.
pub(crate) fn used_since(path: &Utf8Path, since: Timestamp) -> Result<bool, Error> {
    let modified = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(io_error("read", path))?;
    Ok(Timestamp::try_from(modified).map_or(true, |used| used >= since))
}

pub(crate) fn remove_tree(path: &Utf8Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// All of them, also when one stays: gives the first reason.
pub(crate) fn remove_trees(paths: impl IntoIterator<Item = Utf8PathBuf>) -> Result<(), Error> {
    let mut first = Ok(());
    for path in paths {
        let removed = remove_tree(&path);
        first = first.and(removed);
    }
    first
}

pub(crate) fn io_error(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

pub(crate) fn not_text(path: &std::path::Path) -> Error {
    io_error("read", Utf8Path::new(&*path.to_string_lossy()))(io::Error::other("its name is not UTF-8 text"))
}

/// Bytes of the files in a tree. One with several names takes its bytes once.
pub(crate) fn size(tree: &Utf8Path) -> Result<u64, Error> {
    size_of(tree, &mut HashSet::new())
}

/// `linked`: the files with several names that were counted, by device and inode.
fn size_of(tree: &Utf8Path, linked: &mut HashSet<(u64, u64)>) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in tree.read_dir_utf8().map_err(io_error("read", tree))? {
        let entry = entry.map_err(io_error("read", tree))?;
        let metadata = fs::symlink_metadata(entry.path()).map_err(io_error("read", entry.path()))?;
        if metadata.is_dir() {
            bytes += size_of(entry.path(), linked)?;
        } else if metadata.nlink() < 2 || linked.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_several_names_takes_its_bytes_once() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(directory.path()).unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("one"), [0; 1000]).unwrap();
        fs::write(tree.join("a/other"), [0; 200]).unwrap();
        assert_eq!(size(tree).unwrap(), 1200);
        for name in ["two", "a/three", "a/b/four"] {
            fs::hard_link(tree.join("one"), tree.join(name)).unwrap();
        }
        assert_eq!(size(tree).unwrap(), 1200);
        assert_eq!(
            size(&tree.join("a")).unwrap(),
            1200,
            "some of its names lie outside"
        );
    }
}
