//! Who may ask, by where they are.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Network, Rule};

/// Networks of one list.
pub const NETWORKS: usize = 256;
/// Whoever runs the platform decides for a tenant, and the tenant for an environment.
const LISTS: usize = 2;

/// Sources that are served and that are not. ALB has security groups and WAF's lists of addresses for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Nobody else; everybody where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Not these, also where they are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
}

impl Access {
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    pub fn lets_in(&self, source: IpAddr) -> bool {
        let has = |list: &[Network]| list.iter().any(|network| network.contains(source));
        (self.allow.is_empty() || has(&self.allow)) && !has(&self.deny)
    }
}

impl Rule {
    pub(super) fn check_access(&self) -> Result<(), String> {
        let long = |access: &Access| access.allow.len() > NETWORKS || access.deny.len() > NETWORKS;
        if self.access.len() > LISTS {
            return Err(format!(
                "it has {} lists of who may ask: {LISTS} are allowed",
                self.access.len()
            ));
        }
        match self.access.iter().any(long) {
            true => Err(format!("a list of who may ask has more than {NETWORKS} networks")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_is_not_let_in_and_who_is_not_allowed_neither() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let lets_in = |allow: &[&str], deny: &[&str], source: &str| {
            let access = Access {
                allow: list(allow),
                deny: list(deny),
            };
            access.lets_in(source.parse().unwrap())
        };
        let (office, one) = ("192.0.2.0/24", "192.0.2.7/32");
        assert!(lets_in(&[], &[], "198.51.100.1"));
        assert!(lets_in(&[office], &[one], "192.0.2.8"));
        assert!(!lets_in(&[office], &[one], "192.0.2.7"));
        assert!(!lets_in(&[office], &[one], "198.51.100.1"));
        assert!(!lets_in(&[], &[one], "::ffff:192.0.2.7"));
        assert!(lets_in(&[], &[one], "2001:db8::7"));
        assert!(!lets_in(&[office], &[], "2001:db8::7"));
    }
}
