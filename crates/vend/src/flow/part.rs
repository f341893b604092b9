//! Old hosts part from the traffic, behind the switch to new ones: their last scripts run, which may end their app.
//!
//! That they do is on record before they are told. From then on they get no traffic back, neither when their deployment is
//! undone nor when somebody goes back to their release.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    DeploymentId, HostId, Place,
    port::{EventReport, EventStatus, Fault, HostSeen, HostState as Seen, Hosts as _, LifecycleEvent},
    release::Release,
    route::TargetState,
};
use store::{By, Db, Error, Host, HostState};

use super::{World, silent, stored, unwind};
use crate::reconcile::requests;

/// The reason of a kept host that has begun its last scripts.
const PARTED: &str = "its last scripts have run: it gets no traffic back";
const EVENT: LifecycleEvent = LifecycleEvent::AfterBlockTraffic;

/// Before a fleet is told: waits until it has answered what it was asked before, where scripts may end what answers.
pub async fn begin(world: &World, place: &Place, release: &Release, hosts: &[HostId]) -> Result<(), Fault> {
    if !may_have_scripts(world, place, release).await {
        return Ok(());
    }
    let left = when_left(world, hosts).await?;
    let had = crate::clock::now().duration_since(left);
    let rest = release.spec.deploy.drain.saturating_sub(had);
    requests::finish(world, hosts, rest.max(SignedDuration::ZERO)).await;
    mark(world, hosts, Some(PARTED)).await
}

/// When a host was told, with what it did: one that has no such script has not parted.
pub async fn told(world: &World, host: &HostId, did: &[EventReport]) -> Result<(), Fault> {
    let had_none = |own: &EventReport| own.event == EVENT && own.status == EventStatus::Skipped;
    match did.iter().any(had_none) {
        true => mark(world, std::slice::from_ref(host), None).await,
        false => Ok(()),
    }
}

/// Does the appspec of a release's commit name the event? What cannot be read there, because a build makes it, may.
async fn may_have_scripts(world: &World, place: &Place, release: &Release) -> bool {
    let Some(path) = &release.spec.deploy.appspec else {
        return false;
    };
    let read = world
        .repository(place)
        .read(&release.commit.id, path.as_str())
        .await;
    let name = EVENT.to_string();
    read.map_or(true, |text| String::from_utf8_lossy(&text).contains(&name))
}

/// When the last of them left the traffic.
async fn when_left(world: &World, hosts: &[HostId]) -> Result<Timestamp, Fault> {
    let hosts = hosts.to_vec();
    let read = world.store.read(move |db| {
        let left = hosts.iter().map(|host| Ok(db.host(host)?.changed_at));
        left.collect::<Result<Vec<_>, Error>>()
    });
    let left = read.await.map_err(stored)?.into_iter().max();
    Ok(left.unwrap_or_else(crate::clock::now))
}

async fn mark(world: &World, hosts: &[HostId], reason: Option<&'static str>) -> Result<(), Fault> {
    let (hosts, by) = (hosts.to_vec(), By::platform(crate::clock::now()));
    let written = world.store.write(move |tx| {
        for host in hosts {
            if tx.host(&host)?.state == HostState::Kept {
                tx.set_host_state(&host, HostState::Kept, reason, &by)?;
            }
        }
        Ok::<_, Error>(())
    });
    written.await.map_err(stored)
}

/// Has a host of the release before begun its last scripts for a deployment? One that died meanwhile has its events.
pub fn has_begun(db: &Db<'_>, place: &Place, old: u64, deployment: &DeploymentId) -> Result<bool, Error> {
    let mut events = db.deployment_events(deployment)?.into_iter();
    let ran = events.any(|(_, own)| own.event == EVENT && own.status != EventStatus::Skipped);
    Ok(ran || db.hosts_of_release(place, old)?.iter().any(has_parted))
}

pub fn has_parted(host: &Host) -> bool {
    host.state == HostState::Kept && host.reason.as_deref() == Some(PARTED)
}

/// Kept hosts that nobody can go back to: those that have parted, and those that are not well any more. Others are made.
pub async fn leave(world: &World, place: &Place, release: &Release) -> Result<(), Fault> {
    let (own, number) = (place.clone(), release.number);
    let read = world.store.read(move |db| db.hosts_of_release(&own, number));
    let mut kept = read.await.map_err(stored)?;
    kept.retain(|host| host.state == HostState::Kept);
    let unfit = unfit(world, &kept).await?;
    kept.retain(|host| unfit.contains(&host.id));
    unwind::leave(world, kept, "it was kept, and cannot be gone back to").await
}

/// Which of these have parted, are not healthy in the eyes of the load balancer, or do not run any more, which it may not
/// have seen yet.
pub async fn unfit(world: &World, hosts: &[Host]) -> Result<BTreeSet<HostId>, Fault> {
    if hosts.is_empty() {
        return Ok(BTreeSet::new());
    }
    let seen = world.edge.health().await.map_err(silent)?;
    // A node that does not answer says nothing of its hosts.
    let running = world.node.list().await.ok();
    let is_ill = |host: &Host| {
        let mut of_it = seen.iter().filter(|seen| seen.target.id == host.id.as_str());
        of_it.any(|seen| seen.state == TargetState::Unhealthy)
    };
    let has_ended = |host: &Host| {
        let runs = |seen: &HostSeen| seen.host == host.id && seen.state == Seen::Running;
        running.as_ref().is_some_and(|all| !all.iter().any(runs))
    };
    let unfit = hosts.iter();
    let unfit = unfit.filter(|host| has_parted(host) || is_ill(host) || has_ended(host));
    Ok(unfit.map(|host| host.id.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, flow::runs::tests::Sim};

    #[tokio::test]
    async fn who_is_told_to_part_has_begun_and_who_had_nothing_to_do_has_not() {
        let sim = Sim::new().await;
        let found = sim.store.write(|tx| {
            let (place, by) = (Sim::place(), By::platform(Timestamp::UNIX_EPOCH));
            tx.create_release(&place, &fixtures::new_release(None), &by)?;
            let new = store::NewDeployment {
                id: DeploymentId::from_bits(3),
                place: place.clone(),
                release: 1,
                execution: None,
                strategy: model::spec::Strategy::BlueGreen,
                cause: None,
            };
            let own = tx.begin_deployment(&new, &by)?.id;
            let host = tx.create_host(&fixtures::new_host(1, &place, Some(1)), &by)?.id;
            tx.set_host_state(&host, HostState::Kept, None, &by)?;
            let begun = |tx: &store::Tx<'_>| has_begun(tx, &place, 1, &own);
            let ran = |tx: &store::Tx<'_>, status| {
                tx.record_events(&own, &host, &[EventReport::only(EVENT, status, by.at)])
            };
            let mut found = vec![begun(tx)?];
            tx.set_host_state(&host, HostState::Kept, Some(PARTED), &by)?;
            found.push(begun(tx)?);
            tx.set_host_state(&host, HostState::Kept, None, &by)?;
            ran(tx, EventStatus::Skipped)?;
            found.push(begun(tx)?);
            // It is gone, and what it did is known.
            tx.set_host_state(&host, HostState::Retired, None, &by)?;
            ran(tx, EventStatus::Failed)?;
            found.push(begun(tx)?);
            Ok::<_, Error>(found)
        });
        assert_eq!(found.await.unwrap(), [false, true, false, true]);
    }
}
