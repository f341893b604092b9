//! The route table, computed from the catalogue.
//!
//! Pure: what is served where follows from rows alone, so that the same table comes out after every restart, and a
//! change of route is nothing but a change of rows. One task computes and sends it; whoever changed rows asks that
//! task and waits for the edge's word.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use jiff::SignedDuration;
use model::{
    HostId, Place,
    port::{Fault, HostRole},
    route::{Action, Conditions, HealthCheck, Rule, Table, Target, TargetGroup, Transforms, Weighted},
    spec,
};
use store::{Db, HostState, Store};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Platform,
    flow::{chain, stored},
};

/// What the table must know of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub place: Place,
    /// The environment's number on the platform: its rule's priority, kept as long as it lives.
    pub number: u32,
    pub hostname: String,
    /// The release that gets the traffic.
    pub live: Option<u64>,
    /// Hosts that take, or may soon take, or lately took traffic, by release.
    pub fleets: BTreeMap<u64, Fleet>,
}

/// The hosts of one release, probed and reached as that release says: going back restores port and health check too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    pub spec: spec::Host,
    pub hosts: Vec<(HostId, Ipv4Addr)>,
}

/// How long requests under way may go on after their host has left the table.
pub const DEREGISTRATION_DELAY: SignedDuration = SignedDuration::from_secs(30);

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
        for (release, fleet) in &served.fleets {
            table
                .target_groups
                .insert(group(&served.place, *release), target_group(fleet));
        }
        table.rules.push(rule(served));
    }
    table.rules.sort_by_key(|rule| rule.priority);
    table
}

fn rule(served: &Served) -> Rule {
    let live = served.live.filter(|release| served.fleets.contains_key(release));
    let weighted = |release: &u64| Weighted {
        group: group(&served.place, *release),
        weight: if Some(*release) == live { 100 } else { 0 },
    };
    let action = match live {
        Some(_) => Action::Forward {
            groups: served.fleets.keys().map(weighted).collect(),
            stickiness: None,
        },
        None => Action::FixedResponse {
            status: 503,
            content_type: "text/plain; charset=utf-8".into(),
            body: match served.live {
                Some(_) => format!("no host of {} serves here\n", served.place),
                None => format!("{} has no release yet\n", served.place),
            },
        },
    };
    Rule {
        priority: served.number + 1,
        place: served.place.clone(),
        hosts: vec![served.hostname.clone()],
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        action,
    }
}

fn target_group(fleet: &Fleet) -> TargetGroup {
    let health = &fleet.spec.health;
    TargetGroup {
        targets: fleet
            .hosts
            .iter()
            .map(|(host, address)| Target {
                id: host.to_string(),
                address: SocketAddr::from((*address, fleet.spec.port)),
            })
            .collect(),
        health: HealthCheck {
            path: health.path.clone(),
            interval: health.interval,
            timeout: health.timeout,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
            codes: health.codes.clone(),
            ..HealthCheck::default()
        },
        deregistration_delay: DEREGISTRATION_DELAY,
        ..TargetGroup::default()
    }
}

/// Rows change without anybody asking when the edge lost its table, or a row was changed by hand.
const EVERY: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<(), Fault>>;

/// Asks for the table to be computed and applied now.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Answer>);

impl Handle {
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
        let served = self.served().await?;
        let silent = |error: edge::ClientError| {
            Fault::platform(format!("the edge does not answer: {}", chain(&error)))
        };
        let version = match (&self.applied, check) {
            (Some(applied), false) => applied.version,
            _ => self.edge.version().await.map_err(silent)?,
        };
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

    async fn served(&self) -> Result<Vec<Served>, Fault> {
        let platform = self.platform.clone();
        let served = self.store.read(move |db| {
            let hosts = db.standing_hosts(None)?;
            let served = |environment: store::Environment| {
                Ok(Served {
                    hostname: platform.hostname(&environment.place),
                    fleets: fleets(db, &environment.place, &hosts)?,
                    number: environment.number,
                    live: environment.live,
                    place: environment.place,
                })
            };
            db.environments(None)?
                .into_iter()
                .map(served)
                .collect::<Result<Vec<_>, store::Error>>()
        });
        served.await.map_err(stored)
    }
}

fn fleets(db: &Db<'_>, place: &Place, hosts: &[store::Host]) -> Result<BTreeMap<u64, Fleet>, store::Error> {
    let mut fleets: BTreeMap<u64, Fleet> = BTreeMap::new();
    for host in hosts
        .iter()
        .filter(|host| host.place == *place && host.role == HostRole::App)
    {
        if let (Some(release), HostState::Ready | HostState::Serving | HostState::Kept) =
            (host.release, host.state)
        {
            let fleet = match fleets.entry(release) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(new) => {
                    let spec = db.release(place, release)?.content.spec.host;
                    new.insert(Fleet {
                        spec,
                        hosts: Vec::new(),
                    })
                }
            };
            fleet.hosts.push((host.id.clone(), host.address));
        }
    }
    Ok(fleets)
}
