//! What a build came to, from how its container ended and what its runner told.

use std::{collections::BTreeSet, io};

use model::port::{BuildLimits, BuildOrder, TestReport};

use super::{
    Error, Ran,
    again::Before,
    choice,
    console::{Broken, Console, Outcome},
    report, timeout,
};
use crate::container::Exit;

/// What is known of a build, and whether it succeeded.
pub(super) fn judge(order: &BuildOrder, before: &Before, ran: Ran) -> (Outcome, Result<(), Error>) {
    let Ran {
        exit,
        mut console,
        followed,
        stopped,
    } = ran;
    let judged = match stopped {
        Some(reason) => Err(Error::Stopped(reason)),
        None => verdict(order, before, exit, &console, followed),
    };
    if let Err(error) = &judged {
        console.broke(None);
        console.ended(error.status(), Some(error.to_string()));
    }
    console.finalize();
    let outcome = console.end();
    (outcome, judged)
}

fn verdict(
    order: &BuildOrder,
    before: &Before,
    exit: Exit,
    console: &Console,
    followed: io::Result<()>,
) -> Result<(), Error> {
    let outcome = &console.outcome;
    if exit.timed_out {
        let last = console.last_lines();
        let last = format!("{last}{}", hint(order, &last));
        return Err(before.timed_out(timeout(order), console.doing(), last));
    }
    let last = outcome.broken.as_ref().map(|broken| broken.last.clone());
    let last = last.unwrap_or_default();
    if exit.oom && outcome.succeeded != Some(true) {
        return Err(Error::Memory {
            memory_mib: order.limits.memory_mib,
            last,
            tests: tests(&outcome.reports),
        });
    }
    match followed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(Error::Artifact(order.limits.disk_mib.saturating_mul(1 << 20)));
        }
        Err(error) => return Err(Error::Disturbed(error)),
    }
    match (outcome.succeeded, console.failed()) {
        (None, _) => Err(Error::Silent {
            code: exit.code,
            last: console.last_lines(),
        }),
        (Some(true), None) => gate(&order.limits, &outcome.reports),
        (Some(_), failed) => Err(Error::Failed {
            message: failed
                .as_ref()
                .and_then(|phase| phase.message.clone())
                .unwrap_or_default(),
            phase: failed.map_or_else(|| "the build".to_owned(), |phase| phase.name),
            last: format!("{last}{}", advice(order, outcome.broken.as_ref())),
            tests: tests(&outcome.reports),
        }),
    }
}

/// A limit that stops a command speaks through the command's own error, which does not name the limit.
fn hint(order: &BuildOrder, last: &str) -> String {
    let limits = &order.limits;
    if last.contains("Resource temporarily unavailable") || last.contains("Cannot fork") {
        format!("\n(a build may have {} processes at a time)", limits.pids)
    } else if last.contains("No space left on device") {
        format!("\n(a build may write {} MiB to its disk)", limits.disk_mib)
    } else {
        String::new()
    }
}

/// What a command that failed does not say itself: with 127 the shell says that there is no such program, and not who has it.
fn advice(order: &BuildOrder, broken: Option<&Broken>) -> String {
    match broken {
        Some(broken) if broken.exit_code == Some(127) => {
            let next = choice::missing(order, &broken.command, &broken.last);
            next.map_or_else(String::new, |next| format!("\n({next})"))
        }
        broken => hint(order, broken.map_or("", |broken| &broken.last)),
    }
}

/// Whether tests passed, and reach lines, as an environment asks for.
pub fn gate(limits: &BuildLimits, reports: &[TestReport]) -> Result<(), Error> {
    check_tests(limits, reports).and_then(|()| check_coverage(limits, reports))
}

fn check_tests(limits: &BuildLimits, reports: &[TestReport]) -> Result<(), Error> {
    let wanted = limits.pass_rate_percent;
    // Nothing that could be read: a test that never ran did not pass.
    let told = |report: &&TestReport| report.total > 0 || report.coverage.is_some();
    if let Some(silent) = reports.iter().find(|report| limits.tests_asked && !told(report)) {
        let group = silent.group.clone();
        return Err(Error::NoTests { group, wanted });
    }
    if report::pass_rate_percent(reports) >= wanted {
        return Ok(());
    }
    let (passed, failed) = counted(reports);
    Err(Error::Tests {
        passed,
        ran: passed.saturating_add(failed),
        wanted,
        failures: failures(reports),
    })
}

/// How many tests passed, and how many failed.
fn counted(reports: &[TestReport]) -> (u32, u32) {
    let sum = |count: fn(&TestReport) -> u32| {
        let counts = reports.iter().map(count);
        counts.fold(0, u32::saturating_add)
    };
    (sum(|report| report.passed), sum(|report| report.failed))
}

/// The tests that failed, each on a line: what the first of them said, and the names of more. Empty when none did.
fn failures(reports: &[TestReport]) -> String {
    const QUOTED: usize = 5;
    const NAMED: usize = 25;
    let (_, failed) = counted(reports);
    let changes = || reports.iter().filter_map(|report| report.changes.as_ref());
    let new: BTreeSet<&String> = changes().flat_map(|changes| &changes.new_failures).collect();
    let broke: BTreeSet<&String> = changes().flat_map(|changes| &changes.broke).collect();
    let all = reports.iter().flat_map(|report| &report.failures);
    let mut text = String::new();
    let mut named = 0;
    for (number, (name, message)) in all.take(NAMED).enumerate() {
        let before = match (new.contains(name), broke.contains(name)) {
            (_, true) => " (passed before)",
            (true, false) => " (new)",
            (false, false) => "",
        };
        text.push_str(&match number < QUOTED && !message.is_empty() {
            true => format!("\n{name}{before}: {message}"),
            false => format!("\n{name}{before}"),
        });
        named += 1;
    }
    match failed.saturating_sub(named) {
        0 => text,
        more => format!("{text}\nand {more} more"),
    }
}

/// Said of a build that failed otherwise: which of its tests failed, where its reports tell.
fn tests(reports: &[TestReport]) -> String {
    match counted(reports) {
        (_, 0) => String::new(),
        (passed, failed) => format!(
            "\n{failed} of {} tests failed:{}",
            passed.saturating_add(failed),
            failures(reports)
        ),
    }
}

fn check_coverage(limits: &BuildLimits, reports: &[TestReport]) -> Result<(), Error> {
    let Some(wanted) = limits.coverage_percent else {
        return Ok(());
    };
    let found = report::coverage_percent(reports);
    match found {
        Some(found) if found >= wanted => Ok(()),
        found => Err(Error::Coverage { found, wanted }),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn report(failed: u32, told: u32, new: &[&str], broke: &[&str]) -> TestReport {
        let mut report = report::empty("unit");
        (report.total, report.passed, report.failed) = (failed + 2, 2, failed);
        let failures = (0..told).map(|number| (format!("shop.t{number}"), "broke".to_owned()));
        report.failures = failures.collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        report.changes = Some(model::port::TestChanges {
            new_failures: names(new),
            broke: names(broke),
            ..model::port::TestChanges::default()
        });
        report
    }

    #[test]
    fn a_command_without_its_program_is_told_what_to_ask_for() {
        let text = "version: 0.2\nphases: { build: { commands: [make] } }\n";
        let (spec, _) = model::spec::Buildspec::parse(text, "b").unwrap();
        let order = crate::build::choice_order(spec);
        let broken = |exit_code, last: &str| Broken {
            phase: "BUILD".to_owned(),
            command: "make".to_owned(),
            exit_code: Some(exit_code),
            last: last.to_owned(),
        };
        let said = advice(&order, Some(&broken(127, "sh: 1: go: not found")));
        assert!(
            said.starts_with("\n(`go` comes with the runtime golang"),
            "{said}"
        );
        assert_eq!(advice(&order, Some(&broken(2, "sh: 1: go: not found"))), "");
        let full = advice(&order, Some(&broken(2, "a: No space left on device")));
        assert_eq!(full, "\n(a build may write 1 MiB to its disk)");
        assert_eq!(advice(&order, None), "");
    }

    #[test]
    fn tests_that_failed_are_named() {
        assert_eq!(tests(&[report(0, 0, &[], &[])]), "");
        assert_eq!(
            tests(&[report(3, 3, &["shop.t1", "shop.t2"], &["shop.t1"])]),
            "\n3 of 5 tests failed:\nshop.t0: broke\nshop.t1 (passed before): broke\nshop.t2 (new): broke"
        );
        let many = tests(&[report(60, 50, &[], &[])]);
        assert!(
            many.starts_with("\n60 of 62 tests failed:\nshop.t0: broke\n"),
            "{many}"
        );
        assert!(
            many.contains("\nshop.t5\n") && many.contains("\nshop.t24\nand 35 more"),
            "{many}"
        );
    }
}
