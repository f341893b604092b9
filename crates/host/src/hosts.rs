//! Hosts: containers with an agent as PID 1, an address and a record on disk. Knows nothing of what runs in them.
//!
//! Secrets pass through this room in memory only: a record never holds the environment. What a host writes into the
//! directory that it shares with us may be hostile, so it is never opened by following links.

mod logs;
mod record;
mod succession;

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, HostId, Ticket,
    port::{Blame, Fault, HostOrder, HostRole, HostSeen, HostState, HostUp, LogChunk, LogRef, Network},
};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

pub(crate) use self::logs::chunk;
pub use self::record::Record;
pub(crate) use self::succession::Attempts;
use self::succession::Changing;
use crate::{
    agent::{
        Client,
        api::{Configuration, Health},
    },
    container::{self, Bind, Containers, Net, Output, Preset, Rootfs, Signal, Spec, chain},
    network, now,
    ticket::Tickets,
};

/// How long an agent that should answer may be silent before its host is made anew: its machine may be busy, and what
/// runs on it is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// From a started PID 1 to an agent that answers.
const READY: Duration = Duration::from_secs(20);

/// From SIGTERM to SIGKILL: what services need to end in their order.
const GRACE: Duration = Duration::from_secs(15);

/// The same for a server that writes its buffers to disk.
const DATABASE_GRACE: Duration = Duration::from_secs(70);

/// Where the directories of an image's layers are, top first.
pub type Lowers = Arc<dyn Fn(&Digest) -> Result<Vec<Utf8PathBuf>, Fault> + Send + Sync>;

/// The hosts of one data directory. Clones are the same.
#[derive(Clone)]
pub struct Hosts {
    node: Utf8PathBuf,
    containers: Containers,
    tickets: Tickets,
    lowers: Lowers,
    /// Our own program, as hosts see it.
    program: Utf8PathBuf,
    version: Digest,
    changing: Changing,
}

/// What a host needs beyond an order: where it differs by role.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    pub binds: Vec<Bind>,
    /// Only this port can be reached, and nothing from the host.
    pub only_port: Option<u16>,
}

impl Hosts {
    pub fn new(
        node: Utf8PathBuf,
        containers: Containers,
        tickets: Tickets,
        lowers: Lowers,
    ) -> Result<Self, Fault> {
        let (program, version) = keep_program(&node)
            .map_err(|error| Fault::platform(format!("cannot keep the program that hosts run: {error}")))?;
        Ok(Self {
            node,
            containers,
            tickets,
            lowers,
            program,
            version,
            changing: Changing::default(),
        })
    }

    /// A copy of the running program that stays as it is.
    pub fn program(&self) -> &Utf8Path {
        &self.program
    }

    /// Asks the host's agent.
    pub fn agent(&self, host: &HostId) -> Client {
        Client::new(self.scratch(host).join("run/agent.sock"))
    }

    /// What the order says about the host, if there is one.
    pub fn record(&self, host: &HostId) -> Option<Record> {
        Record::read(&self.dir(host))
    }

    pub fn is_running(&self, host: &HostId) -> bool {
        self.containers
            .list()
            .iter()
            .any(|seen| seen.id == host.as_str() && seen.running)
    }

    /// The log of a host that exists: those of its services, and `console`. `None` when the host is not there, and its
    /// logs are where all logs are.
    ///
    /// A name that none of its logs has is refused with the names that there are.
    pub async fn log(&self, log: &LogRef, offset: u64) -> Option<Result<LogChunk, Fault>> {
        let mut parts = log.as_str().splitn(3, '/');
        let ("host", Some(host), Some(name)) = (parts.next()?, parts.next(), parts.next()) else {
            return None;
        };
        let host: HostId = host.parse().ok()?;
        let run = self.scratch(&host).join("run");
        let unknown = |known: Vec<String>| Some(Err(unknown_log(&host, name, &known)));
        if !run.exists() {
            let kept = self.node.join("logs/host").join(host.as_str());
            return logs::kept_unless_known(&kept, name).and_then(unknown);
        }
        if let Some(known) = logs::unless_known(&run, name) {
            return unknown(known);
        }
        let name = name.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let name = match name.as_str() {
                "console" => name,
                // The app's, whatever its process or unit is called.
                "service" => logs::app(&run).unwrap_or_else(|| "logs/service.log".to_owned()),
                service => format!("logs/{service}.log"),
            };
            chunk(&run, &name, offset)
        });
        Some(match read.await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Fault::platform(format!("cannot read the log {log}: {error}"))),
            Err(_) => Err(Fault::platform("the log's reader stopped")),
        })
    }

    /// Starts the host, or finds it, and configures its agent.
    pub(crate) async fn up(&self, order: &HostOrder, extra: Extra) -> Result<HostUp, Fault> {
        let begin = now();
        let record = Record::of(order, begin);
        let fallbacks = match self.record(&order.host).filter(|_| self.is_running(&order.host)) {
            Some(before) if before.is_same(&record) => match self.answers(&order.host).await {
                true => Vec::new(),
                // Whatever became of its agent: nothing can be done with the host as it is.
                false => {
                    warn!(host = %order.host, "the agent of {} does not answer; the host is made anew", order.host);
                    self.create(order, &record, extra).await?
                }
            },
            Some(_) => {
                let text = format!("{} runs already, from another order", order.host);
                return Err(Fault::order(text).next("stop it first"));
            }
            None => self.create(order, &record, extra).await?,
        };
        self.configure(order).await?;
        Ok(HostUp {
            host: order.host.clone(),
            address: order.address,
            duration_ms: elapsed_ms(begin),
            fallbacks,
        })
    }

    /// Ends it in order, keeps its logs, removes the rest.
    pub(crate) async fn down(&self, host: &HostId) -> Result<(), Fault> {
        let id = host.as_str();
        self.containers
            .signal(id, Signal::TERM)
            .map_err(|error| fault("stop", host, &error))?;
        let grace = match self.record(host).map(|record| record.role) {
            Some(HostRole::Database) => DATABASE_GRACE,
            _ => GRACE,
        };
        if !self.containers.ended(id, grace).await {
            warn!(%host, "a host did not end by itself in {} seconds; it is killed", grace.as_secs());
            self.containers
                .kill(id)
                .await
                .map_err(|error| fault("kill", host, &error))?;
        }
        let (from, to) = (
            self.scratch(host).join("run"),
            self.node.join("logs/host").join(id),
        );
        let kept = tokio::task::spawn_blocking(move || match from.exists() {
            true => logs::keep(&from, &to),
            false => Ok(()),
        });
        let kept = kept.await;
        if let Ok(Err(error)) = kept {
            warn!(%host, %error, "cannot keep the logs of a host");
        }
        self.containers
            .delete(id)
            .await
            .map_err(|error| fault("remove", host, &error))?;
        crate::mount::remove(&self.dir(host)).map_err(|error| fault("remove", host, &error))
    }

    async fn create(&self, order: &HostOrder, record: &Record, extra: Extra) -> Result<Vec<String>, Fault> {
        // What is left of a host that ended goes, but for its logs.
        self.down(&order.host).await?;
        let spec = self.spec(order, extra)?;
        record
            .write(&self.dir(&order.host))
            .and_then(|()| self.note_program(&order.host))
            .map_err(|error| fault("keep the record of", &order.host, &error))?;
        let started = self.containers.start(spec).await;
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                let fault = start_fault(&order.host, &error);
                self.undo(&order.host).await;
                return Err(fault);
            }
        };
        if let Err(fault) = self.ready(&order.host).await {
            self.undo(&order.host).await;
            return Err(fault);
        }
        if self.record(&order.host).is_none() {
            self.undo(&order.host).await;
            let text = format!("{} was stopped while it was started", order.host);
            return Err(Fault::platform(text).next("start it again"));
        }
        info!(host = %order.host, place = %order.place, address = %order.address, "started {}", order.host);
        Ok(running.fallbacks)
    }

    async fn undo(&self, host: &HostId) {
        if let Err(error) = self.down(host).await {
            warn!(%host, %error, "cannot remove a host that did not start");
        }
    }

    /// Does the agent of a host that runs answer, within what a busy machine may need?
    async fn answers(&self, host: &HostId) -> bool {
        let agent = self.agent(host);
        let asking = async {
            while agent.health().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.is_ok()
    }

    /// Waits for an agent that answers.
    async fn ready(&self, host: &HostId) -> Result<(), Fault> {
        let agent = self.agent(host);
        let answer = async {
            let mut pause = Duration::from_millis(1);
            while agent.health().await.is_err() {
                tokio::time::sleep(pause).await;
                // An agent that is ready is not kept waiting: asking costs microseconds, and is over after a few.
                pause = (pause * 2).min(Duration::from_millis(4));
            }
        };
        let console = || {
            format!("host/{host}/console")
                .parse()
                .expect("a host's id is a part of a log's name")
        };
        tokio::select! {
            () = answer => Ok(()),
            ended = self.containers.ended(host.as_str(), READY) => {
                let text = match ended {
                    true => format!("the agent of {host} ended at once"),
                    false => format!("the agent of {host} does not answer in {} seconds", READY.as_secs()),
                };
                Err(Fault::platform(text).next("look at its console").evidence(console()))
            }
        }
    }

    async fn configure(&self, order: &HostOrder) -> Result<(), Fault> {
        let configuration = Configuration {
            environment: order.environment.clone(),
            secrets: order.secrets.clone(),
            port: order.port,
            processes: order.processes.clone(),
        };
        let configured = self.agent(&order.host).configure(&configuration).await;
        configured.map_err(|error| fault("give its environment to", &order.host, &error))
    }

    fn spec(&self, order: &HostOrder, extra: Extra) -> Result<Spec, Fault> {
        let id = order.host.as_str();
        let mut binds = vec![shared("run", "/run/vend")];
        // Scripts of customers call what they know; it is our program that answers.
        for name in ["/usr/lib/vend/vend", "/usr/bin/systemctl", "/usr/sbin/service"] {
            binds.push(Bind {
                source: self.program.clone(),
                target: name.into(),
                read_only: true,
                id_mapped: false,
            });
        }
        binds.extend(extra.binds);
        Ok(Spec {
            id: id.to_owned(),
            hostname: hostname(&order.host),
            rootfs: Rootfs {
                lowers: (self.lowers)(&order.image)?,
                scratch: self.scratch(&order.host),
                disk_mib: Some(order.resources.disk_mib),
            },
            uid_base: order.uid_base,
            args: ["/usr/lib/vend/vend", "agent"].map(str::to_owned).to_vec(),
            env: vec![("PATH".into(), PATH.into()), ("HOME".into(), "/root".into())],
            cwd: "/".into(),
            binds,
            resources: order.resources.clone(),
            network: Some(Net::Host {
                network: order.network.clone(),
                address: order.address,
                only_port: extra.only_port,
            }),
            preset: Preset::Host,
            stdin: None,
            output: Output::File("run/console".into()),
        })
    }

    /// What its agent says of itself, if it answers. One that is being replaced is waited for: it is not dead.
    async fn health(&self, host: &HostId) -> Option<Health> {
        let agent = self.agent(host);
        let asked = async || {
            let health = tokio::time::timeout(Duration::from_secs(1), agent.health()).await;
            health.ok().and_then(Result::ok)
        };
        let changed = self.changing.has(host);
        let health = asked().await;
        if health.is_some() || !(changed || self.changing.has(host)) {
            return health;
        }
        while self.changing.has(host) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        asked().await
    }

    /// As a person or a reconciler sees it.
    async fn seen(&self, record: Record, running: bool) -> HostSeen {
        let usage = self.containers.usage(record.host.as_str());
        let health = match running {
            true => self.health(&record.host).await,
            false => None,
        };
        let disk = health.as_ref().and_then(|health| health.disk);
        HostSeen {
            state: if running {
                HostState::Running
            } else {
                HostState::Stopped
            },
            memory_bytes: usage.memory_bytes,
            cpu_ms: usage.cpu_ms,
            pids: usage.processes,
            disk_bytes: disk.map(|disk| disk.used_bytes),
            disk_total_bytes: disk.map(|disk| disk.total_bytes),
            configured: health.is_some_and(|health| health.configured),
            host: record.host,
            place: record.place,
            role: record.role,
            address: record.address,
            image: record.image,
            started_at: record.started_at,
        }
    }

    fn dir(&self, host: &HostId) -> Utf8PathBuf {
        self.node.join("hosts").join(host.as_str())
    }

    fn scratch(&self, host: &HostId) -> Utf8PathBuf {
        self.dir(host).join("disk")
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl model::port::Hosts for Hosts {
    async fn start(&self, ticket: &Ticket, order: &HostOrder) -> Result<HostUp, Fault> {
        let (this, order) = (self.clone(), order.clone());
        let digest = Record::of(&order, jiff::Timestamp::UNIX_EPOCH).digest();
        self.tickets
            .once(
                ticket,
                digest,
                async move { this.up(&order, Extra::default()).await },
            )
            .await
    }

    async fn stop(&self, host: &HostId) -> Result<(), Fault> {
        let (this, host) = (self.clone(), host.clone());
        // Not cut short when the caller goes away.
        tokio::spawn(async move { this.down(&host).await })
            .await
            .map_err(|_| Fault::platform("stopping a host was cut short"))?
    }

    async fn list(&self) -> Result<Vec<HostSeen>, Fault> {
        let running: Vec<String> = self
            .containers
            .list()
            .into_iter()
            .filter(|seen| seen.running)
            .map(|seen| seen.id)
            .collect();
        let records = Record::all(&self.node.join("hosts"));
        let seen = records.into_iter().map(|record| {
            let runs = running.iter().any(|id| id == record.host.as_str());
            self.seen(record, runs)
        });
        Ok(futures_util::future::join_all(seen).await)
    }

    async fn remove_network(&self, network: &Network) -> Result<(), Fault> {
        let used = Record::all(&self.node.join("hosts"));
        if let Some(record) = used.iter().find(|record| record.network.number == network.number) {
            let text = format!(
                "the network {} still has the host {}",
                network.number, record.host
            );
            return Err(Fault::order(text).next("stop its hosts first"));
        }
        self.containers
            .networks()
            .remove(network)
            .await
            .map_err(|error| match error {
                network::Error::Order(text) => Fault::order(text),
                error => Fault::platform(chain(&error)),
            })
    }
}

fn unknown_log(host: &HostId, name: &str, known: &[String]) -> Fault {
    let known = match known {
        [] => "it has none".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    Fault::order(format!("{host} has no log `{name}`: {known}"))
}

/// A directory of a container's scratch, at a path in it.
fn shared(name: &str, target: &str) -> Bind {
    Bind {
        source: name.into(),
        target: target.into(),
        read_only: false,
        id_mapped: false,
    }
}

/// At most 63 characters of a DNS label.
fn hostname(host: &HostId) -> String {
    let label: String = host
        .as_str()
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(63)
        .collect();
    label.trim_end_matches('-').to_owned()
}

/// Keeps a copy of the running program that later versions do not replace under the hosts that run it.
fn keep_program(node: &Utf8Path) -> std::io::Result<(Utf8PathBuf, Digest)> {
    const OWN: &str = "/proc/self/exe";
    // In pieces: what is read at once is memory that the allocator keeps, as much as the program is long.
    let mut hash = Sha256::new();
    let (mut own, mut block) = (fs::File::open(OWN)?, vec![0; 1 << 16]);
    loop {
        match own.read(&mut block)? {
            0 => break,
            read => hash.update(&block[..read]),
        }
    }
    let digest = Digest::from_bytes(hash.finalize().into());
    let dir = node.join("bin");
    let path = dir.join(format!("vend-{}", digest.short()));
    if path.exists() {
        return Ok((path, digest));
    }
    fs::create_dir_all(&dir)?;
    let fresh = dir.join(".vend.new");
    fs::copy(OWN, &fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok((path, digest))
}

fn elapsed_ms(begin: jiff::Timestamp) -> u64 {
    now().duration_since(begin).as_millis().try_into().unwrap_or(0)
}

fn fault(doing: &str, host: &HostId, error: &dyn std::error::Error) -> Fault {
    Fault::platform(format!("cannot {doing} {host}: {}", chain(error)))
}

fn start_fault(host: &HostId, error: &container::Error) -> Fault {
    let fault = fault("start", host, error);
    let by_order = matches!(
        error,
        container::Error::Spec(_) | container::Error::Network(network::Error::Order(_))
    );
    match (by_order, error) {
        (true, _) => Fault {
            blame: Blame::Order,
            ..fault
        },
        (_, container::Error::Missing(_)) => {
            fault.next("run `vend doctor`: it says how to get what is missing")
        }
        _ => fault,
    }
}
