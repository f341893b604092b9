//! What rows say of one environment.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use model::{
    Place,
    port::HostRole,
    route::{Access, Authenticate, Listens},
    spec,
};
use store::{Db, HostState};

use super::{Fleet, owners, rules::label};
use crate::config::{Dedicated, Platform};

/// What the live release asks for.
#[derive(Default)]
pub struct Named {
    /// Names that it may have, with what listens for each alone.
    pub domains: Vec<(spec::Domain, Vec<Listens>)>,
    pub authenticate: Option<Box<Authenticate>>,
    pub access: Access,
    /// Domains that it may have, and ports, with those of a release that arrives.
    pub asked: BTreeSet<String>,
    ports: Vec<String>,
}

impl Named {
    /// All that has a rule beside that of the environment's own names, also while another release arrives.
    pub fn rules(&self, fleets: &BTreeMap<u64, Fleet>) -> Vec<String> {
        let domains = self.domains.iter().map(|(domain, _)| domain.host.clone());
        let others = fleets.values().flat_map(|fleet| fleet.ports.iter().map(label));
        domains.chain(self.ports.iter().cloned()).chain(others).collect()
    }
}

/// Who may ask: those whom the tenant's list and the environment's let in.
pub fn access(db: &Db<'_>, place: &Place, own: Access) -> Result<Vec<Access>, store::Error> {
    let lists = [db.tenant(&place.tenant)?.access, own];
    Ok(lists.into_iter().filter(|access| !access.is_empty()).collect())
}

pub fn named(
    db: &Db<'_>,
    environment: &store::Environment,
    platform: &Platform,
) -> Result<Named, store::Error> {
    let mut asked = BTreeSet::new();
    let mut spec_of = |release: u64| {
        let spec = db.release(&environment.place, release)?.content.spec;
        asked.extend(owners::names(&spec).filter(|name| !platform.owns(name)));
        Ok::<_, store::Error>(spec)
    };
    if let Some(arriving) = environment.arriving {
        spec_of(arriving.release)?;
    }
    let live = environment.live.map(spec_of).transpose()?;
    let Some(spec) = live else {
        return Ok(Named {
            asked,
            ..Named::default()
        });
    };
    let free = spec
        .domains
        .into_iter()
        .filter(|domain| !platform.owns(&domain.host));
    let listening = free.map(|domain| {
        let listeners = listeners(platform, &domain);
        (domain, listeners)
    });
    Ok(Named {
        domains: listening.collect(),
        authenticate: spec.authenticate,
        access: spec.access,
        asked,
        ports: spec.listeners.iter().map(label).collect(),
    })
}

/// What listens for a domain alone.
pub fn listeners(platform: &Platform, domain: &spec::Domain) -> Vec<Listens> {
    let own = platform.listen.dedicated.get(&domain.host);
    let own = own.filter(|_| domain.dedicated_balancer);
    own.map(Dedicated::listeners).unwrap_or_default()
}

/// Hosts by release.
pub fn fleets(
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
