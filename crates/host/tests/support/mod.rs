//! What tests with real containers share: a Debian to run, a data directory, and whether this machine can do it.
#![allow(dead_code)]

use std::{net::Ipv4Addr, process::Command};

use camino::{Utf8Path, Utf8PathBuf};
use host::container::{Containers, Output, Preset, Rootfs, Spec};
use model::port::Resources;

/// Says why and is false when this machine cannot run containers.
pub fn can_run() -> bool {
    let missing = ["crun", "nft", "mkfs.ext4", "mmdebstrap"]
        .into_iter()
        .find(|tool| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .output();
            !found.is_ok_and(|found| found.status.success())
        });
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return false;
    }
    if let Some(tool) = missing {
        println!("skipped: needs {tool}");
    }
    missing.is_none()
}

/// A minimal Debian, made once and kept beside the build.
pub fn debian() -> Utf8PathBuf {
    let dir = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-12");
    let lock = std::fs::File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !dir.exists() {
        let fresh = dir.with_extension("fresh");
        let _ = std::fs::remove_dir_all(&fresh);
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "bookworm", fresh.as_str()])
            .status()
            .unwrap();
        assert!(made.success());
        std::fs::rename(&fresh, &dir).unwrap();
    }
    dir
}

/// A data directory of its own, in a mount namespace of its own, on a runtime of its own.
pub fn world<F: Future<Output = ()>>(test: impl FnOnce(Utf8PathBuf) -> F) {
    if !can_run() {
        return;
    }
    host::container::enter_private_mounts().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(dir.path()).unwrap().join("node");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(node));
}

pub fn spec(node: &Utf8Path, id: &str, script: &str) -> Spec {
    Spec {
        id: id.into(),
        hostname: id.into(),
        rootfs: Rootfs {
            lowers: vec![debian()],
            scratch: node.join("test").join(id),
            disk_mib: Some(64),
        },
        uid_base: 200_000,
        args: ["/bin/bash", "-c", script].map(String::from).to_vec(),
        env: vec![(
            "PATH".into(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        )],
        cwd: "/".into(),
        binds: vec![],
        resources: Resources {
            cpu: 1.0,
            memory_mib: 64,
            disk_mib: 64,
            pids: 32,
        },
        network: None,
        preset: Preset::Build,
        stdin: None,
        output: Output::File(node.join("test").join(format!("{id}.log"))),
    }
}

pub fn log(node: &Utf8Path, id: &str) -> String {
    let path = node.join("test").join(format!("{id}.log"));
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// What of the machine containers change: interfaces, tables, groups, loop devices, mounts.
pub fn machine_state(tag: &str) -> Vec<String> {
    let run = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    [
        format!("ip -o link | grep -E 'vend{tag}|vh{tag}' || true"),
        format!("nft list tables | grep vend_{tag} || true"),
        format!("find /sys/fs/cgroup -maxdepth 3 -name 'vend-{tag}' || true"),
        format!("grep vend-{tag} /proc/thread-self/mountinfo || true"),
        format!("ls -d /run/vend-{tag} 2>/dev/null || true"),
        format!("ip -o addr | grep {tag} || true"),
    ]
    .iter()
    .flat_map(|command| run(command))
    .collect()
}

pub async fn open(node: &Utf8Path) -> Containers {
    Containers::open(node).await.unwrap()
}

pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 7, last)
}

/// The address that the machine speaks to the world from.
pub fn own_address() -> Ipv4Addr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Chooses a source address; sends nothing.
    socket.connect("192.0.2.77:9").unwrap();
    match socket.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => *address.ip(),
        std::net::SocketAddr::V6(_) => unreachable!("it was bound to IPv4"),
    }
}
