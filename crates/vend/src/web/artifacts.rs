//! What builds left, for whoever wants it elsewhere: tars, streamed from the machine that keeps them.

use axum::{
    extract::State as Held,
    http::header,
    response::{IntoResponse, Response},
};
use model::{
    Digest, ExecutionId,
    policy::Action,
    port::{Blame, Built},
};
use serde::Deserialize;
use store::Build;

use super::{
    auth::Caller,
    executions,
    input::{Path, Query},
    refusal::{Kind, Refusal},
    state::State,
};
use crate::flow::runs;

/// Which of a build's artifacts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// The identifier of a secondary one; the main one when absent.
    name: Option<String>,
}

/// An artifact of a build that succeeded, as a tar. It is there for as long as the release that came of it can be gone back to.
#[utoipa::path(get, path = "/v1/executions/{execution}/builds/{build}/artifact", operation_id = "executions.artifact",
    tag = "executions", params(("execution" = String, Path), ("build" = u64, Path), Which),
    responses((status = 200, body = String, content_type = "application/x-tar"), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path((execution, number)): Path<(ExecutionId, u64)>,
    Query(Which { name }): Query<Which>,
) -> Result<Response, Refusal> {
    executions::allowed(&state, &caller, Action::View, &execution).await?;
    let own = execution.clone();
    let builds = state.store.read(move |db| db.builds_of_execution(&own)).await?;
    let next = format!("vend executions show {execution}");
    let digest = artifact(builds, number, name.as_deref()).map_err(|refusal| refusal.next(next.clone()))?;
    given(&state, digest).await
}

/// What an execution's builds came to, as a tar: the artifact that became the revision. It is there for as long as the release
/// that came of it can be gone back to.
#[utoipa::path(get, path = "/v1/executions/{execution}/artifact", operation_id = "executions.revision",
    tag = "executions", params(("execution" = String, Path)),
    responses((status = 200, body = String, content_type = "application/x-tar"), Refusal))]
pub async fn revision(
    Held(state): Held<State>,
    caller: Caller,
    Path(execution): Path<ExecutionId>,
) -> Result<Response, Refusal> {
    let found = executions::allowed(&state, &caller, Action::View, &execution).await?;
    let events = state
        .store
        .read(move |db| runs::history(db, found.run, executions::HISTORY))
        .await?;
    let digest = events.iter().find_map(built).ok_or_else(|| {
        Refusal::conflict("nothing that the execution has built has become a revision")
            .next(format!("vend executions show {execution}"))
    })?;
    given(&state, digest).await
}

/// The revision that a stage has answered with: the build alone does.
fn built(event: &asl::HistoryEvent) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Answer {
        revision: Digest,
    }
    let answers = event.kind.as_str().ends_with("Succeeded");
    let output = event.details["output"].as_str().filter(|_| answers)?;
    let answer: Answer = serde_json::from_str(output).ok()?;
    Some(answer.revision)
}

async fn given(state: &State, digest: Digest) -> Result<Response, Refusal> {
    let body = state
        .sight
        .object(digest)
        .await
        .map_err(|fault| match fault.blame {
            // The node refuses to give what is not there in only one way.
            Blame::Order => Refusal::new(
                Kind::NotFound,
                "the artifact is not kept any more: no release that is needs it",
            )
            .next("push the same commit again"),
            _ => fault.into(),
        })?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

fn artifact(builds: Vec<Build>, number: u64, name: Option<&str>) -> Result<Digest, Refusal> {
    let build = builds.into_iter().find(|build| build.number == number);
    let build = build.ok_or_else(|| Refusal::not_found(format_args!("build {number} of this execution")))?;
    let Some(Built {
        artifact, secondary, ..
    }) = build.built
    else {
        return Err(Refusal::conflict(format!(
            "build {number} has not succeeded: there is no artifact of it"
        )));
    };
    match name {
        None => Ok(artifact),
        Some(name) => secondary
            .get(name)
            .copied()
            .ok_or_else(|| Refusal::not_found(format_args!("artifact `{name}` of build {number}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_what_the_build_answered() {
        let event = |kind: &str, output: serde_json::Value| -> asl::HistoryEvent {
            let details = serde_json::json!({ "output": output.to_string() });
            let event = serde_json::json!({
                "id": 1, "previous": 0, "at": "1970-01-01T00:00:00Z", "kind": kind, "details": details,
            });
            serde_json::from_value(event).unwrap()
        };
        let revision = Digest::of("whole");
        let answer = serde_json::json!({ "revision": revision, "log": null, "reports": [] });
        assert_eq!(built(&event("ActivitySucceeded", answer.clone())), Some(revision));
        // What a state hands on may be anybody's words.
        assert_eq!(built(&event("TaskStateExited", answer)), None);
        let image = serde_json::json!({ "image": revision });
        assert_eq!(built(&event("ActivitySucceeded", image)), None);
    }
}
