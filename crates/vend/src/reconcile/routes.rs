//! The route table, computed from the catalogue.
//!
//! Pure: what is served where follows from rows alone, so that the same table comes out after every restart, and a
//! change of route is nothing but a change of rows. One task computes and sends it; whoever changed rows asks that
//! task and waits for the edge's word.

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
        Action, Conditions, HealthCheck, Listens, Own, Rule, Speaks, Table, Target, TargetGroup, Transforms,
        Weighted,
    },
    spec::{self, Certificate, Leads, Transport},
};
use store::{Db, HostState, Store};
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
    /// Where ports of apps are.
    pub apps: IpAddr,
    /// The release that gets the traffic.
    pub live: Option<u64>,
    /// Hosts that take, or may soon take, or lately took traffic, by release.
    pub fleets: BTreeMap<u64, Fleet>,
}

/// The hosts of one release, probed and reached as that release says: going back restores port and health check too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    pub spec: spec::Host,
    pub ports: Vec<spec::Port>,
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
    let mut oldest_first: Vec<&Served> = environments.iter().collect();
    oldest_first.sort_by_key(|served| served.number);
    let mut taken = BTreeSet::new();
    for served in oldest_first {
        for (release, fleet) in &served.fleets {
            let name = group(&served.place, *release);
            for port in &fleet.ports {
                let group = port_group(fleet, port);
                table
                    .target_groups
                    .insert(format!("{name}/{}", label(port)), group);
            }
            table.target_groups.insert(name, target_group(fleet));
        }
        table.rules.extend(rules(served, &mut taken));
    }
    table.rules.sort_by_key(|rule| rule.priority);
    table
}

/// Bits of the number of an environment in a priority. Rules of its domains and ports come after those of all
/// environments' own names, which they can thus not take.
const STEP: u32 = 24;

/// `udp-5514`
fn label(port: &spec::Port) -> String {
    format!("{}-{}", port.protocol, port.port)
}

/// The rule of the environment's own names, of each domain that nobody has `taken`, and of each port.
fn rules(served: &Served, taken: &mut BTreeSet<String>) -> Vec<Rule> {
    let own = Rule {
        priority: served.number + 1,
        place: served.place.clone(),
        hosts: served.hostnames.clone(),
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        action: action(served, ""),
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
    let live = served.live.and_then(|release| served.fleets.get(&release));
    let ports = live.into_iter().flat_map(|fleet| &fleet.ports).map(|port| Rule {
        hosts: vec![format!("{}.{}", label(port), served.hostnames[0])],
        action: action(served, &label(port)),
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
fn action(served: &Served, port: &str) -> Action {
    let has = |fleet: &Fleet| port.is_empty() || fleet.ports.iter().any(|own| label(own) == port);
    let live = served.live.filter(|release| served.fleets.contains_key(release));
    let weighted = |(release, _): (&u64, &Fleet)| {
        let name = group(&served.place, *release);
        Weighted {
            group: if port.is_empty() {
                name
            } else {
                format!("{name}/{port}")
            },
            weight: if Some(*release) == live { 100 } else { 0 },
        }
    };
    match live {
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
            body: format!("{} has no release yet\n", served.place),
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
                    hostnames: platform.hostnames(&environment.place),
                    domains: domains(db, &environment, &platform)?,
                    apps: platform.listen.of_apps(),
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

/// Names that the live release asks for and may have.
fn domains(
    db: &Db<'_>,
    environment: &store::Environment,
    platform: &Platform,
) -> Result<Vec<(spec::Domain, Vec<Listens>)>, store::Error> {
    let Some(live) = environment.live else {
        return Ok(Vec::new());
    };
    let wanted = db.release(&environment.place, live)?.content.spec.domains;
    let free = wanted.into_iter().filter(|domain| !platform.owns(&domain.host));
    let listening = free.map(|domain| {
        let own = platform.listen.dedicated.get(&domain.host);
        let listeners = own.filter(|_| domain.dedicated_balancer);
        let listeners = listeners.map(Dedicated::listeners).unwrap_or_default();
        (domain, listeners)
    });
    Ok(listening.collect())
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
                    let spec = db.release(place, release)?.content.spec;
                    new.insert(Fleet {
                        spec: spec.host,
                        ports: spec.listeners,
                        hosts: Vec::new(),
                    })
                }
            };
            fleet.hosts.push((host.id.clone(), host.address));
        }
    }
    Ok(fleets)
}

#[cfg(test)]
mod tests {
    use model::spec::App;

    use super::*;

    /// An environment with these keys, its first release live, on one host.
    fn served(place: &str, number: u32, keys: &str) -> Served {
        let text = format!("app: shop\n{keys}\n");
        let there = |path: &camino::Utf8Path| path == "Procfile";
        let (app, _) = App::parse(&text, "vend.yaml", &there).unwrap();
        let environment = app.environments.into_iter().next().unwrap();
        let place: Place = place.parse().unwrap();
        let platform = Platform::default();
        let fleet = |n: u8| Fleet {
            spec: environment.host.clone(),
            ports: environment.listeners.clone(),
            hosts: vec![(HostId::from_bits(n.into()), Ipv4Addr::new(10, 64, 0, n))],
        };
        Served {
            hostnames: platform.hostnames(&place),
            domains: environment
                .domains
                .iter()
                .map(|domain| (domain.clone(), Vec::new()))
                .collect(),
            apps: platform.listen.of_apps(),
            live: Some(2),
            fleets: BTreeMap::from([(1, fleet(1)), (2, fleet(2))]),
            place,
            number,
        }
    }

    const KEYS: &str = "listeners: [{ protocol: udp, port: 5514, host_port: 514, name: hosts }]
domains: [{ host: first.example.com }, { host: shop.example.com, certificate: acme }]";

    #[test]
    fn ports_and_domains_have_rules_of_their_own() {
        let table = table(7, &[served("acme/shop/production", 3, KEYS)]);
        table.check().unwrap();
        let hosts: Vec<_> = table.rules.iter().map(|rule| rule.hosts.join(" ")).collect();
        let own = "production.shop.acme.localhost";
        assert_eq!(
            hosts,
            [
                format!("{own} shop.acme.localhost"),
                "first.example.com".into(),
                "shop.example.com".into(),
                format!("udp-5514.{own}")
            ]
        );
        assert!(table.rules[2].own.acme && table.rules[2].action == table.rules[0].action);
        let port = &table.rules[3];
        assert_eq!(port.own.listeners[0].address, "127.0.0.1:5514".parse().unwrap());
        let Action::Forward { groups, .. } = &port.action else {
            panic!("{port:?}")
        };
        let weights: Vec<_> = groups
            .iter()
            .map(|group| (group.group.as_str(), group.weight))
            .collect();
        assert_eq!(
            weights,
            [
                ("acme/shop/production/v1/udp-5514", 0),
                ("acme/shop/production/v2/udp-5514", 100)
            ]
        );
        let group = &table.target_groups["acme/shop/production/v2/udp-5514"];
        assert_eq!(group.targets[0].address, "10.64.0.2:514".parse().unwrap());
        assert_eq!(
            (group.health.port, group.direct),
            (Some(8080), Some(SignedDuration::from_secs(10)))
        );
    }

    #[test]
    fn the_first_environment_keeps_a_domain_and_nobody_gets_anothers_name() {
        let thief = "domains: [{ host: shop.example.com }, { host: other.example.com }]";
        let table = table(
            7,
            &[
                served("evil/shop/production", 4, thief),
                served("acme/shop/production", 3, KEYS),
            ],
        );
        table.check().unwrap();
        let with = |host: &str| {
            let mut rules = table.rules.iter().filter(|rule| rule.hosts == [host]);
            let place = rules.next().map(|rule| rule.place.to_string());
            assert!(rules.next().is_none(), "one rule has {host}");
            place
        };
        assert_eq!(with("shop.example.com").as_deref(), Some("acme/shop/production"));
        assert_eq!(with("other.example.com").as_deref(), Some("evil/shop/production"));
        let own = table.rules.iter().position(|rule| rule.hosts.len() == 2);
        assert_eq!(own, Some(0), "environments' own names come first");
    }
}
