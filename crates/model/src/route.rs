//! What the load balancer does, as one value: listeners, rules and target groups with ALB's meaning.
//!
//! The table is always whole. It is computed from the catalogue by a pure function, sent to the edge as one value and
//! applied or refused as one value, so that no order of changes can leave half a route behind.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::Place;

/// Everything that the edge needs to serve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change; the edge refuses a table older than the one it has.
    pub version: u64,
    /// In priority order: the first rule whose conditions all hold decides.
    pub rules: Vec<Rule>,
    pub target_groups: BTreeMap<String, TargetGroup>,
}

/// One rule. No condition on a field means that any value will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique in the table; lower goes first.
    pub priority: u32,
    pub place: Place,
    /// Host names, lower case, without port; `*` stands for any characters and `?` for one, as in ALB.
    pub hosts: Vec<String>,
    /// Paths, case-sensitive; `*` and `?` as in ALB.
    pub paths: Vec<String>,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// To target groups by weight, 0 to 999. A group of weight 0 gets nothing.
    Forward {
        groups: Vec<Weighted>,
    },
    FixedResponse {
        status: u16,
        content_type: String,
        body: String,
    },
    Redirect {
        status: u16,
        location: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighted {
    pub group: String,
    pub weight: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetGroup {
    pub targets: Vec<Target>,
    pub health: HealthCheck,
    /// How long requests under way may go on after a target has left.
    pub deregistration_delay: SignedDuration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The host's id.
    pub id: String,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub path: String,
    pub interval: SignedDuration,
    pub timeout: SignedDuration,
    /// Successes in a row that make an unhealthy target healthy, 2 to 10.
    pub healthy: u32,
    /// Failures in a row that make a healthy target unhealthy, 2 to 10.
    pub unhealthy: u32,
    /// Status codes that count as success, both ends included.
    pub codes: Vec<(u16, u16)>,
}

/// What the edge sees of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetHealth {
    pub group: String,
    pub target: Target,
    pub state: TargetState,
    /// Why, when it is not healthy: `connection refused`, `status 500`.
    pub reason: Option<String>,
    pub requests: u64,
    pub errors: u64,
    pub active: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Not probed often enough yet. Gets traffic only when nothing is healthy.
    Initial,
    Healthy,
    Unhealthy,
    /// Left the table; finishes its requests.
    Draining,
}

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Invalid {
    #[error("two rules have the priority {0}")]
    Priority(u32),
    #[error("the rule with the priority {rule} forwards to `{group}`, which is not in the table")]
    Group { rule: u32, group: String },
    #[error("the rule with the priority {0} forwards to nothing: every weight is 0 or there is no group")]
    Weightless(u32),
    #[error("`{0}` is not a host name or pattern")]
    Host(String),
    #[error("`{0}` is not a path or pattern: it must start with `/` or `*`")]
    Path(String),
    #[error("the table is version {got}, the one in force is {have}")]
    Stale { got: u64, have: u64 },
}

impl Table {
    /// Checks everything that can be checked without a network.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut priorities = std::collections::BTreeSet::new();
        for rule in &self.rules {
            if !priorities.insert(rule.priority) {
                return Err(Invalid::Priority(rule.priority));
            }
            self.check_action(rule)?;
            if let Some(host) = rule.hosts.iter().find(|host| !is_host_pattern(host)) {
                return Err(Invalid::Host(host.clone()));
            }
            if let Some(path) = rule.paths.iter().find(|path| !path.starts_with(['/', '*'])) {
                return Err(Invalid::Path(path.clone()));
            }
        }
        Ok(())
    }

    fn check_action(&self, rule: &Rule) -> Result<(), Invalid> {
        let Action::Forward { groups } = &rule.action else {
            return Ok(());
        };
        if groups.iter().all(|group| group.weight == 0) {
            return Err(Invalid::Weightless(rule.priority));
        }
        match groups
            .iter()
            .find(|group| !self.target_groups.contains_key(&group.group))
        {
            Some(missing) => Err(Invalid::Group {
                rule: rule.priority,
                group: missing.group.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn is_host_pattern(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.*?_".contains(&b))
}

/// Does `text` match `pattern`, in which `*` stands for any characters and `?` for exactly one? In linear space and
/// at most `pattern × text` time: a pattern of stars cannot be made slow.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t + 1));
                p += 1;
            }
            Some(&b) if b == b'?' || b == text[t] => {
                p += 1;
                t += 1;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_alb() {
        for (pattern, text, expected) in [
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("/img/*", "/img/", true),
            ("/img/*", "/image", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xxaxxb", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
