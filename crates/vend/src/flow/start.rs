//! How executions begin: in one transaction with the reason for them.

use model::{DeploymentId, ExecutionId, Place, plan::PlanKind, spec};
use serde_json::json;
use store::{By, Error, Tx};

use super::{World, definition, journal};
use crate::reconcile::bases::AUTOMATIC;

/// The kind of an execution that takes an environment down.
pub const DESTROY: &str = "environment-destroy";

fn fresh() -> (ExecutionId, DeploymentId) {
    (
        ExecutionId::from_bits(crate::clock::bits()),
        DeploymentId::from_bits(crate::clock::bits()),
    )
}

/// Takes the newest waiting push of an environment into an execution. `None`: another one is under way, or a newer push
/// came between reading its `vend.yaml` and this.
pub async fn release(
    world: &World,
    place: Place,
    push: u64,
    spec: spec::Environment,
) -> Result<Option<ExecutionId>, Error> {
    let (id, deployment) = fresh();
    let by = By::platform(crate::clock::now());
    let started = world.store.write(move |tx| {
        let Some(taken) = tx.next_push(&place, &id, &by)? else {
            return Ok(None);
        };
        if taken.id != push {
            return Err(Error::Refused {
                message: "a newer push came".into(),
                next: None,
            });
        }
        let approval = match taken.origin.as_str() {
            // The release that is live said so, and went through its own approval.
            AUTOMATIC => None,
            _ => rule(tx, &place, &spec)?,
        };
        tx.set_spec(&place, &spec, &by)?;
        let input = json!({
            "kind": PlanKind::Release,
            "place": place,
            "push": push,
            "commit": taken.commit,
            "pusher": taken.pushed_by,
            "spec": spec,
            "approval_rule": approval,
            "deployment": deployment,
        });
        let definition = definition::release(&spec, approval.as_ref());
        journal::begin(tx, id, "release", &place, &definition, &input, &by).map(Some)
    });
    match started.await {
        Err(Error::Refused { .. }) => Ok(None),
        other => other,
    }
}

/// The rule that a release is under: the live release's, so that a push cannot take its own approval away. A rule that
/// a push changes holds from the release after it; one that it brings where there was none holds at once.
fn rule(tx: &Tx<'_>, place: &Place, spec: &spec::Environment) -> Result<Option<spec::Approval>, Error> {
    let live = tx.live_release(place)?;
    Ok(live
        .and_then(|live| live.content.spec.approval)
        .or_else(|| spec.approval.clone()))
}

/// Refuses when something moves: two executions of one environment would undo each other's work. One that waits for
/// people does not move; it looks again before it does (see `plan::confirm`).
fn refuse_moving(tx: &Tx<'_>, place: &Place) -> Result<(), Error> {
    if !tx.is_moving(place, &definition::asking())? {
        return Ok(());
    }
    Err(Error::Refused {
        message: format!("an execution of {place} is under way"),
        next: Some(format!("vend executions list {place}")),
    })
}

/// Refuses when anything is open, also what only waits.
fn refuse_busy(tx: &Tx<'_>, place: &Place) -> Result<(), Error> {
    if !tx.is_busy(place)? {
        return Ok(());
    }
    Err(Error::Refused {
        message: format!("an execution of {place} is under way"),
        next: Some(format!("vend executions list {place}")),
    })
}

pub async fn rollback(world: &World, place: Place, to: u64, by: By) -> Result<ExecutionId, Error> {
    let (id, deployment) = fresh();
    let started = world.store.write(move |tx| {
        refuse_moving(tx, &place)?;
        let input = json!({ "kind": PlanKind::Rollback, "place": place, "to": to, "deployment": deployment });
        journal::begin(tx, id, "rollback", &place, &definition::rollback(), &input, &by)
    });
    started.await
}

/// Brings the live release to its number of hosts. `None`: something is under way, or nothing is live.
pub async fn resize(
    world: &World,
    place: &Place,
    kind: &'static str,
    by: By,
) -> Result<Option<ExecutionId>, Error> {
    let place = place.clone();
    world
        .store
        .write(move |tx| begin_resize(tx, &place, kind, &by))
        .await
}

pub fn begin_resize(
    tx: &mut Tx<'_>,
    place: &Place,
    kind: &str,
    by: &By,
) -> Result<Option<ExecutionId>, Error> {
    let (id, deployment) = fresh();
    let Some(live) = tx.environment(place)?.live else {
        return Ok(None);
    };
    if tx.is_moving(place, &definition::asking())? {
        return Ok(None);
    }
    let input = json!({
        "kind": PlanKind::Rollback,
        "place": place,
        "plan": { "release": live, "from": live },
        "deployment": deployment,
    });
    journal::begin(tx, id, kind, place, &definition::resize(), &input, by).map(Some)
}

/// Changes the number of hosts of the live release, for good.
pub async fn scale(world: &World, place: Place, hosts: u32, by: By) -> Result<ExecutionId, Error> {
    let started = world.store.write(move |tx| {
        refuse_moving(tx, &place)?;
        tx.set_desired(&place, Some(hosts), &by)?;
        let nothing = || Error::Refused {
            message: format!("{place} has no release yet: there is nothing to scale"),
            next: Some("push a commit first".into()),
        };
        begin_resize(tx, &place, "scale", &by)?.ok_or_else(nothing)
    });
    started.await
}

pub async fn destroy(world: &World, place: Place, by: By) -> Result<ExecutionId, Error> {
    let (id, _) = fresh();
    let started = world.store.write(move |tx| {
        let environment = tx.environment(&place)?;
        if environment.protected {
            return Err(Error::Refused {
                message: format!("{place} is protected"),
                next: Some(format!("vend environments unprotect {place}")),
            });
        }
        refuse_busy(tx, &place)?;
        let input = json!({ "kind": PlanKind::Destroy, "place": place });
        journal::begin(
            tx,
            id,
            DESTROY,
            &place,
            &definition::environment_destroy(),
            &input,
            &by,
        )
    });
    started.await
}
