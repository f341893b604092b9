//! However the engine's execution ends, nothing of it stays open, and the next push goes.

use jiff::{SignedDuration, Timestamp};
use model::{DeploymentId, HostId, Place, spec};
use serde_json::json;
use store::{Arriving, DeploymentState, MigrationState, NewDeployment, NewMigration, Push, PushState};

use super::*;
use crate::{
    fixtures,
    flow::{
        cancel,
        definition::tests::sample,
        runs::{RELEASE, tests::Sim},
    },
};

fn by() -> By {
    By::platform(crate::clock::now())
}

fn enqueue(tx: &Tx<'_>, place: &Place) -> Result<u64, Error> {
    tx.enqueue_push(&fixtures::new_push(place), &by())
}

fn deployment() -> DeploymentId {
    DeploymentId::from_bits(3)
}

/// All that a release may have open. The execution's row comes after its push, as it does when it begins.
fn open_all(tx: &Tx<'_>, place: &Place, execution: &ExecutionId) -> Result<(), Error> {
    tx.create_release(place, &fixtures::new_release(Some(execution)), &by())?;
    let new = NewDeployment {
        id: deployment(),
        place: place.clone(),
        release: 1,
        execution: Some(execution.clone()),
        strategy: spec::Strategy::InPlace,
        cause: None,
    };
    tx.begin_deployment(&new, &by())?;
    let new = NewMigration {
        place: place.clone(),
        release: 1,
        execution: execution.clone(),
        host: HostId::from_bits(4),
        born_at: Timestamp::UNIX_EPOCH,
    };
    let what = spec::App::parse(
        "app: shop\ndeploy: { migrate: { script: migrate.sh } }\n",
        "vend.yaml",
        &|_| true,
    );
    let what = what.unwrap().0.environments[0].deploy.migrate.clone().unwrap();
    tx.begin_migration(&new, &what, &by())?;
    let arriving = Arriving {
        release: 1,
        share: None,
    };
    tx.share_traffic(place, Some(arriving), &by())?;
    let new = fixtures::new_approval(place, execution, by().at + SignedDuration::from_hours(1));
    tx.open_approval(&new, &by()).map(drop)
}

/// A push whose release has everything open, at its stage Provision. One that is lost has no row.
async fn under_way(sim: &Sim, is_lost: bool) -> ExecutionId {
    let id = ExecutionId::from_bits(2);
    let own = id.clone();
    let taken = sim.store.write(move |tx| {
        enqueue(tx, &Sim::place())?;
        tx.next_push(&Sim::place(), &own, &by()).map(drop)
    });
    taken.await.unwrap();
    if !is_lost {
        sim.begin_as(&id, Sim::place(), RELEASE, sample(false), json!({}))
            .await;
        sim.succeed("source", json!({})).await;
        sim.succeed("build", json!({})).await;
        sim.succeed("bake", json!({})).await;
        sim.succeed("plan", json!({ "release": 1 })).await;
    }
    let own = id.clone();
    let opened = sim.store.write(move |tx| open_all(tx, &Sim::place(), &own));
    opened.await.unwrap();
    id
}

/// What is open, and of the push and the deployment why not.
async fn reasons(sim: &Sim) -> (String, String) {
    let read = sim.store.read(|db| {
        let place = Sim::place();
        let push: Push = db.pushes(&place.tenant, &place.app, None, None, 1)?.remove(0);
        let own = db.deployment(&deployment())?;
        assert_eq!(
            (push.state, own.state),
            (PushState::Failed, DeploymentState::Failed)
        );
        assert!(db.open_approvals()?.is_empty());
        assert_eq!(db.environment(&place)?.arriving, None);
        let migration = db.migration(&place, 1)?.unwrap();
        assert_eq!(migration.state, MigrationState::Failed);
        assert_eq!(db.release(&place, 1)?.state, model::release::ReleaseState::Failed);
        Ok::<_, Error>((push.reason.unwrap(), own.reason.unwrap()))
    });
    read.await.unwrap()
}

#[derive(Debug, Clone, Copy)]
enum End {
    Stopped,
    /// Not even its row is there.
    Lost,
}

#[tokio::test]
async fn however_an_execution_ends_nothing_of_it_stays_open_and_the_next_push_goes() {
    for (end, said) in [
        (End::Stopped, "was stopped (enough), and left it open"),
        (End::Lost, "is not on record any more"),
    ] {
        let sim = Sim::new().await;
        let is_lost = matches!(end, End::Lost);
        let id = under_way(&sim, is_lost).await;
        if !is_lost {
            let finished = look(&sim.store, by()).await.unwrap();
            assert_eq!(finished, 0, "it is under way");
        }
        match end {
            End::Stopped => {
                sim.stop(&id).await;
                sim.ended(&id).await;
            }
            End::Lost => {}
        }
        assert_eq!(look(&sim.store, by()).await.unwrap(), 2, "{end:?}");
        let (push, deployment) = reasons(&sim).await;
        for reason in [push, deployment] {
            assert!(reason.contains(said) && reason.contains(id.as_str()), "{reason}");
        }
        assert_eq!(look(&sim.store, by()).await.unwrap(), 0, "once");
        let next = sim.store.write(|tx| {
            let place = Sim::place();
            let queued = enqueue(tx, &place)?;
            let taken = tx.next_push(&place, &ExecutionId::from_bits(9), &by())?;
            assert_eq!(taken.map(|push| push.id), Some(queued));
            Ok::<_, Error>(())
        });
        next.await.unwrap();
    }
}

#[tokio::test]
async fn a_way_back_is_tried_again_however_often_it_fails() {
    let sim = Sim::new().await;
    let id = sim.begin(RELEASE, sample(false)).await;
    sim.breaks(sim.offered("source").await).await;
    for count in 0..20 {
        let way_back = sim.offered("unwind").await;
        // Whoever is at fault.
        match count % 2 {
            0 => sim.fail(way_back).await,
            _ => sim.breaks(way_back).await,
        }
        assert!(sim.is_open(&id).await, "given up after {count}");
        sim.hurry(&id).await;
    }
    sim.succeed("unwind", json!({})).await;
    sim.ended(&id).await;
}

/// What becomes of it when somebody cancels it.
async fn cancelled(sim: &Sim, id: &ExecutionId) -> Result<cancel::Order, Error> {
    let (id, by) = (id.clone(), By::new("person:ann", by().at));
    sim.store
        .write(move |tx| cancel::order(tx, &id, false, &by))
        .await
}

/// Is it left by who needs nothing of it any more?
async fn is_given_up(sim: &Sim, id: &ExecutionId) -> bool {
    let id = id.clone();
    let read = sim
        .store
        .read(move |db| cancel::given_up(db, &db.execution_summary(&id)?, &by()));
    matches!(read.await.unwrap(), Some(cancel::Order::Leave { .. }))
}

#[tokio::test]
async fn a_way_back_that_has_no_end_can_be_left_and_leaves_nothing_open() {
    let sim = Sim::new().await;
    let id = under_way(&sim, false).await;
    drop(sim.offered("provision").await);
    let order = cancelled(&sim, &id).await.unwrap();
    assert!(!cancel::carry_out(&sim.engine, order).await.unwrap());
    for failed in 0..cancel::ENOUGH {
        let way_back = sim.offered("unwind").await;
        let told = match cancelled(&sim, &id).await {
            Err(Error::Refused { message, next }) => format!("{message} {}", next.unwrap()),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("what undoes it is left after {failed} tries"),
        };
        let expected = format!("it has {failed} times vend executions show {id} --follow");
        assert!(told.ends_with(&expected), "{told}");
        assert!(!is_given_up(&sim, &id).await, "{failed}");
        sim.fail(way_back).await;
        if failed + 1 < cancel::ENOUGH {
            sim.hurry(&id).await;
        }
    }
    assert!(is_given_up(&sim, &id).await, "its app may be deleted");
    let order = cancelled(&sim, &id).await.unwrap();
    assert!(cancel::carry_out(&sim.engine, order).await.unwrap());
    sim.ended(&id).await;
    assert_eq!(look(&sim.store, by()).await.unwrap(), 2);
    let read = sim.store.read(move |db| {
        let (place, execution) = (Sim::place(), db.execution_summary(&id)?);
        assert_eq!(execution.status, Status::Aborted);
        assert!(!db.is_busy(&place)? && db.left_open()?.is_empty() && db.places_shared()?.is_empty());
        let lines = db.ledger(&store::LedgerFilter {
            object: Some(id.to_string()),
            limit: 99,
            ..Default::default()
        })?;
        let orders = lines.iter().filter(|line| line.action == cancel::ACTION);
        assert_eq!(orders.count(), 2, "both are on record");
        Ok::<_, Error>((db.deployment(&deployment())?, execution.cause.unwrap()))
    });
    let (own, cause) = read.await.unwrap();
    assert_eq!(own.state, DeploymentState::Stopped);
    assert!(own.reason.unwrap().contains(&cause));
    assert!(
        cause.contains("person:ann left its way back, which had failed 5 times"),
        "{cause}"
    );
}
