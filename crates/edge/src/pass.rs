//! Connections that pass through as bytes: to the target group of the rule for one host, or for the host that a TLS
//! client names.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Instant};

use model::route::ProxyWord;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

use crate::{
    balance::Group,
    head::Ask,
    http1::tunnel,
    link::{Buffer, Stream},
    proxy,
    quota::{Full, Seat},
    table::Action,
    target::Target,
    wake,
    worker::{Ends, Watched, Worker},
};

/// Attempts at different targets.
const ATTEMPTS: usize = 4;

/// Carries one connection to its end.
pub async fn through(worker: &Rc<Worker>, client: &Watched, ends: Box<Ends>, host: Option<&str>) {
    let mut input = worker.buffers.take();
    let own = host.is_some();
    let host = match host {
        Some(host) => Some(host.to_owned()),
        None => named(worker, client, &mut input).await,
    };
    let mut ask = Ask::default();
    ask.start("CONNECT", "", &ends);
    ask.bytes = own;
    if host.is_some_and(|host| ask.name_host(&host)) {
        let passed = match enter(worker, &ask) {
            Ok(_seat) => carry(worker, client, &ends, &ask, &mut input).await,
            Err(status) => (status, 0),
        };
        tell(worker, &ask, passed);
    } else {
        worker.shared.totals.refused.fetch_add(1, Relaxed);
    }
    worker.buffers.give(input);
}

/// What has come of a connection: the number that a request would have been answered with, and bytes for the client.
type Passed = (u16, u64);

/// Counts it at its rule: the one of now, for a connection may last longer than its table.
fn tell(worker: &Worker, ask: &Ask, (status, bytes): Passed) {
    if let Some(rule) = worker.shared.live.load().rules.find(ask) {
        rule.answered(status, bytes);
    }
}

/// A place among what the tenant of its rule has under way, or why there is none.
fn enter(worker: &Worker, ask: &Ask) -> Result<Option<Seat<Box<str>>>, u16> {
    let live = worker.shared.live.load();
    let Some(rule) = live.rules.find(ask) else {
        worker.shared.totals.unmatched.fetch_add(1, Relaxed);
        return Err(503);
    };
    if !rule.lets_in(ask.peer) {
        return Err(403);
    }
    rule.hit();
    worker.tenant_seat(rule).map_err(|Full| 429)
}

/// To a target and back.
async fn carry(worker: &Rc<Worker>, client: &Watched, ends: &Ends, ask: &Ask, input: &mut Buffer) -> Passed {
    let mut tried = Vec::new();
    // What comes meanwhile waits in the kernel.
    while wake::until_awake(worker, ask, worker.limits().wake).await {
        let Some(group) = choose(worker, ask) else {
            break;
        };
        let zone = worker.shared.zone.get().map(String::as_str);
        let target = group.pick_near(zone, &tried, None, worker.tick());
        let Some(target) = target.filter(|_| tried.len() < ATTEMPTS) else {
            group.counters().failures.fetch_add(1, Relaxed);
            return (if tried.is_empty() { 503 } else { 502 }, 0);
        };
        let connecting = TcpStream::connect(target.address());
        let connected = tokio::time::timeout(worker.limits().connect, connecting).await;
        match connected {
            Ok(Ok(_)) if target.is_leaving() => {}
            Ok(Ok(stream)) => {
                let up = worker.register(Stream::Tcp(stream), Some(target.clone()));
                return join(worker, (client, input), (&up, &group, target), ends).await;
            }
            _ => {
                target.met_in(&group, true, worker.tick());
                tried.push(target.serial);
            }
        }
    }
    (503, 0)
}

/// Carries both ways, after the word of a proxy where the group wants one.
async fn join(
    worker: &Rc<Worker>,
    (client, input): (&Watched, &mut Buffer),
    (up, group, target): (&Watched, &Group, &Target),
    ends: &Ends,
) -> Passed {
    let started = Instant::now();
    let _flow = Flow::new(group, target);
    let word = match group.policy.proxy {
        None => Vec::new(),
        Some(ProxyWord::V1) => proxy::write_first(ends.peer, ends.local),
        Some(ProxyWord::V2) => proxy::write_second(ends.peer, ends.local),
    };
    let until = worker.after(worker.limits().upstream);
    if up.link.write_until(&word, until).await.is_err() {
        target.met_in(group, true, worker.tick());
        group.counters().failures.fetch_add(1, Relaxed);
        return (502, 0);
    }
    target.met(false, None, worker.tick());
    let mut output = worker.buffers.take();
    let (there, back) = tunnel::carry(worker, (&client.link, input), (&up.link, &mut output)).await;
    worker.buffers.give(output);
    worker.shared.totals.passed.fetch_add(there + back, Relaxed);
    group.counters().answered(200, started.elapsed());
    group.counters().sent(back);
    (200, back)
}

/// One connection counted as under way.
struct Flow<'a>(&'a Group, &'a Target);

impl<'a> Flow<'a> {
    fn new(group: &'a Group, target: &'a Target) -> Self {
        for count in [&target.deeds().requests, &group.counters().requests] {
            count.fetch_add(1, Relaxed);
        }
        for active in [&target.deeds().active, &group.counters().active] {
            active.fetch_add(1, Relaxed);
        }
        Self(group, target)
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        for active in [&self.1.deeds().active, &self.0.counters().active] {
            active.fetch_sub(1, Relaxed);
        }
    }
}

/// A group of the first rule whose conditions hold. Only forwards mean something here.
fn choose(worker: &Worker, ask: &Ask) -> Option<Group> {
    let live = worker.shared.live.load();
    let rule = live.rules.find(ask).filter(|rule| rule.lets_in(ask.peer))?;
    match &rule.action {
        Action::Forward(weights) => weights.pick_awake().cloned(),
        Action::Fixed(_) | Action::Redirect(_) => None,
    }
}

/// The host that a TLS client names; its first message stays in the buffer.
async fn named(worker: &Worker, client: &Watched, input: &mut Buffer) -> Option<String> {
    client.link.arm(worker.after(worker.limits().head_time));
    loop {
        if client.link.read(input).await.ok()? == 0 {
            return None;
        }
        // From the start each time: a first message is small, and mostly comes in one piece.
        let mut acceptor = Acceptor::default();
        let mut data = input.filled_part();
        while !data.is_empty() {
            acceptor.read_tls(&mut data).ok()?;
            if let Some(accepted) = acceptor.accept().ok()? {
                return accepted.client_hello().server_name().map(str::to_owned);
            }
        }
        if input.len() >= worker.limits().head {
            return None;
        }
        input.widen();
    }
}
