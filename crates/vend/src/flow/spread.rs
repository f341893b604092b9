//! Which releases lie on an environment's machines: a deployment that failed leaves its own on those that it reached, and
//! a machine that joined later has none yet.

use std::collections::BTreeMap;

use model::Place;
use store::{Db, Error};

/// An environment's machines, by what they have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Spread {
    pub live: Option<u64>,
    /// All of them, those that the next deployment takes included.
    pub machines: usize,
    /// How many have another release than the live one, by its number.
    pub others: BTreeMap<u64, usize>,
    /// How many have none.
    pub bare: usize,
}

/// Absent for an environment whose release is for hosts of the platform.
pub fn of(db: &Db<'_>, place: &Place) -> Result<Option<Spread>, Error> {
    let environment = db.environment(place)?;
    let spec = match environment.live {
        Some(live) => Some(db.release(place, live)?.content.spec),
        None => environment.spec,
    };
    let Some(placement) = spec.and_then(|spec| spec.placement) else {
        return Ok(None);
    };
    let mut machines = db.machines(Some(&place.tenant))?;
    // One that it had under other labels is about to be given back.
    machines.retain(|machine| {
        let is_own = machine.place.as_ref().is_none_or(|own| own == place);
        !machine.leaving && is_own && machine.fits(&placement.registered)
    });
    let releases = machines.iter().map(|machine| machine.release);
    Ok(Some(Spread::count(environment.live, releases)))
}

impl Spread {
    fn count(live: Option<u64>, releases: impl Iterator<Item = Option<u64>>) -> Self {
        let mut spread = Self {
            live,
            ..Self::default()
        };
        for release in releases {
            spread.machines += 1;
            match release {
                None => spread.bare += 1,
                Some(number) if Some(number) != live => *spread.others.entry(number).or_default() += 1,
                Some(_) => {}
            }
        }
        spread
    }

    /// Does any machine lack the live release?
    pub fn is_torn(&self) -> bool {
        self.live.is_some() && (self.bare > 0 || !self.others.is_empty())
    }

    /// `2 of 3 machines have v2`; empty where all have the live release.
    pub fn sentence(&self) -> String {
        let have = |count: usize| if count == 1 { "has" } else { "have" };
        let releases = self.others.iter();
        let mut parts: Vec<(usize, String)> = releases
            .map(|(number, count)| (*count, format!("v{number}")))
            .collect();
        if self.bare > 0 {
            parts.push((self.bare, "no release yet".into()));
        }
        let many = if self.machines == 1 { "" } else { "s" };
        let of = format!(" of {} machine{many}", self.machines);
        let parts: Vec<String> = parts
            .iter()
            .enumerate()
            .map(|(at, (count, what))| {
                let of = if at == 0 { of.as_str() } else { "" };
                format!("{count}{of} {} {what}", have(*count))
            })
            .collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_machines_have_is_said() {
        for (live, releases, torn, sentence) in [
            (Some(1), &[Some(1), Some(1)][..], false, ""),
            (Some(1), &[Some(2), Some(2)], true, "2 of 2 machines have v2"),
            (
                Some(3),
                &[Some(3), Some(2), None],
                true,
                "1 of 3 machines has v2, 1 has no release yet",
            ),
            (Some(1), &[None], true, "1 of 1 machine has no release yet"),
            (None, &[Some(1)], false, "1 of 1 machine has v1"),
            (Some(1), &[], false, ""),
        ] {
            let spread = Spread::count(live, releases.iter().copied());
            assert_eq!(
                (spread.is_torn(), spread.sentence().as_str()),
                (torn, sentence),
                "{releases:?}"
            );
        }
    }
}
