//! What brings the data to where the release needs it: its migration, once, on one host that runs its image, before
//! anybody is served by it.
//!
//! That it is about to run is on record before it runs. A repeat asks the host that ran it under the same ticket; when
//! that host is gone, nobody knows how far it came, and it is not run again.

use std::sync::Arc;

use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Place,
    plan::{Change, PlanKind, Subject},
    port::{EventReport, Fault, Hosts as _, LifecycleEvent, LogRef},
    release::Release,
    spec::Migrate,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, Db, ExecutionSummary, Migration, MigrationState, NewMigration};

use super::{Attempt, World, deploy, provision, state::Planned, stored};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
    /// In place there is none.
    fleet: Option<Fleet>,
}

/// What `Provision` left.
#[derive(Deserialize)]
struct Fleet {
    hosts: Vec<HostId>,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let (environment, release) = provision::load(world, &input.place, input.plan.release).await?;
    let Some(what) = release.spec.deploy.migrate.clone() else {
        return Ok(json!({ "ran": false }));
    };
    let host = match &input.fleet {
        Some(fleet) => fleet.hosts.first().cloned(),
        None => spare(world, attempt, &environment, &release).await?,
    };
    let migration = begin(world, attempt, &input, host, &what).await?;
    match (migration.state, migration.reason) {
        (MigrationState::Succeeded, _) => return Ok(json!({ "ran": true, "host": migration.host })),
        (MigrationState::Failed, reason) => return Err(Fault::customer(reason.unwrap_or_default())),
        (MigrationState::Running, _) => {}
    }
    let host = migration.host;
    if born(world, &host).await?.map(Timestamp::as_microsecond) != Some(migration.born_at.as_microsecond()) {
        return Err(lost(&host, &what));
    }
    let order = model::port::DeployOrder {
        ignores_stop: false,
        commit: Some(release.commit.id.clone()),
        migration: Some(what),
        ..deploy::order(
            &release,
            &input.place,
            &input.deployment,
            &host,
            LifecycleEvent::MIGRATION.to_vec(),
        )
    };
    let ticket = attempt.steady.part(host.as_str());
    let deployed = deploy::scripts(world, &ticket, &order).await?;
    let failure = deployed
        .failure()
        .map(|event| fault(event, &release, &host, &deployed.log));
    end(world, &input, failure.as_ref(), &deployed.log).await?;
    match failure {
        Some(fault) => Err(fault),
        None => Ok(json!({ "ran": true, "host": host })),
    }
}

/// In place: one host more, which has the release's configuration while all that serve keep theirs. It gets the release
/// first, and goes when the others have it.
async fn spare(
    world: &World,
    attempt: &Attempt,
    environment: &store::Environment,
    release: &Release,
) -> Result<Option<HostId>, Fault> {
    let host = provision::fleet(world, environment, release, 1)
        .await?
        .into_iter()
        .next();
    if let Some(host) = host.clone() {
        provision::start(world, attempt, environment, release, host).await?;
    }
    Ok(host.map(|host| host.id))
}

/// The migration's row. One that is there already tells which host to ask.
async fn begin(
    world: &World,
    attempt: &Attempt,
    input: &Input,
    host: Option<HostId>,
    what: &Migrate,
) -> Result<Migration, Fault> {
    let (place, release) = (input.place.clone(), input.plan.release);
    let known = world.store.read(move |db| db.migration(&place, release));
    if let Some(known) = known.await.map_err(stored)? {
        return Ok(known);
    }
    let host = host.ok_or_else(|| Fault::platform("there is no host to migrate the data from"))?;
    let born_at = born(world, &host).await?;
    let new = NewMigration {
        place: input.place.clone(),
        release,
        execution: attempt.execution.clone(),
        born_at: born_at.ok_or_else(|| Fault::platform(format!("host {host} does not run")))?,
        host,
    };
    let (what, by) = (what.clone(), By::platform(crate::clock::now()));
    let begun = world.store.write(move |tx| tx.begin_migration(&new, &what, &by));
    begun.await.map_err(stored)
}

/// Since when the machine has a host of this name.
async fn born(world: &World, host: &HostId) -> Result<Option<Timestamp>, Fault> {
    let seen = world.node.list().await?;
    Ok(seen
        .into_iter()
        .find(|seen| seen.host == *host)
        .map(|seen| seen.started_at))
}

fn lost(host: &HostId, what: &Migrate) -> Fault {
    Fault::order(format!(
        "host {host} was lost while it ran the migration {}: how far that came is not known, and it is not run again",
        what.script
    ))
    .next("see what it left in the data, then push again: the next release runs its own migration")
}

fn fault(event: &EventReport, release: &Release, host: &HostId, log: &LogRef) -> Fault {
    let mut fault = deploy::fault(event, host, log);
    if event.event == LifecycleEvent::Migrate {
        fault.message = format!("the migration of v{} failed: {}", release.number, fault.message);
    }
    fault
}

async fn end(world: &World, input: &Input, failure: Option<&Fault>, log: &LogRef) -> Result<(), Fault> {
    let (place, release) = (input.place.clone(), input.plan.release);
    let (reason, log) = (failure.map(|fault| fault.message.clone()), log.clone());
    let by = By::platform(crate::clock::now());
    let written = world
        .store
        .write(move |tx| tx.end_migration(&place, release, reason.as_deref(), Some(&log), &by));
    written.await.map_err(stored)
}

/// Refuses to end an execution in the middle of its migration.
pub fn runs(db: &Db<'_>, execution: &ExecutionSummary) -> Result<store::Error, store::Error> {
    let running = match &execution.place {
        Some(place) => db.migration_of(place, &execution.id)?,
        None => None,
    };
    let what = running.map_or_else(
        || "its migration".to_owned(),
        |own| format!("the migration {} of v{}", own.script, own.release),
    );
    let id = &execution.id;
    Ok(store::Error::Refused {
        message: format!(
            "{what} runs, and nobody would know how far it came: {id} is not ended in the middle of it"
        ),
        next: Some(format!(
            "wait until it is through, within its own time-out (vend executions show {id} --follow), or vend executions \
             cancel {id} --in-migration"
        )),
    })
}

/// What to say of the way back of a release whose own migration cannot be undone. `None`: there is nothing to say.
pub fn crossed(db: &Db<'_>, place: &Place, release: u64) -> Result<Option<String>, store::Error> {
    let own = db.migration(place, release)?.filter(|own| own.irreversible);
    Ok(own.map(|own| {
        let (script, did) = (&own.script, did(&own));
        format!(
            "the migration {script} of v{release} {did}, and is marked irreversible: what serves now may not work with \
             the data"
        )
    }))
}

fn did(migration: &Migration) -> &'static str {
    match migration.state {
        MigrationState::Succeeded => "has run",
        MigrationState::Running => "runs",
        MigrationState::Failed => "has failed half way, or before",
    }
}

/// Refuses to go back to a release that is from before a migration that cannot be undone.
pub fn refuse_crossing(db: &Db<'_>, place: &Place, to: u64) -> Result<(), store::Error> {
    let Some(message) = in_the_way(db, place, to)? else {
        return Ok(());
    };
    Err(store::Error::Refused {
        message,
        next: Some(format!(
            "bring the data back first, then vend rollback {place} --to v{to} --across-migrations"
        )),
    })
}

/// The first migration since a release that cannot be undone.
pub fn in_the_way(db: &Db<'_>, place: &Place, to: u64) -> Result<Option<String>, store::Error> {
    let first = db.irreversible_after(place, to)?.into_iter().next();
    Ok(first.map(|first| {
        format!(
            "v{to} of {place} may not work with the data: the migration {} of v{} {}, and is marked irreversible",
            first.script,
            first.release,
            did(&first)
        )
    }))
}

/// What a plan says about migrations: a release runs its own, and going back undoes none.
pub fn changes(kind: PlanKind, after: &Release, crossed: &[Migration]) -> Vec<Change> {
    let change = |name: String, before, after| Change::new(Subject::Database, name, before, after);
    match (kind, &after.spec.deploy.migrate) {
        (PlanKind::Release, Some(what)) => {
            let mark = if what.irreversible { ", irreversible" } else { "" };
            let runs = format!("{} runs once before traffic{mark}", what.script);
            vec![change("migration".into(), None, Some(runs))]
        }
        (PlanKind::Rollback, _) => crossed
            .iter()
            .map(|own| {
                let name = format!("migration of v{}", own.release);
                let was = format!("{}, irreversible", own.script);
                change(name, Some(was), Some("not undone".into()))
            })
            .collect(),
        _ => Vec::new(),
    }
}
