//! One host gets a release: out of the traffic, the lifecycle, looked at, and back into the traffic.
//!
//! Every step may be done again: a process that ended in the middle is followed by one that goes on.

use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Place,
    port::{EventReport, EventStatus, Fault, LifecycleEvent},
    release::Release,
};
use store::{By, Host, HostState};

use super::{Attempt, World, deploy, provision, stored, validate};
use crate::reconcile::requests;

/// What hosts get, and for which deployment.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    pub world: &'a World,
    pub attempt: &'a Attempt,
    pub place: &'a Place,
    pub environment: &'a store::Environment,
    pub deployment: &'a DeploymentId,
    pub to: &'a Release,
    /// Does the host get traffic in the end?
    pub serves: bool,
}

impl Turn<'_> {
    /// Takes one host through all of it. A release that fails on it is in the answer; the host is failed then, and gets
    /// no traffic.
    pub async fn take(&self, host: Host) -> Result<Option<Fault>, Fault> {
        let id = host.id.clone();
        match self.bring(host).await {
            Err(fault) if deploy::is_lost(self.world, &id, &fault).await => {
                self.fail(&id, deploy::lost(&id)).await
            }
            brought => brought,
        }
    }

    async fn bring(&self, host: Host) -> Result<Option<Fault>, Fault> {
        let id = host.id.clone();
        if !matches!(host.state, HostState::Starting | HostState::Ready)
            && let Some(fault) = self.block(&host).await?
        {
            return self.fail(&id, fault).await;
        }
        provision::start(self.world, self.attempt, self.environment, self.to, host).await?;
        match self.renew(&id).await? {
            Some(fault) => self.fail(&id, fault).await,
            None => Ok(None),
        }
    }

    /// Out of the traffic: nothing new comes, and what is under way is finished.
    async fn block(&self, host: &Host) -> Result<Option<Fault>, Fault> {
        let old = match host.release {
            Some(number) => Some(provision::load(self.world, self.place, number).await?.1),
            None => None,
        };
        let old = old.as_ref().unwrap_or(self.to);
        if host.state == HostState::Serving
            && let Some(fault) = self
                .hook(&host.id, old, LifecycleEvent::BeforeBlockTraffic)
                .await?
        {
            return Ok(Some(fault));
        }
        let begun = crate::clock::now();
        self.set(&host.id, HostState::Updating).await?;
        self.world.routes.apply().await?;
        requests::finish(self.world, std::slice::from_ref(&host.id), old.spec.deploy.drain).await;
        let blocked = crate::clock::now();
        if is_out(host, self.to.number, &self.events(&host.id).await?) {
            return Ok(None);
        }
        let failed = self
            .hook(&host.id, old, LifecycleEvent::AfterBlockTraffic)
            .await?;
        // Told afterwards: it says that the scripts after it have had their turn, too.
        self.event(&host.id, LifecycleEvent::BlockTraffic, begun, blocked)
            .await?;
        if failed.is_some() {
            return Ok(failed);
        }
        let (id, to, by) = (host.id.clone(), self.to.number, By::platform(crate::clock::now()));
        let written = self
            .world
            .store
            .write(move |tx| tx.set_host_release(&id, to, &by));
        written.await.map_err(stored)?;
        Ok(None)
    }

    /// The lifecycle, the checks, and the way back into the traffic.
    async fn renew(&self, host: &HostId) -> Result<Option<Fault>, Fault> {
        let events = LifecycleEvent::BEFORE_TRAFFIC.to_vec();
        let order = deploy::order(self.to, self.place, self.deployment, host, events);
        let ticket = self.attempt.steady.part(host.as_str());
        let deployed = deploy::on_host(self.world, &ticket, &order).await?;
        let start = deployed
            .events
            .iter()
            .find(|report| report.event == LifecycleEvent::ApplicationStart);
        let since = start.map_or_else(crate::clock::now, |report| report.started_at);
        self.keep(host, &deployed.events).await?;
        if let Some(event) = order.failure(&deployed.events) {
            return Ok(Some(deploy::fault(event, host, &deployed.log)));
        }
        if let Some(fault) = validate::check_one(self.world, self.place, self.to, host).await? {
            return Ok(Some(fault));
        }
        let before = LifecycleEvent::BeforeAllowTraffic;
        if self.serves
            && let Some(fault) = self.hook(host, self.to, before).await?
        {
            return Ok(Some(fault));
        }
        let begun = crate::clock::now();
        self.set(host, HostState::Ready).await?;
        self.world.routes.apply().await?;
        let watched = [(host.clone(), since)];
        let ill = validate::prove(self.world, self.place, self.to, &watched).await?;
        if let Some((_, ill)) = ill.into_iter().next() {
            let fault = validate::unhealthy(self.world, self.to, host.as_str(), &ill).await;
            return Ok(Some(fault));
        }
        if !self.serves {
            return Ok(None);
        }
        self.set(host, HostState::Serving).await?;
        self.world.routes.apply().await?;
        self.told(host, LifecycleEvent::AllowTraffic, begun).await?;
        self.hook(host, self.to, LifecycleEvent::AfterAllowTraffic).await
    }

    /// One event's scripts.
    async fn hook(&self, host: &HostId, of: &Release, event: LifecycleEvent) -> Result<Option<Fault>, Fault> {
        if of.spec.deploy.appspec.is_none() {
            return Ok(None);
        }
        let mut order = deploy::order(of, self.place, self.deployment, host, vec![event]);
        // What comes says whether what goes may fail to.
        order.ignores_stop = self.to.spec.deploy.ignore_stop_failures;
        let name = format!("{host}.{}", event.to_string().to_lowercase());
        let ticket = self.attempt.steady.part(&name);
        let deployed = deploy::on_host(self.world, &ticket, &order).await?;
        self.keep(host, &deployed.events).await?;
        let failed = order.failure(&deployed.events);
        Ok(failed.map(|event| deploy::fault(event, host, &deployed.log)))
    }

    /// What this deployment did to the host until now.
    async fn events(&self, host: &HostId) -> Result<Vec<LifecycleEvent>, Fault> {
        let deployment = self.deployment.clone();
        let read = self.world.store.read(move |db| db.deployment_events(&deployment));
        let events = read.await.map_err(stored)?.into_iter();
        let own = events.filter(|(of, _)| of == host);
        Ok(own.map(|(_, report)| report.event).collect())
    }

    /// An event that the platform itself does, until now.
    async fn told(&self, host: &HostId, event: LifecycleEvent, begun: Timestamp) -> Result<(), Fault> {
        self.event(host, event, begun, crate::clock::now()).await
    }

    async fn event(
        &self,
        host: &HostId,
        event: LifecycleEvent,
        begun: Timestamp,
        ended: Timestamp,
    ) -> Result<(), Fault> {
        let took = ended.duration_since(begun);
        let report = EventReport {
            event,
            status: EventStatus::Succeeded,
            started_at: begun,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(0),
            failure: None,
            log: None,
        };
        self.keep(host, &[report]).await
    }

    async fn keep(&self, host: &HostId, events: &[EventReport]) -> Result<(), Fault> {
        let (deployment, host, events) = (self.deployment.clone(), host.clone(), events.to_vec());
        let kept = self
            .world
            .store
            .write(move |tx| tx.record_events(&deployment, &host, &events));
        kept.await.map_err(stored)
    }

    async fn set(&self, host: &HostId, state: HostState) -> Result<(), Fault> {
        let (host, by) = (host.clone(), By::platform(crate::clock::now()));
        let written = self
            .world
            .store
            .write(move |tx| tx.set_host_state(&host, state, None, &by));
        written.await.map_err(stored)
    }

    async fn fail(&self, host: &HostId, fault: Fault) -> Result<Option<Fault>, Fault> {
        let (id, to, reason, by) = (
            host.clone(),
            self.to.number,
            fault.message.clone(),
            By::platform(crate::clock::now()),
        );
        let written = self.world.store.write(move |tx| {
            tx.set_host_release(&id, to, &by)?;
            tx.set_host_state(&id, HostState::Failed, Some(&reason), &by)
        });
        written.await.map_err(stored)?;
        self.world.routes.apply().await?;
        Ok(Some(fault))
    }
}

/// Is the host out of the traffic, with the scripts of what it ran, by these events of the deployment? What cut it off
/// came later then. That it has the release says nothing on the way back: another deployment may have been cut off before
/// it changed it.
fn is_out(host: &Host, to: u64, events: &[LifecycleEvent]) -> bool {
    host.state == HostState::Updating
        && host.release == Some(to)
        && events.contains(&LifecycleEvent::BlockTraffic)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::fixtures;

    #[test]
    fn only_what_this_deployment_took_out_is_out() {
        let host = |state, release| fixtures::host(1, release, state);
        let blocked = [LifecycleEvent::BeforeBlockTraffic, LifecycleEvent::BlockTraffic];
        let cut_off = host(HostState::Updating, 1);
        assert!(is_out(&cut_off, 1, &blocked));
        // Going back to v1, when v2's deployment was cut off before its scripts ran there.
        assert!(!is_out(&cut_off, 1, &blocked[..1]));
        assert!(!is_out(&cut_off, 1, &[]));
        assert!(!is_out(&cut_off, 2, &blocked));
        assert!(!is_out(&host(HostState::Failed, 1), 1, &blocked));
    }
}
