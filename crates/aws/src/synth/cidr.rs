//! IPv4 ranges: a network's own, and its subnets'.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::word::NotA;

/// A range of addresses, its first address first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    first: u32,
    bits: u8,
}

impl Cidr {
    /// The number of bits that all its addresses share.
    pub fn bits(self) -> u8 {
        self.bits
    }

    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.bits.min(other.bits));
        self.first & mask == other.first & mask
    }

    /// The range's part number `index` when it is cut into parts of `bits`; none beyond its end.
    pub fn part(self, bits: u8, index: u32) -> Option<Self> {
        let more = bits
            .checked_sub(self.bits)
            .filter(|more| *more < 32 && bits <= 32)?;
        (u64::from(index) < 1 << more).then(|| Self {
            first: self.first | index << (32 - u32::from(bits)),
            bits,
        })
    }

    /// May a VPC use it? RFC 1918 and 6598.
    fn is_private(self) -> bool {
        [
            (0x0A00_0000, 8),
            (0xAC10_0000, 12),
            (0xC0A8_0000, 16),
            (0x6440_0000, 10),
        ]
        .iter()
        .any(|&(first, bits)| self.bits >= bits && self.first & mask(bits) == first)
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let wanted = "a private range such as `10.1.0.0/16`, from /16 to /20, with its first address";
        read(text, 16..=20).ok_or_else(|| NotA {
            text: text.to_owned(),
            wanted,
        })
    }
}

fn read(text: &str, sizes: RangeInclusive<u8>) -> Option<Cidr> {
    let (address, bits) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok().filter(|bits| sizes.contains(bits))?;
    let range = Cidr {
        first: u32::from(address),
        bits,
    };
    (range.first & !mask(bits) == 0 && range.is_private()).then_some(range)
}

/// A range of a customer's own building, of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Onsite(pub Cidr);

impl TryFrom<String> for Onsite {
    type Error = NotA;

    fn try_from(text: String) -> Result<Self, NotA> {
        let wanted = "a private range such as `192.168.0.0/16`, with its first address";
        read(&text, 8..=32).map(Self).ok_or(NotA { text, wanted })
    }
}

impl From<Onsite> for String {
    fn from(range: Onsite) -> Self {
        range.0.to_string()
    }
}

impl fmt::Display for Onsite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Cidr {
    type Error = NotA;

    fn try_from(text: String) -> Result<Self, NotA> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_private_and_aligned() {
        for bad in [
            "",
            "10.1.0.0",
            "10.1.0.1/16",
            "10.0.0.0/8",
            "10.0.0.0/21",
            "8.8.0.0/16",
            "10.1.0.0/-1",
            "10.1.0.0/99",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!(cidr("100.64.0.0/16").to_string(), "100.64.0.0/16");
    }

    #[test]
    fn overlap_is_one_inside_the_other() {
        assert!(cidr("10.1.0.0/16").overlaps(cidr("10.1.32.0/20")));
        assert!(!cidr("10.1.0.0/16").overlaps(cidr("10.2.0.0/16")));
        assert!(!cidr("10.1.0.0/20").overlaps(cidr("10.1.16.0/20")));
    }

    #[test]
    fn parts_stay_inside() {
        let range = cidr("10.1.0.0/16");
        assert_eq!(range.part(20, 2).unwrap().to_string(), "10.1.32.0/20");
        assert_eq!(range.part(20, 15).unwrap().to_string(), "10.1.240.0/20");
        assert_eq!(range.part(20, 16), None);
        assert_eq!(range.part(15, 0), None);
        assert_eq!(range.part(33, 0), None);
    }
}
