//! Datagrams: to a target of the rule for one host, and back, as NLB's UDP listeners do.
//!
//! A flow is a client's address and port at one listener. It is given a target by a hash of the client, so that the
//! same client finds the same target after a restart too, and stays with it while the target is there and well: a
//! change of routes breaks no flow, unless it closes the rule or keeps the client out. Nothing is ever sent to somebody but what a target answered to that flow.

mod flow;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket as Socket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinSet};

use crate::{
    clock,
    live::Shared,
    metrics,
    quota::{Quota, Seat, source},
};
use flow::{Flow, Opened, is_settled, open};

/// The largest datagram.
const LARGEST: usize = 65_535;
/// Flows of all listeners. Each has a socket.
const FLOWS: u64 = 8192;
/// Of which one tenant's are so many at most, whatever its limit.
const FLOWS_EACH: u32 = 4096;

/// A socket at which datagrams come.
#[derive(Debug)]
pub struct Datagrams {
    /// Already bound, to one address: answers come from there.
    pub socket: Socket,
    /// The host whose rule says where they go.
    pub host: String,
    /// A flow ends after so long without a datagram either way. NLB has 120 s.
    pub idle: Duration,
    /// Flows of one source at this listener. An IPv6 source is a network of 64 bits.
    pub per_source: u32,
}

impl Datagrams {
    /// With NLB's time and 256 flows a source.
    pub fn new(socket: Socket, host: impl Into<String>) -> Self {
        Self {
            socket,
            host: host.into(),
            idle: Duration::from_secs(120),
            per_source: 256,
        }
    }
}

/// What all listeners share: counts, and where they listen.
#[derive(Default)]
pub struct Held {
    flows: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    tenants: Arc<Quota<Box<str>>>,
    own: Mutex<Vec<SocketAddr>>,
}

impl Held {
    /// As Prometheus text.
    pub fn write(&self, out: &mut String) {
        for (what, help, count) in [
            ("flows", "Flows of datagrams that are open.", &self.flows),
            (
                "flows_opened_total",
                "Flows of datagrams that were opened.",
                &self.opened,
            ),
            (
                "refused_total",
                "Datagrams that went to no target.",
                &self.refused,
            ),
            (
                "bytes_total",
                "Bytes of datagrams that passed, both ways.",
                &self.bytes,
            ),
        ] {
            let name = format!("vend_edge_datagram_{what}");
            metrics::single(out, &name, help, count.load(Relaxed));
        }
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Can it be answered? A forged sender that is one of our own listeners would have us talk to ourselves for ever.
    fn is_plausible(&self, from: SocketAddr) -> bool {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |own: &SocketAddr| {
            own.port() == from.port() && (own.ip() == from.ip() || own.ip().is_unspecified())
        };
        let ip = from.ip().to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(four) if four.is_broadcast());
        from.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast && !own.iter().any(same)
    }
}

/// Where a listener is known to be while it is there.
struct Place(Arc<Shared>, SocketAddr);

impl Place {
    fn new(shared: &Arc<Shared>, at: SocketAddr) -> Self {
        let mut own = shared
            .datagrams
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        own.push(at);
        Self(Arc::clone(shared), at)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut own = self
            .0
            .datagrams
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = own.iter().position(|at| *at == self.1) {
            own.swap_remove(at);
        }
    }
}

/// Carries datagrams until it is dropped.
pub async fn run(datagrams: Datagrams, shared: Arc<Shared>) {
    let opened = datagrams
        .socket
        .set_nonblocking(true)
        .and_then(|()| datagrams.socket.local_addr());
    let ready = opened.and_then(|at| Ok((at, UdpSocket::from_std(datagrams.socket)?)));
    let (at, socket) = match ready {
        Ok(ready) => ready,
        Err(error) => return tracing::error!(%error, host = datagrams.host, "cannot listen for datagrams"),
    };
    let listening = Listening {
        _place: Place::new(&shared, at),
        socket: Arc::new(socket),
        at,
        host: datagrams.host,
        idle: clock::span(datagrams.idle),
        per_source: datagrams.per_source,
        sources: Arc::default(),
        flows: HashMap::new(),
        readers: JoinSet::new(),
        shared,
    };
    listening.run().await;
}

struct Listening {
    _place: Place,
    socket: Arc<UdpSocket>,
    at: SocketAddr,
    host: String,
    /// Ticks.
    idle: u64,
    per_source: u32,
    sources: Arc<Quota<u128>>,
    flows: HashMap<SocketAddr, Flow>,
    /// One for each flow; each ends with the number of its flow when its target is not there.
    readers: JoinSet<(SocketAddr, u64)>,
    shared: Arc<Shared>,
}

impl Listening {
    async fn run(mut self) {
        let mut packet = vec![0; LARGEST];
        let mut sweep = tokio::time::interval(Duration::from_millis((self.idle / 4).clamp(10, 1000)));
        loop {
            tokio::select! {
                came = self.socket.recv_from(&mut packet) => match came {
                    Ok((length, from)) => self.forward(&packet[..length], from).await,
                    Err(error) => {
                        tracing::debug!(%error, "a datagram did not arrive");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                Some(ended) = self.readers.join_next() => {
                    if let Ok((from, serial)) = ended
                        && self.flows.get(&from).is_some_and(|flow| flow.serial == serial)
                    {
                        self.flows.remove(&from);
                    }
                }
                _ = sweep.tick() => {
                    let now = clock::ticks();
                    // A client that says nothing more is kept out all the same.
                    self.flows.retain(|from, flow| {
                        let opened = Opened {
                            socket: &self.socket,
                            at: self.at,
                            from: *from,
                            host: &self.host,
                        };
                        !flow.is_over(now, self.idle) && flow.is_let_in(&self.shared, &opened)
                    });
                }
            }
        }
    }

    async fn forward(&mut self, packet: &[u8], from: SocketAddr) {
        if !self.shared.datagrams.is_plausible(from) {
            return self.shared.datagrams.refuse();
        }
        // A target that turns the datagram away has a second one after it.
        let mut refused = None;
        for _ in 0..2 {
            let opened = Opened {
                socket: &self.socket,
                at: self.at,
                from,
                host: &self.host,
            };
            if let Some(flow) = self.flows.get_mut(&from)
                && !(is_settled(flow, clock::ticks()) && flow.is_let_in(&self.shared, &opened))
            {
                self.flows.remove(&from);
            }
            if !self.flows.contains_key(&from) && !self.start(from, refused).await {
                return self.shared.datagrams.refuse();
            }
            let Some(flow) = self.flows.get(&from) else { return };
            match flow.send(packet).await {
                Ok(()) => {
                    self.shared
                        .datagrams
                        .bytes
                        .fetch_add(packet.len() as u64, Relaxed);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    flow.failed();
                    refused = Some(flow.target.serial);
                    self.flows.remove(&from);
                }
                // A datagram that is too large, or a network that is not there: lost, as datagrams may be.
                Err(_) => return self.shared.datagrams.refuse(),
            }
        }
    }

    /// Begins a flow, unless there are too many or there is no target.
    async fn start(&mut self, from: SocketAddr, refused: Option<u64>) -> bool {
        let opened = Opened {
            socket: &self.socket,
            at: self.at,
            from,
            host: &self.host,
        };
        if self.shared.datagrams.flows.load(Relaxed) >= FLOWS {
            return false;
        }
        let Ok(source) = Seat::take(&self.sources, || source(from.ip()), self.per_source) else {
            return false;
        };
        // Counted out again by the seat, however the flow ends.
        let seat = flow::Seat::new(&self.shared, source);
        match open(opened, seat, refused, &mut self.readers).await {
            Some(flow) => {
                self.flows.insert(from, flow);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_talks_to_themselves_or_to_everybody() {
        let shared = Arc::new(Shared::default());
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let one = Place::new(&shared, at("192.0.2.1:5000"));
        let _all = Place::new(&shared, at("0.0.0.0:6000"));
        let plausible = |text: &str| shared.datagrams.is_plausible(at(text));
        for bad in [
            "192.0.2.1:5000",
            "198.51.100.9:6000",
            "198.51.100.9:0",
            "0.0.0.0:7",
            "224.0.0.1:7",
            "255.255.255.255:7",
            "[ff02::1]:7",
        ] {
            assert!(!plausible(bad), "{bad}");
        }
        assert!(
            plausible("192.0.2.1:5001") && plausible("198.51.100.9:5000") && plausible("[2001:db8::1]:9")
        );
        drop(one);
        assert!(plausible("192.0.2.1:5000"), "the listener is gone");
    }
}
