//! Deployments, with what happened on each host.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Held};
use model::{
    DeploymentId, HostId,
    policy::Action,
    wire::{DeployedHost, Deployment, Page},
};
use store::{Db, DeploymentState};

use super::{
    auth::Caller,
    executions::parse,
    input::{Path, Query},
    refusal::Refusal,
    scope::Scope,
    state::State,
};

fn wire(deployment: store::Deployment) -> Deployment {
    let state = match deployment.state {
        DeploymentState::Running => "running",
        DeploymentState::Succeeded => "succeeded",
        DeploymentState::Failed => "failed",
        DeploymentState::Stopped => "stopped",
    };
    Deployment {
        id: deployment.id,
        place: deployment.place.into(),
        release: deployment.release,
        execution: deployment.execution,
        state: state.to_owned(),
        reason: deployment.reason,
        started_at: deployment.started_at,
        ended_at: deployment.ended_at,
        hosts: Vec::new(),
    }
}

fn whole(db: &Db<'_>, id: &DeploymentId) -> Result<Deployment, store::Error> {
    let found = db.deployment(id)?;
    let mut hosts: BTreeMap<HostId, DeployedHost> = BTreeMap::new();
    let empty = |host: &HostId| DeployedHost {
        host: host.clone(),
        events: Vec::new(),
        verdict: None,
    };
    for (host, report) in db.deployment_events(id)? {
        let deployed = hosts.entry(host.clone()).or_insert_with(|| empty(&host));
        deployed.events.push(report);
    }
    for judged in db.verdicts(&found.place, found.release)? {
        if let Some(deployed) = hosts.get_mut(&judged.host) {
            deployed.verdict = Some(judged.verdict);
        }
    }
    Ok(Deployment {
        hosts: hosts.into_values().collect(),
        ..wire(found)
    })
}

/// The newest deployments of an environment. Has one page only.
#[utoipa::path(get, path = "/v1/deployments", operation_id = "deployments.list", tag = "executions", params(Scope),
    responses((status = 200, body = Page<Deployment>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Deployment>>, Refusal> {
    let scope = scope.within(&caller)?;
    let limit = scope.limit();
    let place = scope
        .place()
        .ok_or_else(|| Refusal::invalid("of which environment? name tenant, app and environment"))?;
    let found = state.store.read(move |db| db.deployments(&place, limit)).await?;
    Ok(Json(Page {
        items: found.into_iter().map(wire).collect(),
        next: None,
    }))
}

#[utoipa::path(get, path = "/v1/deployments/{deployment}", operation_id = "deployments.show", tag = "executions",
    params(("deployment" = String, Path)),
    responses((status = 200, body = Deployment), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deployment>, Refusal> {
    let id: DeploymentId = parse(&id)?;
    let what = format!("deployment `{id}`");
    let found = state.store.read(move |db| whole(db, &id)).await?;
    caller.may(Action::View, Some(&found.place.tenant), &what)?;
    Ok(Json(found))
}
