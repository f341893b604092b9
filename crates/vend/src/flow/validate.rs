//! Whether the new hosts are what their checks say, and healthy in the eyes of the edge, before they get traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{
    HostId, Place,
    port::{CheckOrder, Death, Deployer as _, Fault, LogRef, Verdict},
    release::Release,
    route::TargetState,
    spec::Checks,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};
use tokio::time::{Instant, sleep};

use super::{Attempt, World, chain, healthy, intake, provision, state::Planned, stored};
use crate::reconcile::routes;

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
}

/// An app may take this long from the end of its start script to its first healthy answer.
const HEALTHY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a check finds wrong may be right a moment later, while services come up.
const CHECKS_WITHIN: Duration = Duration::from_secs(20);

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place, plan } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    let hosts = usable(world, &place, plan.release).await?;
    let total = hosts.len() as u32;
    world.routes.apply().await?;
    let mut deaths = Deaths::default();
    let unhealthy = tokio::select! {
        unhealthy = wait_until_healthy(world, &place, &release, &hosts, &deaths) => unhealthy?,
        never = watch(world, &place, plan.release, &deaths) => never,
    };
    for (host, reason) in &unhealthy {
        fail_host(world, host, reason).await?;
    }
    if !healthy::is_enough(
        release.spec.deploy.minimum_healthy,
        total,
        total - unhealthy.len() as u32,
    ) {
        let dead = deaths
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_first();
        if let Some((host, death)) = dead {
            return Err(died(&host, &death));
        }
        let (host, reason) = unhealthy
            .first()
            .map_or(("none", "there is no host"), |(host, reason)| {
                (host.as_str(), reason)
            });
        let path = &release.spec.host.health.path;
        let fault = Fault::customer(format!(
            "host {host} is not healthy: GET {path} on port {}: {reason}",
            release.spec.host.port
        ))
        .next("correct the app, or `host.port` and `host.health` in vend.yaml, and push again");
        return Err(super::words::last(world, fault, host).await);
    }
    let well: Vec<&HostId> = hosts
        .iter()
        .filter(|host| unhealthy.iter().all(|(own, _)| own != *host))
        .collect();
    let checked = check(world, &place, &release, &well).await?;
    super::images::passed(world, &place, &release, checked).await?;
    Ok(json!({ "healthy": well.len(), "checks": checked }))
}

/// Hosts whose app does not stay up: they need not be waited for.
type Deaths = Mutex<BTreeMap<HostId, Death>>;

/// Watches the app's processes on every host of a release. Never ends by itself.
async fn watch<T>(world: &World, place: &Place, release: u64, deaths: &Deaths) -> T {
    let (place, now) = (place.clone(), crate::clock::now());
    let hosts = world.store.read(move |db| db.hosts_of_release(&place, release));
    let hosts = hosts.await.unwrap_or_default();
    let watching = hosts.into_iter().map(async |host| {
        // What served before is judged by what it does from now on.
        let since = match host.state {
            HostState::Ready => host.created_at,
            _ => now,
        };
        loop {
            match world.node.watch(&host.id, since).await {
                Ok(None) => {}
                Ok(Some(death)) => {
                    let mut deaths = deaths.lock().unwrap_or_else(PoisonError::into_inner);
                    deaths.insert(host.id.clone(), death);
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
) -> Result<Vec<(HostId, String)>, Fault> {
    let group = routes::group(place, release.number);
    let deadline = Instant::now() + HEALTHY_WITHIN;
    loop {
        let seen = world.edge.health().await;
        let seen =
            seen.map_err(|error| Fault::platform(format!("the edge does not answer: {}", chain(&error))))?;
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
                    return death.to_string();
                }
                let target = seen
                    .iter()
                    .find(|target| target.group == group && target.target.id == host.as_str());
                target
                    .and_then(|target| target.reason.clone())
                    .unwrap_or_else(|| "no answer yet".into())
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

/// Runs the release's checks on every host. Gives the number of results.
async fn check(world: &World, place: &Place, release: &Release, hosts: &[&HostId]) -> Result<usize, Fault> {
    let Some(checks) = read_checks(world, place, release).await? else {
        return Ok(0);
    };
    let mut count = 0;
    for host in hosts {
        let verdict = check_until(
            world,
            CheckOrder {
                host: (*host).clone(),
                checks: checks.clone(),
            },
        )
        .await?;
        count += verdict.results.len();
        keep(world, place, release.number, host, &verdict).await?;
        if !verdict.passed() {
            return Err(failed(host, &verdict));
        }
    }
    Ok(count)
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
