//! Names that people choose and ids that the platform gives.
//!
//! A name is a DNS label, because environments become host names (`dev.shop.acme.localhost`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name. Display says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name: use 1 to 40 lower-case letters, digits and single hyphens, starting with a letter"
)]
pub struct NotAName {
    pub text: String,
}

/// A DNS label of 1 to 40 characters: `[a-z]([a-z0-9]|-[a-z0-9])*` (RFC 1035, section 2.3.1, lower case).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let shape = !text.is_empty()
            && text.len() <= 40
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && !text.contains("--")
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        shape.then(|| Self(text.to_owned())).ok_or_else(|| NotAName {
            text: text.chars().take(60).collect(),
        })
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $kind(pub Name);

        impl $kind {
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $kind {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name!(
    /// A customer: the boundary of isolation, rights and cost. Unique on the platform.
    TenantName
);
name!(
    /// One repository's software. Unique in its tenant.
    AppName
);
name!(
    /// A named stage of an app. Unique in its app.
    EnvironmentName
);

/// Where something belongs: one environment of one app of one tenant. Displays as `tenant/app/environment`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub tenant: TenantName,
    pub app: AppName,
    pub environment: EnvironmentName,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.app, self.environment)
    }
}

impl FromStr for Place {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self {
            tenant: next().parse()?,
            app: next().parse()?,
            environment: next().parse()?,
        })
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $kind:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $kind(String);

        impl $kind {
            /// A new id from 64 random bits. The caller brings the randomness.
            pub fn from_bits(bits: u64) -> Self {
                Self(format!("{}-{}", $prefix, base32(bits)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $kind {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let tail = text.strip_prefix(concat!($prefix, "-")).unwrap_or_default();
                let shape = !tail.is_empty()
                    && tail.len() <= 80
                    && tail.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
                shape.then(|| Self(text.to_owned())).ok_or(NotAnId { prefix: $prefix })
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected `{prefix}-…`")]
pub struct NotAnId {
    pub prefix: &'static str,
}

id!(
    /// One dedicated virtual machine-like container. Also the name of its cgroup, so it is short.
    HostId, "h"
);
id!(
    /// One run of the state machine that moves a release.
    ExecutionId, "x"
);
id!(
    /// One putting of a release on a host group.
    DeploymentId, "d"
);
id!(
    /// One question to people about one exact plan.
    ApprovalId, "a"
);
id!(
    /// One stored webhook delivery.
    DeliveryId, "w"
);
id!(
    /// One attempt at one effect. A repeated ticket returns the first answer.
    Ticket, "t"
);

impl Ticket {
    /// The ticket of attempt `attempt` of task `task` in an execution: the same attempt always has the same ticket.
    pub fn of(execution: &ExecutionId, task: u64, attempt: u32) -> Self {
        Self(format!("t-{}-{task}-{attempt}", &execution.as_str()[2..]))
    }

    /// A ticket for one part of this ticket's work, such as one host of a fleet.
    pub fn part(&self, part: &str) -> Self {
        Self(format!("{}.{part}", self.0))
    }
}

/// 13 characters of Crockford's alphabet, lower case: no `i`, `l`, `o`, `u`, so that ids are read aloud without errors.
fn base32(bits: u64) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..13)
        .rev()
        .map(|i| ALPHABET[((bits >> (i * 5)) & 31) as usize] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop", "shop-2", "a1"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "1a",
            "a_b",
            "a.b",
            "../x",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_round_trip_and_differ_by_kind() {
        let host = HostId::from_bits(u64::MAX);
        assert_eq!(host.as_str().parse::<HostId>().unwrap(), host);
        assert!(host.as_str().parse::<ExecutionId>().is_err());
        assert!("h-../../etc".parse::<HostId>().is_err());
    }

    #[test]
    fn a_place_reads_back() {
        let place: Place = "acme/shop/dev".parse().unwrap();
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        assert!("acme/shop".parse::<Place>().is_err());
        assert!("acme/shop/dev/x".parse::<Place>().is_err());
    }
}
