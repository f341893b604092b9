//! Whose each domain and each port is: who has one keeps it for as long as a release that is live, or arrives, asks for it.
//!
//! The numbers of environments say nothing about it. They are given again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{Place, spec};
use store::{Db, Owner};

use super::rules::label;

/// What one environment asks for.
pub struct Claim {
    pub place: Place,
    /// The environment's number on the platform.
    pub number: u32,
    /// Domains, and ports as `udp-5514`.
    pub names: BTreeSet<String>,
}

/// Domains and ports of a release.
pub fn names(spec: &spec::Environment) -> impl Iterator<Item = String> {
    let domains = spec.domains.iter().map(|domain| domain.host.clone());
    domains.chain(spec.listeners.iter().map(label))
}

/// Whose each name is, after it was as `before`: what nobody has goes to the environment whose live releases have asked for
/// it longest, and to one in which it only arrives after all those.
pub fn owners(
    db: &Db<'_>,
    before: &BTreeMap<String, Owner>,
    claims: &[Claim],
    now: Timestamp,
) -> Result<BTreeMap<String, Owner>, store::Error> {
    let mut claimants: BTreeMap<&String, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        for name in &claim.names {
            claimants.entry(name).or_default().push(claim);
        }
    }
    let mut owners = BTreeMap::new();
    for (name, claimants) in claimants {
        let has = |owner: &&Owner| claimants.iter().any(|claim| claim.place == owner.place);
        let owner = match before.get(name).filter(has) {
            Some(owner) => owner.clone(),
            None => Owner {
                place: longest(db, name, &claimants)?,
                since: now,
            },
        };
        owners.insert(name.clone(), owner);
    }
    Ok(owners)
}

/// Who of them, one at least, has asked for it longest; of two at the same moment, the one with the smaller number.
fn longest(db: &Db<'_>, name: &str, claimants: &[&Claim]) -> Result<Place, store::Error> {
    let mut asked = Vec::with_capacity(claimants.len());
    for claim in claimants {
        // Who is alone need not be looked up.
        let since = match claimants.len() {
            1 => None,
            _ => db.named_since(&claim.place, &|spec| names(spec).any(|own| own == name))?,
        };
        asked.push(((since.is_none(), since, claim.number), &claim.place));
    }
    let first = asked.into_iter().min_by_key(|(order, _)| *order);
    let (_, place) = first.expect("somebody asks for it");
    Ok(place.clone())
}
