//! Names of things. The region is always `local`; the account is the tenant's number.

use super::fault::Fault;

const REGION: &str = "local";
/// Characters of a name.
const NAME: usize = 80;

/// What an ARN of this service names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn {
    pub account: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// With the version or the alias that is meant.
    Machine {
        name: String,
        qualifier: Option<String>,
    },
    Execution {
        machine: String,
        name: String,
    },
    Express {
        machine: String,
        name: String,
    },
    Activity {
        name: String,
    },
    /// The machine's name has the label of the Map state behind it.
    MapRun {
        machine: String,
        name: String,
    },
}

impl Arn {
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || Fault::arn(text);
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [_, _, service, region, account, rest] = parts.as_slice() else {
            return Err(wrong());
        };
        if !text.starts_with("arn:") || *service != "states" || *region != REGION || text.len() > 2000 {
            return Err(wrong());
        }
        let account = (account.len() == 12).then(|| account.parse().ok()).flatten();
        let account = account.ok_or_else(wrong)?;
        let rest: Vec<&str> = rest.split(':').collect();
        if rest.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        let own = |text: &str| text.to_owned();
        let kind = match rest.as_slice() {
            ["stateMachine", name] => Kind::Machine {
                name: own(name),
                qualifier: None,
            },
            ["stateMachine", name, qualifier] => Kind::Machine {
                name: own(name),
                qualifier: Some(own(qualifier)),
            },
            ["execution", machine, name] => Kind::Execution {
                machine: own(machine),
                name: own(name),
            },
            ["express", machine, name, _] => Kind::Express {
                machine: own(machine),
                name: own(name),
            },
            ["mapRun", machine, name] => Kind::MapRun {
                machine: own(machine),
                name: own(name),
            },
            ["activity", name] => Kind::Activity { name: own(name) },
            _ => return Err(wrong()),
        };
        Ok(Self { account, kind })
    }
}

fn arn(account: u64, rest: &str) -> String {
    format!("arn:aws:states:{REGION}:{account:012}:{rest}")
}

pub fn machine(account: u64, name: &str) -> String {
    arn(account, &format!("stateMachine:{name}"))
}

pub fn execution(account: u64, machine: &str, name: &str) -> String {
    arn(account, &format!("execution:{machine}:{name}"))
}

pub fn express(account: u64, machine: &str, name: &str, id: u64) -> String {
    arn(account, &format!("express:{machine}:{name}:{id:016x}"))
}

pub fn activity(account: u64, name: &str) -> String {
    arn(account, &format!("activity:{name}"))
}

/// Refuses what AWS does not take for the name of a machine, an execution or an activity.
pub fn checked(name: &str) -> Result<&str, Fault> {
    const FORBIDDEN: &str = "<>{}[]?*\"#%\\^|~`$&,;:/";
    let wrong = |c: char| c.is_whitespace() || c.is_control() || FORBIDDEN.contains(c);
    match name.is_empty() || name.chars().count() > NAME || name.chars().any(wrong) {
        true => Err(Fault::name(name)),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let name = |text: &str| text.to_owned();
        for (text, kind) in [
            (
                machine(7, "a.b"),
                Kind::Machine {
                    name: name("a.b"),
                    qualifier: None,
                },
            ),
            (
                format!("{}:3", machine(7, "a")),
                Kind::Machine {
                    name: name("a"),
                    qualifier: Some(name("3")),
                },
            ),
            (
                execution(7, "m", "x"),
                Kind::Execution {
                    machine: name("m"),
                    name: name("x"),
                },
            ),
            (
                "arn:aws:states:local:000000000007:mapRun:m/l:x".into(),
                Kind::MapRun {
                    machine: name("m/l"),
                    name: name("x"),
                },
            ),
            (activity(7, "work"), Kind::Activity { name: name("work") }),
        ] {
            let read = Arn::parse(&text).unwrap();
            assert_eq!((read.account, read.kind), (7, kind), "{text}");
        }
    }

    #[test]
    fn what_is_no_arn_of_ours_is_refused() {
        for text in [
            "",
            "x",
            "arn:aws:states:local:7:activity:a",
            "arn:aws:lambda:local:000000000007:activity:a",
            "arn:aws:states:us-east-1:000000000007:activity:a",
            "arn:aws:states:local:00000000000x:activity:a",
            "arn:aws:states:local:000000000007:activity:",
            "arn:aws:states:local:000000000007:thing:a",
            "arn:aws:states:local:000000000007:activity:a:b:c:d:e",
        ] {
            assert_eq!(Arn::parse(text).unwrap_err().name, "InvalidArn", "{text}");
        }
        for name in ["", "a b", "a:b", "a/b", "a\u{0}", &"x".repeat(81)] {
            assert!(checked(name).is_err(), "{name:?}");
        }
        assert!(checked("Some-name_1.é").is_ok());
    }
}
