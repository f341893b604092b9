//! Asks every target whether it is well. One task; what it finds is read by `balance`.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use model::route::{HealthCheck, TargetState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::{balance::Target, live::Shared};

/// Probes under way at the same time.
const PARALLEL: usize = 256;
/// A target that is not yet known is asked this often, so that a new host serves as soon as it can.
const EAGER: Duration = Duration::from_millis(200);
/// Bytes of an answer that are looked at for its status.
const HEAD: usize = 1024;

/// What is remembered of one target between two probes.
struct Patient {
    target: Arc<Target>,
    check: Arc<HealthCheck>,
    since: Instant,
    due: Instant,
    good: u32,
    bad: u32,
    asked: bool,
}

/// The end of one probe: the target's serial and what was wrong.
type Finding = (u64, Result<(), String>);

/// Who is due, soonest first. An entry whose time is not its patient's is left over and means nothing.
type Queue = BinaryHeap<Reverse<(Instant, u64)>>;

/// Probes until it is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut patients: HashMap<u64, Patient> = HashMap::new();
    let mut queue = Queue::new();
    let mut probes: JoinSet<Finding> = JoinSet::new();
    admit(&shared, &mut patients, &mut queue);
    loop {
        let next = ask_due(&mut patients, &mut queue, &mut probes);
        tokio::select! {
            () = shared.changed.notified() => admit(&shared, &mut patients, &mut queue),
            Some(found) = probes.join_next() => {
                if let Ok((serial, result)) = found
                    && let Some(patient) = patients.get_mut(&serial)
                {
                    patient.judge(result, Instant::now());
                    queue.push(Reverse((patient.due, serial)));
                }
            }
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// Starts the probes that are due, as many as may run, and says when to look again.
fn ask_due(
    patients: &mut HashMap<u64, Patient>,
    queue: &mut Queue,
    probes: &mut JoinSet<Finding>,
) -> Instant {
    let now = Instant::now();
    while let Some(Reverse((due, serial))) = queue.peek().copied() {
        if due > now {
            return due;
        }
        if probes.len() >= PARALLEL {
            break;
        }
        queue.pop();
        let Some(patient) = patients.get_mut(&serial).filter(|p| p.due == due && !p.asked) else {
            continue;
        };
        patient.asked = true;
        let (address, check) = (patient.target.spec.address, Arc::clone(&patient.check));
        probes.spawn(async move { (serial, probe(address, &check).await) });
    }
    // The end of a probe or a change of the table comes first.
    now + Duration::from_secs(3600)
}

/// Takes over who is in the table now.
fn admit(shared: &Shared, patients: &mut HashMap<u64, Patient>, queue: &mut Queue) {
    let live = shared.live.load_full();
    let mut present = HashSet::new();
    for group in live.groups.values() {
        for target in &group.targets {
            present.insert(target.serial);
            // One that has succeeded before and is new has left and come back.
            let known = patients
                .get_mut(&target.serial)
                .filter(|patient| patient.good == 0 || target.state() != TargetState::Initial);
            if let Some(patient) = known {
                patient.check = Arc::clone(&group.health);
            } else {
                let patient = Patient::new(Arc::clone(target), &group.health);
                queue.push(Reverse((patient.due, target.serial)));
                patients.insert(target.serial, patient);
            }
        }
    }
    patients.retain(|serial, _| present.contains(serial));
}

impl Patient {
    fn new(target: Arc<Target>, check: &Arc<HealthCheck>) -> Self {
        Self {
            target,
            check: Arc::clone(check),
            since: Instant::now(),
            due: Instant::now(),
            good: 0,
            bad: 0,
            asked: false,
        }
    }

    /// As ALB: a new target is healthy after one success; after that it takes as many in a row as are asked for, either
    /// way. A new target that does not answer stays new for as long as `unhealthy` probes at full interval would take:
    /// until then it is most likely only starting.
    fn judge(&mut self, result: Result<(), String>, now: Instant) {
        self.asked = false;
        let interval = self.check.interval.unsigned_abs();
        let state = self.target.state();
        match &result {
            Ok(()) => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            Err(_) => (self.good, self.bad) = (0, self.bad.saturating_add(1)),
        }
        let next = match (&result, state) {
            (_, TargetState::Draining) => state,
            (Ok(()), TargetState::Initial) => TargetState::Healthy,
            (Ok(()), TargetState::Unhealthy) if self.good >= self.check.healthy => TargetState::Healthy,
            (Err(_), TargetState::Healthy) if self.bad >= self.check.unhealthy => TargetState::Unhealthy,
            (Err(_), TargetState::Initial) if now - self.since >= interval * self.check.unhealthy => {
                TargetState::Unhealthy
            }
            _ => state,
        };
        if next != state {
            let (id, reason) = (&self.target.spec.id, result.as_ref().err());
            tracing::info!(target.id = %id, state = ?next, ?reason, "health of a target changed");
        }
        if next != TargetState::Draining {
            self.target.judge(next, result.err());
        }
        self.due = now
            + match next {
                TargetState::Initial => interval.min(EAGER),
                // Those that came together part here, so that their probes are spread over the interval.
                _ if state == TargetState::Initial => interval.mul_f64(share(self.target.serial)),
                _ => interval,
            };
    }
}

/// A part of the whole, in (0, 1], that differs between neighbours.
fn share(serial: u64) -> f64 {
    (serial.wrapping_mul(619) % 1000 + 1) as f64 / 1000.0
}

async fn probe(address: std::net::SocketAddr, check: &HealthCheck) -> Result<(), String> {
    let limit = check.timeout.unsigned_abs();
    let status = tokio::time::timeout(limit, ask(address, &check.path))
        .await
        .map_err(|_| format!("no answer within {} ms", limit.as_millis()))?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::InvalidData => "the answer is not HTTP".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
            _ => error.to_string(),
        })?;
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

    fn patient() -> Patient {
        let spec = model::route::Target {
            id: "h-1".into(),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let check = HealthCheck {
            path: "/".into(),
            interval: jiff::SignedDuration::from_secs(5),
            timeout: jiff::SignedDuration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
            codes: vec![(200, 299)],
        };
        Patient::new(Arc::new(Target::new(spec)), &Arc::new(check))
    }

    #[test]
    fn thresholds_count_in_a_row() {
        use TargetState::{Healthy, Initial, Unhealthy};
        let mut patient = patient();
        let start = patient.since;
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
            patient.judge(result, start + Duration::from_secs(at));
            assert_eq!(patient.target.state(), expected, "at {at}");
        }
    }

    #[test]
    fn a_target_that_never_answers_is_unhealthy_in_the_end() {
        let mut patient = patient();
        let start = patient.since;
        patient.judge(Err("connection refused".into()), start + Duration::from_secs(14));
        assert_eq!(patient.target.state(), TargetState::Initial);
        patient.judge(Err("connection refused".into()), start + Duration::from_secs(15));
        assert_eq!(patient.target.seen("g").state, TargetState::Unhealthy);
        assert_eq!(
            patient.target.seen("g").reason.as_deref(),
            Some("connection refused")
        );
    }
}
