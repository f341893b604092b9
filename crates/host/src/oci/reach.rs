//! Which machines a registry may be at.
//!
//! A customer names the registry, and the platform's machine asks it: without a rule a customer could reach whatever this
//! machine can. So every address that is connected to, of redirects and token servers too, must be public, or one that
//! the operator allows. The rule is applied where names are looked up, so that a name cannot change in between.

use std::net::{IpAddr, Ipv4Addr};

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
    /// Public addresses, and these networks: address and length of the prefix.
    Public { also: Vec<(IpAddr, u8)> },
}

impl Reach {
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { also } => is_public(address) || self.names(also, address),
        }
    }

    fn names(&self, networks: &[(IpAddr, u8)], address: IpAddr) -> bool {
        networks.iter().any(|(base, prefix)| match (base, address) {
            (IpAddr::V4(base), IpAddr::V4(four)) => {
                let shift = 32_u32.saturating_sub((*prefix).into());
                base.to_bits().checked_shr(shift) == four.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(six)) => {
                let shift = 128_u32.saturating_sub((*prefix).into());
                base.to_bits().checked_shr(shift) == six.to_bits().checked_shr(shift)
            }
            _ => false,
        })
    }
}

/// Does the internet know this address as one machine's?
pub fn is_public(address: IpAddr) -> bool {
    let six = match address {
        IpAddr::V4(four) => return is_public_four(four),
        IpAddr::V6(six) => six,
    };
    let s = six.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match s {
        // An IPv4 address in other clothes: mapped, compatible, translated (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_four(inner(high, low))
        }
        [0x2002, high, low, ..] => is_public_four(inner(high, low)),
        // Teredo, and documentation.
        [0x2001, 0 | 0xdb8, ..] => false,
        // Global unicast is 2000::/3 (RFC 4291).
        _ => s[0] >> 13 == 1,
    }
}

fn is_public_four(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224;
    // Carriers' networks, protocols' own, benchmarks (RFC 6890).
    !(special || (a == 100 && b >> 6 == 1) || (a == 192 && b == 0 && c == 0) || (a == 198 && b >> 1 == 9))
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
            also: vec![
                ("10.1.0.0".parse().unwrap(), 16),
                ("fd00::".parse().unwrap(), 8),
                ("127.0.0.1".parse().unwrap(), 32),
            ],
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
            also: vec![("0.0.0.0".parse().unwrap(), 0)],
        };
        assert!(all.allows("127.0.0.1".parse().unwrap()) && !all.allows("::1".parse().unwrap()));
    }
}
