//! Memory of processes, from `/proc`: each one's share of what is resident (PSS), pages of the program included.

use std::{collections::BTreeMap, fs, path::PathBuf};

/// MB by role, of the processes below `vend up` and of itself (`up`).
pub fn roles(up: u32) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    if let Some(mb) = pss(up) {
        found.insert("up".to_owned(), mb);
    }
    for pid in children(up) {
        if let (Some(name), Some(mb)) = (argument(pid, 1), pss(pid)) {
            found.insert(name, mb);
        }
    }
    found
}

/// MB of the first process of each of these hosts: the agent.
pub fn agents(hosts: &[String]) -> Vec<f64> {
    let is_agent = |pid: &u32| argument(*pid, 1).is_some_and(|name| name == "agent");
    let belongs = |pid: &u32| {
        let groups = fs::read_to_string(process(*pid).join("cgroup")).unwrap_or_default();
        hosts.iter().any(|host| groups.contains(host.as_str()))
    };
    all()
        .filter(|pid| is_agent(pid) && belongs(pid))
        .filter_map(pss)
        .collect()
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub fn children(parent: u32) -> impl Iterator<Item = u32> {
    all().filter(move |pid| {
        let stat = fs::read_to_string(process(*pid).join("stat")).unwrap_or_default();
        // The name before it, in brackets, may hold anything.
        let field = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
            .map(str::to_owned);
        field.is_some_and(|field| field == parent.to_string())
    })
}

fn argument(pid: u32, index: usize) -> Option<String> {
    let line = fs::read(process(pid).join("cmdline")).ok()?;
    let argument = line.split(|byte| *byte == 0).nth(index)?;
    Some(String::from_utf8_lossy(argument).into_owned())
}

pub fn pss(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(process(pid).join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
