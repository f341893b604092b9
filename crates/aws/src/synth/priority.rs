//! Priorities of listener rules: given once, kept for good.

use std::collections::{BTreeMap, BTreeSet};

use model::Digest;
use serde::{Deserialize, Serialize};

use super::Error;

/// A listener has room for so many.
const MAX: u32 = 50_000;

/// What was given so far: listener, then rule, to priority. It goes in with every synthesis and comes out with what is new.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priorities(BTreeMap<String, BTreeMap<String, u32>>);

impl Priorities {
    /// The priority on the listener of the rule for a host of `owner`: the one that it has, or the lowest that is free.
    /// One host has one owner: `a-b` in `c` and `a` in `b-c` would both be `a-b-c`.
    pub(super) fn of(&mut self, listener: &str, owner: &str, host: &str) -> Result<u32, Error> {
        let given = self.0.entry(listener.to_owned()).or_default();
        let rule = &format!("{owner}/{host}");
        let is_for_host = |key: &str| {
            let owner = key.strip_suffix(host);
            owner.is_some_and(|owner| owner.is_empty() || owner.ends_with('/'))
        };
        let other = given.keys().find(|key| is_for_host(key) && *key != rule);
        if let Some(other) = other {
            let why = format!(
                "`{host}` is asked for by {owner} and was given to {}",
                other.trim_end_matches(host).trim_end_matches('/')
            );
            return Err(Error::config(format!("priorities.{listener}"), why));
        }
        if let Some(priority) = given.get(rule) {
            return match (1..=MAX).contains(priority) {
                true => Ok(*priority),
                false => Err(Error::config(
                    format!("priorities.{listener}.{rule}"),
                    format!("it must be from 1 to {MAX}"),
                )),
            };
        }
        // Among one number more than are given one is free.
        let mut taken = vec![false; given.len() + 1];
        for priority in given.values() {
            if let Some(own) = taken.get_mut((*priority as usize).wrapping_sub(1)) {
                *own = true;
            }
        }
        let free = (1..=MAX / 2).zip(taken).find(|(_, is_taken)| !is_taken);
        let full = || {
            Error::config(
                format!("priorities.{listener}"),
                format!("all {} are given", MAX / 2),
            )
        };
        let (priority, _) = free.ok_or_else(full)?;
        given.insert(rule.to_owned(), priority);
        Ok(priority)
    }

    /// The priority of a rule that comes and goes with a branch: of the upper half, by a digest, so that nobody has to keep
    /// it. Where that is another's by then, [`Self::free`] finds the next one.
    pub(super) fn of_branch(owner: &str, host: &str) -> u32 {
        let digest = Digest::of(format!("{owner}/{host}"));
        let bytes = digest.as_bytes();
        let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        MAX / 2 + 1 + number % (MAX / 2)
    }

    /// The priority of a branch's rule for `hosts` on a listener with these rules: the one that it has, else the first that
    /// nobody has from `wanted` on, round through the upper half. None: all of it is taken.
    pub(super) fn free(wanted: u32, hosts: &[&str], rules: &BTreeMap<u32, Vec<String>>) -> Option<u32> {
        let half = MAX / 2;
        let is_own =
            |given: &[String]| !given.is_empty() && given.iter().all(|host| hosts.contains(&host.as_str()));
        let own = rules
            .iter()
            .find(|(priority, given)| **priority > half && is_own(given));
        if let Some((priority, _)) = own {
            return Some(*priority);
        }
        let mut candidates = (0..half).map(|step| half + 1 + (wanted.saturating_sub(half + 1) + step) % half);
        candidates.find(|priority| !rules.contains_key(priority))
    }

    /// Is it written down which priority this rule of `owner` has on the listener?
    pub(super) fn has(&self, listener: &str, owner: &str, host: &str) -> bool {
        let given = self.0.get(listener);
        given.is_some_and(|given| given.contains_key(&format!("{owner}/{host}")))
    }

    /// Writes down which priority a rule of `owner` gets on a listener with these rules, among which may be those of apps
    /// whose files nobody here has. What was `known` before keeps its number where that is its own or nobody's; what is new
    /// keeps that of a rule for its hosts, if its stack `stands`. Else it is the lowest that nobody has. None: all are taken.
    pub(super) fn settle(
        &mut self,
        listener: &str,
        owner: &str,
        hosts: &[String],
        (known, stands): (bool, bool),
        rules: &BTreeMap<u32, Vec<String>>,
    ) -> Option<u32> {
        let key = format!("{owner}/{}", hosts.first()?);
        let given = self.0.entry(listener.to_owned()).or_default();
        let wanted = given.get(&key).copied();
        let is_own = |own: &[String]| stands && own.iter().any(|host| hosts.contains(host));
        let there = || {
            let mut own = rules.iter().filter(|(_, hosts)| is_own(hosts));
            own.next().map(|(priority, _)| *priority)
        };
        let kept = || wanted.filter(|own| rules.get(own).is_none_or(|hosts| is_own(hosts)));
        let free = || {
            let taken: BTreeSet<u32> = given.values().chain(rules.keys()).copied().collect();
            (1..=MAX / 2).find(|priority| !taken.contains(priority))
        };
        let before = match known {
            true => kept().or_else(there),
            false => there().or_else(kept),
        };
        let priority = before.or_else(free)?;
        // A line that had it is another's no more: it was not asked, or is asked next.
        given.retain(|_, own| *own != priority);
        given.insert(key, priority);
        Some(priority)
    }

    /// Refuses a file in which two rules of a listener have the same priority.
    pub fn check(&self) -> Result<(), Error> {
        for (listener, given) in &self.0 {
            let mut seen = BTreeMap::new();
            for (rule, priority) in given {
                if let Some(other) = seen.insert(priority, rule) {
                    let why = format!("`{other}` and `{rule}` both have {priority}");
                    return Err(Error::config(format!("priorities.{listener}"), why));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_kept_and_a_free_one_is_given() {
        let mut priorities: Priorities = serde_json::from_str(r#"{"p":{"x/y/a":1,"x/y/c":3}}"#).unwrap();
        assert_eq!(priorities.of("p", "x/y", "c"), Ok(3));
        assert_eq!(priorities.of("p", "x/y", "b"), Ok(2));
        assert_eq!(priorities.of("p", "x/y", "d"), Ok(4));
        assert_eq!(priorities.of("q", "x/z", "d"), Ok(1));
        assert_eq!(priorities.of("p", "x/y", "b"), Ok(2));
        assert_eq!(priorities.check(), Ok(()));
        let taken = priorities.of("p", "z/z", "b").unwrap_err().to_string();
        assert!(
            taken.ends_with("`b` is asked for by z/z and was given to x/y"),
            "{taken}"
        );
    }

    #[test]
    fn a_branch_gets_what_it_has_or_the_next_that_is_free() {
        let rules = |all: &[(u32, &str)]| {
            all.iter()
                .map(|(own, host)| (*own, vec![(*host).to_owned()]))
                .collect()
        };
        let free = |wanted, all: &[(u32, &str)]| Priorities::free(wanted, &["a", "b"], &rules(all));
        assert_eq!(free(30_000, &[]), Some(30_000));
        assert_eq!(free(30_000, &[(30_000, "x"), (30_001, "y")]), Some(30_002));
        assert_eq!(free(30_000, &[(30_000, "x"), (30_007, "b")]), Some(30_007));
        assert_eq!(free(50_000, &[(50_000, "x"), (25_001, "y")]), Some(25_002));
        // The lower half is for rules that are written down.
        assert_eq!(free(30_000, &[(7, "a")]), Some(30_000));
        let full: Vec<(u32, &str)> = (25_001..=50_000).map(|own| (own, "x")).collect();
        assert_eq!(free(30_000, &full), None);
    }

    #[test]
    fn what_is_written_down_gives_way_to_rules_of_other_apps() {
        let rules = |all: &[(u32, &str)]| -> BTreeMap<u32, Vec<String>> {
            let own = all.iter();
            own.map(|(own, host)| (*own, vec![(*host).to_owned()])).collect()
        };
        let settled = |file: &str, (known, stands), there: &[(u32, &str)]| {
            let mut priorities: Priorities = serde_json::from_str(file).unwrap();
            let hosts = ["a".to_owned(), "bare".to_owned()];
            let own = priorities.settle("p", "x/y", &hosts, (known, stands), &rules(there));
            assert_eq!(priorities.check(), Ok(()));
            (own.unwrap(), serde_json::to_string(&priorities).unwrap())
        };
        let alone = r#"{"p":{"x/y/a":1}}"#;
        let two = r#"{"p":{"x/y/a":1,"x/z/c":2}}"#;
        // A new rule takes what neither a rule there nor a line of the file has.
        assert_eq!(settled(two, (false, false), &[]).0, 1);
        assert_eq!(settled(two, (false, false), &[(1, "other"), (3, "other")]).0, 4);
        assert_eq!(
            settled(alone, (false, false), &[(1, "other")]).1,
            r#"{"p":{"x/y/a":2}}"#
        );
        // So does one whose line is older than its stack, or whose change failed.
        assert_eq!(settled(alone, (true, false), &[(1, "other")]).0, 2);
        assert_eq!(settled(alone, (true, true), &[(1, "other")]).0, 2);
        // What stands keeps what it has, also without its line, and with one host of two.
        assert_eq!(settled("{}", (false, true), &[(1, "other"), (7, "a")]).0, 7);
        assert_eq!(settled(alone, (false, true), &[(1, "other"), (7, "bare")]).0, 7);
        assert_eq!(settled(alone, (true, true), &[(1, "a")]).0, 1);
        // A line that is changed by hand counts where nobody has that number.
        assert_eq!(settled(alone, (true, true), &[(5, "a")]).0, 1);
        // Two lines never have one number.
        let taken = settled(two, (false, true), &[(2, "a")]);
        assert_eq!(taken, (2, r#"{"p":{"x/y/a":2}}"#.to_owned()));
        let full: Vec<(u32, &str)> = (1..=25_000).map(|own| (own, "other")).collect();
        let mut priorities = Priorities::default();
        let hosts = ["a".to_owned()];
        let none = priorities.settle("p", "x/y", &hosts, (false, false), &rules(&full));
        assert_eq!(none, None);
    }

    #[test]
    fn a_file_that_was_edited_wrongly_is_refused() {
        let twice: Priorities = serde_json::from_str(r#"{"p":{"a":1,"b":1}}"#).unwrap();
        assert!(twice.check().is_err());
        let mut zero: Priorities = serde_json::from_str(r#"{"p":{"x/y/a":0}}"#).unwrap();
        assert!(zero.of("p", "x/y", "a").is_err());
    }
}
