//! The route table, computed from the catalogue.
//!
//! Pure: what is served where follows from rows alone, so that the same table comes out after every restart, and a
//! change of route is nothing but a change of rows. One task computes and sends it; whoever changed rows asks that
//! task and waits for the edge's word.

mod away;
mod vault;

pub use away::{Away, elsewhere};

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use jiff::SignedDuration;
use model::{
    HostId, Place,
    port::{Fault, HostRole},
    route::{
        Action, Authenticate, Conditions, HealthCheck, Listens, Own, Rule, Speaks, Table, Target,
        TargetGroup, Transforms, Weighted,
    },
    spec::{self, Certificate, Leads, Transport},
};
use store::{Arriving, Db, HostState, Store};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Dedicated, Platform},
    flow::{chain, stored},
};

/// What the table must know of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub place: Place,
    /// The environment's number on the platform: its rule's priority, kept as long as it lives.
    pub number: u32,
    pub hostnames: Vec<String>,
    /// Domains of the live release, with what listens for each alone.
    pub domains: Vec<(spec::Domain, Vec<Listens>)>,
    /// Who must have signed in, as the live release says.
    pub authenticate: Option<Box<Authenticate>>,
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
    let mut oldest_first: Vec<&Served> = environments.iter().collect();
    oldest_first.sort_by_key(|served| served.number);
    let mut taken = BTreeSet::new();
    for served in oldest_first {
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
        table.rules.extend(rules(served, &weights, &mut taken));
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

/// Bits of the number of an environment in a priority. Rules of its domains and ports come after those of all
/// environments' own names, which they can thus not take.
const STEP: u32 = 24;

/// `udp-5514`
fn label(port: &spec::Port) -> String {
    format!("{}-{}", port.protocol, port.port)
}

/// The rule of the environment's own names, of each domain that nobody has `taken`, and of each port.
fn rules(served: &Served, weights: &BTreeMap<u64, u32>, taken: &mut BTreeSet<String>) -> Vec<Rule> {
    let own = Rule {
        priority: served.number + 1,
        place: served.place.clone(),
        hosts: served.hostnames.clone(),
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        authenticate: served
            .authenticate
            .as_ref()
            .map(|login| vault::login(&served.place, login)),
        action: action(served, weights, ""),
        own: Own::default(),
    };
    let free = served
        .domains
        .iter()
        .filter(|(domain, _)| taken.insert(domain.host.clone()));
    let domains = free.map(|(domain, listeners)| Rule {
        hosts: vec![domain.host.clone()],
        own: Own {
            listeners: listeners.clone(),
            acme: domain.certificate == Certificate::Acme,
        },
        ..own.clone()
    });
    // In place, the last hosts of the live release may be out while others come: their sockets must stay open.
    let arriving = served.arriving.map(|own| own.release);
    let either = [served.live, arriving].into_iter().flatten();
    let shown = either.filter_map(|release| served.fleets.get(&release)).next();
    let ports = shown.into_iter().flat_map(|fleet| &fleet.ports).map(|port| Rule {
        hosts: vec![format!("{}.{}", label(port), served.hostnames[0])],
        action: action(served, weights, &label(port)),
        // Bytes cannot sign in.
        authenticate: None,
        own: Own {
            listeners: vec![Listens {
                address: SocketAddr::from((served.apps, port.port)),
                speaks: match port.protocol {
                    Transport::Tcp => Speaks::Tcp,
                    Transport::Udp => Speaks::Udp { idle: port.idle },
                },
            }],
            acme: false,
        },
        ..own.clone()
    });
    let others = (1..).zip(domains.chain(ports)).map(|(n, rule)| Rule {
        priority: (n << STEP) + served.number + 1,
        ..rule
    });
    let others: Vec<Rule> = others.collect();
    [own].into_iter().chain(others).collect()
}

/// To the fleets by weight; of those that have the port, when it is one of a port.
fn action(served: &Served, weights: &BTreeMap<u64, u32>, port: &str) -> Action {
    if let Some(away) = served.away.as_ref().filter(|_| port.is_empty())
        && let Some(action) = away.action(served, weights)
    {
        return action;
    }
    let has = |fleet: &Fleet| port.is_empty() || fleet.ports.iter().any(|own| label(own) == port);
    let live = served.live.filter(|release| served.fleets.contains_key(release));
    let arriving = served.arriving.map(|own| own.release);
    let any = live.or(arriving.filter(|release| served.fleets.contains_key(release)));
    // When all are out, whoever comes back first is to get what waits.
    let all_out = weights.values().all(|weight| *weight == 0);
    let weighted = |(release, _): (&u64, &Fleet)| {
        let name = group(&served.place, *release);
        Weighted {
            group: if port.is_empty() {
                name
            } else {
                format!("{name}/{port}")
            },
            weight: match all_out && arriving == Some(*release) {
                true => 1,
                false => weights.get(release).copied().unwrap_or(0),
            },
        }
    };
    match any {
        Some(_) => Action::Forward {
            groups: served
                .fleets
                .iter()
                .filter(|(_, fleet)| has(fleet))
                .map(weighted)
                .collect(),
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
    }
}

/// The hosts at one of their ports. They are asked how they are where their HTTP is.
fn port_group(fleet: &Fleet, port: &spec::Port) -> TargetGroup {
    let mut group = target_group(fleet);
    group.health.port = Some(fleet.spec.port);
    for target in &mut group.targets {
        target.address.set_port(port.host_port);
    }
    group.direct = match port.leads {
        Leads::Balancer => None,
        Leads::Hosts { ttl } => Some(ttl),
    };
    group
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
        deregistration_delay: fleet.drain,
        ..TargetGroup::default()
    }
}

/// Rows change without anybody asking when the edge lost its table, or a row was changed by hand.
const EVERY: Duration = Duration::from_secs(5);

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
        let (served, given) = self.served().await?;
        let silent = |error: edge::ClientError| {
            Fault::platform(format!("the edge does not answer: {}", chain(&error)))
        };
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

    async fn served(&self) -> Result<(Vec<Served>, edge::Given), Fault> {
        let platform = self.platform.clone();
        let served = self.store.read(move |db| {
            let hosts = db.standing_hosts(None)?;
            let mut moves = away::all(db)?;
            let served = |environment: store::Environment| {
                let (domains, authenticate) = named(db, &environment, &platform)?;
                Ok(Served {
                    hostnames: platform.hostnames(&environment.place),
                    domains,
                    authenticate,
                    apps: platform.listen.of_apps(),
                    fleets: fleets(db, &environment, &hosts)?,
                    number: environment.number,
                    live: environment.live,
                    asleep: environment.asleep_at.is_some(),
                    arriving: environment.arriving,
                    away: moves.remove(&environment.place),
                    place: environment.place,
                })
            };
            let served = db
                .environments(None)?
                .into_iter()
                .map(served)
                .collect::<Result<Vec<_>, store::Error>>()?;
            let given = vault::given(db, &served)?;
            Ok((served, given))
        });
        served.await.map_err(stored)
    }
}

type Named = (Vec<(spec::Domain, Vec<Listens>)>, Option<Box<Authenticate>>);

/// Names that the live release asks for and may have, and who must have signed in there.
fn named(db: &Db<'_>, environment: &store::Environment, platform: &Platform) -> Result<Named, store::Error> {
    let Some(live) = environment.live else {
        return Ok((Vec::new(), None));
    };
    let spec = db.release(&environment.place, live)?.content.spec;
    let free = spec
        .domains
        .into_iter()
        .filter(|domain| !platform.owns(&domain.host));
    let listening = free.map(|domain| {
        let own = platform.listen.dedicated.get(&domain.host);
        let listeners = own.filter(|_| domain.dedicated_balancer);
        let listeners = listeners.map(Dedicated::listeners).unwrap_or_default();
        (domain, listeners)
    });
    Ok((listening.collect(), spec.authenticate))
}

fn fleets(
    db: &Db<'_>,
    environment: &store::Environment,
    hosts: &[store::Host],
) -> Result<BTreeMap<u64, Fleet>, store::Error> {
    let place = &environment.place;
    let mut fleets: BTreeMap<u64, Fleet> = BTreeMap::new();
    let empty = |release: u64| {
        let spec = db.release(place, release)?.content.spec;
        Ok::<_, store::Error>(Fleet {
            spec: spec.host,
            drain: spec.deploy.drain,
            serving: 0,
            ports: spec.listeners,
            hosts: Vec::new(),
        })
    };
    // What arrives, and what sleeps, has its group before its first host: when all hosts are out, requests wait there.
    let arriving = environment.arriving.map(|arriving| arriving.release);
    let asleep = environment.live.filter(|_| environment.asleep_at.is_some());
    for release in [arriving, asleep].into_iter().flatten() {
        fleets.insert(release, empty(release)?);
    }
    for host in hosts
        .iter()
        .filter(|host| host.place == *place && host.role == HostRole::App)
    {
        if let (Some(release), HostState::Ready | HostState::Serving | HostState::Kept) =
            (host.release, host.state)
        {
            let fleet = match fleets.entry(release) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(new) => new.insert(empty(release)?),
            };
            fleet.serving += u32::from(host.state == HostState::Serving);
            fleet.hosts.push((host.id.clone(), host.address));
        }
    }
    Ok(fleets)
}

#[cfg(test)]
mod tests;
