//! The rules, compiled for looking up: one hash look-up for an exact host, one per label for `*.domain`, and a walk
//! only over rules whose hosts are freer patterns or that name no host.
//!
//! A change shares all that it does not touch with the table before: an index is many small ones, of which a change
//! copies those in which its hosts are. It knows of no socket, no clock and no health.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::AtomicU64},
};

use hashbrown::HashTable;
use model::route::{self, matches};

use crate::{
    balance::{Group, Weights},
    condition::Rest,
    head::Ask,
    login::Login,
};

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

/// One rule. Its size counts: there may be a hundred thousand.
pub struct Rule {
    pub priority: u32,
    /// Its place and its hosts, with line breaks between them.
    text: Box<str>,
    /// Conditions beside the host's patterns, transforms, and who must sign in; most rules have none.
    pub rest: Option<Box<Rest>>,
    pub action: Action,
    own: Option<Box<route::Own>>,
    /// Requests that it has decided about.
    pub hits: AtomicU64,
}

impl Rule {
    /// From a rule that was found good; `group` knows the groups that it names.
    pub fn new(rule: &route::Rule, group: impl Fn(&str) -> Option<Arc<Group>>) -> Self {
        Self {
            priority: rule.priority,
            text: rule
                .hosts
                .iter()
                .fold(rule.place.to_string(), |text, host| text + "\n" + host)
                .into(),
            rest: Rest::new(rule).map(Box::new),
            action: compile(&rule.action, group),
            own: (!rule.own.is_empty()).then(|| Box::new(rule.own.clone())),
            hits: AtomicU64::new(0),
        }
    }

    /// What it was compiled from.
    pub fn source(&self) -> route::Rule {
        let (paths, conditions, transforms) =
            self.rest.as_ref().map(|rest| rest.source()).unwrap_or_default();
        route::Rule {
            priority: self.priority,
            place: self.place().parse().expect("it was written from a place"),
            hosts: self.hosts().map(str::to_owned).collect(),
            paths,
            conditions,
            transforms,
            authenticate: self.login().map(|login| Box::new(login.spec.clone())),
            action: source(&self.action),
            own: self.own.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Sockets of its own.
    pub fn listeners(&self) -> &[route::Listens] {
        self.own.as_ref().map_or(&[], |own| &own.listeners)
    }

    /// Are its hosts to have a certificate from the authority?
    pub fn wants_certificate(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.acme)
    }

    /// Has it anything for itself?
    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    pub fn place(&self) -> &str {
        self.text.split('\n').next().unwrap_or_default()
    }

    /// Patterns of hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n').skip(1)
    }

    /// Is one of its patterns for this host?
    pub fn is_for(&self, host: &str) -> bool {
        !self.text.contains('\n') || self.hosts().any(|pattern| matches(pattern, host))
    }

    /// Do all conditions hold but those of the host's patterns?
    pub fn fits(&self, ask: &Ask) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.fits(ask))
    }

    /// Who must have signed in.
    pub fn login(&self) -> Option<&Login> {
        self.rest.as_ref()?.login.as_ref()
    }

    /// The first of them that does not.
    pub fn fails(&self, ask: &Ask) -> Option<&'static str> {
        self.rest.as_ref()?.fails(ask)
    }

    /// Names of the groups that it forwards to.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        match &self.action {
            Action::Forward(weights) => Some(weights.groups()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }
}

fn compile(action: &route::Action, group: impl Fn(&str) -> Option<Arc<Group>>) -> Action {
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

    fn name(&self) -> &'a str {
        match self {
            Self::Exact(name) | Self::Suffix(name) => name,
            Self::Free => "",
        }
    }
}

/// Compiled rules.
#[derive(Clone, Default)]
pub struct Rules {
    exact: Index,
    suffix: Index,
    /// Rules with other host patterns, in priority order.
    free: Arc<Vec<Arc<Rule>>>,
    /// Rules without a condition on the host, or with one that only regular expressions answer; in priority order.
    any: Arc<Vec<Arc<Rule>>>,
}

impl Rules {
    /// Takes rules out and puts others in.
    pub fn change(&mut self, gone: &[Arc<Rule>], new: &[Arc<Rule>]) {
        for rule in gone {
            self.index(rule, Index::remove);
        }
        for rule in new {
            self.index(rule, Index::insert);
        }
        let is_free = |rule: &Arc<Rule>| {
            rule.hosts()
                .any(|host| matches!(Pattern::of(host), Pattern::Free))
        };
        exchange(&mut self.free, gone, new, is_free);
        exchange(&mut self.any, gone, new, |rule| rule.hosts().next().is_none());
    }

    fn index(&mut self, rule: &Arc<Rule>, put: fn(&mut Index, &str, &Arc<Rule>)) {
        for host in rule.hosts() {
            match Pattern::of(host) {
                Pattern::Exact(host) => put(&mut self.exact, host, rule),
                Pattern::Suffix(domain) => put(&mut self.suffix, domain, rule),
                Pattern::Free => {}
            }
        }
    }

    /// The first rule, by priority, whose conditions all hold.
    pub fn find(&self, ask: &Ask) -> Option<&Arc<Rule>> {
        let host = ask.host.as_str();
        let mut best: Option<&Arc<Rule>> = None;
        self.exact.best(host, ask, &mut best);
        if !self.suffix.is_empty() {
            for (dot, _) in host.match_indices('.') {
                self.suffix.best(&host[dot + 1..], ask, &mut best);
            }
        }
        let free = |rule: &&Arc<Rule>| {
            let mut patterns = rule
                .hosts()
                .filter(|host| matches!(Pattern::of(host), Pattern::Free));
            patterns.any(|pattern| matches(pattern, host)) && rule.fits(ask)
        };
        let sooner = |best: Option<&Arc<Rule>>, rule: &Arc<Rule>| {
            best.is_none_or(|best| rule.priority < best.priority)
        };
        let found = self.free.iter().take_while(|rule| sooner(best, rule)).find(free);
        best = found.or(best);
        let found = self
            .any
            .iter()
            .take_while(|rule| sooner(best, rule))
            .find(|rule| rule.fits(ask));
        found.or(best)
    }
}

/// Replaces rules in a list that is in priority order, if any of them belongs there.
fn exchange(
    list: &mut Arc<Vec<Arc<Rule>>>,
    gone: &[Arc<Rule>],
    new: &[Arc<Rule>],
    belongs: impl Fn(&Arc<Rule>) -> bool,
) {
    if !gone.iter().chain(new).any(&belongs) {
        return;
    }
    let gone: HashSet<u32> = gone
        .iter()
        .filter(|rule| belongs(rule))
        .map(|rule| rule.priority)
        .collect();
    let kept = list.iter().filter(|rule| !gone.contains(&rule.priority));
    let mut next: Vec<Arc<Rule>> = kept
        .chain(new.iter().filter(|rule| belongs(rule)))
        .cloned()
        .collect();
    next.sort_by_key(|rule| rule.priority);
    *list = Arc::new(next);
}

/// Parts of an index: a change copies one.
const PARTS: usize = 1024;

/// Other bits than the ones that the part itself goes by.
fn part_of(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

/// Rules by name. A name may have several.
#[derive(Clone, Default)]
struct Index {
    parts: Vec<Arc<HashTable<Entry>>>,
    hasher: RandomState,
}

/// A rule under a name, which is a part of the rule's text.
#[derive(Clone)]
struct Entry {
    rule: Arc<Rule>,
    start: u32,
    length: u32,
}

impl Entry {
    fn new(rule: &Arc<Rule>, name: &str) -> Option<Self> {
        let mut start = rule.place().len() + 1;
        for host in rule.hosts() {
            if Pattern::of(host).name() == name {
                // A suffix is the end of its pattern.
                let start = start + host.len() - name.len();
                return Some(Self {
                    rule: Arc::clone(rule),
                    start: u32::try_from(start).ok()?,
                    length: u32::try_from(name.len()).ok()?,
                });
            }
            start += host.len() + 1;
        }
        None
    }

    fn name(&self) -> &str {
        let start = self.start as usize;
        &self.rule.text[start..start + self.length as usize]
    }
}

impl Index {
    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn insert(&mut self, name: &str, rule: &Arc<Rule>) {
        if self.parts.is_empty() {
            let empty = Arc::new(HashTable::new());
            self.parts = vec![empty; PARTS];
        }
        let hash = self.hasher.hash_one(name);
        let part = Arc::make_mut(&mut self.parts[part_of(hash)]);
        let there = part.find(hash, |e| Arc::ptr_eq(&e.rule, rule) && e.name() == name);
        // A name that a rule has twice, or as `a` and `*.a`, needs one entry here.
        if let (None, Some(entry)) = (there, Entry::new(rule, name)) {
            let hasher = &self.hasher;
            part.insert_unique(hash, entry, |entry| hasher.hash_one(entry.name()));
        }
    }

    fn remove(&mut self, name: &str, rule: &Arc<Rule>) {
        let hash = self.hasher.hash_one(name);
        let Some(part) = self.parts.get_mut(part_of(hash)) else {
            return;
        };
        let part = Arc::make_mut(part);
        if let Ok(found) = part.find_entry(hash, |e| e.rule.priority == rule.priority && e.name() == name) {
            found.remove();
        }
    }

    fn best<'a>(&'a self, name: &str, ask: &Ask, best: &mut Option<&'a Arc<Rule>>) {
        let hash = self.hasher.hash_one(name);
        let Some(part) = self.parts.get(part_of(hash)) else {
            return;
        };
        for entry in part.iter_hash(hash) {
            let sooner = best.is_none_or(|best| entry.rule.priority < best.priority);
            if sooner && entry.name() == name && entry.rule.fits(ask) {
                *best = Some(&entry.rule);
            }
        }
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
