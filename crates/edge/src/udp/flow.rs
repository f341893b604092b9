//! One flow: which target it has, the socket towards it, and what comes back.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use model::route::TargetState;
use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
};

use super::{FLOWS_EACH, LARGEST};
use crate::{
    balance::Group,
    clock,
    head::Ask,
    live::Shared,
    quota::{self, Full},
    table::Action,
    target::Target,
    worker::Ends,
};

/// Datagrams of one flow that are taken in one go.
const AT_ONCE: usize = 32;

thread_local! {
    /// Each datagram is in it for as long as it takes to send it on: flows need no room of their own.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

pub struct Flow {
    /// Never used twice: it tells flows of one client apart.
    pub serial: u64,
    pub target: Target,
    group: Group,
    up: Arc<UdpSocket>,
    /// The tick of the last datagram, either way.
    last: Arc<AtomicU64>,
    /// The table whose rule has let it in.
    version: u64,
    reader: AbortHandle,
    _seat: Seat,
}

/// A flow counted at its source, its tenant, its group and its target.
pub struct Seat {
    shared: Arc<Shared>,
    _source: Option<quota::Seat<u128>>,
    tenants: Option<Tenants>,
    at: Option<(Group, Target)>,
}

/// Places among the flows of one tenant, and among all that it has open.
type Tenants = [Option<quota::Seat<Box<str>>>; 2];

/// One more flow of the tenant of this place: not more than half of all, so that another's find room.
fn tenants(shared: &Shared, place: &str) -> Result<Tenants, Full> {
    let tenant = || quota::tenant(place);
    let most = shared.tenant_connections.load(Relaxed);
    let flows = quota::Seat::take(&shared.datagrams.tenants, tenant, FLOWS_EACH)?;
    Ok([flows, quota::Seat::take(&shared.tenants, tenant, most)?])
}

impl Seat {
    /// For a source that has been counted in.
    pub fn new(shared: &Arc<Shared>, source: Option<quota::Seat<u128>>) -> Self {
        shared.datagrams.flows.fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            _source: source,
            tenants: None,
            at: None,
        }
    }

    fn take(&mut self, group: &Group, target: &Target) {
        self.shared.datagrams.opened.fetch_add(1, Relaxed);
        for count in [&target.deeds().requests, &group.counters().requests] {
            count.fetch_add(1, Relaxed);
        }
        for active in [&target.deeds().active, &group.counters().active] {
            active.fetch_add(1, Relaxed);
        }
        self.at = Some((group.clone(), target.clone()));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.datagrams.flows.fetch_sub(1, Relaxed);
        if let Some((group, target)) = &self.at {
            for active in [&target.deeds().active, &group.counters().active] {
                active.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Flow {
    pub fn is_over(&self, now: u64, idle: u64) -> bool {
        self.target.is_gone(now) || self.last.load(Relaxed).saturating_add(idle) <= now
    }

    /// Would the rule of now let it in? That is asked once of each table. Where new ones go changes nothing for it.
    pub fn is_let_in(&mut self, shared: &Shared, opened: &Opened<'_>) -> bool {
        let live = shared.live.load();
        if live.version == self.version {
            return true;
        }
        self.version = live.version;
        let ask = asked(opened);
        let rule = ask.as_ref().and_then(|ask| live.rules.find(ask));
        rule.is_some_and(|rule| {
            matches!(rule.action, Action::Forward(_)) && rule.lets_in(Some(opened.from.ip()))
        })
    }

    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.last.store(clock::ticks(), Relaxed);
        self.up.send(packet).await.map(|_| ())
    }

    /// Its target turned a datagram away.
    pub fn failed(&self) {
        self.target
            .met(true, self.group.policy.ejection.as_ref(), clock::ticks());
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// May the flow stay with its target? One that leaves keeps its flows until its time is over; one that is ill only when
/// there is no better one.
pub fn is_settled(flow: &Flow, now: u64) -> bool {
    let ill = flow.target.state() == TargetState::Unhealthy || flow.target.is_ejected(now);
    let better = ill && flow.group.targets().iter().any(|target| is_well(target, now));
    !flow.target.is_gone(now) && !better
}

fn is_well(target: &Target, now: u64) -> bool {
    target.state() == TargetState::Healthy && !target.is_ejected(now)
}

/// What a new flow is of.
pub struct Opened<'a> {
    pub socket: &'a Arc<UdpSocket>,
    pub at: SocketAddr,
    pub from: SocketAddr,
    pub host: &'a str,
}

/// Begins a flow. `refused` is a target that has just turned the client away.
pub async fn open(
    opened: Opened<'_>,
    mut seat: Seat,
    refused: Option<u64>,
    readers: &mut JoinSet<(SocketAddr, u64)>,
) -> Option<Flow> {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let Chosen {
        group,
        target,
        tenants,
        version,
    } = choose(&seat.shared, &opened, refused)?;
    seat.tenants = Some(tenants);
    let any: SocketAddr = match target.address() {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let up = Arc::new(UdpSocket::bind(any).await.ok()?);
    // From now on the kernel lets nobody in but the target.
    up.connect(target.address()).await.ok()?;
    seat.take(&group, &target);
    let last = Arc::new(AtomicU64::new(clock::ticks()));
    let serial = SERIAL.fetch_add(1, Relaxed);
    let back = Back {
        up: Arc::clone(&up),
        down: Arc::clone(opened.socket),
        from: opened.from,
        last: Arc::clone(&last),
        shared: Arc::clone(&seat.shared),
    };
    let (failed, policy, from) = (target.clone(), Arc::clone(&group.policy), opened.from);
    let reader = readers.spawn(async move {
        back.run().await;
        failed.met(true, policy.ejection.as_ref(), clock::ticks());
        (from, serial)
    });
    Some(Flow {
        serial,
        target,
        group,
        up,
        last,
        version,
        reader,
        _seat: seat,
    })
}

/// The way back.
struct Back {
    up: Arc<UdpSocket>,
    down: Arc<UdpSocket>,
    from: SocketAddr,
    last: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Back {
    /// Until the target turns datagrams away.
    async fn run(self) {
        while self.up.readable().await.is_ok() {
            match ROOM.with_borrow_mut(|room| self.carry(room)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => tokio::task::consume_budget().await,
            }
        }
    }

    fn carry(&self, room: &mut [u8]) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            let length = self.up.try_recv(room)?;
            self.last.store(clock::ticks(), Relaxed);
            self.shared.datagrams.bytes.fetch_add(length as u64, Relaxed);
            // A full socket loses datagrams, as any network may.
            let _ = self.down.try_send_to(&room[..length], self.from);
        }
        Ok(())
    }
}

/// What the rules are asked about a flow; none where its listener is for no host.
fn asked(opened: &Opened<'_>) -> Option<Ask> {
    let ends = Ends {
        peer: opened.from,
        local: opened.at,
        tls: false,
        identity: None,
        connection: None,
        only: None,
    };
    let mut ask = Ask::default();
    ask.start("CONNECT", "", &ends);
    ask.bytes = true;
    ask.name_host(opened.host).then_some(ask)
}

/// What the table says of a new flow.
struct Chosen {
    group: Group,
    target: Target,
    tenants: Tenants,
    /// The table's.
    version: u64,
}

/// The client's target: a group by weight, then one of its healthy targets, both by a hash of the client. A target that
/// comes or goes moves only its own clients. When none is healthy, any of them.
fn choose(shared: &Shared, opened: &Opened<'_>, refused: Option<u64>) -> Option<Chosen> {
    let ask = asked(opened)?;
    let live = shared.live.load();
    let rule = live.rules.find(&ask).filter(|rule| rule.lets_in(ask.peer))?;
    rule.hit();
    let Action::Forward(weights) = &rule.action else {
        return None;
    };
    let total: u64 = weights.weighted().map(|(weight, _)| u64::from(weight)).sum();
    let mut place = hash(&(opened.from, opened.at.port())).checked_rem(total)?;
    let group = weights.weighted().find(|(weight, _)| {
        let weight = u64::from(*weight);
        let here = place < weight;
        place = place.saturating_sub(weight);
        here
    });
    let (_, group) = group?;
    if group.sleeps() {
        // Datagrams do not wait: who sent this one sends it again, as for any that is lost.
        shared.wanted.note(rule.place());
        return None;
    }
    let now = clock::ticks();
    let best = |fits: &dyn Fn(&Target) -> bool| {
        let fitting = group
            .targets()
            .iter()
            .filter(|target| Some(target.serial) != refused && fits(target));
        fitting.max_by_key(|target| hash(&(opened.from, target.id())))
    };
    let target = best(&|target| is_well(target, now)).or_else(|| {
        group.counters().panics.fetch_add(1, Relaxed);
        best(&|target| !target.is_leaving())
    })?;
    let tenants = tenants(shared, rule.place());
    let tenants = tenants.inspect_err(|Full| _ = shared.totals.limited.fetch_add(1, Relaxed));
    Some(Chosen {
        group: group.clone(),
        target: target.clone(),
        tenants: tenants.ok()?,
        version: live.version,
    })
}

/// The same in every process.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_all_flows_is_left_to_others() {
        let shared = Shared::default();
        let of = |place: &str| tenants(&shared, place);
        assert_eq!(u64::from(FLOWS_EACH) * 2, super::super::FLOWS);
        let mut held: Vec<_> = (0..FLOWS_EACH).map(|_| of("one/game/dev").unwrap()).collect();
        assert!(of("one/chat/dev").is_err() && of("other/game/dev").is_ok());
        held.pop();
        assert!(of("one/chat/dev").is_ok());
        // What may be open of all kinds together is less.
        shared.tenant_connections.store(1, Relaxed);
        let only = of("other/game/dev");
        assert!(only.is_ok() && of("other/chat/dev").is_err());
    }
}
