//! Connections that pass through as bytes: to the target group of the rule for one host, or for the host that a TLS
//! client names.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed};

use model::route::ProxyWord;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

use crate::{
    balance::Group,
    head::Ask,
    http1::tunnel,
    link::{Buffer, Stream},
    proxy,
    table::Action,
    target::Target,
    wake,
    worker::{Ends, Watched, Worker},
};

/// Attempts at different targets.
const ATTEMPTS: usize = 4;

/// Carries one connection to its end.
pub async fn through(worker: &Rc<Worker>, client: &Watched, ends: Ends, host: Option<&str>) {
    let mut input = worker.buffers.take();
    let host = match host {
        Some(host) => Some(host.to_owned()),
        None => named(worker, client, &mut input).await,
    };
    let Some(host) = host else {
        worker.shared.totals.refused.fetch_add(1, Relaxed);
        return;
    };
    let mut ask = Ask::default();
    ask.start("CONNECT", "", &ends);
    if !ask.name_host(&host) {
        return;
    }
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        // What comes meanwhile waits in the kernel.
        if !wake::until_awake(worker, &ask, worker.limits().wake).await {
            break;
        }
        let Some((group, target)) = choose(worker, &ask, &tried) else {
            break;
        };
        let started = std::time::Instant::now();
        let connected =
            tokio::time::timeout(worker.limits().connect, TcpStream::connect(target.address())).await;
        let Ok(Ok(stream)) = connected else {
            target.met_in(&group, true, worker.tick());
            tried.push(target.serial);
            continue;
        };
        if target.is_leaving() {
            continue;
        }
        let flow = Flow::new(&group, &target);
        let up = worker.register(Stream::Tcp(stream), Some(target.clone()));
        let word = match group.policy.proxy {
            None => Vec::new(),
            Some(ProxyWord::V1) => proxy::write_first(ends.peer, ends.local),
            Some(ProxyWord::V2) => proxy::write_second(ends.peer, ends.local),
        };
        let mut output = worker.buffers.take();
        if up
            .link
            .write_until(&word, worker.after(worker.limits().upstream))
            .await
            .is_ok()
        {
            target.met(false, None, worker.tick());
            let moved = tunnel::carry(worker, (&client.link, &mut input), (&up.link, &mut output)).await;
            worker.shared.totals.passed.fetch_add(moved.0 + moved.1, Relaxed);
            group.counters().answered(200, started.elapsed());
        }
        worker.buffers.give(output);
        drop(flow);
        worker.buffers.give(input);
        return;
    }
    worker.shared.totals.unmatched.fetch_add(1, Relaxed);
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

/// A target of the first rule whose conditions hold. Only forwards mean something here.
pub fn choose(worker: &Worker, ask: &Ask, tried: &[u64]) -> Option<(Group, Target)> {
    let live = worker.shared.live.load();
    let rule = live.rules.find(ask).filter(|rule| rule.lets_in(ask.peer))?;
    let Action::Forward(weights) = &rule.action else {
        return None;
    };
    let group = weights.pick()?;
    let zone = worker.shared.zone.get().map(String::as_str);
    let target = group.pick_near(zone, tried, None, worker.tick())?;
    Some((group.clone(), target.clone()))
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
