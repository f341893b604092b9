//! Addresses and ranges of them: which one the internet knows, and which one somebody wrote down.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads a range as operators write it: one address alone, or a range that has nothing behind its prefix, so that
    /// `10.1.2.3/24`, which may mean one machine or all of them, is refused.
    pub fn exact(text: &str) -> Option<Self> {
        let network: Self = match text.parse::<IpAddr>() {
            Ok(address) => Self {
                address,
                bits: width(address),
            },
            Err(_) => text.parse().ok()?,
        };
        let behind = match network.address {
            IpAddr::V4(four) => four.to_bits().checked_shl(network.bits.into()).unwrap_or(0) == 0,
            IpAddr::V6(six) => six.to_bits().checked_shl(network.bits.into()).unwrap_or(0) == 0,
        };
        behind.then_some(network)
    }

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

/// How many bits an address has.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
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
        let parsed: u8 = bits.parse().map_err(|_| wrong())?;
        match parsed <= width(address) && parsed.to_string() == bits {
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

/// Does the internet know this address as one machine's? For IPv6 also what wraps an IPv4 address is looked into.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            Network::exact(network).map(|network| network.contains(address.parse().unwrap()))
        };
        assert_eq!(holds("10.1.2.0/24", "10.1.2.77"), Some(true));
        assert_eq!(holds("10.1.2.0/24", "::ffff:10.1.2.77"), Some(true));
        assert_eq!(holds("10.1.2.0/24", "10.1.3.1"), Some(false));
        assert_eq!(holds("127.0.0.1", "127.0.0.1"), Some(true));
        assert_eq!(holds("127.0.0.1", "127.0.0.2"), Some(false));
        assert_eq!(holds("fd00::/8", "fd12::1"), Some(true));
        assert_eq!(holds("fd00::/8", "fe00::1"), Some(false));
        assert_eq!(holds("::/0", "fd00::1"), Some(true));
        assert_eq!(holds("0.0.0.0/0", "127.0.0.1"), Some(true));
        assert_eq!(holds("0.0.0.0/0", "fd00::1"), Some(false));
        for bad in [
            "10.1.2.3/24",
            "10.0.0.0/33",
            "fd00::1/64",
            "x",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "",
        ] {
            assert_eq!(Network::exact(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_of_the_inside_are_not_public() {
        for inside in [
            "127.0.0.1",
            "10.64.3.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7/32", "192.0.2.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db9::", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for wrong in [
            "192.0.2.0",
            "192.0.2.0/33",
            "::/129",
            "x/8",
            "192.0.2.0/+8",
            "192.0.2.0/08",
            "/8",
            "1.2.3.4/",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
