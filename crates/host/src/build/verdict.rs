//! What a build came to, from how its container ended and what its runner told.

use std::io;

use model::port::{BuildLimits, BuildOrder, TestReport};

use super::{
    Error, Ran,
    again::Before,
    console::{Console, Outcome},
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
            last: format!("{last}{}", hint(order, &last)),
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

/// Whether tests passed, and reach lines, as an environment asks for.
pub fn gate(limits: &BuildLimits, reports: &[TestReport]) -> Result<(), Error> {
    check_tests(limits, reports).and_then(|()| check_coverage(limits, reports))
}

fn check_tests(limits: &BuildLimits, reports: &[TestReport]) -> Result<(), Error> {
    let wanted = limits.pass_rate_percent;
    if report::pass_rate_percent(reports) >= wanted {
        return Ok(());
    }
    let passed = reports.iter().map(|report| report.passed).sum();
    let failed: u32 = reports.iter().map(|report| report.failed).sum();
    let failures = reports.iter().flat_map(|report| &report.failures).take(5);
    let new: Vec<&String> = reports
        .iter()
        .filter_map(|report| report.changes.as_ref())
        .flat_map(|changes| &changes.new_failures)
        .collect();
    let failures: String = failures
        .map(|(name, message)| match new.contains(&name) {
            true => format!("\n{name} (passed before): {message}"),
            false => format!("\n{name}: {message}"),
        })
        .collect();
    Err(Error::Tests {
        passed,
        ran: passed + failed,
        wanted,
        failures,
    })
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
