//! Envelope encryption: values are sealed with a data key of their tenant, data keys with the master key.
//!
//! XChaCha20-Poly1305 with a random nonce. What a value is (purpose, owner, name, version) is authenticated with it,
//! so that a row that was moved to another place does not open there.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use model::Secret;
use rusqlite::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

use crate::{
    Db, Error, Tx,
    keys::{self, Key, Keys},
};

/// The owner of the platform's own data key.
pub(crate) const PLATFORM: i64 = 0;
const NONCE: usize = 24;
/// The first byte of everything sealed: how it was sealed.
const FORMAT: u8 = 1;

/// Makes the platform's data key on first use, and refuses a master key that the database was not made with.
pub(crate) fn prepare(connection: &Connection, keys: &Keys) -> Result<(), Error> {
    let tx = Tx::new(connection, keys);
    let known = connection
        .query_row("SELECT 1 FROM data_keys WHERE owner = ?1", [PLATFORM], |_| Ok(()))
        .optional()?;
    match known {
        Some(()) => tx.data_key(PLATFORM).map(drop),
        None => tx.make_data_key(PLATFORM),
    }
}

pub(crate) fn seal(key: &Key, context: &[&str], clear: &[u8]) -> Result<Vec<u8>, Error> {
    let mut sealed = vec![FORMAT; 1 + NONCE];
    keys::fill(&mut sealed[1..])?;
    let nonce = XNonce::try_from(&sealed[1..]).expect("the nonce is 24 bytes");
    let aad = associated(context);
    let payload = Payload {
        msg: clear,
        aad: &aad,
    };
    let text = cipher(key)
        .encrypt(&nonce, payload)
        .expect("what is sealed is shorter than 256 GiB");
    sealed.extend(text);
    Ok(sealed)
}

pub(crate) fn open(key: &Key, context: &[&str], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (format, rest) = sealed.split_first()?;
    let (nonce, text) = rest.split_at_checked(NONCE)?;
    if *format != FORMAT {
        return None;
    }
    let nonce = XNonce::try_from(nonce).ok()?;
    let aad = associated(context);
    cipher(key)
        .decrypt(&nonce, Payload { msg: text, aad: &aad })
        .ok()
        .map(Zeroizing::new)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new_from_slice(key.as_slice()).expect("the key is 32 bytes")
}

/// Each part after its length, so that no two contexts are one.
fn associated(context: &[&str]) -> Vec<u8> {
    context
        .iter()
        .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.bytes()))
        .collect()
}

fn wrapping(owner: i64) -> [String; 2] {
    ["vend/data-key".to_owned(), owner.to_string()]
}

impl Db<'_> {
    pub(crate) fn data_key(&self, owner: i64) -> Result<Key, Error> {
        let wrapped: Option<Vec<u8>> =
            self.one("SELECT wrapped FROM data_keys WHERE owner = ?1", [owner], |row| {
                row.get(0)
            })?;
        let wrapped = wrapped.ok_or_else(|| Error::missing("data key of owner", owner))?;
        let [purpose, name] = wrapping(owner);
        let bytes = open(&self.keys.master, &[&purpose, &name], &wrapped);
        let bytes = bytes.ok_or(Error::Sealed { what: "data key" })?;
        let mut key = Key::default();
        if bytes.len() != key.len() {
            return Err(Error::Sealed { what: "data key" });
        }
        key.copy_from_slice(&bytes);
        Ok(key)
    }
}

impl Tx<'_> {
    pub(crate) fn make_data_key(&self, owner: i64) -> Result<(), Error> {
        let key = keys::random_key()?;
        let [purpose, name] = wrapping(owner);
        let wrapped = seal(&self.keys.master, &[&purpose, &name], key.as_slice())?;
        self.run("INSERT INTO data_keys VALUES (?1, ?2)", params![owner, wrapped])
            .map(drop)
    }

    /// Overwrites the key before its row goes, because a deleted row's bytes stay in the file.
    pub(crate) fn destroy_data_key(&self, owner: i64) -> Result<(), Error> {
        self.run(
            "UPDATE data_keys SET wrapped = zeroblob(length(wrapped)) WHERE owner = ?1",
            [owner],
        )?;
        self.run("DELETE FROM data_keys WHERE owner = ?1", [owner])?;
        self.scrub.set(true);
        Ok(())
    }
}

/// The opened bytes as a secret text.
pub(crate) fn text(clear: Zeroizing<Vec<u8>>) -> Option<Secret> {
    std::str::from_utf8(&clear)
        .ok()
        .map(|text| Secret::new(text.to_owned()))
}
