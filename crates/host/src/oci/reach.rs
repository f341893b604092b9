//! Which machines a registry may be at.
//!
//! A customer names the registry, and the platform's machine asks it: without a rule a customer could reach whatever this
//! machine can. So every address that is connected to, of redirects and token servers too, must be public, or one that
//! the operator allows. The rule is applied where names are looked up, so that a name cannot change in between.

use std::net::IpAddr;

use model::address::{Network, is_public};
use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// Where a client may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Wherever its user can: the command line.
    Anywhere,
    /// Public addresses, and these networks.
    Public { also: Vec<Network> },
}

impl Reach {
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { also } => {
                is_public(address) || also.iter().any(|network| network.contains(address))
            }
        }
    }
}

/// Looks names up and drops what may not be reached.
#[derive(Debug)]
pub(super) struct Lookup {
    pub reach: Reach,
    pub names: DefaultResolver,
}

/// In the text of an error of the lookup: only it is passed through by the client.
pub(super) const PRIVATE: &str = "not a public address: ";

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.names.resolve(uri, config, timeout)?;
        // The operator's proxy is a gate of its own, and is looked up here like any host.
        let is_proxy = config
            .proxy()
            .is_some_and(|proxy| Some(proxy.host()) == uri.host());
        let mut kept = self.empty();
        for address in found
            .iter()
            .filter(|address| is_proxy || self.reach.allows(address.ip()))
        {
            kept.push(*address);
        }
        match (kept.is_empty(), found.first()) {
            (true, Some(address)) => Err(ureq::Error::Io(std::io::Error::other(format!(
                "{PRIVATE}{}",
                address.ip()
            )))),
            _ => Ok(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_the_operator_s_are_reached() {
        let reach = Reach::Public {
            also: ["10.1.0.0/16", "fd00::/8", "127.0.0.1/32"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
        };
        for (address, allowed) in [
            ("1.1.1.1", true),
            ("10.1.255.1", true),
            ("10.2.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("169.254.169.254", false),
            ("::ffff:127.0.0.2", false),
            ("::1", false),
            ("2606:4700::1111", true),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
        ] {
            assert_eq!(reach.allows(address.parse().unwrap()), allowed, "{address}");
            assert!(Reach::Anywhere.allows(address.parse().unwrap()));
        }
        let all = Reach::Public {
            also: vec!["0.0.0.0/0".parse().unwrap()],
        };
        assert!(all.allows("127.0.0.1".parse().unwrap()) && !all.allows("::1".parse().unwrap()));
    }
}
