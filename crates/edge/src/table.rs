//! The rules, compiled for looking up: one hash look-up for an exact host, one per label for `*.domain`, and a walk
//! only over rules whose hosts are freer patterns or that name no host.
//!
//! A change shares all that it does not touch with the table before: an index is many small ones, of which a change
//! copies those in which its hosts are. It knows of no socket, no clock and no health.

mod index;

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use model::route::{self, Speaks, matches};
use once_cell::race::OnceBox;

use crate::{
    balance::{Group, Weights},
    condition::Rest,
    head::Ask,
    login::Login,
    thin::Thin,
};
use index::Index;

/// What to do with a request.
pub enum Action {
    Forward(Weights),
    Fixed(Box<Fixed>),
    Redirect(Box<route::Redirect>),
}

/// An answer of our own.
pub struct Fixed {
    pub status: u16,
    pub content_type: Box<str>,
    pub body: Box<str>,
}

/// One rule. Behind the rest are its place and its hosts, with line breaks between them.
pub type Rule = Thin<Meaning>;

/// Its size counts: there may be a hundred thousand.
pub struct Meaning {
    pub priority: u32,
    pub action: Action,
    /// Only rules that have more than hosts and an action, or have been asked for, have it.
    more: OnceBox<More>,
}

/// What most rules do not have.
#[derive(Default)]
struct More {
    /// Conditions beside the host's patterns, transforms, and who must sign in.
    rest: Option<Box<Rest>>,
    own: Option<Box<route::Own>>,
    /// Only rules that have been asked for have it. A rule in the place of this one has the same.
    counts: OnceBox<Arc<Counts>>,
}

/// What a rule has decided about, and what clients got.
#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    /// By class of their status: 1xx to 5xx.
    classes: [AtomicU64; 5],
    /// Bytes of bodies.
    sent: AtomicU64,
}

/// The same, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    pub classes: [u64; 5],
    pub sent: u64,
}

impl Rule {
    /// From a rule that was found good; `group` knows the groups that it names.
    pub fn new(rule: &route::Rule, group: impl Fn(&str) -> Option<Group>) -> Self {
        let hosts = rule.hosts.iter();
        let text = hosts.fold(rule.place.to_string(), |text, host| text + "\n" + host);
        let more = More {
            rest: Rest::new(rule).map(Box::new),
            own: (!rule.own.is_empty()).then(|| Box::new(rule.own.clone())),
            ..More::default()
        };
        let meaning = Meaning {
            priority: rule.priority,
            action: compile(&rule.action, group),
            more: OnceBox::new(),
        };
        if more.rest.is_some() || more.own.is_some() {
            // It is new, so there is none yet.
            let _ = meaning.more.set(Box::new(more));
        }
        Self::of(meaning, text.as_bytes())
    }

    /// Conditions beside the host's patterns, transforms, and who must sign in.
    pub fn rest(&self) -> Option<&Rest> {
        self.more.get()?.rest.as_deref()
    }

    fn own(&self) -> Option<&route::Own> {
        self.more.get()?.own.as_deref()
    }

    fn counted(&self) -> Option<&Arc<Counts>> {
        self.more.get()?.counts.get()
    }

    fn counts(&self) -> &Counts {
        self.more
            .get_or_init(Box::default)
            .counts
            .get_or_init(Box::default)
    }

    /// Requests that it has decided about.
    pub fn hits(&self) -> u64 {
        self.counted().map_or(0, |counts| counts.hits.load(Relaxed))
    }

    /// One more.
    pub fn hit(&self) {
        self.counts().hits.fetch_add(1, Relaxed);
    }

    /// A client got an answer with so many bytes of a body.
    pub fn answered(&self, status: u16, bytes: u64) {
        let counts = self.counts();
        if let Some(class) = counts.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        counts.sent.fetch_add(bytes, Relaxed);
    }

    pub fn answers(&self) -> Answered {
        let Some(counts) = self.counted() else {
            return Answered::default();
        };
        Answered {
            classes: std::array::from_fn(|class| counts.classes[class].load(Relaxed)),
            sent: counts.sent.load(Relaxed),
        }
    }

    /// Had it any request?
    pub fn is_counted(&self) -> bool {
        self.counted().is_some()
    }

    /// Counts with the rule in whose place it is, which may have requests under way: they end as those of this one.
    pub fn go_on_from(&self, before: &Self) {
        if let Some(counts) = before.counted() {
            let more = self.more.get_or_init(Box::default);
            // It is new, so there are none yet.
            let _ = more.counts.set(Box::new(Arc::clone(counts)));
        }
    }

    /// What it was compiled from.
    pub fn source(&self) -> route::Rule {
        let (paths, conditions, transforms) = self.rest().map(Rest::source).unwrap_or_default();
        route::Rule {
            priority: self.priority,
            place: self.place().parse().expect("it was written from a place"),
            hosts: self.hosts().map(str::to_owned).collect(),
            paths,
            conditions,
            transforms,
            access: self.rest().map_or_else(Vec::new, |rest| rest.access.clone()),
            authenticate: self.login().map(|login| Box::new(login.spec.clone())),
            action: source(&self.action),
            own: self.own().cloned().unwrap_or_default(),
        }
    }

    /// Sockets of its own.
    pub fn listeners(&self) -> &[route::Listens] {
        self.own().map_or(&[], |own| &own.listeners)
    }

    /// Are its hosts to have a certificate from the authority?
    pub fn wants_certificate(&self) -> bool {
        self.own().is_some_and(|own| own.acme)
    }

    /// Has it anything for itself?
    pub fn has_own(&self) -> bool {
        self.own().is_some()
    }

    pub fn place(&self) -> &str {
        // Only this part of the bytes is looked at: a rule may have thousands of hosts.
        let place = Self::bytes(self).split(|b| *b == b'\n').next();
        Self::text(place.unwrap_or_default())
    }

    fn words(&self) -> &str {
        Self::text(Self::bytes(self))
    }

    /// Patterns of hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.words().split('\n').skip(1)
    }

    /// The same, each with where it begins, which is never 0.
    fn hosts_at(&self) -> impl Iterator<Item = (u32, &str)> {
        let mut next = self.place().len() + 1;
        self.hosts().map(move |host| {
            let at = u32::try_from(next).expect("a line of a table is far shorter");
            next += host.len() + 1;
            (at, host)
        })
    }

    /// The pattern that begins there.
    fn host_at(&self, at: u32) -> &str {
        let bytes = Self::bytes(self).get(at as usize..).unwrap_or_default();
        Self::text(bytes.split(|b| *b == b'\n').next().unwrap_or_default())
    }

    /// Where its patterns begin that can only be tried.
    fn free(&self) -> impl Iterator<Item = u32> {
        let free = |(_, host): &(u32, &str)| matches!(Pattern::of(host), Pattern::Free);
        self.hosts_at().filter(free).map(|(at, _)| at)
    }

    /// Is one of its patterns for this host?
    pub fn is_for(&self, host: &str) -> bool {
        !Self::bytes(self).contains(&b'\n') || self.hosts().any(|pattern| matches(pattern, host))
    }

    /// Do all conditions hold but those of the host's patterns?
    pub fn fits(&self, ask: &Ask) -> bool {
        (ask.bytes || !self.is_for_bytes()) && self.rest().is_none_or(|rest| rest.fits(ask))
    }

    /// Is it only for what comes to its own sockets as bytes or datagrams? They do not sign in, and what they lead to need
    /// not speak HTTP: nobody gets there by naming its host elsewhere.
    fn is_for_bytes(&self) -> bool {
        let bytes = |one: &route::Listens| matches!(one.speaks, Speaks::Tcp | Speaks::Udp { .. });
        let own = self.listeners();
        !own.is_empty() && own.iter().all(bytes)
    }

    /// May somebody ask who is there? Where that is not known, only if everybody may.
    pub fn lets_in(&self, source: Option<IpAddr>) -> bool {
        let access = self.rest().map_or(&[][..], |rest| &rest.access);
        access
            .iter()
            .all(|access| source.is_some_and(|source| access.lets_in(source)))
    }

    /// Who must have signed in.
    pub fn login(&self) -> Option<&Login> {
        self.rest()?.login.as_ref()
    }

    /// The first of them that does not.
    pub fn fails(&self, ask: &Ask) -> Option<&'static str> {
        if !ask.bytes && self.is_for_bytes() {
            return Some("listener");
        }
        self.rest()?.fails(ask)
    }

    /// Names of the groups that it forwards to.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        match &self.action {
            Action::Forward(weights) => Some(weights.groups()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }
}

fn compile(action: &route::Action, group: impl Fn(&str) -> Option<Group>) -> Action {
    match action {
        route::Action::Forward { groups, stickiness } => {
            let known = groups.iter().filter_map(|w| Some((w.weight, group(&w.group)?)));
            Action::Forward(Weights::new(known, *stickiness))
        }
        route::Action::FixedResponse {
            status,
            content_type,
            body,
        } => Action::Fixed(Box::new(Fixed {
            status: *status,
            content_type: content_type.as_str().into(),
            body: body.as_str().into(),
        })),
        route::Action::Redirect(redirect) => Action::Redirect(Box::new(redirect.clone())),
    }
}

fn source(action: &Action) -> route::Action {
    match action {
        Action::Forward(weights) => weights.source(),
        Action::Fixed(fixed) => route::Action::FixedResponse {
            status: fixed.status,
            content_type: fixed.content_type.to_string(),
            body: fixed.body.to_string(),
        },
        Action::Redirect(redirect) => route::Action::Redirect(route::Redirect::clone(redirect)),
    }
}

/// How a host pattern is found.
enum Pattern<'a> {
    Exact(&'a str),
    /// `*.example.com` by `example.com`.
    Suffix(&'a str),
    Free,
}

impl<'a> Pattern<'a> {
    fn of(host: &'a str) -> Self {
        let plain = |text: &str| !text.contains(['*', '?']);
        match host.strip_prefix("*.") {
            _ if plain(host) => Self::Exact(host),
            Some(domain) if plain(domain) && !domain.is_empty() => Self::Suffix(domain),
            _ => Self::Free,
        }
    }
}

/// Compiled rules.
#[derive(Clone, Default)]
pub struct Rules {
    exact: Index,
    suffix: Index,
    /// Rules with other host patterns, in priority order, and where in the rule these begin: its other hosts may be
    /// thousands, and have been looked up.
    free: Arc<Vec<(Rule, Box<[u32]>)>>,
    /// Rules without a condition on the host, or with one that only regular expressions answer; in priority order.
    any: Arc<Vec<(Rule, ())>>,
}

impl Rules {
    /// Takes rules out and puts others in.
    pub fn change(&mut self, gone: &[Rule], new: &[Rule]) {
        let exact = |host| match Pattern::of(host) {
            Pattern::Exact(host) => Some(host),
            _ => None,
        };
        let suffix = |host| match Pattern::of(host) {
            Pattern::Suffix(domain) => Some(domain),
            _ => None,
        };
        self.exact.change(gone, new, exact);
        self.suffix.change(gone, new, suffix);
        exchange(&mut self.free, gone, new, |rule| {
            let free: Box<[u32]> = rule.free().collect();
            (!free.is_empty()).then_some(free)
        });
        exchange(&mut self.any, gone, new, |rule| {
            rule.hosts().next().is_none().then_some(())
        });
    }

    /// The first rule, by priority, whose conditions all hold.
    pub fn find(&self, ask: &Ask) -> Option<&Rule> {
        self.first(&ask.host, |rule| rule.fits(ask))
    }

    /// The first rule, by priority, of those for this host that fit.
    pub fn first(&self, host: &str, fits: impl Fn(&Rule) -> bool) -> Option<&Rule> {
        let mut best: Option<&Rule> = None;
        self.exact.best(host, &fits, &mut best, |pattern| Some(pattern));
        if !self.suffix.is_empty() {
            for (dot, _) in host.match_indices('.') {
                self.suffix.best(&host[dot + 1..], &fits, &mut best, |pattern| {
                    pattern.strip_prefix(b"*.")
                });
            }
        }
        let sooner = |best: Option<&Rule>, rule: &Rule| best.is_none_or(|best| rule.priority < best.priority);
        let found = self
            .free
            .iter()
            .take_while(|(rule, _)| sooner(best, rule))
            .find(|(rule, free)| free.iter().any(|at| matches(rule.host_at(*at), host)) && fits(rule));
        best = found.map(|(rule, _)| rule).or(best);
        let found = self
            .any
            .iter()
            .take_while(|(rule, ())| sooner(best, rule))
            .find(|(rule, ())| fits(rule));
        found.map(|(rule, ())| rule).or(best)
    }
}

/// Replaces rules in a list that is in priority order, if any of them belongs there; each is beside what `belongs` says
/// of it.
fn exchange<T: Clone>(
    list: &mut Arc<Vec<(Rule, T)>>,
    gone: &[Rule],
    new: &[Rule],
    belongs: impl Fn(&Rule) -> Option<T>,
) {
    let going: HashSet<u32> = gone
        .iter()
        .filter(|rule| belongs(rule).is_some())
        .map(|rule| rule.priority)
        .collect();
    let coming: Vec<_> = new
        .iter()
        .filter_map(|rule| Some((rule.clone(), belongs(rule)?)))
        .collect();
    if going.is_empty() && coming.is_empty() {
        return;
    }
    let kept = list.iter().filter(|(rule, _)| !going.contains(&rule.priority));
    let mut next: Vec<_> = kept.cloned().chain(coming).collect();
    next.sort_by_key(|(rule, _)| rule.priority);
    *list = Arc::new(next);
}

#[cfg(test)]
mod naive;
#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
