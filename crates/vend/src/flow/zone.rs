//! One zone after the other: CodeDeploy's zonal configuration, on top of its minimum healthy hosts.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations-create.html>
//!
//! Pure. Hosts are taken out of one zone at a time, and of no more than both rules leave: the fleet's and the zone's own.

use model::spec::MinimumHealthy;

use super::wave::{self, Short, Standing, Wave};

/// The zone of hosts that nobody gave one.
pub const NOWHERE: &str = "-";

/// The rule that no deployment could keep, as (zone, how many had to stay healthy, how many there are). The zone is `None`
/// for the whole fleet's.
pub fn impossible(
    fleet: MinimumHealthy,
    each: Option<MinimumHealthy>,
    zones: &[(&str, u32)],
) -> Option<(Option<String>, u32, u32)> {
    let total = zones.iter().map(|(_, hosts)| hosts).sum();
    if let Some(needed) = wave::impossible(fleet, total) {
        return Some((None, needed, total));
    }
    zones.iter().find_map(|(zone, hosts)| {
        let needed = wave::impossible(each?, *hosts)?;
        Some((Some((*zone).to_owned()), needed, *hosts))
    })
}

/// What comes next, and in which of the zones. Zones are taken in their order; one that is not finished is, first.
pub fn next(fleet: MinimumHealthy, each: Option<MinimumHealthy>, zones: &[Standing]) -> (usize, Wave) {
    let floor = |zone: &Standing| each.map_or(0, |each| each.minimum(zone.total));
    // A zone that ended below its minimum ends the deployment, wherever that has come to.
    let short = |zone: &Standing| zone.failed > 0 && zone.left == 0 && zone.done < floor(zone);
    if let Some(at) = zones.iter().position(short) {
        return (at, lacking(zones[at].done, floor(&zones[at])));
    }
    let Some(at) = zones.iter().position(|zone| zone.left > 0) else {
        return (0, wave::next(fleet, sum(zones, None)));
    };
    let zone = zones[at];
    let count = match wave::next(fleet, sum(zones, Some(at))) {
        Wave::Next(count) => count.min(zone.left),
        other => return (at, other),
    };
    let (healthy, floor) = (zone.left + zone.done, floor(&zone));
    let wave = match healthy.saturating_sub(floor) {
        // Those that are not healthy are missed by nobody.
        _ if zone.ill > 0 => Wave::Next(count),
        0 if zone.failed > 0 => lacking(healthy, floor),
        // As for a fleet: hosts may have died by themselves, and it still comes to an end.
        room => Wave::Next(count.min(room.max(1))),
    };
    (at, wave)
}

fn lacking(healthy: u32, needed: u32) -> Wave {
    Wave::Failed(Short {
        healthy,
        needed,
        in_zone: true,
    })
}

/// The whole fleet. Of zones that are not `current`, hosts that are not healthy are not there to be counted on, nor to be
/// taken out.
fn sum(zones: &[Standing], current: Option<usize>) -> Standing {
    let mut all = Standing::default();
    for (at, zone) in zones.iter().enumerate() {
        let ill = if current == Some(at) { zone.ill } else { 0 };
        all.total += zone.total;
        all.left += zone.left - zone.ill.min(zone.left) + ill;
        all.ill += ill;
        all.done += zone.done;
        all.failed += zone.failed;
    }
    all
}

#[cfg(test)]
mod tests {
    use MinimumHealthy::{AllAtOnce, Count, HalfAtATime, OneAtATime, Percent};
    use proptest::prelude::*;

    use super::*;
    use crate::flow::wave::tests::{rules, standing};

    #[test]
    fn one_zone_after_the_other() {
        use Wave::{Done, Next};
        type Case<'a> = (
            MinimumHealthy,
            Option<MinimumHealthy>,
            &'a [(u32, u32, u32, u32)],
            (usize, Wave),
        );
        let cases: [Case<'_>; 16] = [
            // The fleet's rule leaves more than the zone has.
            (AllAtOnce, None, &[(3, 0, 0, 0), (3, 0, 0, 0)], (0, Next(3))),
            (HalfAtATime, None, &[(2, 0, 0, 0), (6, 0, 0, 0)], (0, Next(2))),
            (HalfAtATime, None, &[(0, 0, 2, 0), (6, 0, 0, 0)], (1, Next(4))),
            (OneAtATime, None, &[(3, 0, 0, 0), (3, 0, 0, 0)], (0, Next(1))),
            // The zone's own rule leaves fewer.
            (
                AllAtOnce,
                Some(Count(2)),
                &[(3, 0, 0, 0), (3, 0, 0, 0)],
                (0, Next(1)),
            ),
            (
                AllAtOnce,
                Some(Percent(50)),
                &[(5, 0, 0, 0), (5, 0, 0, 0)],
                (0, Next(2)),
            ),
            (
                AllAtOnce,
                Some(Percent(0)),
                &[(5, 0, 0, 0), (5, 0, 0, 0)],
                (0, Next(5)),
            ),
            // What failed in a zone counts there and in the fleet.
            (
                AllAtOnce,
                Some(Count(2)),
                &[(2, 0, 0, 1), (3, 0, 0, 0)],
                (0, lacking(2, 2)),
            ),
            (
                AllAtOnce,
                Some(Count(1)),
                &[(2, 0, 0, 1), (3, 0, 0, 0)],
                (0, Next(1)),
            ),
            (
                Percent(80),
                Some(Count(0)),
                &[(0, 0, 3, 1), (1, 0, 0, 0)],
                (1, wave::short(4, 4)),
            ),
            // The exception for the last host of all is one for the last of a zone, too.
            (
                Count(1),
                Some(Count(2)),
                &[(0, 0, 2, 1), (3, 0, 0, 0)],
                (1, Next(1)),
            ),
            (
                AllAtOnce,
                Some(Count(2)),
                &[(0, 0, 1, 2), (3, 0, 0, 0)],
                (0, lacking(1, 2)),
            ),
            // Ill ones first, of the zone whose turn it is; others' are no help.
            (
                OneAtATime,
                Some(Count(1)),
                &[(3, 2, 0, 0), (3, 1, 0, 0)],
                (0, Next(2)),
            ),
            (
                Count(4),
                Some(Count(1)),
                &[(3, 0, 0, 0), (3, 1, 0, 0)],
                (0, Next(1)),
            ),
            // The end.
            (
                AllAtOnce,
                Some(Count(1)),
                &[(0, 0, 3, 0), (0, 0, 3, 0)],
                (0, Done),
            ),
            (
                AllAtOnce,
                None,
                &[(0, 0, 0, 3), (0, 0, 0, 3)],
                (0, wave::short(0, 1)),
            ),
        ];
        for (fleet, each, zones, expected) in cases {
            let standings: Vec<Standing> = zones
                .iter()
                .map(|&(left, ill, done, failed)| standing(left, ill, done, failed))
                .collect();
            assert_eq!(
                next(fleet, each, &standings),
                expected,
                "{fleet:?} {each:?} {zones:?}"
            );
        }
    }

    #[test]
    fn what_no_deployment_could_keep_is_said_with_its_zone() {
        let zones = [("a", 3), ("b", 1)];
        assert_eq!(impossible(OneAtATime, Some(Count(0)), &zones), None);
        assert_eq!(impossible(OneAtATime, None, &zones), None);
        assert_eq!(
            impossible(Percent(99), Some(Count(0)), &zones),
            Some((None, 4, 4))
        );
        let of_b = Some((Some("b".to_owned()), 1, 1));
        assert_eq!(impossible(OneAtATime, Some(Count(1)), &zones), of_b);
        assert_eq!(impossible(OneAtATime, Some(Percent(1)), &zones), of_b);
    }

    proptest! {
        /// Whatever fails: it ends, no zone is begun before the one before is finished, and in none are more taken out than
        /// its rule leaves.
        #[test]
        fn every_deployment_ends_zone_by_zone(
            fleet in rules(),
            each in prop_oneof![(0..=100_u32).prop_map(Percent), (0..8_u32).prop_map(Count)],
            sizes in prop::collection::vec(1..8_u32, 1..5),
            fate in prop::collection::vec(any::<bool>(), 40),
        ) {
            let named: Vec<(&str, u32)> = sizes.iter().map(|size| ("z", *size)).collect();
            prop_assume!(impossible(fleet, Some(each), &named).is_none());
            let mut zones: Vec<Standing> = sizes.iter().map(|size| standing(*size, 0, 0, 0)).collect();
            let mut fate = fate.into_iter();
            for _ in 0..=sizes.iter().sum() {
                match next(fleet, Some(each), &zones) {
                    (at, Wave::Next(count)) => {
                        prop_assert!(zones[..at].iter().all(|zone| zone.left == 0));
                        let zone = &mut zones[at];
                        prop_assert!((1..=zone.left).contains(&count));
                        prop_assert!(zone.left + zone.done - count >= each.minimum(zone.total));
                        zone.fares(count, &mut fate);
                    }
                    (_, Wave::Done) => {
                        prop_assert!(zones.iter().all(|zone| zone.left == 0));
                        prop_assert!(zones.iter().any(|zone| zone.done > 0));
                        return Ok(());
                    }
                    (_, Wave::Failed { .. }) => {
                        prop_assert!(zones.iter().any(|zone| zone.failed > 0));
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "it does not end: {zones:?}");
        }
    }
}
