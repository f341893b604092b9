//! Which releases lie on an environment's machines: a deployment that failed leaves its own on those that it reached until
//! they go back, and a machine that joined later has none yet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{DeploymentId, ExecutionId, HostId, Place};
use store::{Db, Error, Machine};

use super::late::{self, Rule, Stand};

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
    /// How many have the live one, which failed there.
    pub ill: usize,
    /// How many keep something else until people say so.
    pub torn: usize,
    /// How many get the live one by themselves as soon as they are connected, for they have missed it.
    pub late: usize,
    /// How many get it back by themselves, for what came after it has failed.
    pub back: usize,
    /// The one to which it was tried most often to bring the live one.
    pub tried: Option<Tried>,
    /// What brings it just now.
    pub joining: Option<ExecutionId>,
}

/// A machine to which the live release could not be brought yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub machine: HostId,
    pub times: u32,
    /// Not before. `None`: not any more by itself.
    pub next: Option<Timestamp>,
    pub failure: Option<String>,
    pub deployment: Option<DeploymentId>,
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
    let rule = match environment.live {
        Some(live) => Some(Rule::read(db, place, live, &machines)?),
        None => None,
    };
    let stands = machines
        .iter()
        .map(|machine| (machine, rule.as_ref().map(|rule| rule.judge(machine))));
    let mut spread = Spread::count(environment.live, stands);
    for kind in late::KINDS {
        let open = db.open_execution(place, Some(kind))?;
        spread.joining = spread.joining.or(open.map(|own| own.id));
    }
    Ok(Some(spread))
}

impl Spread {
    /// How each machine stands, where a release is live.
    fn count<'m>(live: Option<u64>, machines: impl Iterator<Item = (&'m Machine, Option<Stand>)>) -> Self {
        let mut spread = Self {
            live,
            ..Self::default()
        };
        for (machine, stand) in machines {
            spread.machines += 1;
            match machine.release {
                None => spread.bare += 1,
                Some(number) if Some(number) != live => *spread.others.entry(number).or_default() += 1,
                Some(_) => spread.ill += usize::from(machine.failure.is_some()),
            }
            match stand {
                Some(Stand::Back) => spread.back += 1,
                Some(Stand::Late) => spread.late += 1,
                Some(Stand::Again(at)) => spread.try_(machine, Some(at)),
                Some(Stand::GivenUp) => {
                    spread.torn += 1;
                    spread.try_(machine, None);
                }
                Some(Stand::Has | Stand::Failed) | None => {}
            }
        }
        spread
    }

    fn try_(&mut self, machine: &Machine, next: Option<Timestamp>) {
        if self
            .tried
            .as_ref()
            .is_none_or(|known| known.times < machine.tries)
        {
            self.tried = Some(Tried {
                machine: machine.id.clone(),
                times: machine.tries,
                next,
                failure: machine.failure.clone(),
                deployment: machine
                    .deployment
                    .clone()
                    .filter(|_| machine.release == self.live),
            });
        }
    }

    /// Have all machines the live release, and run it well?
    pub fn is_whole(&self) -> bool {
        let all = self.bare == 0 && self.others.is_empty();
        self.live.is_none() || (all && self.ill == 0 && self.tried.is_none())
    }

    /// Does any keep something else until somebody lays the live release on it again?
    pub fn is_torn(&self) -> bool {
        self.torn > 0
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
        if let Some(live) = self.live.filter(|_| self.ill > 0) {
            parts.push((self.ill, format!("v{live}, which failed there")));
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

    /// What the platform does about it by itself, if anything.
    pub fn outlook(&self) -> Option<String> {
        let live = self.live?;
        if self.joining.is_some() {
            return Some(format!("v{live} is being brought there"));
        }
        if let Some(tried) = &self.tried {
            let times = match tried.times {
                1 => "once".to_owned(),
                many => format!("{many} times"),
            };
            let then = match tried.next {
                Some(next) => format!("is tried again at {}", next.strftime("%H:%M:%S UTC")),
                None => "is not tried again by itself".to_owned(),
            };
            return Some(format!(
                "bringing v{live} to {} failed {times}, it {then}",
                tried.machine
            ));
        }
        match (self.back, self.late) {
            (0, 0) => None,
            (0, _) => Some(format!("v{live} comes by itself to what has missed it")),
            _ => Some(format!("v{live} comes back there by itself")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(release: Option<u64>, tries: u32, failure: Option<&str>) -> Machine {
        let at = Timestamp::UNIX_EPOCH;
        Machine {
            id: HostId::from_bits(1),
            tenant: "acme".parse().unwrap(),
            name: "box".into(),
            labels: BTreeMap::new(),
            place: None,
            release,
            deployment: None,
            tries,
            tried_at: (tries > 0).then_some(at),
            failure: failure.map(str::to_owned),
            leaving: false,
            address: None,
            joined_at: at,
            seen_at: None,
        }
    }

    #[test]
    fn what_machines_have_is_said() {
        use Stand::{Back, Failed, GivenUp, Has, Late};
        type Case<'a> = (
            Option<u64>,
            &'a [(Option<u64>, Stand)],
            bool,
            &'a str,
            Option<&'a str>,
        );
        let by_itself = Some("v3 comes by itself to what has missed it");
        let cases: [Case<'_>; 8] = [
            (Some(1), &[(Some(1), Has), (Some(1), Has)], false, "", None),
            (
                Some(1),
                &[(Some(2), Back), (Some(2), Back)],
                false,
                "2 of 2 machines have v2",
                Some("v1 comes back there by itself"),
            ),
            (
                Some(3),
                &[(Some(3), Has), (Some(2), Late), (None, Late)],
                false,
                "1 of 3 machines has v2, 1 has no release yet",
                by_itself,
            ),
            (
                Some(3),
                &[(None, GivenUp)],
                true,
                "1 of 1 machine has no release yet",
                Some("bringing v3 to h-0000000000001 failed 5 times, it is not tried again by itself"),
            ),
            (
                Some(3),
                &[(Some(3), Stand::Again(Timestamp::UNIX_EPOCH))],
                false,
                "1 of 1 machine has v3, which failed there",
                Some("bringing v3 to h-0000000000001 failed once, it is tried again at 00:00:00 UTC"),
            ),
            (
                Some(3),
                &[(Some(3), Has), (Some(3), Failed)],
                false,
                "1 of 2 machines has v3, which failed there",
                None,
            ),
            (None, &[(Some(1), Has)], false, "1 of 1 machine has v1", None),
            (Some(1), &[], false, "", None),
        ];
        for (live, stands, torn, sentence, outlook) in cases {
            let machines: Vec<(Machine, Stand)> = stands
                .iter()
                .map(|(release, stand)| {
                    let (tries, failure) = match stand {
                        GivenUp => (5, Some("no")),
                        Stand::Again(_) => (1, Some("no")),
                        Failed => (0, Some("no")),
                        Has | Late | Back => (0, None),
                    };
                    (machine(*release, tries, failure), *stand)
                })
                .collect();
            let machines = machines
                .iter()
                .map(|(machine, stand)| (machine, live.map(|_| *stand)));
            let spread = Spread::count(live, machines);
            assert_eq!(
                (
                    spread.is_torn(),
                    spread.sentence().as_str(),
                    spread.outlook().as_deref()
                ),
                (torn, sentence, outlook),
                "{stands:?}"
            );
            assert_eq!(
                spread.is_whole(),
                live.is_none() || sentence.is_empty(),
                "{stands:?}"
            );
        }
    }
}
