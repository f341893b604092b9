//! Machines that lack the live release because they joined after its deployment, or were away then, or because a newer
//! deployment failed: they get it by themselves, in a deployment of their own, as CodeDeploy's automatic deployments to
//! new instances of an Auto Scaling group, and its automatic rollbacks.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/integrations-aws-auto-scaling.html>
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/deployments-rollback-and-redeploy.html>

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use model::{DeploymentId, HostId, Place, spec::Placement};
use serde::{Deserialize, Serialize};
use store::{Db, Deployment, Environment, Error, Machine};

use crate::reconcile::patience;

/// The kind of an execution that brings the live release to machines that have missed it.
pub const JOIN: &str = "join";
/// That of one that brings it back to machines on which a newer one failed.
pub const BACK: &str = "auto-rollback";
/// Both.
pub const KINDS: [&str; 2] = [JOIN, BACK];

/// Why machines get the live release by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// This deployment failed, and its release lies there.
    Back(DeploymentId),
    #[default]
    Late,
}

/// How the record of a deployment begins that undoes another.
const UNDOES: &str = "rolls back ";

impl Why {
    /// The kind of its execution.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Back(_) => BACK,
            Self::Late => JOIN,
        }
    }

    fn read(cause: &str) -> Option<Self> {
        let undone = cause.strip_prefix(UNDOES)?.parse();
        undone.ok().map(Self::Back)
    }
}

/// As its deployment says it, on record.
impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back(undone) => write!(out, "{UNDOES}{undone}"),
            Self::Late => out.write_str("joined late"),
        }
    }
}

/// A machine that it could not be brought to so many times in a row waits for somebody's word.
pub const MOST: u32 = 5;

/// How a machine stands to the live release of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Has,
    /// It has missed it: it gets it once it is connected.
    Late,
    /// Bringing it has failed: it is tried again then.
    Again(Timestamp),
    /// Bringing it has failed too often.
    GivenUp,
    /// A newer deployment failed, and its release lies there: it goes back once it is connected.
    Back,
    /// It has it, and its deployment failed there.
    Failed,
}

impl Stand {
    /// Is it time to bring it?
    pub fn is_due(self, now: Timestamp) -> bool {
        match self {
            Self::Late | Self::Back => true,
            Self::Again(at) => at <= now,
            Self::Has | Self::GivenUp | Self::Failed => false,
        }
    }
}

/// What machines of an environment are judged by.
pub struct Rule {
    live: u64,
    /// When the newest deployment began that was for all of them and went well. What came to a machine before is old.
    settled: Option<Timestamp>,
    /// The deployments that machines had last.
    last: BTreeMap<HostId, Deployment>,
}

impl Rule {
    pub fn read(db: &Db<'_>, place: &Place, live: u64, machines: &[Machine]) -> Result<Self, Error> {
        let mut rule = Self {
            live,
            settled: db.settled_deployment(place)?.map(|own| own.started_at),
            last: BTreeMap::new(),
        };
        for machine in machines {
            let Some(id) = &machine.deployment else { continue };
            match db.deployment(id) {
                Ok(own) => rule.last.insert(machine.id.clone(), own),
                // Forgotten: it is older than all that is on record.
                Err(Error::Missing { .. }) => None,
                Err(error) => return Err(error),
            };
        }
        Ok(rule)
    }

    pub fn judge(&self, machine: &Machine) -> Stand {
        let has = machine.release == Some(self.live);
        if machine.tries == 0 {
            return match (has, &machine.failure) {
                (true, None) => Stand::Has,
                (true, Some(_)) => Stand::Failed,
                (false, _) if self.has_missed_it(machine) => Stand::Late,
                (false, _) => Stand::Back,
            };
        }
        next_try(machine).map_or(Stand::GivenUp, Stand::Again)
    }

    fn has_missed_it(&self, machine: &Machine) -> bool {
        let last = self.last.get(&machine.id).filter(|_| machine.release.is_some());
        last.is_none_or(|last| self.settled.is_some_and(|settled| last.started_at < settled))
    }

    /// Why a machine gets the live release. One that is brought back again undoes what it undid before.
    fn why(&self, machine: &Machine) -> Why {
        let last = self
            .last
            .get(&machine.id)
            .filter(|_| !self.has_missed_it(machine));
        let Some(last) = last else { return Why::Late };
        match &last.cause {
            Some(cause) => Why::read(cause).unwrap_or_default(),
            None if machine.release == Some(self.live) => Why::Late,
            None => Why::Back(last.id.clone()),
        }
    }
}

/// When a machine is tried again to which the live release could not be brought. `None`: not by itself.
pub fn next_try(machine: &Machine) -> Option<Timestamp> {
    let last = machine.tried_at.filter(|_| (1..MOST).contains(&machine.tries))?;
    Some(last + patience::pause(machine.tries))
}

/// Machines that are to get the live release of an environment now.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    pub place: Place,
    pub live: u64,
    pub machines: Vec<HostId>,
    /// Of any of them: those that are late go with those that go back.
    pub why: Why,
}

/// Of all environments. `connected`: only these can be brought anything.
pub fn due(db: &Db<'_>, connected: &BTreeSet<HostId>, now: Timestamp) -> Result<Vec<Due>, Error> {
    let mut machines = db.machines(None)?;
    machines.retain(|machine| !machine.leaving && connected.contains(&machine.id));
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    let placed = placed(db)?;
    let mut due = Vec::new();
    for (environment, live, placement) in &placed {
        let place = &environment.place;
        let mut own = machines.clone();
        own.retain(|machine| match &machine.place {
            Some(has) => has == place && machine.fits(&placement.registered),
            None => best(&placed, machine) == Some(place),
        });
        let rule = Rule::read(db, place, *live, &own)?;
        own.retain(|machine| rule.judge(machine).is_due(now));
        let why = own.iter().map(|machine| rule.why(machine)).min();
        if let Some(why) = why
            && is_quiet(db, place)?
        {
            due.push(Due {
                place: place.clone(),
                live: *live,
                machines: own.into_iter().map(|machine| machine.id).collect(),
                why,
            });
        }
    }
    Ok(due)
}

type Placed = (Environment, u64, Placement);

/// Environments whose live release is for machines.
fn placed(db: &Db<'_>) -> Result<Vec<Placed>, Error> {
    let mut placed = Vec::new();
    for environment in db.environments(None)? {
        let Some(live) = environment.live else { continue };
        let placement = db.release(&environment.place, live)?.content.spec.placement;
        placed.extend(placement.map(|placement| (environment, live, placement)));
    }
    Ok(placed)
}

/// Which environment a machine is for that none has: the one that asks for most of its labels, of two such the older.
fn best<'p>(placed: &'p [Placed], machine: &Machine) -> Option<&'p Place> {
    let fitting = placed.iter().filter(|(own, _, placement)| {
        own.place.tenant == machine.tenant && machine.fits(&placement.registered)
    });
    let best = fitting.min_by_key(|(own, _, placement)| {
        let most_first = std::cmp::Reverse(placement.registered.len());
        (most_first, own.created_at, own.place.to_string())
    });
    best.map(|(own, ..)| &own.place)
}

/// Is nothing under way there, and nothing about to be? What comes takes all machines along.
pub fn is_quiet(db: &Db<'_>, place: &Place) -> Result<bool, Error> {
    Ok(db.waiting_push(place)?.is_none() && super::runs::working(db, place)?.is_none())
}

#[cfg(test)]
mod tests;
