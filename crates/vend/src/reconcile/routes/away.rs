//! What goes to AWS of the requests for an environment that moves there. Pure, but for reading the rows.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use model::{
    Place,
    route::{Action, Target, TargetGroup, Weighted},
    spec,
};
use store::Db;

use super::{Fleet, Served, group, target_group};

/// HTTPS, which is all that the load balancers of the templates serve apps by.
const PORT: u16 = 443;

/// Where an environment is served beside here, or instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Away {
    /// The name of its load balancer.
    pub host: String,
    /// Percent of the requests.
    pub share: u32,
    /// Nobody is served.
    pub closed: bool,
    /// As the release says that moves: it is probed there as it is here.
    pub spec: spec::Host,
    pub drain: jiff::SignedDuration,
}

/// The name of the target group of what is elsewhere.
pub fn elsewhere(place: &Place) -> String {
    format!("{place}/aws")
}

/// All environments that move, or have moved.
pub fn all(db: &Db<'_>) -> Result<BTreeMap<Place, Away>, store::Error> {
    let away = |own: store::Move| {
        let spec = db.release(&own.place, own.release)?.content.spec;
        let away = Away {
            host: own.host,
            share: own.share,
            closed: own.closed,
            drain: spec.deploy.drain,
            spec: spec.host,
        };
        Ok((own.place, away))
    };
    db.moves()?.into_iter().map(away).collect()
}

impl Away {
    /// Percent of the requests that are served here.
    pub fn here(&self) -> u32 {
        100 - self.share.min(100)
    }

    pub fn group(&self) -> TargetGroup {
        let like = Fleet {
            // Who gets what there is decided by the load balancer there.
            spec: spec::Host {
                traffic: spec::Traffic::default(),
                ..self.spec.clone()
            },
            drain: self.drain,
            serving: 0,
            ports: Vec::new(),
            hosts: Vec::new(),
        };
        TargetGroup {
            // Its addresses are the name's, whatever they are at the time.
            targets: vec![Target {
                id: self.host.clone(),
                address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            }],
            away: Some(self.host.clone()),
            ..target_group(&like)
        }
    }

    /// What is done with a request. `None`: what would be done without a move; it is probed there, and gets nothing.
    pub fn action(&self, served: &Served, weights: &BTreeMap<u64, u32>) -> Option<Action> {
        if self.closed {
            return Some(Action::FixedResponse {
                status: 503,
                content_type: "text/plain; charset=utf-8".into(),
                body: format!(
                    "{} is being moved, and will be here again in a moment\n",
                    served.place
                ),
            });
        }
        if self.share == 0 {
            return None;
        }
        let fleets = served.fleets.keys().map(|release| Weighted {
            group: group(&served.place, *release),
            weight: weights.get(release).copied().unwrap_or(0),
        });
        let there = Weighted {
            group: elsewhere(&served.place),
            weight: self.share,
        };
        Some(Action::Forward {
            groups: fleets.chain([there]).collect(),
            stickiness: None,
        })
    }
}
