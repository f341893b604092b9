//! The packet filter of one data directory: who may reach whom, as nftables rules.
//!
//! One inet table carries the rules between networks, one bridge table those inside of one. Both are written whole and
//! swapped in one transaction when a node starts; after that only elements of their sets change.

use std::{collections::BTreeSet, net::Ipv4Addr, process::Stdio, time::Duration};

use model::port::Network;
use tokio::io::AsyncWriteExt as _;

use super::{Error, Names, Outside, outside::PRIVATE};

/// The largest rule sets that were tried load in a hundredth of it.
const DEADLINE: Duration = Duration::from_secs(30);

/// A host of which only one port can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub link: String,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// The whole inet table. Every interface of ours starts with the same prefix, so that rules need no list of them.
pub fn inet_table(names: &Names, networks: &[Network], closed: &[Closed], outside: &Outside) -> String {
    let table = names.table();
    let ours = names.prefix();
    let same = elements(networks.iter().map(|n| pair(&names.bridge(n))));
    let subnets = elements(networks.iter().map(subnet).chain([names.one_offs()]));
    let addresses = elements(closed.iter().map(|c| c.address.to_string()));
    let ports = elements(closed.iter().map(address_port));
    let one_offs = names.one_offs();
    let Private {
        rule,
        resolvers,
        services,
        allowed,
    } = Private::new(outside, &one_offs);
    format!(
        r#"
table inet {table}
delete table inet {table}
table inet {table} {{
  # A bridge with itself: bridged frames come through here when br_netfilter is loaded.
  set same {{ type ifname . ifname; {same} }}
  set subnets {{ type ipv4_addr; flags interval; {subnets} }}
  set closed {{ type ipv4_addr; {addresses} }}
  set open {{ type ipv4_addr . inet_service; {ports} }}
  set resolvers {{ type ipv4_addr; {resolvers} }}
  set services {{ type ipv4_addr . inet_service; {services} }}
  set allowed {{ type ipv4_addr; flags interval; auto-merge; {allowed} }}
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{ours}*" jump to_machine
  }}
  chain to_machine {{
    ct state established,related accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname "{ours}*" jump from_host
    oifname "{ours}*" jump to_host
  }}
  chain from_host {{
    meta nfproto != ipv4 drop
    ct state established,related accept
    iifname . oifname @same jump inside
    oifname "vend*" drop
    ip saddr != @subnets drop
    ip saddr @closed drop
    ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }} drop
    {rule}
    accept
  }}
  # Of builds and bakes.
  chain private {{
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr . tcp dport @services accept
    ip daddr @allowed accept
    drop
  }}
  chain inside {{
    ip daddr . tcp dport @open accept
    ip daddr @closed drop
    ip saddr @closed drop
    accept
  }}
  chain to_host {{
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @subnets oifname != "vend*" masquerade
  }}
}}
"#
    )
}

/// What the table says of private networks: the rule that builds and bakes come to, and its sets.
struct Private {
    rule: String,
    resolvers: String,
    services: String,
    allowed: String,
}

impl Private {
    fn new(outside: &Outside, one_offs: &str) -> Self {
        let none = String::new;
        let Outside::Public { also, services } = outside else {
            return Self {
                rule: none(),
                resolvers: none(),
                services: none(),
                allowed: none(),
            };
        };
        // IPv6 is off in containers.
        let also = also.iter().map(ToString::to_string);
        let resolvers = super::resolvers();
        Self {
            rule: format!(
                "ip saddr {one_offs} ip daddr {{ {} }} jump private",
                PRIVATE.join(", ")
            ),
            resolvers: elements(unique(resolvers.iter().map(ToString::to_string))),
            services: elements(services.iter().map(|at| format!("{} . {}", at.ip(), at.port()))),
            allowed: elements(also.filter(|network| !network.contains(':'))),
        }
    }
}

/// The sets about private networks as they are to be now, in a table that is there.
pub fn reopened(names: &Names, outside: &Outside) -> String {
    let table = names.table();
    let private = Private::new(outside, &names.one_offs());
    let mut script = String::new();
    for (set, elements) in [
        ("resolvers", private.resolvers),
        ("services", private.services),
        ("allowed", private.allowed),
    ] {
        script += &format!("flush set inet {table} {set}\n");
        if let Some(elements) = elements.strip_prefix("elements = ") {
            script += &format!("add element inet {table} {set} {elements}\n");
        }
    }
    script
}

/// Of two equal elements a set would be refused.
fn unique(all: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    all.collect::<BTreeSet<_>>().into_iter()
}

/// The whole bridge table: closed hosts talk through their port only, with hosts of their network only. It looks at
/// single frames, because connections are not tracked on bridges everywhere.
pub fn bridge_table(names: &Names, closed: &[Closed]) -> String {
    let table = names.table();
    let links = elements(closed.iter().map(|c| quoted(&c.link)));
    let ports = elements(closed.iter().map(link_port));
    format!(
        r#"
table bridge {table}
delete table bridge {table}
table bridge {table} {{
  set closed {{ type ifname; {links} }}
  set open {{ type ifname . inet_service; {ports} }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ether type arp accept
    ether type ip oifname . tcp dport @open accept
    ether type ip iifname . tcp sport @open tcp flags & (syn | ack) != syn accept
    oifname @closed drop
    iifname @closed drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ether type arp accept
    iifname @closed drop
  }}
}}
"#
    )
}

pub fn add_network(names: &Names, network: &Network) -> String {
    let table = names.table();
    let (same, subnet) = (pair(&names.bridge(network)), subnet(network));
    format!("add element inet {table} same {{ {same} }}\nadd element inet {table} subnets {{ {subnet} }}\n")
}

/// Elements are added first: deleting one that is not there would fail the transaction.
pub fn remove_network(names: &Names, network: &Network) -> String {
    let added = add_network(names, network);
    let removed = added.replace("add element", "delete element");
    added + &removed
}

pub fn add_closed(names: &Names, closed: &Closed, bridged: bool) -> String {
    let table = names.table();
    let mut script = format!(
        "add element inet {table} closed {{ {} }}\nadd element inet {table} open {{ {} }}\n",
        closed.address,
        address_port(closed)
    );
    if bridged {
        script += &format!(
            "add element bridge {table} closed {{ {} }}\nadd element bridge {table} open {{ {} }}\n",
            quoted(&closed.link),
            link_port(closed)
        );
    }
    script
}

pub fn remove_closed(names: &Names, closed: &Closed, bridged: bool) -> String {
    let added = add_closed(names, closed, bridged);
    let removed = added.replace("add element", "delete element");
    added + &removed
}

/// Declared first: deleting a table that is not there would fail.
pub fn remove_table(names: &Names, family: &str) -> String {
    let table = names.table();
    format!("table {family} {table}\ndelete table {family} {table}\n")
}

/// Is our table of that family loaded?
pub async fn is_there(names: &Names, family: &str) -> Result<bool, Error> {
    let mut nft = command();
    // Without the elements of sets, which may be many.
    nft.args(["--terse", "list", "table", family, &names.table()]);
    nft.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = tokio::time::timeout(DEADLINE, nft.status()).await;
    let status = status
        .map_err(|_| Error::Deadline("nft"))?
        .map_err(|source| Error::Nft { source })?;
    Ok(status.success())
}

/// Runs one transaction: all of it holds afterwards, or nothing.
pub async fn apply(script: &str) -> Result<(), Error> {
    let failed = |source| Error::Nft { source };
    let mut nft = command();
    nft.args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut nft = nft.spawn().map_err(failed)?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    let write = async move { stdin.write_all(script.as_bytes()).await };
    let both = async { tokio::join!(write, nft.wait_with_output()) };
    let (_, output) = tokio::time::timeout(DEADLINE, both)
        .await
        .map_err(|_| Error::Deadline("nft"))?;
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr)
        .lines()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ");
    Err(Error::Filter(why))
}

fn command() -> tokio::process::Command {
    let mut nft = tokio::process::Command::new("nft");
    nft.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .kill_on_drop(true);
    nft
}

fn elements(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    match all.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }}", all.join(", ")),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn pair(bridge: &str) -> String {
    format!("\"{bridge}\" . \"{bridge}\"")
}

fn subnet(network: &Network) -> String {
    format!("{}/{}", network.subnet, network.prefix)
}

fn address_port(closed: &Closed) -> String {
    format!("{} . {}", closed.address, closed.port)
}

fn link_port(closed: &Closed) -> String {
    format!("\"{}\" . {}", closed.link, closed.port)
}
