//! Rules by name: many small parts, of which a change makes those anew in which its names are. A part is two lists side
//! by side in the order of hashes, without a gap: twelve bytes a name. Where a rule has many names a third list says which
//! of them it is, so that a request costs the same however many there are.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::Rule;

/// Parts of an index.
const PARTS: usize = 1024;
/// A rule with more patterns is not searched for the one that was meant.
const FEW: usize = 8;

/// A name may have several rules, and a rule several names.
#[derive(Clone, Default)]
pub struct Index {
    parts: Vec<Arc<Part>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Part {
    /// Of names, ascending.
    hashes: Box<[u32]>,
    /// For each of them.
    rules: Box<[Rule]>,
    /// Which of them are names of rules with many, ascending, and where in the rule their patterns begin.
    many: Box<[(u32, u32)]>,
}

/// One name of a rule.
#[derive(Clone, Copy)]
struct Entry<'a> {
    hash: u32,
    rule: &'a Rule,
    /// Where its pattern begins in the rule; 0: it is one of few.
    at: u32,
}

impl<'a> Entry<'a> {
    /// By hash, and by rule where that is the same. One pattern that a rule has twice is one, wherever it is.
    fn key(&self) -> (u32, u32, &'a [u8]) {
        let pattern = match self.at {
            0 => &[],
            at => self.rule.host_at(at).as_bytes(),
        };
        (self.hash, self.rule.priority, pattern)
    }
}

/// What becomes of one part.
#[derive(Default)]
struct Turn<'a> {
    /// Hashes with the priorities of rules that leave them.
    gone: HashSet<(u32, u32)>,
    new: Vec<Entry<'a>>,
}

impl Index {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes rules out and puts others in, under the names that `name` makes of their patterns.
    pub fn change<'a>(
        &mut self,
        gone: &'a [Rule],
        new: &'a [Rule],
        name: impl Fn(&'a str) -> Option<&'a str>,
    ) {
        let mut turns: BTreeMap<usize, Turn> = BTreeMap::new();
        let names = |rules: &'a [Rule]| {
            rules
                .iter()
                .flat_map(|rule| rule.hosts().map(move |host| (rule, host)))
        };
        for (rule, host) in names(gone) {
            if let Some((part, hash)) = name(host).map(|name| self.place(name.as_bytes())) {
                let turn = turns.entry(part).or_default();
                turn.gone.insert((hash, rule.priority));
            }
        }
        for rule in new {
            let many = rule.hosts().nth(FEW).is_some();
            for (at, host) in rule.hosts_at() {
                if let Some((part, hash)) = name(host).map(|name| self.place(name.as_bytes())) {
                    let at = if many { at } else { 0 };
                    turns.entry(part).or_default().new.push(Entry { hash, rule, at });
                }
            }
        }
        if self.parts.is_empty() && !turns.is_empty() {
            let empty = Arc::new(Part::default());
            self.parts = vec![empty; PARTS];
        }
        for (part, turn) in turns {
            self.parts[part] = Arc::new(self.parts[part].turned(turn));
        }
    }

    /// The part of a name, and its hash there: other bits than the ones that the part itself goes by.
    fn place(&self, name: &[u8]) -> (usize, u32) {
        let hash = self.hasher.hash_one(name);
        ((hash >> 32) as usize % PARTS, hash as u32)
    }

    /// Puts the first rule of this name that fits in the place of `best`, if it comes before that. `name` makes the name
    /// of a pattern.
    pub fn best<'a>(
        &'a self,
        wanted: &str,
        fits: impl Fn(&Rule) -> bool,
        best: &mut Option<&'a Rule>,
        name: impl Fn(&[u8]) -> Option<&[u8]>,
    ) {
        let wanted = wanted.as_bytes();
        let (part, hash) = self.place(wanted);
        let Some(part) = self.parts.get(part) else { return };
        let first = part.hashes.partition_point(|held| *held < hash);
        let is_wanted = |pattern| name(pattern) == Some(wanted);
        for Entry { rule, at, .. } in part.entries(first).take_while(|entry| entry.hash == hash) {
            let sooner = best.is_none_or(|best| rule.priority < best.priority);
            let named = || match at {
                0 => Rule::bytes(rule).split(|b| *b == b'\n').skip(1).any(is_wanted),
                at => is_wanted(rule.host_at(at).as_bytes()),
            };
            if sooner && named() && fits(rule) {
                *best = Some(rule);
            }
        }
    }
}

impl Part {
    /// From one of them on.
    fn entries(&self, first: usize) -> impl Iterator<Item = Entry<'_>> {
        let mut many = &self.many[self.many.partition_point(|(index, _)| (*index as usize) < first)..];
        let named = self.hashes[first..].iter().zip(&self.rules[first..]);
        (first..).zip(named).map(move |(index, (hash, rule))| {
            let at = match many.split_first() {
                Some(((next, at), rest)) if *next as usize == index => {
                    many = rest;
                    *at
                }
                _ => 0,
            };
            Entry {
                hash: *hash,
                rule,
                at,
            }
        })
    }

    fn turned(&self, turn: Turn) -> Self {
        let mut all: Vec<Entry> = self
            .entries(0)
            .filter(|held| !turn.gone.contains(&(held.hash, held.rule.priority)))
            .chain(turn.new)
            .collect();
        all.sort_by_key(Entry::key);
        // A name that a rule has twice, or two of its few names with one hash, need one entry.
        all.dedup_by_key(|entry| entry.key());
        let many = (0..).zip(&all).filter(|(_, entry)| entry.at > 0);
        Self {
            hashes: all.iter().map(|entry| entry.hash).collect(),
            rules: all.iter().map(|entry| Rule::clone(entry.rule)).collect(),
            many: many.map(|(index, entry)| (index, entry.at)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn rule(priority: u32, hosts: Vec<String>) -> Rule {
        let action = model::route::Action::FixedResponse {
            status: 200,
            content_type: "text/plain".into(),
            body: String::new(),
        };
        let rule = model::route::Rule {
            priority,
            place: "acme/shop/dev".parse().unwrap(),
            hosts,
            paths: Vec::new(),
            conditions: Default::default(),
            transforms: Default::default(),
            access: Vec::new(),
            own: Default::default(),
            authenticate: None,
            action,
        };
        Rule::new(&rule, |_| None)
    }

    #[test]
    fn one_of_many_names_is_found_without_a_look_at_the_others() {
        let hosts = |count: u32| (0..count).map(|n| format!("h{n}.test"));
        // One that it has twice is one.
        let large = rule(2, hosts(5_000).chain(hosts(5_000)).collect());
        let few = rule(3, hosts(8).collect());
        let mut index = Index::default();
        index.change(&[], &[large.clone(), few.clone()], Some);
        let entries = |index: &Index| index.parts.iter().map(|part| part.rules.len()).sum::<usize>();
        assert_eq!(entries(&index), 5_008);
        let found = |index: &Index, host: &str| {
            let (mut best, looks) = (None, Cell::new(0));
            index.best(
                host,
                |_| true,
                &mut best,
                |pattern| {
                    looks.set(looks.get() + 1);
                    Some(pattern)
                },
            );
            (best.map(|rule| rule.priority), looks.get())
        };
        for n in [0, 7, 8, 2_500, 4_999] {
            let (best, looks) = found(&index, &format!("h{n}.test"));
            assert_eq!(best, Some(2));
            // Another name may have the same hash, but hardly ever.
            assert!(looks <= 1 + FEW, "{looks} patterns were looked at");
        }
        assert_eq!(found(&index, "h5000.test").0, None);
        index.change(&[large], &[], Some);
        assert_eq!(entries(&index), 8);
        assert_eq!(found(&index, "h7.test").0, Some(3));
        assert_eq!(found(&index, "h8.test").0, None);
    }
}
