//! The revision onto the hosts: CodeDeploy's lifecycle up to the point where traffic may come.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use model::{
    DeploymentId, HostId, Place, Ticket,
    port::{
        Blame, DeployOrder, Deployed, Deployer as _, EventReport, EventStatus, Fault, HostSeen,
        HostState as Seen, Hosts as _, LifecycleEvent, LogRef,
    },
    release::Release,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, DeploymentState, HostState};

use super::{Attempt, World, provision, state::Planned, stored, tally::Tally};
use crate::reconcile::routes::Handle;

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

const AT_ONCE: usize = 4;

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    provision::begin(world, attempt, &place, &plan, &deployment, &release).await?;
    let (own, id) = (place.clone(), deployment.clone());
    let begun = world.store.write(move |tx| {
        tx.set_deployment_state(&id, DeploymentState::InProgress)?;
        let asleep = tx.environment(&own)?.asleep_at.is_some();
        let since = tx.deployment(&id)?.started_at;
        Ok((tx.hosts_of_release(&own, plan.release)?, asleep, since))
    });
    let (hosts, asleep, since) = begun.await.map_err(stored)?;
    let waiting: Vec<HostId> = hosts
        .iter()
        .filter(|host| host.state == HostState::Starting)
        .map(|host| host.id.clone())
        .collect();
    let deploying = stream::iter(waiting)
        .map(|host| async {
            let failure = one(world, attempt, &release, &place, &deployment, host.clone()).await?;
            if asleep && failure.is_none() {
                serve(&world.routes, host).await;
            }
            Ok::<_, Fault>(failure)
        })
        .buffer_unordered(AT_ONCE);
    let results: Vec<Option<Fault>> = deploying.try_collect().await?;
    let failure = results.into_iter().flatten().next();
    let tally = Tally::read(world, &place, plan.release, since, &[]).await?;
    let total = tally.well + tally.failed;
    if tally.failed > 0 && !tally.is_enough(release.spec.deploy.minimum_healthy, tally.well, tally.well) {
        return Err(failure.unwrap_or_else(|| tally.fault(&deployment)));
    }
    Ok(json!({ "hosts": total, "succeeded": tally.well }))
}

/// Somebody waits for the first host that serves, not for all of them. That the load balancer cannot be told now is no
/// fault of the host's: it is told again before the hosts are validated.
async fn serve(routes: &Handle, host: HostId) {
    if let Err(error) = routes.apply().await {
        tracing::debug!(%error, %host, "a host does not yet serve who waits for it");
    }
}

async fn one(
    world: &World,
    attempt: &Attempt,
    release: &Release,
    place: &Place,
    deployment: &DeploymentId,
    host: HostId,
) -> Result<Option<Fault>, Fault> {
    let order = order(
        release,
        place,
        deployment,
        &host,
        LifecycleEvent::BEFORE_TRAFFIC.to_vec(),
    );
    let ticket = attempt.steady.part(host.as_str());
    let deployed = match on_host(world, &ticket, &order).await {
        Err(fault) if is_lost(world, &host, &fault).await => {
            let lost = lost(&host);
            let (reason, by) = (lost.message.clone(), By::platform(crate::clock::now()));
            let written = world
                .store
                .write(move |tx| tx.set_host_state(&host, HostState::Failed, Some(&reason), &by));
            written.await.map_err(stored)?;
            return Ok(Some(lost));
        }
        deployed => deployed?,
    };
    let failure = order.failure(&deployed.events);
    let failure = failure.map(|event| fault(event, &host, &deployed.log));
    record(world, deployment, &host, deployed, failure.as_ref()).await?;
    Ok(failure)
}

/// Has one of this machine's hosts do an order, which is on record while it is done.
pub async fn on_host(world: &World, ticket: &Ticket, order: &DeployOrder) -> Result<Deployed, Fault> {
    let doing = world.node.deploy(ticket, order);
    let progress = || world.node.progress(&order.host, ticket);
    follow(world, order, doing, progress).await
}

/// Waits for what an order came to, and keeps on record meanwhile how far it is: people look at deployments that run.
pub async fn follow<F: Future<Output = Result<Vec<EventReport>, Fault>>>(
    world: &World,
    order: &DeployOrder,
    doing: impl Future<Output = Result<Deployed, Fault>>,
    progress: impl Fn() -> F,
) -> Result<Deployed, Fault> {
    let known = pending(order);
    keep(world, order, &known).await?;
    watch(world, order, known, doing, progress).await
}

/// Has one of this machine's hosts run scripts beside the lifecycle: they are on record from when they begin. What is
/// skipped is not, nor is what only brings them.
pub async fn scripts(world: &World, ticket: &Ticket, order: &DeployOrder) -> Result<Deployed, Fault> {
    let is_script = |report: &EventReport| {
        report.status != EventStatus::Skipped && report.event != LifecycleEvent::DownloadBundle
    };
    let doing = world.node.deploy(ticket, order);
    let progress = || async {
        let mut seen = world.node.progress(&order.host, ticket).await?;
        seen.retain(is_script);
        Ok(seen)
    };
    let deployed = watch(world, order, pending(order), doing, progress).await?;
    let ran: Vec<EventReport> = deployed
        .events
        .iter()
        .filter(|own| is_script(own))
        .cloned()
        .collect();
    keep(world, order, &ran).await?;
    Ok(deployed)
}

fn pending(order: &DeployOrder) -> Vec<EventReport> {
    let at = crate::clock::now();
    let events = order.events.iter();
    events
        .map(|event| EventReport::only(*event, EventStatus::Pending, at))
        .collect()
}

/// Keeps the news of an order on record until it is done. `known`: what was to be expected of it.
async fn watch<F: Future<Output = Result<Vec<EventReport>, Fault>>>(
    world: &World,
    order: &DeployOrder,
    known: Vec<EventReport>,
    doing: impl Future<Output = Result<Deployed, Fault>>,
    progress: impl Fn() -> F,
) -> Result<Deployed, Fault> {
    /// Between two looks.
    const LOOK: Duration = Duration::from_secs(1);
    let id = order.deployment.clone();
    let begun = world.store.read(move |db| Ok(db.deployment(&id)?.started_at));
    let mut heard = Heard {
        known,
        looked: begun.await.map_err(stored)?,
    };
    let mut doing = pin!(doing);
    loop {
        tokio::select! {
            done = &mut doing => {
                let mut done = done?;
                heard.date(&mut done.events, crate::clock::now());
                return Ok(done);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        let asked = crate::clock::now();
        // Who cannot say it now says it later, or in the end.
        let Ok(seen) = progress().await else { continue };
        let news = heard.news(seen, asked, crate::clock::now());
        if !news.is_empty() {
            keep(world, order, &news).await?;
        }
    }
}

/// What a host said of an order, by the platform's clock. The host's may be wrong by hours, or stand still: what it said
/// nothing of at one look and says at the next was in between, whenever it says that it was.
struct Heard {
    known: Vec<EventReport>,
    /// When it was asked the last time that it answered; before that, when the deployment began.
    looked: Timestamp,
}

impl Heard {
    /// What it says of events that it was told to do, and did not say before. It is on record only until the answer is.
    fn news(&mut self, mut seen: Vec<EventReport>, asked: Timestamp, now: Timestamp) -> Vec<EventReport> {
        seen.retain(|report| {
            let before = self.before(report);
            before.is_some_and(|before| before.status != report.status)
        });
        self.date(&mut seen, now);
        self.known
            .retain(|report| seen.iter().all(|new| new.event != report.event));
        self.known.extend(seen.iter().cloned());
        self.looked = asked;
        seen
    }

    /// Says of reports when they were. What was said before stays, and what was seen to begin began then.
    fn date(&self, reports: &mut [EventReport], now: Timestamp) {
        let within = |at: Timestamp| at.clamp(self.looked.min(now), now);
        for report in reports {
            let before = self.before(report);
            if let Some(same) = before.filter(|before| before.status == report.status) {
                (report.started_at, report.duration_ms) = (same.started_at, same.duration_ms);
                continue;
            }
            let took = i64::try_from(report.duration_ms).unwrap_or(i64::MAX);
            let ended = report
                .started_at
                .saturating_add(SignedDuration::from_millis(took));
            let began = before.filter(|before| before.status == EventStatus::InProgress);
            report.started_at = began.map_or_else(|| within(report.started_at), |began| began.started_at);
            let ended = within(ended.unwrap_or(now));
            let took = ended.duration_since(report.started_at).as_millis();
            report.duration_ms = u64::try_from(took).unwrap_or(0);
        }
    }

    fn before(&self, report: &EventReport) -> Option<&EventReport> {
        self.known.iter().find(|known| known.event == report.event)
    }
}

async fn keep(world: &World, order: &DeployOrder, events: &[EventReport]) -> Result<(), Fault> {
    let (deployment, host, events) = (order.deployment.clone(), order.host.clone(), events.to_vec());
    let written = world
        .store
        .write(move |tx| tx.record_events(&deployment, &host, &events));
    written.await.map_err(stored)
}

pub fn order(
    release: &Release,
    place: &Place,
    deployment: &DeploymentId,
    host: &HostId,
    events: Vec<LifecycleEvent>,
) -> DeployOrder {
    DeployOrder {
        deployment: deployment.clone(),
        place: place.clone(),
        host: host.clone(),
        revision: release.revision,
        appspec: release.spec.deploy.appspec.clone(),
        events,
        migration: None,
        ignores_stop: release.spec.deploy.ignore_stop_failures,
        commit: Some(release.commit.id.clone()),
    }
}

/// Did this fail because the host does not run any more? Trying again would not help then. A node that does not answer
/// says nothing of its hosts; and of one whose agent says nothing it may know the end a moment later.
pub async fn is_lost(world: &World, host: &HostId, fault: &Fault) -> bool {
    const LOOKS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(300);
    if fault.blame != Blame::Platform {
        return false;
    }
    for _ in 0..LOOKS {
        let Ok(all) = world.node.list().await else {
            return false;
        };
        let runs = |seen: &&HostSeen| seen.host == *host && seen.state == Seen::Running;
        match all.iter().find(runs) {
            None => return true,
            Some(seen) if seen.configured => return false,
            Some(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    false
}

/// What is said of a host that ended while a release was put on it.
pub fn lost(host: &HostId) -> Fault {
    Fault::customer(format!("host {host} ended while it got the release"))
}

/// One row per host and event, and the host's new state, in one transaction.
async fn record(
    world: &World,
    deployment: &DeploymentId,
    host: &HostId,
    deployed: Deployed,
    failure: Option<&Fault>,
) -> Result<(), Fault> {
    let (deployment, host) = (deployment.clone(), host.clone());
    let reason = failure.map(|fault| fault.message.clone());
    let by = By::platform(crate::clock::now());
    let written = world.store.write(move |tx| {
        tx.record_events(&deployment, &host, &deployed.events)?;
        let state = if reason.is_some() {
            HostState::Failed
        } else {
            HostState::Ready
        };
        tx.set_host_state(&host, state, reason.as_deref(), &by)
    });
    written.await.map_err(stored)
}

/// How the agent says which script it starts, as CodeDeploy's does.
const SCRIPT: &str = "Script - ";

/// The lines of a log that are its scripts' own: the agent's remarks are not what a script said.
pub fn said(log: &str) -> impl DoubleEndedIterator<Item = &str> {
    let remarks = ["[vend]", "LifecycleEvent - ", SCRIPT];
    log.lines()
        .filter(move |line| !line.trim().is_empty() && !remarks.iter().any(|own| line.starts_with(own)))
}

/// One sentence that says what failed.
pub fn fault(event: &EventReport, host: &HostId, log: &LogRef) -> Fault {
    let message = match &event.failure {
        Some(failure) => {
            let said = match said(&failure.log).next_back() {
                Some(last) => format!("; it last said: {last}"),
                None if failure.log.lines().any(|line| line.starts_with(SCRIPT)) => {
                    "; it said nothing".to_owned()
                }
                None => String::new(),
            };
            format!("{} failed on host {host}: {}{said}", event.event, failure.told())
        }
        None => format!("{} failed on host {host}", event.event),
    };
    Fault::customer(message)
        .evidence(log.clone())
        .next(format!("vend logs {log}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_balancer_that_cannot_be_told_fails_no_deployment() {
        let (handle, mut asked) = Handle::pair();
        let told = async {
            let answer = asked.recv().await.unwrap();
            let _ = answer.send(Err(Fault::platform("the load balancer starts anew")));
            // And then there is nobody to be asked.
            drop(asked);
        };
        tokio::join!(serve(&handle, HostId::from_bits(1)), told);
        serve(&handle, HostId::from_bits(2)).await;
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_what_is_new_of_what_was_ordered_is_kept() {
        use LifecycleEvent::{AfterInstall, ApplicationStart, Install};
        let report = |event, status| EventReport::only(event, status, at(1));
        let mut heard = Heard {
            known: vec![
                report(Install, EventStatus::InProgress),
                report(AfterInstall, EventStatus::Pending),
            ],
            looked: at(1),
        };
        let seen = vec![
            report(Install, EventStatus::Succeeded),
            report(AfterInstall, EventStatus::Pending),
            report(ApplicationStart, EventStatus::Failed),
        ];
        assert_eq!(heard.news(seen.clone(), at(1), at(1)), seen[..1]);
        assert_eq!(heard.news(seen, at(1), at(1)), []);
        assert_eq!(heard.news(vec![], at(1), at(1)), []);
    }

    #[test]
    fn the_platforms_clock_says_when_a_host_did_something() {
        use LifecycleEvent::{AfterInstall, BeforeInstall, Install};
        const HOUR: i64 = 3600;
        let told = |event, status, began: i64, took: i64| EventReport {
            duration_ms: took.unsigned_abs() * 1000,
            ..EventReport::only(event, status, at(began))
        };
        let (done, runs) = (EventStatus::Succeeded, EventStatus::InProgress);
        // What the host's clock says at each second of the platform's, and what is on record then.
        type Clock = fn(i64) -> i64;
        let right: Clock = |second| second;
        let exact = [(BeforeInstall, 12, 3), (Install, 17, 2), (AfterInstall, 21, 30)];
        let late = [(BeforeInstall, 20, 0), (Install, 20, 0), (AfterInstall, 22, 29)];
        let early = [(BeforeInstall, 10, 0), (Install, 10, 0), (AfterInstall, 20, 30)];
        for (what, clock, expected) in [
            ("a clock that is right", right, exact),
            ("one ahead by hours", |second| second + 5 * HOUR, late),
            ("one behind by hours", |second| second - 5 * HOUR, early),
            ("one that stands", |_| 0, early),
            (
                "one that was set right meanwhile",
                |second| second - HOUR * i64::from(second < 40),
                [(BeforeInstall, 10, 0), (Install, 10, 0), (AfterInstall, 20, 31)],
            ),
        ] {
            let mut heard = Heard {
                known: [BeforeInstall, Install, AfterInstall]
                    .map(|event| told(event, EventStatus::Pending, 10, 0))
                    .to_vec(),
                looked: at(10),
            };
            let say = |event, began, ended| told(event, done, clock(began), clock(ended) - clock(began));
            let before = vec![say(BeforeInstall, 12, 15), say(Install, 17, 19)];
            assert_eq!(heard.news(before.clone(), at(20), at(20)).len(), 2, "{what}");
            let hangs = told(AfterInstall, runs, clock(21), 0);
            let news = heard.news([before.clone(), vec![hangs]].concat(), at(22), at(22));
            assert_eq!(news.len(), 1, "{what}");
            assert!((20..=22).contains(&news[0].started_at.as_second()), "{what}");
            // Nothing new is heard while it hangs; then the answer comes.
            assert_eq!(heard.news(before.clone(), at(50), at(50)), [], "{what}");
            let mut all = [before, vec![say(AfterInstall, 21, 51)]].concat();
            heard.date(&mut all, at(51));
            let all: Vec<_> = all
                .iter()
                .map(|report| {
                    (
                        report.event,
                        report.started_at.as_second(),
                        report.duration_ms / 1000,
                    )
                })
                .collect();
            assert_eq!(all, expected, "{what}");
        }
    }

    #[test]
    fn a_script_that_said_nothing_is_told_so() {
        let begun = "LifecycleEvent - ValidateService\nScript - scripts/validate.sh\n";
        for (log, expected) in [
            (begun.to_owned(), "exit code 1; it said nothing"),
            (
                format!("{begun}[stdout]no\n[vend] it ended\n"),
                "exit code 1; it last said: [stdout]no",
            ),
            (String::new(), "exit code 1"),
        ] {
            let report = EventReport {
                event: LifecycleEvent::ValidateService,
                status: EventStatus::Failed,
                started_at: at(0),
                duration_ms: 1,
                failure: Some(model::port::ScriptFailure {
                    code: model::port::ScriptCode::ScriptFailed,
                    script: "scripts/validate.sh".into(),
                    message: "exit code 1".into(),
                    log,
                    holders: Vec::new(),
                }),
                log: None,
            };
            let log = "host/h-0000000000001/deploy".parse();
            let log = log.unwrap_or_else(|_| panic!("a log has a name"));
            let fault = fault(&report, &HostId::from_bits(1), &log);
            assert!(fault.message.ends_with(expected), "{}", fault.message);
        }
    }
}
