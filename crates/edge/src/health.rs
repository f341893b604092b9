//! Asks every target whether it is well. One thread, so that a change of the table never waits for a hundred thousand
//! probes; what it finds is read by `balance`.

mod grpc;
mod http1;
mod http2;
mod queue;

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::route::{HealthProtocol, Protocol, TargetGroup, TargetState};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use self::queue::{Due, Queue, Seat};
use crate::{away::Trust, clock, live::Shared, target::Target, wake::Wanted};

/// Probes under way at the same time.
const PARALLEL: usize = 256;
/// A target that is not yet known is asked this often at first, in ms, so that a new host serves as soon as it can; and
/// then whenever its age has grown by the `PART`th part. Where somebody waits for it, it is asked more often.
const EARLY: u64 = 100;
const EAGER: u64 = 10;
const PART: u64 = 8;

/// Targets to be asked from now on, each in the way that it says, and their groups, as the book knows them.
pub type Admissions = Vec<(Target, u64)>;

/// Why a target is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It did not answer within so many ms.
    Late(u32),
    Refused,
    /// The answer is not what the health check speaks.
    Nonsense,
    Closed,
    Status(u16),
    /// An error of the system.
    System(i32),
    Other,
}

impl Why {
    /// In 32 bits, because every target has one: a kind and its number.
    pub fn pack(why: Option<Self>) -> u32 {
        let (kind, number) = match why {
            None => (0, 0),
            Some(Self::Late(ms)) => (1, ms),
            Some(Self::Refused) => (2, 0),
            Some(Self::Nonsense) => (3, 0),
            Some(Self::Closed) => (4, 0),
            Some(Self::Status(status)) => (5, status.into()),
            Some(Self::System(code)) => (6, code.unsigned_abs()),
            Some(Self::Other) => (7, 0),
        };
        kind << 24 | number.min(0xff_ffff)
    }

    pub fn unpack(bits: u32) -> Option<Self> {
        let number = bits & 0xff_ffff;
        match bits >> 24 {
            1 => Some(Self::Late(number)),
            2 => Some(Self::Refused),
            3 => Some(Self::Nonsense),
            4 => Some(Self::Closed),
            5 => Some(Self::Status(u16::try_from(number).unwrap_or_default())),
            6 => Some(Self::System(i32::try_from(number).unwrap_or_default())),
            7 => Some(Self::Other),
            _ => None,
        }
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => Self::Refused,
            (io::ErrorKind::InvalidData, _) => Self::Nonsense,
            (io::ErrorKind::UnexpectedEof, _) => Self::Closed,
            (_, Some(code)) => Self::System(code),
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(ms) => write!(f, "no answer within {ms} ms"),
            Self::Refused => f.write_str("connection refused"),
            Self::Nonsense => f.write_str("the answer is not what the health check speaks"),
            Self::Closed => f.write_str("the connection was closed without an answer"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::System(code) => io::Error::from_raw_os_error(*code).fmt(f),
            Self::Other => f.write_str("it cannot be asked"),
        }
    }
}

/// Starts the thread. It ends when nobody can admit targets any more.
pub fn start(admissions: mpsc::UnboundedReceiver<Admissions>, shared: Arc<Shared>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("edge-health".into())
        .spawn(move || runtime.block_on(run(admissions, &shared, PARALLEL)))
        .map(|_| ())
}

/// Probes, so many at the same time, until nobody can admit targets any more.
async fn run(mut admissions: mpsc::UnboundedReceiver<Admissions>, shared: &Arc<Shared>, most: usize) {
    let mut queue = Queue::new(most);
    let (mut probes, mut teller) = (JoinSet::new(), Teller::default());
    loop {
        let next = ask_due(&mut queue, &mut probes, shared);
        tokio::select! {
            admitted = admissions.recv() => match admitted {
                Some(admitted) => {
                    queue.make_room(admitted.len());
                    for (target, group) in admitted {
                        queue.push(admit(target, group));
                    }
                }
                None => return,
            },
            Some(found) = probes.join_next() => {
                if let Ok((due, policy, result, _seat)) = found && due.stands() {
                    let before = due.target.state();
                    let next = learn(&due.target, &policy, result, clock::ticks(), &shared.wanted);
                    if due.target.state() != before {
                        teller.tell(&due.target, shared);
                    }
                    queue.push(due.at(next));
                }
            }
            () = tokio::time::sleep(Duration::from_millis(next)) => {}
        }
    }
}

fn admit(target: Target, group: u64) -> Due {
    let tick = clock::ticks();
    for streak in [&target.good, &target.bad] {
        streak.store(0, Relaxed);
    }
    if target.state() == TargetState::Initial {
        target.begin(tick);
    }
    Due::new(target, group, tick)
}

/// A target, how it was asked, and what came of it.
type Probed = (Due, Arc<TargetGroup>, Result<(), Why>, Seat);

/// Starts the probes that are due, as many as may run, and says in how many ms to look again.
fn ask_due(queue: &mut Queue, probes: &mut JoinSet<Probed>, shared: &Arc<Shared>) -> u64 {
    let now = clock::ticks();
    let tenant = |due: &Due| shared.book().tenant_of(due.group);
    while let Some((due, seat)) = queue.next(now, tenant) {
        let Some(policy) = due.target.policy() else {
            continue;
        };
        let shared = Arc::clone(shared);
        probes.spawn(async move {
            let mut address = due.target.address();
            address.set_port(policy.health.port.unwrap_or(address.port()));
            let result = probe(address, &policy, &shared.away).await;
            (due, policy, result, seat)
        });
    }
    // The end of a probe or a change of the table comes first.
    queue.wait(now).unwrap_or(3_600_000)
}

/// What a probe says, and to whom. Returns the tick of the next one.
fn learn(target: &Target, policy: &TargetGroup, result: Result<(), Why>, now: u64, wanted: &Wanted) -> u64 {
    let before = target.state();
    let next = judge(target, policy, result, now);
    // Whether somebody waits for it may have changed since it was asked: that is for those who wait to say.
    if target.state() == TargetState::Healthy && before != TargetState::Healthy {
        wanted.stir();
    }
    next
}

/// As ALB: a new target is healthy after one success; after that it takes as many in a row as are asked for, either way.
/// A new target that does not answer stays new for as long as `unhealthy` probes at full interval would take: until then
/// it is most likely only starting. Returns the tick of the next probe.
fn judge(target: &Target, policy: &TargetGroup, result: Result<(), Why>, now: u64) -> u64 {
    let check = &policy.health;
    let interval = clock::signed(check.interval);
    let state = target.state();
    let (up, down) = match result {
        Ok(()) => (&target.good, &target.bad),
        Err(_) => (&target.bad, &target.good),
    };
    let streak = u32::from(up.load(Relaxed)) + 1;
    up.store(streak.min(255) as u8, Relaxed);
    down.store(0, Relaxed);
    let age = now.saturating_sub(target.since());
    let next = match (&result, state) {
        (_, TargetState::Draining) => state,
        (Ok(()), TargetState::Initial) => TargetState::Healthy,
        (Ok(()), TargetState::Unhealthy) if streak >= check.healthy => TargetState::Healthy,
        (Err(_), TargetState::Healthy) if streak >= check.unhealthy => TargetState::Unhealthy,
        (Err(_), TargetState::Initial) if age >= interval.saturating_mul(check.unhealthy.into()) => {
            TargetState::Unhealthy
        }
        _ => state,
    };
    if next != state && next == TargetState::Healthy {
        target.begin(now);
    }
    if next != TargetState::Draining {
        target.judge(next, result.err());
    }
    now + match next {
        TargetState::Initial if policy.waking => interval.min(EAGER.max(age / PART)),
        TargetState::Initial => interval.min(EARLY.max(age / PART)),
        // Those that came together part here, so that their probes are spread over the interval.
        _ if state == TargetState::Initial => interval * (target.serial.wrapping_mul(619) % 1000 + 1) / 1000,
        _ => interval,
    }
}

/// Says in the log how targets become. A target does not know its group, and to look it up among a hundred thousand
/// takes a while: that is done for so many in a second, and the others are named without it.
#[derive(Default)]
struct Teller {
    second: u64,
    told: u32,
}

impl Teller {
    const EACH_SECOND: u32 = 10;

    fn tell(&mut self, target: &Target, shared: &Shared) {
        let second = clock::ticks() / 1000;
        if std::mem::replace(&mut self.second, second) != second {
            self.told = 0;
        }
        self.told += 1;
        let group = match self.told <= Self::EACH_SECOND {
            true => shared.book().group_of(target),
            false => None,
        };
        let group = group.as_ref().map(|group| group.name());
        let of = group.map(|group| format!(" of {group}")).unwrap_or_default();
        let (id, address) = (target.id(), target.address());
        match target.state() {
            TargetState::Healthy => {
                tracing::info!(group, target.id = %id, %address, "target {id}{of} is healthy");
            }
            TargetState::Unhealthy => {
                let reason = target.why().map(|why| why.to_string()).unwrap_or_default();
                tracing::warn!(group, target.id = %id, %address, reason, "target {id}{of} is not healthy: {reason}");
            }
            TargetState::Initial | TargetState::Draining => {}
        }
    }
}

async fn probe(address: std::net::SocketAddr, policy: &TargetGroup, away: &Trust) -> Result<(), Why> {
    let check = &policy.health;
    let limit = check.timeout.unsigned_abs();
    let asked = async {
        if let Some(name) = &policy.away {
            let stream = away.connect(name, address.port()).await?;
            return http1::ask(stream, name, &check.path).await.map(Some);
        }
        match check.protocol {
            // As ALB: in the version that the target gets its requests in.
            HealthProtocol::Http if policy.protocol != Protocol::Http1 => {
                http2::ask(address, &check.path).await.map(Some)
            }
            HealthProtocol::Http => {
                let stream = TcpStream::connect(address).await?;
                let host = address.to_string();
                http1::ask(stream, &host, &check.path).await.map(Some)
            }
            HealthProtocol::Tcp => TcpStream::connect(address).await.map(|_| None),
            HealthProtocol::Grpc => grpc::ask(address, &check.path).await.map(Some),
        }
    };
    let status = tokio::time::timeout(limit, asked)
        .await
        .map_err(|_| Why::Late(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)))??;
    let Some(status) = status else { return Ok(()) };
    match check
        .codes
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&status))
    {
        true => Ok(()),
        false => Err(Why::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use model::route::HealthCheck;

    use super::*;

    fn target() -> (Target, TargetGroup) {
        let spec = model::route::Target {
            id: "h-1".into(),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let check = HealthCheck {
            interval: jiff::SignedDuration::from_secs(5),
            healthy: 2,
            unhealthy: 3,
            ..HealthCheck::default()
        };
        let policy = TargetGroup {
            health: check,
            ..TargetGroup::default()
        };
        (Target::new(&spec), policy)
    }

    #[test]
    fn reasons_survive_their_packing() {
        for why in [
            Why::Late(5000),
            Why::Refused,
            Why::Nonsense,
            Why::Closed,
            Why::Status(503),
            Why::System(113),
            Why::Other,
        ] {
            assert_eq!(Why::unpack(Why::pack(Some(why))), Some(why));
        }
        assert_eq!(Why::unpack(Why::pack(None)), None);
        assert_eq!(
            Why::System(113).to_string(),
            io::Error::from_raw_os_error(113).to_string()
        );
    }

    #[test]
    fn thresholds_count_in_a_row() {
        use TargetState::{Healthy, Initial, Unhealthy};
        let (target, policy) = target();
        for (at, good, expected) in [
            (0, false, Initial),
            (1, true, Healthy),
            (6, false, Healthy),
            (11, false, Healthy),
            (16, true, Healthy),
            (21, false, Healthy),
            (26, false, Healthy),
            (31, false, Unhealthy),
            (36, true, Unhealthy),
            (41, false, Unhealthy),
            (46, true, Unhealthy),
            (51, true, Healthy),
        ] {
            let result = if good { Ok(()) } else { Err(Why::Status(500)) };
            judge(&target, &policy, result, at * 1000);
            assert_eq!(target.state(), expected, "at {at}");
        }
    }

    #[test]
    fn a_new_target_is_asked_less_and_less_often() {
        let (target, policy) = target();
        let wait = |at| judge(&target, &policy, Err(Why::Refused), at) - at;
        assert_eq!(
            [0, 500, 1_000, 8_000, 14_000].map(wait),
            [100, 100, 125, 1_000, 1_750]
        );
        // Sooner where somebody waits for it.
        let waking = TargetGroup {
            waking: true,
            ..policy.clone()
        };
        let wait = |at| judge(&target, &waking, Err(Why::Refused), at) - at;
        assert_eq!([0, 500, 8_000].map(wait), [10, 62, 1_000]);
        // And never less often than a known one.
        let mut slow = policy;
        slow.health.interval = jiff::SignedDuration::from_secs(300);
        assert_eq!(
            judge(&target, &slow, Err(Why::Refused), 500_000) - 500_000,
            62_500
        );
    }

    #[tokio::test]
    async fn who_waits_is_told_when_a_target_becomes_healthy_and_only_then() {
        let (target, policy) = target();
        assert!(!policy.waking, "it slept only later");
        let wanted = Wanted::default();
        for (at, good, told) in [
            (0, false, false),
            (1, true, true),
            (6, true, false),
            (11, false, false),
        ] {
            let mut stirred = std::pin::pin!(wanted.stirred());
            stirred.as_mut().enable();
            let result = if good { Ok(()) } else { Err(Why::Refused) };
            learn(&target, &policy, result, at * 1000, &wanted);
            let heard = tokio::time::timeout(Duration::ZERO, stirred).await.is_ok();
            assert_eq!(heard, told, "at {at}");
        }
    }

    #[test]
    fn a_target_that_never_answers_is_unhealthy_in_the_end() {
        let (target, policy) = target();
        judge(&target, &policy, Err(Why::Refused), 14_000);
        assert_eq!(target.state(), TargetState::Initial);
        judge(&target, &policy, Err(Why::Refused), 15_000);
        assert_eq!(target.seen("g").state, TargetState::Unhealthy);
        assert_eq!(target.seen("g").reason.as_deref(), Some("connection refused"));
    }

    #[tokio::test]
    async fn targets_that_hang_keep_no_other_tenants_waiting() {
        other_is_asked(true).await;
    }

    #[tokio::test]
    async fn nor_those_whose_first_release_does_not_serve_yet() {
        other_is_asked(false).await;
    }

    /// One tenant's twenty targets hang, and then another's comes; rules forward to both or to neither.
    async fn other_is_asked(forwarded: bool) {
        let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let group = |count, address, protocol| TargetGroup {
            targets: (0..count)
                .map(|n| model::route::Target {
                    id: format!("h-{n}"),
                    address,
                })
                .collect(),
            health: HealthCheck {
                protocol,
                timeout: jiff::SignedDuration::from_secs(120),
                ..HealthCheck::default()
            },
            ..TargetGroup::default()
        };
        let groups = [
            (
                "one/shop/dev/v1",
                group(20, hanging.local_addr().unwrap(), HealthProtocol::Http),
            ),
            (
                "two/shop/dev/v1",
                group(1, well.local_addr().unwrap(), HealthProtocol::Tcp),
            ),
        ];
        let rule = |group: &str| model::route::Rule {
            priority: if group.starts_with("one") { 1 } else { 2 },
            place: group.trim_end_matches("/v1").parse().unwrap(),
            hosts: vec!["shop.test".into()],
            paths: Vec::new(),
            conditions: model::route::Conditions::default(),
            transforms: model::route::Transforms::default(),
            access: Vec::new(),
            authenticate: None,
            own: model::route::Own::default(),
            action: model::route::Action::Forward {
                groups: vec![model::route::Weighted {
                    group: group.into(),
                    weight: 1,
                }],
                stickiness: None,
            },
        };
        let table = model::route::Delta {
            version: 1,
            rules: match forwarded {
                true => groups.each_ref().map(|(name, _)| rule(name)).into(),
                false => Vec::new(),
            },
            target_groups: groups.map(|(name, group)| (name.to_owned(), group)).into(),
            ..model::route::Delta::default()
        };
        let shared = Arc::new(Shared::default());
        let mut probed = shared.book().apply(&table, 0).probed;
        let other = probed.pop().unwrap();
        let (prober, admissions) = mpsc::unbounded_channel();
        let probing = Arc::clone(&shared);
        let running = tokio::spawn(async move { run(admissions, &probing, 8).await });
        prober.send(probed).unwrap();
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(hanging.accept().await.unwrap());
        }
        prober.send(vec![other.clone()]).unwrap();
        let healthy = async {
            while other.0.state() != TargetState::Healthy {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let met = tokio::time::timeout(Duration::from_secs(20), healthy).await;
        assert!(met.is_ok(), "it was not asked");
        running.abort();
    }
}
