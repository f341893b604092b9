use std::collections::BTreeMap;

use super::*;
use crate::health::Why;

impl Group {
    fn pick(&self, tried: &[u64], wanted: Option<u64>, tick: u64) -> Option<&Target> {
        self.pick_near(None, tried, wanted, tick)
    }
}

fn group(name: &str, targets: usize, algorithm: Algorithm) -> Group {
    let targets: Vec<route::Target> = (0..targets)
        .map(|n| route::Target {
            id: format!("h-{n}"),
            address: ([127, 0, 0, 1], 1000 + n as u16).into(),
        })
        .collect();
    let spec = route::TargetGroup {
        algorithm,
        ..route::TargetGroup::default()
    };
    let targets = targets.iter().map(Target::new).collect();
    Group::new(name, targets, Arc::new(spec), None)
}

fn shares(picks: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    picks.fold(BTreeMap::new(), |mut shares, name| {
        *shares.entry(name).or_default() += 1;
        shares
    })
}

#[test]
fn weights_are_exact_over_each_round_and_even_within() {
    for weights in [
        vec![1, 99],
        vec![999, 1],
        vec![5, 3, 2],
        vec![0, 7],
        vec![10, 90, 0],
        vec![999; 5],
    ] {
        let total: u32 = weights.iter().sum();
        let ring = Weights::new(
            weights
                .iter()
                .enumerate()
                .map(|(n, w)| (*w, group(&n.to_string(), 0, Algorithm::RoundRobin))),
            None,
        );
        for _ in 0..2 {
            let picks: Vec<String> = (0..total)
                .map(|_| ring.pick().unwrap().name().to_owned())
                .collect();
            let got = shares(picks.iter().cloned());
            for (n, weight) in weights.iter().enumerate() {
                assert_eq!(
                    got.get(&n.to_string()).copied().unwrap_or(0),
                    *weight as usize,
                    "{weights:?}"
                );
            }
            // Smooth: half a round gives each group half its share, give or take two.
            let half = shares(picks[..picks.len() / 2].iter().cloned());
            for (n, weight) in weights.iter().enumerate() {
                let part = half.get(&n.to_string()).copied().unwrap_or(0) as i64;
                assert!(
                    (part - i64::from(*weight) / 2).abs() <= 3,
                    "{weights:?}: {n} had {part}"
                );
            }
        }
    }
    assert!(Weights::new(std::iter::empty(), None).pick().is_none());
}

#[test]
fn only_healthy_targets_get_requests_unless_there_are_none() {
    let group = group("g", 4, Algorithm::RoundRobin);
    let picks = |n: usize| shares((0..n).map(|_| group.pick(&[], None, 0).unwrap().id().to_owned()));
    assert_eq!(picks(8).len(), 4, "all are initial: fail open");
    group.targets()[1].judge(TargetState::Healthy, None);
    group.targets()[2].judge(TargetState::Healthy, None);
    assert_eq!(picks(8), BTreeMap::from([("h-1".into(), 4), ("h-2".into(), 4)]));
    for target in group.targets() {
        target.judge(TargetState::Unhealthy, Some(Why::Refused));
    }
    assert_eq!(picks(8).len(), 4, "all are unhealthy: fail open");
}

#[test]
fn what_was_tried_is_not_picked_again() {
    let group = group("g", 3, Algorithm::RoundRobin);
    group.targets()[0].judge(TargetState::Healthy, None);
    let mut tried = Vec::new();
    while let Some(target) = group.pick(&tried, None, 0) {
        tried.push(target.serial);
    }
    assert_eq!(tried.len(), 3);
    assert_eq!(tried[0], group.targets()[0].serial, "the healthy one first");
}

#[test]
fn least_outstanding_prefers_the_idle() {
    let group = group("g", 3, Algorithm::LeastOutstanding);
    group.targets()[0].deeds().active.store(2, Relaxed);
    group.targets()[2].deeds().active.store(1, Relaxed);
    for _ in 0..5 {
        assert_eq!(group.pick(&[], None, 0).unwrap().id(), "h-1");
    }
    group.targets()[1].deeds().active.store(1, Relaxed);
    assert_eq!(
        shares((0..6).map(|_| group.pick(&[], None, 0).unwrap().id().to_owned())).len(),
        2
    );
}

fn healthy(targets: usize, algorithm: Algorithm, edit: impl FnOnce(&mut route::TargetGroup)) -> Group {
    let made = group("g", targets, algorithm);
    let mut policy = route::TargetGroup::clone(&made.policy);
    edit(&mut policy);
    for target in made.targets() {
        target.judge(TargetState::Healthy, None);
    }
    Group::new("g", made.targets().to_vec(), Arc::new(policy), None)
}

fn picks(group: &Group, n: usize, tick: u64) -> BTreeMap<String, usize> {
    shares((0..n).map(|_| group.pick(&[], None, tick).unwrap().id().to_owned()))
}

#[test]
fn chance_is_fair() {
    let group = healthy(4, Algorithm::WeightedRandom, |_| ());
    let got = picks(&group, 4_000, 0);
    assert!(got.values().all(|n| (900..1100).contains(n)), "{got:?}");
}

#[test]
fn an_anomalous_target_gets_little_until_it_is_well() {
    let group = healthy(4, Algorithm::AnomalyMitigation, |_| ());
    for _ in 0..64 {
        group.targets()[1].met(true, None, 0);
        group.targets()[0].met(false, None, 0);
    }
    let got = picks(&group, 4_000, 0);
    assert!(got["h-1"] > 0 && got["h-1"] < 250, "{got:?}");
    assert!(got["h-0"] > 1000 && got["h-2"] > 1000, "{got:?}");
    for _ in 0..128 {
        group.targets()[1].met(false, None, 0);
    }
    assert!(picks(&group, 4_000, 0)["h-1"] > 900);
    // Where all fail alike, none is anomalous.
    for target in group.targets() {
        (0..64).for_each(|_| _ = target.met(true, None, 0));
    }
    assert!(picks(&group, 4_000, 0).values().all(|n| *n > 900));
}

#[test]
fn a_target_in_slow_start_gets_a_growing_share() {
    let group = healthy(2, Algorithm::RoundRobin, |policy| {
        policy.slow_start = SignedDuration::from_secs(100)
    });
    group.targets()[0].begin(0);
    group.targets()[1].begin(1_000_000);
    let share = |tick| picks(&group, 2_000, tick).get("h-1").copied().unwrap_or(0);
    let (start, half, end) = (share(1_000_000), share(1_050_000), share(1_100_000));
    assert!((20..150).contains(&start), "{start}");
    assert!((400..600).contains(&half), "{half}");
    assert_eq!(end, 1_000);
}

#[test]
fn a_failing_target_is_left_out_for_a_while() {
    let ejection = route::Ejection {
        failures: 3,
        time: SignedDuration::from_secs(10),
    };
    let group = healthy(2, Algorithm::RoundRobin, |_| ());
    let bad = &group.targets()[0];
    for failed in [true, true, false, true, true] {
        bad.met(failed, Some(&ejection), 0);
    }
    assert_eq!(picks(&group, 4, 0).len(), 2, "not three in a row");
    bad.met(true, Some(&ejection), 0);
    assert_eq!(picks(&group, 4, 9_999), BTreeMap::from([("h-1".into(), 4)]));
    assert_eq!(picks(&group, 4, 10_000).len(), 2);
    group.targets()[1].judge(TargetState::Unhealthy, None);
    assert_eq!(
        picks(&group, 4, 0),
        BTreeMap::from([("h-0".into(), 4)]),
        "better than an unhealthy one"
    );
    assert_eq!(group.counters().panics.load(Relaxed), 0);
    bad.judge(TargetState::Unhealthy, None);
    assert_eq!(picks(&group, 4, 0).len(), 2);
    assert_eq!(
        group.counters().panics.load(Relaxed),
        4,
        "failing open is counted"
    );
}

#[test]
fn targets_of_the_own_zone_come_first() {
    let group = healthy(4, Algorithm::RoundRobin, |policy| {
        let zones = [("h-0", "a"), ("h-1", "a"), ("h-2", "b")];
        policy.zones = zones.map(|(id, zone)| (id.to_owned(), zone.to_owned())).into();
    });
    let picks = |zone| shares((0..8).map(|_| group.pick_near(zone, &[], None, 0).unwrap().id().to_owned()));
    assert_eq!(
        picks(Some("a")),
        BTreeMap::from([("h-0".into(), 4), ("h-1".into(), 4)])
    );
    assert_eq!(picks(None).len(), 4, "an edge without a zone");
    assert_eq!(picks(Some("c")).len(), 4, "nobody is there");
    group.targets()[1].judge(TargetState::Unhealthy, None);
    assert_eq!(picks(Some("a")), BTreeMap::from([("h-0".into(), 8)]));
    group.targets()[0].judge(TargetState::Unhealthy, None);
    assert_eq!(
        picks(Some("a")),
        BTreeMap::from([("h-2".into(), 4), ("h-3".into(), 4)])
    );
}

#[test]
fn a_client_stays_with_its_target_while_that_is_healthy() {
    let group = healthy(3, Algorithm::RoundRobin, |_| ());
    let wanted = token("g", &group.targets()[2]);
    for _ in 0..4 {
        assert_eq!(group.pick(&[], Some(wanted), 0).unwrap().id(), "h-2");
    }
    group.targets()[2].judge(TargetState::Unhealthy, None);
    assert_ne!(group.pick(&[], Some(wanted), 0).unwrap().id(), "h-2");
}
