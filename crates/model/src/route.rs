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
    #[serde(default)]
    pub algorithm: Algorithm,
}

/// Which healthy target of a group gets the next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastOutstanding,
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
    #[error("the rule with the priority {rule} gives a group the weight {weight}: 0 to 999 are allowed")]
    Weight { rule: u32, weight: u32 },
    #[error("the answer of the rule with the priority {rule} cannot be sent: {why}")]
    Answer { rule: u32, why: String },
    #[error("the target group `{group}` cannot be used: {why}")]
    TargetGroup { group: String, why: String },
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
        for (name, group) in &self.target_groups {
            group.check().map_err(|why| Invalid::TargetGroup {
                group: name.clone(),
                why: why.to_owned(),
            })?;
        }
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
        let answer = |why: Option<&str>| match why {
            None => Ok(()),
            Some(why) => Err(Invalid::Answer {
                rule: rule.priority,
                why: why.to_owned(),
            }),
        };
        match &rule.action {
            Action::Forward { groups } => self.check_weights(rule.priority, groups),
            // The ranges are ALB's.
            Action::FixedResponse {
                status, content_type, ..
            } => answer(match status {
                _ if !is_header_value(content_type) => Some("its content type is not one line of text"),
                200..=299 | 400..=599 => None,
                _ => Some("its status must be 2xx, 4xx or 5xx"),
            }),
            Action::Redirect { status, location } => answer(match status {
                _ if location.is_empty() || !is_header_value(location) => {
                    Some("its location is not one line of text")
                }
                301 | 302 | 303 | 307 | 308 => None,
                _ => Some("its status must be 301, 302, 303, 307 or 308"),
            }),
        }
    }

    fn check_weights(&self, rule: u32, groups: &[Weighted]) -> Result<(), Invalid> {
        if let Some(group) = groups.iter().find(|group| group.weight > 999) {
            return Err(Invalid::Weight {
                rule,
                weight: group.weight,
            });
        }
        if groups.iter().all(|group| group.weight == 0) {
            return Err(Invalid::Weightless(rule));
        }
        match groups
            .iter()
            .find(|group| !self.target_groups.contains_key(&group.group))
        {
            Some(missing) => Err(Invalid::Group {
                rule,
                group: missing.group.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl TargetGroup {
    /// Why the group cannot be used.
    fn check(&self) -> Result<(), &'static str> {
        let health = &self.health;
        let path =
            health.path.starts_with('/') && health.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let codes = |(low, high): &(u16, u16)| *low >= 100 && low <= high && *high <= 599;
        let mut targets = std::collections::BTreeSet::new();
        if !path {
            Err("the path of its health check is not a path")
        } else if health.interval <= SignedDuration::ZERO || health.timeout <= SignedDuration::ZERO {
            Err("the interval and the time-out of its health check must be more than nothing")
        } else if !(2..=10).contains(&health.healthy) || !(2..=10).contains(&health.unhealthy) {
            Err("the thresholds of its health check must be 2 to 10")
        } else if health.codes.is_empty() || !health.codes.iter().all(codes) {
            Err("the codes of its health check must be ranges within 100 to 599")
        } else if self.deregistration_delay.is_negative() {
            Err("its deregistration delay is negative")
        } else if !self
            .targets
            .iter()
            .all(|target| targets.insert((&target.id, target.address)))
        {
            Err("a target is in it twice")
        } else {
            Ok(())
        }
    }
}

/// No line break and nothing else that could end a header early.
fn is_header_value(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
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

    fn table(edit: impl FnOnce(&mut Table)) -> Result<(), Invalid> {
        let group = TargetGroup {
            targets: Vec::new(),
            health: HealthCheck {
                path: "/health".into(),
                interval: SignedDuration::from_secs(5),
                timeout: SignedDuration::from_secs(2),
                healthy: 2,
                unhealthy: 3,
                codes: vec![(200, 399)],
            },
            deregistration_delay: SignedDuration::ZERO,
            algorithm: Algorithm::RoundRobin,
        };
        let mut table = Table {
            version: 1,
            rules: vec![Rule {
                priority: 1,
                place: "acme/shop/dev".parse().unwrap(),
                hosts: vec!["shop.example.com".into()],
                paths: vec!["/*".into()],
                action: Action::Forward {
                    groups: vec![Weighted {
                        group: "a".into(),
                        weight: 1,
                    }],
                },
            }],
            target_groups: BTreeMap::from([("a".into(), group)]),
        };
        edit(&mut table);
        table.check()
    }

    #[test]
    fn a_table_is_checked_whole() {
        assert_eq!(table(|_| ()), Ok(()));
        let refused: [fn(&mut Table); 8] = [
            |t| t.rules.push(t.rules[0].clone()),
            |t| t.target_groups.clear(),
            |t| t.rules[0].hosts.push("UPPER".into()),
            |t| t.rules[0].paths.push("x".into()),
            |t| t.target_groups.get_mut("a").unwrap().health.path = "/ HTTP/1.1\r\nX: y".into(),
            |t| t.target_groups.get_mut("a").unwrap().health.codes.clear(),
            |t| {
                t.rules[0].action = Action::Redirect {
                    status: 301,
                    location: "/\r\nSet-Cookie: x".into(),
                };
            },
            |t| {
                t.rules[0].action = Action::Forward {
                    groups: vec![Weighted {
                        group: "a".into(),
                        weight: 1000,
                    }],
                };
            },
        ];
        for (index, edit) in refused.into_iter().enumerate() {
            assert!(table(edit).is_err(), "{index}");
        }
    }
}
