//! Executions that this version cannot go on with, because what was kept of them cannot be read. They end as failed, by
//! name, before the engine starts: nothing may be under way for ever, and the next push or command begins anew. Hosts
//! that they had begun to make are cleared away by who looks after the fleet.

use store::{Batch, By, Error, ExecutionSummary, Finish, Status, Store, Tx};
use tracing::error;

use super::{close, runs};

const ERROR: &str = "Vend.Unreadable";

/// Ends what cannot be read.
pub async fn end(store: &Store, by: By) -> Result<(), Error> {
    store
        .write(move |tx| {
            for execution in tx.open_executions()? {
                let problem = match runs::open(tx, execution.run) {
                    Ok(Some(run)) if run.state.is_open() => continue,
                    Ok(_) => "its state is not there".to_owned(),
                    Err(Error::Damaged(problem)) => problem,
                    Err(error) => return Err(error),
                };
                error!(execution.id = %execution.id, "execution {} cannot go on: {problem}", execution.id);
                let reason = format!("it could not go on after a restart: {problem}");
                fail(tx, &execution, &reason, &by)?;
            }
            Ok(())
        })
        .await
}

fn fail(tx: &mut Tx<'_>, execution: &ExecutionSummary, reason: &str, by: &By) -> Result<(), Error> {
    let finish = Finish {
        execution: execution.run,
        status: Status::Failed,
        output: None,
        error: Some(ERROR.into()),
        cause: Some(reason.into()),
        at: by.at,
        history: None,
        snapshot: None,
        kin: None,
    };
    tx.append(&Batch {
        finishes: vec![finish],
        ..Batch::default()
    })?;
    let mut deed = super::deletion::deed(
        by,
        "execution.ExecutionFailed",
        execution.place.as_ref(),
        execution.id.as_str(),
    );
    deed.detail = serde_json::json!({ "error": ERROR, "cause": reason });
    tx.record(deed, by.at)?;
    let Some(place) = &execution.place else {
        return Ok(());
    };
    let over = close::Over {
        execution: &execution.id,
        place,
        error: ERROR,
        reason,
    };
    close::all(tx, &over, by)
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;
    use jiff::Timestamp;
    use model::{ExecutionId, Place};
    use store::{Begin, Fold, NewExecution, NewPush, PushState, Snapshot};

    use super::*;
    use crate::fixtures;

    fn by() -> By {
        By::platform(Timestamp::UNIX_EPOCH)
    }

    fn begin(tx: &mut Tx<'_>, key: u64, place: &Place, state: Option<&str>) -> Result<ExecutionId, Error> {
        let id = ExecutionId::from_bits(key);
        let begin = Begin {
            key,
            tenant: None,
            machine: 0,
            name: id.to_string(),
            arn: id.to_string(),
            origin: "{}".into(),
            definition: super::super::definition::resize().to_string().into(),
            input: "{}".into(),
            at: by().at,
            kin: None,
        };
        let fold = state.map(|state| Fold {
            snapshot: Snapshot {
                execution: key,
                seq: 0,
                wake: None,
                open: "[]".into(),
                orders: "[]".into(),
                state: state.into(),
            },
            history: None,
        });
        tx.append(&Batch {
            begins: vec![begin],
            folds: fold.into_iter().collect(),
            ..Batch::default()
        })?;
        let new = NewExecution {
            id: id.clone(),
            place: Some(place.clone()),
            kind: "release".into(),
            run: key,
            deadline_at: None,
        };
        tx.start_execution(&new, &by())?;
        Ok(id)
    }

    /// As the engine would have left it.
    fn healthy() -> String {
        let machine = asl::Machine::parse(&super::super::definition::resize().to_string()).unwrap();
        let start = asl::Event::Start {
            id: "x".into(),
            name: "x".into(),
            input: serde_json::json!({}),
            role: "vend".into(),
            machine_id: "m".into(),
            machine_name: "m".into(),
            seed: [1, 2],
        };
        let step = asl::step(&machine, asl::Execution::new(), &start, by().at);
        serde_json::to_string(&step.execution).unwrap()
    }

    #[tokio::test]
    async fn what_cannot_be_read_has_failed_and_can_be_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().join("serve")).unwrap();
        let store = Store::open(&path).unwrap();
        let place: Place = "acme/shop/dev".parse().unwrap();
        let own = place.clone();
        let written = store.write(move |tx| {
            tx.create_tenant(&own.tenant, &by())?;
            tx.create_app(&own.tenant, &own.app, None, &by())?;
            tx.ensure_environment(&own, "dev", &by())?;
            let push = NewPush {
                tenant: own.tenant.clone(),
                app: own.app.clone(),
                environment: Some(own.environment.clone()),
                branch: "dev".into(),
                commit: fixtures::commit("dev", by().at),
                origin: "git".into(),
                event: None,
            };
            tx.enqueue_push(&push, &by())?;
            tx.next_push(&own, &ExecutionId::from_bits(1), &by())?;
            let (newer, empty) = (r#"{"version":99}"#, None);
            begin(tx, 1, &own, Some(newer))?;
            begin(tx, 2, &own, empty)?;
            begin(tx, 3, &own, Some(&healthy()))
        });
        let healthy = written.await.unwrap();
        for _ in 0..2 {
            end(&store, by()).await.unwrap();
        }
        let left = store.read(move |db| {
            let open: Vec<_> = db.open_executions()?.into_iter().map(|open| open.id).collect();
            let failed = db.execution_summary(&ExecutionId::from_bits(1))?;
            let push = db.pushes(&place.tenant, &place.app, None, None, 1)?.pop();
            Ok::<_, Error>((open, failed, push))
        });
        let (open, failed, push) = left.await.unwrap();
        assert_eq!(open, [healthy]);
        assert_eq!(
            (failed.status, failed.error.as_deref()),
            (Status::Failed, Some(ERROR))
        );
        let push = push.unwrap();
        assert_eq!(push.state, PushState::Failed);
        assert!(push.reason.unwrap().contains("could not go on"));
    }
}
