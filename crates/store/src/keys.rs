//! The two keys that are not in the database: the master key, which wraps every data key of the vault, and the key
//! that signs checkpoints of the ledger. Whoever has the database without them has no secret and can sign nothing.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
};

use camino::Utf8Path;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::Error;

pub(crate) type Key = Zeroizing<[u8; 32]>;

pub(crate) struct Keys {
    pub master: Key,
    pub signing: SigningKey,
}

/// 64 random bits of the operating system, for a new id.
pub fn random_bits() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Random(error.to_string()))
}

pub(crate) fn random_key() -> Result<Key, Error> {
    let mut key = Key::default();
    fill(key.as_mut_slice())?;
    Ok(key)
}

impl Keys {
    /// Reads the keys in `dir/keys`. Missing ones are made only when there is no database yet: with a new master
    /// key, an old database would be unreadable for ever and look as if nothing were wrong.
    pub fn open(dir: &Utf8Path, make: bool) -> Result<Self, Error> {
        let dir = dir.join("keys");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| Error::io("making the directory", &dir, source))?;
        let master = read_or_make(&dir, "master.key", make)?;
        let signing = SigningKey::from_bytes(&*read_or_make(&dir, "ledger.key", make)?);
        Ok(Self { master, signing })
    }
}

fn read_or_make(dir: &Utf8Path, name: &str, make: bool) -> Result<Key, Error> {
    let path = dir.join(name);
    match read(&path) {
        Err(Error::Io { source, .. }) if make && source.kind() == ErrorKind::NotFound => {
            let key = random_key()?;
            write(dir, name, &key).map_err(|source| Error::io("writing the key", &path, source))?;
            Ok(key)
        }
        other => other,
    }
}

fn read(path: &Utf8Path) -> Result<Key, Error> {
    let failed = |source| Error::io("reading the key", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let problem = |problem| Error::Key {
        path: path.to_owned(),
        problem,
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(problem(
            "can be read by others than its owner: set its mode to 0600",
        ));
    }
    if metadata.len() != 32 {
        return Err(problem("is not 32 bytes long: restore it from a backup"));
    }
    let mut key = Key::default();
    file.read_exact(key.as_mut_slice()).map_err(failed)?;
    Ok(key)
}

/// A crash leaves the whole key or none.
fn write(dir: &Utf8Path, name: &str, key: &Key) -> std::io::Result<()> {
    let draft = dir.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(key.as_slice())?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()
}
