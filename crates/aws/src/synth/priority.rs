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
        let other = given
            .keys()
            .find(|key| *key != rule && key.rsplit('/').next() == Some(host));
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
        let taken: BTreeSet<u32> = given.values().copied().collect();
        let free = (1..=MAX / 2).find(|priority| !taken.contains(priority));
        let full = || {
            Error::config(
                format!("priorities.{listener}"),
                format!("all {} are given", MAX / 2),
            )
        };
        let priority = free.ok_or_else(full)?;
        given.insert(rule.to_owned(), priority);
        Ok(priority)
    }

    /// The priority of a rule that comes and goes with a branch: of the upper half, by a digest, so that nobody has to keep
    /// it. Two of a hundred such rules have the same with a probability of one in five; the second is then not made.
    pub(super) fn of_branch(owner: &str, host: &str) -> u32 {
        let digest = Digest::of(format!("{owner}/{host}"));
        let bytes = digest.as_bytes();
        let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        MAX / 2 + 1 + number % (MAX / 2)
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
    fn a_file_that_was_edited_wrongly_is_refused() {
        let twice: Priorities = serde_json::from_str(r#"{"p":{"a":1,"b":1}}"#).unwrap();
        assert!(twice.check().is_err());
        let mut zero: Priorities = serde_json::from_str(r#"{"p":{"x/y/a":0}}"#).unwrap();
        assert!(zero.of("p", "x/y", "a").is_err());
    }
}
