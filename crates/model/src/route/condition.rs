//! What a rule asks of a request beside host and path, and the patterns in which it asks.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Conditions of one rule. All must hold; of the values of one, any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Regular expressions, of which one must be found in the host; beside `Rule::hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_regexes: Vec<String>,
    /// The same for the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_regexes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderCondition>,
    /// Compared as they are: methods know case and no wildcards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Each inner list is one condition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<Vec<Pair>>,
    /// Of the connection; `X-Forwarded-For` is not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Network>,
}

impl Conditions {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A header that must be there with one of these values, case aside. Several fields of one name are tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderCondition {
    /// Any case, no wildcards; not `Host`.
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regexes: Vec<String>,
}

/// A part of the query as it was sent, case aside. `\*` and `\?` stand for the characters themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// None: the value of any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub value: String,
}

/// A regular expression and what is put in the place of the first thing it finds; `$1` to `$9` are its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    pub regex: String,
    pub replace: String,
}

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Is the address in it? IPv4 addresses in IPv6's clothes are IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                same_start(ours.to_bits().into(), other.to_bits().into(), self.bits, 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                same_start(ours.to_bits(), other.to_bits(), self.bits, Ipv6Addr::BITS)
            }
            _ => false,
        }
    }
}

fn same_start(a: u128, b: u128, bits: u8, of: u32) -> bool {
    let rest = of.saturating_sub(bits.into());
    (a ^ b).checked_shr(rest).unwrap_or(0) == 0
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range of addresses such as 192.0.2.0/24");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let parsed: u8 = bits.parse().map_err(|_| wrong())?;
        match parsed <= most && parsed.to_string() == bits {
            true => Ok(Self {
                address,
                bits: parsed,
            }),
            false => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Does `text` match `pattern`, in which `*` stands for any characters and `?` for exactly one? In linear space and
/// at most `pattern × text` time: a pattern of stars cannot be made slow.
pub fn matches(pattern: &str, text: &str) -> bool {
    glob(pattern.as_bytes(), text.as_bytes(), None, |a, b| a == b)
}

/// The same, case aside. With `escapes`, a backslash takes the meaning from the `*` or `?` behind it.
pub fn folds(pattern: &str, text: &str, escapes: bool) -> bool {
    let escape = escapes.then_some(b'\\');
    glob(pattern.as_bytes(), text.as_bytes(), escape, |a, b| {
        a.eq_ignore_ascii_case(&b)
    })
}

fn glob(pattern: &[u8], text: &[u8], escape: Option<u8>, same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t, mut retry) = (0, 0, None);
    // What stands for itself at `p`, and how long it is there.
    let plain = |p: usize| match pattern[p..] {
        [first, second, ..] if Some(first) == escape && b"*?".contains(&second) => Some((second, 2)),
        [b'*' | b'?', ..] | [] => None,
        [byte, ..] => Some((byte, 1)),
    };
    while t < text.len() {
        match (pattern.get(p), plain(p)) {
            (Some(b'*'), None) => {
                retry = Some((p + 1, t + 1));
                p += 1;
            }
            (Some(b'?'), None) => (p, t) = (p + 1, t + 1),
            (_, Some((byte, length))) if same(byte, text[t]) => (p, t) = (p + length, t + 1),
            _ => match retry {
                Some((after_star, from)) => {
                    (p, t) = (after_star, from);
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}
