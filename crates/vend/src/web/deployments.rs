//! Deployments, with what happened on each host.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Held, http::StatusCode};
use jiff::Timestamp;
use model::{
    DeploymentId, HostId,
    policy::Action,
    spec::Strategy,
    wire::{Analysis, DeployedHost, Deployment, Page, Started},
};
use serde_json::{Value, json};
use store::Db;

use super::{
    auth::Caller,
    executions::{Ending, parse},
    input::{Path, Query},
    refusal::Refusal,
    scope::Scope,
    state::State,
};
use crate::flow::part;

fn wire(deployment: store::Deployment) -> Deployment {
    let (paused_by, paused_at) = deployment.paused.unzip();
    Deployment {
        id: deployment.id,
        place: deployment.place.into(),
        release: deployment.release,
        execution: deployment.execution,
        strategy: deployment.strategy.word().to_owned(),
        cause: deployment.cause,
        state: deployment.state.word().to_owned(),
        reason: deployment.reason,
        code: deployment.code,
        paused_by,
        paused_at,
        started_at: deployment.started_at,
        ended_at: deployment.ended_at,
        hosts: Vec::new(),
        analyses: Vec::new(),
    }
}

fn analysis((at, mut value): (Timestamp, Value)) -> Option<Analysis> {
    value["at"] = json!(at);
    serde_json::from_value(value).ok()
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
        analyses: db.analyses(id)?.into_iter().filter_map(analysis).collect(),
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

/// The deployment, if the caller may do something about it.
async fn own(state: &State, caller: &Caller, id: &str) -> Result<DeploymentId, Refusal> {
    let id: DeploymentId = parse(id)?;
    let what = format!("deployment `{id}`");
    let own = id.clone();
    let found = state.store.read(move |db| db.deployment(&own)).await?;
    caller.may(Action::Develop, Some(&found.place.tenant), &what)?;
    Ok(id)
}

async fn hold(state: State, caller: Caller, id: &str, held: bool) -> Result<Json<Deployment>, Refusal> {
    let id = own(&state, &caller, id).await?;
    state.commands.hold(id.clone(), held, state.by(&caller.0)).await?;
    Ok(Json(state.store.read(move |db| whole(db, &id)).await?))
}

/// Holds a deployment before its next step: its hosts stay as they are, and so does the traffic. Seven days at most.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/pause", operation_id = "deployments.pause",
    tag = "executions", params(("deployment" = String, Path)),
    responses((status = 200, body = Deployment), Refusal))]
pub async fn pause(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deployment>, Refusal> {
    hold(state, caller, &id, true).await
}

/// Lets a deployment go on that is held.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/resume", operation_id = "deployments.resume",
    tag = "executions", params(("deployment" = String, Path)),
    responses((status = 200, body = Deployment), Refusal))]
pub async fn resume(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deployment>, Refusal> {
    hold(state, caller, &id, false).await
}

/// Ends a deployment. The release before gets its hosts and all traffic back; registered machines keep what they have. Refused in the middle of a migration, unless
/// told so.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/abort", operation_id = "deployments.abort",
    tag = "executions", params(("deployment" = String, Path), Ending),
    responses((status = 202, body = Started), Refusal))]
pub async fn abort(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
    Query(ending): Query<Ending>,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    let id = own(&state, &caller, &id).await?;
    let own = id.clone();
    let read = state.store.read(move |db| {
        let found = db.deployment(&own)?;
        let release = db.release(&found.place, found.release)?.content;
        let environment = db.environment(&found.place)?;
        let live = environment.live;
        let placed = release.spec.placement.is_some();
        let undo = match &found.execution {
            Some(execution) => db.open_undo(execution)?,
            None => None,
        };
        if undo.is_some_and(|undo| undo.id == found.id) {
            let (id, release) = (&found.id, found.release);
            let what = match live.filter(|live| *live != release && found.strategy != Strategy::InPlace) {
                Some(live) => format!("v{live} stays live, unless v{release} has hosts by then"),
                None => {
                    format!("hosts that have not got v{release} back yet go, and others take their place")
                }
            };
            return Ok(format!("{id} is being stopped; {what}"));
        }
        if let Some(old) = environment.previous
            && found.strategy != Strategy::InPlace
            && live == Some(found.release)
            && part::has_begun(db, &found.place, old, &found.id)?
        {
            let (id, release) = (&found.id, found.release);
            return Ok(format!(
                "{id} is being stopped; v{release} is live already, and stays: vend rollback goes back"
            ));
        }
        Ok::<_, store::Error>(stopping(
            &found,
            live.filter(|live| *live != found.release),
            placed,
        ))
    });
    let summary = read.await?;
    let by = state.by(&caller.0);
    let execution = state.commands.abort(id, ending.in_migration, by).await?;
    let started = Started {
        executions: vec![execution],
        summary,
    };
    Ok((StatusCode::ACCEPTED, Json(started)))
}

/// What becomes of what a deployment did that is ended. `live`: the release that serves beside it. `placed`: it goes to
/// registered machines.
fn stopping(own: &store::Deployment, live: Option<u64>, placed: bool) -> String {
    let (id, release) = (&own.id, own.release);
    let what = match (placed, live, own.strategy) {
        (true, Some(live), _) => format!("machines that have v{release} get v{live} again"),
        (true, None, _) => format!("machines that have v{release} keep it"),
        (false, Some(live), Strategy::InPlace) => {
            format!("hosts that have v{release} get v{live} again, and all traffic goes to it")
        }
        (false, Some(live), _) => format!("the hosts of v{release} go, and all traffic is v{live}'s"),
        (false, None, _) => format!("what it did is undone: v{release} goes"),
    };
    format!("{id} is being stopped; {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_deployment_that_is_ended_is_its_strategys() {
        let own = |strategy| store::Deployment {
            id: DeploymentId::from_bits(7),
            place: "acme/shop/dev".parse().unwrap(),
            release: 4,
            execution: None,
            strategy,
            cause: None,
            state: store::DeploymentState::InProgress,
            reason: None,
            code: None,
            paused: None,
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        };
        use Strategy::{BlueGreen, Canary, InPlace};
        for (strategy, live, placed, said) in [
            (InPlace, Some(3), true, "machines that have v4 get v3 again"),
            (BlueGreen, None, true, "machines that have v4 keep it"),
            (
                InPlace,
                Some(3),
                false,
                "hosts that have v4 get v3 again, and all traffic goes to it",
            ),
            (
                Canary,
                Some(3),
                false,
                "the hosts of v4 go, and all traffic is v3's",
            ),
            (BlueGreen, None, false, "what it did is undone: v4 goes"),
        ] {
            let told = stopping(&own(strategy), live, placed);
            assert!(told.ends_with(&format!(" is being stopped; {said}")), "{told}");
        }
    }
}
