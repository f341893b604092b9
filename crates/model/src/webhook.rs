//! Webhooks of git hosts: what a delivery says, and whether it is who it says.
//!
//! Pure: headers and the raw body come in, a verdict goes out, offline as well as behind a listener.

mod body;
mod explain;
mod github;
mod gitlab;
mod signature;

pub use explain::{Explanation, Signature, Verdict, explain};
pub use signature::verify;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Digest, port::Commit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Github,
    Gitlab,
}

/// What a delivery asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Push(Push),
    /// A branch or tag is gone.
    Delete {
        reference: String,
        repository: String,
        /// What it stood at last, where the host says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// Of no interest here, and why.
    Ignored {
        kind: String,
        reason: String,
    },
    /// The host asks whether we are there.
    Ping,
}

impl Event {
    /// The branch that is gone.
    pub fn gone(&self) -> Option<&str> {
        Some(self.deletion()?.0)
    }

    /// The branch that is gone, and the commit that it stood at, where the host says so.
    pub fn deletion(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Delete {
                reference, commit, ..
            } => Some((reference.strip_prefix("refs/heads/")?, commit.as_deref())),
            Self::Push(_) | Self::Ignored { .. } | Self::Ping => None,
        }
    }
}

/// Commits arrived on a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Push {
    /// `refs/heads/main`
    pub reference: String,
    /// The branch's name; `None` for a tag.
    pub branch: Option<String>,
    pub before: String,
    pub commit: Commit,
    /// Where to clone from.
    pub clone_url: String,
    /// Who pushed.
    pub sender: String,
    /// The number of the sender's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<u64>,
}

/// The largest body that is read: GitHub's own limit.
pub const MAX_BODY_BYTES: usize = 25 << 20;

/// Why a delivery is not taken. Shown in the inbox, never in the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    #[error("the body has {0} bytes, and {MAX_BODY_BYTES} at most are read")]
    TooLarge(usize),
    #[error("the header `{0}` is missing: this is no delivery of the provider")]
    NoEvent(String),
    #[error("the header `{0}` is missing: the webhook was set up without the secret")]
    Unsigned(String),
    #[error("the header `{0}` stands more than once")]
    Ambiguous(String),
    #[error("`{0}` does not fit the body and the secret: another secret, or the body was changed on the way")]
    Forged(String),
    #[error(
        "only the old SHA-1 signature is there: it is not accepted, and providers of today send `X-Hub-Signature-256` too"
    )]
    OldSignature,
    #[error("the webhook has an empty secret, which fits everything")]
    NoSecret,
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body says nothing usable about `{0}`")]
    Malformed(String),
    #[error("`{0}` is not the URL of a repository that is cloned: use https, http or ssh")]
    CloneUrl(String),
}

/// What a delivery says. Says nothing about who sent it: see [`verify`].
pub fn read(provider: Provider, headers: &[(String, String)], body: &[u8]) -> Result<Event, Refusal> {
    match provider {
        Provider::Github => github::read(headers, body),
        Provider::Gitlab => gitlab::read(headers, body),
    }
}

/// What tells one delivery from another, also when it is sent again: the provider's own id, or the digest of the body
/// when there is none that is usable.
pub fn delivery_id(provider: Provider, headers: &[(String, String)], body: &[u8]) -> String {
    let names: &[&str] = match provider {
        Provider::Github => &["X-GitHub-Delivery"],
        Provider::Gitlab => &["Idempotency-Key", "webhook-id", "X-Gitlab-Event-UUID"],
    };
    names
        .iter()
        .filter_map(|name| header(headers, name).ok().flatten())
        .find(|id| is_id(id))
        .map_or_else(|| Digest::of(body).to_string(), str::to_owned)
}

fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// A header's one value, whatever the case of its name.
fn header<'h>(headers: &'h [(String, String)], name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut found = headers
        .iter()
        .filter(|(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim());
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (Some(first), Some(second)) if first == second => Ok(Some(first)),
        _ => Err(Refusal::Ambiguous(name.to_owned())),
    }
}

/// May git be given this as the place to clone from? https, http, ssh, and `user@host:path`; nothing that git could
/// take for an option or for a command.
pub fn is_clone_url(url: &str) -> bool {
    let clean = url.len() <= 2_000
        && !url.starts_with('-')
        && url.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let host = |authority: &str| {
        let host = authority.rsplit('@').next().unwrap_or_default();
        let name = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        !host.is_empty()
            && !host.starts_with(['-', ':'])
            && host.chars().all(name)
            && !authority.starts_with('-')
    };
    let scheme = |rest: &str| match rest.split_once('/') {
        Some((authority, path)) => host(authority) && !path.is_empty(),
        None => false,
    };
    match url.split_once("://") {
        Some(("https" | "http" | "ssh", rest)) => clean && scheme(rest),
        Some(_) => false,
        None => match url.split_once(':') {
            Some((authority, path)) => {
                clean
                    && authority.contains('@')
                    && !authority.contains('/')
                    && host(authority)
                    && !path.is_empty()
                    && !path.starts_with(['-', ':'])
            }
            None => false,
        },
    }
}
