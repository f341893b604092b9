//! Bridges, links, addresses and the packet filter. Knows nothing of what runs behind an address.
//!
//! One bridge and subnet per environment; one point-to-point link per build or bake. What exists is read from the
//! kernel, never remembered: a link carries the note of what it is for.

mod filter;
mod link;
mod names;
mod outside;

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use camino::Utf8Path;
use model::port::Network;
use rtnetlink::Handle;
use tracing::{info, warn};

pub use self::{
    filter::Closed,
    names::Names,
    outside::{Outside, services},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {name}: {source}")]
    Netlink {
        doing: &'static str,
        name: String,
        source: Box<rtnetlink::Error>,
    },
    #[error("cannot work in the network namespace of a container")]
    Namespace {
        #[source]
        source: io::Error,
    },
    #[error("the link {0} vanished")]
    Gone(String),
    #[error("cannot run nft")]
    Nft {
        #[source]
        source: io::Error,
    },
    #[error("nft refuses the rules: {0}")]
    Filter(String),
    #[error("{0} did not end in time")]
    Deadline(&'static str),
    #[error("{0}")]
    Order(String),
    #[error("every one of the 1,024 links for builds and bakes is taken")]
    Full,
}

impl Error {
    fn netlink(doing: &'static str, name: &str) -> impl FnOnce(rtnetlink::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Netlink {
            doing,
            name,
            source: Box::new(source),
        }
    }

    fn namespace(source: io::Error) -> Self {
        Self::Namespace { source }
    }
}

/// The networks of one data directory.
pub struct Networks {
    names: Names,
    handle: Handle,
    /// The numbers of /30 subnets that are being given out, before their links can be seen.
    taken: Mutex<HashSet<u32>>,
    /// Environments whose bridge this process has made sure of.
    ensured: Mutex<HashSet<u32>>,
    /// The bridge table is loaded.
    bridged: AtomicBool,
    fallbacks: Mutex<BTreeSet<&'static str>>,
    /// Where builds and bakes may go.
    outside: Mutex<Outside>,
    /// The rules about that which were loaded last.
    opened: Mutex<String>,
}

impl std::fmt::Debug for Networks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Networks {
    /// Loads the rules for what exists in the kernel, and turns on the forwarding of packets.
    pub async fn open(tag: &str) -> Result<Self, Error> {
        let names = Names::new(tag);
        let handle = link::here().map_err(Error::namespace)?;
        let networks = Self {
            names,
            handle,
            taken: Mutex::default(),
            ensured: Mutex::default(),
            bridged: AtomicBool::new(true),
            fallbacks: Mutex::default(),
            outside: Mutex::default(),
            opened: Mutex::default(),
        };
        networks.load().await?;
        networks.forward();
        Ok(networks)
    }

    /// Lets builds and bakes go to these private networks and to the machine's resolvers, and to no others: at first they
    /// reach no network. Called again, it sees whether the machine has other resolvers by now.
    pub async fn open_to(&self, outside: Outside) -> Result<(), Error> {
        let before = {
            let mut held = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *held, outside.clone())
        };
        // There is a rule more or less.
        if (before == Outside::Anywhere) != (outside == Outside::Anywhere) {
            return self.load().await;
        }
        // Only sets change: networks may come and go meanwhile.
        let script = filter::reopened(&self.names, &outside);
        let is_new = *self.opened.lock().unwrap_or_else(PoisonError::into_inner) != script;
        if is_new {
            filter::apply(&script).await?;
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = script;
        }
        Ok(())
    }

    /// What this kernel could not give.
    pub fn fallbacks(&self) -> Vec<String> {
        let held = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|what| (*what).to_owned()).collect()
    }

    /// Looks whether the rules are still there, and puts them back: other software of the machine may flush all rules.
    pub async fn guard(&self) -> Result<(), Error> {
        let gone = !filter::is_there(&self.names, "inet").await?
            || (self.bridged() && !filter::is_there(&self.names, "bridge").await?);
        if gone {
            warn!("the packet filter's rules were removed by somebody else; they are loaded again");
            self.load().await?;
        }
        Ok(())
    }

    /// Makes sure that the environment's bridge is there with its address.
    pub async fn ensure(&self, network: &Network) -> Result<(), Error> {
        check(network)?;
        let name = self.names.bridge(network);
        let known = self.known(network.number);
        if known && link::find(&self.handle, &name).await?.is_some() {
            return Ok(());
        }
        let before = link::find(&self.handle, &name).await?;
        let bridge = link::bridge(&self.handle, &name, self.names.mac(network)).await?;
        if let Err(error) = self.check_free(network, &bridge).await {
            // One that was there may have hosts, which go on whatever the machine got meanwhile.
            if before.is_none() {
                link::remove(&self.handle, &name).await?;
            }
            return Err(error);
        }
        no_ipv6(&name);
        link::address(&self.handle, &bridge, gateway(network), network.prefix).await?;
        filter::apply(&filter::add_network(&self.names, network)).await?;
        self.ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(network.number);
        Ok(())
    }

    /// Removes the environment's bridge. One that is not there is removed.
    pub async fn remove(&self, network: &Network) -> Result<(), Error> {
        check(network)?;
        self.ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&network.number);
        link::remove(&self.handle, &self.names.bridge(network)).await?;
        filter::apply(&filter::remove_network(&self.names, network)).await
    }

    /// Connects the container `id`, whose first process is `pid`, to its environment's bridge.
    pub async fn attach_host(
        &self,
        id: &str,
        pid: u32,
        network: &Network,
        address: Ipv4Addr,
        only_port: Option<u16>,
    ) -> Result<(), Error> {
        if !contains(network, address) {
            let subnet = format!("{}/{}", network.subnet, network.prefix);
            return Err(Error::Order(format!(
                "{address} is not an address for a host of {subnet}"
            )));
        }
        self.ensure(network).await?;
        let outer = self.names.port(id);
        let namespace = namespace_of(pid)?;
        link::remove(&self.handle, &outer).await?;
        // The rules are there before the link is.
        if let Some(port) = only_port {
            let closed = Closed {
                link: outer.clone(),
                address,
                port,
            };
            filter::apply(&filter::add_closed(&self.names, &closed, self.bridged())).await?;
        }
        let bridge = link::find(&self.handle, &self.names.bridge(network)).await?;
        let bridge = bridge.ok_or_else(|| Error::Gone(self.names.bridge(network)))?;
        let note = only_port.map_or(String::new(), |port| format!("{address} {port}"));
        link::pair(
            &self.handle,
            &outer,
            Some(bridge.index),
            &note,
            &namespace,
            address,
        )
        .await?;
        let inside = link::inside(namespace).await?;
        link::configure(&inside, address, network.prefix, gateway(network)).await
    }

    /// Connects the container `id`, whose first process is `pid`, to the world outside and to nothing else.
    pub async fn attach_outside(&self, id: &str, pid: u32) -> Result<(), Error> {
        let outer = self.names.one_off(id);
        link::remove(&self.handle, &outer).await?;
        let slot = Slot::take(&self.taken, &self.names, &self.used().await?)?;
        let namespace = namespace_of(pid)?;
        link::pair(&self.handle, &outer, None, "", &namespace, slot.address(2)).await?;
        no_ipv6(&outer);
        let here = link::find(&self.handle, &outer)
            .await?
            .ok_or_else(|| Error::Gone(outer.clone()))?;
        link::address(&self.handle, &here, slot.address(1), 30).await?;
        let inside = link::inside(namespace).await?;
        link::configure(&inside, slot.address(2), 30, slot.address(1)).await
    }

    /// Disconnects the container `id`. One that is not connected is disconnected. `only_port` is what it was attached
    /// with: a link vanishes with its container, its rules do not.
    pub async fn detach(&self, id: &str, only_port: Option<(Ipv4Addr, u16)>) -> Result<(), Error> {
        let outer = self.names.port(id);
        link::remove(&self.handle, &outer).await?;
        link::remove(&self.handle, &self.names.one_off(id)).await?;
        if let Some((address, port)) = only_port {
            let closed = Closed {
                link: outer,
                address,
                port,
            };
            filter::apply(&filter::remove_closed(&self.names, &closed, self.bridged())).await?;
        }
        Ok(())
    }

    /// Removes every interface and table of this data directory.
    pub async fn teardown(&self) -> Result<(), Error> {
        for prefix in [self.names.ports(), self.names.prefix()] {
            for found in link::list(&self.handle, &prefix).await? {
                link::remove(&self.handle, &found.name).await?;
            }
        }
        if self.bridged() {
            filter::apply(&filter::remove_table(&self.names, "bridge")).await?;
        }
        filter::apply(&filter::remove_table(&self.names, "inet")).await
    }

    /// Reads what is there and swaps in the rules for it.
    async fn load(&self) -> Result<(), Error> {
        let mut networks = Vec::new();
        for bridge in link::list(&self.handle, &format!("{}-", self.names.prefix())).await? {
            let number = bridge.name.rsplit('-').next().and_then(|n| n.parse().ok());
            let address = link::addresses(&self.handle, Some(bridge.index)).await?;
            if let (Some(number), Some(first)) = (number, address.first()) {
                let prefix = first.prefix;
                let subnet = Ipv4Addr::from(u32::from(first.address) & mask(prefix));
                networks.push(Network {
                    number,
                    subnet,
                    prefix,
                });
            }
        }
        let ports = link::list(&self.handle, &self.names.ports()).await?;
        let closed: Vec<Closed> = ports.iter().filter_map(closed_of).collect();
        let outside = self
            .outside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        filter::apply(&filter::inet_table(&self.names, &networks, &closed, &outside)).await?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = filter::reopened(&self.names, &outside);
        if let Err(error) = filter::apply(&filter::bridge_table(&self.names, &closed)).await {
            self.bridged.store(false, Ordering::Relaxed);
            if !br_netfilter() {
                let what = "no packet filter on bridges: hosts of an environment can reach every port of its database host";
                warn!(%error, "{what}");
                self.fall_back(what);
            }
        }
        Ok(())
    }

    /// Turned on once and left on: other software of the machine may rely on it by the time we stop.
    fn forward(&self) {
        const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
        if fs::read_to_string(PATH).is_ok_and(|text| text.trim() == "1") {
            return;
        }
        match fs::write(PATH, "1") {
            Ok(()) => info!("turned on the forwarding of IPv4 packets ({PATH}); it stays on"),
            Err(error) => {
                let what = "packets are not forwarded: hosts cannot reach the world outside";
                warn!(%error, "{what}");
                self.fall_back(what);
            }
        }
    }

    fn bridged(&self) -> bool {
        self.bridged.load(Ordering::Relaxed)
    }

    fn fall_back(&self, what: &'static str) {
        self.fallbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what);
    }

    /// The subnet must be nobody else's on this machine: packets for it would go astray.
    async fn check_free(&self, network: &Network, bridge: &link::Link) -> Result<(), Error> {
        let wide = |held: &link::Address| mask(held.prefix.min(network.prefix));
        let overlaps = |held: &link::Address| {
            u32::from(held.address) & wide(held) == u32::from(network.subnet) & wide(held)
        };
        let all = link::addresses(&self.handle, None).await?;
        match all
            .iter()
            .find(|held| held.link != bridge.index && overlaps(held))
        {
            Some(held) => Err(Error::Order(format!(
                "{}/{} overlaps with {}/{}, which this machine has already",
                network.subnet, network.prefix, held.address, held.prefix
            ))),
            None => Ok(()),
        }
    }

    fn known(&self, number: u32) -> bool {
        self.ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&number)
    }

    async fn used(&self) -> Result<HashSet<u32>, Error> {
        let all = link::addresses(&self.handle, None).await?;
        let base = self.names.one_off_base();
        let slot = |address: Ipv4Addr| u32::from(address).checked_sub(base).map(|offset| offset / 4);
        Ok(all
            .into_iter()
            .filter_map(|held| slot(held.address))
            .filter(|slot| *slot < 1024)
            .collect())
    }
}

/// One /30 that is being given out. Once its address is on a link the kernel remembers it for us.
struct Slot<'a> {
    taken: &'a Mutex<HashSet<u32>>,
    number: u32,
    base: u32,
}

impl<'a> Slot<'a> {
    fn take(taken: &'a Mutex<HashSet<u32>>, names: &Names, used: &HashSet<u32>) -> Result<Self, Error> {
        let mut held = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..1024).find(|number| !used.contains(number) && !held.contains(number));
        let number = free.ok_or(Error::Full)?;
        held.insert(number);
        Ok(Self {
            taken,
            number,
            base: names.one_off_base(),
        })
    }

    fn address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + self.number * 4 + host)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

/// The resolvers that the machine really uses. Stubs on loopback addresses cannot be reached from a container: what
/// systemd-resolved asks in its turn is taken instead.
pub fn resolvers() -> Vec<IpAddr> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let read = |file: &str| resolvers_in(&fs::read_to_string(Utf8Path::new(file)).unwrap_or_default());
    files
        .into_iter()
        .map(read)
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn resolvers_in(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        line.trim()
            .strip_prefix("nameserver")?
            .trim()
            .parse::<IpAddr>()
            .ok()
    };
    // IPv6 is off in containers.
    let usable = |address: &IpAddr| address.is_ipv4() && !address.is_loopback() && !address.is_unspecified();
    text.lines().filter_map(address).filter(usable).take(3).collect()
}

fn check(network: &Network) -> Result<(), Error> {
    let aligned = u32::from(network.subnet) & !mask(network.prefix) == 0;
    if network.prefix != 24 || !aligned || !network.subnet.is_private() {
        let text = format!(
            "{}/{} is not a private /24 subnet",
            network.subnet, network.prefix
        );
        return Err(Error::Order(text));
    }
    if network.number > 999_999 {
        return Err(Error::Order(format!(
            "{} is too large for the number of a network",
            network.number
        )));
    }
    Ok(())
}

fn gateway(network: &Network) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.subnet) + 1)
}

/// Is it an address of the subnet that a host may have?
fn contains(network: &Network, address: Ipv4Addr) -> bool {
    let offset = u32::from(address).checked_sub(u32::from(network.subnet));
    offset.is_some_and(|offset| (2..=254).contains(&offset))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn closed_of(link: &link::Link) -> Option<Closed> {
    let (address, port) = link.note.split_once(' ')?;
    Some(Closed {
        link: link.name.clone(),
        address: address.parse().ok()?,
        port: port.parse().ok()?,
    })
}

fn namespace_of(pid: u32) -> Result<File, Error> {
    File::open(format!("/proc/{pid}/ns/net")).map_err(Error::namespace)
}

/// Hosts have IPv4 only: an IPv6 address of the bridge would be one more way into the machine.
fn no_ipv6(interface: &str) {
    // Without IPv6 in the kernel there is nothing to turn off; with it, the filter drops it all the same.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
}

fn br_netfilter() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32, subnet: [u8; 4]) -> Network {
        Network {
            number,
            subnet: subnet.into(),
            prefix: 24,
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let names = Names::new("3fa2");
        for name in [
            names.bridge(&network(999_999, [10, 1, 2, 0])),
            names.port("h-x"),
            names.one_off("t-x"),
        ] {
            assert!(name.len() <= 15, "{name}");
        }
        assert_eq!(names.bridge(&network(12, [10, 1, 2, 0])), "vend3fa2-12");
    }

    #[test]
    fn only_private_subnets_and_their_hosts_are_taken() {
        assert!(check(&network(1, [10, 1, 2, 0])).is_ok());
        assert!(check(&network(1, [10, 1, 2, 8])).is_err());
        assert!(check(&network(1, [8, 8, 8, 0])).is_err());
        assert!(check(&network(1_000_000, [10, 1, 2, 0])).is_err());
        let here = network(1, [10, 1, 2, 0]);
        assert!(contains(&here, Ipv4Addr::new(10, 1, 2, 2)));
        for outside in [
            [10, 1, 2, 0],
            [10, 1, 2, 1],
            [10, 1, 2, 255],
            [10, 1, 3, 2],
            [10, 1, 1, 9],
        ] {
            assert!(!contains(&here, outside.into()), "{outside:?}");
        }
    }

    #[test]
    fn loopback_stubs_are_not_resolvers() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver ::1\n nameserver 10.0.0.2\nsearch a\nnameserver x";
        assert_eq!(resolvers_in(text), [IpAddr::from([10, 0, 0, 2])]);
    }
}
