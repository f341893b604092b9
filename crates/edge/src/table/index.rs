//! Rules by name: many small parts, of which a change makes those anew in which its names are. A part is two lists side
//! by side in the order of hashes, without a gap: twelve bytes a name.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::Rule;
use crate::head::Ask;

/// Parts of an index.
const PARTS: usize = 1024;

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
}

/// What becomes of one part.
#[derive(Default)]
struct Turn<'a> {
    /// Hashes with the priorities of rules that leave them.
    gone: HashSet<(u32, u32)>,
    new: Vec<(u32, &'a Rule)>,
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
        for (rule, host) in names(new) {
            if let Some((part, hash)) = name(host).map(|name| self.place(name.as_bytes())) {
                turns.entry(part).or_default().new.push((hash, rule));
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

    /// Puts the first rule of this name in the place of `best`, if it comes before that. `name` makes the name of a
    /// pattern.
    pub fn best<'a>(
        &'a self,
        wanted: &str,
        ask: &Ask,
        best: &mut Option<&'a Rule>,
        name: impl Fn(&[u8]) -> Option<&[u8]>,
    ) {
        let wanted = wanted.as_bytes();
        let (part, hash) = self.place(wanted);
        let Some(part) = self.parts.get(part) else { return };
        let first = part.hashes.partition_point(|held| *held < hash);
        let hashes = part.hashes[first..].iter();
        let rules = hashes.take_while(|held| **held == hash).zip(&part.rules[first..]);
        for (_, rule) in rules {
            let sooner = best.is_none_or(|best| rule.priority < best.priority);
            let mut patterns = Rule::bytes(rule).split(|b| *b == b'\n').skip(1);
            if sooner && patterns.any(|pattern| name(pattern) == Some(wanted)) && rule.fits(ask) {
                *best = Some(rule);
            }
        }
    }
}

impl Part {
    fn turned(&self, turn: Turn) -> Self {
        let held = self.hashes.iter().copied().zip(&self.rules);
        let mut all: Vec<(u32, &Rule)> = held
            .filter(|(hash, rule)| !turn.gone.contains(&(*hash, rule.priority)))
            .chain(turn.new)
            .collect();
        all.sort_by_key(|(hash, rule)| (*hash, rule.priority));
        // A name that a rule has twice, or two of its names with one hash, need one entry.
        all.dedup_by_key(|(hash, rule)| (*hash, rule.priority));
        Self {
            hashes: all.iter().map(|(hash, _)| *hash).collect(),
            rules: all.iter().map(|(_, rule)| Rule::clone(rule)).collect(),
        }
    }
}
