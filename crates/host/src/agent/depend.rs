//! In which order units start. Pure: what a unit wants is a function.

use std::collections::BTreeSet;

use super::unit::Links;

/// Most units that one start may pull in.
const UNITS: usize = 500;

/// One unit to start, and which one cannot do without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub unit: String,
    pub required_by: Option<String>,
}

/// The units that a unit needs and wants, in an order that `After=` and `Before=` ask for, the unit itself among them.
/// `links` is `None` for what has no file. Units that ask for each other in a circle start in the order of their names.
pub fn order(unit: &str, links: impl Fn(&str) -> Option<Links>) -> Vec<Step> {
    let mut walk = Walk {
        links: &links,
        seen: BTreeSet::new(),
        steps: Vec::new(),
    };
    walk.visit(unit, None);
    walk.steps
}

struct Walk<'a, F> {
    links: &'a F,
    seen: BTreeSet<String>,
    steps: Vec<Step>,
}

impl<F: Fn(&str) -> Option<Links>> Walk<'_, F> {
    fn visit(&mut self, unit: &str, required_by: Option<&str>) {
        if self.seen.len() >= UNITS || !self.seen.insert(unit.to_owned()) {
            return;
        }
        let links = (self.links)(unit).unwrap_or_default();
        let mut others: Vec<(&String, bool)> = links.requires.iter().map(|other| (other, true)).collect();
        others.extend(links.wants.iter().map(|other| (other, false)));
        others.sort();
        others.dedup_by(|a, b| a.0 == b.0);
        let (later, mut first): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(other, _)| self.comes_after(unit, &links, other));
        // Among those that come first, each after what it names.
        first.sort_by_key(|(other, _)| {
            let own = (self.links)(other).unwrap_or_default();
            links_count(&own, &links)
        });
        for (other, required) in first {
            self.visit(other, required.then_some(unit));
        }
        self.steps.push(Step {
            unit: unit.to_owned(),
            required_by: required_by.map(str::to_owned),
        });
        for (other, required) in later {
            self.visit(other, required.then_some(unit));
        }
    }

    fn comes_after(&self, unit: &str, links: &Links, other: &str) -> bool {
        let named = |list: &[String], name: &str| list.iter().any(|one| one == name);
        let own = (self.links)(other).unwrap_or_default();
        named(&links.before, other) || named(&own.after, unit)
    }
}

/// How many of a unit's siblings it comes after.
fn links_count(own: &Links, parent: &Links) -> usize {
    let siblings: BTreeSet<&String> = parent.requires.iter().chain(&parent.wants).collect();
    own.after.iter().filter(|other| siblings.contains(other)).count()
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
    }

    #[test]
    fn who_cannot_do_without_is_known() {
        let links = |name: &str| {
            (name == "a").then(|| Links {
                requires: vec!["b".to_owned()],
                wants: vec!["c".to_owned()],
                ..Links::default()
            })
        };
        let steps = order("a", links);
        assert_eq!(steps[0].required_by.as_deref(), Some("a"));
        assert_eq!(steps[1].required_by, None);
    }
}
