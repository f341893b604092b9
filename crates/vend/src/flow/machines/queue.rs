//! Whose turn it is: CodeDeploy's order of machines, and which of them nobody misses.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>
//!
//! Pure. What is not healthy goes first, so that a release that mends it never takes out what still serves.

use store::Machine;

/// What decides when a machine gets the release. The order of these is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It is away, or its last deployment failed there: it is not counted on.
    Ill,
    /// Nothing was deployed to it yet.
    Unknown,
    /// It has another release; the oldest of them goes first.
    Other(u64),
    /// It has this one already.
    Current,
}

/// What machines are put in order by.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What is deployed.
    pub release: u64,
    /// Only to those that have missed it: what has nothing yet serves nobody.
    pub is_late: bool,
}

impl Rule {
    fn turn(self, machine: &Machine, is_there: bool) -> Turn {
        match machine.release {
            _ if !is_there || machine.failure.is_some() => Turn::Ill,
            None if self.is_late => Turn::Ill,
            None => Turn::Unknown,
            Some(own) if own == self.release => Turn::Current,
            Some(own) => Turn::Other(own),
        }
    }
}

/// Machines with their turns, in their order; of the same turn, as they came.
pub fn of<'m>(
    machines: impl IntoIterator<Item = &'m Machine>,
    rule: Rule,
    is_there: impl Fn(&Machine) -> bool,
) -> Vec<(Turn, &'m Machine)> {
    let turns = machines.into_iter();
    let mut queue: Vec<_> = turns
        .map(|machine| (rule.turn(machine, is_there(machine)), machine))
        .collect();
    queue.sort_by_key(|(turn, _)| *turn);
    queue
}

/// How many of them nobody misses.
pub fn ill(queue: &[(Turn, &Machine)]) -> u32 {
    queue.iter().filter(|(turn, _)| *turn == Turn::Ill).count() as u32
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::{HostId, spec::MinimumHealthy};

    use super::*;
    use crate::flow::{
        wave::{Standing, Wave},
        zone,
    };

    const AWAY: u64 = 9;

    fn machine(number: u64, release: Option<u64>, failure: Option<&str>) -> Machine {
        Machine {
            id: HostId::from_bits(number),
            tenant: "acme".parse().unwrap(),
            name: format!("box{number}"),
            labels: std::collections::BTreeMap::new(),
            place: None,
            release,
            deployment: None,
            tries: 0,
            tried_at: None,
            failure: failure.map(str::to_owned),
            leaving: false,
            address: None,
            joined_at: Timestamp::UNIX_EPOCH,
            seen_at: None,
        }
    }

    fn is_there(machine: &Machine) -> bool {
        machine.id != HostId::from_bits(AWAY)
    }

    #[test]
    fn the_ill_go_first_then_the_unknown_then_the_old() {
        let machines = [
            machine(1, Some(3), None),
            machine(2, Some(2), None),
            machine(3, Some(1), None),
            machine(4, None, None),
            machine(5, Some(2), Some("exit code 1")),
            machine(6, Some(3), Some("exit code 1")),
            machine(AWAY, Some(3), None),
        ];
        let names = |release, is_late| -> Vec<(Turn, String)> {
            let rule = Rule { release, is_late };
            let queue = of(&machines, rule, is_there);
            queue
                .into_iter()
                .map(|(turn, machine)| (turn, machine.name.clone()))
                .collect()
        };
        let expected = |turns: &[(Turn, u64)]| -> Vec<(Turn, String)> {
            let named = turns.iter();
            named
                .map(|(turn, number)| (*turn, format!("box{number}")))
                .collect()
        };
        use Turn::{Current, Ill, Other, Unknown};
        let first = [(Ill, 5), (Ill, 6), (Ill, AWAY)];
        let newer = [(Unknown, 4), (Other(1), 3), (Other(2), 2), (Current, 1)];
        assert_eq!(names(3, false), expected(&[&first[..], &newer].concat()));
        let back = [(Unknown, 4), (Other(2), 2), (Other(3), 1), (Current, 3)];
        assert_eq!(names(1, false), expected(&[&first[..], &back].concat()));
        // Nobody misses one that has just joined.
        assert_eq!(names(3, true)[..2], expected(&[(Ill, 4), (Ill, 5)]));
    }

    /// The last release failed on one of three, of which two must serve: its fix goes there, and takes out no other.
    #[test]
    fn a_fix_goes_to_the_machine_that_failed_before_one_that_serves() {
        let machines = [
            machine(1, Some(1), None),
            machine(2, Some(2), Some("exit code 1")),
            machine(3, Some(1), None),
        ];
        let rule = Rule {
            release: 3,
            is_late: false,
        };
        let queue = of(&machines, rule, is_there);
        let standing = Standing {
            total: 3,
            left: 3,
            ill: ill(&queue),
            done: 0,
            failed: 0,
        };
        let next = zone::next(MinimumHealthy::Count(2), None, &[standing]);
        assert_eq!(next, (0, Wave::Next(1)));
        assert_eq!(queue[0].1.name, "box2");
    }
}
