//! What a build tells of its tests one by one, to be compared with earlier runs. It tells as much as it likes; what is
//! held of that is bounded. Pure.

use std::collections::BTreeMap;

use super::{
    console::{REPORTS, TEXT, bounded},
    report::{Case, Outcome, TEXT_CHARS},
};

/// So many tests are held of all groups together.
const CASES: usize = 20_000;
/// So many bytes of their names: with what is remembered of each, less than is read back of a history.
const NAMES_BYTES: usize = 8 << 20;

/// Tests by report group, of so many groups as there are reports.
#[derive(Debug, Default)]
pub(super) struct Told {
    groups: BTreeMap<String, Vec<Case>>,
    cases: usize,
    names_bytes: usize,
    dropped: usize,
}

impl Told {
    /// Takes tests of a group as far as there is room for them.
    pub fn add(&mut self, group: String, cases: impl IntoIterator<Item = Case>) {
        let group = bounded(group, TEXT);
        if self.groups.len() >= REPORTS && !self.groups.contains_key(&group) {
            self.dropped = self.dropped.saturating_add(cases.into_iter().count());
            return;
        }
        let own = self.groups.entry(group).or_default();
        for case in cases {
            let name = bounded(case.name, TEXT_CHARS);
            let names_bytes = self.names_bytes + name.len();
            if self.cases >= CASES || names_bytes > NAMES_BYTES {
                self.dropped = self.dropped.saturating_add(1);
                continue;
            }
            self.cases += 1;
            self.names_bytes = names_bytes;
            own.push(Case {
                name,
                duration_ms: case.duration_ms,
                // What is compared is whether it failed.
                outcome: match case.outcome {
                    Outcome::Failed(_) => Outcome::Failed(String::new()),
                    other => other,
                },
            });
        }
    }

    pub fn of(&self, group: &str) -> &[Case] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }

    /// For the log, when there was no room for all.
    pub fn said(&self) -> Option<String> {
        (self.dropped > 0).then(|| {
            format!(
                "{} tests are not compared with earlier runs: at most {CASES} of {REPORTS} report groups are, with {} MiB of names",
                self.dropped,
                NAMES_BYTES >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: impl Into<String>) -> Case {
        Case {
            name: name.into(),
            duration_ms: 1,
            outcome: Outcome::Passed,
        }
    }

    #[test]
    fn groups_of_tests_are_bounded() {
        let mut told = Told::default();
        for number in 0..2 * REPORTS {
            told.add(format!("group-{number}"), [case("one")]);
        }
        told.add("group-0".to_owned(), [case("two")]);
        assert_eq!(told.groups.len(), REPORTS);
        assert_eq!(told.of("group-0").len(), 2, "of one that is there all are taken");
        assert_eq!(told.dropped, REPORTS);
    }

    #[test]
    fn tests_are_bounded_in_number_and_bytes() {
        for (name, kept) in [
            ("n".repeat(10), CASES),
            // An ellipsis has three bytes.
            ("n".repeat(4090), NAMES_BYTES / (TEXT_CHARS + 3)),
        ] {
            let mut told = Told::default();
            for group in ["unit", "other"] {
                told.add(group.to_owned(), (0..CASES).map(|_| case(name.as_str())));
            }
            assert_eq!(told.groups.values().map(Vec::len).sum::<usize>(), kept);
            assert!(
                told.groups
                    .values()
                    .flatten()
                    .all(|case| case.name.len() <= TEXT_CHARS + 3)
            );
            assert_eq!(told.dropped, 2 * CASES - kept);
        }
    }
}
