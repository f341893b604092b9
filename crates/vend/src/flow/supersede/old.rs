//! What puts a release on hosts that was live before keeps no fix waiting either, while its hooks hang.

use engine::Offer;
use jiff::Timestamp;
use model::{
    DeploymentId, HostId,
    port::{EventReport, EventStatus, LifecycleEvent},
    spec,
};
use store::NewDeployment;

use super::*;
use crate::{
    fixtures,
    flow::{
        definition::tests::sample,
        runs::{RELEASE, tests::Sim},
    },
};

/// An execution whose hooks run, with its deployment.
struct Held {
    id: ExecutionId,
    own: DeploymentId,
    hooks: Offer,
    begun: Timestamp,
}

async fn in_hooks(sim: &Sim, kind: &'static str) -> Held {
    let id = sim.begin(kind, sample(false)).await;
    if kind == start::ROLLBACK {
        sim.succeed("plan", json!({ "release": 1, "rolls": false })).await;
    }
    sim.succeed("provision", json!({})).await;
    let hooks = sim.offered("deploy").await;
    let begun = crate::clock::now();
    let new = NewDeployment {
        id: DeploymentId::from_bits(3),
        place: Sim::place(),
        release: 1,
        execution: Some(id.clone()),
        strategy: spec::Strategy::BlueGreen,
        cause: None,
    };
    let own = new.id.clone();
    let written = sim.store.write(move |tx| {
        tx.create_release(&Sim::place(), &fixtures::new_release(None), &By::platform(begun))?;
        tx.begin_deployment(&new, &By::platform(begun))
    });
    written.await.unwrap();
    Held {
        id,
        own,
        hooks,
        begun,
    }
}

async fn push(sim: &Sim) -> u64 {
    let by = By::new("person:ann", crate::clock::now());
    let queued = sim
        .store
        .write(move |tx| tx.enqueue_push(&fixtures::new_push(&Sim::place()), &by));
    queued.await.unwrap()
}

/// What a look at this time ends.
async fn look(sim: &Sim, held: &Held, after_s: i64) -> Vec<Order> {
    let by = By::platform(held.begun + SignedDuration::from_secs(after_s));
    let patience = SignedDuration::from_secs(300);
    sim.store.write(move |tx| order(tx, patience, &by)).await.unwrap()
}

async fn refuses_others(sim: &Sim) -> bool {
    let read = sim
        .store
        .read(|db| match start::refuse_ahead_of_push(db, &Sim::place()) {
            Ok(()) => Ok(false),
            Err(Error::Refused { .. }) => Ok(true),
            Err(error) => Err(error),
        });
    read.await.unwrap()
}

#[tokio::test]
async fn what_hangs_in_a_hook_gives_way_whatever_it_is_and_nothing_begins_before_the_push() {
    for kind in OLD {
        let sim = Sim::new().await;
        let held = in_hooks(&sim, kind).await;
        assert!(look(&sim, &held, 9000).await.is_empty(), "{kind}: nobody waits");
        let number = push(&sim).await;
        // A host that died, and a pause, say nothing of what replaces it, or goes back.
        let own = held.own.clone();
        let paused = sim
            .store
            .write(move |tx| tx.pause_deployment(&own, true, &By::platform(crate::clock::now())));
        paused.await.unwrap();
        assert!(
            look(&sim, &held, 200).await.is_empty(),
            "{kind}: its hooks take time"
        );
        let (own, at) = (held.own.clone(), held.begun + SignedDuration::from_secs(900));
        let event = EventReport::only(LifecycleEvent::Install, EventStatus::Succeeded, at);
        let told = sim
            .store
            .write(move |tx| tx.record_events(&own, &HostId::from_bits(4), &[event]));
        told.await.unwrap();
        assert!(
            look(&sim, &held, 1000).await.is_empty(),
            "{kind}: a host told of something"
        );
        let orders = look(&sim, &held, 9000).await;
        let [order] = &orders[..] else {
            panic!("{kind}: {} give way", orders.len())
        };
        assert_eq!(order.execution.id, held.id);
        let cause = &order.cause;
        assert!(
            cause.starts_with(&format!("push {number} of ")) && cause.contains("it hangs in a hook"),
            "{cause}"
        );
        assert!(look(&sim, &held, 9000).await.is_empty(), "{kind}: once");
        assert!(!refuses_others(&sim).await, "{kind}: that is not over");
        let told = workers::interrupt(&sim.engine, order.execution.run, ERROR, cause);
        told.await.unwrap();
        sim.succeed("unwind", json!({})).await;
        sim.ended(&held.id).await;
        assert!(refuses_others(&sim).await, "{kind}: the push goes first");
        let begun = sim.store.write(|tx| {
            let (id, by) = (ExecutionId::from_bits(9), By::platform(crate::clock::now()));
            tx.next_push(&Sim::place(), &id, &by)
        });
        assert_eq!(begun.await.unwrap().map(|push| push.id), Some(number));
        assert!(!refuses_others(&sim).await, "{kind}: it has begun");
    }
}

#[tokio::test]
async fn what_began_while_a_release_was_made_gives_way_to_it_once_that_waits() {
    let sim = Sim::new().await;
    let number = push(&sim).await;
    let release = ExecutionId::from_bits(9);
    let own = release.clone();
    let taken = sim
        .store
        .write(move |tx| tx.next_push(&Sim::place(), &own, &By::platform(crate::clock::now())));
    taken.await.unwrap();
    sim.begin_as(&release, Sim::place(), RELEASE, sample(false), json!({}))
        .await;
    sim.succeed("source", json!({})).await;
    let held = in_hooks(&sim, HEAL).await;
    sim.succeed("build", json!({})).await;
    assert!(look(&sim, &held, 9000).await.is_empty(), "it is still made");
    sim.succeed("bake", json!({})).await;
    let plan = sim.offered("plan").await;
    assert!(look(&sim, &held, 200).await.is_empty());
    let orders = look(&sim, &held, 9000).await;
    let told: Vec<_> = orders.iter().map(|own| (&own.execution.id, &own.cause)).collect();
    let [(id, cause)] = told[..] else {
        panic!("{} give way", told.len())
    };
    assert_eq!(*id, held.id);
    assert!(cause.starts_with(&format!("push {number} of ")), "{cause}");
    drop(plan);
}

#[tokio::test]
async fn what_moves_elsewhere_and_what_goes_well_is_left_alone() {
    let sim = Sim::new().await;
    let held = in_hooks(&sim, start::WAKE).await;
    push(&sim).await;
    let moved = |ends: bool| {
        sim.store.write(move |tx| {
            let (place, by) = (Sim::place(), By::platform(crate::clock::now()));
            match ends {
                true => tx.end_move(&place, true, &by),
                false => tx.begin_move(&place, "shop.example.com", 1, false, &by).map(drop),
            }
        })
    };
    moved(false).await.unwrap();
    assert!(
        look(&sim, &held, 9000).await.is_empty(),
        "no push goes next there"
    );
    moved(true).await.unwrap();
    sim.answer(held.hooks.clone(), json!({})).await;
    drop(sim.offered("validate").await);
    assert!(look(&sim, &held, 9000).await.is_empty(), "that is no hook");
}
