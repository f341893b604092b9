//! The traffic, from the release that serves to the one that is to: one change of rows, one change of weights.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Place,
    port::{Fault, LifecycleEvent},
    release::Release,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState, Tx};

use super::{
    Attempt, World, deploy, muster, part, provision, state::Planned, stored, tally::Tally, validate,
};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

pub struct Fleet<'a> {
    pub release: &'a Release,
    pub hosts: Vec<HostId>,
    /// What comes in its place does not mind what fails on its way out.
    pub ignores_stop: bool,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let (_, new) = provision::load(world, &place, plan.release).await?;
    let ignores_stop = new.spec.deploy.ignore_stop_failures;
    let mut arriving = Fleet {
        release: &new,
        hosts: validate::usable(world, &place, plan.release).await?,
        ignores_stop,
    };
    let shift = Shift {
        world,
        attempt,
        place: &place,
        plan: &plan,
        deployment: &deployment,
    };
    let old = match plan.old() {
        Some(number) => Some(provision::load(world, &place, number).await?.1),
        None => None,
    };
    // It is not beside what changes which release is live: what it makes would belong to neither.
    let leaving = muster::beside(world, attempt, async {
        // By steps, this was before the first of them.
        if !plan.steps {
            shift
                .admit(&mut arriving, LifecycleEvent::BeforeAllowTraffic)
                .await?;
        }
        let Some(old) = &old else { return Ok(None) };
        let leaving = Fleet {
            release: old,
            hosts: validate::usable(world, &place, old.number).await?,
            ignores_stop,
        };
        shift
            .dismiss(&leaving, LifecycleEvent::BeforeBlockTraffic)
            .await?;
        Ok(Some(leaving))
    });
    let leaving = leaving.await?;
    switch(world, &place, plan.release).await?;
    muster::beside(world, attempt, async {
        shift
            .admit(&mut arriving, LifecycleEvent::AfterAllowTraffic)
            .await?;
        match &leaving {
            Some(leaving) => shift.part(leaving).await,
            None => Ok(()),
        }
    })
    .await?;
    trim(world, &place, &new).await?;
    Ok(json!({ "live": plan.release, "hosts": arriving.hosts.len() }))
}

/// Makes a release live and waits until the edge serves it so.
pub async fn switch(world: &World, place: &Place, release: u64) -> Result<(), Fault> {
    let (_, content) = provision::load(world, place, release).await?;
    let by = By::platform(crate::clock::now());
    let retire_at = by.at + content.spec.deploy.keep_old;
    let own = place.clone();
    world
        .store
        .write(move |tx| tx.set_live(&own, release, retire_at, &by))
        .await
        .map_err(stored)?;
    world.routes.apply().await
}

/// Hosts whose hooks run at the same time.
const AT_ONCE: usize = 8;

/// What hooks run for.
pub struct Shift<'a> {
    pub world: &'a World,
    pub attempt: &'a Attempt,
    pub place: &'a Place,
    pub plan: &'a Planned,
    pub deployment: &'a DeploymentId,
}

impl Shift<'_> {
    /// One lifecycle event on the new hosts. One on which it fails has failed, as in place: it gets no traffic, and the
    /// others go on without it while they are enough.
    pub async fn admit(&self, fleet: &mut Fleet<'_>, event: LifecycleEvent) -> Result<(), Fault> {
        let Self { world, place, .. } = *self;
        let since = validate::begun(world, self.deployment).await?;
        let before = Tally::read(world, place, self.plan.release, since, &fleet.hosts).await?;
        let failures = self.hooks(fleet, event).await?;
        if failures.is_empty() {
            return Ok(());
        }
        let total = fleet.hosts.len() as u32;
        let rule = fleet.release.spec.deploy.minimum_healthy;
        let is_enough = before.is_enough(rule, total, total - failures.len() as u32);
        // Those that have traffic keep it until the release before has it again: without them nobody would answer.
        if is_enough || event != LifecycleEvent::AfterAllowTraffic {
            for (host, fault) in &failures {
                self.fail(host, &fault.message, since).await?;
            }
            world.routes.apply().await?;
        }
        fleet
            .hosts
            .retain(|host| failures.iter().all(|(own, _)| own != host));
        match failures.into_iter().next() {
            Some((_, fault)) if !is_enough => Err(fault),
            _ => Ok(()),
        }
    }

    /// One lifecycle event on the hosts that go. None of them may fail: it would go on with what it was not told to end.
    pub async fn dismiss(&self, fleet: &Fleet<'_>, event: LifecycleEvent) -> Result<(), Fault> {
        let failures = self.hooks(fleet, event).await?;
        failures
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, fault)| Err(fault))
    }

    /// The last scripts of hosts that have left the traffic, when they have answered what they were asked before.
    async fn part(&self, fleet: &Fleet<'_>) -> Result<(), Fault> {
        part::begin(self.world, self.place, fleet.release, &fleet.hosts).await?;
        self.dismiss(fleet, LifecycleEvent::AfterBlockTraffic).await
    }

    /// One lifecycle event on all hosts of a fleet, for this deployment: on the hosts that it takes out, too, so that what
    /// ends it ends their scripts. Which revision's script runs is the host's to know. Hosts with a script are on record.
    /// Gives the hosts on which it failed, when all have had their turn.
    async fn hooks(&self, fleet: &Fleet<'_>, event: LifecycleEvent) -> Result<Vec<(HostId, Fault)>, Fault> {
        if fleet.release.spec.deploy.appspec.is_none() {
            return Ok(Vec::new());
        }
        let one = |host: HostId| async move {
            let failure = self.hook(fleet, event, &host).await?;
            Ok::<_, Fault>(failure.map(|fault| (host, fault)))
        };
        let hosts = stream::iter(fleet.hosts.iter().cloned().map(one));
        let all: Vec<Result<_, Fault>> = hosts.buffered(AT_ONCE).collect().await;
        let all: Vec<Option<(HostId, Fault)>> = all.into_iter().collect::<Result<_, Fault>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    async fn hook(
        &self,
        fleet: &Fleet<'_>,
        event: LifecycleEvent,
        host: &HostId,
    ) -> Result<Option<Fault>, Fault> {
        let Self {
            world, deployment, ..
        } = *self;
        let mut order = deploy::order(fleet.release, self.place, deployment, host, vec![event]);
        order.ignores_stop = fleet.ignores_stop;
        let name = format!("{host}.{}", event.to_string().to_lowercase());
        let ticket = self.attempt.steady.part(&name);
        let deployed = match deploy::scripts(world, &ticket, &order).await {
            Err(fault) if deploy::is_lost(world, host, &fault).await => {
                // One that was to go has gone: nothing of it could go on.
                let leaves = [
                    LifecycleEvent::BeforeBlockTraffic,
                    LifecycleEvent::AfterBlockTraffic,
                ];
                return Ok((!leaves.contains(&event)).then(|| deploy::lost(host)));
            }
            deployed => deployed?,
        };
        let failure = order.failure(&deployed.events);
        part::told(world, host, &deployed.events).await?;
        Ok(failure.map(|failed| deploy::fault(failed, host, &deployed.log)))
    }

    /// A host that served the same release before is not failed by a hook that is run again: a change of the number of
    /// hosts would cost an environment all that it had.
    async fn fail(&self, host: &HostId, reason: &str, since: Timestamp) -> Result<(), Fault> {
        let (host, reason, by) = (host.clone(), reason.to_owned(), By::platform(crate::clock::now()));
        let are_new = self.plan.old().is_some();
        let written = self.world.store.write(move |tx| {
            let found = tx.host(&host)?;
            let served = found.state == HostState::Serving && !are_new && found.created_at < since;
            match found.state {
                _ if served => Ok(()),
                HostState::Draining | HostState::Retired => Ok(()),
                _ => tx.set_host_state(&host, HostState::Failed, Some(&reason), &by),
            }
        });
        written.await.map_err(stored)
    }
}

/// A live fleet that is larger than it is to be gives its newest hosts back.
pub async fn trim(world: &World, place: &Place, release: &Release) -> Result<(), Fault> {
    let (place, release) = (place.clone(), release.clone());
    let by = By::platform(crate::clock::now());
    let written = world
        .store
        .write(move |tx| give_surplus(tx, &place, &release, &by));
    written.await.map_err(stored)?;
    world.routes.apply().await
}

/// The size is that of this moment: somebody may have changed it while hooks ran.
fn give_surplus(tx: &Tx<'_>, place: &Place, release: &Release, by: &By) -> Result<(), store::Error> {
    let wanted = provision::desired(&tx.environment(place)?, release) as usize;
    let mut serving = tx.hosts_of_release(place, release.number)?;
    serving.retain(|host| host.state == HostState::Serving);
    for host in serving.iter().skip(wanted) {
        tx.set_host_state(&host.id, HostState::Draining, Some("scaled in"), by)?;
        tx.set_host_retirement(&host.id, Some(by.at + release.spec.deploy.drain))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, flow::runs::tests::Sim};

    #[tokio::test]
    async fn hosts_that_were_asked_for_meanwhile_are_not_given_back() {
        let sim = Sim::new().await;
        let serving = sim.store.write(|tx| {
            let (place, by) = (Sim::place(), By::platform(Timestamp::UNIX_EPOCH));
            let release = tx
                .create_release(&place, &fixtures::new_release(None), &by)?
                .content;
            for number in 1..=3 {
                let host = tx
                    .create_host(&fixtures::new_host(number, &place, Some(1)), &by)?
                    .id;
                tx.set_host_state(&host, HostState::Serving, None, &by)?;
            }
            let left = |hosts| {
                tx.set_desired(&place, Some(hosts), &by)?;
                give_surplus(tx, &place, &release, &by)?;
                let mut left = tx.hosts_of_release(&place, 1)?;
                left.retain(|host| host.state == HostState::Serving);
                Ok::<_, store::Error>(left.len())
            };
            Ok::<_, store::Error>([left(3)?, left(2)?])
        });
        assert_eq!(serving.await.unwrap(), [3, 2]);
    }
}
