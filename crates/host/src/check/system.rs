//! Checks that only look: files, ports, processes, users.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use model::{
    port::CheckResult,
    spec::check::{FileCheck, PortCheck, ProcessCheck, UserCheck},
};

use super::Results;
use crate::agent::users::Users;

/// So much of a file is searched, in bytes.
const CONTENT: u64 = 16 << 20;

pub fn file(path: &str, check: &FileCheck) -> Vec<CheckResult> {
    let mut results = Results::new("file", path);
    let Ok(link) = fs::symlink_metadata(path) else {
        results.equal("exists", &check.exists, &false);
        return results.results;
    };
    results.equal("exists", &check.exists, &true);
    let users = Users::read();
    if let Some(expected) = &check.mode {
        let found = link.mode() & 0o7777;
        results.add(
            "mode",
            u32::from_str_radix(expected, 8) == Ok(found),
            expected,
            format!("{found:04o}"),
        );
    }
    let named = |name: Option<&str>, number: u32| name.map_or_else(|| number.to_string(), str::to_owned);
    if let Some(expected) = &check.owner {
        results.equal("owner", expected, &named(users.user_name(link.uid()), link.uid()));
    }
    if let Some(expected) = &check.group {
        results.equal(
            "group",
            expected,
            &named(users.group_name(link.gid()), link.gid()),
        );
    }
    if let Some(expected) = &check.filetype {
        let found = match link.file_type() {
            kind if kind.is_symlink() => "symlink",
            kind if kind.is_dir() => "directory",
            kind if kind.is_file() => "file",
            _ => "other",
        };
        results.equal("filetype", expected, &found.to_owned());
    }
    if !check.contains.is_empty() {
        match content(Path::new(path)) {
            Ok(text) => results.matches("contains", &check.contains, &text),
            Err(why) => results.add("contains", false, check.contains.join(", "), why),
        }
    }
    results.results
}

fn content(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe or a device would never end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(CONTENT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub fn port(name: &str, check: &PortCheck) -> Vec<CheckResult> {
    let mut results = Results::new("port", name);
    let (protocol, number) = name.split_once(':').unwrap_or(("tcp", name));
    let Ok(number) = number.parse::<u16>() else {
        results.add("listening", false, check.listening, "not a port");
        return results.results;
    };
    let table = |protocol: &str| fs::read_to_string(format!("/proc/net/{protocol}")).unwrap_or_default();
    let mut addresses = match protocol {
        "tcp" | "tcp6" | "udp" | "udp6" => listeners(&table(protocol), number),
        _ => {
            results.add(
                "listening",
                false,
                check.listening,
                "the protocol is none of tcp, tcp6, udp, udp6",
            );
            return results.results;
        }
    };
    if matches!(protocol, "tcp" | "udp") {
        // A socket of all IPv6 addresses takes IPv4 too.
        let both = listeners(&table(&format!("{protocol}6")), number);
        addresses.extend(both.into_iter().filter(IpAddr::is_unspecified));
    }
    results.equal("listening", &check.listening, &!addresses.is_empty());
    let found: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    results.contains("ip", &check.ip, &found);
    results.results
}

/// Addresses that listen at a port, in a table of `/proc/net`.
fn listeners(table: &str, port: u16) -> Vec<IpAddr> {
    const LISTENS: [&str; 2] = ["0A", "07"];
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, local) = fields.next()?.split_once(':')?;
            let state = fields.nth(1)?;
            let here = u16::from_str_radix(local, 16) == Ok(port) && LISTENS.contains(&state);
            here.then(|| address_of(address)).flatten()
        })
        .collect()
}

/// Words of 32 bits, each in the machine's byte order.
fn address_of(text: &str) -> Option<IpAddr> {
    let bytes = hex::decode(text).ok()?;
    let words: Vec<u8> = bytes
        .chunks_exact(4)
        .flat_map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]).to_ne_bytes())
        .collect();
    match words.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(words).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()),
        _ => None,
    }
}

pub fn process(name: &str, check: &ProcessCheck) -> Vec<CheckResult> {
    let mut results = Results::new("process", name);
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let running = entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        })
        .any(|entry| is_called(&entry.path(), name));
    results.equal("running", &check.running, &running);
    results.results
}

/// By its short name, which the kernel cuts at 15 bytes, or by the program of its command line. No zombies.
fn is_called(process: &Path, name: &str) -> bool {
    let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
    let stat = read("stat");
    let state = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .and_then(|at| stat.get(at + 2).copied());
    if matches!(state, None | Some(b'Z' | b'X')) {
        return false;
    }
    let comm = read("comm");
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let short = &name.as_bytes()[..name.len().min(15)];
    let line = read("cmdline");
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let base = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    comm == short || (!base.is_empty() && base == name.as_bytes())
}

pub fn user(name: &str, check: &UserCheck) -> Vec<CheckResult> {
    let mut results = Results::new("user", name);
    let users = Users::read();
    let user = users.users.iter().find(|user| user.name == name);
    results.equal("exists", &check.exists, &user.is_some());
    let Some(user) = user else { return results.results };
    if let Some(expected) = &check.uid {
        results.equal("uid", expected, &user.uid);
    }
    if let Some(expected) = &check.gid {
        results.equal("gid", expected, &user.gid);
    }
    let groups: Vec<String> = users.groups_of(user).into_iter().map(str::to_owned).collect();
    results.contains("groups", &check.groups, &groups);
    if let Some(expected) = &check.home {
        results.equal("home", expected, &user.home);
    }
    if let Some(expected) = &check.shell {
        results.equal("shell", expected, &user.shell);
    }
    results.results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
             1: 0100007F:1F90 0100007F:C001 01 00000000:00000000\n\
             2: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A\n\
             garbage\n";
        if cfg!(target_endian = "little") {
            let found: Vec<String> = listeners(table, 8080).iter().map(ToString::to_string).collect();
            assert_eq!(found, ["127.0.0.1", "::1"]);
        }
        assert!(listeners(table, 80).is_empty());
    }
}
