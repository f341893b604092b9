//! The edge's own keys: one that seals what browsers keep for us, and one that signs what targets are told. Both are
//! files that only the edge reads, so that sessions and signatures outlive it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use camino::Utf8Path;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::clock;

/// Names that no client's secret can have: those do not begin with a dot.
const SEAL: &str = ".session.key";
const SIGN: &str = ".signing.key";

pub struct Keys {
    seal: RandomizedNonceKey,
    sign: EcdsaKeyPair,
    /// The id of the signing key, and its public half as PEM.
    pub id: String,
    pub public: String,
}

impl Keys {
    /// Those in the folder; they are made when there are none.
    pub fn open(folder: &Utf8Path) -> io::Result<Self> {
        let useless = |_| io::Error::new(io::ErrorKind::InvalidData, "a key of the edge cannot be used");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let seal = kept(&folder.join(SEAL), || Ok(clock::random::<32>().to_vec()))?;
        let sign = kept(&folder.join(SIGN), || {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
            Ok(made.map_err(io::Error::other)?.as_ref().to_vec())
        })?;
        let sign =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &sign).map_err(|_| useless(()))?;
        let public = sign.public_key().as_der().map_err(|_| useless(()))?;
        let id = digest(&SHA256, public.as_ref());
        Ok(Self {
            seal: RandomizedNonceKey::new(&AES_256_GCM, &seal).map_err(|_| useless(()))?,
            id: URL_SAFE_NO_PAD.encode(&id.as_ref()[..16]),
            public: pem("PUBLIC KEY", public.as_ref()),
            sign,
        })
    }

    /// Text that only the edge can read or make, and only where it says the same of `about`.
    pub fn seal(&self, about: &[&[u8]], value: &impl Serialize) -> Option<String> {
        let mut bytes = serde_json::to_vec(value).ok()?;
        let nonce = self
            .seal
            .seal_in_place_append_tag(Aad::from(joined(about)), &mut bytes)
            .ok()?;
        bytes.extend_from_slice(nonce.as_ref());
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn open_sealed<T: DeserializeOwned>(&self, about: &[&[u8]], text: &[u8]) -> Option<T> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let nonce = bytes.split_off(bytes.len().checked_sub(NONCE_LEN)?);
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(joined(about)), &mut bytes)
            .ok()?;
        serde_json::from_slice(plain).ok()
    }

    /// A token signed with ES256. Its parts are padded, as ALB's are and others' are not.
    pub fn sign(&self, header: &Value, claims: &Value) -> Option<String> {
        let mut token = [header, claims]
            .map(|part| URL_SAFE.encode(part.to_string()))
            .join(".");
        let signature = self.sign.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&URL_SAFE.encode(signature));
        Some(token)
    }
}

/// Parts with their lengths before them: no two lists of them come out alike.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part].concat())
        .collect()
}

fn kept(path: &Utf8Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    let made = make()?;
    let new = format!("{path}.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&made)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    Ok(made)
}

/// PEM (RFC 7468).
pub fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_and_only_the_right_words_open_a_seal() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap().join("secrets");
        let keys = Keys::open(&folder).unwrap();
        let sealed = keys.seal(&[b"a", b"bc"], &"word").unwrap();
        let again = Keys::open(&folder).unwrap();
        let open = |about: &[&[u8]], text: &[u8]| again.open_sealed::<String>(about, text);
        assert_eq!(open(&[b"a", b"bc"], sealed.as_bytes()).as_deref(), Some("word"));
        assert_eq!(open(&[b"ab", b"c"], sealed.as_bytes()), None);
        for cut in 0..sealed.len() {
            assert_eq!(open(&[b"a", b"bc"], &sealed.as_bytes()[..cut]), None);
            let mut bent = sealed.clone().into_bytes();
            bent[cut] = if bent[cut] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&[b"a", b"bc"], &bent), None, "bent at {cut}");
        }
        assert_ne!(
            keys.seal(&[b"a", b"bc"], &"word").unwrap(),
            sealed,
            "no two are alike"
        );
        assert_eq!(keys.id, again.id);
        for name in [SEAL, SIGN] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
