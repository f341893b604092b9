//! The route table, computed from the catalogue.
//!
//! Pure: what is served where follows from rows alone, so that the same table comes out after every restart, and a
//! change of route is nothing but a change of rows. One task computes and sends it; whoever changed rows asks that
//! task and waits for the edge's word.

mod asked;
mod away;
mod groups;
mod owners;
mod rows;
mod rules;
mod vault;

pub use asked::{Asked, asked, of_spec};
pub use away::{Away, elsewhere};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    HostId, Place,
    port::Fault,
    route::{Access, Authenticate, Listens, Table, TargetGroup},
    spec,
};
use store::{Arriving, Closure, Db, Owner, Store};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Platform,
    flow::{chain, silent, stored},
};
use groups::{port_group, target_group};
use owners::Claim;
use rules::{label, rules};

/// What the table must know of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub place: Place,
    /// The environment's number on the platform: its rule's priority, kept as long as it lives.
    pub number: u32,
    /// Since when this environment has its name.
    pub created_at: Timestamp,
    pub hostnames: Vec<String>,
    /// Domains of the live release, with what listens for each alone.
    pub domains: Vec<(spec::Domain, Vec<Listens>)>,
    /// Who must have signed in, as the live release says.
    pub authenticate: Option<Box<Authenticate>>,
    /// Each must let a visitor in: the tenant's list, and the environment's.
    pub access: Vec<Access>,
    /// Visitors get a page.
    pub closed: Option<Closure>,
    /// Domains and ports (`udp-5514`) that are its own, and not another environment's: there are no rules for the others.
    pub owns: BTreeSet<String>,
    /// Which step each rule of a domain or port has, and keeps.
    pub steps: BTreeMap<String, u32>,
    /// Where ports of apps are.
    pub apps: IpAddr,
    /// The release that gets the traffic.
    pub live: Option<u64>,
    /// The live release has no hosts until somebody asks for it.
    pub asleep: bool,
    /// The one that gets a part of it.
    pub arriving: Option<Arriving>,
    /// It is served on AWS too, or instead.
    pub away: Option<Away>,
    /// Hosts that take, or may soon take, or lately took traffic, by release.
    pub fleets: BTreeMap<u64, Fleet>,
}

/// The hosts of one release, probed and reached as that release says: going back restores port and health check too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    pub spec: spec::Host,
    /// How long requests under way may go on after their host has left the table.
    pub drain: SignedDuration,
    /// Hosts that serve; the others are probed.
    pub serving: u32,
    pub ports: Vec<spec::Port>,
    pub hosts: Vec<(HostId, Ipv4Addr)>,
}

/// How long requests under way of a release's hosts may go on.
pub fn delay(db: &Db<'_>, place: &Place, release: Option<u64>) -> Result<SignedDuration, store::Error> {
    match release {
        Some(release) => Ok(db.release(place, release)?.content.spec.deploy.drain),
        None => Ok(spec::Deploy::DRAIN),
    }
}

/// The name of the target group of one release.
pub fn group(place: &Place, release: u64) -> String {
    format!("{place}/v{release}")
}

/// The whole table. A fleet that is not live is in it with weight 0, so that the edge probes it before it gets traffic
/// and a switch back is a change of weights.
pub fn table(version: u64, environments: &[Served]) -> Table {
    let mut table = Table {
        version,
        ..Table::default()
    };
    for served in environments {
        let weights = weights(served);
        // Every host is out to get a release: requests wait for the first that is back.
        let all_out = weights.values().all(|weight| *weight == 0);
        for (release, fleet) in &served.fleets {
            let name = group(&served.place, *release);
            let sleeps = served.asleep && served.live == Some(*release);
            for port in &fleet.ports {
                let group = TargetGroup {
                    waking: sleeps,
                    ..port_group(fleet, port)
                };
                table
                    .target_groups
                    .insert(format!("{name}/{}", label(port)), group);
            }
            let waking = sleeps || all_out && served.arriving.is_some_and(|own| own.release == *release);
            let group_of = TargetGroup {
                waking,
                ..target_group(fleet)
            };
            table.target_groups.insert(name, group_of);
        }
        if let Some(away) = &served.away {
            table.target_groups.insert(elsewhere(&served.place), away.group());
        }
        table.rules.extend(rules(served, &weights));
    }
    table.rules.sort_by_key(|rule| rule.priority);
    table
}

/// What each release gets: all for the live one, a share for one that arrives by steps, or as many parts as hosts serve.
fn weights(served: &Served) -> BTreeMap<u64, u32> {
    let arriving = served
        .arriving
        .filter(|own| served.fleets.contains_key(&own.release));
    let weight = |(release, fleet): (&u64, &Fleet)| {
        let is_live = Some(*release) == served.live;
        let here = served.away.as_ref().map_or(100, Away::here);
        let weight = match arriving {
            None if is_live => here,
            None => 0,
            Some(Arriving { release: new, share }) => match (share, new == *release) {
                (Some(share), true) => share.min(100),
                (Some(share), false) if is_live => 100 - share.min(100),
                (None, new) if new || is_live => fleet.serving,
                _ => 0,
            },
        };
        (*release, weight)
    };
    served.fleets.iter().map(weight).collect()
}

/// Rows change without anybody asking when the edge lost its table, or a row was changed by hand.
const EVERY: Duration = Duration::from_secs(5);

/// What is to be on record before the edge has the table.
#[derive(Default)]
struct Changed {
    /// Environments whose rules have other steps.
    steps: Vec<(Place, BTreeMap<String, u32>)>,
    /// Whose names are, if anything of that is otherwise.
    owners: Option<BTreeMap<String, Owner>>,
}

pub type Answer = oneshot::Sender<Result<(), Fault>>;

/// Asks for the table to be computed and applied now.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Answer>);

impl Handle {
    /// One that somebody else answers.
    #[cfg(test)]
    pub fn pair() -> (Self, mpsc::Receiver<Answer>) {
        let (sender, asked) = mpsc::channel(1);
        (Self(sender), asked)
    }

    /// Returns once the edge serves what the rows say.
    pub async fn apply(&self) -> Result<(), Fault> {
        let (sender, answer) = oneshot::channel();
        let gone = || Fault::platform("the platform is stopping");
        self.0.send(sender).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

pub struct Routes {
    asked: mpsc::Receiver<Answer>,
    store: Store,
    edge: edge::Client,
    platform: Platform,
    applied: Option<Table>,
    /// What the edge holds for the table.
    given: Option<edge::Given>,
}

pub fn new(store: Store, edge: edge::Client, platform: Platform) -> (Routes, Handle) {
    let (sender, asked) = mpsc::channel(256);
    (
        Routes {
            asked,
            store,
            edge,
            platform,
            applied: None,
            given: None,
        },
        Handle(sender),
    )
}

impl Routes {
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut often = tokio::time::interval(EVERY);
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = often.tick() => {}
                Some(answer) = self.asked.recv() => waiting.push(answer),
            }
            // Everybody who asked by now wants the same table.
            while let Ok(answer) = self.asked.try_recv() {
                waiting.push(answer);
            }
            let done = self.apply(waiting.is_empty()).await;
            if let (Err(fault), true) = (&done, waiting.is_empty()) {
                warn!("the routes could not be applied: {fault}");
            }
            for answer in waiting {
                // Whoever asked may have given up.
                let _ = answer.send(done.clone());
            }
        }
    }

    /// `check`: nobody asked, so the edge is asked whether it still has what it was given.
    async fn apply(&mut self, check: bool) -> Result<(), Fault> {
        let (served, given, changed) = self.served().await?;
        let version = match (&self.applied, check) {
            (Some(applied), false) => applied.version,
            _ => self.edge.version().await.map_err(silent)?,
        };
        if self
            .applied
            .as_ref()
            .is_some_and(|applied| applied.version != version)
        {
            self.given = None;
        }
        self.record(changed).await?;
        self.keep(given).await?;
        let same = |applied: &Table| applied.version == version && table(version, &served) == *applied;
        if self.applied.as_ref().is_some_and(same) {
            return Ok(());
        }
        let next = table(version + 1, &served);
        // What the edge has of this task is changed; anything else is replaced.
        let applied = match self.applied.as_ref().filter(|applied| applied.version == version) {
            Some(applied) => self.edge.change(&applied.delta(&next)).await,
            None => self.edge.apply(&next).await,
        };
        if let Err(error) = applied {
            // Ask for the version next time: the edge may have been given another table meanwhile.
            self.applied = None;
            return Err(silent(error));
        }
        info!(
            version = next.version,
            rules = next.rules.len(),
            "the edge serves table {}",
            next.version
        );
        self.applied = Some(next);
        Ok(())
    }

    /// Has the edge hold what the table needs, before it has the table.
    async fn keep(&mut self, given: edge::Given) -> Result<(), Fault> {
        if self.given.as_ref() == Some(&given) {
            return Ok(());
        }
        let useless = self.edge.keep(&given).await.map_err(|error| {
            self.given = None;
            Fault::platform(format!("the edge does not hold certificates: {}", chain(&error)))
        })?;
        for edge::Useless { name, why } in useless {
            warn!("what the vault has for {name} cannot be used: {why}");
        }
        self.given = Some(given);
        Ok(())
    }

    /// Writes down whose names are and which steps have changed, before the edge has certificates and rules.
    async fn record(&mut self, changed: Changed) -> Result<(), Fault> {
        if changed.steps.is_empty() && changed.owners.is_none() {
            return Ok(());
        }
        let written = self.store.write(move |tx| {
            if let Some(owners) = &changed.owners {
                tx.set_owners(owners)?;
            }
            for (place, steps) in &changed.steps {
                // It may have been destroyed since.
                if tx.find_environment(place)?.is_some() {
                    tx.set_steps(place, steps)?;
                }
            }
            Ok::<_, store::Error>(())
        });
        written.await.map_err(stored)
    }

    async fn served(&self) -> Result<(Vec<Served>, edge::Given, Changed), Fault> {
        let platform = self.platform.clone();
        let served = self.store.read(move |db| {
            let (served, changed) = read(db, &platform)?;
            let given = vault::given(db, &served)?;
            Ok((served, given, changed))
        });
        served.await.map_err(stored)
    }
}

/// All environments, as the rows say.
fn read(db: &Db<'_>, platform: &Platform) -> Result<(Vec<Served>, Changed), store::Error> {
    let hosts = db.standing_hosts(None)?;
    let mut moves = away::all(db)?;
    let (mut changed, mut claims) = (Changed::default(), Vec::new());
    let served = |environment: store::Environment| {
        let named = rows::named(db, &environment, platform)?;
        let fleets = rows::fleets(db, &environment, &hosts)?;
        let before = db.steps(&environment.place)?;
        let steps = rules::steps(&before, named.rules(&fleets));
        if steps != before {
            changed.steps.push((environment.place.clone(), steps.clone()));
        }
        claims.push(Claim {
            place: environment.place.clone(),
            number: environment.number,
            names: named.asked,
        });
        Ok(Served {
            hostnames: platform.hostnames(&environment.place),
            owns: BTreeSet::new(),
            steps,
            domains: named.domains,
            authenticate: named.authenticate,
            access: rows::access(db, &environment.place, named.access)?,
            closed: db.closure(&environment.place)?,
            apps: platform.listen.of_apps(),
            fleets,
            number: environment.number,
            created_at: environment.created_at,
            live: environment.live,
            asleep: environment.asleep_at.is_some(),
            arriving: environment.arriving,
            away: moves.remove(&environment.place),
            place: environment.place,
        })
    };
    let environments = db.environments(None)?.into_iter().map(served);
    let mut served = environments.collect::<Result<Vec<_>, store::Error>>()?;
    let before = db.owners()?;
    let owners = owners::owners(db, &before, &claims, crate::clock::now())?;
    for (served, claim) in served.iter_mut().zip(claims) {
        let own = |name: &String| owners.get(name).is_some_and(|owner| owner.place == served.place);
        served.owns = claim.names.into_iter().filter(own).collect();
    }
    changed.owners = Some(owners).filter(|owners| *owners != before);
    Ok((served, changed))
}

#[cfg(test)]
mod tests;
