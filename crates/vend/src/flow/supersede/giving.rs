//! Why a release gives way, by the rows of the catalogue.

use camino::Utf8PathBuf;
use model::{
    DeploymentId,
    port::{EventReport, EventStatus, LifecycleEvent},
    spec,
};
use store::{Batch, Begin, NewDeployment, NewExecution, Store};

use super::*;
use crate::{
    fixtures,
    flow::{definition::tests::sample, runs::tests::Sim},
};

const MACHINE: &str = r#"{"StartAt":"End","States":{"End":{"Type":"Succeed"}}}"#;

pub fn by() -> By {
    By::new("person:ann", Timestamp::UNIX_EPOCH)
}

/// A release under way, with a deployment and one host.
pub fn seed(tx: &mut Tx<'_>, place: &Place, id: &ExecutionId) -> Result<(), Error> {
    tx.create_tenant(&place.tenant, &by())?;
    tx.create_app(&place.tenant, &place.app, None, &by())?;
    tx.ensure_environment(place, "main", &by())?;
    tx.create_release(place, &fixtures::new_release(Some(id)), &by())?;
    let run = 1;
    let begin = Begin {
        key: run,
        tenant: None,
        machine: 0,
        name: id.to_string(),
        arn: id.to_string(),
        origin: "{}".into(),
        definition: MACHINE.into(),
        input: "{}".into(),
        at: by().at,
        kin: None,
    };
    tx.append(&Batch {
        begins: vec![begin],
        ..Batch::default()
    })?;
    let new = NewExecution {
        id: id.clone(),
        place: Some(place.clone()),
        kind: "release".into(),
        run,
        deadline_at: None,
    };
    tx.start_execution(&new, &by())?;
    let new = NewDeployment {
        id: deployment(),
        place: place.clone(),
        release: 1,
        execution: Some(id.clone()),
        strategy: spec::Strategy::BlueGreen,
        cause: None,
    };
    tx.begin_deployment(&new, &by())?;
    tx.create_host(&fixtures::new_host(4, place, Some(1)), &by())
        .map(drop)
}

pub fn deployment() -> DeploymentId {
    DeploymentId::from_bits(3)
}

fn host() -> HostId {
    HostId::from_bits(4)
}

/// What undoes the release in place, begun now.
pub fn undo(tx: &Tx<'_>, place: &Place, execution: &ExecutionId) -> Result<DeploymentId, Error> {
    let new = NewDeployment {
        id: DeploymentId::from_bits(6),
        place: place.clone(),
        release: 1,
        execution: Some(execution.clone()),
        strategy: spec::Strategy::InPlace,
        cause: None,
    };
    tx.begin_deployment(&new, &by()).map(|own| own.id)
}

/// It asks one person.
fn ask(tx: &Tx<'_>, place: &Place, execution: &ExecutionId) -> Result<(), Error> {
    let new = fixtures::new_approval(place, execution, by().at + SignedDuration::from_hours(1));
    tx.open_approval(&new, &by()).map(drop)
}

#[tokio::test]
async fn what_is_held_asked_about_or_failing_gives_way_and_what_goes_well_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let store = Store::open(&path).unwrap();
    let told = store.write(|tx| {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let id = ExecutionId::from_bits(2);
        seed(tx, &place, &id)?;
        let mut told = vec![broken(tx, &place, &id)?];
        tx.set_host_state(&host(), HostState::Failed, Some("exit code 1"), &by())?;
        told.push(broken(tx, &place, &id)?);
        tx.set_host_state(&host(), HostState::Starting, None, &by())?;
        tx.pause_deployment(&deployment(), true, &by())?;
        told.push(broken(tx, &place, &id)?);
        tx.pause_deployment(&deployment(), false, &by())?;
        told.push(broken(tx, &place, &id)?);
        ask(tx, &place, &id)?;
        told.push(broken(tx, &place, &id)?);
        Ok::<_, Error>(told)
    });
    let failed = format!("it failed on host {}", host());
    let expected = [
        None,
        Some(failed.as_str()),
        Some("person:ann paused it"),
        None,
        Some("it waits for people"),
    ];
    let told = told.await.unwrap();
    let told: Vec<Option<&str>> = told.iter().map(Option::as_deref).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_way_back_that_hangs_is_ended_for_a_newer_push_and_one_that_goes_on_is_not() {
    let sim = Sim::new().await;
    let id = sim.begin(runs::RELEASE, sample(false)).await;
    sim.breaks(sim.offered("source").await).await;
    let way_back = sim.offered("unwind").await;
    let begun = crate::clock::now();
    let after = move |seconds: i64| begun + SignedDuration::from_secs(seconds);
    let execution = id.clone();
    let begins = sim.store.write(move |tx| {
        let (place, by) = (Sim::place(), By::platform(begun));
        tx.create_release(&place, &fixtures::new_release(None), &by)?;
        let new = |bits| NewDeployment {
            id: DeploymentId::from_bits(bits),
            place: Sim::place(),
            release: 1,
            execution: Some(execution.clone()),
            strategy: spec::Strategy::InPlace,
            cause: None,
        };
        tx.begin_deployment(&new(3), &by)?;
        tx.enqueue_push(&fixtures::new_push(&place), &by)?;
        // Tries before this one began it.
        let long_ago = By::platform(begun - SignedDuration::from_hours(2));
        tx.begin_deployment(&new(6), &long_ago)
    });
    let own = begins.await.unwrap().id;
    let look = async |seconds: i64| {
        let patience = SignedDuration::from_secs(300);
        let judged = sim
            .store
            .read(move |db| judge(db, &Sim::place(), after(seconds), patience));
        judged.await.unwrap()
    };
    assert!(look(200).await.is_none());
    let order = look(1000).await.unwrap();
    assert_eq!(order.undo.as_ref(), Some(&own));
    assert!(order.cause.contains("it hangs in a hook"), "{}", order.cause);
    // A host told of an event meanwhile.
    let undo = own.clone();
    let told = sim.store.write(move |tx| {
        let event = EventReport::only(LifecycleEvent::Install, EventStatus::Succeeded, after(900));
        tx.record_events(&undo, &host(), &[event])
    });
    told.await.unwrap();
    assert!(look(1000).await.is_none());
    assert!(look(9000).await.is_some());
    // The load balancer does not answer: no script can be what it waits for.
    sim.fail(way_back).await;
    assert!(look(9000).await.is_none());
    sim.hurry(&id).await;
    drop(sim.offered("unwind").await);
    assert!(look(200).await.is_none(), "this try has only begun");
    assert!(look(9000).await.is_some());
    let ended = sim.store.write(move |tx| {
        tx.finish_deployment(&own, DeploymentState::Stopped, None, None, &By::platform(begun))
    });
    ended.await.unwrap();
    assert!(look(9000).await.is_none(), "once");
}
