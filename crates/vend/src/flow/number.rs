//! How many hosts somebody may ask for: what `scaling` of the releases says that have them, or are about to.

use model::{Place, spec};
use store::{Db, Error, ExecutionSummary};

use super::{definition, runs, start::refusal};

/// Refuses a number of hosts that neither the live release allows nor the one that is about to be live. `moving`: what
/// has the hosts now.
pub fn refuse(
    db: &Db<'_>,
    place: &Place,
    hosts: u32,
    moving: Option<&ExecutionSummary>,
) -> Result<(), Error> {
    let live = db.live_release(place)?.map(|live| live.content.spec.scaling);
    let arriving = match moving {
        Some(moving) => arriving(db, place, moving)?,
        None => None,
    };
    let has = db.environment(place)?.desired;
    match outside(place, hosts, has, live.into_iter().chain(arriving)) {
        Some((message, next)) => Err(refusal(message, Some(next))),
        None => Ok(()),
    }
}

/// What the release allows that an execution makes live. One that goes back makes none.
fn arriving(db: &Db<'_>, place: &Place, moving: &ExecutionSummary) -> Result<Option<spec::Scaling>, Error> {
    let run = runs::open(db, moving.run)?;
    let mut orders = run.iter().flat_map(|run| run.orders.values());
    if orders.any(|order| definition::is_final(&order.resource)) {
        return Ok(None);
    }
    if let Some(own) = db.open_deployment(place, &moving.id)? {
        return Ok(Some(db.release(place, own.release)?.content.spec.scaling));
    }
    // A release that is about to come to its hosts is what was pushed last.
    let pushed = db
        .environment(place)?
        .spec
        .filter(|_| moving.kind == runs::RELEASE);
    Ok(pushed.map(|spec| spec.scaling))
}

/// Why none of these allows so many hosts, and what does. `has`: those that were asked for before, perhaps when more were
/// allowed; they may stay, or become fewer.
fn outside(
    place: &Place,
    hosts: u32,
    has: Option<u32>,
    allowed: impl Iterator<Item = spec::Scaling>,
) -> Option<(String, String)> {
    let allowed: Vec<spec::Scaling> = allowed.collect();
    let spec::Scaling { min, max } = *allowed.last()?;
    let most = |own: &spec::Scaling| own.max.max(has.unwrap_or_default());
    if allowed.iter().any(|own| (own.min..=most(own)).contains(&hosts)) {
        return None;
    }
    let (bound, key, word) = match hosts > max {
        true => (max, "max", "at most"),
        false => (min, "min", "at least"),
    };
    Some((
        format!("{place} has {bound} hosts {word}, and {hosts} were asked for: `scaling.{key}` says so"),
        format!("vend scale {place} {bound}, or change `scaling.{key}` in vend.yaml and push"),
    ))
}

#[cfg(test)]
mod tests {
    use model::{DeploymentId, Digest};
    use serde_json::json;
    use store::{By, NewDeployment, NewRelease};

    use super::*;
    use crate::{
        fixtures,
        flow::{
            definition::tests::sample,
            runs::{RELEASE, tests::Sim},
        },
    };

    #[test]
    fn so_many_hosts_as_vend_yaml_allows() {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let of = |min, max| spec::Scaling { min, max };
        for (hosts, allowed, said) in [
            (2, vec![of(2, 4)], None),
            (4, vec![of(2, 4)], None),
            (
                5,
                vec![of(2, 4)],
                Some((
                    "has 4 hosts at most, and 5 were asked for",
                    "vend scale acme/shop/dev 4, or",
                )),
            ),
            (
                1,
                vec![of(2, 4)],
                Some(("has 2 hosts at least, and 1 were asked for", "`scaling.min`")),
            ),
            // The one that is about to be live allows more, or less.
            (5, vec![of(2, 4), of(2, 6)], None),
            (4, vec![of(2, 4), of(2, 2)], None),
            (
                5,
                vec![of(2, 4), of(2, 2)],
                Some(("has 2 hosts at most", "scale acme/shop/dev 2")),
            ),
            (9, vec![], None),
        ] {
            let found = outside(&place, hosts, None, allowed.into_iter());
            match (&found, said) {
                (Some((message, next)), Some((what, how))) => {
                    assert!(message.contains(what) && next.contains(how), "{hosts}: {found:?}");
                }
                _ => assert_eq!(found.is_some(), said.is_some(), "{hosts}: {found:?}"),
            }
        }
        // As many as before, when more were allowed, or fewer.
        for (hosts, is_refused) in [(1, true), (2, false), (7, false), (8, true)] {
            let found = outside(&place, hosts, Some(7), [of(2, 4)].into_iter());
            assert_eq!(found.is_some(), is_refused, "{hosts}: {found:?}");
        }
    }

    fn environment(max: u32) -> spec::Environment {
        let text = format!("app: shop\nscaling: {{ min: 1, max: {max} }}\n");
        let app = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap().0;
        app.environments[0].clone()
    }

    /// v1 may have 5 hosts, v2, which is live, 2, and what was pushed last 9.
    async fn seed(sim: &Sim) {
        let seeded = sim.store.write(|tx| {
            let (place, by) = (Sim::place(), By::platform(crate::clock::now()));
            for max in [5, 2] {
                let new = NewRelease {
                    commit: fixtures::commit("main", by.at),
                    source: Digest::of("source"),
                    image: Digest::of("image"),
                    revision: Digest::of("revision"),
                    spec: environment(max),
                    secrets: std::collections::BTreeMap::new(),
                    execution: None,
                };
                let number = tx.create_release(&place, &new, &by)?.content.number;
                tx.set_live(&place, number, by.at, &by)?;
            }
            tx.set_spec(&place, &environment(9), &by)
        });
        seeded.await.unwrap();
    }

    /// Which of these many hosts somebody may ask for beside an execution.
    async fn allowed(sim: &Sim, moving: Option<&model::ExecutionId>) -> Vec<u32> {
        let moving = moving.cloned();
        let read = sim.store.read(move |db| {
            let moving = moving.map(|id| db.execution_summary(&id)).transpose()?;
            let is_allowed = |hosts: &u32| refuse(db, &Sim::place(), *hosts, moving.as_ref()).is_ok();
            Ok::<_, Error>([2, 5, 9].into_iter().filter(is_allowed).collect())
        });
        read.await.unwrap()
    }

    #[tokio::test]
    async fn whoever_goes_back_has_the_limits_of_what_comes_back() {
        let sim = Sim::new().await;
        seed(&sim).await;
        assert_eq!(allowed(&sim, None).await, [2]);
        let rollback = sim.begin("rollback", sample(false)).await;
        assert_eq!(allowed(&sim, Some(&rollback)).await, [2]);
        let own = rollback.clone();
        let begun = sim.store.write(move |tx| {
            let new = NewDeployment {
                id: DeploymentId::from_bits(1),
                place: Sim::place(),
                release: 1,
                execution: Some(own),
                strategy: spec::Strategy::BlueGreen,
                cause: None,
            };
            tx.begin_deployment(&new, &By::platform(crate::clock::now()))
        });
        begun.await.unwrap();
        assert_eq!(allowed(&sim, Some(&rollback)).await, [2, 5]);
    }

    #[tokio::test]
    async fn what_failed_has_no_limits_any_more() {
        let sim = Sim::new().await;
        seed(&sim).await;
        let release = sim.begin(RELEASE, sample(false)).await;
        for activity in ["source", "build", "bake"] {
            sim.succeed(activity, json!({})).await;
        }
        let plan = sim.offered("plan").await;
        assert_eq!(allowed(&sim, Some(&release)).await, [2, 5, 9]);
        sim.breaks(plan).await;
        drop(sim.offered("unwind").await);
        assert_eq!(allowed(&sim, Some(&release)).await, [2]);
    }
}
