//! Whom a tenant keeps waiting whose tasks take all its room: on the real engine and store, with activities of the test's.

use std::sync::{Mutex, PoisonError};

use model::{ExecutionId, Place};
use serde_json::{Value, json};
use store::Status;

use super::*;
use crate::flow::{
    definition::tests::sample,
    runs::{RELEASE, tests::Sim},
};

/// Places of a tenant in one stage.
const ROOM: usize = 2;

/// What activities were begun, and of which executions.
type Told = Arc<Mutex<Vec<(String, ExecutionId)>>>;

/// A world in which the stage that an execution's input names never ends, and all others do at once, but those that ask
/// people.
struct Busy {
    sim: Sim,
    told: Told,
    /// Each task that is worked on, or waits, has it, too.
    crew: Arc<Crew>,
    works: tokio::task::JoinHandle<()>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.works.abort();
    }
}

impl Busy {
    async fn new() -> Self {
        let (sim, told) = (Sim::new().await, Told::default());
        let log = Arc::clone(&told);
        let crew = Crew {
            store: sim.store.clone(),
            engine: sim.engine.clone(),
            pokes: Arc::default(),
            rooms: Rooms::new(ROOM, 100),
            act: Box::new(move |activity, attempt| {
                let begun = (activity.to_owned(), attempt.execution.clone());
                log.lock().unwrap_or_else(PoisonError::into_inner).push(begun);
                Box::pin(async move {
                    match activity {
                        _ if attempt.input["hangs"] == activity => std::future::pending().await,
                        "approve" => Ok(Outcome::Later),
                        _ => Ok(Outcome::Done(json!({}))),
                    }
                })
            }),
        };
        let crew = Arc::new(crew);
        let works = tokio::spawn(work(Arc::clone(&crew)));
        Self {
            sim,
            told,
            crew,
            works,
        }
    }

    /// How many tasks somebody has.
    fn tasks(&self) -> usize {
        Arc::strong_count(&self.crew) - 2
    }

    /// An execution of its own environment in a tenant.
    async fn begin(&self, place: &str, kind: &'static str, asks: bool, input: Value) -> ExecutionId {
        let place: Place = place.parse().unwrap();
        self.sim.begin_in(place, kind, sample(asks), input).await
    }

    /// So many of a tenant of which this stage never ends.
    async fn hang(&self, count: usize, activity: &str) -> Vec<ExecutionId> {
        let mut begun = Vec::new();
        for number in 0..count {
            let place = format!("acme/shop/env-{number}");
            let input = json!({ "hangs": activity });
            begun.push(self.begin(&place, RELEASE, false, input).await);
        }
        begun
    }

    /// Of which executions the activity was begun, in this order.
    fn begun(&self, activity: &str) -> Vec<ExecutionId> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begun = Vec::new();
        for (own, id) in &*told {
            if own == activity && !begun.contains(id) {
                begun.push(id.clone());
            }
        }
        begun
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        for _ in 0..2000 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: {:?}", self.told.lock().unwrap());
    }

    async fn ended(&self, id: &ExecutionId) -> Status {
        let status = async || {
            let id = id.clone();
            let found = self.sim.store.read(move |db| db.execution_summary(&id)).await;
            found.unwrap().status
        };
        self.until("it does not end", async || status().await != Status::Running)
            .await;
        status().await
    }

    /// Is a task of this activity what the execution does, and has somebody taken it?
    async fn is_at(&self, id: &ExecutionId, activity: &str) -> bool {
        let (id, resource) = (id.clone(), definition::arn(&format!("activity:{activity}")));
        let read = self.sim.store.read(move |db| {
            let run = db.execution_summary(&id)?.run;
            runs::open(db, run)
        });
        let run = read.await.unwrap();
        run.is_some_and(|run| {
            let mut orders = run.orders.values();
            orders.any(|order| *order.resource == *resource && order.started)
        })
    }

    async fn abort(&self, id: &ExecutionId) {
        let own = id.clone();
        let found = self.sim.store.read(move |db| db.execution_summary(&own));
        let run = found.await.unwrap().run;
        cancel::interrupt(&self.sim.engine, run, "ann cancelled it")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_tenant_whose_hooks_all_hang_stops_nobody_else_and_not_its_own_way_back() {
    let world = Busy::new().await;
    let hung = world.hang(ROOM + 3, "deploy").await;
    for id in &hung {
        world
            .until("it is not taken", async || world.is_at(id, "deploy").await)
            .await;
    }
    assert_eq!(world.begun("deploy").len(), ROOM);

    let other = world.begin("other/shop/dev", RELEASE, false, json!({})).await;
    assert_eq!(world.ended(&other).await, Status::Succeeded);
    let back = world.begin("acme/shop/back", "rollback", false, json!({})).await;
    assert_eq!(world.ended(&back).await, Status::Succeeded);
    let heal = world.begin("acme/shop/heal", "heal", false, json!({})).await;
    assert_eq!(world.ended(&heal).await, Status::Succeeded);
    // A new push of the same tenant is made and planned, too.
    let push = world.hang(1, "shift").await.remove(0);
    world
        .until("it is not planned", async || world.begun("plan").contains(&push))
        .await;

    let first = world.begun("deploy")[0].clone();
    world.abort(&first).await;
    assert_eq!(world.ended(&first).await, Status::Failed);
    assert_eq!(world.begun("unwind"), [first]);
}

#[tokio::test]
async fn what_waits_for_room_ends_when_it_is_cancelled_and_is_next_when_there_is_some() {
    let world = Busy::new().await;
    let hung = world.hang(ROOM + 2, "deploy").await;
    for id in &hung {
        world
            .until("it is not taken", async || world.is_at(id, "deploy").await)
            .await;
    }
    let works = world.begun("deploy");
    let mut waits = hung.iter().filter(|id| !works.contains(id));
    let (cancelled, next) = (waits.next().unwrap(), waits.next().unwrap());
    world.abort(cancelled).await;
    assert_eq!(world.ended(cancelled).await, Status::Failed);
    world
        .until("it still waits", async || world.tasks() == hung.len() - 1)
        .await;
    assert_eq!(world.begun("unwind"), std::slice::from_ref(cancelled));

    world.abort(&works[0]).await;
    world
        .until("none follows", async || world.begun("deploy").contains(next))
        .await;
    assert!(!world.begun("deploy").contains(cancelled));
}

#[tokio::test]
async fn what_waits_for_an_answer_takes_no_room() {
    let world = Busy::new().await;
    for number in 0..ROOM + 3 {
        let place = format!("acme/shop/env-{number}");
        world.begin(&place, RELEASE, true, json!({})).await;
    }
    world
        .until("not all were asked about", async || {
            world.begun("approve").len() == ROOM + 3
        })
        .await;
}
