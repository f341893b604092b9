//! A value that is only ever held encrypted or in the memory of its user.

use serde::{Deserialize, Deserializer, Serializer};
use zeroize::Zeroizing;

/// A secret text, wiped from memory when dropped. It has neither Debug nor Display nor Serialize, so that no log,
/// journal or error can hold it by accident. The one way out is [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The clear text, for the one who uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    /// In constant time for texts of one length.
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// `#[serde(serialize_with = "secret::in_the_clear")]` marks the few fields that carry a secret over a local socket
/// from one of our processes to another. Nothing that is written to a disk or a log may use it.
pub fn in_the_clear<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// The same for a map of names to secrets: an environment of a process.
pub fn all_in_the_clear<S: Serializer>(
    secrets: &std::collections::BTreeMap<String, Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.iter().map(|(name, secret)| (name, secret.expose())))
}

/// The same for a secret that may be absent.
pub fn maybe_in_the_clear<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => serializer.serialize_some(secret.expose()),
        None => serializer.serialize_none(),
    }
}
