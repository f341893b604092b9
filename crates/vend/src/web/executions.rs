//! Executions: what runs, what ran, and why it waits.

mod builds;

use std::collections::HashMap;

use asl::{OpenTimer, Purpose};
use axum::{Json, extract::State as Held, http::StatusCode};
use engine::Recovered;
use model::{
    ExecutionId, Place,
    plan::Plan,
    policy::Action,
    wire::{Execution, ExecutionDetail, ExecutionState, HistoryEvent, Page, PlanAnswer},
};
use serde::Deserialize;
use serde_json::Value;
use store::{ApprovalState, Db, ExecutionFilter, ExecutionSummary, Status, WorkState};

use super::{
    auth::Caller,
    input::{Path, Query},
    logs,
    refusal::{Kind, Refusal},
    scope::{Scope, numbered},
    state::State,
};
use crate::flow::{definition::MONITOR, runs, watch};

/// Events of a history that are shown.
pub const HISTORY: usize = 5_000;

/// The execution as people see it; what it waits for included when it is under way.
pub fn wire(db: &Db<'_>, summary: ExecutionSummary) -> Result<Execution, store::Error> {
    let run = match summary.ended_at {
        None => runs::open(db, summary.run)?,
        Some(_) => None,
    };
    let (stage, waiting) = match run {
        Some(run) => (stage(&run), waiting(db, &summary, &run)?),
        None => (None, None),
    };
    Ok(Execution {
        state: match summary.status {
            Status::Running => ExecutionState::Running,
            Status::Succeeded => ExecutionState::Succeeded,
            Status::Failed => ExecutionState::Failed,
            Status::TimedOut => ExecutionState::TimedOut,
            Status::Aborted => ExecutionState::Cancelled,
        },
        id: summary.id,
        kind: summary.kind,
        place: summary.place.map(Into::into),
        stage,
        waiting,
        error: summary.error,
        cause: summary.cause,
        started_at: summary.started_at,
        started_by: summary.started_by,
        ended_at: summary.ended_at,
    })
}

/// `build` of `arn:…:activity:build`.
pub(super) fn activity(resource: &str) -> &str {
    resource.rsplit(':').next().unwrap_or(resource)
}

/// Which stage is tried again, when, and why.
fn again(timer: &OpenTimer<'_>, told: &[HistoryEvent]) -> String {
    let OpenTimer {
        at, state, attempts, ..
    } = timer;
    let failure = told.iter().rev().find(|event| {
        event.state.as_deref() == Some(state)
            && (event.kind.ends_with("Failed") || event.kind.ends_with("TimedOut"))
    });
    let why = failure.map(|event| event.detail.as_deref().unwrap_or("it timed out"));
    let next = attempts.saturating_add(1);
    match why {
        Some(why) => format!("attempt {next} of {state}, at {at}: {why}"),
        None => format!("attempt {next} of {state}, at {at}"),
    }
}

/// What is being worked on.
fn stage(run: &Recovered) -> Option<String> {
    let names: Vec<&str> = run
        .orders
        .values()
        .map(|order| activity(&order.resource))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The reason of a wait, in one sentence, with the command that ends it where there is one.
fn waiting(db: &Db<'_>, summary: &ExecutionSummary, run: &Recovered) -> Result<Option<String>, store::Error> {
    let approvals = db.approvals_of_execution(&summary.id)?;
    let asked = approvals
        .iter()
        .find(|approval| approval.state == ApprovalState::Open);
    if let Some(approval) = asked {
        let (given, required) = (approval.given(), approval.required);
        return Ok(Some(format!(
            "people: {given} of {required} have approved, until {} (vend approve {})",
            approval.expires_at, approval.id
        )));
    }
    let bakes = db.bakes_of_execution(&summary.id)?.into_iter();
    let mut bakes = bakes.filter(|bake| bake.state == WorkState::Running);
    if let Some(why) = bakes.find_map(|bake| bake.waits) {
        return Ok(Some(why));
    }
    if let Some(why) = builds::queued(db.waits_in_execution(&summary.id)?) {
        return Ok(Some(why));
    }
    if let Some(held) = held(db, summary, run)? {
        return Ok(Some(held));
    }
    let at_watch = |order: &&engine::Order| activity(&order.resource) == "watch";
    if let Some(order) = run.orders.values().find(at_watch)
        && let Some(watched) = watch::told(db, &order.input)?
    {
        return Ok(Some(watched));
    }
    let idle = run.orders.values().filter(|order| !order.started);
    let mut reasons: Vec<String> = idle
        .map(|order| format!("{} has no worker yet", activity(&order.resource)))
        .collect();
    let timers = run.state.open_timers();
    if let Some(timer) = timers
        .filter(|timer| run.orders.is_empty() || timer.purpose == Purpose::Backoff)
        .min_by_key(|timer| timer.at)
    {
        reasons.push(match timer.purpose {
            Purpose::Backoff => again(&timer, &history(&runs::history(db, summary.run, HISTORY)?)),
            _ if timer.state == MONITOR => format!(
                "the machines of a zone to be watched before the next one is begun, until {}",
                timer.at.strftime("%Y-%m-%d %H:%M:%S UTC")
            ),
            _ => format!("the clock, until {}", timer.at),
        });
    }
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

/// Whom a gate waits for, or whom a release does that is to come to the hosts.
fn held(db: &Db<'_>, summary: &ExecutionSummary, run: &Recovered) -> Result<Option<String>, store::Error> {
    let (id, Some(place)) = (&summary.id, &summary.place) else {
        return Ok(None);
    };
    let at = |name: &str| run.orders.values().any(|order| activity(&order.resource) == name);
    if at("confirm") || at("plan") {
        return Ok(runs::ahead(db, place, id)?.map(|other| {
            let (kind, by) = (&other.kind, &other.started_by);
            format!("{kind} {} of {place}, which {by} started, to end", other.id)
        }));
    }
    let own = match db.open_deployment(place, id) {
        // What takes an environment away goes on for a moment without it.
        Err(store::Error::Missing { .. }) => None,
        own => own?,
    };
    Ok(own
        .and_then(|own| own.paused)
        .and_then(|(who, since)| pause(at, &who, since, place)))
}

/// What a pause holds up, `at` these activities.
fn pause(at: impl Fn(&str) -> bool, who: &str, since: jiff::Timestamp, place: &Place) -> Option<String> {
    match (at("unwind"), at("gate")) {
        // Whoever aborts does not wait for who paused.
        (true, _) => None,
        (_, true) => Some(format!(
            "{who}, who paused it at {since} (vend deploy resume {place})"
        )),
        _ => Some(format!(
            "its step to end; {who} paused it (vend deploy resume {place})"
        )),
    }
}

fn history(rows: &[asl::HistoryEvent]) -> Vec<HistoryEvent> {
    let mut states: HashMap<u64, String> = HashMap::new();
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let named = row.details["name"].as_str().map(str::to_owned);
        // Events of a task do not repeat the state's name: it is that of the event before.
        let state = named.or_else(|| states.get(&row.previous).cloned());
        if let Some(state) = &state {
            states.insert(row.id, state.clone());
        }
        events.push(HistoryEvent {
            id: row.id,
            at: row.at,
            detail: detail(row.kind.as_str(), &row.details),
            kind: row.kind.to_string(),
            state,
        });
    }
    events
}

fn detail(kind: &str, details: &Value) -> Option<String> {
    let text = |name: &str| details[name].as_str().filter(|text| !text.is_empty());
    let failure = match (text("error"), text("cause")) {
        (Some(error), Some(cause)) => Some(format!("{cause} ({error})")),
        (one, other) => one.or(other).map(str::to_owned),
    };
    let scheduled = || {
        text("resource")
            .filter(|_| kind.ends_with("Scheduled"))
            .map(|name| activity(name).to_owned())
    };
    failure
        .or_else(|| text("reason").map(str::to_owned))
        .or_else(scheduled)
        .or_else(|| answered(text("output").filter(|_| kind.ends_with("Succeeded"))?))
}

/// Who answered a task that people answer: `approve` gives `{"by": […]}`.
fn answered(output: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        by: Vec<String>,
    }
    const LONGEST: usize = 4096;
    let short = Some(output).filter(|text| text.len() <= LONGEST)?;
    let by = serde_json::from_str::<Answer>(short).ok()?.by;
    (!by.is_empty()).then(|| by.join(", "))
}

/// The execution, if the caller may do `action` to it.
pub async fn allowed(
    state: &State,
    caller: &Caller,
    action: Action,
    id: &ExecutionId,
) -> Result<ExecutionSummary, Refusal> {
    let (own, what) = (id.clone(), format!("execution `{id}`"));
    let found = state.store.read(move |db| db.execution_summary(&own)).await?;
    let tenant = found.place.as_ref().map(|place| &place.tenant);
    if tenant.is_none() && caller.0.tenant.is_some() {
        return Err(Refusal::not_found(what));
    }
    caller.may(action, tenant, &what)?;
    Ok(found)
}

/// Executions, newest first.
#[utoipa::path(get, path = "/v1/executions", operation_id = "executions.list", tag = "executions", params(Scope),
    responses((status = 200, body = Page<Execution>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Execution>>, Refusal> {
    let scope = scope.within(&caller)?;
    let limit = scope.limit();
    let filter = ExecutionFilter {
        before: scope.before()?,
        tenant: scope.tenant,
        app: scope.app,
        environment: scope.environment,
        open: scope.open,
        limit,
        ..ExecutionFilter::default()
    };
    let found = state
        .store
        .read(move |db| {
            let found = db.executions(&filter)?;
            let wire = |summary: ExecutionSummary| Ok((summary.key, wire(db, summary)?));
            found
                .into_iter()
                .map(wire)
                .collect::<Result<Vec<_>, store::Error>>()
        })
        .await?;
    Ok(Json(numbered(
        found,
        limit,
        |(key, _)| *key,
        |(_, execution)| execution,
    )))
}

/// An execution with its history, its times and the reason of its wait.
#[utoipa::path(get, path = "/v1/executions/{execution}", operation_id = "executions.show", tag = "executions",
    params(("execution" = String, Path)),
    responses((status = 200, body = ExecutionDetail), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ExecutionDetail>, Refusal> {
    let id = parse(&id)?;
    allowed(&state, &caller, Action::View, &id).await?;
    let read = move |db: &Db<'_>| Ok::<_, store::Error>(told(db, &id)?.0);
    Ok(Json(state.store.read(read).await?))
}

/// All that is told of an execution, and the events that it is told from, which are read once.
pub fn told(
    db: &Db<'_>,
    id: &ExecutionId,
) -> Result<(ExecutionDetail, Vec<asl::HistoryEvent>), store::Error> {
    let summary = db.execution_summary(id)?;
    let events = runs::history(db, summary.run, HISTORY)?;
    let logs = logs::among(db, &summary, &events)?;
    let builds = db.ran_in_execution(id)?;
    let detail = ExecutionDetail {
        builds: builds.into_iter().map(builds::shown).collect(),
        logs: logs.into_iter().map(|entry| entry.log).collect(),
        execution: wire(db, summary)?,
        history: history(&events),
    };
    Ok((detail, events))
}

pub fn parse<T: std::str::FromStr>(id: &str) -> Result<T, Refusal> {
    id.parse().map_err(|_| Refusal::not_found("such thing"))
}

/// How far somebody goes who ends what is under way.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// Also in the middle of a migration, of which nobody knows then how far it came.
    #[serde(default)]
    pub in_migration: bool,
}

/// Stops an execution; what it did is undone. Refused in the middle of a migration, unless told so.
#[utoipa::path(post, path = "/v1/executions/{execution}/cancel", operation_id = "executions.cancel", tag = "executions",
    params(("execution" = String, Path), Ending),
    responses((status = 202, body = Execution), Refusal))]
pub async fn cancel(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
    Query(ending): Query<Ending>,
) -> Result<(StatusCode, Json<Execution>), Refusal> {
    let id: ExecutionId = parse(&id)?;
    let found = allowed(&state, &caller, Action::Develop, &id).await?;
    if found.ended_at.is_some() {
        return Err(Refusal::conflict(format!("execution {id} has ended")));
    }
    let by = state.by(&caller.0);
    state.commands.cancel(id.clone(), ending.in_migration, by).await?;
    let read = move |db: &Db<'_>| wire(db, db.execution_summary(&id)?);
    Ok((StatusCode::ACCEPTED, Json(state.store.read(read).await?)))
}

/// The plan that was asked about, or that the plan's task gave.
fn plan_of(db: &Db<'_>, id: &ExecutionId) -> Result<Option<Plan>, store::Error> {
    if let Some(approval) = db.approvals_of_execution(id)?.pop() {
        return Ok(Some(approval.plan));
    }
    let events = runs::history(db, db.execution_summary(id)?.run, HISTORY)?;
    Ok(events.iter().rev().find_map(|event| {
        let mut output: Value = serde_json::from_str(event.details["output"].as_str()?).ok()?;
        serde_json::from_value(output["plan"].take()).ok()
    }))
}

/// What an execution will change, or has changed.
#[utoipa::path(get, path = "/v1/executions/{execution}/plan", operation_id = "plans.show", tag = "executions",
    params(("execution" = String, Path)),
    responses((status = 200, body = PlanAnswer), Refusal))]
pub async fn plan(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<PlanAnswer>, Refusal> {
    let id: ExecutionId = parse(&id)?;
    allowed(&state, &caller, Action::View, &id).await?;
    let own = id.clone();
    let plan = state.store.read(move |db| plan_of(db, &own)).await?;
    let plan = plan.ok_or_else(|| {
        Refusal::new(Kind::NotFound, format!("execution {id} has made no plan yet"))
            .next(format!("vend executions show {id}"))
    })?;
    Ok(Json(PlanAnswer {
        digest: plan.digest(),
        plan,
        refused: None,
        next: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_aborted_does_not_wait_for_who_paused_it() {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let at = |own: &'static str| {
            pause(
                move |name| name == own,
                "ada",
                jiff::Timestamp::UNIX_EPOCH,
                &place,
            )
        };
        assert_eq!(at("unwind"), None);
        assert!(at("gate").unwrap().starts_with("ada, who paused it at 1970"));
        assert!(at("roll").unwrap().starts_with("its step to end; ada paused it"));
    }

    #[test]
    fn a_retry_says_of_what_and_why() {
        let event = |state: &str, kind: &str, detail: Option<&str>| HistoryEvent {
            id: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            kind: kind.into(),
            state: Some(state.into()),
            detail: detail.map(str::to_owned),
        };
        let told = [
            event("Bake", "ActivityFailed", Some("too early (Vend.Platform)")),
            event("Bake", "ActivityFailed", Some("the disk is full (Vend.Platform)")),
            event("Build", "ActivityTimedOut", None),
        ];
        let timer = |state| OpenTimer {
            timer: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            purpose: Purpose::Backoff,
            state,
            attempts: 2,
        };
        assert_eq!(
            again(&timer("Bake"), &told),
            "attempt 3 of Bake, at 1970-01-01T00:00:00Z: the disk is full (Vend.Platform)"
        );
        assert_eq!(
            again(&timer("Build"), &told),
            "attempt 3 of Build, at 1970-01-01T00:00:00Z: it timed out"
        );
    }

    #[test]
    fn events_know_their_state_and_say_what_failed() {
        let row = |id, previous, kind: &str, details: &str| -> asl::HistoryEvent {
            let details: Value = serde_json::from_str(details).unwrap();
            let at = jiff::Timestamp::UNIX_EPOCH;
            let event = serde_json::json!({
                "id": id, "previous": previous, "at": at, "kind": kind, "details": details,
            });
            serde_json::from_value(event).unwrap()
        };
        let events = history(&[
            row(1, 0, "TaskStateEntered", r#"{"name":"Build","input":"{}"}"#),
            row(
                2,
                1,
                "TaskScheduled",
                r#"{"resource":"arn:aws:states:local:0:activity:build"}"#,
            ),
            row(
                3,
                2,
                "TaskFailed",
                r#"{"error":"Vend.Customer","cause":"2 tests failed"}"#,
            ),
            row(
                4,
                3,
                "TaskSucceeded",
                r#"{"output":"{\"approval\":\"a-1\",\"by\":[\"person:ops\"]}"}"#,
            ),
        ]);
        let states: Vec<_> = events.iter().map(|event| event.state.as_deref()).collect();
        assert_eq!(states, [Some("Build"); 4]);
        assert_eq!(events[1].detail.as_deref(), Some("build"));
        assert_eq!(
            events[2].detail.as_deref(),
            Some("2 tests failed (Vend.Customer)")
        );
        assert_eq!(events[3].detail.as_deref(), Some("person:ops"));
    }
}
