//! What a ticket came to, in a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use model::{
    Ticket,
    port::{EventReport, EventStatus, LifecycleEvent, ScriptCode, ScriptFailure},
};
use serde::{Deserialize, Serialize};

/// So many tickets are remembered.
const KEEP: usize = 200;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    ticket: Ticket,
    pub reports: Vec<EventReport>,
    /// The event that runs, and since when.
    current: Option<(LifecycleEvent, Timestamp)>,
    /// Events that come after it.
    waiting: Vec<LifecycleEvent>,
}

impl Record {
    pub fn new(ticket: &Ticket, events: &[LifecycleEvent]) -> Self {
        Self {
            ticket: ticket.clone(),
            reports: Vec::new(),
            current: None,
            waiting: events.to_vec(),
        }
    }

    /// The record of a ticket whose deployment does not run. One that broke off has failed: no script of it may run
    /// again.
    pub fn read(directory: &Path, ticket: &Ticket) -> Option<Self> {
        let mut record = Self::load(directory, ticket)?;
        record.cut_off();
        Some(record)
    }

    fn load(directory: &Path, ticket: &Ticket) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(directory, ticket)).ok()?).ok()
    }

    /// All events of a ticket, whether it runs, has ended or broke off. Empty when nothing is known of it.
    pub fn progress(directory: &Path, ticket: &Ticket) -> Vec<EventReport> {
        let Some(Self {
            mut reports,
            current,
            waiting,
            ..
        }) = Self::load(directory, ticket)
        else {
            return Vec::new();
        };
        let last = reports.last().map(|report| report.started_at);
        let at = current
            .map(|(_, at)| at)
            .or(last)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        reports.extend(current.map(|(event, at)| EventReport::only(event, EventStatus::InProgress, at)));
        let waiting = waiting.into_iter();
        reports.extend(waiting.map(|event| EventReport::only(event, EventStatus::Pending, at)));
        reports
    }

    pub fn begin(&mut self, event: LifecycleEvent, at: Timestamp) {
        self.waiting.retain(|waiting| *waiting != event);
        self.current = Some((event, at));
    }

    pub fn end(&mut self, report: EventReport) {
        self.current = None;
        self.reports.push(report);
    }

    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let path = file(directory, &self.ticket);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self).expect("a record is plain data"))?;
        fs::rename(fresh, path)
    }

    /// What a record says after the agent ended in the middle of it. True when that changed it.
    fn cut_off(&mut self) -> bool {
        let Some((event, started_at)) = self.current.take() else {
            if self.waiting.is_empty() {
                return false;
            }
            return self.skip_rest();
        };
        self.reports.push(EventReport {
            event,
            status: EventStatus::Failed,
            started_at,
            duration_ms: 0,
            failure: Some(ScriptFailure {
                code: ScriptCode::FailedAfterRestart,
                ..ScriptFailure::unknown(format!("The agent ended while {event} ran"), String::new())
            }),
            log: None,
        });
        self.skip_rest()
    }

    fn skip_rest(&mut self) -> bool {
        let started_at = self
            .reports
            .last()
            .map_or(Timestamp::UNIX_EPOCH, |last| last.started_at);
        self.reports.extend(
            self.waiting
                .drain(..)
                .map(|event| EventReport::only(event, EventStatus::Skipped, started_at)),
        );
        true
    }
}

/// Finishes what a restart cut off.
pub fn recover(directory: &Path) {
    for path in files(directory, "", ".json") {
        let record = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        if let Some(mut record) = record
            && record.cut_off()
            && let Err(error) = record.write(directory)
        {
            tracing::warn!("cannot finish the record of {}: {error}", record.ticket);
        }
    }
}

/// Forgets the oldest records, and the logs of the oldest deployments.
pub fn prune(records: &Path, logs: &Path) {
    prune_files(files(records, "", ".json"));
    prune_files(files(logs, "deploy-", ".log"));
}

fn prune_files(files: Vec<PathBuf>) {
    let mut dated: Vec<_> = files
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    dated.sort();
    let too_many = dated.len().saturating_sub(KEEP);
    for (_, path) in dated.into_iter().take(too_many) {
        super::discard(&path);
    }
}

fn file(directory: &Path, ticket: &Ticket) -> PathBuf {
    directory.join(format!("{ticket}.json"))
}

fn files(directory: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_that_a_restart_cut_off_is_failed_and_never_done_again() {
        let directory = tempfile::tempdir().unwrap();
        let ticket = Ticket::from_bits(7);
        let mut record = Record::new(&ticket, &LifecycleEvent::BEFORE_TRAFFIC);
        record.begin(LifecycleEvent::ApplicationStop, Timestamp::UNIX_EPOCH);
        record.write(directory.path()).unwrap();
        recover(directory.path());
        let reports = Record::read(directory.path(), &ticket).unwrap().reports;
        assert_eq!(reports.len(), 7);
        let failure = reports[0].failure.as_ref().unwrap();
        assert_eq!(failure.code, ScriptCode::FailedAfterRestart);
        assert!(
            reports[1..]
                .iter()
                .all(|report| report.status == EventStatus::Skipped)
        );
    }
}
