//! Where hosts may stand beside a region's own zones: how that is said, and what is refused there.

mod fact;
pub(super) mod outpost;

use serde::{Deserialize, Serialize};

use super::{
    Error,
    config::Network,
    word::{Arn, Region},
};
use fact::{FACTS, Place};

pub(super) use fact::Wanted;
pub(super) use outpost::outposts;
pub use outpost::{Outpost, Volume};

/// A region's own zones, unless one of these is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// A Local Zone, such as `us-west-2-lax-1a`: one of the foundation's `network.local_zones`.
    pub local_zone: Option<String>,
    /// A Wavelength Zone, such as `eu-central-1-wl1-ber-wlz-1`.
    pub wavelength: Option<String>,
    /// The ARN of an Outpost: one of the foundation's `network.outposts`.
    pub outpost: Option<Arn>,
}

/// Local Zones of one foundation: so many parts the network has for them.
pub(super) const MAX_LOCAL: usize = 4;
/// The same of Wavelength Zones.
const MAX_WAVES: usize = 4;

/// Refuses machines of a customer's own: they dial a platform, and there is none.
pub(super) fn registered(at: &str, own: &model::spec::Environment) -> Result<(), Error> {
    match own.placement {
        None => Ok(()),
        Some(_) => {
            let why = "registered machines dial the platform that they were joined to, so its own engine deploys to them, not AWS";
            Err(Error::config(at, why.to_owned()))
        }
    }
}

/// Refuses Local Zones that are none of the region, and one that is named twice.
pub(super) fn zones(at: &str, region: &Region, zones: &[String]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::config(at, why));
    if zones.len() > MAX_LOCAL {
        return refuse(format!("a foundation has room for {MAX_LOCAL} Local Zones"));
    }
    for (n, zone) in zones.iter().enumerate() {
        let rest = zone
            .strip_prefix(region.as_str())
            .and_then(|rest| rest.strip_prefix('-'));
        let is_zone = |rest: &str| {
            let is_part = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            };
            rest.len() <= 20 && rest.split('-').count() == 2 && rest.split('-').all(is_part)
        };
        if !rest.is_some_and(is_zone) {
            return refuse(format!(
                "`{zone}` is no Local Zone of {region}, such as `{region}-xyz-1a`"
            ));
        }
        if zones[..n].contains(zone) {
            return refuse(format!("`{zone}` is named twice"));
        }
    }
    Ok(())
}

/// Refuses Wavelength Zones that are none of the region, and one that is named twice.
pub(super) fn waves(at: &str, region: &Region, zones: &[String]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::config(at, why));
    if zones.len() > MAX_WAVES {
        return refuse(format!("a foundation has room for {MAX_WAVES} Wavelength Zones"));
    }
    let number = |text: &str, before: &str| {
        let rest = text.strip_prefix(before);
        rest.is_some_and(|rest| {
            !rest.is_empty() && rest.len() < 4 && rest.bytes().all(|b| b.is_ascii_digit())
        })
    };
    for (n, zone) in zones.iter().enumerate() {
        let rest = zone
            .strip_prefix(region.as_str())
            .and_then(|rest| rest.strip_prefix('-'));
        let parts: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('-')).collect();
        let is_zone = matches!(parts.as_slice(), [group, place, "wlz", last]
            if number(group, "wl") && number(last, "") && place.len() == 3 && place.bytes().all(|b| b.is_ascii_lowercase()));
        if !is_zone {
            return refuse(format!(
                "`{zone}` is no Wavelength Zone of {region}, such as `{region}-wl1-xyz-wlz-1`"
            ));
        }
        if zones[..n].contains(zone) {
            return refuse(format!("`{zone}` is named twice"));
        }
    }
    Ok(())
}

impl Placement {
    /// Says which service an environment wants that is not there: nothing is placed elsewhere than it was asked for.
    pub(super) fn check(&self, at: &str, wanted: &Wanted<'_>, network: &Network) -> Result<(), Error> {
        let refuse = |key: &str, why: String| Err(Error::config(format!("{at}.placement.{key}"), why));
        let named = [
            (Place::LocalZone, self.local_zone.is_some()),
            (Place::Wavelength, self.wavelength.is_some()),
            (Place::Outpost, self.outpost.is_some()),
        ];
        let mut named = named.iter().filter(|(_, named)| *named).map(|(place, _)| *place);
        let Some(place) = named.next() else {
            return Ok(());
        };
        if let Some(other) = named.next() {
            let why = format!(
                "`{}` is named too: an environment stands in one place",
                place.key()
            );
            return refuse(other.key(), why);
        }
        let wants = wanted.all();
        let mut facts = FACTS.iter().filter(|fact| fact.place == place);
        if let Some(fact) = facts.find(|fact| wants.contains(&fact.want)) {
            return refuse(place.key(), fact.why.to_owned());
        }
        for (place, zone, known, key) in [
            (
                Place::LocalZone,
                &self.local_zone,
                &network.local_zones,
                "local_zones",
            ),
            (
                Place::Wavelength,
                &self.wavelength,
                &network.wavelength_zones,
                "wavelength_zones",
            ),
        ] {
            if let Some(zone) = zone.as_ref().filter(|zone| !known.contains(zone)) {
                let why = format!("`{zone}` is none of the foundation's: add it to `network.{key}` there");
                return refuse(place.key(), why);
            }
        }
        let Some(arn) = &self.outpost else {
            return Ok(());
        };
        let Some(outpost) = network.outpost(arn) else {
            let why = format!("`{arn}` is none of the foundation's: add it to `network.outposts` there");
            return refuse(place.key(), why);
        };
        match outpost.lacks(wanted) {
            Some(why) => refuse(place.key(), why),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
