//! The load balancer: listeners, rules and target groups with ALB's meaning, for the route table of `model::route`.
//!
//! The room exists so that customers' requests are served by a process that needs nobody else: it starts from its
//! snapshot on disk and takes new tables over a Unix socket. It must not know of SQL, flows, tenants' rights or
//! containers; a host is an address and a health check here.
//!
//! A request's way: `worker` accepts, `http1` or `http2` reads the head, `table` finds the rule, `balance` the target,
//! `upstream` a connection to it, and the answer goes back the same way. `live` changes the table, `health` asks the
//! targets, `admin` is the door for the control side, and `client` the other side of that door.

mod access;
mod acme;
mod admin;
mod answer;
mod away;
mod balance;
mod book;
mod call;
mod client;
mod clock;
mod condition;
mod dns;
mod draft;
mod explain;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod health;
mod heir;
mod http1;
mod http2;
mod lines;
mod link;
mod listener;
mod live;
mod login;
mod metrics;
mod own;
mod pass;
mod proxy;
mod quota;
mod secure;
mod snapshot;
mod socket;
mod sticky;
mod table;
mod target;
mod thin;
mod tls;
mod udp;
mod upstream;
mod vault;
mod wake;
mod worker;

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use camino::Utf8PathBuf;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

pub use access::{Format, Lines as AccessLines, Log, Newest as AccessNewest, Rotation};
pub use acme::{Acme, Challenge};
pub use client::{Client, Error as ClientError};
pub use dns::{Dns, NameSeen, Wanted as ZoneWanted, Zone};
pub use explain::{Explanation, Question};
pub use listener::{Listener, Speaks, Unbound};
pub use metrics::{GroupLoad, GroupStats, Load, RuleLoad, TotalStats, upper_us};
pub use own::OwnSeen;
pub use tls::{Clients, Seen as CertificateSeen, Tls, Version, ciphers};
pub use udp::Datagrams;
pub use upstream::Limits;
pub use vault::{Given, Useless};

use access::{Sink, Writer};
use admin::Admin;
use listener::{Door, Watched};
use live::{Keeper, Shared};
use secure::Secure;
use worker::{Order, Worker};

/// What the edge needs to run.
#[derive(Debug)]
pub struct Config {
    /// Already bound. The supervisor holds them too: connections that arrive during a restart wait in their queue.
    pub listeners: Vec<Listener>,
    /// Those that could not be: the others serve meanwhile.
    pub unbound: Vec<Unbound>,
    /// Where the admin socket is to be: `<data>/run/edge.sock`.
    pub admin: Utf8PathBuf,
    /// Where the table is kept: `<data>/edge/table.log`.
    pub snapshot: Utf8PathBuf,
    /// Who comes without TLS is served all the same. Else a request for a name that has a certificate is sent to the
    /// listener that speaks TLS, whatever rules say; where a rule has a socket for itself, nobody is.
    pub plain_http: bool,
    /// Threads that serve; one per core is best. 0 counts as 1.
    pub workers: usize,
    /// The access log is written only when there is a path.
    pub access_log: Option<Log>,
    /// Where numbers are given away in Prometheus' format, over HTTP and to anybody who can connect.
    pub metrics: Option<TcpListener>,
    pub limits: Limits,
    /// What the limits become while it runs, if they are to change.
    pub limited: Option<watch::Receiver<Limits>>,
    /// Certificates to be got from an authority.
    pub acme: Option<Acme>,
    /// Sockets at which datagrams come.
    pub datagrams: Vec<Datagrams>,
    /// Names that are answered.
    pub dns: Option<Dns>,
    /// The folder of the secrets by which the edge is a client of providers of identities, each a file under its name,
    /// and of the edge's own keys.
    pub secrets: Utf8PathBuf,
    /// PEM: who may have signed the certificate of a provider, or of a load balancer elsewhere. Else the machine's.
    pub roots: Option<Utf8PathBuf>,
    /// The zone in which it runs: targets of it are preferred where a group says the zones of its targets.
    pub zone: Option<String>,
    /// Gives memory that is free back to the system: called after a table or a change of more than `LARGE` rules, by the
    /// thread that read it. Which allocator there is, only the program knows.
    pub tidy: fn(),
}

/// Why the edge cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen at {path}")]
    Admin {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the access log {path}")]
    Log {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a listener cannot speak TLS")]
    Tls(#[from] tls::Error),
    #[error("cannot start a worker")]
    Start(#[source] io::Error),
    #[error("a worker has ended before its time")]
    Worker,
}

/// Serves until `shutdown` is ready, then accepts nothing more, lets what is under way finish for `limits.drain` at
/// most, and returns. Workers are threads of their own; the caller's runtime does the control side.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let config = Config {
        limits: within_files(config.limits, config.workers.max(1)),
        ..config
    };
    let shared = Arc::new(Shared::default());
    shared
        .seed
        .store(RandomState::new().build_hasher().finish(), Relaxed);
    shared
        .tenant_connections
        .store(config.limits.tenant_connections, Relaxed);
    if let Some(zone) = &config.zone {
        let _ = shared.zone.set(zone.clone());
    }
    if let Some(roots) = &config.roots {
        shared.away.only(roots.clone());
    }
    match login::Desk::open(config.secrets.clone(), config.roots.clone()) {
        Ok(desk) => _ = shared.desk.set(desk),
        Err(error) => {
            tracing::error!(%error, folder = %config.secrets, "nobody can sign in: there are no keys")
        }
    }
    let (sinks, logger) = match &config.access_log {
        None => (Vec::new(), None),
        Some(log) => {
            let opened = access::open(log, &shared);
            let (sinks, ended) = opened.map_err(|(path, source)| Error::Log { path, source })?;
            (sinks, Some(ended))
        }
    };
    let (prober, admissions) = mpsc::unbounded_channel();
    let mut keeper = Keeper {
        shared: Arc::clone(&shared),
        log: snapshot::Log::new(config.snapshot.clone()),
        workers: Vec::new(),
        prober,
        tidy: config.tidy,
    };
    restore(&mut keeper);
    (config.tidy)();
    let (doors, unbound, watched) = open(&config, &shared)?;
    let certificates = watched.folders;
    for (folder, held) in &certificates {
        if held.is_empty() {
            tracing::warn!(%folder, "no certificate can be used: TLS is refused to whoever asks for it");
        }
    }
    let door = socket::listen(&config.admin).map_err(|source| Error::Admin {
        path: config.admin.clone(),
        source,
    })?;
    let mut workers = JoinSet::new();
    for number in 0..config.workers.max(1) {
        let (orders, ended) = start(&config, &doors, number, &shared, sinks.clone()).map_err(Error::Start)?;
        keeper.workers.push(orders);
        workers.spawn(ended);
    }
    drop(sinks);
    // The workers have them now, and close them first when they stop: nobody is to connect who is not accepted.
    drop(config.listeners);
    let orders = keeper.workers.clone();
    let (changes, inbox) = mpsc::channel(16);
    let mut control = JoinSet::new();
    control.spawn(keeper.run(inbox));
    health::start(admissions, Arc::clone(&shared)).map_err(Error::Start)?;
    for (folder, watched) in certificates.clone() {
        control.spawn(watched.watch(folder));
    }
    for server in watched.servers {
        control.spawn(server.watch());
    }
    let mut secure = doors.iter().chain(unbound.iter().map(|(_, door)| door));
    let secure = secure.find(|door| door.certificates().is_some()).cloned();
    let sockets = own::Sockets {
        shared: Arc::clone(&shared),
        workers: orders.clone().into(),
        secure,
        unbound,
        admin: config.admin.clone(),
    };
    control.spawn(sockets.run());
    if let Some(limited) = config.limited {
        control.spawn(follow(limited, orders.clone(), Arc::clone(&shared)));
    }
    for datagrams in config.datagrams {
        control.spawn(udp::run(datagrams, Arc::clone(&shared)));
    }
    if let Some(dns) = config.dns {
        let _ = shared.names.zones.set(dns.zones.clone());
        control.spawn(dns::run(dns, Arc::clone(&shared)));
    }
    if let Some(acme) = config.acme.clone() {
        match certificates
            .iter()
            .find(|(folder, _)| *folder == acme.certificates)
        {
            Some((_, held)) => {
                control.spawn(acme::run(acme, Arc::clone(held), Arc::clone(&shared)));
            }
            None => {
                tracing::error!(folder = %acme.certificates, "no listener has the certificates of the authority");
            }
        }
    }
    let certificates: Vec<_> = certificates
        .into_iter()
        .map(|(_, certificates)| certificates)
        .collect();
    let vault = vault::Vault::open(config.secrets.join(login::VAULT), certificates.clone());
    let own = Arc::clone(&shared);
    let admin = Admin {
        shared,
        changes,
        certificates,
        vault: Arc::new(vault),
        log: config
            .access_log
            .as_ref()
            .and_then(|log| log.short_lines().map(ToOwned::to_owned)),
    };
    if let Some(listener) = config.metrics {
        control.spawn(admin.clone().run_metrics(listener));
    }
    control.spawn(admin.run(door));
    let early = tokio::select! {
        () = shutdown => false,
        Some(_) = workers.join_next() => true,
    };
    tracing::info!("stopping: nobody new is accepted, and what is under way may end");
    // Sockets that nobody else holds wait for a successor while requests under way end.
    let mut heirs = JoinSet::new();
    match heir::Will::at(&config.admin) {
        Ok(will) => _ = heirs.spawn(will.execute(own.own.take())),
        Err(error) => tracing::warn!(%error, "the sockets of rules cannot be left to a successor"),
    }
    // Dropped first: a successor may have the admin socket and the snapshot from now on.
    control.shutdown().await;
    stop(&config.limits, orders, workers).await;
    if let Some(ended) = logger {
        // The last worker is gone, so there is nothing to wait for but the disk.
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }
    // Who comes now finds no door, instead of one behind which nobody is.
    heirs.shutdown().await;
    match early {
        true => Err(Error::Worker),
        false => Ok(()),
    }
}

/// As many clients as there are files for: each may need a connection to a target as well, and the log, the snapshot
/// and health checks need some in any case. Clients beyond that wait; if they were let in, nobody could be served.
fn within_files(limits: Limits, workers: usize) -> Limits {
    const OTHERS: u64 = 512;
    let mut files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => files = raised,
        Err(error) => tracing::warn!(%error, "cannot raise the number of open files"),
    }
    let files = files.current.unwrap_or(u64::MAX);
    let clients = files.saturating_sub(OTHERS).max(files / 2) / 2 / workers as u64;
    Limits {
        connections: limits
            .connections
            .min(usize::try_from(clients).unwrap_or(usize::MAX).max(1)),
        ..limits
    }
}

/// The edge serves with or without a snapshot; one that cannot be read is kept as evidence.
fn restore(keeper: &mut Keeper) {
    if let Err(error) = keeper.start() {
        tracing::error!(
            error = %error,
            cause = std::error::Error::source(&error).map(tracing::field::display),
            "starting without a route table; the snapshot is put aside until a new one comes"
        );
        if let Err(error) = keeper.log.set_aside() {
            tracing::warn!(%error, "cannot put the snapshot aside");
        }
    }
}

type Orders = mpsc::UnboundedSender<Order>;
type Unopened = Vec<(SocketAddr, Door)>;

/// Makes all listeners ready, those too that are not bound yet, and keeps where HTTPS is to be had.
fn open(config: &Config, shared: &Shared) -> Result<(Vec<Door>, Unopened, Watched), tls::Error> {
    let bound = config.listeners.iter();
    let bound = bound.map(|listener| (&listener.speaks, listener.proxied));
    let unbound = config.unbound.iter();
    let wanted = bound.chain(unbound.map(|unbound| (&unbound.speaks, unbound.proxied)));
    let (mut doors, watched) = listener::doors(wanted)?;
    let later = doors.split_off(config.listeners.len());
    let at = config.unbound.iter().map(|unbound| unbound.address);
    let unbound: Unopened = at.zip(later).collect();
    let open = config.listeners.iter().zip(&doors);
    let open = open.filter_map(|(listener, door)| Some((listener.socket.local_addr().ok()?, door)));
    let later = unbound.iter().map(|(at, door)| (*at, door));
    let secure = open
        .chain(later)
        .filter_map(|(at, door)| Some((at, Arc::clone(door.certificates()?))));
    let _ = shared
        .secure
        .set(Secure::new(secure.collect(), config.plain_http));
    Ok((doors, unbound, watched))
}

/// Starts one worker. The future is ready when its thread has ended, in whatever way.
fn start(
    config: &Config,
    doors: &[Door],
    number: usize,
    shared: &Arc<Shared>,
    sinks: Vec<Sink>,
) -> io::Result<(Orders, impl Future<Output = ()> + use<>)> {
    let mut listeners = Vec::new();
    for (listener, door) in config.listeners.iter().zip(doors) {
        let socket = listener.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        listeners.push((socket, door.clone()));
    }
    let (sender, orders) = mpsc::unbounded_channel();
    let (ending, ended) = oneshot::channel::<()>();
    let (shared, limits) = (Arc::clone(shared), config.limits);
    let one_in = config.access_log.as_ref().map(|log| log.one_in);
    let log = one_in.map(|one_in| Writer::new(sinks, one_in, Arc::clone(&shared)));
    let runtime = tokio::runtime::Builder::new_current_thread();
    std::thread::Builder::new()
        .name(format!("edge-{number}"))
        .spawn(move || {
            let served = serve(runtime, listeners, shared, limits, log, orders);
            if let Err(error) = served {
                tracing::error!(%error, "a worker cannot serve");
            }
            drop(ending);
        })?;
    Ok((sender, async move {
        let _ = ended.await;
    }))
}

fn serve(
    mut runtime: tokio::runtime::Builder,
    listeners: Vec<(TcpListener, Door)>,
    shared: Arc<Shared>,
    limits: Limits,
    log: Option<Writer>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    let runtime = runtime.enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let listeners = listeners
            .into_iter()
            .map(|(socket, door)| Ok((tokio::net::TcpListener::from_std(socket)?, door)))
            .collect::<io::Result<_>>()?;
        Worker::new(shared, limits, log).run(listeners, orders).await;
        Ok(())
    })
}

/// Tells all workers what the limits become.
async fn follow(mut limited: watch::Receiver<Limits>, workers: Vec<Orders>, shared: Arc<Shared>) {
    while limited.changed().await.is_ok() {
        let now = within_files(*limited.borrow_and_update(), workers.len());
        shared.tenant_connections.store(now.tenant_connections, Relaxed);
        for worker in &workers {
            // One that has ended needs no limits.
            let _ = worker.send(Order::Limits(now));
        }
    }
}

/// Tells all workers to stop and waits for them, a little longer than they have.
async fn stop(limits: &Limits, orders: Vec<Orders>, mut workers: JoinSet<()>) {
    let end = clock::ticks().saturating_add(clock::span(limits.drain));
    for worker in &orders {
        // One that has ended needs no order.
        let _ = worker.send(Order::Stop(end));
    }
    let all = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain + Duration::from_secs(2), all)
        .await
        .is_err()
    {
        tracing::warn!("a worker did not stop in time");
    }
}
