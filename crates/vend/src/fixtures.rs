//! Rows that tests of several rooms begin with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    ApprovalId, Digest, ExecutionId, HostId, Place, Ticket,
    plan::{Plan, PlanKind},
    port::{Commit, HostRole},
    spec,
};
use store::{Host, HostState, NewApproval, NewBuild, NewHost, NewPush, NewRelease};

/// A commit of a branch of which only the branch matters.
pub fn commit(branch: &str, at: Timestamp) -> Commit {
    Commit {
        id: "0".repeat(40),
        author: String::new(),
        message: String::new(),
        branch: branch.into(),
        repository: String::new(),
        committed_at: at,
    }
}

/// Somebody's push for an environment, to its branch `dev`.
pub fn new_push(place: &Place) -> NewPush {
    NewPush {
        tenant: place.tenant.clone(),
        app: place.app.clone(),
        environment: Some(place.environment.clone()),
        branch: "dev".into(),
        commit: commit("dev", Timestamp::UNIX_EPOCH),
        origin: "git".into(),
        event: None,
    }
}

/// A release of an app that asks for nothing.
pub fn new_release(execution: Option<&ExecutionId>) -> NewRelease {
    let app = spec::App::parse("app: shop\n", "vend.yaml", &|_| true).expect("a vend.yaml");
    NewRelease {
        commit: commit("dev", Timestamp::UNIX_EPOCH),
        source: Digest::of("source"),
        image: Digest::of("image"),
        revision: Digest::of("revision"),
        spec: app.0.environments[0].clone(),
        secrets: BTreeMap::new(),
        execution: execution.cloned(),
    }
}

/// A build of `acme/shop/dev` that begins.
pub fn new_build(ticket: &Ticket) -> NewBuild {
    NewBuild {
        ticket: ticket.clone(),
        place: "acme/shop/dev".parse().expect("a place"),
        execution: None,
        commit: commit("dev", Timestamp::UNIX_EPOCH),
        source: Digest::of("source"),
        identifier: None,
        log: None,
    }
}

/// A host of `acme/shop/dev`, of the beginning of time.
pub fn host(number: u64, release: u64, state: HostState) -> Host {
    Host {
        id: HostId::from_bits(number),
        place: "acme/shop/dev".parse().expect("a place"),
        release: Some(release),
        role: HostRole::App,
        address: [10, 0, 0, 1].into(),
        image: None,
        size: "small".into(),
        state,
        reason: None,
        retire_at: None,
        created_at: Timestamp::UNIX_EPOCH,
        changed_at: Timestamp::UNIX_EPOCH,
    }
}

/// A small host of a release, or else a database's.
pub fn new_host(number: u64, place: &Place, release: Option<u64>) -> NewHost {
    NewHost {
        id: HostId::from_bits(number),
        place: place.clone(),
        release,
        role: match release {
            Some(_) => HostRole::App,
            None => HostRole::Database,
        },
        image: release.map(|_| Digest::of("image")),
        size: "small".into(),
    }
}

/// One person is asked about release 1.
pub fn new_approval(place: &Place, execution: &ExecutionId, expires_at: Timestamp) -> NewApproval {
    NewApproval {
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
        expires_at,
    }
}
