//! Sockets that the edge opens itself, beside the listeners that are lent: those that rules have for themselves, which
//! come and go with the table, and listeners that could not be bound before.
//!
//! An edge leaves them to the next (`heir`), and what ended before that has closed them. A socket that cannot be opened is
//! tried again, less and less often, and its reason is there for people to see; everything else goes on all the same.

mod held;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use camino::Utf8PathBuf;
use model::route::Speaks;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    heir,
    listener::Door,
    live::Shared,
    udp::{self, Datagrams},
    worker::Order,
};

pub use held::{ALL, Held, OwnSeen, Patience, Told};

/// Sockets of all rules.
const SOCKETS: usize = 1024;

/// What is wanted at one address. UDP and TCP have ports of their own.
pub type Key = (SocketAddr, bool);

#[derive(Clone, PartialEq)]
struct Wanted {
    whose: Whose,
    hosts: Vec<String>,
    place: String,
}

#[derive(Clone, PartialEq)]
enum Whose {
    /// Of one rule, which is all that is to be had there.
    Rule(Speaks),
    /// The listener of this number, which all rules share.
    All(usize),
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

/// Keeps the sockets of the rules in force, and those that all share, until it is dropped.
pub struct Sockets {
    pub shared: Arc<Shared>,
    pub workers: Arc<[mpsc::UnboundedSender<Order>]>,
    /// How HTTPS is spoken, if it is at all.
    pub secure: Option<Door>,
    /// Listeners of all rules that could not be bound before.
    pub unbound: Vec<(SocketAddr, Door)>,
    /// Where the control side is, and beside it an edge that ends.
    pub admin: Utf8PathBuf,
}

/// What is open, and what another edge has left.
struct State {
    open: HashMap<Key, (Wanted, Open)>,
    left: HashMap<Key, OwnedFd>,
    tasks: JoinSet<()>,
}

impl Sockets {
    pub async fn run(self) {
        let mut state = State {
            open: HashMap::new(),
            left: heir::inherit(&self.admin).await,
            tasks: JoinSet::new(),
        };
        let (mut told, mut patience) = (Told::default(), Patience::default());
        loop {
            let (wanted, mut seen) = self.wanted();
            state.open.retain(|key, _| wanted.contains_key(key));
            told.forget(|key| !wanted.contains_key(key));
            let mut failed = false;
            for (key, wanted) in wanted {
                let problem = self.keep(&mut state, key, &wanted).err();
                let problem = problem.map(|error| error.to_string());
                failed |= problem.is_some();
                let socket = self.seen(&wanted, key.0, problem);
                told.tell(key, &socket);
                seen.push(socket);
            }
            // What was left and nobody wants is closed.
            state.left.clear();
            let again = state.open.iter();
            let again = again.filter_map(|(key, (_, open))| Some((*key, open.again().ok()?)));
            self.shared.own.keep(again.collect(), seen);
            if !failed {
                patience = Patience::default();
            }
            tokio::select! {
                () = self.shared.own.changed.notified() => {}
                () = patience.wait(), if failed => {}
                Some(_) = state.tasks.join_next() => {}
            }
        }
    }

    /// Sees to it that this is open, as it is wanted.
    fn keep(&self, state: &mut State, key: Key, wanted: &Wanted) -> io::Result<()> {
        let before = match state.open.remove(&key) {
            Some((held, opened)) if held == *wanted => {
                state.open.insert(key, (held, opened));
                return Ok(());
            }
            other => other.map(|(_, opened)| opened),
        };
        let there = before.as_ref().and_then(|before| before.again().ok());
        let there = there.or_else(|| state.left.remove(&key));
        let opened = self.open(key.0, wanted, there, &mut state.tasks)?;
        state.open.insert(key, (wanted.clone(), opened));
        Ok(())
    }

    /// By address what is wanted there, and who comes too late.
    fn wanted(&self) -> (BTreeMap<Key, Wanted>, Vec<OwnSeen>) {
        let all = self.unbound.iter().enumerate().map(|(number, (at, _))| {
            let this = Wanted {
                whose: Whose::All(number),
                hosts: Vec::new(),
                place: ALL.to_owned(),
            };
            ((*at, false), this)
        });
        let (mut wanted, mut late) = (all.collect::<BTreeMap<Key, Wanted>>(), Vec::new());
        for rule in &self.shared.book().rules() {
            for listens in rule.listeners() {
                let this = Wanted {
                    whose: Whose::Rule(listens.speaks.clone()),
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
                late.push(self.seen(&this, listens.address, Some(problem)));
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
        let door = match &wanted.whose {
            Whose::All(number) => self.unbound[*number].1.clone(),
            Whose::Rule(Speaks::Udp { idle }) => {
                let socket = there.map_or_else(|| UdpSocket::bind(at), |there| Ok(there.into()))?;
                let mut datagrams = Datagrams::new(socket.try_clone()?, hosts().next().unwrap_or_default());
                datagrams.idle = idle.unsigned_abs();
                let task = tasks.spawn(udp::run(datagrams, Arc::clone(&self.shared)));
                return Ok(Open::Udp { socket, task });
            }
            Whose::Rule(Speaks::Tcp) => Door::bytes(hosts().next().unwrap_or_default()),
            Whose::Rule(Speaks::Http) => Door::http().only(hosts()),
            Whose::Rule(Speaks::Https) => {
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

    fn seen(&self, wanted: &Wanted, address: SocketAddr, problem: Option<String>) -> OwnSeen {
        let speaks = match &wanted.whose {
            Whose::All(number) => self.unbound[*number].1.name(),
            Whose::Rule(speaks) => speaks.word(),
        };
        OwnSeen {
            address,
            speaks: speaks.to_owned(),
            hosts: wanted.hosts.clone(),
            place: wanted.place.clone(),
            problem,
        }
    }
}
