//! What is remembered of earlier runs of a branch's tests, and what the newest run says against it. Pure.

use std::collections::BTreeMap;

use model::port::{Coverage, Slower, TestChanges};
use serde::{Deserialize, Serialize};

use super::{Case, Outcome};

/// The largest history that is read back, compressed and not.
pub const PAST_BYTES: usize = 16 << 20;
/// So many tests of a group are remembered.
const TESTS: usize = 20_000;
/// So many outcomes of a test.
const OUTCOMES: usize = 10;
const DURATIONS: usize = 5;
/// So many runs without it, and a test is forgotten.
const ABSENT: u32 = 10;
/// So many names are told of each kind.
const TOLD: usize = 50;
/// A test is slower when it takes twice its usual time, and at least this much more.
const SLOWER_MS: u64 = 500;

/// By report group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Group {
    runs: u32,
    tests: BTreeMap<String, Past>,
    coverage: Option<Coverage>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Past {
    /// `P` and `F`, the newest last.
    outcomes: String,
    /// Of passes, the newest last.
    durations_ms: Vec<u64>,
    /// The run that it was in last.
    run: u32,
}

/// How one test ended in this run.
struct Now {
    failed: bool,
    duration_ms: u64,
}

impl History {
    /// What was written; nothing where that cannot be read.
    pub fn read(bytes: &[u8]) -> Self {
        let plain = zstd::bulk::decompress(bytes, PAST_BYTES).unwrap_or_default();
        serde_json::from_slice(&plain).unwrap_or_default()
    }

    /// `None`: it is too large to be read back.
    pub fn write(&self) -> Option<Vec<u8>> {
        let plain = serde_json::to_vec(self).expect("a history is plain data");
        let packed = zstd::bulk::compress(&plain, 3).ok()?;
        (plain.len() <= PAST_BYTES && packed.len() <= PAST_BYTES).then_some(packed)
    }

    /// Adds a run of a group, and tells how it differs from those before; `None` of the first.
    pub fn add(&mut self, group: &str, cases: &[Case], coverage: Option<&Coverage>) -> Option<TestChanges> {
        let group = self.groups.entry(group.to_owned()).or_default();
        let first = group.runs == 0;
        group.runs = group.runs.saturating_add(1);
        let mut changes = TestChanges {
            coverage_before_percent: group.coverage.as_ref().and_then(Coverage::lines_percent),
            ..TestChanges::default()
        };
        group.coverage = coverage.copied().or(group.coverage);
        for (name, now) in together(cases) {
            if group.tests.len() >= TESTS && !group.tests.contains_key(name) {
                continue;
            }
            let past = group.tests.entry(name.to_owned()).or_default();
            past.tell(name, &now, &mut changes);
            past.add(&now, group.runs);
        }
        let runs = group.runs;
        group
            .tests
            .retain(|_, past| past.run.saturating_add(ABSENT) > runs);
        (!first).then_some(changes)
    }
}

/// Tests of one name, such as those of several parameters, are one that fails with any of them. Skipped ones say nothing.
fn together(cases: &[Case]) -> BTreeMap<&str, Now> {
    let mut all: BTreeMap<&str, Now> = BTreeMap::new();
    for case in cases {
        let failed = match case.outcome {
            Outcome::Skipped => continue,
            Outcome::Passed => false,
            Outcome::Failed(_) => true,
        };
        let now = all.entry(&case.name).or_insert(Now {
            failed: false,
            duration_ms: 0,
        });
        now.failed |= failed;
        now.duration_ms = now.duration_ms.saturating_add(case.duration_ms);
    }
    all
}

impl Past {
    fn tell(&self, name: &str, now: &Now, changes: &mut TestChanges) {
        let told = |list: &mut Vec<String>| {
            if list.len() < TOLD {
                list.push(name.to_owned());
            }
        };
        let failed_before = self.outcomes.ends_with('F');
        if now.failed && self.outcomes.ends_with('P') {
            told(&mut changes.broke);
        }
        match now.failed {
            true if !failed_before => told(&mut changes.new_failures),
            false if failed_before => told(&mut changes.fixed),
            _ => {}
        }
        // Back and forth: from one outcome to the other and back again.
        let with_now = self.outcomes.chars().chain([letter(now.failed)]);
        let all: Vec<char> = with_now.collect();
        if all.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 2 {
            told(&mut changes.flaky);
        }
        let mut usual = self.durations_ms.clone();
        usual.sort_unstable();
        if let Some(&before_ms) = usual.get(usual.len() / 2)
            && !now.failed
            && now.duration_ms >= before_ms.saturating_mul(2)
            && now.duration_ms - before_ms >= SLOWER_MS
            && changes.slower.len() < TOLD
        {
            changes.slower.push(Slower {
                name: name.to_owned(),
                before_ms,
                after_ms: now.duration_ms,
            });
        }
    }

    fn add(&mut self, now: &Now, run: u32) {
        self.outcomes.push(letter(now.failed));
        let more = self.outcomes.len().saturating_sub(OUTCOMES);
        self.outcomes.drain(..more);
        if !now.failed {
            self.durations_ms.push(now.duration_ms);
            let more = self.durations_ms.len().saturating_sub(DURATIONS);
            self.durations_ms.drain(..more);
        }
        self.run = run;
    }
}

fn letter(failed: bool) -> char {
    if failed { 'F' } else { 'P' }
}
