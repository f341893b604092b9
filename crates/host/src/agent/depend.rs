//! In which order units start and stop, and which go down with others. Pure: what a unit wants is a function.
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html>

use std::collections::{BTreeMap, BTreeSet};

use super::unit::Links;

/// Most units that one start or stop may be about.
const UNITS: usize = 500;

/// One unit to start, and those that cannot do without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub unit: String,
    pub required_by: Vec<String>,
}

/// What units need and want, in an order that `After=` and `Before=` ask for, they themselves among them. Where these
/// ask for nothing, what is needed comes first. `links` is `None` for what has no file. Units that ask for each other in
/// a circle start in the order in which they were found.
pub fn order(units: &[String], links: impl Fn(&str) -> Option<Links>) -> Vec<Step> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for unit in units {
        gather(unit, &links, &mut seen, &mut found);
    }
    let graph = Graph::of(&found);
    let sorted = graph.sorted();
    let name = |number: &usize| found[*number].0.clone();
    let step = |number: &usize| Step {
        unit: name(number),
        // Without an order between them, the failure of what is required comes too late.
        required_by: sorted
            .iter()
            .filter(|other| {
                graph.requires[**other].contains(number) && graph.follows[**other].contains(number)
            })
            .map(name)
            .collect(),
    };
    sorted.iter().map(step).collect()
}

/// The units that go down with one that is stopped, itself among them: those that require it, are bound to it or are part
/// of it, and what goes down with these. `up`: all that runs or is about to. What starts after another one stops before
/// it.
pub fn down(unit: &str, up: &BTreeMap<String, Links>) -> Vec<String> {
    let mut with: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, links) in up {
        for other in links.requires.iter().chain(&links.binds_to).chain(&links.part_of) {
            with.entry(other).or_default().insert(name);
        }
    }
    let (mut seen, mut found, mut next) = (BTreeSet::from([unit]), Vec::new(), vec![unit]);
    while let Some(name) = next.pop() {
        let links = up.get(name).cloned().unwrap_or_default();
        found.push((name.to_owned(), links));
        for other in with.get(name).into_iter().flatten() {
            if seen.len() < UNITS && seen.insert(other) {
                next.push(other);
            }
        }
    }
    let sorted = Graph::of(&found).sorted();
    sorted
        .iter()
        .rev()
        .map(|number| found[*number].0.clone())
        .collect()
}

/// All that a unit pulls in, what it needs before itself.
fn gather(
    unit: &str,
    links: &impl Fn(&str) -> Option<Links>,
    seen: &mut BTreeSet<String>,
    into: &mut Vec<(String, Links)>,
) {
    if seen.len() >= UNITS || !seen.insert(unit.to_owned()) {
        return;
    }
    let own = links(unit).unwrap_or_default();
    let others: BTreeSet<&String> = own.pulled_in().collect();
    for other in others {
        gather(other, links, seen, into);
    }
    into.push((unit.to_owned(), own));
}

/// What a few units have to do with each other, by their numbers.
struct Graph {
    /// Those that it comes after.
    follows: Vec<BTreeSet<usize>>,
    /// Those that it needs or wants and that do not come after it.
    needs: Vec<BTreeSet<usize>>,
    requires: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn of(units: &[(String, Links)]) -> Self {
        let numbers: BTreeMap<&str, usize> = units
            .iter()
            .enumerate()
            .map(|(number, (name, _))| (name.as_str(), number))
            .collect();
        let known = |names: &[String]| -> BTreeSet<usize> {
            let found = names.iter().filter_map(|name| numbers.get(name.as_str()));
            found.copied().collect()
        };
        let mut follows: Vec<BTreeSet<usize>> = units.iter().map(|(_, own)| known(&own.after)).collect();
        for (number, (_, own)) in units.iter().enumerate() {
            for other in known(&own.before) {
                follows[other].insert(number);
            }
        }
        let mut requires = Vec::new();
        let mut needs = Vec::new();
        for (number, (_, own)) in units.iter().enumerate() {
            let (mut required, wanted) = (known(&own.requires), known(&own.wants));
            required.extend(known(&own.binds_to));
            let needed = required.union(&wanted).copied();
            needs.push(
                needed
                    .filter(|other| !follows[*other].contains(&number))
                    .collect(),
            );
            requires.push(required);
        }
        for (number, after) in follows.iter_mut().enumerate() {
            after.remove(&number);
        }
        Self {
            follows,
            needs,
            requires,
        }
    }

    /// Always the first that follows nobody who waits, and better one that needs nobody who waits either.
    fn sorted(&self) -> Vec<usize> {
        let mut waiting: BTreeSet<usize> = (0..self.follows.len()).collect();
        let mut sorted = Vec::new();
        while let Some(first) = waiting.first().copied() {
            let alone = |of: &[BTreeSet<usize>], number: usize| {
                of[number]
                    .iter()
                    .all(|other| *other == number || !waiting.contains(other))
            };
            let mut free = waiting
                .iter()
                .copied()
                .filter(|number| alone(&self.follows, *number));
            let any = free.clone().next();
            let next = free
                .find(|number| alone(&self.needs, *number))
                .or(any)
                .unwrap_or(first);
            waiting.remove(&next);
            sorted.push(next);
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a: requires b, wants c, after d, before e, binds f, part g` by lines.
    fn read(text: &str) -> BTreeMap<String, Links> {
        let unit = |line: &str| {
            let (name, line) = line.split_once(':').unwrap();
            let mut links = Links::default();
            for part in line.split(',') {
                match part.trim().split_once(' ') {
                    Some(("requires", other)) => links.requires.push(other.to_owned()),
                    Some(("binds", other)) => links.binds_to.push(other.to_owned()),
                    Some(("part", other)) => links.part_of.push(other.to_owned()),
                    Some(("wants", other)) => links.wants.push(other.to_owned()),
                    Some(("after", other)) => links.after.push(other.to_owned()),
                    Some(("before", other)) => links.before.push(other.to_owned()),
                    _ => {}
                }
            }
            (name.to_owned(), links)
        };
        text.lines().map(unit).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn steps(unit: &str, text: &str) -> Vec<String> {
        let units = read(text);
        let steps = order(&names(&[unit]), |name| units.get(name).cloned());
        steps.into_iter().map(|step| step.unit).collect()
    }

    #[test]
    fn what_cannot_be_without_goes_down_first() {
        let up = |text: &str| down("a", &read(text));
        assert_eq!(up("a:\nb: wants a\nc: after a"), ["a"]);
        assert_eq!(up("a:\nb: requires a, after a"), ["b", "a"]);
        assert_eq!(up("a:\nb: binds a, after a\nc: part b, after b"), ["c", "b", "a"]);
        assert_eq!(up("a:\nb: part a"), ["b", "a"]);
        // What starts before it goes after it.
        assert_eq!(up("a: after b\nb: part a"), ["a", "b"]);
        // One that does not run takes others along all the same.
        assert_eq!(up("b: requires a\nc: requires b"), ["c", "b", "a"]);
        // A circle ends.
        assert_eq!(up("a: requires b\nb: requires a").len(), 2);
        assert_eq!(up("a: binds a"), ["a"]);
        let many: String = (0..2 * UNITS)
            .map(|number| format!("u{number}: part a\n"))
            .collect();
        assert_eq!(up(many.trim()).len(), UNITS);
    }

    #[test]
    fn several_start_in_one_order() {
        let units = read("a: after b, requires b\nb:\nc: after a\nd: wants c");
        let steps = order(&names(&["a", "d", "c"]), |name| units.get(name).cloned());
        let steps: Vec<String> = steps.into_iter().map(|step| step.unit).collect();
        assert_eq!(steps, ["b", "a", "c", "d"]);
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
    fn each_unit_is_read_once() {
        let reads = std::cell::Cell::new(0);
        let links = |name: &str| {
            reads.set(reads.get() + 1);
            let number: u32 = name.parse().unwrap();
            Some(Links {
                requires: vec![(number + 1).to_string(), "0".to_owned()],
                ..Links::default()
            })
        };
        // The chain has no end of its own.
        assert_eq!(order(&names(&["0"]), links).len(), UNITS);
        assert_eq!(reads.get(), UNITS);
    }

    /// As `systemd.unit(5)` has it: only who starts after it hears of a failure.
    #[test]
    fn who_cannot_do_without_is_known() {
        let units = read(
            "a: requires b, requires d, wants c, after b, after d\nd: binds b, after b\nc: requires b\nb:",
        );
        let steps: Vec<(String, Vec<String>)> = order(&names(&["a"]), |name| units.get(name).cloned())
            .into_iter()
            .map(|step| (step.unit, step.required_by))
            .collect();
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
