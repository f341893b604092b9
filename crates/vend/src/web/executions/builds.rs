//! The builds of an execution, as people see them.

use host::build::Offer;
use model::{port::PhaseReport, wire::BuildRun};
use store::{Ran, RunsOn, Waits};

/// Of what went wrong in a phase, so much is told in a list of phases, in characters; its log has the rest.
const MESSAGE: usize = 500;

pub(super) fn shown(build: Ran) -> BuildRun {
    let builder = match build.runs_on {
        Some(RunsOn::Own) => Some(Offer::HERE.to_owned()),
        // One that was removed has its id.
        Some(RunsOn::Builder(id)) => Some(build.builder.unwrap_or_else(|| id.to_string())),
        None => None,
    };
    BuildRun {
        number: build.number,
        identifier: build.identifier,
        builder,
        waiting: build.waits.filter(|_| build.ended_at.is_none()),
        phases: build.phases.into_iter().map(brief).collect(),
        log: build.log.map(|log| log.to_string()),
        exported: build.exported,
        secondary: build.secondary,
        started_at: build.started_at,
        ended_at: build.ended_at,
    }
}

fn brief(mut phase: PhaseReport) -> PhaseReport {
    let end = |message: &str| message.char_indices().nth(MESSAGE).map(|(at, _)| at);
    if let Some(message) = &mut phase.message
        && let Some(end) = end(message)
    {
        message.truncate(end);
        message.push('…');
    }
    phase
}

/// What an execution waits for of whose builds that have not ended none goes on.
pub(super) fn queued(builds: Vec<Waits>) -> Option<String> {
    let mut builds = builds.into_iter();
    let first = builds.next()?;
    let all_wait = builds.all(|build| build.why.is_some());
    let name = first
        .identifier
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    let why = first.why.filter(|_| all_wait)?;
    Some(format!("{why}; for its build {}{name}", first.number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use model::HostId;

    use super::*;

    fn ran(number: u64) -> Ran {
        Ran {
            place: "acme/shop/dev".parse().unwrap(),
            number,
            identifier: None,
            runs_on: None,
            builder: None,
            waits: None,
            phases: Vec::new(),
            exported: BTreeMap::new(),
            secondary: BTreeMap::new(),
            log: None,
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        }
    }

    #[test]
    fn a_long_message_of_a_phase_is_cut() {
        let told = |message: String| {
            let phase = PhaseReport {
                name: "BUILD".to_owned(),
                status: None,
                started_at: Timestamp::UNIX_EPOCH,
                duration_ms: None,
                message: Some(message),
            };
            let phases = vec![phase];
            shown(Ran { phases, ..ran(1) }).phases[0].message.clone().unwrap()
        };
        assert_eq!(told("ü".repeat(500)), "ü".repeat(500));
        assert_eq!(told("ü".repeat(501)), format!("{}…", "ü".repeat(500)));
    }

    #[test]
    fn a_build_says_where_it_is() {
        let builder = HostId::from_bits(7);
        let there = Some(RunsOn::Builder(builder.clone()));
        for (runs_on, name, expected) in [
            (None, None, None),
            (Some(RunsOn::Own), None, Some("this machine".to_owned())),
            (there.clone(), Some("big"), Some("big".to_owned())),
            (there, None, Some(builder.to_string())),
        ] {
            let builder = name.map(str::to_owned);
            let told = shown(Ran {
                runs_on,
                builder,
                ..ran(1)
            });
            assert_eq!(told.builder, expected);
        }
    }

    #[test]
    fn an_execution_waits_for_what_its_builds_do_while_none_goes_on() {
        let build = |number, why: Option<&str>| Waits {
            number,
            identifier: Some("unit".to_owned()),
            why: why.map(str::to_owned),
        };
        let waits = |number| build(number, Some("its turn"));
        let told = Some("its turn; for its build 2 (unit)".to_owned());
        assert_eq!(queued(vec![waits(2), waits(3)]), told);
        assert_eq!(queued(vec![waits(1), build(2, None)]), None);
        assert_eq!(queued(vec![build(1, None), waits(2)]), None);
        assert_eq!(queued(Vec::new()), None);
    }

    #[test]
    fn a_build_that_has_ended_waits_for_nothing() {
        let waits = Ran {
            waits: Some("its turn".to_owned()),
            ..ran(1)
        };
        assert_eq!(shown(waits.clone()).waiting.as_deref(), Some("its turn"));
        let ended = Ran {
            ended_at: Some(Timestamp::UNIX_EPOCH),
            ..waits
        };
        assert_eq!(shown(ended).waiting, None);
    }
}
