//! What became of the names that an environment asks for, as its own people are told it: tenants are not shown each other.

use jiff::Timestamp;
use model::{Place, route::Listens, spec};
use store::Db;

use super::{
    rows,
    rules::{self, label},
};
use crate::config::Platform;

/// A name that an environment asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// A domain, or a port as `udp-5514`.
    pub name: String,
    /// Where it alone is to be had.
    pub listeners: Vec<Listens>,
    /// Since when it is the environment's.
    pub since: Option<Timestamp>,
    /// Why it does not lead to the environment.
    pub problem: Option<&'static str>,
}

const ANOTHERS: &str =
    "another environment of the platform had it first, and keeps it for as long as it asks for it";
const PLATFORMS: &str = "it is the platform's own, or a name below one that is";

/// All that the live release of an environment asks for, and one that arrives.
pub fn asked(
    db: &Db<'_>,
    platform: &Platform,
    environment: &store::Environment,
) -> Result<Vec<Asked>, store::Error> {
    let arriving = environment.arriving.map(|own| own.release);
    let mut all: Vec<Asked> = Vec::new();
    for release in [environment.live, arriving].into_iter().flatten() {
        let spec = db.release(&environment.place, release)?.content.spec;
        for own in of_spec(db, platform, &environment.place, &spec)? {
            if !all.iter().any(|other| other.name == own.name) {
                all.push(own);
            }
        }
    }
    Ok(all)
}

/// All that a release of this environment asks for, or would ask for.
pub fn of_spec(
    db: &Db<'_>,
    platform: &Platform,
    place: &Place,
    spec: &spec::Environment,
) -> Result<Vec<Asked>, store::Error> {
    let domains = spec.domains.iter();
    let domains = domains.map(|domain| (domain.host.clone(), rows::listeners(platform, domain)));
    let apps = platform.listen.of_apps();
    let ports = spec.listeners.iter();
    let ports = ports.map(|port| (label(port), vec![rules::listens(apps, port)]));
    let told = |(name, listeners): (String, Vec<Listens>)| {
        let (since, problem) = match db.owner(&name)? {
            _ if platform.owns(&name) => (None, Some(PLATFORMS)),
            Some(owner) if owner.place == *place => (Some(owner.since), None),
            Some(_) => (None, Some(ANOTHERS)),
            None => (None, None),
        };
        Ok(Asked {
            name,
            listeners,
            since,
            problem,
        })
    };
    domains.chain(ports).map(told).collect()
}
