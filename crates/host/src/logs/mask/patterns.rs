//! Many byte strings that are looked for at once.

use std::{ops::Range, sync::Arc};

use aho_corasick::AhoCorasick;

/// Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns {
    all: Arc<[Vec<u8>]>,
    search: Option<AhoCorasick>,
}

impl Patterns {
    /// None of them is empty.
    pub fn new(patterns: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut all: Vec<Vec<u8>> = patterns.collect();
        all.sort_unstable();
        all.dedup();
        let search = (!all.is_empty())
            .then(|| AhoCorasick::new(&all).expect("secrets fit the search: their sizes are bounded"));
        let all = all.into();
        Self { all, search }
    }

    pub fn is_empty(&self) -> bool {
        self.search.is_none()
    }

    /// Where they stand, those that overlap each.
    pub fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let search = self.search.iter();
        search.flat_map(move |search| search.find_overlapping_iter(text).map(|found| found.range()))
    }

    /// The length of the longest end of a text that one of them begins with.
    pub fn beginning(&self, text: &[u8]) -> usize {
        self.beginning_where(text, |_| true)
    }

    /// The same, of the lengths for which this holds.
    pub fn beginning_where(&self, text: &[u8], holds: impl Fn(usize) -> bool) -> usize {
        let begins = |pattern: &[u8]| {
            let longest = text.len().min(pattern.len() - 1);
            let end = &text[text.len() - longest..];
            // A secret has many forms, and its first byte is rare: most places are passed over at once.
            let mut starts = (0..longest).filter(|&start| end[start] == pattern[0]);
            starts
                .find(|&start| pattern.starts_with(&end[start..]) && holds(longest - start))
                .map_or(0, |start| longest - start)
        };
        self.all.iter().map(|pattern| begins(pattern)).max().unwrap_or(0)
    }
}
