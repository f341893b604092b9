//! Executions that somebody cancelled.
//!
//! The line in the ledger is the order. What it orders is another commit, of the engine: after a start it is done
//! again, because the process may have ended in between.

use engine::Handle;
use model::{ExecutionId, ledger::Deed, port::Fault};
use serde_json::{Value, json};
use store::{By, Db, Error, ExecutionSummary, LedgerFilter, Store, Tx};

use super::{definition, deletion, migrate, runs, start, stored, supersede, workers};

/// How the ledger calls it, and how the execution's failure.
pub const ACTION: &str = "execution.cancel";
pub const ERROR: &str = "Vend.Cancelled";

/// More than an execution has.
pub const LINES: u32 = 20_000;

pub fn cause(actor: &str) -> String {
    format!("{actor} cancelled it")
}

/// A way back that has failed so often, for half a minute at least, may be left half way.
pub const ENOUGH: u32 = 5;

/// What becomes of an execution that is cancelled.
pub enum Order {
    /// It takes its way back. On record.
    Undo { run: u64, cause: String },
    /// Its way back has no end, and is left. On record when it is.
    Leave { run: u64, cause: String, deed: Deed },
}

/// Cancels an execution, if that is possible. `in_migration`: also one that brings data somewhere.
pub fn order(tx: &mut Tx<'_>, id: &ExecutionId, in_migration: bool, by: &By) -> Result<Order, Error> {
    let found = tx.execution_summary(id)?;
    if found.ended_at.is_some() {
        return Err(start::refusal(format!("{id} is over already"), None));
    }
    let run = runs::open(tx, found.run)?;
    let deed = deletion::deed(by, ACTION, found.place.as_ref(), id.as_str());
    if let Some(failed) = run.as_ref().and_then(runs::way_back) {
        return leave(tx, &found, failed, deed);
    }
    let mut orders = run.iter().flat_map(|run| run.orders.values());
    let migrates = |order: &engine::Order| definition::is_migrating(&order.resource);
    if !in_migration && orders.clone().any(migrates) {
        return Err(migrate::runs(tx, &found)?);
    }
    if found.kind == start::DESTROY || orders.any(|order| definition::is_final(&order.resource)) {
        let message = format!("{id} is removing things, and stops when they are gone");
        return Err(start::refusal(message, Some(follow(id))));
    }
    // From now on it is cancelled, whatever becomes of this process.
    tx.record(deed, by.at)?;
    Ok(Order::Undo {
        run: found.run,
        cause: cause(&by.actor),
    })
}

fn follow(id: &ExecutionId) -> String {
    format!("vend executions show {id} --follow")
}

/// Leaves a way back half way that fails again and again. One that goes well is waited for: what would be left is worse.
fn leave(db: &Db<'_>, found: &ExecutionSummary, failed: u32, mut deed: Deed) -> Result<Order, Error> {
    let id = &found.id;
    if failed < ENOUGH {
        let message = format!(
            "{id} is undoing what it did, and is over with that; it can be left half way when that has failed \
             {ENOUGH} times, and it has {failed} times"
        );
        // Scripts on hosts can be ended before.
        let next = match db.open_undo(id)? {
            Some(undo) => format!("vend deploy abort {}", undo.id),
            None => follow(id),
        };
        return Err(start::refusal(message, Some(next)));
    }
    let mut cause = format!(
        "{} left its way back, which had failed {failed} times",
        deed.actor
    );
    if let Some(why) = last_failure(db, id)? {
        cause.push_str(&format!(", the last time because {why}"));
    }
    deed.detail = json!({ "left": cause });
    Ok(Order::Leave {
        run: found.run,
        cause,
        deed,
    })
}

/// How an execution is left of which nothing is wanted any more, when its way back has failed often enough.
pub fn given_up(db: &Db<'_>, found: &ExecutionSummary, by: &By) -> Result<Option<Order>, Error> {
    let run = runs::open(db, found.run)?;
    match run.as_ref().and_then(runs::way_back) {
        Some(failed) if failed >= ENOUGH => {
            let deed = deletion::deed(by, ACTION, found.place.as_ref(), found.id.as_str());
            leave(db, found, failed, deed).map(Some)
        }
        _ => Ok(None),
    }
}

/// What the ledger says of the last that failed in an execution.
fn last_failure(db: &Db<'_>, id: &ExecutionId) -> Result<Option<String>, Error> {
    let lines = supersede::told(db, id)?;
    let last = supersede::last_failure(&lines);
    let detail = last.and_then(|line| serde_json::from_str::<Value>(&line.detail).ok());
    Ok(detail.and_then(|detail| detail["cause"].as_str().map(str::to_owned)))
}

/// Lets an execution take its way back.
pub async fn interrupt(engine: &Handle, run: u64, cause: &str) -> Result<(), Fault> {
    workers::interrupt(engine, run, ERROR, cause).await
}

/// Does what was ordered. Says whether the execution is over with that: what it left open is to be finished then.
pub async fn carry_out(engine: &Handle, order: Order) -> Result<bool, Fault> {
    match order {
        Order::Undo { run, cause } => workers::interrupt(engine, run, ERROR, &cause)
            .await
            .map(|()| false),
        Order::Leave { run, cause, deed } => {
            let stopped = engine.stop_with(run, Some(ERROR.into()), Some(cause), Some(deed));
            match stopped.await {
                // It has ended meanwhile.
                Ok(_) | Err(engine::Error::NotOpen(_)) => Ok(true),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Cancels what is open though the ledger says that it was cancelled. One that is on its way back already stays on it:
/// what undoes is not interrupted.
pub async fn again(store: &Store, engine: &Handle) -> Result<(), Fault> {
    for (run, error, cause) in store.read(ordered).await.map_err(stored)? {
        workers::interrupt(engine, run, error, &cause).await?;
    }
    Ok(())
}

fn ordered(db: &Db<'_>) -> Result<Vec<(u64, &'static str, String)>, Error> {
    let mut found = Vec::new();
    for execution in db.open_executions()? {
        let lines = db.ledger(&LedgerFilter {
            object: Some(execution.id.to_string()),
            limit: LINES,
            ..LedgerFilter::default()
        })?;
        let order = lines.into_iter().find_map(|line| match line.action.as_str() {
            ACTION => Some((ERROR, cause(&line.actor))),
            supersede::ACTION => {
                let detail: Value = serde_json::from_str(&line.detail).unwrap_or_default();
                let why = detail["cause"].as_str().unwrap_or("a newer push supersedes it");
                Some((supersede::ERROR, why.to_owned()))
            }
            _ => None,
        });
        found.extend(order.map(|(error, cause)| (execution.run, error, cause)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use camino::Utf8PathBuf;
    use engine::{Limits, PLATFORM, Setup, Start};
    use model::ExecutionId;
    use serde_json::json;
    use store::{By, NewExecution, Status, Tx};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::flow::{definition, deletion};

    fn start(id: &ExecutionId) -> Start {
        let definition = definition::resize().to_string();
        Start {
            tenant: None,
            owner: PLATFORM,
            machine: 0,
            machine_arn: "machine".into(),
            machine_name: "rollback".into(),
            role: "vend".into(),
            program: asl::Machine::parse(&definition).unwrap(),
            definition: definition.as_str().into(),
            name: id.to_string(),
            arn: id.to_string(),
            origin: "{}".into(),
            input: json!({}),
            fresh: true,
        }
    }

    #[tokio::test]
    async fn what_is_cancelled_on_record_is_cancelled_after_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let (store, cancel) = (Store::open(&path).unwrap(), CancellationToken::new());
        let (engine, handle) = engine::new(Setup {
            store: store.clone(),
            clock: crate::clock::now,
            bits: crate::clock::bits,
            refuses: Arc::new(|_, _| None),
            own: |_| true,
            objects: None,
            witness: None,
            limits: Limits::default(),
        });
        tokio::spawn(engine.run(cancel.clone().cancelled_owned()));
        let by = || By::new("person:ann", crate::clock::now());
        let ids = [ExecutionId::from_bits(1), ExecutionId::from_bits(2)];
        for id in ids.clone() {
            let new = NewExecution {
                id: id.clone(),
                place: None,
                kind: "rollback".into(),
                run: 0,
                deadline_at: None,
            };
            let also = move |tx: &mut Tx<'_>, run| tx.start_execution(&NewExecution { run, ..new }, &by());
            handle.start_with(start(&id), Box::new(also)).await.unwrap();
        }
        // As a process leaves it that ends before it tells the engine.
        let deed = deletion::deed(&by(), ACTION, None, ids[0].as_str());
        store.write(move |tx| tx.record(deed, by().at)).await.unwrap();

        let found = store.read(ordered).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        again(&store, &handle).await.unwrap();
        let run = found[0].0;
        let (events, _) = store
            .read(move |db| engine::history(db, run, 1, 99))
            .await
            .unwrap();
        let failed = events.iter().find(|event| event.details["error"] == ERROR);
        assert_eq!(failed.unwrap().details["cause"], "person:ann cancelled it");
        // On its way back it is left alone.
        let told = events.len();
        again(&store, &handle).await.unwrap();
        let (events, _) = store
            .read(move |db| engine::history(db, run, 1, 99))
            .await
            .unwrap();
        assert_eq!(events.len(), told);

        let other = ids[1].clone();
        let other = store.read(move |db| db.execution_summary(&other)).await.unwrap();
        assert_eq!(other.status, Status::Running);
        let read = store.read(move |db| engine::history(db, other.run, 1, 99));
        let (events, _) = read.await.unwrap();
        assert!(!events.iter().any(|event| event.details["error"] == ERROR));
        cancel.cancel();
    }
}
