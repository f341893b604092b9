//! In which order units start. Pure: what a unit wants is a function.

use std::collections::BTreeSet;

use super::unit::Links;

/// Most units that one start may pull in.
const UNITS: usize = 500;

/// One unit to start, and those that cannot do without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub unit: String,
    pub required_by: Vec<String>,
}

/// The units that a unit needs and wants, in an order that `After=` and `Before=` ask for, the unit itself among them.
/// Where they ask for nothing, what is needed comes first. `links` is `None` for what has no file. Units that ask for each
/// other in a circle start in the order in which they were found.
pub fn order(unit: &str, links: impl Fn(&str) -> Option<Links>) -> Vec<Step> {
    let mut waiting = Vec::new();
    gather(unit, &links, &mut BTreeSet::new(), &mut waiting);
    let mut steps = Vec::new();
    while !waiting.is_empty() {
        let next = next(&waiting);
        let Waiting { unit, .. } = waiting.remove(next);
        steps.push(unit);
    }
    let required_by = |unit: &str| {
        steps
            .iter()
            .filter(|other| requires(&links, other, unit))
            .cloned()
            .collect()
    };
    let step = |unit: &String| Step {
        required_by: required_by(unit),
        unit: unit.clone(),
    };
    steps.iter().map(step).collect()
}

/// A unit that has no place yet.
struct Waiting {
    unit: String,
    links: Links,
}

impl Waiting {
    /// Do the files say that this one comes after another?
    fn follows(&self, other: &Self) -> bool {
        self.links.after.contains(&other.unit) || other.links.before.contains(&self.unit)
    }

    fn needs(&self, other: &Self) -> bool {
        let needs = self.links.requires.contains(&other.unit) || self.links.wants.contains(&other.unit);
        needs && !other.follows(self)
    }
}

/// All that a unit pulls in, what it needs before itself.
fn gather(
    unit: &str,
    links: &impl Fn(&str) -> Option<Links>,
    seen: &mut BTreeSet<String>,
    into: &mut Vec<Waiting>,
) {
    if seen.len() >= UNITS || !seen.insert(unit.to_owned()) {
        return;
    }
    let own = links(unit).unwrap_or_default();
    let others: BTreeSet<&String> = own.requires.iter().chain(&own.wants).collect();
    for other in others {
        gather(other, links, seen, into);
    }
    into.push(Waiting {
        unit: unit.to_owned(),
        links: own,
    });
}

/// The first that follows nobody who waits, and better one that needs nobody who waits either.
fn next(waiting: &[Waiting]) -> usize {
    let free = |unit: &&Waiting| {
        !waiting
            .iter()
            .any(|other| other.unit != unit.unit && unit.follows(other))
    };
    let content = |unit: &&Waiting| {
        !waiting
            .iter()
            .any(|other| other.unit != unit.unit && unit.needs(other))
    };
    let place = |unit: &Waiting| waiting.iter().position(|own| own.unit == unit.unit);
    let found = waiting
        .iter()
        .find(|unit| free(unit) && content(unit))
        .or_else(|| waiting.iter().find(free));
    found.and_then(place).unwrap_or(0)
}

fn requires(links: &impl Fn(&str) -> Option<Links>, unit: &str, other: &str) -> bool {
    links(unit).is_some_and(|links| links.requires.iter().any(|name| name == other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a: requires b, wants c, after d, before e` by lines.
    fn steps(unit: &str, text: &str) -> Vec<String> {
        let links = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}:")))?;
            let mut links = Links::default();
            for part in line.split(',') {
                match part.trim().split_once(' ') {
                    Some(("requires", other)) => links.requires.push(other.to_owned()),
                    Some(("wants", other)) => links.wants.push(other.to_owned()),
                    Some(("after", other)) => links.after.push(other.to_owned()),
                    Some(("before", other)) => links.before.push(other.to_owned()),
                    _ => {}
                }
            }
            Some(links)
        };
        order(unit, links).into_iter().map(|step| step.unit).collect()
    }

    #[test]
    fn what_is_needed_starts_first_unless_it_says_otherwise() {
        assert_eq!(
            steps("a", "a: requires b, wants c\nb: wants d"),
            ["d", "b", "c", "a"]
        );
        assert_eq!(steps("a", "a: wants b, before b"), ["a", "b"]);
        assert_eq!(steps("a", "a: wants b\nb: after a"), ["a", "b"]);
        assert_eq!(steps("a", "a: wants b, wants c\nb: after c"), ["c", "b", "a"]);
        assert_eq!(steps("a", "a: requires b\nb: requires a"), ["b", "a"]);
        // Through several, and where what is needed must follow who needs it.
        assert_eq!(
            steps("a", "a: wants b, wants c, wants d\nb: after c\nc: after d"),
            ["d", "c", "b", "a"]
        );
        assert_eq!(
            steps("a", "a: wants b\nb: after c, wants c\nc: after a"),
            ["a", "c", "b"]
        );
        assert_eq!(steps("a", "a: after b, wants b\nb: after a"), ["b", "a"]);
    }

    #[test]
    fn who_cannot_do_without_is_known() {
        let links = |name: &str| {
            let own = |requires: &[&str], wants: &[&str]| Links {
                requires: requires.iter().map(|name| (*name).to_owned()).collect(),
                wants: wants.iter().map(|name| (*name).to_owned()).collect(),
                ..Links::default()
            };
            match name {
                "a" => Some(own(&["b", "d"], &["c"])),
                "d" => Some(own(&["b"], &[])),
                _ => None,
            }
        };
        let steps: Vec<(String, Vec<String>)> = order("a", links)
            .into_iter()
            .map(|step| (step.unit, step.required_by))
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            steps,
            [
                ("b".to_owned(), names(&["d", "a"])),
                ("c".to_owned(), names(&[])),
                ("d".to_owned(), names(&["a"])),
                ("a".to_owned(), names(&[])),
            ]
        );
    }
}
