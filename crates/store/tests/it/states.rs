//! The log under state machines, and their catalogue.

use store::{Batch, Begin, Error, Finish, Logged, NewMachine, Piece, RunFilter, Status};

use crate::world::{World, at, by};

fn begin(key: u64) -> Begin {
    Begin {
        key,
        tenant: Some("acme".parse().unwrap()),
        machine: key % 2,
        name: format!("x{key}"),
        arn: format!("arn:{key}"),
        origin: "{}".into(),
        definition: "{}".into(),
        input: "{}".into(),
        at: at(key as i64),
        kin: None,
    }
}

fn finish(key: u64) -> Finish {
    Finish {
        execution: key,
        status: Status::Succeeded,
        output: Some("1".into()),
        error: None,
        cause: None,
        at: at(100 + key as i64),
        history: Some(Piece {
            first: 1,
            events: "[]".into(),
        }),
        snapshot: None,
        kin: None,
    }
}

async fn world() -> World {
    let world = World::new();
    world
        .write(|tx| tx.create_tenant(&"acme".parse().unwrap(), &by(0)).map(drop))
        .await;
    world
}

#[tokio::test]
async fn executions_are_forgotten_by_age_and_by_count() {
    let world = world().await;
    let batch = Batch {
        begins: (1..=20).map(begin).collect(),
        finishes: (1..=18).map(finish).collect(),
        ..Batch::default()
    };
    world.write(move |tx| tx.append(&batch)).await;
    // Of each of the two machines ten are there, of which one is open.
    assert_eq!(world.write(|tx| tx.prune_runs(at(105), 100, 100)).await, 4);
    assert_eq!(world.write(|tx| tx.prune_runs(at(0), 3, 100)).await, 8 + 2);
    let left = world.store.read(|db| {
        let filter = |machine| RunFilter {
            machine,
            limit: 100,
            ..RunFilter::default()
        };
        let keys = |machine| Ok::<_, Error>(db.runs(&filter(machine))?.iter().map(|run| run.key).collect());
        Ok::<(Vec<u64>, Vec<u64>), Error>((keys(0)?, keys(1)?))
    });
    assert_eq!(left.await.unwrap(), (vec![20, 18, 16], vec![19, 17, 15]));
    let pieces = world
        .store
        .read(|db| Ok::<_, Error>((db.pieces(1, 1, 9)?.len(), db.pieces(18, 1, 9)?.len())));
    assert_eq!(pieces.await.unwrap(), (0, 1), "a history goes with its execution");
}

#[tokio::test]
async fn the_log_keeps_its_last_event_and_goes_on_from_it() {
    let world = world().await;
    let logged = |seq| Logged {
        seq,
        execution: 1,
        at: at(0),
        event: "{}".into(),
    };
    let batch = Batch {
        begins: vec![begin(1)],
        events: (1..=5).map(logged).collect(),
        ..Batch::default()
    };
    world.write(move |tx| tx.append(&batch)).await;
    let batch = Batch {
        folded_before: Some(99),
        ..Batch::default()
    };
    world.write(move |tx| tx.append(&batch)).await;
    let world = world.reopen();
    let left = world
        .store
        .read(|db| Ok::<_, Error>((db.log_ends()?, db.log(None, 0)?.len())));
    assert_eq!(left.await.unwrap(), ((5, 1), 1));
}

/// All of a batch is there, or nothing of it.
#[tokio::test]
async fn a_batch_is_kept_whole_or_not_at_all() {
    let world = world().await;
    let batch = Batch {
        begins: vec![begin(1), begin(2), begin(1)],
        ..Batch::default()
    };
    let kept = world.store.write(move |tx| tx.append(&batch)).await;
    assert!(matches!(kept, Err(Error::Exists { .. })));
    let ends = world.store.read(|db| db.log_ends()).await.unwrap();
    assert_eq!(ends, (0, 0));
}

#[tokio::test]
async fn versions_do_not_change_and_aliases_keep_them() {
    let world = world().await;
    let new = |definition: &str, revision: &str| NewMachine {
        tenant: "acme".parse().unwrap(),
        name: "m".into(),
        express: false,
        definition: definition.into(),
        role: "r".into(),
        settings: "{}".into(),
        revision: revision.into(),
    };
    let (first, second) = (new("{\"a\":1}", "1"), new("{\"a\":2}", "2"));
    world
        .write(move |tx| {
            let tenant = "acme".parse().unwrap();
            let machine = tx.create_state_machine(&first, &by(1))?;
            let one = tx.publish_version(&tenant, "m", "", &by(1))?;
            assert_eq!(tx.publish_version(&tenant, "m", "again", &by(2))?, one);
            tx.update_state_machine(&second, &by(3))?;
            let two = tx.publish_version(&tenant, "m", "", &by(3))?;
            assert_eq!((one.version, two.version), (1, 2));
            assert_eq!(
                tx.machine_version(machine.key, 1)?.unwrap().definition,
                "{\"a\":1}"
            );
            tx.put_alias(&machine, "live", "", &[(1, 100)], &by(4))?;
            assert!(matches!(
                tx.delete_version(&tenant, "m", 1, &by(5)),
                Err(Error::Refused { .. })
            ));
            tx.delete_alias(&machine, "live", &by(6))?;
            tx.delete_version(&tenant, "m", 1, &by(7))?;
            assert_eq!(tx.machine_version(machine.key, 1)?, None);
            tx.delete_state_machine(&tenant, "m", &by(8))?;
            assert_eq!(tx.state_machine(&tenant, "m")?, None);
            Ok(())
        })
        .await;
}
