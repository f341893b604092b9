//! Sockets that rules have for themselves: opened and closed as the table changes, beside the listeners that are lent.
//!
//! Nobody lends them: an edge leaves them to the next (`heir`), and what ended before that has closed them. A socket that
//! cannot be opened is tried again, and its reason is there for people to see; the rules go on all the same.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use camino::Utf8PathBuf;
use model::route::Speaks;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    heir,
    listener::Door,
    live::Shared,
    udp::{self, Datagrams},
    worker::Order,
};

/// How often what could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// Sockets of all rules.
const SOCKETS: usize = 1024;

/// A socket that a rule has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSeen {
    pub address: SocketAddr,
    /// `http`, `https`, `tcp` or `udp`.
    pub speaks: String,
    pub hosts: Vec<String>,
    /// The rule's.
    pub place: String,
    /// Why nothing can be had there.
    pub problem: Option<String>,
}

/// What the keeper of the table and people share with the task.
#[derive(Default)]
pub struct Held {
    /// Rules with sockets of their own have come or gone.
    pub changed: Notify,
    seen: Mutex<Vec<OwnSeen>>,
    /// The open ones, once more.
    open: Mutex<Vec<(Key, OwnedFd)>>,
}

impl Held {
    /// What is open, to be left to the next edge.
    pub fn take(&self) -> Vec<(Key, OwnedFd)> {
        std::mem::take(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn seen(&self) -> Vec<OwnSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is wanted at one address. UDP and TCP have ports of their own.
pub type Key = (SocketAddr, bool);

#[derive(Clone, PartialEq)]
struct Wanted {
    speaks: Speaks,
    hosts: Vec<String>,
    place: String,
}

/// An open socket; it is closed when this is dropped.
enum Open {
    Tcp {
        socket: TcpListener,
        serial: u64,
        workers: Arc<[mpsc::UnboundedSender<Order>]>,
    },
    Udp {
        socket: UdpSocket,
        task: AbortHandle,
    },
}

impl Open {
    fn again(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp { socket, .. } => socket.try_clone().map(OwnedFd::from),
            Self::Udp { socket, .. } => socket.try_clone().map(OwnedFd::from),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        match self {
            Self::Tcp { serial, workers, .. } => {
                for worker in &**workers {
                    // One that has ended has closed it.
                    let _ = worker.send(Order::Close(*serial));
                }
            }
            Self::Udp { task, .. } => task.abort(),
        }
    }
}

/// Keeps the sockets of the rules in force, until it is dropped.
pub struct Sockets {
    pub shared: Arc<Shared>,
    pub workers: Arc<[mpsc::UnboundedSender<Order>]>,
    /// How HTTPS is spoken, if it is at all.
    pub secure: Option<Door>,
    /// Where the control side is, and beside it an edge that ends.
    pub admin: Utf8PathBuf,
}

impl Sockets {
    pub async fn run(self) {
        let mut left = heir::inherit(&self.admin).await;
        let mut open: HashMap<Key, (Wanted, Open)> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let (wanted, mut seen) = self.wanted();
            open.retain(|key, _| wanted.contains_key(key));
            let mut failed = false;
            for (key, wanted) in wanted {
                let before = match open.remove(&key) {
                    Some((held, opened)) if held == wanted => {
                        open.insert(key, (held, opened));
                        seen.push(wanted.seen(key.0, None));
                        continue;
                    }
                    other => other.map(|(_, opened)| opened),
                };
                let there = before.as_ref().and_then(|before| before.again().ok());
                let there = there.or_else(|| left.remove(&key));
                let opened = self.open(key.0, &wanted, there, &mut tasks);
                let problem = opened.as_ref().err().map(ToString::to_string);
                failed |= problem.is_some();
                seen.push(wanted.seen(key.0, problem));
                if let Ok(opened) = opened {
                    open.insert(key, (wanted, opened));
                }
            }
            // What was left and nobody wants is closed.
            left.clear();
            let again = open
                .iter()
                .filter_map(|(key, (_, open))| Some((*key, open.again().ok()?)));
            *self
                .shared
                .own
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = again.collect();
            *self
                .shared
                .own
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = seen;
            tokio::select! {
                () = self.shared.own.changed.notified() => {}
                () = tokio::time::sleep(AGAIN), if failed => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// By address what the rules want there, and who comes too late.
    fn wanted(&self) -> (BTreeMap<Key, Wanted>, Vec<OwnSeen>) {
        let rules = self.shared.book().rules();
        let (mut wanted, mut late) = (BTreeMap::<Key, Wanted>::new(), Vec::new());
        for rule in &rules {
            for listens in rule.listeners() {
                let this = Wanted {
                    speaks: listens.speaks.clone(),
                    hosts: rule.hosts().map(str::to_owned).collect(),
                    place: rule.place().to_owned(),
                };
                let key = (listens.address, matches!(listens.speaks, Speaks::Udp { .. }));
                let problem = match wanted.get(&key) {
                    Some(first) => format!("{} has this port already", first.place),
                    None if wanted.len() >= SOCKETS => format!("there are {SOCKETS} sockets already"),
                    None => {
                        wanted.insert(key, this);
                        continue;
                    }
                };
                late.push(this.seen(listens.address, Some(problem)));
            }
        }
        (wanted, late)
    }

    /// Opens a socket, or takes the one that is there, for something else before or from another edge.
    fn open(
        &self,
        at: SocketAddr,
        wanted: &Wanted,
        there: Option<OwnedFd>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Open> {
        let hosts = || wanted.hosts.iter().map(String::as_str);
        let door = match &wanted.speaks {
            Speaks::Udp { idle } => {
                let socket = there.map_or_else(|| UdpSocket::bind(at), |there| Ok(there.into()))?;
                let mut datagrams = Datagrams::new(socket.try_clone()?, hosts().next().unwrap_or_default());
                datagrams.idle = idle.unsigned_abs();
                let task = tasks.spawn(udp::run(datagrams, Arc::clone(&self.shared)));
                return Ok(Open::Udp { socket, task });
            }
            Speaks::Tcp => Door::bytes(hosts().next().unwrap_or_default()),
            Speaks::Http => Door::http().only(hosts()),
            Speaks::Https => {
                let why = "there are no certificates: the load balancer has no HTTPS";
                let secure = self.secure.clone().ok_or_else(|| io::Error::other(why))?;
                secure.only(hosts())
            }
        };
        let socket = there.map_or_else(|| TcpListener::bind(at), |there| Ok(there.into()))?;
        socket.set_nonblocking(true)?;
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Relaxed);
        for worker in &*self.workers {
            let _ = worker.send(Order::Listen(serial, socket.try_clone()?, door.clone()));
        }
        Ok(Open::Tcp {
            socket,
            serial,
            workers: Arc::clone(&self.workers),
        })
    }
}

impl Wanted {
    fn seen(&self, address: SocketAddr, problem: Option<String>) -> OwnSeen {
        let speaks = match self.speaks {
            Speaks::Http => "http",
            Speaks::Https => "https",
            Speaks::Tcp => "tcp",
            Speaks::Udp { .. } => "udp",
        };
        OwnSeen {
            address,
            speaks: speaks.to_owned(),
            hosts: self.hosts.clone(),
            place: self.place.clone(),
            problem,
        }
    }
}
