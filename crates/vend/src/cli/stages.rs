//! What an execution did, stage by stage: read from its history, which says it event by event.
//!
//! Pure. The states of a machine that only decide (`Choice`, `Pass`, `Parallel`, `Map`) are not stages: a person asks
//! what was worked on, how long it took, and what it waited for.

use jiff::{SignedDuration, Timestamp};
use model::wire::{ExecutionDetail, HistoryEvent};

use crate::output::{Output, Table, Tone, ago, cell, clean, duration, lines, without_next};

/// One visit of a state that works or waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub name: String,
    pub started: Timestamp,
    /// None while it goes on.
    pub ended: Option<Timestamp>,
    pub outcome: Outcome,
    /// Every wait with its reason, in order; of a failure, what failed.
    pub notes: Vec<String>,
    /// The attempt that goes on: since when it waits for a worker.
    scheduled: Option<Timestamp>,
    /// What the attempt before failed with.
    failure: Option<(Timestamp, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Running,
    Done,
    Failed,
    /// The execution ended before it did.
    Stopped,
}

/// Shorter waits for a worker are the machine's, not anything that a person would ask about.
const WORTH_SAYING: SignedDuration = SignedDuration::from_secs(1);

/// The stages of an execution in the order in which they began.
pub fn of(detail: &ExecutionDetail) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for event in &detail.history {
        let name = event.state.as_deref().unwrap_or_default();
        match event.kind.as_str() {
            "TaskStateEntered" | "WaitStateEntered" => stages.push(Stage::begun(name, event.at)),
            _ => {
                let mut open = stages.iter_mut().rev();
                if let Some(stage) = open.find(|stage| stage.name == name && stage.ended.is_none()) {
                    stage.take(event);
                }
            }
        }
    }
    let execution = &detail.execution;
    for stage in stages.iter_mut().filter(|stage| stage.ended.is_none()) {
        stage.close(execution.ended_at);
    }
    if let (Some(waiting), Some(last)) = (&execution.waiting, stages.last_mut()) {
        last.notes.push(format!("waits for {}", clean(waiting)));
    }
    stages
}

impl Stage {
    fn begun(name: &str, started: Timestamp) -> Self {
        Self {
            name: clean(name),
            started,
            ended: None,
            outcome: Outcome::Running,
            notes: Vec::new(),
            scheduled: None,
            failure: None,
        }
    }

    fn take(&mut self, event: &HistoryEvent) {
        match event.kind.as_str() {
            // The end of what is around a stage is told as of the stage, and gives no reason.
            kind if kind.starts_with("Execution")
                || kind.ends_with("StateFailed")
                || kind.ends_with("IterationFailed")
                || kind.starts_with("MapRun") => {}
            "WaitStateExited" => {
                let waited = duration(event.at.duration_since(self.started));
                self.notes.push(format!("waited {waited} for the clock"));
                self.end(event.at, Outcome::Done);
            }
            kind if kind.ends_with("StateExited") => {
                let outcome = match self.failure.take() {
                    Some((_, why)) => {
                        self.notes.push(why);
                        Outcome::Failed
                    }
                    None => Outcome::Done,
                };
                self.end(event.at, outcome);
            }
            kind if kind.ends_with("Scheduled") => {
                self.scheduled = Some(event.at);
                if let Some((at, why)) = self.failure.take() {
                    let waited = duration(event.at.duration_since(at));
                    self.notes
                        .push(format!("waited {waited} to try again, because it failed: {why}"));
                }
            }
            kind if kind.ends_with("Started") => {
                let since = self.scheduled.take().unwrap_or(event.at);
                let waited = event.at.duration_since(since);
                if waited >= WORTH_SAYING {
                    self.notes
                        .push(format!("waited {} for a worker", duration(waited)));
                }
            }
            kind if kind.ends_with("Failed") || kind.ends_with("TimedOut") => {
                let nothing = if kind.ends_with("TimedOut") {
                    "it took too long"
                } else {
                    "no reason was given"
                };
                if let Some(since) = self.scheduled.take() {
                    // No worker had it: people were asked, or it found none.
                    let waited = duration(event.at.duration_since(since));
                    self.notes.push(format!("waited {waited} for an answer"));
                }
                let why = event.detail.as_deref().unwrap_or(nothing);
                self.failure = Some((event.at, without_next(why).0));
            }
            kind if kind.ends_with("Succeeded") => self.answered(event),
            _ => {}
        }
    }

    /// A task that no worker of the platform started was answered by somebody else: people.
    fn answered(&mut self, event: &HistoryEvent) {
        if let Some(since) = self.scheduled.take() {
            let waited = event.at.duration_since(since);
            if waited >= WORTH_SAYING || event.detail.is_some() {
                let who = event.detail.as_deref().unwrap_or("the answer");
                self.notes
                    .push(format!("waited {} for {}", duration(waited), clean(who)));
            }
        }
        self.failure = None;
    }

    fn end(&mut self, at: Timestamp, outcome: Outcome) {
        self.ended = Some(at);
        self.outcome = outcome;
    }

    /// It was never left: it goes on, it failed with nobody to catch it, or the execution was stopped over it.
    fn close(&mut self, ended: Option<Timestamp>) {
        match (self.failure.take(), ended) {
            (Some((at, why)), Some(_)) => {
                self.notes.push(why);
                self.end(at, Outcome::Failed);
            }
            (Some((at, why)), None) => {
                self.notes
                    .push(format!("tried again since {at}, because it failed: {why}"));
            }
            (None, Some(ended)) => self.end(ended, Outcome::Stopped),
            (None, None) => {}
        }
    }
}

impl Outcome {
    fn cell(self) -> (String, Tone) {
        let (word, tone) = match self {
            Self::Running => ("running", Tone::Wait),
            Self::Done => ("done", Tone::Good),
            Self::Failed => ("failed", Tone::Bad),
            Self::Stopped => ("stopped", Tone::Faint),
        };
        (word.to_owned(), tone)
    }
}

/// The stages as a table; each wait on a line of its own below its stage.
pub fn text(detail: &ExecutionDetail, now: Timestamp, output: &Output) -> String {
    let stages = of(detail);
    let mut table = Table::new(["STAGE", "STARTED", "TOOK", "OUTCOME"]);
    for stage in &stages {
        let took = stage.ended.unwrap_or(now).duration_since(stage.started);
        table.row([
            cell(&stage.name),
            cell(ago(stage.started, now)),
            cell(duration(took)),
            stage.outcome.cell(),
        ]);
    }
    let table = table.render(output, "no stage has begun yet");
    let mut rows = table.lines();
    let mut text: String = rows.by_ref().take(1).map(|head| format!("{head}\n")).collect();
    for (line, stage) in rows.zip(&stages) {
        text.push_str(&format!("{line}\n"));
        for note in &stage.notes {
            let tone = match stage.outcome {
                Outcome::Failed => Tone::Bad,
                Outcome::Running => Tone::Wait,
                _ => Tone::Faint,
            };
            let note = lines(note, "    ");
            text.push_str(&format!("  {}\n", output.tone(tone, &note)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use model::wire::{Execution, ExecutionState};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn event((id, second, kind, state, detail): (u64, i64, &str, &str, &str)) -> HistoryEvent {
        HistoryEvent {
            id,
            at: at(second),
            kind: kind.into(),
            state: Some(state.into()),
            detail: (!detail.is_empty()).then(|| detail.into()),
        }
    }

    fn detail(ended: Option<i64>, events: &[(u64, i64, &str, &str, &str)]) -> ExecutionDetail {
        ExecutionDetail {
            execution: Execution {
                id: model::ExecutionId::from_bits(7),
                kind: "release".into(),
                place: None,
                state: ended.map_or(ExecutionState::Running, |_| ExecutionState::Failed),
                stage: None,
                waiting: ended.is_none().then(|| "people: 0 of 1 have approved".into()),
                error: None,
                cause: None,
                started_at: at(0),
                started_by: "platform".into(),
                ended_at: ended.map(at),
            },
            history: events.iter().copied().map(event).collect(),
            logs: Vec::new(),
            builds: Vec::new(),
        }
    }

    fn shown(detail: &ExecutionDetail) -> String {
        text(detail, at(600), &Output::new(false, String::new()))
    }

    #[test]
    fn a_failed_release_shows_its_stages_waits_and_the_failure() {
        let detail = detail(
            Some(100),
            &[
                (1, 0, "ExecutionStarted", "", ""),
                (2, 0, "TaskStateEntered", "Build", ""),
                (3, 0, "ActivityScheduled", "Build", "build"),
                (4, 4, "ActivityStarted", "Build", ""),
                (
                    5,
                    20,
                    "ActivityFailed",
                    "Build",
                    "the node is away (Vend.Platform)",
                ),
                (6, 30, "ActivityScheduled", "Build", "build"),
                (7, 30, "ActivityStarted", "Build", ""),
                (8, 40, "ActivitySucceeded", "Build", ""),
                (9, 40, "TaskStateExited", "Build", ""),
                (10, 40, "ChoiceStateEntered", "PlanUnchanged", ""),
                (11, 40, "TaskStateEntered", "Approve", ""),
                (12, 40, "ActivityScheduled", "Approve", "approve"),
                (13, 70, "ActivitySucceeded", "Approve", "person:ops"),
                (14, 70, "TaskStateExited", "Approve", ""),
                (15, 70, "TaskStateEntered", "Deploy", ""),
                (16, 70, "ActivityScheduled", "Deploy", "deploy"),
                (17, 70, "ActivityStarted", "Deploy", ""),
                (
                    18,
                    90,
                    "ActivityFailed",
                    "Deploy",
                    "ApplicationStart failed (next: vend logs x) (Vend.Customer)",
                ),
                (19, 90, "TaskStateExited", "Deploy", ""),
            ],
        );
        assert_eq!(
            shown(&detail),
            concat!(
                "STAGE    STARTED     TOOK    OUTCOME\n",
                "Build    10 min ago  40.0 s  done\n",
                "  waited 4.0 s for a worker\n",
                "  waited 10.0 s to try again, because it failed: the node is away (Vend.Platform)\n",
                "Approve  9 min ago   30.0 s  done\n",
                "  waited 30.0 s for person:ops\n",
                "Deploy   8 min ago   20.0 s  failed\n",
                "  ApplicationStart failed (Vend.Customer)\n",
            )
        );
    }

    #[test]
    fn a_failure_keeps_its_lines_and_its_reason() {
        let why = "BUILD failed: exit status 1; its last lines:\nFAIL a.test\nFAIL b.test (Vend.Customer)";
        let detail = detail(
            Some(9),
            &[
                (1, 0, "TaskStateEntered", "Build", ""),
                (2, 0, "ActivityScheduled", "Build", "build"),
                (3, 0, "ActivityStarted", "Build", ""),
                (4, 5, "ActivityFailed", "Build", why),
                // Its state is that of the event before it.
                (5, 5, "ParallelStateFailed", "Build", ""),
                (6, 9, "ExecutionFailed", "Build", ""),
            ],
        );
        assert!(
            shown(&detail).ends_with(concat!(
                "failed\n",
                "  BUILD failed: exit status 1; its last lines:\n",
                "    FAIL a.test\n",
                "    FAIL b.test (Vend.Customer)\n",
            )),
            "{}",
            shown(&detail)
        );
    }

    #[test]
    fn what_goes_on_says_what_it_waits_for() {
        let events = [
            (1, 0, "TaskStateEntered", "Plan", ""),
            (2, 0, "ActivityScheduled", "Plan", "plan"),
            (3, 0, "ActivityStarted", "Plan", ""),
            (4, 1, "ActivitySucceeded", "Plan", ""),
            (5, 1, "TaskStateExited", "Plan", ""),
            (6, 1, "TaskStateEntered", "Approve", ""),
            (7, 1, "ActivityScheduled", "Approve", "approve"),
        ];
        assert_eq!(
            shown(&detail(None, &events)),
            concat!(
                "STAGE    STARTED     TOOK        OUTCOME\n",
                "Plan     10 min ago  1.0 s       done\n",
                "Approve  9 min ago   9 min 59 s  running\n",
                "  waits for people: 0 of 1 have approved\n",
            )
        );
        // A cancelled execution leaves its stage where it stood.
        let cancelled = of(&detail(Some(5), &events));
        assert_eq!(
            cancelled.last().map(|stage| (stage.outcome, stage.ended)),
            Some((Outcome::Stopped, Some(at(5))))
        );
    }
}
