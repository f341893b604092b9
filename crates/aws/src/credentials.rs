//! Who calls: credentials from the environment, profiles, roles, a sign-in in a browser, a container's or an instance's metadata, in the order in
//! which every tool of AWS looks. They are kept in memory only, and looked for again five minutes before they expire.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>

mod chain;
mod profile;
mod remote;
mod sso;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::Secret;
use tokio::sync::Mutex;

pub use profile::{Profiles, Role};

use crate::client;

/// So long before their end credentials are not used any more.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Reads a variable of the environment.
pub type Variable = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the room takes from the machine. `variable` reads a variable of the environment, `now` the clock, `bits` chance.
#[derive(Clone)]
pub struct Machine {
    pub variable: Variable,
    pub now: fn() -> Timestamp,
    pub bits: fn() -> u64,
}

impl Machine {
    /// A variable that is set to something.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }
}

/// Keys, perhaps for a time.
#[derive(Clone)]
pub struct Keys {
    pub id: String,
    pub secret: Secret,
    pub token: Option<Secret>,
    pub expires: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no credentials of AWS were found: {0}")]
    None(String),
    #[error("the profile `{0}` is in no file of profiles")]
    NoProfile(String),
    #[error("the profile `{profile}` {why}")]
    Profile { profile: String, why: String },
    #[error("{path} cannot be read")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{from} gave no credentials: {why}")]
    Answer { from: String, why: String },
    #[error("the role {role} cannot be taken")]
    Role {
        role: String,
        #[source]
        source: Box<client::Error>,
    },
}

/// Where keys come from.
enum Origin {
    Chain {
        machine: Machine,
        profile: Option<String>,
    },
    Role {
        base: client::Client,
        role: Role,
    },
}

/// A source of credentials, shared by clients.
pub struct Source {
    origin: Origin,
    kept: Mutex<Option<Keys>>,
}

impl Source {
    /// The standard chain. `profile`: instead of `AWS_PROFILE`, and before the environment's own keys.
    pub fn chain(machine: Machine, profile: Option<String>) -> Self {
        Self::of(Origin::Chain { machine, profile })
    }

    /// The keys that `role` gives to who calls with `base`.
    pub fn role(base: client::Client, role: Role) -> Self {
        Self::of(Origin::Role { base, role })
    }

    fn of(origin: Origin) -> Self {
        Self {
            origin,
            kept: Mutex::new(None),
        }
    }

    /// Keys that hold for some minutes yet. `client` asks STS, where roles of profiles want it.
    pub(crate) async fn keys(&self, client: &client::Client, now: Timestamp) -> Result<Keys, Error> {
        let mut kept = self.kept.lock().await;
        let is_good = |keys: &Keys| keys.expires.is_none_or(|end| now + MARGIN < end);
        if let Some(keys) = kept.as_ref().filter(|keys| is_good(keys)) {
            return Ok(keys.clone());
        }
        let keys = match &self.origin {
            Origin::Chain { machine, profile } => chain::find(machine, profile.as_deref(), client).await?,
            Origin::Role { base, role } => remote::assume(base, role, None).await?,
        };
        *kept = Some(keys.clone());
        Ok(keys)
    }
}
