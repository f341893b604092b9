//! What the load balancer has for one rule alone: sockets, and a certificate.

use std::net::SocketAddr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::Rule;

/// Sockets of one rule.
const LISTENERS: usize = 8;

/// Beside the listeners that all rules share. ALB and NLB have a load balancer of its own for that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Own {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listens>,
    /// Its hosts are to have a certificate from the authority.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub acme: bool,
}

impl Own {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A socket at which only the hosts of its rule are to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listens {
    pub address: SocketAddr,
    pub speaks: Speaks,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speaks {
    Http,
    /// With the certificates, and the settings, of the listener for HTTPS that all rules share.
    Https,
    /// Bytes, for the one host of the rule.
    Tcp,
    /// Datagrams, for the one host of the rule. A flow ends after so long without one.
    Udp {
        idle: SignedDuration,
    },
}

impl Speaks {
    /// `http`, `https`, `tcp` or `udp`
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Udp { .. } => "udp",
        }
    }
}

impl Rule {
    pub(super) fn check_own(&self) -> Result<(), String> {
        let listeners = &self.own.listeners;
        if listeners.len() > LISTENERS {
            return Err(format!("it has more than {LISTENERS} listeners"));
        }
        let plain = |host: &String| !host.contains(['*', '?']);
        for listens in listeners {
            let at = listens.address;
            if at.port() == 0 {
                return Err(format!("it listens at {at}, where nobody finds it"));
            }
            let bytes = matches!(listens.speaks, Speaks::Tcp | Speaks::Udp { .. });
            if bytes && !(self.hosts.len() == 1 && plain(&self.hosts[0])) {
                return Err(format!(
                    "bytes that come at {at} name no host, so that it needs exactly one"
                ));
            }
            if matches!(listens.speaks, Speaks::Udp { idle } if idle <= SignedDuration::ZERO) {
                return Err("flows need a time".into());
            }
        }
        match self.own.acme && (self.hosts.is_empty() || !self.hosts.iter().all(plain)) {
            true => Err("an authority gives certificates for hosts, not for patterns of them".into()),
            false => Ok(()),
        }
    }
}
