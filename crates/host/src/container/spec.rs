//! What a container is made of and what becomes of it, as plain data.

use std::{net::Ipv4Addr, os::fd::OwnedFd};

use camino::Utf8PathBuf;
use model::port::{Network, Resources};

/// All that one container is made of.
#[derive(Debug)]
pub struct Spec {
    /// Unique among the containers of a data directory; `[a-z0-9.-]`, at most 80 characters.
    pub id: String,
    pub hostname: String,
    pub rootfs: Rootfs,
    /// The first of 65,536 user ids of the machine that the container's own are mapped to.
    pub uid_base: u32,
    pub args: Vec<String>,
    /// Never secrets: it is written to `config.json`. Secrets go through `stdin`.
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub binds: Vec<Bind>,
    pub resources: Resources,
    /// `None` is a network of its own with a loopback only.
    pub network: Option<Net>,
    pub preset: Preset,
    pub stdin: Option<OwnedFd>,
    pub output: Output,
}

/// The layers below and the place for what the container writes.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Top first, owned by real ids 0 to 65535. Never written to.
    pub lowers: Vec<Utf8PathBuf>,
    /// A directory that is created. What the container wrote is in [`Rootfs::upper`], owned by the mapped ids.
    pub scratch: Utf8PathBuf,
    /// The most that the container may write; `None` is as much as the machine has.
    pub disk_mib: Option<u64>,
}

impl Rootfs {
    /// What the container wrote, as an overlay upper directory (character device 0/0 is a deletion, the extended
    /// attribute `trusted.overlay.opaque` a replaced directory). There until [`Containers::delete`](super::Containers::delete).
    pub fn upper(&self) -> Utf8PathBuf {
        self.scratch.join("upper")
    }
}

/// A file or directory of the machine that the container sees.
#[derive(Debug, Clone)]
pub struct Bind {
    /// A relative path names a directory that is made in the scratch: the container's root and the machine's share it,
    /// and what is written to it counts as written to the container's disk.
    pub source: Utf8PathBuf,
    /// An absolute path in the container; created when it is missing.
    pub target: Utf8PathBuf,
    pub read_only: bool,
    /// The source is owned by real ids 0 to 65535: show it as the container's own.
    pub id_mapped: bool,
}

/// How a container is connected.
#[derive(Debug, Clone)]
pub enum Net {
    /// A host: an address on its environment's bridge.
    Host {
        network: Network,
        address: Ipv4Addr,
        /// When set, only this TCP port can be reached, only from the environment, and nothing can be reached from it.
        only_port: Option<u16>,
    },
    /// A build or a bake: the world outside through a link of its own, and nothing else.
    Outside,
}

/// What the root of a container may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Runs services: may switch users and bind low ports.
    Host,
    /// Runs a customer's build: the same.
    Build,
    /// Installs packages: may also make device nodes' stand-ins and set owners and file capabilities.
    Bake,
}

/// Where standard output and standard error go.
#[derive(Debug)]
pub enum Output {
    /// Both into one file, appended. A relative path is in the scratch.
    File(Utf8PathBuf),
    /// Both into this file, pipe or socket.
    Fd(OwnedFd),
    Discard,
}

/// A container that was started.
#[derive(Debug, Clone)]
pub struct Running {
    pub id: String,
    pub pid: u32,
    /// Isolation that this kernel could not give, and what was done instead.
    pub fallbacks: Vec<String>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// The memory limit killed something in it.
    pub oom: bool,
    /// The deadline killed it.
    pub timed_out: bool,
    /// Whoever wanted it killed it before its deadline.
    pub stopped: bool,
}

/// A container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    /// 0 when it does not run.
    pub pid: u32,
    pub running: bool,
}
