//! One thread, one runtime, one share of the connections. Nothing of a connection ever leaves its worker.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use slab::Slab;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};

use crate::{
    Limits,
    access::{Connection, Writer},
    clock,
    http1::Papers,
    http2::forward,
    link::{Buffers, Link, Stream},
    listener::{self, Door, Only},
    live::Shared,
    quota::{self, Full, Seat},
    table::Rule,
    upstream::Pool,
};

/// How often deadlines are looked at. All time-outs are this much late at most.
const WATCH: Duration = Duration::from_millis(100);

/// What idle clients have when the worker stops: one more request is answered with `Connection: close`. Closing at once
/// would meet requests that are on their way.
pub const LAST: Duration = Duration::from_secs(1);

/// What the control side asks of a worker.
pub enum Order {
    /// Close idle connections to targets that have left; answer when done.
    Sweep(oneshot::Sender<()>),
    /// Accept at one more socket, under this number.
    Listen(u64, std::net::TcpListener, Door),
    /// Accept there no more.
    Close(u64),
    /// These limits hold from now on.
    Limits(Limits),
    /// Accept no more, finish what is under way, end at the given tick at the latest.
    Stop(u64),
}

/// The state of one worker, shared by its tasks.
pub struct Worker {
    pub shared: Arc<Shared>,
    limits: Cell<Limits>,
    pub pool: Pool,
    /// Connections to targets that speak HTTP/2.
    pub streams: forward::Shared,
    pub buffers: Buffers,
    pub papers: Papers,
    pub log: Option<Writer>,
    links: RefCell<Slab<Rc<Link>>>,
    tick: Cell<u64>,
    stopping: Cell<bool>,
    clients: Cell<usize>,
    /// A client has gone.
    room: Notify,
    stopped: Notify,
    ids: Cell<u64>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, limits: Limits, log: Option<Writer>) -> Rc<Self> {
        let ids = shared.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        Rc::new(Self {
            shared,
            limits: Cell::new(limits),
            pool: Pool::default(),
            streams: forward::Shared::default(),
            buffers: Buffers::default(),
            papers: Papers::default(),
            log,
            links: RefCell::default(),
            tick: Cell::new(clock::ticks()),
            stopping: Cell::new(false),
            clients: Cell::new(0),
            room: Notify::new(),
            stopped: Notify::new(),
            ids: Cell::new(ids),
        })
    }

    /// The time, as of the last look: at most `WATCH` old.
    pub fn tick(&self) -> u64 {
        self.tick.get()
    }

    pub fn after(&self, duration: Duration) -> u64 {
        self.tick.get().saturating_add(clock::span(duration))
    }

    /// The limits as they are now: what began under others may end under these.
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Are requests logged?
    pub fn is_logging(&self) -> bool {
        self.log.is_some()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Until the worker stops.
    pub async fn stopped(&self) {
        while !self.stopping.get() {
            self.stopped.notified().await;
        }
    }

    /// 64 bits that do not come again soon. Unique, not secret: they name requests.
    pub fn id(&self) -> u64 {
        let next = self.ids.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.ids.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Puts a connection under watch.
    pub fn register(self: &Rc<Self>, stream: Stream, target: Option<crate::target::Target>) -> Watched {
        let link = Rc::new(Link::new(stream, target));
        let key = self.links.borrow_mut().insert(Rc::clone(&link));
        Watched {
            worker: Rc::clone(self),
            link,
            key,
        }
    }

    /// Serves until it is told to stop and its clients are gone or its time is over.
    pub async fn run(
        self: Rc<Self>,
        doors: Vec<(TcpListener, Door)>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let mut accepting = JoinSet::new();
        for (listener, door) in doors {
            accepting.spawn_local(accept(Rc::clone(&self), listener, Rc::new(door)));
        }
        let mut own = HashMap::new();
        let mut watch = tokio::time::interval(WATCH);
        let mut end = u64::MAX;
        while !(self.stopping.get() && (self.clients.get() == 0 || self.tick.get() >= end)) {
            tokio::select! {
                _ = watch.tick() => self.watch(),
                order = orders.recv() => match order {
                    Some(Order::Sweep(done)) => {
                        self.pool.sweep();
                        let _ = done.send(());
                    }
                    Some(Order::Listen(serial, socket, door)) => match TcpListener::from_std(socket) {
                        Ok(socket) if !self.stopping.get() => {
                            let task = accept(Rc::clone(&self), socket, Rc::new(door));
                            own.insert(serial, accepting.spawn_local(task));
                        }
                        Ok(_) => {}
                        Err(error) => tracing::error!(%error, "cannot listen at a rule's own socket"),
                    },
                    Some(Order::Limits(limits)) => self.limits.set(limits),
                    Some(Order::Close(serial)) => {
                        if let Some(task) = own.remove(&serial) {
                            AbortHandle::abort(&task);
                        }
                    }
                    Some(Order::Stop(until)) => {
                        accepting.abort_all();
                        self.stop();
                        end = end.min(until);
                    }
                    None => {
                        accepting.abort_all();
                        self.stop();
                        end = 0;
                    }
                },
            }
        }
        self.pool.clear();
        self.streams.clear();
    }

    fn stop(&self) {
        if self.stopping.replace(true) {
            return;
        }
        self.stopped.notify_waiters();
        let soon = self.after(LAST);
        for (_, link) in &*self.links.borrow() {
            if link.is_idle() {
                link.arm(soon);
            }
        }
    }

    fn watch(&self) {
        self.tick.set(clock::ticks());
        for (_, link) in &*self.links.borrow() {
            link.watch(self.tick.get());
        }
        self.pool.expire();
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// A place among the connections of this source.
    pub fn seat(&self, source: IpAddr) -> Result<Option<Seat<u128>>, Full> {
        let most = self.limits().source_connections;
        Seat::take(&self.shared.sources, || quota::source(source), most)
    }

    /// The same for one more connection, or request under way, of the tenant of this rule.
    pub fn tenant_seat(&self, rule: &Rule) -> Result<Option<Seat<Box<str>>>, Full> {
        let most = self.limits().tenant_connections;
        let seat = Seat::take(&self.shared.tenants, || quota::tenant(rule.place()), most);
        seat.inspect_err(|Full| _ = self.shared.totals.limited.fetch_add(1, Relaxed))
    }

    fn admit(self: &Rc<Self>) -> Admission {
        self.clients.set(self.clients.get() + 1);
        self.shared.totals.connections.fetch_add(1, Relaxed);
        self.shared.totals.open.fetch_add(1, Relaxed);
        Admission(Rc::clone(self))
    }
}

/// A connection that is watched as long as this lives.
pub struct Watched {
    worker: Rc<Worker>,
    pub link: Rc<Link>,
    key: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.worker.links.borrow_mut().try_remove(self.key);
    }
}

/// One client counted.
struct Admission(Rc<Worker>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.clients.set(self.0.clients.get() - 1);
        self.0.shared.totals.open.fetch_sub(1, Relaxed);
        self.0.room.notify_waiters();
    }
}

/// Where a connection came from and arrived.
#[derive(Clone)]
pub struct Ends {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The client speaks TLS.
    pub tls: bool,
    /// Header lines that say who the client has shown to be.
    pub identity: Option<Rc<str>>,
    /// What the log says of the connection; none where there is no log.
    pub connection: Option<Rc<Connection>>,
    /// The hosts that are to be had there; all when there are none.
    pub only: Option<Only>,
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, door: Rc<Door>) {
    loop {
        while worker.clients.get() >= worker.limits().connections {
            // The rest waits in the kernel's queue.
            worker.room.notified().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let admission = worker.admit();
                let local = stream.local_addr().unwrap_or(peer);
                // Each step of the connection's task has a place of its own for it.
                let ends = Box::new(Ends {
                    peer,
                    local,
                    tls: false,
                    identity: None,
                    connection: None,
                    only: door.only.clone(),
                });
                let (worker, door) = (Rc::clone(&worker), Rc::clone(&door));
                tokio::task::spawn_local(async move {
                    listener::serve(worker, &door, stream, ends).await;
                    drop(admission);
                });
                // Other workers may take the next one.
                tokio::task::yield_now().await;
            }
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(WATCH).await;
            }
        }
    }
}

/// The error is of one connection that went away early, not of the listener.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
