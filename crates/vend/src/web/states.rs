//! The Step Functions API: the AWS CLI and the SDKs work against it unchanged, with `--endpoint-url`.
//!
//! The room speaks AWS's JSON protocol and knows its words: names, ARNs, exceptions. What runs, the engine runs; who may
//! do what, the platform's policy says. A tenant is an account: its number stands where an account's would.

mod activities;
mod aliases;
mod arn;
mod call;
mod executions;
mod fault;
mod known;
mod machines;
mod maps;
mod objects;
pub mod services;
mod sign;
mod tags;
mod versions;
mod who;

pub use known::Known;
pub use objects::Buckets;

use axum::{
    body::{Body, to_bytes},
    extract::{Extension, Request, State as Held},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use model::{TenantName, policy::Action};
use serde_json::Value;

use self::{call::Call, fault::Fault};
use super::{listen::Peer, state::State};

/// Bytes of a request: a definition has up to a megabyte, and JSON in JSON is longer.
const MAX_BODY_BYTES: usize = 4 << 20;

/// What the room is given.
pub struct States {
    pub engine: engine::Handle,
    pub known: std::sync::Arc<Known>,
    /// As which tenant callers on loopback act that sign with nobody's key; `None`: they are refused.
    pub unsigned: Option<TenantName>,
}

/// Every operation, with what its caller must be allowed to do.
pub const OPERATIONS: [(&str, Action); 37] = [
    ("CreateStateMachine", Action::Develop),
    ("UpdateStateMachine", Action::Develop),
    ("DeleteStateMachine", Action::Develop),
    ("DescribeStateMachine", Action::View),
    ("ListStateMachines", Action::View),
    ("ValidateStateMachineDefinition", Action::View),
    ("PublishStateMachineVersion", Action::Develop),
    ("ListStateMachineVersions", Action::View),
    ("DeleteStateMachineVersion", Action::Develop),
    ("CreateStateMachineAlias", Action::Develop),
    ("UpdateStateMachineAlias", Action::Develop),
    ("DescribeStateMachineAlias", Action::View),
    ("ListStateMachineAliases", Action::View),
    ("DeleteStateMachineAlias", Action::Develop),
    ("StartExecution", Action::Develop),
    ("StartSyncExecution", Action::Develop),
    ("StopExecution", Action::Develop),
    ("RedriveExecution", Action::Develop),
    ("DescribeExecution", Action::View),
    ("DescribeStateMachineForExecution", Action::View),
    ("ListExecutions", Action::View),
    ("GetExecutionHistory", Action::View),
    ("CreateActivity", Action::Develop),
    ("DescribeActivity", Action::View),
    ("ListActivities", Action::View),
    ("DeleteActivity", Action::Develop),
    ("GetActivityTask", Action::Develop),
    ("SendTaskSuccess", Action::Develop),
    ("SendTaskFailure", Action::Develop),
    ("SendTaskHeartbeat", Action::Develop),
    ("TagResource", Action::Develop),
    ("UntagResource", Action::Develop),
    ("ListTagsForResource", Action::View),
    ("ListMapRuns", Action::View),
    ("DescribeMapRun", Action::View),
    ("UpdateMapRun", Action::Develop),
    ("TestState", Action::View),
];

/// One call of the API.
pub async fn serve(Held(state): Held<State>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    match answer(state, peer, request).await {
        Ok(value) => written(StatusCode::OK, &value),
        Err(fault) => {
            let mut response = written(fault.status(), &fault.body());
            let kind = HeaderValue::from_static(fault.name);
            response.headers_mut().insert("x-amzn-errortype", kind);
            response
        }
    }
}

async fn answer(state: State, peer: Peer, request: Request) -> Result<Value, Fault> {
    let (parts, body) = request.into_parts();
    let operation = operation(&parts.headers).ok_or_else(Fault::unknown_operation)?;
    let body = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| Fault::validation("the request is too large"))?;
    let caller = who::caller(&state, peer, &parts, &body).await?;
    let input = match body.is_empty() {
        true => Value::Object(serde_json::Map::new()),
        false => asl::json::read(&body).map_err(|_| Fault::new("SerializationException", "not JSON"))?,
    };
    let (name, action) = operation;
    let call = Call::new(state, caller, action, &parts.headers, input)?;
    call.run(name).await
}

fn operation(headers: &HeaderMap) -> Option<(&'static str, Action)> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    let name = target.strip_prefix("AWSStepFunctions.")?;
    OPERATIONS.into_iter().find(|(known, _)| *known == name)
}

fn written(status: StatusCode, value: &Value) -> Response {
    let body = Body::from(value.to_string());
    let kind = (header::CONTENT_TYPE, "application/x-amz-json-1.0");
    (status, [kind], body).into_response()
}
