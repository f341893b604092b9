//! Where builds and bakes may go beside the public internet.
//!
//! They run what anybody with a branch wrote, on a machine that may stand in its operator's own network: without a rule
//! they could ask whatever there is. So private networks are closed to them, but for those that the operator allows, and
//! for what this machine itself is set up to use: its resolvers, its proxy and its package archives.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _},
};

use axum::http::Uri;
use model::address::Network;

/// The networks that are nobody's on the internet (RFC 1918, RFC 6598, RFC 2544).
pub const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
];

/// What of private networks builds and bakes reach. Never this machine, a host of an environment, or one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// Whatever the machine does: a build of somebody who sits at it.
    Anywhere,
    /// These networks and services.
    Public {
        also: Vec<Network>,
        services: Vec<SocketAddrV4>,
    },
}

impl Default for Outside {
    fn default() -> Self {
        Self::Public {
            also: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// The private addresses of these URLs' hosts, as they are now. An error when one cannot be looked up: what was known is
/// better then. Blocking.
pub fn services<'a>(urls: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<SocketAddrV4>> {
    let found: io::Result<Vec<_>> = urls.into_iter().map(addresses).collect();
    let mut found = found?.concat();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn addresses(url: &str) -> io::Result<Vec<SocketAddrV4>> {
    let Some((host, port)) = target(url) else {
        return Ok(Vec::new());
    };
    let found = (host.as_str(), port).to_socket_addrs()?;
    let private = found
        .filter_map(|address| match address {
            SocketAddr::V4(four) if is_private(*four.ip()) => Some(four),
            _ => None,
        })
        .collect();
    Ok(private)
}

/// Host and port of `http://proxy.example:3128`, or of `proxy.example:3128`, as proxies are written, too.
fn target(url: &str) -> Option<(String, u16)> {
    // What lies on a disk is on no network.
    if ["cdrom:", "file:", "copy:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return None;
    }
    let whole = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let uri: Uri = whole.parse().ok()?;
    let usual = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    // Builds have no IPv6: nothing has to be opened for an address of it.
    let is_name = |host: &&str| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let host = uri.host().filter(is_name)?;
    Some((host.to_owned(), uri.port_u16().unwrap_or(usual)))
}

fn is_private(address: Ipv4Addr) -> bool {
    let mut networks = PRIVATE.iter().filter_map(|text| Network::exact(text));
    networks.any(|network| network.contains(IpAddr::V4(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_is_set_up_to_use_is_found() {
        for (url, expected) in [
            ("http://10.0.0.8:3128", Some("10.0.0.8:3128")),
            ("10.0.0.8:3128", Some("10.0.0.8:3128")),
            ("http://ada:word@192.168.7.1/", Some("192.168.7.1:80")),
            ("https://172.31.0.1/debian", Some("172.31.0.1:443")),
            // Nothing has to be opened for what the internet knows, and nothing is for the machine itself.
            ("http://203.0.113.80/debian", None),
            ("http://127.0.0.1:3128", None),
            ("http://[fd00::1]:3128", None),
            ("", None),
            ("cdrom:[x]", None),
        ] {
            let expected: Vec<SocketAddrV4> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(services([url]).unwrap(), expected, "{url}");
        }
        assert_eq!(services(["10.0.0.8:1", "http://10.0.0.8:1/"]).unwrap().len(), 1);
        assert!(
            services(["10.0.0.8:1", "http://proxy.invalid:1/"]).is_err(),
            "not told is not none"
        );
    }
}
