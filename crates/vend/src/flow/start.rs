//! How executions begin: in one transaction with the reason for them.

use model::{DeploymentId, ExecutionId, Place, plan::PlanKind, spec};
use serde_json::json;
use store::{By, Db, Error, ExecutionFilter, ExecutionSummary, Push, Tx};

use super::{
    World, definition, late, migrate, number,
    runs::{self, New},
    supersede,
};
use crate::reconcile::bases::AUTOMATIC;

/// The kind of an execution that takes an environment down.
pub use store::DESTROY;
/// Those of executions that change the number of its hosts, and that bring a release back.
pub const SCALE: &str = "scale";
pub const ROLLBACK: &str = "rollback";
/// Those of executions that stop and start the hosts of one.
pub const SLEEP: &str = "sleep";
pub const WAKE: &str = "wake";

fn fresh() -> (ExecutionId, DeploymentId) {
    (
        ExecutionId::from_bits(crate::clock::bits()),
        DeploymentId::from_bits(crate::clock::bits()),
    )
}

/// Takes the newest waiting push of an environment into an execution, unless another one is under way, or what was read
/// is not so any more: the next look reads it again.
pub async fn release(world: &World, place: Place, push: Push, spec: spec::Environment) -> Result<(), Error> {
    let (id, deployment) = fresh();
    let by = By::platform(crate::clock::now());
    let (own, wanted, origin) = (place.clone(), spec.clone(), push.origin.clone());
    let approval = world
        .store
        .read(move |db| rule(db, &own, &wanted, &origin))
        .await?;
    let input = json!({
        "kind": PlanKind::Release,
        "place": place,
        "push": push.id,
        "commit": push.commit,
        "event": push.event,
        "pusher": push.pushed_by,
        "spec": spec,
        "approval_rule": approval,
        "deployment": deployment,
        "undo": fresh().1,
    });
    let new = New {
        id: id.clone(),
        kind: runs::RELEASE,
        place: place.clone(),
        definition: definition::release(&spec, approval.as_ref()),
        input,
        by: by.clone(),
    };
    let started = runs::begin(world, new, move |tx| {
        refuse_ending(tx, &place)?;
        refuse_on_the_way(tx, &place)?;
        let taken = tx.next_push(&place, &id, &by)?;
        if taken.is_none_or(|taken| taken.id != push.id) || rule(tx, &place, &spec, &push.origin)? != approval
        {
            return Err(refusal("another push or another release came first", None));
        }
        tx.set_spec(&place, &spec, &by)
    });
    match started.await {
        Ok(_) | Err(Error::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn refusal(message: impl Into<String>, next: Option<String>) -> Error {
    let message = message.into();
    Error::Refused { message, next }
}

/// The rule that a release is under: the live release's, so that a push cannot take its own approval away. A rule that
/// a push changes holds from the release after it; one that it brings where there was none holds at once.
fn rule(
    db: &Db<'_>,
    place: &Place,
    spec: &spec::Environment,
    origin: &str,
) -> Result<Option<spec::Approval>, Error> {
    if origin == AUTOMATIC {
        // The release that is live said so, and went through its own approval.
        return Ok(None);
    }
    let live = db.live_release(place)?;
    Ok(live
        .and_then(|live| live.content.spec.approval)
        .or_else(|| spec.approval.clone()))
}

/// Refuses when something moves: two executions of one environment would undo each other's work. A release that is made,
/// or that people are asked about, does not move; it looks again before it does (see `plan`).
pub(super) fn refuse_moving(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    refuse_ending(db, place)?;
    match runs::moving(db, place)? {
        Some(moving) => Err(behind(db, place, &moving)?),
        None => Ok(()),
    }
}

/// Refuses where all is to go with its branch.
fn refuse_ending(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    match db.environment(place)?.ending() {
        Some(reason) => {
            let list = format!("vend environments list {}/{}", place.tenant, place.app);
            Err(refusal(
                format!("{place} is being taken down: {reason}"),
                Some(list),
            ))
        }
        None => Ok(()),
    }
}

/// For whom it would have to wait, and how to end that.
fn behind(db: &Db<'_>, place: &Place, moving: &ExecutionSummary) -> Result<Error, Error> {
    let (what, next) = match db.open_deployment(place, &moving.id)? {
        Some(own) => (
            format!("deployment {} of v{}", own.id, own.release),
            format!("vend deploy abort {place}"),
        ),
        None => (
            format!("{} {}", moving.kind, moving.id),
            format!("vend executions show {} --follow", moving.id),
        ),
    };
    let by = &moving.started_by;
    Ok(refusal(
        format!("{place} is held by {what}, which {by} started"),
        Some(next),
    ))
}

/// Refuses where something gave way to a push a moment ago: what began before the push has begun would hold it up once more.
/// Where that is moving elsewhere no push begins.
pub(super) fn refuse_ahead_of_push(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    let last = db.executions(&ExecutionFilter {
        tenant: Some(place.tenant.clone()),
        app: Some(place.app.clone()),
        environment: Some(place.environment.clone()),
        limit: 1,
        ..ExecutionFilter::default()
    })?;
    let gave_way = |last: &ExecutionSummary| last.error.as_deref() == Some(supersede::ERROR);
    if !last.first().is_some_and(gave_way) || db.is_busy(place)? || db.find_move(place)?.is_some() {
        return Ok(());
    }
    match db.waiting_push(place)? {
        Some(push) => Err(refusal(
            format!("push {} to {place} goes first: it is about to begin", push.id),
            Some(format!("vend executions list {place}")),
        )),
        None => Ok(()),
    }
}

/// Refuses what would make another release live than the one that moves to AWS, or has moved there.
pub(super) fn refuse_on_the_way(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    match db.find_move(place)? {
        None => Ok(()),
        Some(own) if own.finished_at.is_some() => Err(on_aws(place)),
        Some(own) => Err(refusal(
            format!("{place} is being moved to AWS, with v{}", own.release),
            Some(format!("vend move {place} --abort")),
        )),
    }
}

/// Refuses where nothing runs here any more.
pub(super) fn refuse_gone(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    match db.find_move(place)?.and_then(|own| own.finished_at) {
        None => Ok(()),
        Some(_) => Err(on_aws(place)),
    }
}

fn on_aws(place: &Place) -> Error {
    let next = format!("vend aws, in the app's working tree; back: vend move {place} --engine embedded");
    refusal(format!("{place} runs on AWS"), Some(next))
}

pub(super) fn under_way(place: &Place) -> Error {
    let list = format!("vend executions list {place}");
    refusal(format!("an execution of {place} is under way"), Some(list))
}

/// `across`: also to before a migration that is marked irreversible.
pub async fn rollback(
    world: &World,
    place: Place,
    to: u64,
    across: bool,
    by: By,
) -> Result<ExecutionId, Error> {
    let (id, deployment) = fresh();
    let own = place.clone();
    let release = world.store.read(move |db| db.release(&own, to)).await?;
    let new = New {
        id,
        kind: ROLLBACK,
        place: place.clone(),
        definition: definition::rollback(&release.content.spec),
        input: json!({
            "kind": PlanKind::Rollback, "place": place, "to": to, "deployment": deployment, "undo": fresh().1,
        }),
        by,
    };
    runs::begin(world, new, move |tx| refuse_rollback(tx, &place, to, across)).await
}

/// Refuses to go back to a release as things are now. Its plan asks the same.
pub fn refuse_rollback(db: &Db<'_>, place: &Place, to: u64, across: bool) -> Result<(), Error> {
    if !across {
        migrate::refuse_crossing(db, place, to)?;
    }
    refuse_on_the_way(db, place)?;
    refuse_moving(db, place)
}

/// Brings the live release to machines that lack it, unless something is under way or about to be there. Says
/// whether it began. That it was tried is written with it: what ends it, it is not tried for ever.
pub async fn join(world: &World, due: late::Due, by: By) -> Result<bool, Error> {
    let late::Due {
        place,
        live,
        machines,
        why,
    } = due;
    let own = place.clone();
    let release = world.store.read(move |db| db.release(&own, live)).await?;
    let (id, deployment) = fresh();
    let new = New {
        id,
        kind: why.kind(),
        place: place.clone(),
        definition: definition::join(&release.content.spec),
        input: json!({
            "kind": PlanKind::Rollback,
            "place": place,
            "plan": { "release": live, "from": live },
            "deployment": deployment,
            "late": machines,
            "why": why,
        }),
        by: by.clone(),
    };
    let begun = runs::begin(world, new, move |tx| {
        refuse_gone(tx, &place)?;
        refuse_moving(tx, &place)?;
        if tx.environment(&place)?.live != Some(live) || !late::is_quiet(tx, &place)? {
            return Err(under_way(&place));
        }
        for id in &machines {
            tx.claim_machine(&place, id, &by)?;
            let tries = tx.machine(id)?.tries.saturating_add(1);
            tx.set_machine_tries(id, tries, by.at)?;
        }
        Ok(())
    });
    match begun.await {
        Ok(_) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Is the release for machines of the customer's own?
async fn is_placed(world: &World, place: &Place, release: u64) -> Result<bool, Error> {
    let place = place.clone();
    let read = world.store.read(move |db| db.release(&place, release));
    Ok(read.await?.content.spec.placement.is_some())
}

/// Brings the live release to its number of hosts, unless something is under way, or nothing is live. Says whether it
/// began.
pub async fn resize(world: &World, place: &Place, kind: &'static str, by: By) -> Result<bool, Error> {
    let own = place.clone();
    match bring(world, place, kind, by, move |tx| refuse_gone(tx, &own)).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Changes the number of hosts, for good. What is under way brings it about with its next step; else an execution of
/// its own does.
pub async fn scale(world: &World, place: Place, hosts: u32, by: By) -> Result<ExecutionId, Error> {
    let (own, actor) = (place.clone(), by.clone());
    let moving = world.store.write(move |tx| {
        let moving = runs::moving(tx, &own)?.filter(|moving| moving.kind != DESTROY);
        refuse_gone(tx, &own)?;
        if let Some(moving) = &moving {
            number::refuse(tx, &own, hosts, Some(moving))?;
            tx.set_desired(&own, Some(hosts), &actor)?;
        }
        Ok::<_, Error>(moving.map(|moving| moving.id))
    });
    if let Some(moving) = moving.await? {
        world.pokes.held.notify_waiters();
        return Ok(moving);
    }
    let (own, actor) = (place.clone(), by.clone());
    bring(world, &place, SCALE, by, move |tx| {
        refuse_gone(tx, &own)?;
        number::refuse(tx, &own, hosts, None)?;
        tx.set_desired(&own, Some(hosts), &actor)
    })
    .await
}

/// Begins an execution of the live release's fleet, with `change` in the same transaction.
async fn bring(
    world: &World,
    place: &Place,
    kind: &'static str,
    by: By,
    change: impl FnOnce(&mut Tx<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<ExecutionId, Error> {
    let (id, deployment) = fresh();
    let own = place.clone();
    let environment = world.store.read(move |db| db.environment(&own)).await?;
    let live = environment.live.ok_or_else(|| {
        let message = format!("{place} has no release yet: there is nothing to scale");
        refusal(message, Some("push a commit first".into()))
    })?;
    if is_placed(world, place, live).await? {
        let message = format!("{place} is on registered machines: it has as many as there are");
        let next = format!("vend hosts invite {}", place.tenant);
        return Err(refusal(message, Some(next)));
    }
    let new = New {
        id,
        kind,
        place: place.clone(),
        definition: definition::resize(),
        input: json!({
            "kind": PlanKind::Rollback,
            "place": place,
            "plan": { "release": live, "from": live },
            "deployment": deployment,
        }),
        by,
    };
    let place = place.clone();
    runs::begin(world, new, move |tx| {
        refuse_moving(tx, &place)?;
        refuse_ahead_of_push(tx, &place)?;
        if tx.environment(&place)?.live != Some(live) {
            return Err(under_way(&place));
        }
        change(tx)
    })
    .await
}

/// Stops the hosts of an environment that nobody asks for, unless something is under way there.
pub async fn sleep(world: &World, place: &Place, by: By) -> Result<ExecutionId, Error> {
    let own = place.clone();
    stop(world, place, by, move |tx| refuse_on_the_way(tx, &own)).await
}

/// Stops the hosts of one that is served by AWS from now on, as often as it is asked.
pub async fn leave(world: &World, place: &Place, by: By) -> Result<ExecutionId, Error> {
    let (own, actor) = (place.clone(), by.clone());
    stop(world, place, by, move |tx| {
        // Typed again it goes on: hosts that could not be stopped the first time are not left.
        if tx.environment(&own)?.asleep_at.is_some() {
            refuse_gone(tx, &own)?;
        }
        tx.finish_move(&own, &actor)
    })
    .await
}

/// Begins an execution that stops all hosts, with `change` in the same transaction.
async fn stop(
    world: &World,
    place: &Place,
    by: By,
    change: impl FnOnce(&mut Tx<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<ExecutionId, Error> {
    let new = New {
        id: fresh().0,
        kind: SLEEP,
        place: place.clone(),
        definition: definition::sleep(),
        input: json!({ "kind": PlanKind::Rollback, "place": place }),
        by,
    };
    let place = place.clone();
    runs::begin(world, new, move |tx| {
        refuse_moving(tx, &place)?;
        // What is made is about to want them.
        if let Some(working) = runs::working(tx, &place)? {
            return Err(behind(tx, &place, &working)?);
        }
        change(tx)
    })
    .await
}

/// Starts the hosts of one that AWS has served; the traffic stays there.
pub async fn come_back(world: &World, place: &Place, by: By) -> Result<ExecutionId, Error> {
    let (own, actor) = (place.clone(), by.clone());
    bring(world, place, WAKE, by, move |tx| tx.reopen_move(&own, &actor)).await
}

/// Starts the hosts of an environment that sleeps.
pub async fn wake(world: &World, place: &Place, by: By) -> Result<ExecutionId, Error> {
    let own = place.clone();
    bring(world, place, WAKE, by, move |tx| {
        refuse_gone(tx, &own)?;
        match tx.environment(&own)?.asleep_at {
            Some(_) => Ok(()),
            None => Err(refusal(format!("{own} does not sleep"), None)),
        }
    })
    .await
}

/// Refuses what was to go with its branch and is not to go any more.
pub fn refuse_staying(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    match db.environment(place)?.ending() {
        Some(_) => Ok(()),
        None => Err(refusal(format!("{place} stays"), None)),
    }
}

/// Takes down what is to go with its branch, if it still is.
pub async fn end(world: &World, place: Place, by: By) -> Result<ExecutionId, Error> {
    take_down(world, place, by, refuse_staying).await
}

pub async fn destroy(world: &World, place: Place, by: By) -> Result<ExecutionId, Error> {
    take_down(world, place, by, refuse_half_gone).await
}

/// Refuses to destroy what is moved just now; what has moved may go.
pub(super) fn refuse_half_gone(db: &Db<'_>, place: &Place) -> Result<(), Error> {
    match db.find_move(place)? {
        Some(own) if own.finished_at.is_none() => refuse_on_the_way(db, place),
        _ => Ok(()),
    }
}

async fn take_down(
    world: &World,
    place: Place,
    by: By,
    look: fn(&Db<'_>, &Place) -> Result<(), Error>,
) -> Result<ExecutionId, Error> {
    let (id, _) = fresh();
    let new = New {
        id,
        kind: DESTROY,
        place: place.clone(),
        definition: definition::environment_destroy(),
        input: json!({ "kind": PlanKind::Destroy, "place": place }),
        by,
    };
    runs::begin(world, new, move |tx| {
        look(tx, &place)?;
        if tx.environment(&place)?.protected {
            let unprotect = format!("vend environments unprotect {place}");
            return Err(refusal(format!("{place} is protected"), Some(unprotect)));
        }
        // Also what only waits for people.
        match tx.is_busy(&place)? {
            true => Err(under_way(&place)),
            false => Ok(()),
        }
    })
    .await
}
