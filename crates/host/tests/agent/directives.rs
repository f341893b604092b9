//! Every directive that the guide lists, each with a unit that shows what it does, and the same unit without it, which
//! must show something else.

use super::world::World;

#[path = "directives/bonds.rs"]
mod bonds;
#[path = "directives/service.rs"]
mod service;
#[path = "directives/unit.rs"]
mod unit;

use bonds::{of_starts_and_stops, of_what_ended};
use service::{commands, directories, life, processes, types};
use unit::{conditions, links, sockets, timers};

const GUIDE: &str = include_str!("../../../../docs/guides/deploy.md");

/// `NAME` is the unit's own name, and another one each time. A line `# NAME….kind` begins another unit's file.
struct Case {
    /// The directive; with a value when it is about that.
    what: &'static str,
    units: &'static str,
    script: &'static str,
    says: &'static str,
    /// What stands in the place of `what`; without it, the lines that begin with it go.
    instead: Option<&'static str>,
}

const fn case(what: &'static str, units: &'static str, script: &'static str, says: &'static str) -> Case {
    Case {
        what,
        units,
        script,
        says,
        instead: None,
    }
}

const fn other(case: Case, instead: &'static str) -> Case {
    Case {
        instead: Some(instead),
        ..case
    }
}

/// Starts it, and says what it wrote.
const WROTE: &str = "systemctl start NAME; cat /dev/shm/NAME";
/// Starts it, and says whether it did anything.
const DID: &str = "systemctl start NAME; test -e /dev/shm/NAME && echo did || echo nothing";
const STATE: &str = "systemctl start NAME; systemctl is-active NAME";

async fn run(world: &World, name: &str, units: &str, script: &str) -> String {
    let mut file = format!("{name}.service");
    let mut text = String::new();
    for line in units.replace("NAME", name).lines().chain(["# "]) {
        match line.strip_prefix("# ") {
            Some(next) => {
                world.file(&format!("/etc/systemd/system/{file}"), &std::mem::take(&mut text));
                next.clone_into(&mut file);
            }
            None => text += &format!("{line}\n"),
        }
    }
    world.told(&script.replace("NAME", name)).await
}

async fn each_does_what_it_says(cases: Vec<Case>) {
    let world = world!();
    world.configure(&[]).await;
    for (number, case) in cases.into_iter().enumerate() {
        let Case {
            what,
            units,
            script,
            says,
            instead,
        } = case;
        let name = format!("u{number}");
        let told = run(&world, &name, units, script).await;
        let log = world.log(&name);
        assert_eq!(told, says.replace("NAME", &name), "{what}: {log}");
        let without = match instead {
            Some(instead) => units.replace(what, instead),
            None => {
                let key = if what.contains('=') {
                    what.to_owned()
                } else {
                    format!("{what}=")
                };
                let lines = units.lines().filter(|line| !line.starts_with(&key));
                lines.map(|line| format!("{line}\n")).collect()
            }
        };
        assert_ne!(without, units, "{what} is in its unit");
        let name = format!("v{number}");
        let told = run(&world, &name, &without, script).await;
        assert_ne!(told, says.replace("NAME", &name), "{what} makes no difference");
    }
}

macro_rules! tests {
    ($($name:ident = $cases:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                each_does_what_it_says($cases()).await;
            }
        )*

        fn all() -> Vec<&'static str> {
            [$($cases()),*].into_iter().flatten().map(|case| case.what).collect()
        }
    };
}

tests! {
    every_type_does_what_it_says = types;
    every_command_does_what_it_says = commands;
    what_processes_get = processes;
    directories_are_made = directories;
    what_becomes_of_a_service = life;
    what_units_have_to_do_with_each_other = links;
    what_becomes_of_those_whose_unit_ended = of_what_ended;
    what_starts_and_stops_with_another = of_starts_and_stops;
    conditions_hold_or_do_not = conditions;
    timers_are_due = timers;
    sockets_are_as_they_are_asked_for = sockets;
}

/// The guide lists nothing that is not tested here, or, of sockets, beside.
#[test]
fn every_directive_of_the_guide_has_a_case() {
    let cases = all();
    let rows = GUIDE.split("| What | Understood |").nth(1).unwrap();
    let rows = rows.split("\n\n").next().unwrap();
    let beside = include_str!("sockets.rs");
    let mut words = 0;
    for row in rows.lines() {
        let what = row.split('|').nth(1).unwrap_or_default().trim();
        let listed = match what {
            "" | "---" | "Only noted" | "Scripts" => continue,
            _ => row.split('`').skip(1).step_by(2),
        };
        for word in
            listed.filter(|word| word.starts_with(|c: char| c.is_alphabetic() || "…-@:+!".contains(c)))
        {
            words += 1;
            let matches = |case: &str| match word.split_once('…') {
                Some((start, end)) => case.contains(start) && case.contains(end),
                None => match what {
                    "`Type=`" => case == "Type" && word == "Type=" || case == format!("Type={word}"),
                    _ => case == word || case == format!("ExecStart={word}"),
                },
            };
            let is_known = match what {
                "Sockets" => {
                    beside.contains(word.trim_end_matches("names")) || cases.iter().any(|case| matches(case))
                }
                _ if word == "Type=" || word.starts_with("tmpfiles") => continue,
                _ => cases.iter().any(|case| matches(case)),
            };
            assert!(is_known, "`{word}` of the guide ({what}) has no case");
        }
    }
    assert!(words > 70, "{words}");
}
