//! Names and addresses that two platforms on one machine do not share.

use std::net::Ipv4Addr;

use model::{Digest, port::Network};

/// How the interfaces and tables of one data directory are called, so that two platforms on one machine do not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    tag: String,
    number: u16,
}

impl Names {
    /// `tag` is four hex digits.
    pub fn new(tag: &str) -> Self {
        let number = u16::from_str_radix(tag, 16).unwrap_or_default();
        Self {
            tag: tag.to_owned(),
            number,
        }
    }

    /// Starts every interface that packets are routed through.
    pub fn prefix(&self) -> String {
        format!("vend{}", self.tag)
    }

    pub fn table(&self) -> String {
        format!("vend_{}", self.tag)
    }

    /// At most 15 characters, as the kernel wants.
    pub fn bridge(&self, network: &Network) -> String {
        format!("{}-{}", self.prefix(), network.number)
    }

    /// Starts every port of a bridge.
    pub fn ports(&self) -> String {
        format!("vh{}-", self.tag)
    }

    /// The machine's end of a host's link: a port of a bridge.
    pub fn port(&self, id: &str) -> String {
        format!("{}{}", self.ports(), &Digest::of(id).hex()[..8])
    }

    /// The machine's end of a build's or bake's link.
    pub fn one_off(&self, id: &str) -> String {
        format!("{}o{}", self.prefix(), &Digest::of(id).hex()[..6])
    }

    /// 1,024 subnets of four addresses in the space of carriers (RFC 6598), which no other network should use.
    pub fn one_off_base(&self) -> u32 {
        u32::from(Ipv4Addr::new(100, 64, 0, 0)) + (u32::from(self.number % 1024) << 12)
    }

    pub fn one_offs(&self) -> String {
        format!("{}/20", Ipv4Addr::from(self.one_off_base()))
    }

    pub fn mac(&self, network: &Network) -> [u8; 6] {
        let hash = Digest::of_parts([self.tag.as_bytes(), &network.number.to_be_bytes()]);
        let [a, b, c, d, e, ..] = *hash.as_bytes();
        // Locally administered, unicast.
        [0x02, a, b, c, d, e]
    }
}
