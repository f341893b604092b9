//! Content-addressed bytes in a directory: source trees, revisions, exports.
//!
//! The room exists so that whatever is handed from one stage to the next is named by what it is, and is checked each
//! time it is read. It knows nothing of what the bytes mean.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest,
    port::{Fault, Objects},
};
use sha2::{Digest as _, Sha256};

/// Objects under `<node>/objects/sha256/aa/<64 hex digits>`. Clones share everything; no two processes may have them open.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Utf8PathBuf,
    limit_bytes: u64,
    /// Held for moments: while one object's age is looked at and it goes, or becomes young.
    moment: Arc<Mutex<()>>,
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
    #[error("there is no object {0}")]
    Missing(Digest),
    #[error("object {0} is damaged on disk: its bytes have another digest")]
    Damaged(Digest),
    #[error("{path} has more than {limit_bytes} bytes, the most that is kept")]
    TooLarge { path: Utf8PathBuf, limit_bytes: u64 },
}

/// What [`Directory::sweep`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub objects: u64,
    pub bytes: u64,
}

impl Directory {
    /// The objects under `<data>/node`. `limit_bytes` bounds one object. What an interrupted node was writing is removed.
    pub fn open(node: &Utf8Path, limit_bytes: u64) -> Result<Self, Error> {
        let root = node.join("objects/sha256");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        for path in read_dir(&node.join("objects"))? {
            if path.file_name().is_some_and(|name| name.starts_with(".new-")) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(Self {
            root,
            limit_bytes,
            moment: Arc::default(),
        })
    }

    /// Keeps all bytes of a reader. `name` says in errors where they come from.
    pub fn keep(&self, mut from: impl Read, name: &Utf8Path) -> Result<Digest, Error> {
        let temporary = self.temporary();
        let kept = self.keep_at(&temporary, &mut from, name);
        if kept.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        kept
    }

    /// A reader of an object that knows at its end whether the bytes were the right ones.
    pub fn open_object(&self, digest: &Digest) -> Result<Verified, Error> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(*digest)),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        Ok(Verified {
            digest: *digest,
            hash: Sha256::new(),
            file: io::BufReader::with_capacity(1 << 16, file),
            path,
        })
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Whether an object is here. One that is counts as kept now, so that no sweep takes it before it is used.
    pub fn renew(&self, digest: &Digest, now: SystemTime) -> Result<bool, Error> {
        let path = self.path(digest);
        let _moment = self.moment();
        match File::open(&path).and_then(|file| file.set_modified(now)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("renew", &path)(error)),
        }
    }

    /// Writes an object to a new file at `path`; nothing is there when it fails.
    pub fn copy_out(&self, digest: &Digest, path: &Utf8Path) -> Result<(), Error> {
        let copied = self.copy_out_at(digest, path);
        if copied.is_err() {
            let _ = fs::remove_file(path);
        }
        copied
    }

    /// Removes what is not in `keep`, but nothing that was kept (again) in the last `grace`: an object may have come in
    /// after `keep` was listed.
    pub fn sweep(&self, keep: &BTreeSet<Digest>, now: SystemTime, grace: Duration) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for shelf in read_dir(&self.root)? {
            for path in read_dir(&shelf)? {
                let name = path.file_name().unwrap_or_default();
                let wanted = format!("sha256:{name}")
                    .parse()
                    .is_ok_and(|digest: Digest| keep.contains(&digest));
                // It may be kept again just now: that is before this look, or after it is gone.
                let _moment = self.moment();
                let metadata = fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
                let young = metadata
                    .modified()
                    .ok()
                    .and_then(|modified| now.duration_since(modified).ok())
                    .is_none_or(|age| age < grace);
                if !wanted && !young {
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                    swept.objects += 1;
                    swept.bytes += metadata.len();
                }
            }
        }
        Ok(swept)
    }

    fn keep_at(&self, temporary: &Utf8Path, from: &mut impl Read, name: &Utf8Path) -> Result<Digest, Error> {
        let mut to = File::create_new(temporary).map_err(io_error("create", temporary))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut size = 0;
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error("read", name)(error)),
            };
            size += read as u64;
            if size > self.limit_bytes {
                return Err(Error::TooLarge {
                    path: name.to_owned(),
                    limit_bytes: self.limit_bytes,
                });
            }
            hash.update(&buffer[..read]);
            to.write_all(&buffer[..read])
                .map_err(io_error("write", temporary))?;
        }
        let digest = Digest::from_bytes(hash.finalize().into());
        self.publish(&to, temporary, &digest)?;
        Ok(digest)
    }

    /// An object appears whole and durable, or not at all.
    fn publish(&self, file: &File, temporary: &Utf8Path, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        let shelf = path.parent().expect("an object's path has a directory");
        file.sync_all().map_err(io_error("write", temporary))?;
        fs::create_dir_all(shelf).map_err(io_error("create", shelf))?;
        {
            let _moment = self.moment();
            fs::rename(temporary, &path).map_err(io_error("rename", temporary))?;
        }
        for directory in [shelf, &self.root] {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(io_error("write", directory))?;
        }
        Ok(())
    }

    fn moment(&self) -> MutexGuard<'_, ()> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy_out_at(&self, digest: &Digest, path: &Utf8Path) -> Result<(), Error> {
        let mut from = self.open_object(digest)?;
        let mut to = File::create_new(path).map_err(io_error("create", path))?;
        io::copy(&mut from, &mut to).map_err(io_error("write", path))?;
        from.finish()
    }

    fn path(&self, digest: &Digest) -> Utf8PathBuf {
        let hex = digest.hex();
        self.root.join(&hex[..2]).join(hex)
    }

    /// On the same disk, so that a rename is atomic, and no object's neighbour, so that no sweep takes it for one.
    fn temporary(&self) -> Utf8PathBuf {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).expect("the kernel gives random bytes");
        self.root.join(format!("../.new-{}", hex::encode(bits)))
    }
}

/// Reads an object and checks what was read. Bytes that come out of it may be wrong until [`Verified::finish`].
#[derive(Debug)]
pub struct Verified {
    digest: Digest,
    hash: Sha256,
    file: io::BufReader<File>,
    path: Utf8PathBuf,
}

impl Verified {
    /// Reads what is left and compares the digest.
    pub fn finish(mut self) -> Result<(), Error> {
        let path = self.path.clone();
        io::copy(&mut self, &mut io::sink()).map_err(io_error("read", &path))?;
        match Digest::from_bytes(self.hash.finalize().into()) == self.digest {
            true => Ok(()),
            false => Err(Error::Damaged(self.digest)),
        }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl Objects for Directory {
    async fn put(&self, path: &Utf8Path) -> Result<Digest, Fault> {
        let (this, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let file = File::open(&path).map_err(io_error("open", &path))?;
            this.keep(file, &path)
        })
        .await
    }

    async fn get(&self, digest: &Digest, path: &Utf8Path) -> Result<(), Fault> {
        let (this, digest, path) = (self.clone(), *digest, path.to_owned());
        blocking(move || this.copy_out(&digest, &path)).await
    }

    async fn has(&self, digest: &Digest) -> Result<bool, Fault> {
        Ok(self.contains(digest))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error {
            Error::TooLarge { .. } | Error::Missing(_) => Self::order(text),
            Error::Damaged(_) => Self::platform(text).next("push the commit again"),
            Error::Io { .. } => Self::platform(text).next("see whether the data directory's disk is full"),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::platform("the object store stopped while it worked"))?
        .map_err(Fault::from)
}

fn read_dir(path: &Utf8Path) -> Result<Vec<Utf8PathBuf>, Error> {
    path.read_dir_utf8()
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.into_path()))
                .collect()
        })
        .map_err(io_error("read", path))
}

fn io_error(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap().to_owned();
        (temporary, Directory::open(&root, 1000).unwrap())
    }

    #[test]
    fn gives_back_what_it_keeps_and_keeps_it_once() {
        let (temporary, objects) = directory();
        let digest = objects.keep(&b"abc"[..], "memory".into()).unwrap();
        assert_eq!(digest, Digest::of("abc"));
        assert_eq!(objects.keep(&b"abc"[..], "memory".into()).unwrap(), digest);
        let out = Utf8PathBuf::from_path_buf(temporary.path().join("out")).unwrap();
        objects.copy_out(&digest, &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"abc");
        assert!(matches!(
            objects.copy_out(&Digest::of("x"), &out.with_extension("x")),
            Err(Error::Missing(_))
        ));
    }

    #[test]
    fn refuses_what_is_too_large_and_leaves_nothing() {
        let (_temporary, objects) = directory();
        let kept = objects.keep(io::repeat(0), "zeros".into());
        assert!(matches!(
            kept,
            Err(Error::TooLarge {
                limit_bytes: 1000,
                ..
            })
        ));
        let left = read_dir(objects.root.parent().unwrap()).unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_was_being_written_is_removed() {
        let (temporary, objects) = directory();
        let digest = objects.keep(&b"abc"[..], "memory".into()).unwrap();
        let half = objects.temporary();
        fs::write(&half, "half").unwrap();
        let objects = Directory::open(Utf8Path::from_path(temporary.path()).unwrap(), 1000).unwrap();
        assert!(!half.exists() && objects.contains(&digest));
    }

    #[test]
    fn damaged_bytes_are_found_and_not_given_out() {
        let (temporary, objects) = directory();
        let digest = objects.keep(&b"abc"[..], "memory".into()).unwrap();
        fs::write(objects.path(&digest), "abd").unwrap();
        let out = Utf8PathBuf::from_path_buf(temporary.path().join("out")).unwrap();
        assert!(matches!(objects.copy_out(&digest, &out), Err(Error::Damaged(_))));
        assert!(!out.exists());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "compares with the times of real files")]
    fn sweeps_what_nobody_wants_and_is_old() {
        let (_temporary, objects) = directory();
        let wanted = objects.keep(&b"wanted"[..], "memory".into()).unwrap();
        let unwanted = objects.keep(&b"unwanted"[..], "memory".into()).unwrap();
        let keep = BTreeSet::from([wanted]);
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        assert_eq!(objects.sweep(&keep, now, hour).unwrap(), Swept::default());
        let swept = objects.sweep(&keep, now + 2 * hour, hour).unwrap();
        assert_eq!(swept, Swept { objects: 1, bytes: 8 });
        assert!(objects.contains(&wanted) && !objects.contains(&unwanted));
        // What somebody was told is here stays for a while.
        assert!(objects.renew(&wanted, now + 2 * hour).unwrap());
        assert!(!objects.renew(&unwanted, now).unwrap());
        let nobodys = BTreeSet::new();
        let later = |minutes: u64| now + 2 * hour + Duration::from_secs(minutes * 60);
        assert_eq!(
            objects.sweep(&nobodys, later(59), hour).unwrap(),
            Swept::default()
        );
        assert_eq!(objects.sweep(&nobodys, later(60), hour).unwrap().objects, 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "compares with the times of real files")]
    fn a_sweep_leaves_what_is_kept_again_meanwhile() {
        let (_temporary, objects) = directory();
        let digest = objects.keep(&b"abc"[..], "memory".into()).unwrap();
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let begin = std::sync::Barrier::new(2);
        for _ in 0..300 {
            if !objects.renew(&digest, now - 2 * hour).unwrap() {
                objects.keep(&b"abc"[..], "memory".into()).unwrap();
                assert!(objects.renew(&digest, now - 2 * hour).unwrap());
            }
            let told = std::thread::scope(|scope| {
                scope.spawn(|| {
                    begin.wait();
                    objects.sweep(&BTreeSet::new(), now, hour).unwrap();
                });
                begin.wait();
                objects.renew(&digest, now).unwrap()
            });
            assert!(!told || objects.contains(&digest), "it was said to be here");
        }
    }
}
