//! The traffic goes back to the release before, whose kept hosts may have died or be ill by then: visitors are not given to
//! nobody.

use model::{
    DeploymentId, Place,
    port::{Blame, Fault},
    release::Release,
    route::TargetState,
    spec::Strategy,
};
use store::{By, DeploymentState, Environment, Host, HostState};
use tokio::time::timeout;
use tracing::warn;

use super::{
    Attempt, World, cancel, close, healthy, muster, part, provision, roll, runs, shift, silent,
    state::Planned, stored, turn::Turn, unwind,
};

/// A failed release that is live, and the one before it.
pub struct Regain<'a> {
    pub world: &'a World,
    pub attempt: &'a Attempt,
    pub place: &'a Place,
    pub plan: &'a Planned,
    pub deployment: &'a DeploymentId,
    /// The deployment that makes hosts of the release before, if it lacks them. `None`: nobody waits for them to be made.
    pub undo: Option<&'a DeploymentId>,
}

/// What is to become of the traffic.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// To the release before, at once.
    Back,
    /// To the release before, when it has hosts.
    Make,
    /// It stays with whoever answers.
    Stay,
}

/// How the two fleets stand.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Hosts of the release before that can serve.
    well: u32,
    /// Are they as many as a release must have here?
    is_enough: bool,
    /// Does the failed release answer visitors?
    answers: bool,
}

impl Standing {
    fn way(self, may_make: bool) -> Way {
        match self {
            Self { is_enough: true, .. } | Self { answers: false, .. } => Way::Back,
            _ if may_make => Way::Make,
            Self { well: 0, .. } => Way::Stay,
            _ => Way::Back,
        }
    }
}

impl Regain<'_> {
    /// Gives the reason where the failed release keeps the traffic.
    pub async fn run(&self) -> Result<Option<String>, Fault> {
        let Some(from) = self.plan.old() else {
            return Ok(None);
        };
        let (environment, old) = provision::load(self.world, self.place, from).await?;
        // Machines of customers' own have changed, or have not: none is kept.
        if old.spec.placement.is_some() {
            shift::switch(self.world, self.place, from).await?;
            return Ok(None);
        }
        let undo = self.undo(&environment).await?;
        let mut standing = self.look(&environment, &old).await?;
        let mut way = standing.way(undo.is_some());
        let mut why = format!("v{from} has no host that is well");
        if let (Way::Make, Some(undo)) = (&way, undo) {
            if let Some(missing) = self.make(&environment, &old, undo).await? {
                why.push_str(&format!(", and {missing}"));
            }
            standing = self.look(&environment, &old).await?;
            way = standing.way(false);
        }
        if way == Way::Stay {
            return Ok(Some(why));
        }
        if standing.well > 0 {
            // Who is replaced does not come into the traffic first.
            part::leave(self.world, self.place, &old).await?;
        }
        shift::switch(self.world, self.place, from).await?;
        Ok(None)
    }

    /// The deployment that is to make hosts, unless it has been tried and has ended.
    async fn undo(&self, environment: &Environment) -> Result<Option<&DeploymentId>, Fault> {
        let Some(undo) = self.undo.filter(|_| environment.asleep_at.is_none()) else {
            return Ok(None);
        };
        let own = undo.clone();
        let read = self.world.store.read(move |db| match db.deployment(&own) {
            Err(store::Error::Missing { .. }) => Ok(false),
            found => Ok(found?.state.has_ended()),
        });
        let has_ended = read.await.map_err(stored)?;
        Ok((!has_ended).then_some(undo))
    }

    /// One look, as whoever goes back to kept hosts looks: nobody waits for what may get well.
    async fn look(&self, environment: &Environment, old: &Release) -> Result<Standing, Fault> {
        let Self { world, place, .. } = *self;
        let (own, before, failed) = (place.clone(), old.number, self.plan.release);
        let read = world.store.read(move |db| {
            Ok::<_, store::Error>((
                db.hosts_of_release(&own, before)?,
                db.hosts_of_release(&own, failed)?,
            ))
        });
        let (mut old_ones, mut new_ones) = read.await.map_err(stored)?;
        old_ones.retain(|host| matches!(host.state, HostState::Kept | HostState::Serving));
        new_ones.retain(|host| host.state == HostState::Serving);
        let seen = world.edge.health().await.map_err(silent)?;
        // Who was not asked yet, as after a start of the edge, gets requests where nobody else is well.
        let may_answer = |host: &Host| {
            let mut of_it = seen.iter().filter(|seen| seen.target.id == host.id.as_str());
            of_it.any(|seen| matches!(seen.state, TargetState::Healthy | TargetState::Initial))
        };
        let answers = new_ones.iter().any(may_answer);
        let unfit = part::unfit(world, &old_ones).await?;
        let well = old_ones.iter().filter(|host| !unfit.contains(&host.id)).count() as u32;
        let wanted = provision::desired(environment, old);
        Ok(Standing {
            well,
            is_enough: healthy::is_enough(old.spec.deploy.minimum_healthy, wanted, well),
            answers,
        })
    }

    /// Makes the hosts that the release before lacks, as a deployment of its own: whoever does not want to wait for it
    /// stops that. Gives the reason when it ended without them.
    async fn make(
        &self,
        environment: &Environment,
        old: &Release,
        undo: &DeploymentId,
    ) -> Result<Option<String>, Fault> {
        let Self {
            world,
            attempt,
            place,
            ..
        } = *self;
        roll::undoing(world, attempt, place, (old.number, Strategy::BlueGreen), undo).await?;
        let turn = Turn {
            world,
            attempt,
            place,
            environment,
            deployment: undo,
            to: old,
            serves: true,
        };
        let wanted = provision::desired(environment, old) as usize;
        let making = async {
            part::leave(world, place, old).await?;
            muster::fill(&turn, wanted, muster::UNFINISHED).await
        };
        // Hosts that are half made serve nobody, and whoever looks after the fleet stops them.
        let made = tokio::select! {
            made = making => made,
            why = self.is_useless(environment, old, undo) => {
                if let Err(fault) = unwind::end_hooks(world, place, undo, why).await {
                    warn!("the scripts of {undo} are not ended yet: {fault}");
                }
                Err(Fault::customer(why))
            }
        };
        if roll::stopped(world, undo).await?.is_some() {
            return Ok(Some("nobody waited for others".into()));
        }
        let fault = made.err();
        match fault {
            // The platform may get over it.
            Some(fault) if fault.blame == Blame::Platform && !self.is_last_try().await? => Err(fault),
            fault => {
                if let Some(fault) = &fault {
                    warn!("v{} of {place} has not got its hosts back: {fault}", old.number);
                }
                self.finish(undo, fault.as_ref()).await?;
                Ok(fault.map(|fault| format!("did not get others: {}", fault.message)))
            }
        }
    }

    /// Until nobody waits for the hosts any more: somebody stopped the deployment that makes them, or the failed release
    /// answers nobody. For that it takes two looks: one may be a moment's.
    async fn is_useless(
        &self,
        environment: &Environment,
        old: &Release,
        undo: &DeploymentId,
    ) -> &'static str {
        let mut silent = 0;
        loop {
            let _ = timeout(roll::LOOK, self.world.pokes.held.notified()).await;
            match roll::stopped(self.world, undo).await {
                Ok(Some(_)) => return "nobody waits for its hosts",
                Ok(None) => {}
                Err(fault) => warn!("nobody knows whether {undo} was stopped: {fault}"),
            }
            silent = match self.look(environment, old).await {
                Ok(standing) if !standing.answers => silent + 1,
                _ => 0,
            };
            if silent > 1 {
                return "the failed release answers nobody any more";
            }
        }
    }

    /// Has the way back failed as often as one may before somebody leaves it?
    async fn is_last_try(&self) -> Result<bool, Fault> {
        let execution = self.attempt.execution.clone();
        let read = self.world.store.read(move |db| {
            let run = runs::open(db, db.execution_summary(&execution)?.run)?;
            Ok::<_, store::Error>(run.as_ref().and_then(runs::way_back))
        });
        let failed = read.await.map_err(stored)?.unwrap_or_default();
        Ok(failed >= cancel::ENOUGH)
    }

    async fn finish(&self, undo: &DeploymentId, fault: Option<&Fault>) -> Result<(), Fault> {
        let (state, code, why) = match fault {
            None => (
                DeploymentState::Succeeded,
                None,
                format!("it undid {}", self.deployment),
            ),
            Some(fault) => {
                let (state, code) = close::verdict(fault.error_name());
                (state, code, fault.message.clone())
            }
        };
        let (undo, by) = (undo.clone(), By::platform(crate::clock::now()));
        let written = self
            .world
            .store
            .write(move |tx| tx.finish_deployment(&undo, state, code, Some(&why), &by));
        written.await.map_err(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_are_given_to_nobody_only_where_nobody_answers() {
        for (what, (well, is_enough, answers), may_make, way) in [
            ("the old hosts stand", (2, true, true), true, Way::Back),
            (
                "they stand, and the new ones do not",
                (2, true, false),
                true,
                Way::Back,
            ),
            ("nobody answers", (0, false, false), true, Way::Back),
            ("the only old host died", (0, false, true), true, Way::Make),
            ("most of them died", (1, false, true), true, Way::Make),
            ("others cannot be made", (0, false, true), false, Way::Stay),
            (
                "others cannot be made, and one is left",
                (1, false, true),
                false,
                Way::Back,
            ),
        ] {
            let standing = Standing {
                well,
                is_enough,
                answers,
            };
            assert_eq!(standing.way(may_make), way, "{what}");
        }
    }
}
