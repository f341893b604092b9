//! Releases as executions of the engine: how they begin, what is told of them, and how they are read.
//!
//! The engine knows nothing of releases: it is given a definition and an input, and what else belongs into the
//! transaction. An execution's row says what it is; all that it does is read from its run.

use std::{collections::BTreeMap, sync::Arc};

use asl::Purpose;
use engine::{Own, PLATFORM, Recovered, Start, Witness};
use jiff::SignedDuration;
use model::{ExecutionId, Place, ledger::Deed, port::Fault};
use serde_json::{Value, json};
use store::{By, Db, Error, ExecutionSummary, NewExecution, Tx};
use tracing::info;

use super::{Pokes, World, definition};

/// No execution is open longer. The longest approval may be waited for for a month, and be asked for again when the
/// plan changes.
const DEADLINE: SignedDuration = SignedDuration::from_hours(70 * 24);

/// The kind of an execution that brings a push.
pub const RELEASE: &str = "release";

/// An execution that is to begin.
pub struct New {
    pub id: ExecutionId,
    pub kind: &'static str,
    pub place: Place,
    pub definition: Value,
    pub input: Value,
    pub by: By,
}

/// Begins an execution, in one transaction with the reason for it, which may refuse it.
pub async fn begin(
    world: &World,
    new: New,
    reason: impl FnOnce(&mut Tx<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<ExecutionId, Error> {
    let New {
        id, kind, place, by, ..
    } = new;
    // What an older version began has no gate where this one has, and would take a wait at one for the end.
    let mut input = new.input;
    input["gated"] = new.definition["States"].get("Hold").is_some().into();
    let definition = new.definition.to_string();
    let program = asl::Machine::parse(&definition).map_err(|problems| {
        Error::Damaged(format!(
            "the definition of {kind} is not valid: {}",
            asl::refusal(&problems)
        ))
    })?;
    let start = Start {
        tenant: None,
        owner: PLATFORM,
        machine: 0,
        machine_arn: definition::arn(&format!("stateMachine:{kind}")),
        machine_name: kind.into(),
        role: "vend".into(),
        program,
        definition,
        name: id.to_string(),
        arn: definition::arn(&format!("execution:{kind}:{id}")),
        origin: json!({ "tenant": place.tenant }).to_string(),
        input,
        fresh: true,
    };
    let execution = id.clone();
    let also = move |tx: &mut Tx<'_>, run| {
        reason(tx)?;
        let new = NewExecution {
            id: execution,
            place: Some(place),
            kind: kind.into(),
            run,
            deadline_at: Some(by.at + DEADLINE),
        };
        tx.start_execution(&new, &by)
    };
    match world.engine.start_with(start, Box::new(also)).await {
        Ok(_) => Ok(id),
        Err(error) => Err(kept(error)),
    }
}

/// What the engine says, as the store would.
fn kept(error: engine::Error) -> Error {
    match error {
        engine::Error::Refused(error) | engine::Error::Store(error) => {
            Arc::try_unwrap(error).unwrap_or_else(|error| Error::Damaged(error.to_string()))
        }
        engine::Error::Closed => Error::Closed,
        other => Error::Damaged(other.to_string()),
    }
}

/// What an open execution is doing. `None`: it is over.
pub fn open(db: &Db<'_>, run: u64) -> Result<Option<Recovered>, Error> {
    engine::recover(db, run).map_err(kept)
}

/// The first events of an execution's history, `limit` at most.
pub fn history(db: &Db<'_>, run: u64, limit: usize) -> Result<Vec<asl::HistoryEvent>, Error> {
    let (events, _) = engine::history(db, run, 1, limit).map_err(kept)?;
    Ok(events)
}

/// The execution that has the environment's hosts. Until it ends no other that wants them begins, and with it ends what it
/// held. All have them from their beginning on but releases, which come to them with their plan (see [`ahead`]).
pub fn moving(db: &Db<'_>, place: &Place) -> Result<Option<ExecutionSummary>, Error> {
    first(db, place, |run| !is_apart(run))
}

/// The execution of this environment that does more than wait for people: it has the hosts, or is about to want them.
pub fn working(db: &Db<'_>, place: &Place) -> Result<Option<ExecutionSummary>, Error> {
    first(db, place, |run| {
        let mut orders = run.orders.values();
        !orders.any(|order| definition::is_asking(&order.resource))
    })
}

/// The execution that a release comes after: one that began while the release had not come to the hosts. It goes first,
/// and waits for nothing.
pub fn ahead(db: &Db<'_>, place: &Place, own: &ExecutionId) -> Result<Option<ExecutionSummary>, Error> {
    if db.execution_summary(own)?.kind != RELEASE {
        return Ok(None);
    }
    let mut open = db.open_executions()?.into_iter();
    Ok(open.find(|other| other.id != *own && other.place.as_ref() == Some(place)))
}

/// The release that is made and waits at its plan for another execution to end, which has the hosts.
pub fn behind(db: &Db<'_>, place: &Place) -> Result<Option<ExecutionSummary>, Error> {
    let Some(release) = db.open_execution(place, Some(RELEASE))? else {
        return Ok(None);
    };
    let comes = open(db, release.run)?.is_some_and(|run| {
        let mut orders = run.orders.values();
        orders.any(|order| definition::is_coming(&order.resource))
    });
    let waits = comes && ahead(db, place, &release.id)?.is_some();
    Ok(waits.then_some(release))
}

/// The oldest of a place of which this is so, or of which nothing can be read.
fn first(
    db: &Db<'_>,
    place: &Place,
    is_meant: impl Fn(&Recovered) -> bool,
) -> Result<Option<ExecutionSummary>, Error> {
    for execution in db.open_executions()? {
        if execution.place.as_ref() == Some(place)
            && open(db, execution.run)?.is_none_or(|run| is_meant(&run))
        {
            return Ok(Some(execution));
        }
    }
    Ok(None)
}

/// Does it nothing that touches hosts, and waits for nothing that does?
fn is_apart(run: &Recovered) -> bool {
    let orders = run.orders.values();
    let does = orders.map(|order| definition::is_apart(&order.resource));
    let timers = run.state.open_timers();
    let again = timers
        .filter(|timer| timer.purpose == Purpose::Backoff)
        .map(|timer| definition::is_state_apart(timer.state));
    let mut all = does.chain(again).peekable();
    all.peek().is_some() && all.all(|is_apart| is_apart)
}

/// How often its way back has failed until now. `None`: it is not on it.
pub fn way_back(run: &Recovered) -> Option<u32> {
    let mut orders = run.orders.values();
    if let Some(order) = orders.find(|order| definition::activity(&order.resource) == Some("unwind")) {
        return Some(order.attempt.saturating_sub(1));
    }
    let mut timers = run.state.open_timers();
    let again = timers.find(|timer| timer.purpose == Purpose::Backoff && timer.state == definition::UNWIND);
    again.map(|timer| timer.attempts)
}

/// Is all that it does to make what a release is of?
pub fn is_making(run: &Recovered) -> bool {
    let mut orders = run.orders.values().peekable();
    orders.peek().is_some() && orders.all(|order| definition::is_making(&order.resource))
}

/// What a fault is to the definition: an error name to match, and one text for people.
pub fn failure(fault: &Fault) -> (String, String) {
    let mut cause = fault.message.clone();
    if let Some(next) = &fault.next {
        cause.push_str(&format!(" (next: {next})"));
    }
    (fault.error_name().into(), cause)
}

/// Who writes down what executions do, and looks for what to do when one is over.
pub struct Clerk(pub Arc<Pokes>);

impl Witness for Clerk {
    fn deeds(&self, own: &Own, events: &[asl::HistoryEvent]) -> Vec<Deed> {
        let origin: Value = serde_json::from_str(&own.origin).unwrap_or_default();
        let tenant = origin["tenant"].as_str();
        let deed = |event| deed(&own.name, tenant, event);
        events.iter().filter_map(deed).collect()
    }

    fn ended(&self, own: &Own, status: &str) {
        info!(execution.id = %own.name, status, "execution {} is over", own.name);
        self.0.pushes.notify_one();
        self.0.fleet.notify_one();
        // A release may wait to come to the hosts.
        self.0.held.notify_waiters();
    }
}

/// The lines of the ledger for what an execution does: states entered, failures, the end.
fn deed(execution: &str, tenant: Option<&str>, event: &asl::HistoryEvent) -> Option<Deed> {
    let kind = event.kind.as_str();
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
        tenant: tenant.map(str::to_owned),
        object: execution.to_owned(),
        detail: json!(detail),
    })
}

#[cfg(test)]
pub mod tests;
