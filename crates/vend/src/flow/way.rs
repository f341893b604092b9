//! Which way a release takes, as far as its plan can say: what its strategy asks for, or what is possible.

use model::{
    plan::{Change, PlanKind, Subject},
    release::Release,
    spec::{Deploy, MinimumHealthy, Strategy, written},
};

use super::roll;

/// `vend.yaml` asks for a strategy; what is there decides whether it can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub rolls: bool,
    pub steps: bool,
}

/// What there is now: the live release, the hosts that serve it, and those that were kept of the other one.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    pub live: Option<&'a Release>,
    pub serving: u32,
    /// Hosts of the release that wait for a rollback.
    pub kept: u32,
}

pub fn of(kind: PlanKind, now: Now<'_>, after: &Release) -> Way {
    let strategy = after.spec.deploy.strategy;
    // Hosts that are there are not what a release on machines goes to.
    let live = now
        .live
        .filter(|_| now.serving > 0 && after.spec.placement.is_none());
    let by_steps =
        matches!(strategy, Strategy::Canary | Strategy::Linear) && after.spec.deploy.steps.is_some();
    Way {
        rolls: strategy == Strategy::InPlace
            && now.kept == 0
            && live.is_some_and(|live| roll::misfit(live, after).is_none()),
        steps: by_steps && kind == PlanKind::Release && live.is_some(),
    }
}

/// What a plan says of the way, where it is not the usual one.
pub fn told(way: Way, kind: PlanKind, now: Now<'_>, after: &Release) -> Option<Change> {
    if after.spec.placement.is_some() {
        return None;
    }
    let deploy = &after.spec.deploy;
    let text = match (way.rolls, way.steps, deploy.strategy) {
        (true, ..) => format!("in place, {}", at_a_time(deploy.minimum_healthy, now.serving)),
        (_, true, _) => by_steps(deploy),
        (_, _, Strategy::InPlace) if now.kept > 0 => "on the hosts that were kept, at once".into(),
        (_, _, Strategy::InPlace) if now.live.is_some() => format!("on new hosts: {}", why_not(now, after)),
        _ if kind == PlanKind::Rollback && now.kept > 0 => "on the hosts that were kept, at once".into(),
        _ => return None,
    };
    Some(Change::new(Subject::Hosts, "deployment", None, Some(text)))
}

/// Why a release that should go in place does not.
fn why_not(now: Now<'_>, after: &Release) -> &'static str {
    let misfit = now.live.and_then(|live| roll::misfit(live, after));
    misfit.unwrap_or("no host of the live release serves")
}

fn at_a_time(rule: MinimumHealthy, hosts: u32) -> String {
    match rule {
        MinimumHealthy::OneAtATime => "one host at a time".into(),
        MinimumHealthy::HalfAtATime => "half of the hosts at a time".into(),
        MinimumHealthy::AllAtOnce => "all hosts at once: requests wait meanwhile".into(),
        rule => format!("while {} of {hosts} hosts stay healthy", rule.minimum(hosts)),
    }
}

fn by_steps(deploy: &Deploy) -> String {
    let shares: Vec<String> = model::stage::shares(deploy)
        .iter()
        .map(|share| format!("{share} %"))
        .collect();
    let interval = deploy.steps.as_ref().map(|steps| written(steps.interval));
    let interval = interval.unwrap_or_default();
    format!(
        "{}: {}, then all, {interval} each",
        deploy.strategy.word(),
        shares.join(", ")
    )
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use model::Digest;

    use super::*;
    use crate::fixtures;

    /// One of this number.
    pub fn release(number: u64) -> Release {
        Release {
            number,
            ..with("blue-green", "a")
        }
    }

    fn with(strategy: &str, image: &str) -> Release {
        Release {
            number: 1,
            commit: fixtures::commit("main", Timestamp::UNIX_EPOCH),
            source: Digest::of("source"),
            image: Digest::of(image),
            revision: Digest::of("revision"),
            spec: super::super::definition::tests::with(strategy),
            secrets: std::collections::BTreeMap::new(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_strategy_is_followed_where_it_can_be() {
        use PlanKind::{Release as Forward, Rollback as Back};
        let live = with("blue-green", "a");
        let now = |live, serving, kept| Now { live, serving, kept };
        for (strategy, image, kind, now, rolls, steps, told_) in [
            (
                "blue-green",
                "a",
                Forward,
                now(Some(&live), 2, 0),
                false,
                false,
                None,
            ),
            (
                "in-place",
                "a",
                Forward,
                now(Some(&live), 2, 0),
                true,
                false,
                Some("in place, one host at a time"),
            ),
            (
                "in-place",
                "b",
                Forward,
                now(Some(&live), 2, 0),
                false,
                false,
                Some("on new hosts: the image is another one"),
            ),
            ("in-place", "a", Forward, now(None, 0, 0), false, false, None),
            (
                "in-place",
                "a",
                Forward,
                now(Some(&live), 0, 0),
                false,
                false,
                Some("on new hosts: no host of the live release serves"),
            ),
            (
                "in-place",
                "a",
                Back,
                now(Some(&live), 2, 2),
                false,
                false,
                Some("on the hosts that were kept"),
            ),
            (
                "canary",
                "b",
                Forward,
                now(Some(&live), 2, 0),
                false,
                true,
                Some("canary: 10 %, then all, 10m each"),
            ),
            (
                "linear",
                "b",
                Forward,
                now(Some(&live), 1, 0),
                false,
                true,
                Some("linear: 10 %, 20 %"),
            ),
            ("canary", "b", Forward, now(None, 0, 0), false, false, None),
            ("canary", "b", Back, now(Some(&live), 2, 0), false, false, None),
            (
                "canary",
                "b",
                Back,
                now(Some(&live), 2, 1),
                false,
                false,
                Some("on the hosts that were kept"),
            ),
        ] {
            let after = with(strategy, image);
            let way = of(kind, now, &after);
            assert_eq!(way, Way { rolls, steps }, "{strategy} {kind:?}");
            let said = told(way, kind, now, &after).and_then(|change| change.after);
            assert_eq!(said.is_some(), told_.is_some(), "{strategy} {kind:?}: {said:?}");
            let start = told_.unwrap_or_default();
            assert!(said.unwrap_or_default().starts_with(start), "{strategy} {kind:?}");
        }
    }
}
