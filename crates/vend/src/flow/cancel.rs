//! Executions that somebody cancelled.
//!
//! The line in the ledger is the order. What it orders is another commit, of the engine: after a start it is done
//! again, because the process may have ended in between.

use engine::Handle;
use model::port::Fault;
use store::{Db, LedgerFilter, Store};

use super::{stored, supersede, workers};

/// How the ledger calls it, and how the execution's failure.
pub const ACTION: &str = "execution.cancel";
pub const ERROR: &str = "Vend.Cancelled";

/// More than an execution has.
pub const LINES: u32 = 20_000;

pub fn cause(actor: &str) -> String {
    format!("{actor} cancelled it")
}

/// Lets an execution take its way back.
pub async fn interrupt(engine: &Handle, run: u64, cause: &str) -> Result<(), Fault> {
    workers::interrupt(engine, run, ERROR, cause).await
}

/// Cancels what is open though the ledger says that it was cancelled. One that is on its way back already stays on it:
/// what undoes is not interrupted.
pub async fn again(store: &Store, engine: &Handle) -> Result<(), Fault> {
    for (run, error, cause) in store.read(ordered).await.map_err(stored)? {
        workers::interrupt(engine, run, error, &cause).await?;
    }
    Ok(())
}

fn ordered(db: &Db<'_>) -> Result<Vec<(u64, &'static str, String)>, store::Error> {
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
                let detail: serde_json::Value = serde_json::from_str(&line.detail).unwrap_or_default();
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
