//! How an execution went, as a picture of its machine: one of the platform's own, by its id, or one of the users' state
//! machines, by its ARN.

use axum::{
    Json,
    extract::State as Held,
    http::header,
    response::{IntoResponse as _, Response},
};
use model::{ExecutionId, policy::Action, wire::Drawing};
use serde_json::{Value, json};
use store::Db;

use super::{
    auth::Caller,
    executions,
    input::Path,
    refusal::{Kind, Refusal},
    state::State,
};
use crate::states::draw;

/// Events that are read at a time; each may carry a payload.
const PIECE: u32 = 1_000;

/// The definition of an execution and its events, which is what a drawing needs.
#[utoipa::path(get, path = "/v1/executions/{execution}/drawing", operation_id = "drawings.show", tag = "executions",
    params(("execution" = String, Path)),
    responses((status = 200, body = Drawing), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Drawing>, Refusal> {
    Ok(Json(read(&state, &caller, &id).await?))
}

/// The machine of an execution, coloured by how its states stand.
#[utoipa::path(get, path = "/v1/executions/{execution}/drawing.svg", operation_id = "drawings.svg", tag = "executions",
    params(("execution" = String, Path)),
    responses((status = 200, body = String, content_type = "image/svg+xml"), Refusal))]
pub async fn svg(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let kind = [(header::CONTENT_TYPE, "image/svg+xml")];
    Ok((kind, picture(&state, &caller, &id).await?).into_response())
}

/// The SVG document of an execution.
pub async fn picture(state: &State, caller: &Caller, id: &str) -> Result<String, Refusal> {
    let found = read(state, caller, id).await?;
    let drawing = draw::Drawing::of(&found.definition)
        .map_err(|error| Refusal::new(Kind::Unprocessable, format!("{id} cannot be drawn: {error}")))?;
    Ok(drawing.svg(&draw::Statuses::read(&found.events)))
}

async fn read(state: &State, caller: &Caller, id: &str) -> Result<Drawing, Refusal> {
    let (definition, events) = match id.starts_with("arn:") {
        true => of_run(state, caller, id).await?,
        false => of_execution(state, caller, id).await?,
    };
    let definition = serde_json::from_str(&definition).map_err(|error| Refusal::internal(&error))?;
    Ok(Drawing { definition, events })
}

async fn of_execution(state: &State, caller: &Caller, id: &str) -> Result<(String, Vec<Value>), Refusal> {
    let id: ExecutionId = executions::parse(id)?;
    executions::allowed(state, caller, Action::View, &id).await?;
    let read = move |db: &Db<'_>| -> Result<_, store::Error> {
        let mut events = Vec::new();
        loop {
            let piece = db.history(&id, events.len() as u64, PIECE)?;
            events.extend(piece.iter().map(|row| {
                let details = serde_json::from_str(&row.details).unwrap_or_default();
                event(row.id, row.previous, &row.kind, &details)
            }));
            if piece.len() < PIECE as usize {
                return Ok((db.execution(&id)?.machine, events));
            }
        }
    };
    Ok(state.store.read(read).await?)
}

async fn of_run(state: &State, caller: &Caller, arn: &str) -> Result<(String, Vec<Value>), Refusal> {
    let (asked, what) = (arn.to_owned(), format!("execution `{arn}`"));
    let found = state.store.read(move |db| db.run(&asked)).await?;
    let run = found.ok_or_else(|| Refusal::not_found(&what))?;
    caller.may(Action::View, Some(&run.tenant), &what)?;
    let key = run.key;
    let read = move |db: &Db<'_>| -> Result<_, engine::Error> {
        let mut events = Vec::new();
        loop {
            let (piece, last) = engine::history(db, key, events.len() as u64 + 1, PIECE as usize)?;
            let none = piece.is_empty();
            let slim = |own: &asl::HistoryEvent| event(own.id, own.previous, own.kind.as_str(), &own.details);
            events.extend(piece.iter().map(slim));
            if none || events.len() as u64 >= last {
                return Ok((db.run_by_key(key)?.map(|(_, text)| text), events));
            }
        }
    };
    let read = state.store.read(read).await;
    let (definition, events) = read.map_err(|error| Refusal::internal(&error))?;
    Ok((definition.ok_or_else(|| Refusal::not_found(&what))?, events))
}

/// In the shape of GetExecutionHistory, without payloads.
fn event(id: u64, previous: u64, kind: &str, details: &Value) -> Value {
    let mut event = json!({ "id": id, "previousEventId": previous, "type": kind });
    for (end, member) in [
        ("StateEntered", "stateEnteredEventDetails"),
        ("StateExited", "stateExitedEventDetails"),
    ] {
        if kind.ends_with(end) {
            event[member] = json!({ "name": details["name"] });
        }
    }
    event
}
