//! Whether the new hosts are what their checks say, and healthy in the eyes of the edge, before they get traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Place,
    port::{CheckOrder, Death, Deployer as _, Fault, LogRef, Verdict},
    release::Release,
    route::{HealthProtocol, TargetState},
    spec::{Checks, Health},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};
use tokio::time::{Instant, sleep};

use super::{Attempt, World, chain, intake, provision, silent, state::Planned, stored, tally::Tally};
use crate::reconcile::routes;

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a check finds wrong may be right a moment later, while services come up.
const CHECKS_WITHIN: Duration = Duration::from_secs(20);
/// Hosts whose checks run at the same time.
const AT_ONCE: usize = 8;

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    let hosts = usable(world, &place, plan.release).await?;
    let since = begun(world, &deployment).await?;
    let before = Tally::read(world, &place, plan.release, since, &hosts).await?;
    let (rule, total) = (release.spec.deploy.minimum_healthy, hosts.len() as u32);
    world.routes.apply().await?;
    let watched = watched(world, &place, plan.release).await?;
    let watched: Vec<_> = watched
        .into_iter()
        .filter(|(host, _)| hosts.contains(host))
        .collect();
    let unhealthy = prove(world, &place, &release, &watched).await?;
    for (host, reason) in &unhealthy {
        fail_host(world, host, &reason.to_string()).await?;
    }
    if !before.is_enough(rule, total, total - unhealthy.len() as u32) {
        return Err(first(world, &release, unhealthy).await);
    }
    let mut well = hosts;
    well.retain(|host| unhealthy.iter().all(|(own, _)| own != host));
    let checked = check(world, &place, &release, &well).await?;
    for (host, fault) in &checked.failures {
        fail_host(world, host, &fault.message).await?;
    }
    let well = well.len() - checked.failures.len();
    match checked.failures.into_iter().next() {
        Some((_, fault)) if !before.is_enough(rule, total, well as u32) => return Err(fault),
        // An image that failed somewhere has not passed.
        Some(_) => {}
        None => super::images::passed(world, &place, &release, checked.results).await?,
    }
    Ok(json!({ "healthy": well, "checks": checked.results }))
}

/// Since when hosts are made for a deployment.
pub async fn begun(world: &World, deployment: &DeploymentId) -> Result<Timestamp, Fault> {
    let deployment = deployment.clone();
    let read = world.store.read(move |db| db.deployment(&deployment));
    Ok(read.await.map_err(stored)?.started_at)
}

/// What is said of hosts of which too few are healthy: of one whose app died, if there is one.
async fn first(world: &World, release: &Release, unhealthy: Vec<(HostId, Ill)>) -> Fault {
    let (host, ill) = match unhealthy.iter().find(|(_, ill)| matches!(ill, Ill::Dead(_))) {
        Some((host, Ill::Dead(death))) => return died(host, death),
        _ => match unhealthy.into_iter().next() {
            Some((host, ill)) => (host.to_string(), ill),
            None => ("none".into(), Ill::Silent("there is no host".into())),
        },
    };
    self::unhealthy(world, release, &host, &ill).await
}

/// Hosts whose app does not stay up: they need not be waited for.
type Deaths = Mutex<BTreeMap<HostId, Death>>;

/// Why a host is not healthy.
pub enum Ill {
    Dead(Death),
    /// What the edge says.
    Silent(String),
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead(death) => death.fmt(f),
            Self::Silent(reason) => f.write_str(reason),
        }
    }
}

/// Waits for the edge to call all of them healthy. Gives those that are not in time, or whose app died since the time
/// that stands beside each.
pub async fn prove(
    world: &World,
    place: &Place,
    release: &Release,
    watched: &[(HostId, Timestamp)],
) -> Result<Vec<(HostId, Ill)>, Fault> {
    let deaths = Deaths::default();
    let hosts: Vec<HostId> = watched.iter().map(|(host, _)| host.clone()).collect();
    tokio::select! {
        unhealthy = wait_until_healthy(world, place, release, &hosts, &deaths) => unhealthy,
        never = watch(world, watched, &deaths) => never,
    }
}

/// What is said of a host that is not healthy.
pub async fn unhealthy(world: &World, release: &Release, host: &str, ill: &Ill) -> Fault {
    let reason = match (ill, host.parse()) {
        (Ill::Dead(death), Ok(id)) => return died(&id, death),
        (ill, _) => ill.to_string(),
    };
    let Health { protocol, path, .. } = &release.spec.host.health;
    let asked = match protocol {
        HealthProtocol::Http => format!("GET {path}"),
        HealthProtocol::Grpc => format!("the gRPC call {path}"),
        HealthProtocol::Tcp => "a connection".to_owned(),
    };
    let fault = Fault::customer(format!(
        "host {host} is not healthy: {asked} on port {}: {reason}",
        release.spec.host.port
    ))
    .next("correct the app, or `host.port` and `host.health` in vend.yaml, and push again");
    super::words::last(world, fault, host).await
}

/// The hosts of a release, with the time from which on deaths count.
async fn watched(world: &World, place: &Place, release: u64) -> Result<Vec<(HostId, Timestamp)>, Fault> {
    let (place, now) = (place.clone(), crate::clock::now());
    let hosts = world.store.read(move |db| db.hosts_of_release(&place, release));
    let since = |host: store::Host| match host.state {
        HostState::Ready => (host.id, host.created_at),
        // What served before is judged by what it does from now on.
        _ => (host.id, now),
    };
    Ok(hosts.await.map_err(stored)?.into_iter().map(since).collect())
}

/// Watches the app's processes on hosts. Never ends by itself.
async fn watch<T>(world: &World, watched: &[(HostId, Timestamp)], deaths: &Deaths) -> T {
    let watching = watched.iter().map(async |(host, since)| {
        loop {
            match world.node.watch(host, *since).await {
                Ok(None) => {}
                Ok(Some(death)) => {
                    let mut deaths = deaths.lock().unwrap_or_else(PoisonError::into_inner);
                    deaths.insert(host.clone(), death);
                    return;
                }
                // Whether it is healthy is what counts.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    });
    futures_util::future::join_all(watching).await;
    std::future::pending().await
}

fn died(host: &HostId, death: &Death) -> Fault {
    let fault = Fault::customer(format!("on host {host}, {death}"));
    // A unit's log has its name without what it is.
    let service = death.service.strip_suffix(".service").unwrap_or(&death.service);
    match format!("host/{host}/{service}").parse::<LogRef>() {
        Ok(log) => fault.next(format!("vend logs {log}")).evidence(log),
        Err(_) => fault,
    }
}

/// The hosts of a release that may take traffic.
pub async fn usable(world: &World, place: &Place, release: u64) -> Result<Vec<HostId>, Fault> {
    let place = place.clone();
    let hosts = world
        .store
        .read(move |db| db.hosts_of_release(&place, release))
        .await
        .map_err(stored)?;
    let usable = |host: &store::Host| {
        matches!(
            host.state,
            HostState::Ready | HostState::Serving | HostState::Kept
        )
    };
    Ok(hosts.into_iter().filter(usable).map(|host| host.id).collect())
}

/// Hosts that the edge does not call healthy in time, with the reason it gives.
async fn wait_until_healthy(
    world: &World,
    place: &Place,
    release: &Release,
    hosts: &[HostId],
    deaths: &Deaths,
) -> Result<Vec<(HostId, Ill)>, Fault> {
    let group = routes::group(place, release.number);
    let deadline = Instant::now() + release.spec.host.health.within.unsigned_abs();
    loop {
        let seen = world.edge.health().await.map_err(silent)?;
        let healthy: BTreeSet<&str> = seen
            .iter()
            .filter(|target| target.group == group && target.state == TargetState::Healthy)
            .map(|target| target.target.id.as_str())
            .collect();
        let dead = deaths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let waiting: Vec<&HostId> = hosts
            .iter()
            .filter(|host| !healthy.contains(host.as_str()) || dead.contains_key(*host))
            .collect();
        let all_told = waiting.iter().all(|host| dead.contains_key(*host));
        if all_told || Instant::now() > deadline {
            let reason = |host: &HostId| {
                if let Some(death) = dead.get(host) {
                    return Ill::Dead(death.clone());
                }
                let target = seen
                    .iter()
                    .find(|target| target.group == group && target.target.id == host.as_str());
                let said = target.and_then(|target| target.reason.clone());
                Ill::Silent(said.unwrap_or_else(|| "no answer yet".into()))
            };
            return Ok(waiting
                .into_iter()
                .map(|host| (host.clone(), reason(host)))
                .collect());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A host that serves already is not failed by what an execution waited for: an outage of its app would cost an
/// environment its whole fleet.
async fn fail_host(world: &World, host: &HostId, reason: &str) -> Result<(), Fault> {
    let (host, reason, by) = (host.clone(), reason.to_owned(), By::platform(crate::clock::now()));
    let written = world.store.write(move |tx| match tx.host(&host)?.state {
        HostState::Serving => Ok(()),
        _ => tx.set_host_state(&host, HostState::Failed, Some(&reason), &by),
    });
    written.await.map_err(stored)
}

/// What the checks came to.
#[derive(Default)]
struct Checked {
    results: usize,
    /// What they found wrong, by host.
    failures: Vec<(HostId, Fault)>,
}

/// Runs the release's checks on every host.
async fn check(world: &World, place: &Place, release: &Release, hosts: &[HostId]) -> Result<Checked, Fault> {
    let Some(checks) = read_checks(world, place, release).await? else {
        return Ok(Checked::default());
    };
    let checks = &checks;
    let one = |host: HostId| async move {
        let verdict = judged(world, place, release.number, &host, checks).await?;
        Ok::<_, Fault>((host, verdict))
    };
    let judging = stream::iter(hosts.iter().cloned().map(one)).buffered(AT_ONCE);
    let verdicts: Vec<(HostId, Verdict)> = judging.try_collect().await?;
    let wrong = verdicts.iter().filter(|(_, verdict)| !verdict.passed());
    Ok(Checked {
        results: verdicts.iter().map(|(_, verdict)| verdict.results.len()).sum(),
        failures: wrong
            .map(|(host, verdict)| (host.clone(), failed(host, verdict)))
            .collect(),
    })
}

/// Runs the release's checks on one host. Gives what they found wrong.
pub async fn check_one(
    world: &World,
    place: &Place,
    release: &Release,
    host: &HostId,
) -> Result<Option<Fault>, Fault> {
    let Some(checks) = read_checks(world, place, release).await? else {
        return Ok(None);
    };
    let verdict = judged(world, place, release.number, host, &checks).await?;
    Ok((!verdict.passed()).then(|| failed(host, &verdict)))
}

async fn judged(
    world: &World,
    place: &Place,
    release: u64,
    host: &HostId,
    checks: &Checks,
) -> Result<Verdict, Fault> {
    let order = CheckOrder {
        host: host.clone(),
        checks: checks.clone(),
    };
    let verdict = check_until(world, order).await?;
    keep(world, place, release, host, &verdict).await?;
    Ok(verdict)
}

/// Every check that failed, the first few in full.
pub(super) fn failed(host: &HostId, verdict: &Verdict) -> Fault {
    const SHOWN: usize = 5;
    let wrong: Vec<String> = verdict
        .results
        .iter()
        .filter(|result| !result.passed)
        .map(|wrong| {
            format!(
                "check {} {}: {} should be {}, it is {}",
                wrong.kind, wrong.name, wrong.property, wrong.expected, wrong.found
            )
        })
        .collect();
    let more = match wrong.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let shown = wrong[..wrong.len().min(SHOWN)].join("; ");
    Fault::customer(format!("on host {host}: {shown}{more}"))
        .next("correct the app or its checks, and push again")
}

async fn check_until(world: &World, order: CheckOrder) -> Result<Verdict, Fault> {
    let deadline = Instant::now() + CHECKS_WITHIN;
    loop {
        let verdict = world.node.check(&order).await?;
        if verdict.passed() || Instant::now() > deadline {
            return Ok(verdict);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

pub(super) async fn read_checks(
    world: &World,
    place: &Place,
    release: &Release,
) -> Result<Option<Checks>, Fault> {
    let Some(path) = &release.spec.checks else {
        return Ok(None);
    };
    let bytes = world
        .repository(place)
        .read(&release.commit.id, path.as_str())
        .await;
    let bytes = bytes.map_err(|error| Fault::order(format!("cannot read {path}: {}", chain(&error))))?;
    let text = String::from_utf8_lossy(&bytes);
    match Checks::parse(&text, path.as_str()) {
        Ok((checks, _)) => Ok(Some(checks)),
        Err(problems) => Err(Fault::order(intake::told(&problems)).next("vend check")),
    }
}

pub(super) async fn keep(
    world: &World,
    place: &Place,
    release: u64,
    host: &HostId,
    verdict: &Verdict,
) -> Result<(), Fault> {
    let (place, host, verdict) = (place.clone(), host.clone(), verdict.clone());
    let by = By::platform(crate::clock::now());
    let written = world
        .store
        .write(move |tx| tx.record_verdict(&place, release, &host, &verdict, &by));
    written.await.map_err(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_who_died_is_named_as_it_is_kept() {
        let host: HostId = "h-0123456789abc".parse().unwrap();
        for (service, log) in [
            ("web", Some("web")),
            ("nginx.service", Some("nginx")),
            ("a b", None),
        ] {
            let death = Death {
                service: service.into(),
                exit: "exit code 1".into(),
                last: String::new(),
            };
            let next = log.map(|log| format!("vend logs host/{host}/{log}"));
            assert_eq!(died(&host, &death).next, next, "{service}");
        }
    }
}
