//! Rules of one environment: of its own names, its domains and its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use model::{
    route::{Action, Conditions, Listens, Own, Rule, Speaks, Transforms, Weighted},
    spec::{self, Certificate, Transport},
};

use super::{Fleet, Served, group, vault};

/// Bits of the number of an environment in a priority. Rules of its domains and ports come after those of all
/// environments' own names, which they can thus not take.
const STEP: u32 = 24;

/// Steps that an environment has.
const STEPS: std::ops::RangeInclusive<u32> = 1..=255;

/// The steps of the rules with these names: a rule keeps its own, and a new one gets the first that is free.
pub fn steps(before: &BTreeMap<String, u32>, names: Vec<String>) -> BTreeMap<String, u32> {
    let kept = names
        .iter()
        .filter_map(|name| Some((name.clone(), *before.get(name)?)));
    let mut steps: BTreeMap<String, u32> = kept.collect();
    for name in names {
        let taken: BTreeSet<u32> = steps.values().copied().collect();
        // A release has fewer domains and ports than there are steps; two releases together have too.
        if let (false, Some(free)) = (
            steps.contains_key(&name),
            STEPS.clone().find(|step| !taken.contains(step)),
        ) {
            steps.insert(name, free);
        }
    }
    steps
}

/// `udp-5514`
pub fn label(port: &spec::Port) -> String {
    format!("{}-{}", port.protocol, port.port)
}

/// Where the load balancer has a port of an app, when those are at the address `apps`.
pub fn listens(apps: IpAddr, port: &spec::Port) -> Listens {
    Listens {
        address: SocketAddr::from((apps, port.port)),
        speaks: match port.protocol {
            Transport::Tcp => Speaks::Tcp,
            Transport::Udp => Speaks::Udp { idle: port.idle },
        },
    }
}

/// What visitors get in the place of an app that is closed.
fn closed(served: &Served) -> Option<Action> {
    let closure = served.closed.as_ref()?;
    let (content_type, body) = match &closure.page {
        Some(page) => ("text/html; charset=utf-8", page.clone()),
        None => ("text/plain; charset=utf-8", "closed for maintenance\n".to_owned()),
    };
    Some(Action::FixedResponse {
        status: 503,
        content_type: content_type.into(),
        body,
    })
}

/// The rule of the environment's own names, and of each domain and each port that it owns.
pub fn rules(served: &Served, weights: &BTreeMap<u64, u32>) -> Vec<Rule> {
    let own = Rule {
        priority: served.number + 1,
        place: served.place.clone(),
        hosts: served.hostnames.clone(),
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        access: served.access.clone(),
        // Who is told that it is closed need not sign in for it.
        authenticate: served
            .authenticate
            .as_ref()
            .filter(|_| served.closed.is_none())
            .map(|login| vault::login(served, login)),
        action: action(served, weights, ""),
        own: Own::default(),
    };
    let priority = |name: &str| {
        let step = served.steps.get(name).filter(|_| served.owns.contains(name))?;
        Some((step << STEP) + own.priority)
    };
    let domains = served.domains.iter().filter_map(|(domain, listeners)| {
        Some(Rule {
            priority: priority(&domain.host)?,
            hosts: vec![domain.host.clone()],
            own: Own {
                listeners: listeners.clone(),
                acme: domain.certificate == Certificate::Acme,
            },
            ..own.clone()
        })
    });
    // In place, the last hosts of the live release may be out while others come: their sockets must stay open.
    let arriving = served.arriving.map(|own| own.release);
    let either = [served.live, arriving].into_iter().flatten();
    let shown = either.filter_map(|release| served.fleets.get(&release)).next();
    let ports = shown.into_iter().flat_map(|fleet| &fleet.ports);
    let ports = ports.filter_map(|port| {
        Some(Rule {
            priority: priority(&label(port))?,
            hosts: vec![format!("{}.{}", label(port), served.hostnames[0])],
            action: action(served, weights, &label(port)),
            // Bytes cannot sign in.
            authenticate: None,
            own: Own {
                listeners: vec![listens(served.apps, port)],
                acme: false,
            },
            ..own.clone()
        })
    });
    let others: Vec<Rule> = domains.chain(ports).collect();
    [own].into_iter().chain(others).collect()
}

/// To the fleets by weight; of those that have the port, when it is one of a port.
fn action(served: &Served, weights: &BTreeMap<u64, u32>, port: &str) -> Action {
    if let Some(action) = closed(served) {
        return action;
    }
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
