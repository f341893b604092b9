//! What has to be there before the runtime is called: an order that makes sense, files, facts of the machine.

use std::{fs, net::Ipv4Addr};

use camino::Utf8Path;

use super::{Bind, Error, Net, Spec, config::Machine, io};
use crate::{
    cgroup::{Groups, Version},
    network,
};

pub fn check(spec: &Spec) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let id = &spec.id;
    if id.is_empty() || id.len() > 80 || id.starts_with('.') || !id.bytes().all(allowed) {
        return Err(Error::Spec(format!("`{id}` cannot be the id of a container")));
    }
    if spec.uid_base < 65_536
        || spec
            .uid_base
            .checked_add(65_535)
            .is_none_or(|last| last == u32::MAX)
    {
        return Err(Error::Spec(format!(
            "{} cannot be the first of 65,536 user ids",
            spec.uid_base
        )));
    }
    let resources = &spec.resources;
    if !(0.01..=1024.0).contains(&resources.cpu) || resources.memory_mib < 6 || resources.pids == 0 {
        return Err(Error::Spec(
            "a container needs at least 0.01 cores, 6 MiB of memory and a process".into(),
        ));
    }
    if resources.memory_mib > 1 << 24
        || spec
            .rootfs
            .disk_mib
            .is_some_and(|mib| !(16..=1 << 24).contains(&mib))
    {
        return Err(Error::Spec(
            "the disk of a container has 16 MiB to 16 TiB, its memory at most 16 TiB".into(),
        ));
    }
    if spec.args.is_empty() {
        return Err(Error::Spec("a container needs something to run".into()));
    }
    Ok(())
}

pub fn only_port(spec: &Spec) -> Option<(Ipv4Addr, u16)> {
    match spec.network {
        Some(Net::Host {
            address, only_port, ..
        }) => only_port.map(|port| (address, port)),
        _ => None,
    }
}

/// Names and resolvers: files that are the machine's business, whatever an image says.
pub fn machine_files(spec: &Spec, bundle: &Utf8Path) -> Result<Vec<Bind>, Error> {
    let own = match spec.network {
        Some(Net::Host { address, .. }) => address,
        _ => Ipv4Addr::new(127, 0, 1, 1),
    };
    let hosts = format!("127.0.0.1 localhost\n{own} {}\n", spec.hostname);
    let resolvers = network::resolvers()
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect();
    let mut files = vec![("hosts", hosts)];
    if spec.network.is_some() {
        files.push(("resolv.conf", resolvers));
    }
    let mut binds = Vec::new();
    for (name, text) in files {
        let source = bundle.join(name);
        fs::write(&source, text).map_err(io("write", &source))?;
        let target = Utf8Path::new("/etc").join(name);
        binds.push(Bind {
            source,
            target,
            read_only: true,
            id_mapped: false,
        });
    }
    Ok(binds)
}

pub fn machine(groups: &Groups, id: &str) -> Machine {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let accounted = match groups.version() {
        Version::One => Utf8Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        Version::Two => true,
    };
    Machine {
        cgroups: groups.version(),
        cgroup: groups.path(id),
        swap: swaps.lines().count() > 1 && accounted,
        ipv6: Utf8Path::new("/proc/sys/net/ipv6").exists(),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .maximum
            .unwrap_or(1_048_576),
    }
}
