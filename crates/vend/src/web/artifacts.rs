//! What builds left, for whoever wants it elsewhere: tars, streamed from the machine that keeps them.

use std::collections::HashSet;

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
    let digest = built(&events).ok_or_else(|| {
        Refusal::conflict("nothing that the execution has built has become a revision")
            .next(format!("vend executions show {execution}"))
    })?;
    given(&state, digest).await
}

/// The revision that the build stage has answered with. Whatever else is run may answer with anything.
fn built(events: &[asl::HistoryEvent]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Answer {
        revision: Digest,
    }
    // Those of an activity name the one before, and so in the end the one that says which activity it is.
    let mut of_build: HashSet<u64> = HashSet::new();
    for event in events {
        let resource = || executions::activity(event.details["resource"].as_str().unwrap_or_default());
        let own = match event.kind.as_str() {
            "ActivityScheduled" => resource() == "build",
            "ActivityStarted" | "ActivitySucceeded" => of_build.contains(&event.previous),
            _ => false,
        };
        if !own {
            continue;
        }
        of_build.insert(event.id);
        let output = event.details["output"].as_str();
        let answer = output.and_then(|output| serde_json::from_str::<Answer>(output).ok());
        if let Some(answer) = answer {
            return Some(answer.revision);
        }
    }
    None
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
        let event = |id: u64, kind: &str, details: serde_json::Value| -> asl::HistoryEvent {
            let event = serde_json::json!({
                "id": id, "previous": id - 1, "at": "1970-01-01T00:00:00Z", "kind": kind, "details": details,
            });
            serde_json::from_value(event).unwrap()
        };
        let revision = Digest::of("whole");
        let output = serde_json::json!({ "revision": revision, "log": null, "reports": [] }).to_string();
        let task = |family: &str, resource: &str, output: &str| {
            built(&[
                event(1, "TaskStateEntered", serde_json::json!({ "name": "Build" })),
                event(
                    2,
                    &format!("{family}Scheduled"),
                    serde_json::json!({ "resource": resource }),
                ),
                event(3, &format!("{family}Started"), serde_json::json!({})),
                event(
                    4,
                    &format!("{family}Succeeded"),
                    serde_json::json!({ "output": output }),
                ),
                event(5, "TaskStateExited", serde_json::json!({ "output": output })),
            ])
        };
        let build = "arn:aws:states:local:0:activity:build";
        assert_eq!(task("Activity", build, &output), Some(revision));
        assert_eq!(
            task("Activity", build, "{}"),
            None,
            "a state hands on anybody's words"
        );
        // What others answer is no revision, whatever it looks like.
        for (family, resource) in [
            ("Task", "build"),
            ("LambdaFunction", build),
            ("Activity", "arn:aws:states:local:0:activity:bake"),
        ] {
            assert_eq!(task(family, resource, &output), None, "{family} {resource}");
        }
    }
}
