//! What goes down with a unit, and what comes back with it: when somebody asks for it, and when a service ends by itself.
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html>

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::{
    Services,
    start::{Aim, UnderWay, only, short},
};
use crate::agent::{
    api::{Origin, ServiceState},
    depend,
    log::Log,
    service::{News, Wish},
    unit::Links,
    units::kind,
};

/// Something that is done to services, by one of them or by who asked for it, until this goes: no other agent takes over
/// meanwhile.
pub struct Concern(watch::Sender<usize>);

impl Concern {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Concern {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Services {
    /// Stops a unit, and first what cannot be without it.
    ///
    /// # Errors
    /// When there is no such unit.
    pub async fn stop(&self, unit: &str) -> Result<(), String> {
        let mut standing = self.up(|state| !rests(state));
        for name in self.starting() {
            let links = self.links(&name).unwrap_or_default();
            standing.entry(name).or_insert(links);
        }
        let going = depend::down(unit, &standing);
        for starting in self.lock().starting.values_mut() {
            starting.retain(|name| !going.contains(name));
        }
        self.halt(unit, &going).await
    }

    /// Stops units one after the other. What becomes of the one that it is about is the answer.
    async fn halt(&self, unit: &str, going: &[String]) -> Result<(), String> {
        let mut outcome = Ok(());
        for other in going {
            match Box::pin(self.stop_one(other)).await {
                Err(why) if other == unit => outcome = Err(why),
                Err(why) => tracing::warn!("{other} did not stop with {unit}: {why}"),
                Ok(()) => {}
            }
        }
        outcome
    }

    async fn stop_one(&self, unit: &str) -> Result<(), String> {
        match kind(unit) {
            Some("service") if self.knows(unit) => self.find(unit)?.ask(Wish::Stop).await,
            Some("service") => self.units.load(unit).map(drop),
            Some("target") => {
                self.lock().targets.remove(unit);
                Ok(())
            }
            Some("timer") => {
                let timer = self.lock().timers.remove(unit);
                drop(timer);
                Ok(())
            }
            Some("socket") => {
                let socket = self.lock().sockets.remove(unit);
                drop(socket);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn restart(&self, unit: &str) -> Result<(), String> {
        self.anew(unit, || Wish::Restart, || Wish::Start).await
    }

    /// Starts a unit again, and with it what runs and goes down with it. What does not run stays so.
    async fn anew(&self, unit: &str, own: fn() -> Wish, other: fn() -> Wish) -> Result<(), String> {
        let up = self.up(|state| matches!(state, ServiceState::Active | ServiceState::Activating));
        let mut going = depend::down(unit, &up);
        let others = going.iter().rev().filter(|name| *name != unit).cloned();
        let again: Vec<String> = [unit.to_owned()].into_iter().chain(others).collect();
        let steps = depend::order(&again, |name| self.links(name));
        let under_way = UnderWay::begin(self, &steps);
        // A service is stopped by the one who looks after it, in one with its start.
        going.retain(|name| name != unit || kind(unit) != Some("service"));
        self.halt(unit, &going).await?;
        let aim = Aim {
            unit: unit.to_owned(),
            pulls: steps.iter().map(|step| step.unit.clone()).collect(),
        };
        only(self.go(&[aim], steps, &under_way, (own, other)).await)
    }

    pub(super) async fn reload(&self, unit: &str) -> Result<(), String> {
        let handle = self.find(unit)?;
        self.refresh(unit, &handle).await?;
        handle.ask(Wish::Reload).await?;
        for (other, links) in self.up(|state| state == ServiceState::Active) {
            if kind(&other) == Some("service") && links.reloads_with.iter().any(|with| with == unit) {
                self.find(&other)?.ask(Wish::Reload).await?;
            }
        }
        Ok(())
    }

    /// Hears what a service did by itself, of those who are to do something about it.
    pub(super) fn hear(&self, unit: String, news: News) {
        let concern = self.concern();
        let this = self.clone();
        // Ends with starts and stops, which have their own deadlines.
        tokio::spawn(async move {
            let _concern = concern;
            this.peace().await;
            match news {
                News::Gone => this.unbind(&unit, false).await,
                News::Skipped => this.unbind(&unit, true).await,
                News::Due => this.again(&unit).await,
            }
        });
    }

    pub fn concern(&self) -> Concern {
        Concern::begin(&self.concerns)
    }

    /// Waits until nobody is concerned by what services did.
    pub(super) async fn settled(&self) {
        // This room holds the sender.
        let _ = self.concerns.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(super) fn is_settled(&self) -> bool {
        *self.concerns.borrow() == 0
    }

    /// Stops what is bound to a unit that is not there any more. That it was not even tried concerns only those that come
    /// after it.
    async fn unbind(&self, unit: &str, skipped: bool) {
        let is_own = |name: &String| name == unit;
        for (other, links) in self.up(|state| !rests(state)) {
            let bound = links.binds_to.iter().any(is_own) && (!skipped || links.after.iter().any(is_own));
            if !bound || other == unit {
                continue;
            }
            Log::new(&self.layout.shared_logs(), short(&other))
                .note(&format!("{unit} is gone, to which it is bound: it is stopped"));
            if let Err(why) = self.stop(&other).await {
                tracing::warn!("{other} did not stop with {unit}: {why}");
            }
        }
    }

    /// The wait of a service that ended is over. As of any restart, what it needs is started with it, and what runs and
    /// needs it is started again.
    async fn again(&self, unit: &str) {
        let Err(why) = self.anew(unit, || Wish::Again, || Wish::Wake).await else {
            return;
        };
        if let Some(handle) = self.handle(unit) {
            // One that is not looked after any more is not started again.
            let _ = handle.ask(Wish::Missed(why)).await;
        }
    }

    /// Is it up, or about to be, or about to be down?
    pub(super) fn stands(&self, unit: &str) -> bool {
        match kind(unit) {
            Some("service") => !rests(self.state(unit)),
            _ => self.is_active(unit),
        }
    }

    /// Units of files whose services are in one of these states, and all others that are up, with their links.
    fn up(&self, is_up: impl Fn(ServiceState) -> bool) -> BTreeMap<String, Links> {
        let services = self.list().into_iter();
        let mut names: BTreeSet<String> = services
            .filter(|status| status.origin == Origin::Unit && is_up(status.state))
            .map(|status| format!("{}.service", status.name))
            .collect();
        {
            let registry = self.lock();
            names.extend(registry.targets.iter().cloned());
            names.extend(registry.timers.keys().cloned());
            names.extend(registry.sockets.keys().cloned());
        }
        let links = |name: String| self.links(&name).map(|links| (name, links));
        names.into_iter().filter_map(links).collect()
    }

    /// What a start under way has still to do.
    fn starting(&self) -> BTreeSet<String> {
        self.lock().starting.values().flatten().cloned().collect()
    }
}

fn rests(state: ServiceState) -> bool {
    matches!(state, ServiceState::Inactive | ServiceState::Failed)
}
