//! Ranges of addresses, and who is in them.

use std::net::IpAddr;

use model::route::{Access, Network};

/// Reads ranges and addresses from any bytes, a line each. A range that is written anew is the same, has the address that it is
/// written by, and what a list says of an address is what its ranges say one by one.
///
/// # Panics
/// When it is not so.
pub fn sources(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut access = Access::default();
    for line in text.lines() {
        if let Ok(network) = line.parse::<Network>() {
            let written = network.to_string();
            assert_eq!(written.parse(), Ok(network), "{line}");
            let (address, _) = written.split_once('/').unwrap_or_default();
            let address: IpAddr = address.parse().expect("it was written from an address");
            // An address of IPv4 in IPv6's clothes is in none of IPv6.
            assert!(
                network.contains(address) || address.to_canonical() != address,
                "{line}"
            );
            match access.allow.len() <= access.deny.len() {
                true => access.allow.push(network),
                false => access.deny.push(network),
            }
        }
        if let Some(exact) = Network::exact(line) {
            assert_eq!(Network::exact(&exact.to_string()), Some(exact), "{line}");
        }
    }
    for source in text.lines().filter_map(|line| line.parse::<IpAddr>().ok()) {
        let allowed = access
            .allow
            .iter()
            .filter(|network| network.contains(source))
            .count();
        let denied = access
            .deny
            .iter()
            .filter(|network| network.contains(source))
            .count();
        let expected = (access.allow.is_empty() || allowed > 0) && denied == 0;
        assert_eq!(access.lets_in(source), expected, "{source}");
        assert_eq!(access.lets_in(source.to_canonical()), expected, "{source}");
    }
}
