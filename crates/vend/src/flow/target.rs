//! Which release is gone back to.

use std::collections::BTreeSet;

use model::{Place, port::Fault, release::ReleaseState};
use store::{Db, Error};

use super::spread::{self, Spread};

/// The release to go back to from the live one: the one asked for, or of those made before it the last that was live.
/// `releases`: newest first.
pub fn of(
    place: &Place,
    to: Option<u64>,
    live: u64,
    releases: &[store::Release],
    kept: &BTreeSet<u64>,
    spread: &Spread,
) -> Result<u64, Fault> {
    let was_live =
        |release: &&store::Release| release.state == ReleaseState::Retired && release.live_at.is_some();
    let list = format!("vend releases list {place}");
    match to {
        // What failed lies on machines, and the live release is the one before it.
        Some(number) if number == live && !spread.is_whole() => Ok(live),
        None if spread.is_torn() || spread.back > 0 => Ok(live),
        Some(number) if number == live => Err(Fault::order(format!("v{number} is live already")).next(list)),
        Some(number)
            if releases
                .iter()
                .filter(was_live)
                .any(|own| own.content.number == number) =>
        {
            // What it ran from may be gone by now.
            let gone = format!("v{number} of {place} is not kept any more: too many were live since");
            let is_kept = kept.contains(&number);
            is_kept
                .then_some(number)
                .ok_or_else(|| Fault::order(gone).next(list))
        }
        // Numbers are given one after the other.
        Some(number)
            if releases
                .first()
                .is_none_or(|newest| newest.content.number < number) =>
        {
            Err(Fault::order(format!("{place} has no release v{number}")).next(list))
        }
        Some(number) => Err(Fault::order(format!(
            "v{number} of {place} was never live, so it cannot be gone back to"
        ))
        .next(list)),
        // A release that people went back from was made after the one they went to, and ended before it.
        None => releases
            .iter()
            .filter(was_live)
            .map(|release| (release.changed_at, release.content.number))
            .filter(|(_, number)| *number < live && kept.contains(number))
            .max()
            .map(|(_, number)| number)
            .ok_or_else(|| Fault::order(format!("{place} has no earlier release that is kept")).next(list)),
    }
}

/// The same by the catalogue.
pub fn find(db: &Db<'_>, place: &Place, to: Option<u64>) -> Result<Result<u64, Fault>, Error> {
    let Some(live) = db.environment(place)?.live else {
        let nothing = format!("{place} has no release to go back from");
        return Ok(Err(Fault::order(nothing)));
    };
    let spread = spread::of(db, place)?.unwrap_or_default();
    let (releases, kept) = (db.releases(place, None, 200)?, db.kept_releases(place)?);
    Ok(of(place, to, live, &releases, &kept, &spread))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use store::Release;

    use super::*;

    fn release(number: u64, state: ReleaseState, was_live: bool) -> Release {
        let at = Timestamp::UNIX_EPOCH;
        Release {
            content: crate::flow::way::tests::release(number),
            place: "acme/shop/dev".parse().unwrap(),
            state,
            reason: None,
            execution: None,
            created_by: "person:ann".into(),
            live_at: was_live.then_some(at),
            changed_at: at,
        }
    }

    #[test]
    fn a_release_that_people_went_back_from_is_not_gone_back_to() {
        use ReleaseState::{Live, Retired};
        let place: Place = "acme/shop/dev".parse().unwrap();
        let ended = |number, second| Release {
            changed_at: Timestamp::from_second(second).unwrap(),
            ..release(number, Retired, true)
        };
        // v3 was bad: back to v2, and then the fix came.
        let releases = [release(4, Live, true), ended(3, 30), ended(2, 40), ended(1, 20)];
        let to = |live, kept: &[u64]| {
            let kept = kept.iter().copied().collect();
            of(&place, None, live, &releases, &kept, &Spread::default()).ok()
        };
        assert_eq!(to(4, &[1, 2, 3]), Some(2));
        assert_eq!(to(4, &[1, 3]), Some(3), "what is not kept cannot come back");
        assert_eq!(to(2, &[1, 3]), Some(1), "further back, and not forward again");
        assert_eq!(to(1, &[2, 3]), None);
    }

    #[test]
    fn what_cannot_be_gone_back_to_is_told_apart() {
        use ReleaseState::{Failed, Live, Retired};
        let place: Place = "acme/shop/dev".parse().unwrap();
        let releases = [
            release(6, Failed, false),
            release(5, Live, true),
            release(4, Retired, true),
            release(3, Failed, false),
            release(2, Retired, true),
            release(1, Retired, true),
        ];
        let kept = [4, 2].into();
        let whole = Spread::default();
        let torn = Spread {
            live: Some(5),
            machines: 1,
            others: [(6, 1)].into(),
            torn: 1,
            ..Spread::default()
        };
        let late = Spread {
            live: Some(5),
            machines: 2,
            bare: 1,
            late: 1,
            ..Spread::default()
        };
        for (to, spread, expected) in [
            (None, &whole, Ok(4)),
            (Some(2), &whole, Ok(2)),
            (Some(1), &whole, Err("not kept any more")),
            (Some(3), &whole, Err("was never live")),
            (Some(5), &whole, Err("is live already")),
            (Some(7), &whole, Err("has no release v7")),
            (Some(99), &whole, Err("has no release v99")),
            // What failed on machines is covered by the live release; what comes by itself is no reason to stay.
            (None, &torn, Ok(5)),
            (Some(5), &torn, Ok(5)),
            (None, &late, Ok(4)),
            (Some(5), &late, Ok(5)),
        ] {
            let found = of(&place, to, 5, &releases, &kept, spread);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{to:?}"),
                (Err(fault), Err(part)) => assert!(fault.message.contains(part), "{to:?}: {}", fault.message),
                (found, _) => panic!("{to:?}: {found:?} instead of {expected:?}"),
            }
        }
    }
}
