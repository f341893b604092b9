//! What the executions of the platform are, beside what they do.

use model::ExecutionId;
use store::{Batch, Begin, Error, ExecutionFilter, RunFilter, Status};

use crate::world::{World, at, by, end, start, tenant};

fn id(bits: u64) -> ExecutionId {
    ExecutionId::from_bits(bits)
}

#[tokio::test]
async fn an_end_of_the_run_is_the_end_of_the_execution() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            start(tx, 1, Some(&dev), "{}", &by(0))?;
            start(tx, 2, None, "{}", &by(0))?;
            assert!(matches!(
                start(tx, 2, None, "{}", &by(0)),
                Err(Error::Exists { .. })
            ));
            assert!(tx.is_busy(&dev)?);
            end(tx, 1, Status::Failed, 3)?;
            let ended = tx.execution_summary(&id(1))?;
            assert_eq!((ended.status, ended.ended_at), (Status::Failed, Some(at(3))));
            assert_eq!(ended.error.as_deref(), Some("Vend.Customer"));
            assert_eq!(tx.execution_of_run(ended.run)?, Some(ended));
            assert!(!tx.is_busy(&dev)?);
            let open: Vec<_> = tx.open_executions()?.into_iter().map(|open| open.id).collect();
            assert_eq!(open, [id(2)]);
            let mine = ExecutionFilter {
                tenant: Some(tenant("acme")),
                ..Default::default()
            };
            assert_eq!(tx.executions(&mine)?.len(), 1);
            let running = ExecutionFilter {
                open: Some(true),
                ..mine
            };
            assert_eq!(tx.executions(&running)?.len(), 0);
            end(tx, 2, Status::TimedOut, 4)?;
            assert_eq!(
                tx.execution_summary(&id(2))?.error.as_deref(),
                Some("States.Timeout")
            );
            Ok(())
        })
        .await;
    let pruned = world.write(|tx| tx.prune_executions(at(4), 10)).await;
    assert_eq!(pruned, 1);
    let left = world.store.read(|db| {
        let pieces = (db.pieces(1001, 1, 9)?.len(), db.pieces(1002, 1, 9)?.len());
        Ok::<_, Error>((pieces, db.execution_summary(&id(2))?.run))
    });
    assert_eq!(
        left.await.unwrap(),
        ((0, 1), 1002),
        "a history goes with its execution"
    );
}

#[tokio::test]
async fn a_deadline_is_over_when_it_is_forgotten_or_the_execution_has_ended() {
    let world = World::new();
    world
        .write(|tx| {
            (1..=3).try_for_each(|bits| start(tx, bits, None, "{}", &by(0)))?;
            let overdue = |tx: &mut store::Tx<'_>, second| {
                let found = tx.overdue(at(second), 10)?;
                Ok::<_, Error>(found.into_iter().map(|found| found.id).collect::<Vec<_>>())
            };
            assert_eq!(overdue(tx, 39)?, []);
            assert_eq!(overdue(tx, 40)?, [id(1), id(2), id(3)]);
            tx.forget_deadline(&id(1))?;
            end(tx, 2, Status::Succeeded, 41)?;
            assert_eq!(overdue(tx, 99)?, [id(3)]);
            Ok(())
        })
        .await;
}

/// The platform's runs are nobody's: neither the end of a tenant nor the bounds of its machines touch them.
#[tokio::test]
async fn a_tenant_that_goes_takes_its_own_runs_and_no_others() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let theirs = Begin {
                key: 5,
                tenant: Some(tenant("acme")),
                machine: 1,
                name: "x".into(),
                arn: "x".into(),
                origin: "{}".into(),
                definition: "{}".into(),
                input: "{}".into(),
                at: at(0),
                kin: None,
            };
            tx.append(&Batch {
                begins: vec![theirs],
                ..Batch::default()
            })?;
            start(tx, 1, Some(&dev), "{}", &by(0))?;
            start(tx, 2, Some(&dev), "{}", &by(0))?;
            end(tx, 1, Status::Succeeded, 1)?;
            assert_eq!(tx.prune_runs(at(50), 0, 100)?, 0);
            let (run, _) = tx.run_by_key(1001)?.unwrap();
            assert_eq!((run.tenant, run.owner), (None, 0));
            assert!(matches!(
                tx.delete_app(&tenant("acme"), &dev.app, &by(2)),
                Err(Error::Refused { .. })
            ));
            Ok(())
        })
        .await;
    let gone = world.write(|tx| {
        let lone = tenant("lone");
        tx.create_tenant(&lone, &by(2))?;
        let place = "lone/app/dev".parse().unwrap();
        start(tx, 3, Some(&place), "{}", &by(2))?;
        end(tx, 3, Status::Succeeded, 3)?;
        tx.delete_tenant(&lone, &by(3))?;
        Ok((tx.run_by_key(1003)?.is_some(), tx.pieces(1003, 1, 9)?.len()))
    });
    assert_eq!(gone.await, (true, 1));
    let none = RunFilter {
        machine: 7,
        limit: 9,
        ..RunFilter::default()
    };
    assert_eq!(world.store.read(move |db| db.runs(&none)).await.unwrap(), []);
}

#[tokio::test]
async fn an_attempt_that_fails_leaves_what_was_before_it() {
    let world = World::new();
    world
        .write(|tx| {
            start(tx, 1, None, "{}", &by(0))?;
            let refused = tx.attempt(|tx| {
                start(tx, 2, None, "{}", &by(0))?;
                start(tx, 1, None, "{}", &by(0))
            })?;
            assert!(matches!(refused, Err(Error::Exists { .. })));
            tx.attempt(|tx| start(tx, 3, None, "{}", &by(0)))?
        })
        .await;
    let open = world.store.read(|db| db.open_executions()).await.unwrap();
    let open: Vec<_> = open.into_iter().map(|open| open.id).collect();
    assert_eq!(open, [id(1), id(3)]);
}

#[tokio::test]
async fn lists_are_paged() {
    let world = World::new();
    world
        .write(|tx| (0..25).try_for_each(|n| start(tx, n, None, "{}", &by(0))))
        .await;
    let mut filter = ExecutionFilter {
        limit: 10,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let asked = filter.clone();
        let page = world.store.read(move |db| db.executions(&asked)).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.key);
        seen.extend(page.into_iter().map(|execution| execution.id));
    }
    assert_eq!(seen, (0..25).rev().map(id).collect::<Vec<_>>());
}
