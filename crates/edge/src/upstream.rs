//! Connections to targets: choosing one, opening or re-using it, and giving it back.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    ops::Deref,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use model::route::{Protocol, matches};
use tokio::net::TcpStream;

use crate::{
    answer::Answer,
    balance::Group,
    head::Ask,
    link::{Link, NEVER, Stream},
    login::Admitted,
    quota::{self, Full, Seat},
    sticky::{self, Cookies},
    table::{Action, Rule},
    target::Target,
    wake,
    worker::{Watched, Worker},
};

/// Idle connections of one worker, by target.
#[derive(Default)]
pub struct Pool(RefCell<HashMap<u64, Vec<Idle>>>);

struct Idle {
    up: Watched,
    since: u64,
}

impl Pool {
    /// The connection that was used last: the others may then time out.
    fn take(&self, target: &Target, now: u64, idempotent: bool) -> Option<Watched> {
        // A request that must not be sent twice takes no connection that its target may be about to close.
        const RECENT: u64 = 1_000;
        let mut pools = self.0.borrow_mut();
        let idle = pools.get_mut(&target.serial)?;
        while let Some(Idle { up, since }) = idle.pop() {
            let fresh = match idempotent {
                true => up.link.is_fresh(),
                false => now.saturating_sub(since) < RECENT && up.link.is_fresh_now(),
            };
            if fresh {
                up.link.arm(NEVER);
                return Some(up);
            }
        }
        None
    }

    fn give(&self, up: Watched, now: u64, until: u64) {
        const KEPT: usize = 256;
        let Some(target) = up.link.target.as_ref().filter(|target| !target.is_leaving()) else {
            return;
        };
        let mut pools = self.0.borrow_mut();
        let idle = pools.entry(target.serial).or_default();
        if idle.len() < KEPT {
            up.link.arm(until);
            idle.push(Idle { up, since: now });
        }
    }

    /// Closes what idles towards targets that have left.
    pub fn sweep(&self) {
        self.retain(|idle| {
            idle.up
                .link
                .target
                .as_ref()
                .is_some_and(|target| !target.is_leaving())
        });
    }

    /// Closes what has idled too long or was closed by the other side.
    pub fn expire(&self) {
        self.retain(|idle| idle.up.link.is_fresh());
    }

    /// Closes all. Idle connections hold their worker, which holds them: a worker that ends must let them go.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    fn retain(&self, keep: impl Fn(&Idle) -> bool) {
        self.0.borrow_mut().retain(|_, idle| {
            idle.retain(&keep);
            !idle.is_empty()
        });
    }
}

/// A connection to a target for one request, counted as under way until it is dropped.
pub struct Lease {
    up: Option<Watched>,
    pub link: Rc<Link>,
    chosen: Chosen,
    /// The connection has served a request before, and may have been closed in the meantime.
    pub reused: bool,
    tick: u64,
    /// When it was got.
    pub started: Instant,
}

impl Deref for Lease {
    type Target = Chosen;

    fn deref(&self) -> &Chosen {
        &self.chosen
    }
}

impl Lease {
    fn new(up: Watched, chosen: Chosen, reused: bool, tick: u64) -> Self {
        let (deeds, counters) = (chosen.target.deeds(), chosen.group.counters());
        for count in [&deeds.requests, &counters.requests] {
            count.fetch_add(1, Relaxed);
        }
        for active in [&deeds.active, &counters.active] {
            active.fetch_add(1, Relaxed);
        }
        Self {
            link: Rc::clone(&up.link),
            up: Some(up),
            chosen,
            reused,
            tick,
            started: Instant::now(),
        }
    }

    /// The target has answered.
    pub fn answered(&self, status: u16) {
        self.group.counters().answered(status, self.started.elapsed());
        self.met(status >= 500, self.tick);
    }

    /// The target has not answered, or not well.
    pub fn failed(&self) {
        self.met(true, self.tick);
    }

    /// The answer is complete and the connection good for another request.
    pub fn keep(mut self, worker: &Worker) {
        if let Some(up) = self.up.take() {
            worker
                .pool
                .give(up, worker.tick(), worker.after(worker.limits().upstream_idle));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.deeds().active.fetch_sub(1, Relaxed);
        self.group.counters().active.fetch_sub(1, Relaxed);
    }
}

/// What earlier attempts at the same request have met.
#[derive(Default)]
pub struct Attempts {
    tried: Vec<u64>,
    last: Option<Answer>,
    count: u32,
    /// It has been counted as a request of its source and tenant, and of its rule.
    counted: bool,
    /// All hosts of its group sleep or start.
    sleeps: bool,
    /// They have been waited for.
    waited: bool,
    /// The rule that decided, where there is an answer of our own.
    decided: Option<Rule>,
    /// Its rule, when that has people sign in first and nobody has looked yet.
    unknown: Option<Rule>,
    /// Who is let in, and by which rule.
    admitted: Option<(Rule, Admitted)>,
    /// Its place among what its tenant has under way, until it is over.
    seat: Option<Seat<Box<str>>>,
}

impl Attempts {
    /// May there be another attempt?
    pub fn more(&self) -> bool {
        self.count < 4
    }

    /// The connection was lost before any answer. On a fresh one that says something about the target.
    pub fn lost(&mut self, target: &Target, fresh: bool) {
        self.count += 1;
        self.last = Some(Answer::target_closed());
        if fresh {
            self.tried.push(target.serial);
        }
    }

    /// The answer will be one of our own, by this rule.
    pub fn decided_by(&mut self, rule: &Rule) {
        self.decided = Some(rule.clone());
    }

    /// The client got an answer of our own: its rule counts it.
    pub fn answered(&self, status: u16, bytes: u64) {
        if let Some(rule) = &self.decided {
            rule.answered(status, bytes);
        }
    }

    /// There is no connection to a target, and the request goes to another.
    pub fn failed(&mut self, worker: &Worker, ask: &mut Ask, chosen: &Chosen, answer: Answer) {
        if let Some(note) = &mut ask.note {
            note.tried(chosen.group.name(), &chosen.target);
        }
        chosen.met(true, worker.tick());
        worker.shared.totals.retries.fetch_add(1, Relaxed);
        self.tried.push(chosen.target.serial);
        self.last = Some(answer);
    }

    /// Has the rule let it in?
    fn is_admitted(&self, rule: &Rule) -> bool {
        self.admitted.as_ref().is_some_and(|(by, _)| Rule::same(by, rule))
    }

    /// What the sign-in adds to the answer.
    fn cookies(&self) -> &[String] {
        self.admitted
            .as_ref()
            .map_or(&[], |(_, admitted)| &admitted.cookies)
    }

    /// Connections that idled are not trusted again after one was lost.
    fn wants_fresh(&self) -> bool {
        self.count > 0
    }
}

/// A connection to a target of the first rule that matches, or the answer to give instead.
///
/// It looks the rule up anew after every wait, so that a request that had to wait goes where the table points by then.
/// There is no waiting between the last look and the return: who writes at once writes to a target that is in the table.
pub async fn lease(worker: &Rc<Worker>, ask: &mut Ask, attempts: &mut Attempts) -> Result<Leased, Answer> {
    loop {
        let chosen = choose(worker, ask, attempts);
        if let Some(rule) = attempts.unknown.take() {
            let (desk, login) = (worker.shared.desk.get(), rule.login());
            let (desk, login) = desk.zip(login).ok_or_else(Answer::provider_failed)?;
            // What is rare is apart: its room would be in the task of every connection.
            let admitted = Box::pin(desk.admit(&rule, login, ask)).await?;
            attempts.admitted = Some((rule, admitted));
            continue;
        }
        let chosen = match chosen {
            Err(answer) if attempts.sleeps => match Box::pin(wake(worker, ask, attempts)).await {
                Some(waited) => return Err(waited),
                None if attempts.waited => continue,
                None => return Err(answer),
            },
            chosen => chosen?,
        };
        if let Err(answer) = transform(&chosen, ask, attempts) {
            attempts.decided_by(&chosen.rule);
            return Err(answer);
        }
        if chosen.group.policy.protocol != Protocol::Http1 {
            return Ok(Leased::Shared(chosen));
        }
        let target = chosen.target.clone();
        let pooled = match attempts.wants_fresh() {
            true => None,
            false => worker.pool.take(&target, worker.tick(), ask.is_idempotent()),
        };
        if let Some(up) = pooled {
            return Ok(Leased::One(Lease::new(up, chosen, true, worker.tick())));
        }
        let connecting = tokio::time::timeout(worker.limits().connect, connect(worker, &chosen));
        let failure = match connecting.await {
            Ok(Ok(_)) if target.is_leaving() => continue,
            Ok(Ok(stream)) => {
                let up = worker.register(stream, Some(target));
                return Ok(Leased::One(Lease::new(up, chosen, false, worker.tick())));
            }
            Ok(Err(error)) => unconnected(&error),
            Err(_) => Answer::connect_timeout(),
        };
        attempts.failed(worker, ask, &chosen, failure);
    }
}

/// What is said of a target that cannot be connected to.
pub fn unconnected(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::target_refused(),
        _ => Answer::target_unreachable(),
    }
}

/// A new connection to the target of a request.
async fn connect(worker: &Worker, chosen: &Chosen) -> io::Result<Stream> {
    let address = chosen.target.address();
    match &chosen.group.policy.away {
        None => TcpStream::connect(address).await.map(Stream::Tcp),
        Some(name) => {
            let away = &worker.shared.away;
            Box::pin(away.connect(name, address.port()))
                .await
                .map(Stream::Away)
        }
    }
}

/// Waits for a group to wake, or gives the answer when that was enough. A browser is not kept for longer than two seconds
/// without a word; everybody else waits for as long as `limits.wake` says.
async fn wake(worker: &Worker, ask: &Ask, attempts: &mut Attempts) -> Option<Answer> {
    const SHORT: Duration = Duration::from_secs(2);
    let html = ask
        .fields("accept")
        .any(|value| memchr::memmem::find(value, b"text/html").is_some());
    let browser = html && ask.method == crate::head::Method::Get;
    let patience = match browser {
        true => SHORT.min(worker.limits().wake),
        false => worker.limits().wake,
    };
    if wake::until_awake(worker, ask, patience).await {
        (attempts.waited, attempts.sleeps) = (true, false);
        return None;
    }
    Some(Answer::waking(browser))
}

/// A way to a target.
pub enum Leased {
    /// A connection for this request alone.
    One(Lease),
    /// The target speaks HTTP/2: its connection is for all.
    Shared(Chosen),
}

/// What the table says of one request.
pub struct Chosen {
    pub rule: Rule,
    pub group: Group,
    pub target: Target,
    /// What is added to the answer.
    pub cookies: Option<Box<Cookies>>,
}

impl Chosen {
    /// How the target took the request.
    pub fn met(&self, failed: bool, tick: u64) {
        self.target.met_in(&self.group, failed, tick);
    }
}

fn choose(worker: &Worker, ask: &mut Ask, attempts: &mut Attempts) -> Result<Chosen, Answer> {
    let desk = worker.shared.desk.get();
    let known = worker.shared.challenge(ask.path());
    if let Some(answer) = known.or_else(|| desk?.public_key(ask.path()).map(str::to_owned)) {
        return Err(Answer::text(answer));
    }
    let (shared, tick) = (&worker.shared, worker.tick());
    let first = !std::mem::replace(&mut attempts.counted, true);
    let most = worker.limits().source_requests;
    if first
        && most > 0
        && let Some(peer) = ask.peer
        && !shared.sources.request(quota::source(peer), most, tick)
    {
        shared.totals.limited.fetch_add(1, Relaxed);
        return Err(Answer::too_many("too many requests from this address"));
    }
    if let Some(answer) = shared.first(ask) {
        if let Some(note) = &mut ask.note {
            note.unmatched(&answer);
        }
        return Err(answer);
    }
    let live = shared.live.load();
    let here = ask
        .only
        .as_ref()
        .is_none_or(|only| only.iter().any(|host| matches(host, &ask.host)));
    let awaited = desk.and_then(|desk| desk.awaited(&live.rules, ask));
    let Some(rule) = awaited.or_else(|| live.rules.find(ask)).filter(|_| here) else {
        worker.shared.totals.unmatched.fetch_add(1, Relaxed);
        let answer = shared.last(ask);
        if let Some(note) = &mut ask.note {
            note.unmatched(&answer);
        }
        return Err(answer);
    };
    if let Some(note) = &mut ask.note {
        note.rule(rule);
    }
    decide(worker, rule, ask, attempts, first).inspect_err(|_| attempts.decided_by(rule))
}

/// What the rule says of it.
fn decide(
    worker: &Worker,
    rule: &Rule,
    ask: &mut Ask,
    attempts: &mut Attempts,
    first: bool,
) -> Result<Chosen, Answer> {
    let (shared, limits, tick) = (&worker.shared, worker.limits(), worker.tick());
    if !rule.lets_in(ask.peer) {
        return Err(Answer::not_let_in());
    }
    if first {
        rule.hit();
        let most = limits.tenant_requests;
        if most > 0 && !shared.tenants.request(quota::tenant(rule.place()), most, tick) {
            shared.totals.limited.fetch_add(1, Relaxed);
            return Err(Answer::too_many("too many requests for this tenant"));
        }
        let seat = worker.tenant_seat(rule);
        attempts.seat = seat.map_err(|Full| Answer::too_many("too many connections for this tenant"))?;
    }
    if rule.login().is_some() && !attempts.is_admitted(rule) {
        attempts.unknown = Some(rule.clone());
        return Err(Answer::unauthorized());
    }
    let mine = |answer| Answer {
        cookies: attempts.cookies().to_vec(),
        ..answer
    };
    if let Some(note) = &mut ask.note {
        note.act(&rule.action);
    }
    let weights = match &rule.action {
        Action::Forward(weights) => weights,
        Action::Fixed(fixed) => return Err(mine(Answer::fixed(fixed))),
        Action::Redirect(redirect) => return Err(mine(Answer::redirect(redirect, ask))),
    };
    let wanted = sticky::wanted_group(ask, weights).filter(|group| !group.sleeps());
    let group = wanted.or_else(|| weights.pick_awake());
    let group = group.ok_or_else(Answer::no_targets)?;
    if let Some(note) = &mut ask.note {
        note.group(group.name());
    }
    let wanted = sticky::wanted_target(ask, group);
    attempts.sleeps = group.sleeps();
    if attempts.sleeps {
        return Err(Answer::waking(false));
    }
    let zone = shared.zone.get().map(String::as_str);
    match group.pick_near(zone, &attempts.tried, wanted, worker.tick()) {
        Some(target) => Ok(Chosen {
            cookies: Cookies::new(ask, weights, group, target, attempts.cookies()),
            rule: rule.clone(),
            group: group.clone(),
            target: target.clone(),
        }),
        None => {
            group.counters().failures.fetch_add(1, Relaxed);
            Err(attempts.last.take().unwrap_or_else(Answer::no_targets))
        }
    }
}

/// Changes what the target gets, as the rule says, and tells it who has signed in.
fn transform(chosen: &Chosen, ask: &mut Ask, attempts: &Attempts) -> Result<(), Answer> {
    let (rule, away) = (&chosen.rule, chosen.group.policy.away.as_deref());
    let told = attempts
        .admitted
        .as_ref()
        .map_or("", |(_, admitted)| &admitted.lines);
    let rest = rule.rest().filter(|rest| rest.transforms() || !told.is_empty());
    if rest.is_none() && away.is_none() && !ask.is_changed() {
        return Ok(());
    }
    let (url, host) = match rest.map(|rest| (rest.url(ask), rest.host(ask))) {
        None => (None, None),
        Some((Ok(url), Ok(host))) => (url, host),
        Some((url, _)) => {
            if let Some(note) = &mut ask.note {
                note.transform = Some(if url.is_err() {
                    "TransformInvalidPath"
                } else {
                    "TransformInvalidHost"
                });
            }
            return Err(Answer::untransformed());
        }
    };
    if let Some(note) = &mut ask.note
        && (url.is_some() || host.is_some())
    {
        note.transform = Some("TransformSuccess");
        (note.new_url, note.new_host) = (url.clone(), host.clone());
    }
    // Elsewhere, a host is found by its own name.
    ask.transform(url.as_deref(), away.or(host.as_deref()), told);
    Ok(())
}

/// How long a worker waits for things. All are bounded, and all but `drain` may change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections per worker; more wait in the kernel's queue.
    pub connections: usize,
    /// Bytes of a request's or an answer's head.
    pub head: usize,
    /// Bytes of a request's body; 0 is no limit.
    pub body: u64,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// Between two requests, and between two reads of a request's body.
    pub idle: Duration,
    /// For a target to accept a connection. ALB has 10 s.
    pub connect: Duration,
    /// For a target to answer, and between two reads of its answer.
    pub upstream: Duration,
    /// How long an unused connection to a target is kept: less than servers commonly keep theirs.
    pub upstream_idle: Duration,
    /// Silence on an upgraded connection.
    pub tunnel: Duration,
    /// For requests under way when the edge is told to stop.
    pub drain: Duration,
    /// Open connections of one source at all workers; 0 is no limit.
    pub source_connections: u32,
    /// Requests of one source a second, twice that at once; 0 is no limit. An IPv6 source is a network of 64 bits.
    pub source_requests: u32,
    /// The same for all requests that one tenant gets.
    pub tenant_requests: u32,
    /// What one tenant has open at all workers: requests under way, upgraded ones to their end, connections of bytes, and
    /// flows of datagrams; 0 is no limit.
    pub tenant_connections: u32,
    /// How long a request waits for a sleeping group; a browser at most 2 s, and then gets a page that asks again.
    pub wake: Duration,
    /// Requests that may wait so, of all groups.
    pub sleepers: u32,
    /// The same for one environment, so that others keep their chance.
    pub sleepers_each: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            head: 64 * 1024,
            body: 0,
            head_time: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            connect: Duration::from_secs(3),
            upstream: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(4),
            tunnel: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            source_connections: 0,
            source_requests: 0,
            tenant_requests: 0,
            tenant_connections: 0,
            wake: Duration::from_secs(30),
            sleepers: 8192,
            sleepers_each: 1024,
        }
    }
}
