//! Releases on the real engine and store, their work done by the test.

use std::sync::Arc;

use asl::Machine;
use camino::Utf8PathBuf;
use engine::{Handle, Limits, Offer, Setup, Start};
use model::{ExecutionId, spec};
use store::Store;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::flow::{definition::tests::sample, late, start};

/// One environment of which executions begin.
pub struct Sim {
    pub store: Store,
    pub engine: Handle,
    _directory: TempDir,
    _cancel: DropGuard,
}

impl Sim {
    pub fn place() -> Place {
        "acme/shop/dev".parse().unwrap()
    }

    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let (store, cancel) = (Store::open(&path).unwrap(), CancellationToken::new());
        let (engine, handle) = engine::new(Setup {
            store: store.clone(),
            clock: crate::clock::now,
            bits: crate::clock::bits,
            refuses: Arc::new(|_, _| None),
            own: definition::is_known,
            objects: None,
            witness: Some(Arc::new(Clerk(Arc::default()))),
            limits: Limits::default(),
        });
        tokio::spawn(engine.run(cancel.clone().cancelled_owned()));
        let seeded = store.write(|tx| {
            let (place, by) = (Self::place(), By::platform(crate::clock::now()));
            tx.create_tenant(&place.tenant, &by)?;
            tx.create_app(&place.tenant, &place.app, None, &by)?;
            tx.ensure_environment(&place, "dev", &by).map(drop)
        });
        seeded.await.unwrap();
        Self {
            store,
            engine: handle,
            _directory: directory,
            _cancel: cancel.drop_guard(),
        }
    }

    /// A release, or somebody goes back to one, or else the live one gets its number of hosts.
    pub async fn begin(&self, kind: &'static str, environment: spec::Environment) -> ExecutionId {
        self.begin_in(Self::place(), kind, environment, json!({})).await
    }

    /// The same anywhere, with an input.
    pub async fn begin_in(
        &self,
        place: Place,
        kind: &'static str,
        environment: spec::Environment,
        input: Value,
    ) -> ExecutionId {
        let id = ExecutionId::from_bits(crate::clock::bits());
        self.begin_as(&id, place, kind, environment, input).await;
        id
    }

    pub async fn begin_as(
        &self,
        id: &ExecutionId,
        place: Place,
        kind: &'static str,
        environment: spec::Environment,
        input: Value,
    ) {
        let flow = match kind {
            RELEASE => definition::release(&environment, environment.approval.as_ref()),
            start::ROLLBACK => definition::rollback(&environment),
            _ => definition::resize(),
        };
        let definition = flow.to_string();
        let start = Start {
            tenant: None,
            owner: PLATFORM,
            machine: 0,
            machine_arn: "machine".into(),
            machine_name: kind.into(),
            role: "vend".into(),
            program: Machine::parse(&definition).unwrap(),
            definition,
            name: id.to_string(),
            arn: id.to_string(),
            origin: "{}".into(),
            input,
            fresh: true,
        };
        let own = id.clone();
        let also = move |tx: &mut Tx<'_>, run| {
            let new = NewExecution {
                id: own,
                place: Some(place),
                kind: kind.into(),
                run,
                deadline_at: None,
            };
            tx.start_execution(&new, &By::platform(crate::clock::now()))
        };
        self.engine.start_with(start, Box::new(also)).await.unwrap();
    }

    async fn summary(&self, id: &ExecutionId) -> ExecutionSummary {
        let id = id.clone();
        let read = self.store.read(move |db| db.execution_summary(&id));
        read.await.unwrap()
    }

    pub async fn is_open(&self, id: &ExecutionId) -> bool {
        self.summary(id).await.ended_at.is_none()
    }

    /// Waits for its end.
    pub async fn ended(&self, id: &ExecutionId) {
        let run = self.summary(id).await.run;
        while self.is_open(id).await {
            let _ = self.engine.end_of(run).await.unwrap().await;
        }
    }

    /// As an operator of the engine stops it, without its way back.
    pub async fn stop(&self, id: &ExecutionId) {
        let run = self.summary(id).await.run;
        let stopped = self.engine.stop(run, None, Some("enough".into()));
        stopped.await.unwrap();
    }

    /// What waits to be tried again is tried now.
    pub async fn hurry(&self, id: &ExecutionId) {
        let run = self.summary(id).await.run;
        self.engine.interrupt(run, "", "", |_| true).await.unwrap();
    }

    /// The next task of an activity.
    pub async fn offered(&self, activity: &str) -> Offer {
        let resource = definition::arn(&format!("activity:{activity}"));
        self.engine.poll(&resource, None).await.unwrap()
    }

    pub async fn answer(&self, offer: Offer, output: Value) {
        self.engine.succeed(PLATFORM, &offer.token, output).await.unwrap();
    }

    pub async fn succeed(&self, activity: &str, output: Value) {
        self.answer(self.offered(activity).await, output).await;
    }

    /// As the platform fails: it is tried again a moment later.
    pub async fn fail(&self, offer: Offer) {
        self.fails(offer, "Vend.Platform").await;
    }

    /// As a release fails.
    pub async fn breaks(&self, offer: Offer) {
        self.fails(offer, "Vend.Customer").await;
    }

    async fn fails(&self, offer: Offer, error: &str) {
        let failed = self
            .engine
            .fail(PLATFORM, &offer.token, Some(error.to_owned()), None);
        failed.await.unwrap();
    }

    /// Who has the hosts, whom each comes after, and whether others are refused.
    async fn holder(&self) -> Option<ExecutionId> {
        let read = self.store.read(|db| -> Result<_, Error> {
            let refused = start::refuse_moving(db, &Self::place()).is_err();
            let found = moving(db, &Self::place())?;
            assert_eq!(refused, found.is_some());
            Ok(found.map(|found| found.id))
        });
        read.await.unwrap()
    }

    async fn ahead_of(&self, id: &ExecutionId) -> Option<ExecutionId> {
        let id = id.clone();
        let read = self.store.read(move |db| ahead(db, &Self::place(), &id));
        read.await.unwrap().map(|found| found.id)
    }

    /// Is it quiet enough for machines that joined late?
    async fn is_quiet(&self) -> bool {
        self.store
            .read(|db| late::is_quiet(db, &Self::place()))
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_release_has_the_hosts_from_its_plan_on_and_not_while_it_is_made_or_asked_about() {
    let sim = Sim::new().await;
    let release = sim.begin(RELEASE, sample(true)).await;
    let source = sim.offered("source").await;
    assert_eq!(sim.holder().await, None);
    sim.answer(source, json!({})).await;
    let (build, bake) = (sim.offered("build").await, sim.offered("bake").await);
    assert_eq!(sim.holder().await, None);
    // Both wait to be tried again.
    sim.fail(build).await;
    sim.fail(bake).await;
    assert_eq!(sim.holder().await, None);
    assert!(!sim.is_quiet().await, "what is made takes late machines along");
    sim.succeed("build", json!({})).await;
    sim.succeed("bake", json!({})).await;
    let plan = sim.offered("plan").await;
    assert_eq!(sim.holder().await, Some(release.clone()));
    sim.answer(plan, json!({ "release": 1 })).await;
    let people = sim.offered("approve").await;
    assert_eq!(sim.holder().await, None);
    sim.answer(people, json!({})).await;
    let confirm = sim.offered("confirm").await;
    assert_eq!(sim.holder().await, Some(release.clone()));
    sim.answer(confirm, json!({ "same": true })).await;
    let provision = sim.offered("provision").await;
    assert_eq!(sim.holder().await, Some(release.clone()));
    // Nothing is asked of anybody for a moment: it has them all the same.
    sim.fail(provision).await;
    assert_eq!(sim.holder().await, Some(release));
}

#[tokio::test]
async fn what_began_while_a_release_was_made_goes_first_and_neither_waits_for_ever() {
    let sim = Sim::new().await;
    let release = sim.begin(RELEASE, sample(false)).await;
    sim.succeed("source", json!({})).await;
    let heal = sim.begin("heal", sample(false)).await;
    assert_eq!(sim.holder().await, Some(heal.clone()));
    sim.succeed("build", json!({})).await;
    sim.succeed("bake", json!({})).await;
    drop(sim.offered("plan").await);
    assert_eq!(sim.ahead_of(&release).await, Some(heal.clone()));
    assert_eq!(sim.ahead_of(&heal).await, None);
    for activity in ["provision", "deploy", "validate", "gate", "shift", "record"] {
        sim.succeed(activity, json!({})).await;
    }
    assert_eq!(sim.ahead_of(&release).await, None);
    assert_eq!(sim.holder().await, Some(release));
}
