//! What the execution will change, written down before it changes it; and whether that is still so after a person
//! said yes to it.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    DeploymentId, Digest, Place,
    plan::{Change, Plan, PlanKind, Subject},
    port::{Commit, Fault, HostRole},
    release::Release,
    spec,
};
use serde::Deserialize;
use serde_json::json;
use store::{Arriving, By, DeploymentState, HostState, NewRelease};

use super::{
    Attempt, Outcome, World, chain, commands, compare, healthy, migrate, part, provision, roll, runs, spread,
    start,
    state::{Planned, Sourced},
    stored, variables,
    way::{self, Now, Way},
};
use crate::reconcile::routes;

#[derive(Deserialize)]
struct Input {
    place: Place,
    /// The release to go back to; absent: a new one is made from the rest.
    to: Option<u64>,
    commit: Option<Commit>,
    spec: Option<spec::Environment>,
    source: Option<Sourced>,
    made: Option<Made>,
}

#[derive(Deserialize)]
struct Made {
    build: BuildMade,
    bake: BakeMade,
}

#[derive(Deserialize)]
struct BuildMade {
    revision: Digest,
}

#[derive(Deserialize)]
struct BakeMade {
    image: Digest,
}

/// A release comes to the hosts here: from now on nothing else that wants them begins. What began while it was made goes
/// first, so that the plan is made of what that leaves.
pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    let input: Input = attempt.read()?;
    if is_behind(world, attempt, &input.place).await? {
        return Ok(Outcome::Later);
    }
    let (kind, release) = match input.to {
        Some(number) => (PlanKind::Rollback, number),
        None => (PlanKind::Release, create(world, attempt, &input).await?),
    };
    let (plan, way) = with_way(world, &input.place, kind, release).await?;
    let digest = plan.digest();
    Ok(Outcome::Done(json!({
        "release": release, "digest": digest, "from": plan.from, "plan": plan, "rolls": way.rolls,
        "steps": way.steps,
    })))
}

/// Has another execution the hosts, because this one did not want them yet when that began?
pub async fn is_behind(world: &World, attempt: &Attempt, place: &Place) -> Result<bool, Fault> {
    let (place, own) = (place.clone(), attempt.execution.clone());
    let ahead = world.store.read(move |db| runs::ahead(db, &place, &own));
    Ok(ahead.await.map_err(stored)?.is_some())
}

/// Is the plan still the one that was approved? Asked once nothing else moves the environment: while people thought
/// about it, hosts may have been replaced or a rollback begun.
pub async fn confirm(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    #[derive(Deserialize)]
    struct Confirmed {
        place: Place,
        to: Option<u64>,
        plan: Agreed,
        deployment: DeploymentId,
    }
    #[derive(Deserialize)]
    struct Agreed {
        digest: Digest,
        #[serde(flatten)]
        what: Planned,
    }
    let Confirmed {
        place,
        to,
        plan,
        deployment,
    } = attempt.read()?;
    let own = place.clone();
    let read = world.store.read(move |db| start::refuse_on_the_way(db, &own));
    read.await.map_err(commands::refused)?;
    if is_behind(world, attempt, &place).await? {
        let (_, release) = provision::load(world, &place, plan.what.release).await?;
        provision::begin(world, attempt, &place, &plan.what, &deployment, &release).await?;
        let queued =
            move |tx: &mut store::Tx<'_>| tx.set_deployment_state(&deployment, DeploymentState::Queued);
        world.store.write(queued).await.map_err(stored)?;
        return Ok(Outcome::Later);
    }
    let kind = if to.is_some() {
        PlanKind::Rollback
    } else {
        PlanKind::Release
    };
    if to.is_none() {
        // People may have thought about it for days.
        let (_, release) = provision::load(world, &place, plan.what.release).await?;
        super::images::admit(world, &place, &release.image, &release.spec.image.base).await?;
    }
    let now = of(world, &place, kind, plan.what.release).await?.digest();
    Ok(Outcome::Done(json!({ "same": now == plan.digest })))
}

/// The release's row: numbered once per execution, immutable afterwards.
async fn create(world: &World, attempt: &Attempt, input: &Input) -> Result<u64, Fault> {
    let (Some(commit), Some(spec), Some(source), Some(made)) =
        (&input.commit, &input.spec, &input.source, &input.made)
    else {
        return Err(Fault::order(
            "the execution reached its plan without a source, a build and an image",
        ));
    };
    super::images::admit(world, &input.place, &made.bake.image, &spec.image.base).await?;
    let place = input.place.clone();
    let new = NewRelease {
        commit: commit.clone(),
        source: source.digest,
        image: made.bake.image,
        revision: made.build.revision,
        spec: spec.clone(),
        secrets: versions(world, &place, spec).await?,
        execution: Some(attempt.execution.clone()),
    };
    let by = By::platform(crate::clock::now());
    let created = world
        .store
        .write(move |tx| tx.create_release(&place, &new, &by))
        .await
        .map_err(stored)?;
    Ok(created.content.number)
}

/// The versions that the release's secrets have now: what a rollback to it will use again.
async fn versions(
    world: &World,
    place: &Place,
    spec: &spec::Environment,
) -> Result<BTreeMap<String, u64>, Fault> {
    let own = place.clone();
    let current = world
        .store
        .read(move |db| db.current_secrets(&own))
        .await
        .map_err(stored)?;
    let version = |name: String| match current.get(&name) {
        Some(version) => Ok((name, *version)),
        None => Err(super::build::missing(place, [name.as_str()])),
    };
    variables::secrets_of(spec).into_iter().map(version).collect()
}

/// The plan that makes `release` live. Pure but for reading: the same rows give the same plan.
pub async fn of(world: &World, place: &Place, kind: PlanKind, release: u64) -> Result<Plan, Fault> {
    with_way(world, place, kind, release).await.map(|(plan, _)| plan)
}

async fn with_way(world: &World, place: &Place, kind: PlanKind, release: u64) -> Result<(Plan, Way), Fault> {
    let (environment, after) = provision::load(world, place, release).await?;
    let before = match environment.live {
        Some(live) if live != release => Some(provision::load(world, place, live).await?.1),
        // It is laid again on machines that have another one.
        Some(_) if kind == PlanKind::Rollback => Some(after.clone()),
        _ => None,
    };
    let own = place.clone();
    let read = world
        .store
        .read(move |db| Ok((db.standing_hosts(Some(&own))?, spread::of(db, &own)?)));
    let (hosts, spread) = read.await.map_err(stored)?;
    let apps = || hosts.iter().filter(|host| host.role == HostRole::App);
    let serving = apps().filter(|host| host.state == HostState::Serving);
    let serving = serving
        .filter(|host| !is_second(environment.arriving, host.release))
        .count() as u32;
    let kept = apps()
        .filter(|host| {
            host.state == HostState::Kept && host.release == Some(release) && !part::has_parted(host)
        })
        .count() as u32;
    let now = Now {
        live: before.as_ref(),
        serving,
        kept,
    };
    let way = way::of(kind, now, &after);
    match (way.rolls, kind) {
        (true, _) => roll::possible(&after, serving)?,
        // Who goes back, or has a host replaced, is not kept from it by a rule for what is new.
        (false, PlanKind::Release) if after.spec.placement.is_none() => {
            healthy::possible(
                after.spec.deploy.minimum_healthy,
                provision::desired(&environment, &after),
            )?;
        }
        _ => {}
    }
    let (files, commits, tree) = match &before {
        Some(before) => {
            let (files, commits) = history(world, place, kind, before, &after).await?;
            (files, commits, 0)
        }
        None => {
            let tree = world.repository(place).files(&after.commit.id).await;
            (Vec::new(), vec![after.commit.clone()], tree.map_err(wrong)?.len())
        }
    };
    let reports = async |number: u64| {
        let place = place.clone();
        let read = world.store.read(move |db| db.reports_of_release(&place, number));
        read.await.map_err(stored)
    };
    let old = match &before {
        Some(before) => reports(before.number).await?,
        None => Vec::new(),
    };
    let sides = compare::Sides {
        before: before.as_ref(),
        after: &after,
        hosts: match after.spec.placement {
            Some(_) => None,
            None => Some((serving, provision::desired(&environment, &after))),
        },
        files: &files,
        tree,
        hostname: &world.platform.hostname(place),
    };
    let mut changes = compare::changes(&sides);
    changes.extend(way::told(way, kind, now, &after));
    if kind == PlanKind::Rollback
        && environment.live == Some(release)
        && let Some(spread) = spread
    {
        changes.push(Change::new(
            Subject::Hosts,
            "machines",
            Some(spread.sentence()),
            Some(format!("all have v{release}")),
        ));
    }
    let own = place.clone();
    let crossed = world.store.read(move |db| db.irreversible_after(&own, release));
    changes.extend(migrate::changes(kind, &after, &crossed.await.map_err(stored)?));
    changes.extend(unled(world, place, &after.spec).await?);
    changes.extend(compare::tests(&old, &reports(release).await?));
    if let Some(before) = &before {
        changes.extend(super::images::changes(world, &before.image, &after.image).await?);
    }
    let plan = Plan {
        place: place.to_string(),
        kind,
        from: environment.live,
        to: release,
        changes,
        commits,
    };
    Ok((plan, way))
}

/// Names that will not lead to the environment.
async fn unled(world: &World, place: &Place, spec: &spec::Environment) -> Result<Vec<Change>, Fault> {
    let (platform, place, spec) = (world.platform.clone(), place.clone(), spec.clone());
    let read = world
        .store
        .read(move |db| routes::of_spec(db, &platform, &place, &spec));
    let told = |asked: routes::Asked| {
        let after = format!("does not lead here: {}", asked.problem?);
        Some(Change::new(Subject::Rule, asked.name, None, Some(after)))
    };
    Ok(read.await.map_err(stored)?.into_iter().filter_map(told).collect())
}

/// Is a host of this release one of a second fleet, which has a share of the traffic beside the live one? In place there is
/// one fleet of two releases.
fn is_second(arriving: Option<Arriving>, release: Option<u64>) -> bool {
    arriving.is_some_and(|arriving| arriving.share.is_some() && release == Some(arriving.release))
}

fn wrong(error: crate::git::Error) -> Fault {
    Fault::platform(format!("cannot compare commits: {}", chain(&error)))
}

type Files = Vec<(String, String)>;

/// Files that differ, and the commits that arrive, or that a rollback takes back.
async fn history(
    world: &World,
    place: &Place,
    kind: PlanKind,
    before: &Release,
    after: &Release,
) -> Result<(Files, Vec<Commit>), Fault> {
    let repository = world.repository(place);
    let (old, new) = (&before.commit.id, &after.commit.id);
    let files = repository.changed(old, new).await.map_err(wrong)?;
    let (from, to) = if kind == PlanKind::Rollback {
        (new, old)
    } else {
        (old, new)
    };
    let mut commits = Vec::new();
    for id in repository.between(from, to).await.map_err(wrong)? {
        let commit = repository
            .commit(&id, &after.commit.branch, &after.commit.repository)
            .await;
        let mut commit = commit.map_err(wrong)?;
        commit.message = commit
            .message
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        commits.push(commit);
    }
    Ok((files, commits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_share_the_traffic_for_a_while_are_no_part_of_the_fleet() {
        let arriving = |share| Some(Arriving { release: 2, share });
        for (arriving, release, second) in [
            (None, 1, false),
            (arriving(Some(10)), 1, false),
            (arriving(Some(10)), 2, true),
            // In place.
            (arriving(None), 2, false),
        ] {
            assert_eq!(
                is_second(arriving, Some(release)),
                second,
                "{arriving:?} {release}"
            );
        }
    }
}
