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
async fn picture(state: &State, caller: &Caller, id: &str) -> Result<String, Refusal> {
    let found = read(state, caller, id).await?;
    let drawing = draw::Drawing::of(&found.definition)
        .map_err(|error| Refusal::new(Kind::Unprocessable, format!("{id} cannot be drawn: {error}")))?;
    Ok(drawing.svg(&draw::Statuses::read(&found.events)))
}

/// What a drawing is made of, by whoever has read the events already, or the first of them.
pub struct Sketch {
    definition: String,
    marks: Vec<engine::Mark>,
}

impl Sketch {
    /// Of a run of which `events`, from the first on, are known. `None`: there is no such run.
    ///
    /// # Errors
    /// What is kept of it cannot be read.
    pub fn of(
        db: &Db<'_>,
        run: u64,
        events: &[asl::HistoryEvent],
        all: bool,
    ) -> Result<Option<Self>, engine::Error> {
        let Some((_, definition)) = db.run_by_key(run)? else {
            return Ok(None);
        };
        let marks = match all {
            true => events.iter().map(engine::Mark::from).collect(),
            false => engine::outline(db, run)?,
        };
        Ok(Some(Self { definition, marks }))
    }

    /// The SVG document; nothing when it cannot be drawn.
    pub fn svg(&self) -> Option<String> {
        let definition = asl::json::read(&self.definition).ok()?;
        let events: Vec<Value> = self.marks.iter().map(event).collect();
        let drawing = draw::Drawing::of(&definition).ok()?;
        Some(drawing.svg(&draw::Statuses::read(&events)))
    }
}

async fn read(state: &State, caller: &Caller, id: &str) -> Result<Drawing, Refusal> {
    let (definition, events) = match id.starts_with("arn:") {
        true => of_run(state, caller, id).await?,
        false => of_execution(state, caller, id).await?,
    };
    let definition = asl::json::read(&definition).map_err(|error| Refusal::internal(&error))?;
    Ok(Drawing { definition, events })
}

async fn of_execution(state: &State, caller: &Caller, id: &str) -> Result<(String, Vec<Value>), Refusal> {
    let id: ExecutionId = executions::parse(id)?;
    let found = executions::allowed(state, caller, Action::View, &id).await?;
    told(state, found.run, &format!("execution `{id}`")).await
}

async fn of_run(state: &State, caller: &Caller, arn: &str) -> Result<(String, Vec<Value>), Refusal> {
    let (asked, what) = (arn.to_owned(), format!("execution `{arn}`"));
    let missing = || Refusal::not_found(&what);
    let found = state.store.read(move |db| db.run(&asked)).await?;
    let run = found.ok_or_else(missing)?;
    // Those of the platform's own are seen by their ids.
    let tenant = run.tenant.as_ref().ok_or_else(missing)?;
    caller.may(Action::View, Some(tenant), &what)?;
    told(state, run.key, &what).await
}

/// The definition of a run, and all its events.
async fn told(state: &State, run: u64, what: &str) -> Result<(String, Vec<Value>), Refusal> {
    let _turn = state.drawings.acquire().await.expect("nobody closes it");
    let read = state.store.read(move |db: &Db<'_>| {
        let definition = db.run_by_key(run)?.map(|(_, text)| text);
        Ok::<_, engine::Error>((definition, engine::outline(db, run)?))
    });
    let (definition, marks) = read.await.map_err(|error| Refusal::internal(&error))?;
    let definition = definition.ok_or_else(|| Refusal::not_found(what))?;
    Ok((definition, marks.iter().map(event).collect()))
}

/// In the shape of GetExecutionHistory, without payloads.
fn event(own: &engine::Mark) -> Value {
    let kind = own.kind.as_str();
    let mut event = json!({ "id": own.id, "previousEventId": own.previous, "type": kind });
    for (end, member) in [
        ("StateEntered", "stateEnteredEventDetails"),
        ("StateExited", "stateExitedEventDetails"),
    ] {
        if kind.ends_with(end) {
            event[member] = json!({ "name": own.name });
        }
    }
    event
}
