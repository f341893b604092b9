//! Asks every target whether it is well. One task; what it finds is read by `balance`.

mod grpc;

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::route::{HealthCheck, HealthProtocol, TargetGroup, TargetState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

use crate::{clock, target::Target};

/// Probes under way at the same time.
const PARALLEL: usize = 256;
/// A target that is not yet known is asked this often, in ms, so that a new host serves as soon as it can.
const EAGER: u64 = 200;
/// Bytes of an answer that are looked at for its status.
const HEAD: usize = 1024;

/// Targets to be asked from now on, each in the way that its group says.
pub type Admissions = Vec<(Arc<Target>, Arc<TargetGroup>)>;

/// When a target is to be asked next. One that has been admitted again since means nothing.
struct Due {
    tick: u64,
    target: Arc<Target>,
    policy: Arc<TargetGroup>,
    admission: u32,
}

impl Ord for Due {
    /// The greatest is the one that is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.tick.cmp(&self.tick)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.tick == other.tick
    }
}

impl Eq for Due {}

impl Due {
    fn stands(&self) -> bool {
        !self.target.is_leaving() && self.target.admission.load(Relaxed) == self.admission
    }
}

/// Probes until it is dropped.
pub async fn run(mut admissions: mpsc::UnboundedReceiver<Admissions>) {
    let mut queue = BinaryHeap::new();
    let mut probes = JoinSet::new();
    loop {
        let next = ask_due(&mut queue, &mut probes);
        tokio::select! {
            admitted = admissions.recv() => match admitted {
                Some(admitted) => queue.extend(admitted.into_iter().map(admit)),
                None => return,
            },
            Some(found) = probes.join_next() => {
                if let Ok((mut due, result)) = found && Due::stands(&due) {
                    due.tick = judge(&due.target, &due.policy.health, result, clock::ticks());
                    queue.push(due);
                }
            }
            () = tokio::time::sleep(Duration::from_millis(next)) => {}
        }
    }
}

fn admit((target, policy): (Arc<Target>, Arc<TargetGroup>)) -> Due {
    let tick = clock::ticks();
    for streak in [&target.good, &target.bad] {
        streak.store(0, Relaxed);
    }
    if target.state() == TargetState::Initial {
        target.since.store(tick, Relaxed);
    }
    Due {
        tick,
        admission: target.admission.fetch_add(1, Relaxed).wrapping_add(1),
        target,
        policy,
    }
}

/// Starts the probes that are due, as many as may run, and says in how many ms to look again.
fn ask_due(queue: &mut BinaryHeap<Due>, probes: &mut JoinSet<(Due, Result<(), String>)>) -> u64 {
    let now = clock::ticks();
    while let Some(next) = queue.peek() {
        if next.tick > now {
            return next.tick - now;
        }
        if probes.len() >= PARALLEL {
            break;
        }
        let Some(due) = queue.pop().filter(Due::stands) else {
            continue;
        };
        probes.spawn(async move {
            let mut address = due.target.address;
            address.set_port(due.policy.health.port.unwrap_or(address.port()));
            let result = probe(address, &due.policy.health).await;
            (due, result)
        });
    }
    // The end of a probe or a change of the table comes first.
    3_600_000
}

/// As ALB: a new target is healthy after one success; after that it takes as many in a row as are asked for, either way.
/// A new target that does not answer stays new for as long as `unhealthy` probes at full interval would take: until then
/// it is most likely only starting. Returns the tick of the next probe.
fn judge(target: &Target, check: &HealthCheck, result: Result<(), String>, now: u64) -> u64 {
    let interval = clock::signed(check.interval);
    let state = target.state();
    let (up, down) = match result {
        Ok(()) => (&target.good, &target.bad),
        Err(_) => (&target.bad, &target.good),
    };
    let streak = u32::from(up.load(Relaxed)) + 1;
    up.store(streak.min(255) as u8, Relaxed);
    down.store(0, Relaxed);
    let age = now.saturating_sub(target.since.load(Relaxed));
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
    if next != state {
        let (id, reason) = (target.id(), result.as_ref().err());
        tracing::info!(target.id = %id, state = ?next, ?reason, "health of a target changed");
        if next == TargetState::Healthy {
            target.since.store(now, Relaxed);
        }
    }
    if next != TargetState::Draining {
        target.judge(next, result.err());
    }
    now + match next {
        TargetState::Initial => interval.min(EAGER),
        // Those that came together part here, so that their probes are spread over the interval.
        _ if state == TargetState::Initial => interval * (target.serial.wrapping_mul(619) % 1000 + 1) / 1000,
        _ => interval,
    }
}

async fn probe(address: std::net::SocketAddr, check: &HealthCheck) -> Result<(), String> {
    let limit = check.timeout.unsigned_abs();
    let asked = async {
        match check.protocol {
            HealthProtocol::Http => ask(address, &check.path).await.map(Some),
            HealthProtocol::Tcp => TcpStream::connect(address).await.map(|_| None),
            HealthProtocol::Grpc => grpc::ask(address, &check.path).await.map(Some),
        }
    };
    let status = tokio::time::timeout(limit, asked)
        .await
        .map_err(|_| format!("no answer within {} ms", limit.as_millis()))?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::InvalidData => "the answer is not what the health check speaks".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
            _ => error.to_string(),
        })?;
    let Some(status) = status else { return Ok(()) };
    match check
        .codes
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&status))
    {
        true => Ok(()),
        false => Err(format!("status {status}")),
    }
}

/// The status of the answer to one GET on a connection of its own.
async fn ask(address: std::net::SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: vend-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut length) = ([0; HEAD], 0);
    loop {
        match stream.read(&mut head[length..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
        if let Some(status) = status_of(&head[..length])? {
            return Ok(status);
        }
    }
}

/// The status, once the first line is there.
fn status_of(head: &[u8]) -> std::io::Result<Option<u16>> {
    let nonsense = || std::io::ErrorKind::InvalidData.into();
    let Some(end) = head.iter().position(|b| *b == b'\n') else {
        return match head.len() {
            HEAD => Err(nonsense()),
            _ => Ok(None),
        };
    };
    let line = str::from_utf8(&head[..end]).map_err(|_| nonsense())?;
    let mut words = line.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().filter(|word| word.len() == 3);
    match (version, status.and_then(|status| status.parse().ok())) {
        (Some(_), Some(status)) => Ok(Some(status)),
        _ => Err(nonsense()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_once_their_line_is_there() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(Some(200))),
            ("HTTP/1.0 404 Not Found\n", Some(Some(404))),
            ("HTTP/1.1 20", Some(None)),
            ("", Some(None)),
            ("SSH-2.0-x\r\n", None),
            ("HTTP/1.1 abc\r\n", None),
            ("HTTP/1.1\r\n", None),
        ] {
            assert_eq!(status_of(head.as_bytes()).ok(), expected, "{head:?}");
        }
    }

    fn target() -> (Target, HealthCheck) {
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
        (Target::new(&spec), check)
    }

    #[test]
    fn thresholds_count_in_a_row() {
        use TargetState::{Healthy, Initial, Unhealthy};
        let (target, check) = target();
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
            let result = if good {
                Ok(())
            } else {
                Err("status 500".to_owned())
            };
            judge(&target, &check, result, at * 1000);
            assert_eq!(target.state(), expected, "at {at}");
        }
    }

    #[test]
    fn a_target_that_never_answers_is_unhealthy_in_the_end() {
        let (target, check) = target();
        judge(&target, &check, Err("connection refused".into()), 14_000);
        assert_eq!(target.state(), TargetState::Initial);
        judge(&target, &check, Err("connection refused".into()), 15_000);
        assert_eq!(target.seen("g").state, TargetState::Unhealthy);
        assert_eq!(target.seen("g").reason.as_deref(), Some("connection refused"));
    }
}
