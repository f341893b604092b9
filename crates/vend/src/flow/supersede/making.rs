//! A build or a bake that hangs keeps no fix waiting. It has touched nothing yet, so nothing is lost by ending it but its
//! time: and that is given to it, or who pushes often would never see anything live.

use jiff::{SignedDuration, Timestamp};
use model::{ExecutionId, Place};
use store::{Db, Error, ExecutionFilter, ExecutionSummary, WorkState};

use super::{ERROR, RECENT};
use crate::flow::runs::{self, RELEASE};

/// Releases that gave way one after the other beyond these give the next no longer.
const IN_A_ROW: u32 = 8;

/// A build or a bake.
struct Work {
    began: Timestamp,
    ended: Option<Timestamp>,
    /// For room, or for its turn.
    waits: bool,
}

/// Why a release hangs while it is made: nothing of it has begun or ended for longer than it should take.
pub fn hangs(
    db: &Db<'_>,
    place: &Place,
    execution: &ExecutionSummary,
    (now, patience): (Timestamp, SignedDuration),
) -> Result<Option<String>, Error> {
    if !runs::open(db, execution.run)?.is_some_and(|run| runs::is_making(&run)) {
        return Ok(None);
    }
    let works = works(db, &execution.id)?;
    let mut running = works.iter().filter(|work| work.ended.is_none()).peekable();
    if running.peek().is_some() && running.all(|work| work.waits) {
        // The one that would come in its place waited, too, and behind all others.
        return Ok(None);
    }
    let news = works.iter().flat_map(|work| [Some(work.began), work.ended]);
    let last = news.flatten().max().unwrap_or(execution.started_at);
    let quiet = now.duration_since(last.max(execution.started_at));
    let allowed = allowed(patience, usual(db, place)?, gave_way(db, place)?);
    Ok((quiet > allowed).then(|| {
        let (quiet, allowed) = (quiet.as_secs(), allowed.as_secs());
        format!(
            "it hangs while it is made: nothing has begun or ended for {quiet} s, and {allowed} s are enough"
        )
    }))
}

/// How long one build or bake may take: as an operator says, or twice as long as any took here lately. Twice that for
/// each release in a row that gave way: so one that takes its time gets through in the end, however often somebody pushes.
fn allowed(patience: SignedDuration, usual: SignedDuration, gave_way: u32) -> SignedDuration {
    let once = patience.max(usual.saturating_mul(2));
    once.saturating_mul(1 << gave_way.min(IN_A_ROW))
}

/// The longest build or bake of the last releases.
fn usual(db: &Db<'_>, place: &Place) -> Result<SignedDuration, Error> {
    let mut longest = SignedDuration::ZERO;
    for release in db.releases(place, None, RECENT)? {
        let Some(execution) = release.execution else {
            continue;
        };
        for work in works(db, &execution)? {
            let took = work.ended.map(|ended| ended.duration_since(work.began));
            longest = longest.max(took.unwrap_or_default());
        }
    }
    Ok(longest)
}

/// How many releases in a row gave way to a newer push.
fn gave_way(db: &Db<'_>, place: &Place) -> Result<u32, Error> {
    let ended = db.executions(&ExecutionFilter {
        tenant: Some(place.tenant.clone()),
        app: Some(place.app.clone()),
        environment: Some(place.environment.clone()),
        kind: Some(RELEASE.into()),
        open: Some(false),
        limit: IN_A_ROW,
        ..ExecutionFilter::default()
    })?;
    let gave = |one: &&ExecutionSummary| one.error.as_deref() == Some(ERROR);
    Ok(u32::try_from(ended.iter().take_while(gave).count()).unwrap_or(IN_A_ROW))
}

fn works(db: &Db<'_>, execution: &ExecutionId) -> Result<Vec<Work>, Error> {
    let builds = db.ran_in_execution(execution)?.into_iter().map(|build| Work {
        began: build.started_at,
        ended: build.ended_at,
        waits: build.waits.is_some(),
    });
    let bakes = db.bakes_of_execution(execution)?.into_iter().map(|bake| Work {
        began: bake.started_at,
        ended: bake.ended_at.filter(|_| bake.state != WorkState::Running),
        waits: bake.waits.is_some(),
    });
    Ok(builds.chain(bakes).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::NewBuild;

    use super::*;
    use crate::{
        fixtures,
        flow::{definition, runs::tests::Sim},
    };

    #[test]
    fn whoever_pushes_often_sees_something_live_in_the_end() {
        let seconds = SignedDuration::from_secs;
        for (usual, gave_way, expected) in [
            (0, 0, 300),
            (100, 0, 300),
            (1000, 0, 2000),
            (0, 1, 600),
            (0, 3, 2400),
            (1000, 2, 8000),
        ] {
            let allowed = allowed(seconds(300), seconds(usual), gave_way);
            assert_eq!(allowed, seconds(expected), "{usual} {gave_way}");
        }
    }

    #[tokio::test]
    async fn a_build_that_hangs_gives_way_and_one_that_waits_or_goes_on_does_not() {
        let sim = Sim::new().await;
        let id = sim.begin(RELEASE, definition::tests::sample(false)).await;
        sim.succeed("source", json!({})).await;
        let building = sim.offered("build").await;
        let begun = crate::clock::now();
        let (own, ticket) = (id.clone(), "t-1".parse().unwrap());
        let new = NewBuild {
            execution: Some(id.clone()),
            ..fixtures::new_build(&ticket)
        };
        let by = store::By::platform(begun);
        sim.store
            .write(move |tx| tx.begin_build(&new, &by).map(drop))
            .await
            .unwrap();
        let look = async |after_s: i64| {
            let (id, at) = (own.clone(), begun + SignedDuration::from_secs(after_s));
            let patience = SignedDuration::from_secs(300);
            let read = sim
                .store
                .read(move |db| hangs(db, &Sim::place(), &db.execution_summary(&id)?, (at, patience)));
            read.await.unwrap()
        };
        assert_eq!(look(299).await, None);
        let why = look(302).await.unwrap();
        assert!(
            why.contains("hangs while it is made") && why.contains("300 s are enough"),
            "{why}"
        );
        // For room it waits as long as it takes.
        let waits = |why: Option<&'static str>| {
            let ticket = ticket.clone();
            sim.store.write(move |tx| tx.build_waits(&ticket, why))
        };
        waits(Some("no builder is free")).await.unwrap();
        assert_eq!(look(9000).await, None);
        waits(None).await.unwrap();
        assert!(look(9000).await.is_some());
        // What is not made any more is judged by what it does.
        sim.answer(building, json!({})).await;
        sim.succeed("bake", json!({})).await;
        drop(sim.offered("plan").await);
        assert_eq!(look(9000).await, None);
    }
}
