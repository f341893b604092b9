//! `config.json` of the OCI runtime specification, from a [`Spec`].

use camino::Utf8Path;
use serde_json::{Value, json};

use super::{Bind, Preset, Spec, seccomp};
use crate::cgroup::Version;

/// What of a container's configuration depends on the machine.
#[derive(Debug)]
pub struct Machine {
    pub cgroups: Version,
    /// The path of its control group.
    pub cgroup: String,
    /// Swap is accounted for and so must be limited with memory.
    pub swap: bool,
    pub ipv6: bool,
    /// The hard limit of open files that can be given on.
    pub open_files: u64,
}

/// The configuration; `rootfs` and the sources of `binds` are where they are mounted on the machine.
pub fn config(spec: &Spec, rootfs: &Utf8Path, binds: &[Bind], machine: &Machine) -> Value {
    let mut mounts = system_mounts(machine.cgroups);
    mounts.extend(binds.iter().map(bind));
    let namespaces =
        ["user", "pid", "mount", "network", "uts", "ipc", "cgroup"].map(|kind| json!({ "type": kind }));
    let ids = json!([{ "containerID": 0, "hostID": spec.uid_base, "size": 65_536 }]);
    json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": { "path": rootfs, "readonly": false },
        "process": process(spec, machine),
        "mounts": mounts,
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces,
            "cgroupsPath": machine.cgroup,
            "resources": resources(spec, machine),
            "sysctl": sysctl(spec, machine),
            "seccomp": seccomp::profile(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn process(spec: &Spec, machine: &Machine) -> Value {
    let capabilities = capabilities(spec.preset);
    let env: Vec<String> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": spec.args,
        "env": env,
        "cwd": spec.cwd,
        // Inheritable and ambient stay empty: a program of another user starts with nothing.
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "rlimits": [
            { "type": "RLIMIT_NOFILE", "soft": machine.open_files.min(65_536), "hard": machine.open_files },
            // One byte, and no less: where dumps go to a program of the machine (`core_pattern` with `|`), the kernel starts
            // it whatever the limit, and it journals the process's environment. Only a limit of exactly 1 means none
            // (`do_coredump` in fs/coredump.c).
            { "type": "RLIMIT_CORE", "soft": 1, "hard": 1 },
        ],
        "noNewPrivileges": no_new_privileges(spec.preset),
    })
}

/// Hooks and installation scripts call `su` and `sudo`, which need set-user-id to work (sudo refuses to run under
/// this flag even for root). What they gain is root of their own user namespace, an ordinary user of the machine, with
/// no more than the bounding set. Builds have no such need.
fn no_new_privileges(preset: Preset) -> bool {
    preset == Preset::Build
}

/// Without `NET_RAW` and `NET_ADMIN` a container cannot forge addresses; without `SYS_ADMIN` it cannot mount.
fn capabilities(preset: Preset) -> Vec<&'static str> {
    let mut all = vec![
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    if preset != Preset::Build {
        // Packages set file capabilities when they are installed.
        all.push("CAP_SETFCAP");
    }
    all
}

fn system_mounts(cgroups: Version) -> Vec<Value> {
    let mount = |kind: &str, source: &str, at: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    let quiet = ["nosuid", "noexec", "nodev"];
    let mut all = vec![
        mount("proc", "proc", "/proc", &quiet),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=1m"],
        ),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "tmpfs",
            "shm",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"],
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", &quiet),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    // Language runtimes size themselves by the limits that they read there. Version 1 has a mount per controller, which
    // would cost a tenth of a start.
    if cgroups == Version::Two {
        all.push(mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ));
    }
    all
}

fn bind(bind: &Bind) -> Value {
    let access = if bind.read_only { "ro" } else { "rw" };
    json!({
        "destination": bind.target,
        "type": "bind",
        "source": bind.source,
        "options": ["bind", "nosuid", "nodev", access],
    })
}

fn resources(spec: &Spec, machine: &Machine) -> Value {
    const PERIOD_US: f64 = 100_000.0;
    let limit = spec.resources.memory_mib * 1024 * 1024;
    let mut memory = json!({ "limit": limit });
    if machine.swap {
        memory["swap"] = json!(limit);
    }
    // When the processors are busy, hosts that serve go before builds.
    let shares = if spec.preset == Preset::Host { 1024 } else { 256 };
    json!({
        "memory": memory,
        "pids": { "limit": spec.resources.pids },
        "cpu": {
            "shares": shares,
            "period": PERIOD_US as u64,
            "quota": (spec.resources.cpu * PERIOD_US) as u64,
        },
        "devices": devices(),
    })
}

/// Null, zero, full, random, urandom, tty, and terminals of its own.
fn devices() -> Value {
    let device = |major: u32, minor: Option<u32>| {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rule
    };
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend([3, 5, 7, 8, 9].map(|minor| device(1, Some(minor))));
    rules.extend([device(5, Some(0)), device(5, Some(2)), device(136, None)]);
    Value::Array(rules)
}

fn sysctl(spec: &Spec, machine: &Machine) -> Value {
    let mut all = json!({ "net.ipv4.ping_group_range": "0 65535" });
    if machine.ipv6 && spec.network.is_some() {
        all["net.ipv6.conf.all.disable_ipv6"] = json!("1");
        all["net.ipv6.conf.default.disable_ipv6"] = json!("1");
    }
    all
}

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
