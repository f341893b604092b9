//! What a rule asks of a request beside host and path, and the patterns in which it asks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::address::Network;

/// Conditions of one rule. All must hold; of the values of one, any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Regular expressions, of which one must be found in the host; beside `hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_regexes: Vec<String>,
    /// The same for the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_regexes: Vec<String>,
    /// Headers, of each of which one value must be there.
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
    #[schema(value_type = Vec<String>)]
    pub sources: Vec<Network>,
}

impl Conditions {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A header that must be there with one of these values, case aside. Several fields of one name are tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderCondition {
    /// Any case, no wildcards; not `Host`.
    pub name: String,
    /// With `*` and `?`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Regular expressions, of which one must be found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regexes: Vec<String>,
}

/// A part of the query as it was sent, case aside. `\*` and `\?` stand for the characters themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// None: the value of any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With `*` and `?`.
    pub value: String,
}

/// A regular expression and what is put in the place of the first thing it finds; `$1` to `$9` are its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// Without look-around.
    pub regex: String,
    /// What comes in its place.
    pub replace: String,
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
