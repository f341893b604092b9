//! Measures how long hosts take from the order to an agent that has its environment: `starts NODE ROOTFS [COUNT]`.
//!
//! `NODE` is a directory to work in, `ROOTFS` one with a root file system. Prints one line a host and the median.

use std::{collections::BTreeMap, net::Ipv4Addr, process::ExitCode, sync::Arc, time::Instant};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    agent::{self, systemctl},
    container::{self, Containers},
    hosts::Hosts,
    ticket::Tickets,
};
use jiff::Timestamp;
use model::{
    Digest, Secret,
    port::{HostOrder, HostRole, Hosts as _, Network, Resources},
};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    let name = arguments.remove(0);
    if systemctl::is_name(&name) {
        return systemctl::main(&name, &arguments);
    }
    match arguments.first().map(String::as_str) {
        Some("agent") => agent::main(),
        Some(_) => match measure(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        None => {
            eprintln!("starts NODE ROOTFS [COUNT]");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> Result<(), Failure> {
    let [node, rootfs, rest @ ..] = arguments else {
        return Err("starts NODE ROOTFS [COUNT]".into());
    };
    let count = rest.first().map_or(Ok(20), |count| count.parse())?;
    container::enter_private_mounts()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(all(Utf8Path::new(node), rootfs.into(), count))
}

async fn all(node: &Utf8Path, rootfs: Utf8PathBuf, count: usize) -> Result<(), Failure> {
    let containers = Containers::open(node).await?;
    let node = node.canonicalize_utf8()?;
    let tickets = Tickets::open(&node, Timestamp::UNIX_EPOCH)?;
    let lowers = Arc::new(move |_: &Digest| Ok(vec![rootfs.clone()]));
    let hosts = Hosts::new(node, containers.clone(), tickets, lowers)?;
    let mut times = Vec::new();
    for number in 0..count {
        let order = order(number)?;
        let ticket = format!("t-{number}-{}", std::process::id()).parse()?;
        let begun = Instant::now();
        hosts.start(&ticket, &order).await?;
        times.push(begun.elapsed());
        let stopping = Instant::now();
        hosts.stop(&order.host).await?;
        println!("start {:?}, stop {:?}", times[number], stopping.elapsed());
    }
    times.sort();
    println!("median {:?} of {count}", times[times.len() / 2]);
    containers.teardown_all().await?;
    Ok(())
}

fn order(number: usize) -> Result<HostOrder, Failure> {
    Ok(HostOrder {
        host: format!("h-start{number}").parse()?,
        place: "acme/shop/dev".parse()?,
        role: HostRole::App,
        image: Digest::of("image"),
        network: Network {
            number: 77,
            subnet: Ipv4Addr::new(10, 213, 77, 0),
            prefix: 24,
        },
        address: Ipv4Addr::new(10, 213, 77, 2),
        uid_base: 5_000_000,
        resources: Resources {
            cpu: 1.0,
            memory_mib: 256,
            disk_mib: 1024,
            pids: 256,
        },
        port: 8080,
        environment: BTreeMap::from([("GREETING".to_owned(), Secret::new("hello".to_owned()))]),
        secrets: [].into(),
        processes: BTreeMap::new(),
    })
}
