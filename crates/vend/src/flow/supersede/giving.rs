//! Why a release gives way, by the rows of the catalogue.

use camino::Utf8PathBuf;
use model::{
    ApprovalId, DeploymentId, Digest,
    plan::{Plan, PlanKind},
    port::HostRole,
    spec,
};
use store::{Batch, Begin, NewApproval, NewDeployment, NewExecution, NewHost, NewRelease, Store, Tx};

use super::*;
use crate::fixtures;

const MACHINE: &str = r#"{"StartAt":"End","States":{"End":{"Type":"Succeed"}}}"#;

fn by() -> By {
    By::new("person:ann", Timestamp::UNIX_EPOCH)
}

/// A release under way, with a deployment and one host.
fn seed(tx: &mut Tx<'_>, place: &Place, id: &ExecutionId) -> Result<(), Error> {
    tx.create_tenant(&place.tenant, &by())?;
    tx.create_app(&place.tenant, &place.app, None, &by())?;
    tx.ensure_environment(place, "main", &by())?;
    let app = spec::App::parse("app: shop\n", "vend.yaml", &|_| true).unwrap().0;
    let new = NewRelease {
        commit: fixtures::commit("main", by().at),
        source: Digest::of("source"),
        image: Digest::of("image"),
        revision: Digest::of("revision"),
        spec: app.environments[0].clone(),
        secrets: BTreeMap::new(),
        execution: Some(id.clone()),
    };
    tx.create_release(place, &new, &by())?;
    let run = 1;
    let begin = Begin {
        key: run,
        tenant: None,
        machine: 0,
        name: id.to_string(),
        arn: id.to_string(),
        origin: "{}".into(),
        definition: MACHINE.into(),
        input: "{}".into(),
        at: by().at,
        kin: None,
    };
    tx.append(&Batch {
        begins: vec![begin],
        ..Batch::default()
    })?;
    let new = NewExecution {
        id: id.clone(),
        place: Some(place.clone()),
        kind: "release".into(),
        run,
        deadline_at: None,
    };
    tx.start_execution(&new, &by())?;
    let new = NewDeployment {
        id: deployment(),
        place: place.clone(),
        release: 1,
        execution: Some(id.clone()),
        strategy: spec::Strategy::BlueGreen,
        cause: None,
    };
    tx.begin_deployment(&new, &by())?;
    let new = NewHost {
        id: host(),
        place: place.clone(),
        release: Some(1),
        role: HostRole::App,
        image: Some(Digest::of("image")),
        size: "small".into(),
    };
    tx.create_host(&new, &by()).map(drop)
}

fn deployment() -> DeploymentId {
    DeploymentId::from_bits(3)
}

fn host() -> HostId {
    HostId::from_bits(4)
}

/// It asks one person.
fn ask(tx: &Tx<'_>, place: &Place, execution: &ExecutionId) -> Result<(), Error> {
    let new = NewApproval {
        id: ApprovalId::from_bits(5),
        place: place.clone(),
        execution: execution.clone(),
        task: 1,
        plan: Plan {
            place: place.to_string(),
            kind: PlanKind::Release,
            from: None,
            to: 1,
            changes: Vec::new(),
            commits: Vec::new(),
        },
        required: 1,
        approvers: Vec::new(),
        authors: Vec::new(),
        author_may_approve: false,
        expires_at: by().at + SignedDuration::from_hours(1),
    };
    tx.open_approval(&new, &by()).map(drop)
}

#[tokio::test]
async fn what_is_held_asked_about_or_failing_gives_way_and_what_goes_well_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let store = Store::open(&path).unwrap();
    let told = store.write(|tx| {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let id = ExecutionId::from_bits(2);
        seed(tx, &place, &id)?;
        let mut told = vec![broken(tx, &place, &id)?];
        tx.set_host_state(&host(), HostState::Failed, Some("exit code 1"), &by())?;
        told.push(broken(tx, &place, &id)?);
        tx.set_host_state(&host(), HostState::Starting, None, &by())?;
        tx.pause_deployment(&deployment(), true, &by())?;
        told.push(broken(tx, &place, &id)?);
        tx.pause_deployment(&deployment(), false, &by())?;
        told.push(broken(tx, &place, &id)?);
        ask(tx, &place, &id)?;
        told.push(broken(tx, &place, &id)?);
        Ok::<_, Error>(told)
    });
    let failed = format!("it failed on host {}", host());
    let expected = [
        None,
        Some(failed.as_str()),
        Some("person:ann paused it"),
        None,
        Some("it waits for people"),
    ];
    let told = told.await.unwrap();
    let told: Vec<Option<&str>> = told.iter().map(Option::as_deref).collect();
    assert_eq!(told, expected);
}
