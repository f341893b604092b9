//! In place: the hosts that are there get the release, some at a time, while the others serve.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    DeploymentId, Place,
    plan::PlanKind,
    port::{Code, Fault},
    release::Release,
    route::TargetState,
    spec::{MinimumHealthy, Strategy},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Arriving, By, DeploymentState, Host, HostState, NewDeployment};
use tokio::time::timeout;
use tracing::warn;

use super::{
    Attempt, World, alarms, muster, part, provision, shift, silent,
    state::Planned,
    stored,
    turn::Turn,
    unwind,
    wave::{Standing, Wave},
    zone,
};

#[derive(Deserialize)]
struct Input {
    place: Place,
    kind: PlanKind,
    plan: Planned,
    deployment: DeploymentId,
    #[serde(default)]
    arranged: Arranged,
}

#[derive(Default, Deserialize)]
struct Arranged {
    /// Hosts when it began.
    hosts: u32,
}

/// How often a way back is looked at for whether somebody stopped it, should the news of it have been lost.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// Hosts deployed to at the same time, however many may be.
const AT_ONCE: usize = 8;

/// Before the first host: what the release needs beside hosts, and a share of the traffic for those that get it.
pub async fn arrange(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let (environment, release) = provision::load(world, &input.place, input.plan.release).await?;
    provision::begin(
        world,
        attempt,
        &input.place,
        &input.plan,
        &input.deployment,
        &release,
    )
    .await?;
    alarms::refuse(world, input.kind, &input.place, &release).await?;
    provision::needs(world, attempt, &environment, &release).await?;
    // Kept ones of the release serve with the others as soon as it is live.
    part::leave(world, &input.place, &release).await?;
    let fleet = fleet(world, &input.place, &input.plan).await?;
    let hosts = fleet.left.len() as u32;
    possible(&release, hosts)?;
    share(world, &input.place, Some(input.plan.release)).await?;
    Ok(json!({ "hosts": hosts }))
}

/// Can so many hosts of the platform ever be deployed to?
pub fn possible(release: &Release, hosts: u32) -> Result<(), Fault> {
    let (rule, each) = rules(release);
    match zone::impossible(rule, each, &[(zone::NOWHERE, hosts)]) {
        Some((_, needed, hosts)) => Err(invalid(None, needed, hosts)),
        None => Ok(()),
    }
}

/// CodeDeploy's HEALTH_CONSTRAINTS_INVALID, of a zone or of all hosts.
pub fn invalid(zone: Option<&str>, needed: u32, hosts: u32) -> Fault {
    let of = zone.map(|zone| format!(" of zone {zone}")).unwrap_or_default();
    let key = if zone.is_some() {
        "zones.minimum_healthy"
    } else {
        "minimum_healthy"
    };
    Fault::customer(format!(
        "no host{of} may be taken out: {needed} of {hosts} must stay healthy (HEALTH_CONSTRAINTS_INVALID)"
    ))
    .code(Code::HealthConstraintsInvalid)
    .next(format!(
        "ask for fewer in `deploy.{key}` of vend.yaml, or have more hosts"
    ))
}

/// How many hosts must stay healthy: of the fleet, and of each zone.
pub fn rules(release: &Release) -> (MinimumHealthy, Option<MinimumHealthy>) {
    let deploy = &release.spec.deploy;
    (
        deploy.minimum_healthy,
        deploy.zones.map(|zones| zones.minimum_healthy),
    )
}

/// The next wave. All hosts are on the platform's own machine: whatever takes one of them away takes all, so they are one
/// zone.
fn wave(release: &Release, standing: Standing) -> Wave {
    let (rule, each) = rules(release);
    zone::next(rule, each, &[standing]).1
}

/// One wave. A wave that was cut off is finished first.
pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
        arranged,
        ..
    } = attempt.read()?;
    let (environment, release) = provision::load(world, &place, plan.release).await?;
    let turn = Turn {
        world,
        attempt,
        place: &place,
        environment: &environment,
        deployment: &deployment,
        to: &release,
        serves: true,
    };
    let mut fleet = fleet(world, &place, &plan).await?;
    // What failed before it was touched died by itself, and is replaced.
    fleet.begun.retain(|host| host.state != HostState::Failed);
    if !fleet.begun.is_empty() {
        all(&turn, std::mem::take(&mut fleet.begun)).await?;
    } else if let Wave::Next(count) = wave(&release, fleet.standing(arranged.hosts)) {
        fleet.left.truncate(count as usize);
        all(&turn, std::mem::take(&mut fleet.left)).await?;
    }
    muster::tend(world, attempt, &place, &plan, &deployment).await?;
    let after = self::fleet(world, &place, &plan).await?;
    let standing = after.standing(arranged.hosts);
    match wave(&release, standing) {
        Wave::Next(_) => Ok(json!({ "more": true, "done": standing.done, "left": standing.left })),
        Wave::Done => Ok(json!({ "more": false, "done": standing.done, "failed": standing.failed })),
        Wave::Failed(short) => {
            let failed = standing.failed;
            let reason = after.reason.unwrap_or_else(|| "a host did not get ready".into());
            let message = format!("{failed} of {} hosts failed ({short}): {reason}", arranged.hosts);
            Err(Fault::customer(message).next(format!("vend deployments show {deployment}")))
        }
    }
}

/// All hosts have it: it is the live release.
pub async fn settle(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place, plan, .. } = attempt.read()?;
    shift::switch(world, &place, plan.release).await?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    shift::trim(world, &place, &release).await?;
    Ok(json!({ "live": plan.release }))
}

/// The way back: every host that has or half has the release gets the one before again.
pub async fn back(
    world: &World,
    attempt: &Attempt,
    place: &Place,
    plan: &Planned,
    (undone, undo): (&DeploymentId, &DeploymentId),
) -> Result<(), Fault> {
    let Some(old) = plan.old() else { return Ok(()) };
    let (environment, release) = provision::load(world, place, old).await?;
    let was_live = environment.live == Some(plan.release);
    // One that was made for the migration serves nobody.
    let (own, failed) = (place.clone(), plan.release);
    let hosts = world.store.read(move |db| db.hosts_of_release(&own, failed));
    let mut hosts = hosts.await.map_err(stored)?;
    hosts.retain(|host| host.state == HostState::Starting);
    unwind::leave(world, hosts, unwind::REASON).await?;
    if environment.arriving.is_none() && !was_live {
        // It failed before its first host, or all is as it was and only the record does not say so yet.
        return undid(world, undone, undo).await;
    }
    let other = if was_live { old } else { plan.release };
    share(world, place, Some(other)).await?;
    undoing(world, attempt, place, (old, Strategy::InPlace), undo).await?;
    let turn = Turn {
        world,
        attempt,
        place,
        environment: &environment,
        deployment: undo,
        to: &release,
        serves: true,
    };
    let swapped = Planned {
        release: old,
        from: Some(plan.release),
        rolls: true,
        steps: false,
    };
    tokio::select! {
        gone = waves_back(&turn, &swapped) => gone?,
        never = end_when_stopped(world, place, undo) => never,
    }
    if stopped(world, undo).await?.is_some() {
        give_up(world, place, &swapped).await?;
    }
    if was_live {
        shift::switch(world, place, old).await?;
    }
    share(world, place, None).await?;
    undid(world, undone, undo).await
}

/// The way back is at its end, where there was one.
async fn undid(world: &World, undone: &DeploymentId, undo: &DeploymentId) -> Result<(), Fault> {
    let (undo, by) = (undo.clone(), By::platform(crate::clock::now()));
    let why = format!("it undid {undone}");
    let done = world.store.write(move |tx| {
        match tx.finish_deployment(&undo, DeploymentState::Succeeded, None, Some(&why), &by) {
            Err(store::Error::Missing { .. }) => Ok(()),
            done => done,
        }
    });
    done.await.map_err(stored)
}

/// Waves until all hosts have it, or somebody stops the deployment.
async fn waves_back(turn: &Turn<'_>, swapped: &Planned) -> Result<(), Fault> {
    let Turn {
        world,
        place,
        deployment: undo,
        to: release,
        ..
    } = *turn;
    // Those that serve nobody first: nothing is lost by them.
    let mut fleet = fleet(world, place, swapped).await?;
    let total = (fleet.left.len() + fleet.done + fleet.begun.len()) as u32;
    let mut next = std::mem::take(&mut fleet.begun);
    while stopped(world, undo).await?.is_none() {
        for fault in all(turn, next).await? {
            let old = release.number;
            warn!("a host of {place} did not get v{old} back, and is replaced: {fault}");
        }
        let mut fleet = self::fleet(world, place, swapped).await?;
        let standing = Standing {
            failed: 0,
            ..fleet.standing(total)
        };
        let Wave::Next(count) = wave(release, standing) else {
            break;
        };
        fleet.left.truncate(count as usize);
        next = fleet.left;
    }
    Ok(())
}

/// Why somebody stopped the deployment, if somebody did.
pub(super) async fn stopped(world: &World, undo: &DeploymentId) -> Result<Option<String>, Fault> {
    let undo = undo.clone();
    let read = world.store.read(move |db| db.deployment(&undo));
    let own = read.await.map_err(stored)?;
    let is_stopped = own.state == DeploymentState::Stopped;
    Ok(is_stopped.then(|| own.reason.unwrap_or_default()))
}

/// Ends the scripts of a way back that somebody stopped, wherever one runs. Never ends by itself.
async fn end_when_stopped<T>(world: &World, place: &Place, undo: &DeploymentId) -> T {
    loop {
        match stopped(world, undo).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                if let Err(fault) = unwind::end_hooks(world, place, undo, &why).await {
                    warn!("the scripts of {undo} are not ended yet: {fault}");
                }
            }
            Err(fault) => warn!("nobody knows whether {undo} was stopped: {fault}"),
        }
        let _ = timeout(LOOK, world.pokes.held.notified()).await;
    }
}

/// Hosts that a way back left half way do not count any more: whoever looks after the fleet makes others.
async fn give_up(world: &World, place: &Place, swapped: &Planned) -> Result<(), Fault> {
    let begun = fleet(world, place, swapped).await?.begun;
    let by = By::platform(crate::clock::now());
    let written = world.store.write(move |tx| {
        let mut half_way = begun.iter().filter(|host| host.state != HostState::Failed);
        half_way.try_for_each(|host| {
            tx.set_host_state(&host.id, HostState::Failed, Some("its way back was stopped"), &by)
        })
    });
    written.await.map_err(stored)
}

/// The deployment that undoes another, on record.
pub(super) async fn undoing(
    world: &World,
    attempt: &Attempt,
    place: &Place,
    (release, strategy): (u64, Strategy),
    undo: &DeploymentId,
) -> Result<(), Fault> {
    let new = NewDeployment {
        id: undo.clone(),
        place: place.clone(),
        release,
        execution: Some(attempt.execution.clone()),
        strategy,
        cause: None,
    };
    let by = By::platform(crate::clock::now());
    let begun = world.store.write(move |tx| {
        tx.begin_deployment(&new, &by)?;
        tx.set_deployment_state(&new.id, DeploymentState::InProgress)
    });
    begun.await.map_err(stored)
}

/// A part of the traffic for a release, as many hosts as it has; or for none.
async fn share(world: &World, place: &Place, release: Option<u64>) -> Result<(), Fault> {
    let (place, by) = (place.clone(), By::platform(crate::clock::now()));
    let arriving = release.map(|release| Arriving { release, share: None });
    let shared = world
        .store
        .write(move |tx| tx.share_traffic(&place, arriving, &by));
    shared.await.map_err(stored)?;
    world.routes.apply().await
}

async fn all(turn: &Turn<'_>, hosts: Vec<Host>) -> Result<Vec<Fault>, Fault> {
    let turning = stream::iter(hosts)
        .map(|host| turn.take(host))
        .buffer_unordered(AT_ONCE);
    let faults: Vec<Option<Fault>> = turning.try_collect().await?;
    Ok(faults.into_iter().flatten().collect())
}

/// One fleet of two releases.
struct Fleet {
    /// Not touched, in the order in which they get it: those that are not healthy first, then those of which nothing
    /// is known.
    left: Vec<Host>,
    /// How many of them are not healthy.
    ill: usize,
    /// Taken out, and neither well nor failed: what was cut off.
    begun: Vec<Host>,
    done: usize,
    failed: usize,
    /// Of the first that failed.
    reason: Option<String>,
}

impl Fleet {
    fn standing(&self, total: u32) -> Standing {
        Standing {
            total,
            left: self.left.len() as u32,
            ill: self.ill as u32,
            done: self.done as u32,
            failed: self.failed as u32,
        }
    }
}

async fn fleet(world: &World, place: &Place, plan: &Planned) -> Result<Fleet, Fault> {
    let (own, new, old) = (place.clone(), plan.release, plan.old());
    let read = world.store.read(move |db| {
        let mut hosts = db.hosts_of_release(&own, new)?;
        if let Some(old) = old {
            hosts.extend(db.hosts_of_release(&own, old)?);
        }
        Ok(hosts)
    });
    let mut fleet = sorted(read.await.map_err(stored)?, new);
    let seen = world.edge.health().await.map_err(silent)?;
    let state = |host: &Host| seen.iter().find(|target| target.target.id == host.id.as_str());
    let rank = |host: &Host| match state(host).map(|target| target.state) {
        Some(TargetState::Unhealthy) => 0,
        Some(TargetState::Healthy) => 2,
        _ => 1,
    };
    fleet.left.sort_by_key(rank);
    fleet.ill = fleet.left.iter().filter(|host| rank(host) == 0).count();
    Ok(fleet)
}

fn sorted(hosts: Vec<Host>, new: u64) -> Fleet {
    let mut fleet = Fleet {
        left: Vec::new(),
        ill: 0,
        begun: Vec::new(),
        done: 0,
        failed: 0,
        reason: None,
    };
    for host in hosts {
        let is_new = host.release == Some(new);
        match host.state {
            HostState::Serving if is_new => fleet.done += 1,
            HostState::Serving => fleet.left.push(host),
            // Neither is in the traffic.
            HostState::Updating | HostState::Ready | HostState::Starting => fleet.begun.push(host),
            HostState::Failed if is_new => {
                fleet.failed += 1;
                fleet.reason = fleet.reason.or(host.reason);
            }
            HostState::Failed => fleet.begun.push(host),
            HostState::Kept | HostState::Draining | HostState::Retired => {}
        }
    }
    fleet
}

/// What keeps the hosts that are there from having this release: an image, a size or a port cannot be changed under a
/// host.
pub fn misfit(old: &Release, new: &Release) -> Option<&'static str> {
    let (before, after) = (&old.spec.host, &new.spec.host);
    match () {
        () if old.image != new.image => Some("the image is another one"),
        () if before.size != after.size => Some("the size is another one"),
        () if before.port != after.port => Some("the port is another one"),
        () => None,
    }
}
