//! `vend doctor`: what this machine must have, and what it has.
//!
//! Each prerequisite is tried, not looked up: a kernel feature is there when using it works. What packages can mend
//! is mended by `--install`, after saying what and why, and so is one line of `/etc/hosts`.

mod names;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use clap::Args;

use rustix::{fs::CWD, mount::OpenTreeFlags};
use serde::Serialize;

/// What a trial found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "detail")]
pub enum State {
    Ok(String),
    /// It works, with less than the best. Says what is weaker.
    Fallback(String),
    Missing(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: &'static str,
    pub why: &'static str,
    pub state: State,
    /// How to get it.
    pub get: &'static str,
    /// The Debian package that brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<&'static str>,
}

struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool {
        program: "crun",
        package: "crun",
        why: "starts hosts, builds and bakes as OCI containers",
    },
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
        why: "makes the Debian base images",
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "keeps tenants apart on the network",
    },
    Tool {
        program: "mkfs.ext4",
        package: "e2fsprogs",
        why: "gives each host a disk of a fixed size",
    },
    Tool {
        program: "losetup",
        package: "mount",
        why: "mounts those disks",
    },
    Tool {
        program: "setfacl",
        package: "acl",
        why: "access lists of an appspec",
    },
    Tool {
        program: "update-ca-certificates",
        package: "ca-certificates",
        why: "TLS to registries and git hosts",
    },
];

/// Everything, in the order in which a newcomer would ask.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![root()];
    findings.push(git());
    findings.extend(TOOLS.iter().map(tool));
    findings.extend([
        cgroups(),
        trial("user namespaces", "root in a host is nobody on the machine", try_namespaces, "kernel.unprivileged_userns_clone is for others; check `sysctl user.max_user_namespaces` (must not be 0)"),
        trial("overlayfs", "hosts share the layers of an image", try_overlay, "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS"),
        idmap(),
        trial("loop devices", "disks of a fixed size", || exists("/dev/loop-control"), "modprobe loop; without it a host's disk has no limit"),
        trial("bridges and veth", "a network per environment", || exists("/proc/sys/net/ipv4/ip_forward"), "a kernel with CONFIG_BRIDGE and CONFIG_VETH"),
        trial("seccomp", "dangerous system calls are refused", || exists("/proc/sys/kernel/seccomp/actions_avail"), "a kernel with CONFIG_SECCOMP_FILTER"),
        bridge_filter(),
        client_names(),
    ]);
    findings
}

/// Packages that would mend what is missing.
pub fn packages(findings: &[Finding]) -> Vec<&'static str> {
    let missing = findings
        .iter()
        .filter(|finding| matches!(finding.state, State::Missing(_)));
    missing.filter_map(|finding| finding.package).collect()
}

fn root() -> Finding {
    let is_root = rustix::process::geteuid().is_root();
    let state = if is_root {
        State::Ok("running as root".into())
    } else {
        State::Missing("not root: `vend up` needs it for the node role".into())
    };
    Finding {
        name: "root",
        why: "containers, networks and mounts are made by root only",
        state,
        get: "sudo",
        package: None,
    }
}

fn tool(tool: &Tool) -> Finding {
    let found = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|directory| Path::new(directory).join(tool.program))
    .find(|path| path.exists());
    let state = match found {
        Some(path) => State::Ok(path.display().to_string()),
        None => State::Missing(format!("no program `{}`", tool.program)),
    };
    Finding {
        name: tool.program,
        why: tool.why,
        state,
        get: "apt-get install",
        package: Some(tool.package),
    }
}

fn trial(
    name: &'static str,
    why: &'static str,
    try_it: impl Fn() -> Result<(), String>,
    get: &'static str,
) -> Finding {
    let state = match try_it() {
        Ok(()) => State::Ok("works".into()),
        Err(reason) => State::Missing(reason),
    };
    Finding {
        name,
        why,
        state,
        get,
        package: None,
    }
}

fn cgroups() -> Finding {
    let has = |path: &str| Path::new("/sys/fs/cgroup").join(path).exists();
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let state = if has("cgroup.controllers") {
        let missing: Vec<&str> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !controllers.contains(name))
            .collect();
        match missing.is_empty() {
            true => State::Ok("v2".into()),
            false => State::Missing(format!("v2 without the controllers {}", missing.join(", "))),
        }
    } else if has("memory") && has("pids") && has("cpu") {
        let mixed = if has("unified") {
            "hybrid: the v1 controllers are used, `unified` is hidden from crun"
        } else {
            "v1"
        };
        State::Ok(mixed.into())
    } else {
        State::Missing("no cgroup hierarchy with cpu, memory and pids is mounted at /sys/fs/cgroup".into())
    };
    Finding {
        name: "cgroups",
        why: "limits of cpu, memory and processes",
        state,
        get: "boot with systemd.unified_cgroup_hierarchy=1",
        package: None,
    }
}

/// An id-mapped clone of a directory of this machine's root file system.
fn idmap() -> Finding {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let state = match rustix::mount::open_tree(CWD, "/usr", flags) {
        Ok(_) => State::Ok("the kernel clones mounts (mount_setattr, Linux 5.12)".into()),
        Err(error) => State::Fallback(format!(
            "{error}: layers are copied with shifted owners instead of mapped"
        )),
    };
    Finding {
        name: "id-mapped mounts",
        why: "one copy of a layer serves every tenant's user ids",
        state,
        get: "Linux 5.19 or newer",
        package: None,
    }
}

fn bridge_filter() -> Finding {
    let state = match std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables") {
        Ok(text) if text.trim() == "1" => State::Ok("bridged frames pass the firewall".into()),
        _ => State::Fallback(
            "bridged frames do not pass the firewall: ports of a bridge are isolated instead".into(),
        ),
    };
    Finding {
        name: "bridge firewall",
        why: "rules between hosts of one environment",
        state,
        get: "modprobe br_netfilter",
        package: None,
    }
}

/// Present and new enough: remotes are asked at the addresses that were checked, which older ones cannot be told.
fn git() -> Finding {
    let output = Command::new("git").arg("version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let state = match said {
        Err(_) => State::Missing("no program `git`".into()),
        Ok(said) => match git_version(&said) {
            Some(version) if version >= OLDEST_GIT => State::Ok(said),
            _ => State::Missing(format!("{said}: older than 2.37, which has http.curloptResolve")),
        },
    };
    Finding {
        name: "git",
        why: "repositories, pushes over HTTP, and remotes at checked addresses",
        state,
        get: "apt-get install",
        package: Some("git"),
    }
}

const OLDEST_GIT: (u32, u32) = (2, 37);

/// `git version 2.39.5 (Apple Git-154)`
fn git_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn client_names() -> Finding {
    let missing = names::missing(&std::fs::read(names::HOSTS).unwrap_or_default());
    let state = match missing.is_empty() {
        true => State::Ok(format!("in {}", names::HOSTS)),
        false => State::Fallback(format!(
            "{} not in {}: start-sync-execution and test-state need AWS_DISABLE_HOST_PREFIX_INJECTION=true",
            missing.join(", "),
            names::HOSTS
        )),
    };
    Finding {
        name: "names of the API",
        why: "clients of AWS put `sync-` before the host of an endpoint",
        state,
        get: "vend doctor --install (--uninstall takes the line away)",
        package: None,
    }
}

fn try_namespaces() -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(0) => return Err("user.max_user_namespaces is 0".into()),
        Ok(_) => {}
        Err(_) => return Err("this kernel has no user namespaces".into()),
    }
    make_user_namespace().map_err(|error| format!("{error} (the kernel refuses it in a chroot, for example)"))
}

/// In a process of its own, because the namespace stays with who makes it.
#[allow(unsafe_code)]
fn make_user_namespace() -> std::io::Result<()> {
    let mut trial = Command::new("true");
    trial.stdin(std::process::Stdio::null());
    // SAFETY: one system call after the fork, in a process with one thread and descriptors of its own.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut trial, || {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER)?;
            Ok(())
        });
    }
    trial.status().map(drop)
}

fn exists(path: &str) -> Result<(), String> {
    if Path::new(path).exists() {
        Ok(())
    } else {
        Err(format!("{path} is not there"))
    }
}

/// Asking for a file system loads its module, as mounting one would; root may ask.
fn try_overlay() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return file_names("/proc/filesystems", "overlay");
    }
    let flags = rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC;
    rustix::mount::fsopen("overlay", flags)
        .map(drop)
        .map_err(|error| format!("the kernel has no overlay: {error}"))
}

fn file_names(path: &str, word: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    if text.split_whitespace().any(|own| own == word) {
        Ok(())
    } else {
        Err(format!("{word} is not in {path}"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this machine has no apt-get: install {0} with its own package manager, then try again")]
    NoApt(String),
    #[error("only root may install {0} (try sudo)")]
    NotRoot(String),
    #[error("apt-get {action} failed:\n{output}")]
    Apt { action: &'static str, output: String },
    #[error("cannot run apt-get")]
    Spawn(#[from] std::io::Error),
    #[error("cannot change /etc/hosts: {0} (only root may; try sudo)")]
    Names(std::io::Error),
}

/// Installs Debian packages, quietly; their output is shown only when it fails.
pub fn install(packages: &[&str]) -> Result<(), Error> {
    let names = packages.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(Error::NoApt(names));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot(names));
    }
    apt("update", &["-qq", "update"])?;
    let mut arguments = vec!["-qq", "-y", "--no-install-recommends", "install"];
    arguments.extend(packages);
    apt("install", &arguments)
}

fn apt(action: &'static str, arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Apt {
        action,
        output: String::from_utf8_lossy(&text).trim().to_owned(),
    })
}

/// One line for people.
pub fn line(finding: &Finding) -> String {
    let (mark, detail) = match &finding.state {
        State::Ok(detail) => ("ok      ", detail),
        State::Fallback(detail) => ("fallback", detail),
        State::Missing(detail) => ("missing ", detail),
    };
    let line = format!("{mark}  {:<24} {detail}", finding.name);
    match (&finding.state, finding.package) {
        (State::Ok(_), _) => line,
        (_, Some(package)) => format!(
            "{line}\n{:>10}{:<24} for {}; get it: {} {package}",
            "", "", finding.why, finding.get
        ),
        (_, None) => format!(
            "{line}\n{:>10}{:<24} for {}; get it: {}",
            "", "", finding.why, finding.get
        ),
    }
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Install what is missing and packages can bring, and add the names that clients of AWS ask for to /etc/hosts.
    #[arg(long)]
    install: bool,
    /// Take that line of /etc/hosts away again; packages stay.
    #[arg(long, conflicts_with = "install")]
    uninstall: bool,
}

/// Brings what is missing, or takes away what `--install` changed.
fn mend(findings: &[Finding], wanted: bool) -> Result<(), Error> {
    let missing = packages(findings);
    if wanted && !missing.is_empty() {
        for finding in findings {
            if let Some(package) = finding.package.filter(|own| missing.contains(own)) {
                eprintln!("installing {package}: {}", finding.why);
            }
        }
        install(&missing)?;
    }
    if names::keep(Path::new(names::HOSTS), wanted).map_err(Error::Names)? {
        let what = if wanted { "added to" } else { "taken from" };
        eprintln!("{what} {}: the names that clients of AWS ask for", names::HOSTS);
    }
    Ok(())
}

/// Exits 1 when something is missing.
pub fn run(doctor: &Doctor, json: bool) -> ExitCode {
    let mut findings = examine();
    if doctor.install || doctor.uninstall {
        if let Err(error) = mend(&findings, doctor.install) {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
        findings = examine();
    }
    if json {
        crate::output::aloud(format_args!(
            "{}",
            serde_json::to_string_pretty(&findings).expect("findings are plain data")
        ));
    } else {
        findings
            .iter()
            .for_each(|finding| crate::output::aloud(format_args!("{}", line(finding))));
    }
    let lacks = findings
        .iter()
        .any(|finding| matches!(finding.state, State::Missing(_)));
    if lacks {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_git_are_read() {
        for (said, found) in [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.9.rc1 (Apple Git-154)", Some((2, 9))),
            ("git version 3.0", Some((3, 0))),
            ("git", None),
            ("", None),
        ] {
            assert_eq!(git_version(said), found);
        }
        assert!(OLDEST_GIT > (2, 9));
    }
}
