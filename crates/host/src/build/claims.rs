//! What a machine elsewhere says of a build, within the bounds that a build's own words have here.
//!
//! Nobody here has seen the build: its runner, and the node that read the runner's frames, may say anything. What a bounded
//! text here may hold, it may; of the rest the beginning is kept, as of a runner's.

use model::port::{Built, Fault, PhaseReport, TestChanges, TestReport};

use super::{
    console::{ARTIFACTS, FAILURES, REPORTS, TEXT, bounded, is_identifier},
    protocol::FRAME_BYTES,
    record::PHASES,
};

/// Characters of a failure: the last lines of a command, and the names of tests, stand behind what it was.
const MESSAGE: usize = 4 * TEXT;

/// What a build elsewhere came to.
///
/// # Errors
///
/// No build can have come to that: it names artifacts that no buildspec can, or more of anything than a runner may tell.
pub(crate) fn built(built: Built) -> Result<Built, Fault> {
    let told: usize = built
        .exported
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let plain = built.secondary.keys().all(|identifier| is_identifier(identifier));
    if told > FRAME_BYTES || built.secondary.len() >= ARTIFACTS || !plain {
        return Err(Fault::platform(
            "the builder says of the build what no build can say",
        ));
    }
    Ok(Built {
        phases: phases(built.phases),
        reports: built.reports.into_iter().take(REPORTS).map(report).collect(),
        name: built.name.map(|name| bounded(name, TEXT)),
        ..built
    })
}

/// Why a build elsewhere failed.
pub(crate) fn fault(fault: Fault) -> Fault {
    Fault {
        message: bounded(fault.message, MESSAGE),
        next: fault.next.map(|next| bounded(next, TEXT)),
        phases: phases(fault.phases),
        ..fault
    }
}

fn phases(phases: Vec<PhaseReport>) -> Vec<PhaseReport> {
    let phases = phases.into_iter().take(PHASES);
    phases
        .map(|phase| PhaseReport {
            name: bounded(phase.name, TEXT),
            message: phase.message.map(|message| bounded(message, TEXT)),
            ..phase
        })
        .collect()
}

fn report(report: TestReport) -> TestReport {
    let failures = report.failures.into_iter().take(FAILURES);
    TestReport {
        group: bounded(report.group, TEXT),
        failures: failures
            .map(|(name, message)| (bounded(name, TEXT), bounded(message, TEXT)))
            .collect(),
        changes: report.changes.map(changes),
        ..report
    }
}

fn changes(mut changes: TestChanges) -> TestChanges {
    let names = |names: Vec<String>| -> Vec<String> {
        let names = names.into_iter().take(FAILURES);
        names.map(|name| bounded(name, TEXT)).collect()
    };
    changes.slower.truncate(FAILURES);
    for slower in &mut changes.slower {
        slower.name = bounded(std::mem::take(&mut slower.name), TEXT);
    }
    TestChanges {
        new_failures: names(changes.new_failures),
        broke: names(changes.broke),
        fixed: names(changes.fixed),
        flaky: names(changes.flaky),
        ..changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use model::Digest;

    use super::*;

    fn long() -> String {
        "x".repeat(2 * MESSAGE)
    }

    fn phase() -> PhaseReport {
        PhaseReport {
            name: long(),
            status: None,
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: None,
            message: Some(long()),
        }
    }

    fn plain() -> Built {
        Built {
            artifact: Digest::of("a"),
            size_bytes: 1,
            phases: Vec::new(),
            reports: Vec::new(),
            exported: BTreeMap::new(),
            log: "build/t".parse().unwrap(),
            name: None,
            secondary: BTreeMap::new(),
        }
    }

    #[test]
    fn what_a_builder_says_is_no_longer_than_what_a_runner_may() {
        let mut report = super::super::report::empty("unit");
        report.group = long();
        report.failures = vec![(long(), long()); 60];
        report.changes = Some(TestChanges {
            flaky: vec![long(); 60],
            ..TestChanges::default()
        });
        let said = Built {
            phases: vec![phase(); 120],
            reports: [vec![report], vec![super::super::report::empty("others"); 60]].concat(),
            name: Some(long()),
            ..plain()
        };
        let kept = built(said).unwrap();
        let is_short = |text: &String| text.chars().count() <= TEXT + 1;
        assert!(kept.name.as_ref().is_some_and(is_short));
        assert_eq!((kept.phases.len(), kept.reports.len()), (PHASES, REPORTS));
        assert!(kept.phases.iter().all(|phase| is_short(&phase.name)));
        assert!(kept.phases[0].message.as_ref().is_some_and(is_short));
        let report = &kept.reports[0];
        assert!(is_short(&report.group) && report.failures.len() == FAILURES);
        assert!(
            report
                .failures
                .iter()
                .all(|(name, message)| is_short(name) && is_short(message))
        );
        let flaky = &report.changes.as_ref().unwrap().flaky;
        assert!(flaky.len() == FAILURES && flaky.iter().all(is_short));

        let failed = Fault {
            message: long(),
            next: Some(long()),
            phases: vec![phase(); 120],
            ..Fault::customer("")
        };
        let failed = fault(failed);
        assert_eq!(failed.message.chars().count(), MESSAGE + 1);
        assert!(failed.next.as_ref().is_some_and(is_short) && failed.phases.len() == PHASES);
    }

    #[test]
    fn what_no_build_can_say_is_not_believed() {
        let secondary = |names: &[String]| Built {
            secondary: names.iter().map(|name| (name.clone(), Digest::of("a"))).collect(),
            ..plain()
        };
        let many: Vec<String> = (0..ARTIFACTS).map(|number| format!("a{number}")).collect();
        let exported = |value: String| Built {
            exported: BTreeMap::from([("NAME".to_owned(), value)]),
            ..plain()
        };
        for (said, is_believed) in [
            (secondary(&many[1..]), true),
            (secondary(&many), false),
            (secondary(&["\u{1b}[2J".to_owned()]), false),
            (secondary(&["../up".to_owned()]), false),
            (secondary(&["a".repeat(129)]), false),
            (exported("v".repeat(FRAME_BYTES - 4)), true),
            (exported("v".repeat(FRAME_BYTES)), false),
        ] {
            assert_eq!(built(said.clone()).is_ok(), is_believed, "{said:?}");
        }
    }
}
