//! OCI containers by crun: the one primitive under hosts, builds and bakes.
//!
//! Knows nothing of images, agents or customers: a [`Spec`] says which directories to stack and what to run.

mod config;
mod life;
mod prepare;
mod record;
mod rootfs;
mod runtime;
mod seccomp;
mod spec;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::Digest;
pub use rustix::process::Signal;
use tracing::{info, warn};

pub use self::spec::{Bind, Exit, Net, Output, Preset, Rootfs, Running, Seen, Spec};
use self::{
    life::{Birth, Life},
    prepare::{check, machine, machine_files, only_port},
    record::Record,
    rootfs::Builder,
    runtime::Runtime,
};
use crate::{
    cgroup::{Groups, Usage, Version},
    mount,
    network::{self, Networks},
};

/// The containers of one data directory. Clones are the same.
#[derive(Debug, Clone)]
pub struct Containers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Utf8PathBuf,
    /// Held as long as this lives: a second node would take our containers for what a dead one left.
    _lock: OwnedFd,
    runtime: Runtime,
    builder: Builder,
    groups: Groups,
    networks: Networks,
    /// Containers that something is being done to.
    busy: Mutex<HashSet<String>>,
    lives: Mutex<HashMap<String, Life>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} is not installed")]
    Missing(&'static str),
    #[error("the container runtime cannot {doing} {id}: {why}")]
    Runtime {
        doing: &'static str,
        id: String,
        why: String,
    },
    #[error("the container {0} is being worked on; try again")]
    Busy(String),
    #[error("the container {0} runs already")]
    Exists(String),
    #[error("the container {0} does not end")]
    Immortal(String),
    #[error("another node works in {0}")]
    Locked(Utf8PathBuf),
    #[error("{0}")]
    Spec(String),
    #[error(transparent)]
    Mount(#[from] mount::Error),
    #[error(transparent)]
    Network(#[from] network::Error),
}

fn io(doing: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { doing, path, source }
}

/// To be called once, first thing in `main`, before any thread starts (in a test: before its runtime is made):
/// everything that this process mounts is seen by nobody else and vanishes with it, and crun can work on machines with
/// hybrid control groups. Files of who called reach nothing that is started.
pub fn enter_private_mounts() -> Result<(), Error> {
    crate::inherited::close_on_exec();
    Ok(mount::enter_private()?)
}

/// How the interfaces, tables and control groups of a data directory are told from those of another: four hex digits.
pub fn tag_of(node: &Utf8Path) -> String {
    Digest::of(node.as_str()).hex()[..4].to_owned()
}

impl Containers {
    /// The containers under `<data>/node`: those that run are found again, what a node that died left is removed.
    pub async fn open(node: &Utf8Path) -> Result<Self, Error> {
        fs::create_dir_all(node.join("containers")).map_err(io("create", node))?;
        let node = node.canonicalize_utf8().map_err(io("find", node))?;
        if node.as_str().contains([',', ':', '\\', '\n']) {
            return Err(Error::Spec(format!(
                "{node} cannot hold layers: its path has a comma, colon or backslash"
            )));
        }
        let lock = record::lock(&node).await?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| io("adopt the containers of", &node)(error.into()))?;
        let tag = tag_of(&node);
        let stage = Utf8PathBuf::from(format!("/run/vend-{tag}"));
        mount::detach(&stage)?;
        mount::stage(&stage)?;
        let supported = |what: &str, result: std::io::Result<()>| match result {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "this kernel does not offer {what}");
                false
            }
        };
        let builder = Builder {
            machine: rootfs::machine_layer(&node.join("machine"))?,
            maps_ids: supported("id-mapped mounts", mount::maps_ids(&node)),
            has_loops: supported("loop devices", mount::has_loops()),
            shifted: node.join("shifted"),
            blanks: node.join("blanks"),
            stage,
            mappings: mount::Mappings::default(),
        };
        let containers = Self(Arc::new(Inner {
            runtime: Runtime {
                root: node.join("crun"),
            },
            builder,
            groups: Groups::detect(format!("vend-{tag}")),
            networks: Networks::open(&tag).await?,
            busy: Mutex::default(),
            lives: Mutex::default(),
            node,
            _lock: lock,
        }));
        let runtime = &containers.0.runtime;
        runtime
            .end_calls()
            .map_err(io("end the calls of", &runtime.root))?;
        containers.adopt().await;
        Ok(containers)
    }

    /// Bridges and rules, for who removes networks.
    pub fn networks(&self) -> &Networks {
        &self.0.networks
    }

    /// Starts a container and returns once its first process runs. It goes on when this process ends.
    pub async fn start(&self, spec: Spec) -> Result<Running, Error> {
        let (this, id) = (self.clone(), spec.id.clone());
        // Not cut short when the caller goes away: a container is made or it is not.
        let made = tokio::spawn(async move { this.make(spec, true).await });
        made.await.map_err(|_| Error::Busy(id))?
    }

    /// Runs a container to its end, or kills all of it at the deadline or when the caller goes away. It stays, for its
    /// [`Rootfs::upper`] to be read, until [`Containers::delete`].
    pub async fn run(&self, spec: Spec, deadline: Duration) -> Result<Exit, Error> {
        self.run_until(spec, deadline, std::future::pending()).await
    }

    /// As [`Containers::run`], and kills all of it when `stop` is done.
    pub async fn run_until(
        &self,
        spec: Spec,
        deadline: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<Exit, Error> {
        let (this, id) = (self.clone(), spec.id.clone());
        let mut guard = KillOnDrop {
            containers: self.clone(),
            id: Some(id.clone()),
        };
        let made = tokio::spawn(async move { this.make(spec, false).await });
        made.await.map_err(|_| Error::Busy(id.clone()))??;
        let life = self.life(&id);
        let ended = async {
            match life {
                Some(mut life) => life.end().await,
                None => None,
            }
        };
        let (ended, stopped) = tokio::select! {
            ended = tokio::time::timeout(deadline, ended) => (ended.ok(), false),
            () = stop => (None, true),
        };
        guard.id = None;
        if ended.is_none() {
            self.kill(&id).await?;
        }
        Ok(Exit {
            code: ended.flatten().unwrap_or(137),
            oom: self.0.groups.oom_killed(&id),
            timed_out: ended.is_none() && !stopped,
            stopped,
        })
    }

    /// Sends a signal to the first process. One that is not there is signalled.
    pub fn signal(&self, id: &str, signal: Signal) -> Result<(), Error> {
        match self.life(id) {
            Some(life) => life.signal(signal).map_err(io("signal", id)),
            None => Ok(()),
        }
    }

    /// Waits for the end of the first process, at most so long. Has it ended?
    pub async fn ended(&self, id: &str, within: Duration) -> bool {
        match self.life(id) {
            Some(mut life) => tokio::time::timeout(within, life.end()).await.is_ok(),
            None => true,
        }
    }

    /// Kills every process of the container. One that is not there is killed.
    pub async fn kill(&self, id: &str) -> Result<(), Error> {
        self.signal(id, Signal::KILL)?;
        self.0.groups.kill(id);
        match self.ended(id, Duration::from_secs(20)).await {
            true => Ok(()),
            false => Err(Error::Immortal(id.to_owned())),
        }
    }

    /// Kills and removes the container with its mounts, link, cgroup and scratch. One that is not there is removed.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let (this, name) = (self.clone(), id.to_owned());
        let done = tokio::spawn(async move {
            let _busy = this.busy(&name)?;
            this.erase(&name).await
        });
        done.await.map_err(|_| Error::Busy(id.to_owned()))?
    }

    /// Every container that exists, running or not.
    pub fn list(&self) -> Vec<Seen> {
        let seen = |record: Record| Seen {
            running: record.birth.as_ref().is_some_and(Birth::is_running),
            pid: record.birth.map_or(0, |birth| birth.pid),
            id: record.id,
        };
        self.records().into_iter().map(seen).collect()
    }

    /// Isolation that this machine cannot give, and what is done instead.
    pub fn fallbacks(&self) -> Vec<String> {
        let mut all = self.0.builder.fallbacks(true);
        all.extend(self.0.networks.fallbacks());
        all
    }

    /// How the machine's control groups are laid out, for people.
    pub fn cgroups(&self) -> &'static str {
        match self.0.groups.version() {
            Version::One => "v1 or hybrid",
            Version::Two => "v2",
        }
    }

    /// What the container uses now.
    pub fn usage(&self, id: &str) -> Usage {
        self.0.groups.usage(id)
    }

    /// Removes every container, network, group and mount of this data directory. Hosts are asked to end first, all at
    /// once: a database that is killed has to repair itself when it starts again.
    pub async fn teardown_all(&self) -> Result<(), Error> {
        /// What an orderly end may take: a database with much to write has most to lose.
        const ORDERLY: Duration = Duration::from_secs(30);
        let hosts: Vec<Record> = self.records().into_iter().filter(|record| record.stays).collect();
        for record in &hosts {
            self.signal(&record.id, Signal::TERM)?;
        }
        let ends = hosts.iter().map(|record| self.ended(&record.id, ORDERLY));
        let ended = futures_util::future::join_all(ends).await;
        for (record, _) in hosts.iter().zip(ended).filter(|(_, ended)| !ended) {
            warn!(id = record.id, "a host did not end by itself; it is killed");
        }
        for record in self.records() {
            self.delete(&record.id).await?;
        }
        self.0.networks.teardown().await?;
        for left in self.0.groups.list() {
            self.0.groups.kill(&left);
            self.0.groups.remove(Some(&left));
        }
        self.0.groups.remove(None);
        mount::detach(&self.0.builder.stage)?;
        Ok(mount::remove(&self.0.builder.stage)?)
    }

    /// Makes and starts it, or leaves nothing.
    async fn make(&self, spec: Spec, stays: bool) -> Result<Running, Error> {
        check(&spec)?;
        let id = spec.id.clone();
        let _busy = self.busy(&id)?;
        if self
            .record(&id)
            .and_then(|record| record.birth)
            .is_some_and(|birth| birth.is_running())
        {
            return Err(Error::Exists(id));
        }
        self.erase(&id).await?;
        let made = self.launch(spec, stays).await;
        if made.is_err()
            && let Err(error) = self.erase(&id).await
        {
            warn!(id, error = %chain(&error), "cannot remove a container that did not start");
        }
        made
    }

    async fn launch(&self, mut spec: Spec, stays: bool) -> Result<Running, Error> {
        let id = spec.id.clone();
        let bundle = self.bundle(&id);
        let mut record = Record {
            id: id.clone(),
            scratch: spec.rootfs.scratch.clone(),
            only_port: only_port(&spec),
            stays,
            birth: None,
            started: false,
        };
        fs::create_dir_all(&bundle).map_err(io("create", &bundle))?;
        self.write(&record)?;
        let stdin = spec.stdin.take();
        let output = match std::mem::replace(&mut spec.output, Output::Discard) {
            Output::File(path) => Output::File(record.scratch.join(path)),
            other => other,
        };
        let spec = self.prepare(spec).await?;
        let pid = self.0.runtime.create(&id, &bundle, stdin, output).await?;
        let birth = Birth::of(pid).ok_or_else(|| Error::Runtime {
            doing: "create",
            id: id.clone(),
            why: "its first process ended at once".into(),
        })?;
        let life = Life::watch(&birth).map_err(io("watch the first process of", &id))?;
        self.lives().insert(id.clone(), life);
        record.birth = Some(birth);
        self.write(&record)?;
        self.connect(&spec, pid).await?;
        self.0.runtime.start(&id, &bundle).await?;
        record.started = true;
        self.write(&record)?;
        // The container holds its own mounts now; whether this process lives makes no difference to it.
        self.0.builder.unmount(&id)?;
        let mut fallbacks = self.0.builder.fallbacks(spec.rootfs.disk_mib.is_some());
        fallbacks.extend(self.0.networks.fallbacks());
        Ok(Running { id, pid, fallbacks })
    }

    /// Mounts the root file system and writes the bundle.
    async fn prepare(&self, spec: Spec) -> Result<Spec, Error> {
        let inner = self.0.clone();
        let work = move || -> Result<Spec, Error> {
            let bundle = inner.node.join("containers").join(&spec.id);
            let mut binds = machine_files(&spec, &bundle)?;
            binds.extend(spec.binds.iter().cloned());
            let mounted = inner
                .builder
                .mount(&spec.id, &spec.rootfs, &binds, spec.uid_base, spec.preset)?;
            let machine = machine(&inner.groups, &spec.id);
            let config = config::config(&spec, &mounted.root, &mounted.binds, &machine);
            let path = bundle.join("config.json");
            fs::write(&path, config.to_string()).map_err(io("write", &path))?;
            Ok(spec)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Spec(error.to_string()))?
    }

    async fn connect(&self, spec: &Spec, pid: u32) -> Result<(), Error> {
        let networks = &self.0.networks;
        match &spec.network {
            None => Ok(()),
            Some(Net::Outside) => Ok(networks.attach_outside(&spec.id, pid).await?),
            Some(Net::Host {
                network,
                address,
                only_port,
            }) => Ok(networks
                .attach_host(&spec.id, pid, network, *address, *only_port)
                .await?),
        }
    }

    /// Removes all that there is of a container. The record goes last: what is cut short is done again.
    async fn erase(&self, id: &str) -> Result<(), Error> {
        let Some(record) = self.record(id) else {
            return Ok(());
        };
        self.kill(id).await?;
        let bundle = self.bundle(id);
        self.0.runtime.delete(id, &bundle).await?;
        self.remove_group(id).await;
        self.lives().remove(id);
        self.0.networks.detach(id, record.only_port).await?;
        let inner = self.0.clone();
        let work = move || -> Result<(), Error> {
            inner.builder.unmount(&record.id)?;
            inner.builder.remove_scratch(&record.scratch)?;
            Ok(mount::remove(&bundle)?)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Spec(error.to_string()))?
    }

    /// What was killed takes a moment to leave its group, above all when nobody knew its first process.
    async fn remove_group(&self, id: &str) {
        for _ in 0..100 {
            if self.0.groups.remove(Some(id)) {
                return;
            }
            self.0.groups.kill(id);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        warn!(
            id,
            "the control group of a container is still in use, and stays until the next start"
        );
    }

    /// Watches the containers that run since an earlier node, and removes what that node left half-way.
    async fn adopt(&self) {
        if let Err(error) = self.record_orphans() {
            warn!(error = %chain(&error), "cannot note what has no record, and so cannot remove it");
        }
        for record in self.records() {
            if let Some(birth) = record.birth.as_ref().filter(|birth| birth.is_running())
                && let Ok(life) = Life::watch(birth)
            {
                self.lives().insert(record.id.clone(), life);
            }
            // A host that ended stays, to be seen with its logs, until it is stopped.
            if record.stays && record.birth.is_some() && record.started {
                if let Err(error) = self.0.builder.mount_scratch(&record.scratch) {
                    warn!(id = record.id, error = %chain(&error), "cannot mount the disk of a container");
                }
                continue;
            }
            info!(
                id = record.id,
                "removing a container that a node before this one left"
            );
            if let Err(error) = self.delete(&record.id).await {
                warn!(id = record.id, error = %chain(&error), "cannot remove a container");
            }
        }
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, HashMap<String, Life>> {
        self.0.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn life(&self, id: &str) -> Option<Life> {
        self.lives().get(id).cloned()
    }

    fn busy(&self, id: &str) -> Result<BusyGuard, Error> {
        let mut busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.insert(id.to_owned()) {
            true => Ok(BusyGuard {
                containers: self.clone(),
                id: id.to_owned(),
            }),
            false => Err(Error::Busy(id.to_owned())),
        }
    }
}

struct BusyGuard {
    containers: Containers,
    id: String,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.containers
            .0
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

/// Whoever gives up on a run wants nothing of it to go on.
struct KillOnDrop {
    containers: Containers,
    id: Option<String>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let containers = self.containers.clone();
        // Ends when the container is gone, which has a deadline of its own.
        runtime.spawn(async move {
            while let Err(Error::Busy(_)) = containers.delete(&id).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
}

/// An error with its causes, for a log or a person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
