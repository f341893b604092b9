//! Cookies that keep a client with its group and its target, under ALB's names: `AWSALBTG` for the group, `AWSALB` for
//! the target by time, `AWSALBAPP-0` for the target as long as the application's own cookie lasts. A page of another origin
//! is given the first two once more with `CORS` behind the name, which browsers send across sites, too.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/sticky-sessions.html>
//!
//! A cookie says nothing but a number made from names: a client that makes one up reaches no target that it would not
//! be given by chance.

use model::route::Stickiness;

use crate::{
    balance::{Group, Weights},
    head::Ask,
    target::Target,
};

const GROUP: &str = "AWSALBTG";
const TARGET: &str = "AWSALB";
/// Behind the name of a cookie that comes across sites.
const ACROSS: &str = "CORS";
const APPLICATION: &str = "AWSALBAPP-0";

/// What is added to the answer, if anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// Values of `Set-Cookie`.
    pub always: Vec<String>,
    /// The same, if the answer itself sets the cookie of this name.
    pub along: Option<(String, String)>,
}

impl Cookies {
    /// For an answer from this target; `other` are set as well.
    pub fn new(
        ask: &Ask,
        weights: &Weights,
        group: &Group,
        target: &Target,
        other: &[String],
    ) -> Option<Box<Self>> {
        if weights.stickiness().is_none() && group.policy.stickiness.is_none() && other.is_empty() {
            return None;
        }
        let mut cookies = Self {
            always: other.to_vec(),
            along: None,
        };
        if let Some(seconds) = weights.stickiness() {
            cookies.stays(ask, GROUP, name_token(group.name()), seconds.into());
        }
        match &group.policy.stickiness {
            None => {}
            Some(Stickiness::Duration(time)) => {
                cookies.stays(ask, TARGET, token(group.name(), target), time.as_secs());
            }
            Some(Stickiness::Application { cookie, duration }) => {
                let line = line(APPLICATION, token(group.name(), target), duration.as_secs());
                // The client has the application's cookie and comes to another target than before: it stays there.
                let moved = wanted_target(ask, group) != Some(token(group.name(), target));
                if has_cookie(ask, cookie) && moved {
                    cookies.always.push(line);
                } else {
                    cookies.along = Some((cookie.clone(), line));
                }
            }
        }
        Some(Box::new(cookies))
    }

    /// A cookie of the load balancer's own time.
    fn stays(&mut self, ask: &Ask, name: &str, token: u64, seconds: i64) {
        self.always.push(line(name, token, seconds));
        if ask.fields("origin").next().is_some() {
            let across = line(&format!("{name}{ACROSS}"), token, seconds);
            self.always.push(format!("{across}; Secure; SameSite=None"));
        }
    }

    /// The values to add to an answer whose own `Set-Cookie` values are these.
    pub fn of<'a>(&'a self, own: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
        let mut own = own;
        let mut sets = |name: &str| {
            own.any(|v| {
                v.strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.starts_with(b"="))
            })
        };
        let along = self
            .along
            .as_ref()
            .filter(|(name, _)| sets(name))
            .map(|(_, line)| &**line);
        self.always.iter().map(|line| &**line).chain(along)
    }
}

fn line(name: &str, token: u64, seconds: i64) -> String {
    format!("{name}={token:016x}; Max-Age={seconds}; Path=/; HttpOnly")
}

/// The group that the client has stayed with, if it still gets anything.
pub fn wanted_group<'a>(ask: &Ask, weights: &'a Weights) -> Option<&'a Group> {
    weights.stickiness()?;
    let wanted = kept(ask, GROUP)?;
    weights.named(|group| name_token(group.name()) == wanted)
}

/// The token of the target that the client has stayed with.
pub fn wanted_target(ask: &Ask, group: &Group) -> Option<u64> {
    match group.policy.stickiness.as_ref()? {
        Stickiness::Duration(_) => kept(ask, TARGET),
        Stickiness::Application { cookie: name, .. } if has_cookie(ask, name) => cookie(ask, APPLICATION),
        Stickiness::Application { .. } => None,
    }
}

/// A number for a target of a group; the same after a restart, and on every edge.
pub fn token(group: &str, target: &Target) -> u64 {
    let address = target.address().to_string();
    fnv([
        group.as_bytes(),
        b"\0",
        target.id().as_bytes(),
        b"\0",
        address.as_bytes(),
    ])
}

fn name_token(group: &str) -> u64 {
    fnv([group.as_bytes()])
}

/// FNV-1a, 64 bits: even enough, and not secret.
fn fnv<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn has_cookie(ask: &Ask, name: &str) -> bool {
    cookies(ask).any(|(n, _)| n == name.as_bytes())
}

/// What a cookie says that may have come across sites.
fn kept(ask: &Ask, name: &str) -> Option<u64> {
    cookie(ask, name).or_else(|| cookie(ask, &format!("{name}{ACROSS}")))
}

fn cookie(ask: &Ask, name: &str) -> Option<u64> {
    let (_, value) = cookies(ask).find(|(n, _)| *n == name.as_bytes())?;
    u64::from_str_radix(str::from_utf8(value).ok().filter(|value| value.len() == 16)?, 16).ok()
}

pub fn cookies(ask: &Ask) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = ask.fields("cookie").flat_map(|line| line.split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|b| *b == b'=')?;
        Some((&pair[..equals], &pair[equals + 1..]))
    })
}
