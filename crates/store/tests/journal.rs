//! Executions, transitions, tasks, timers.

mod world;

use model::{ExecutionId, Ticket};
use serde_json::json;
use store::{End, Error, ExecutionFilter, HistoryRow, NewTask, Status, TaskKey, Transition};
use world::{World, at, by, execution, tenant};

fn id(bits: u64) -> ExecutionId {
    ExecutionId::from_bits(bits)
}

fn step(bits: u64, expected: u64) -> Transition {
    Transition::new(
        id(bits),
        expected,
        at(expected as i64),
        json!({ "step": expected }).to_string(),
    )
}

fn task(bits: u64, task: u64, resource: &str) -> NewTask {
    NewTask {
        task,
        resource: resource.into(),
        input: "{}".into(),
        ticket: Ticket::of(&id(bits), task, 0),
        attempt: 0,
        not_before: None,
        heartbeat_ms: Some(5000),
        timeout_at: Some(at(100)),
    }
}

fn row(id: u64) -> HistoryRow {
    HistoryRow {
        id,
        previous: id - 1,
        at: at(id as i64),
        kind: "TaskStateEntered".into(),
        details: "{}".into(),
    }
}

#[tokio::test]
async fn a_step_decided_on_an_old_state_is_refused_and_leaves_nothing() {
    let world = World::new();
    world
        .write(|tx| tx.start_execution(&execution(1, None), &by(0)))
        .await;
    let full = |expected| {
        let mut step = step(1, expected);
        step.history = vec![row(expected + 1)];
        step.scheduled = vec![task(1, expected, "build")];
        step.timers = vec![(expected, at(50))];
        step
    };
    assert_eq!(world.write(move |tx| tx.commit(full(0))).await, 1);
    let late = world.store.write(move |tx| tx.commit(full(0))).await;
    assert!(
        matches!(
            late,
            Err(Error::Version {
                expected: 0,
                found: 1,
                ..
            })
        ),
        "{late:?}"
    );
    assert_eq!(world.write(move |tx| tx.commit(full(1))).await, 2);
    world
        .store
        .read(|db| {
            assert_eq!(db.execution_state(&id(1))?.0, 2);
            assert_eq!(db.history(&id(1), 0, 10)?, [row(1), row(2)]);
            assert_eq!(db.history(&id(1), 1, 10)?, [row(2)]);
            assert_eq!(db.tasks(&id(1))?.len(), 2);
            assert_eq!(db.timers(&id(1))?.len(), 2);
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn tasks_are_leased_kept_lost_and_leased_again_under_the_same_ticket() {
    let world = World::new();
    world
        .write(|tx| {
            tx.start_execution(&execution(1, None), &by(0))?;
            let mut first = step(1, 0);
            first.scheduled = vec![task(1, 1, "build"), task(1, 2, "bake"), task(1, 3, "other")];
            first.scheduled[1].not_before = Some(at(10));
            tx.commit(first)?;
            let leased = tx.lease_tasks(&["build", "bake"], "w1", 10, at(1), at(20))?;
            assert_eq!(leased.len(), 1, "one is of another resource, one is for later");
            assert_eq!(tx.next_due(at(1))?, Some(at(10)));
            assert_eq!(tx.next_due(at(10))?, Some(at(20)));
            assert!(tx.heartbeat(&leased[0].key, "w1", at(1), at(6))?);
            let leased = [tx.task(&leased[0].key)?.unwrap()];
            assert_eq!(tx.next_due(at(1))?, Some(at(6)));
            let key = leased[0].key.clone();
            assert_eq!(tx.task(&key)?.unwrap(), leased[0]);
            assert!(tx.lease_tasks(&["build"], "w2", 10, at(2), at(9))?.is_empty());
            assert!(tx.heartbeat(&key, "w1", at(5), at(11))?);
            assert!(!tx.heartbeat(&key, "w2", at(5), at(11))?, "not its lease");
            assert_eq!(tx.due(at(10), 10)?.leases, []);
            assert_eq!(tx.due(at(11), 10)?.leases.len(), 1);
            assert!(tx.release_lease(&key)?);
            assert!(!tx.heartbeat(&key, "w1", at(12), at(20))?, "lost");
            let again = tx.lease_tasks(&["build", "bake"], "w2", 10, at(12), at(20))?;
            assert_eq!(again.len(), 2);
            assert!(again.iter().any(|task| task.ticket == leased[0].ticket));
            assert_eq!(tx.release_leases()?, 2);
            let mut second = step(1, 1);
            second.ended = vec![1];
            tx.commit(second)?;
            assert_eq!(tx.task(&key)?, None);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn the_longest_waiting_task_is_leased_first() {
    let world = World::new();
    world
        .write(|tx| {
            for bits in [1, 2] {
                tx.start_execution(&execution(bits, None), &by(0))?;
            }
            let mut late = step(1, 0);
            (late.at, late.scheduled) = (at(9), vec![task(1, 1, "build")]);
            let mut early = step(2, 0);
            (early.at, early.scheduled) = (at(3), vec![task(2, 1, "bake")]);
            tx.commit(late)?;
            tx.commit(early)?;
            let leased = tx.lease_tasks(&["build", "bake"], "w", 1, at(10), at(20))?;
            assert_eq!(
                leased[0].key,
                TaskKey {
                    execution: id(2),
                    task: 1
                }
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn timers_and_deadlines_come_due_until_a_step_changes_them() {
    let world = World::new();
    world
        .write(|tx| {
            let mut new = execution(1, None);
            new.deadline_at = Some(at(40));
            tx.start_execution(&new, &by(0))?;
            let mut first = step(1, 0);
            first.timers = vec![(1, at(30)), (2, at(20))];
            tx.commit(first)?;
            assert_eq!(tx.next_due(at(1))?, Some(at(20)));
            assert_eq!(tx.due(at(19), 10)?, store::Due::default());
            let due = tx.due(at(35), 10)?;
            assert_eq!(due.timers, [(id(1), 2, at(20)), (id(1), 1, at(30))]);
            let mut second = step(1, 1);
            (second.cleared, second.timers) = (vec![2], vec![(1, at(36))]);
            tx.commit(second)?;
            assert_eq!(tx.due(at(35), 10)?.timers, []);
            assert_eq!(tx.due(at(40), 10)?.deadlines, [id(1)]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_end_leaves_the_record_and_nothing_to_do() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            tx.start_execution(&execution(1, Some(&dev)), &by(0))?;
            tx.start_execution(&execution(2, None), &by(0))?;
            assert!(matches!(
                tx.start_execution(&execution(2, None), &by(0)),
                Err(Error::Exists { .. })
            ));
            assert!(tx.is_busy(&dev)?);
            let mut last = step(1, 0);
            last.scheduled = vec![task(1, 1, "build")];
            last.timers = vec![(1, at(1))];
            last.end = Some(End {
                status: Status::Failed,
                output: None,
                error: Some("Vend.Customer".into()),
                cause: Some("a test failed".into()),
            });
            tx.commit(last)?;
            let ended = tx.execution(&id(1))?;
            assert_eq!(
                (ended.summary.status, ended.summary.ended_at),
                (Status::Failed, Some(at(0)))
            );
            assert_eq!(ended.machine, r#"{"StartAt":"Build"}"#);
            assert!(tx.tasks(&id(1))?.is_empty() && tx.timers(&id(1))?.is_empty());
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
            let mut again = step(1, 1);
            again.end = Some(End {
                status: Status::Succeeded,
                output: None,
                error: None,
                cause: None,
            });
            assert!(matches!(tx.commit(again), Err(Error::Refused { .. })));
            Ok(())
        })
        .await;
    let pruned = world.write(|tx| tx.prune_executions(at(1), 10)).await;
    assert_eq!(pruned, 1);
    assert!(
        world.store.read(|db| db.execution(&id(2))).await.is_ok(),
        "its machine is still there"
    );
}

#[tokio::test]
async fn lists_are_paged() {
    let world = World::new();
    world
        .write(|tx| (0..25).try_for_each(|n| tx.start_execution(&execution(n, None), &by(0))))
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
