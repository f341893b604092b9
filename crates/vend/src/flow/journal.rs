//! A step of an execution as rows: what the store commits in one transaction.
//!
//! Pure but for the randomness of a new execution.

use std::collections::{BTreeMap, BTreeSet};

use asl::{Command, Event, Machine};
use jiff::{SignedDuration, Timestamp};
use model::{ExecutionId, Place, Ticket, ledger::Deed};
use serde_json::{Value, json};
use store::{By, End, HistoryRow, NewExecution, NewTask, Status, Transition, Tx};

/// Starts an execution in the caller's transaction: its row and its first step.
pub fn begin(
    tx: &mut Tx<'_>,
    id: ExecutionId,
    kind: &str,
    place: &Place,
    definition: &Value,
    input: &Value,
    by: &By,
) -> Result<ExecutionId, store::Error> {
    let text = definition.to_string();
    let machine = Machine::parse(&text).map_err(|problems| {
        store::Error::Damaged(format!("the definition of {kind} is not valid: {problems:?}"))
    })?;
    let start = Event::Start {
        id: id.to_string(),
        name: id.to_string(),
        input: input.clone(),
        role: "vend".into(),
        machine_id: format!("arn:aws:states:local:000000000000:stateMachine:{kind}"),
        machine_name: kind.into(),
        seed: [crate::clock::bits(), crate::clock::bits()],
    };
    let before = asl::Execution::new();
    let state = serde_json::to_string(&before).expect("an execution is plain data");
    let new = NewExecution {
        id: id.clone(),
        place: Some(place.clone()),
        kind: kind.into(),
        machine: text,
        input: input.to_string(),
        state,
        deadline_at: Some(by.at + DEADLINE),
    };
    tx.start_execution(&new, by)?;
    let step = asl::step(&machine, before.clone(), &start, by.at);
    tx.commit(transition(&id, Some(place), 0, by.at, &before, &step))?;
    Ok(id)
}

/// No execution is open longer. The longest approval may be waited for for a month, and be asked for again when the
/// plan changes.
const DEADLINE: SignedDuration = SignedDuration::from_hours(70 * 24);

/// A step as rows.
pub fn transition(
    id: &ExecutionId,
    place: Option<&Place>,
    expected: u64,
    at: Timestamp,
    before: &asl::Execution,
    step: &asl::Step,
) -> Transition {
    let state = serde_json::to_string(&step.execution).expect("an execution is plain data");
    let mut transition = Transition::new(id.clone(), expected, at, state);
    transition.history = step.history.iter().map(row).collect();
    transition.deeds = step
        .history
        .iter()
        .filter_map(|event| deed(id, place, event))
        .collect();
    for command in &step.commands {
        match command {
            Command::Schedule {
                task,
                resource,
                input,
                attempt,
                ..
            } => transition.scheduled.push(NewTask {
                task: *task,
                resource: resource.clone(),
                input: input.to_string(),
                ticket: Ticket::of(id, *task, *attempt),
                attempt: *attempt,
                not_before: None,
                heartbeat_ms: None,
                timeout_at: None,
            }),
            Command::StartTimer { timer, at } => transition.timers.push((*timer, *at)),
            // What is not open any more is found below, however it ended.
            Command::CancelTask { .. } | Command::CancelTimer { .. } => {}
            // The definitions of releases have no distributed Maps.
            Command::OpenMapRun { .. }
            | Command::RedriveMapRun { .. }
            | Command::StartChild { .. }
            | Command::CloseMapRun { .. } => {}
        }
    }
    let tasks: BTreeSet<u64> = step.execution.open_tasks().map(|task| task.task).collect();
    let timers: BTreeSet<u64> = step.execution.open_timers().map(|timer| timer.timer).collect();
    transition.ended = before
        .open_tasks()
        .map(|task| task.task)
        .filter(|task| !tasks.contains(task))
        .collect();
    transition.cleared = before
        .open_timers()
        .map(|timer| timer.timer)
        .filter(|timer| !timers.contains(timer))
        .collect();
    transition.end = end(step.execution.status());
    transition
}

fn row(event: &asl::HistoryEvent) -> HistoryRow {
    HistoryRow {
        id: event.id,
        previous: event.previous,
        at: event.at,
        kind: event.kind.to_string(),
        details: event.details.to_string(),
    }
}

/// The lines of the ledger for what an execution does: states entered, failures, the end.
fn deed(id: &ExecutionId, place: Option<&Place>, event: &asl::HistoryEvent) -> Option<Deed> {
    let kind = event.kind.to_string();
    let told = kind.ends_with("StateEntered") || kind.ends_with("Failed") || kind.ends_with("TimedOut");
    let ends = kind.starts_with("Execution") && kind != "ExecutionStarted";
    if !told && !ends {
        return None;
    }
    let detail: BTreeMap<&str, &Value> = ["name", "error", "cause"]
        .into_iter()
        .filter_map(|key| Some((key, event.details.get(key)?)))
        .collect();
    Some(Deed {
        actor: "platform".into(),
        action: format!("execution.{kind}"),
        tenant: place.map(|place| place.tenant.to_string()),
        object: id.to_string(),
        detail: json!(detail),
    })
}

fn end(status: &asl::Status) -> Option<End> {
    let (status, output, error, cause) = match status {
        asl::Status::Running => return None,
        asl::Status::Succeeded { output } => (Status::Succeeded, Some(output.to_string()), None, None),
        asl::Status::Failed { error, cause } => (Status::Failed, None, error.clone(), cause.clone()),
        asl::Status::TimedOut => (Status::TimedOut, None, Some("States.Timeout".into()), None),
        asl::Status::Aborted { error, cause } => (Status::Aborted, None, error.clone(), cause.clone()),
    };
    Some(End {
        status,
        output,
        error,
        cause,
    })
}
