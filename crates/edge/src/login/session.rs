//! What a browser keeps for us: who has signed in, sealed, in as many cookies as it takes; and while somebody signs in,
//! the number by which the provider's answer is known to be theirs.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Login, keys::Keys};
use crate::{head::Ask, sticky::cookies};

/// Bytes of one cookie's value: browsers take 4,096 with its name and its attributes.
const SHARD: usize = 3_800;
/// Cookies of one session. What does not fit is no session, as with ALB.
const SHARDS: usize = 4;
/// Whoever signs in has a quarter of an hour for it, as with ALB.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// No rule has a longer session: browsers keep one for so long.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The number of who signs in.
const NONCE: &str = "AWSALBAuthNonce";

/// Somebody who has signed in. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub subject: String,
    /// What the provider says of them.
    pub claims: Map<String, Value>,
    pub access: String,
    pub refresh: Option<String>,
    /// The provider's word is good until then.
    pub fresh: i64,
    /// They signed in then. Whether that is too long ago is for the rule to say that is asked.
    pub since: i64,
}

impl Session {
    /// The one that a request shows.
    pub fn read(keys: &Keys, login: &Login, ask: &Ask) -> Option<Self> {
        let mut sealed = Vec::new();
        for number in 0..SHARDS {
            match shard(login, ask, number) {
                Some(part) => sealed.extend_from_slice(part),
                None => break,
            }
        }
        keys.open_sealed(&[b"session", login.bond()], &sealed)
    }

    /// Values of `Set-Cookie`; none when it does not fit.
    pub fn write(&self, keys: &Keys, login: &Login, ask: &Ask, now: i64) -> Option<Vec<String>> {
        let sealed = keys.seal(&[b"session", login.bond()], self)?;
        if sealed.len() > SHARD * SHARDS {
            return None;
        }
        let age = self.since.saturating_add(LONGEST.as_secs()).saturating_sub(now);
        let name = &login.spec.session_cookie;
        let mut lines = Vec::new();
        let mut rest = sealed.as_str();
        while !rest.is_empty() {
            let (part, next) = rest.split_at(rest.len().min(SHARD));
            lines.push(line(&format!("{name}-{}", lines.len()), part, age, "/"));
            rest = next;
        }
        // What a larger one has left.
        for number in lines.len()..SHARDS {
            if shard(login, ask, number).is_some() {
                lines.push(line(&format!("{name}-{number}"), "", 0, "/"));
            }
        }
        Some(lines)
    }
}

fn shard<'a>(login: &Login, ask: &'a Ask, number: usize) -> Option<&'a [u8]> {
    let name = format!("{}-{number}", login.spec.session_cookie);
    cookie(ask, &name)
}

fn cookie<'a>(ask: &'a Ask, name: &str) -> Option<&'a [u8]> {
    let (_, value) = cookies(ask).find(|(n, _)| *n == name.as_bytes())?;
    Some(value)
}

/// Only over TLS, not for scripts, and with links from elsewhere: the provider's answer is one.
fn line(name: &str, value: &str, age: i64, path: &str) -> String {
    format!("{name}={value}; Max-Age={age}; Path={path}; Secure; HttpOnly; SameSite=Lax")
}

/// The number of who signs in, if a request shows one.
pub fn nonce(ask: &Ask) -> Option<&str> {
    let hex = |value: &&str| value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
    str::from_utf8(cookie(ask, NONCE)?).ok().filter(hex)
}

pub fn keep_nonce(nonce: &str) -> String {
    line(NONCE, nonce, PATIENCE.as_secs(), "/")
}

pub fn forget_nonce() -> String {
    line(NONCE, "", 0, "/")
}
