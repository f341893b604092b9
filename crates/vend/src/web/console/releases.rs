//! Environments, the executions that change them, and their logs.

use axum::{Json, extract::State as Held, response::Response};
use maud::{Markup, html};
use model::{
    ExecutionId,
    policy::Action,
    port::PhaseReport,
    wire::{Environment, Execution, ExecutionDetail, HistoryEvent, Split},
};
use store::Db;

use super::{
    door::Viewer,
    frame::{at, cell, state as tinted, table, took, word},
    live::{self, Ask, Page},
};
use crate::web::{
    auth::Caller,
    drawings::Sketch,
    environments, executions,
    input::{Path, Query},
    logs,
    refusal::Refusal,
    scope::Scope,
    state::State,
};

/// Executions of the overview.
const RECENT: u32 = 30;

pub async fn overview(Held(state): Held<State>, ask: Ask) -> Result<Response, Refusal> {
    let caller = ask.viewer.0.clone();
    let own = state.clone();
    live::answer(&state, ask, move || summary(own.clone(), caller.clone())).await
}

async fn summary(state: State, caller: Caller) -> Result<Page, Refusal> {
    let environments = environments::all(&state, &caller).await?;
    let scope = Scope {
        limit: Some(RECENT),
        ..Scope::default()
    };
    let Json(recent) = executions::list(Held(state), caller, Query(scope)).await?;
    let body = html! {
        h1 { "Environments" }
        (table(
            &["Environment", "Branch", "State", "Release", "Hosts", "Address", "Under way"],
            environments.iter().map(environment).collect(),
            "There is no environment yet: the first push of a branch that vend.yaml names makes one.",
        ))
        h2 { "Executions" }
        (table(
            &["Started (UTC)", "What", "Environment", "State", "By", "Took"],
            recent.items.iter().map(execution_row).collect(),
            "Nothing has run yet.",
        ))
    };
    Ok(Page {
        title: "Environments".into(),
        body,
        settled: false,
    })
}

fn environment(environment: &Environment) -> Markup {
    html! {
        td { (environment.place) }
        td {
            (environment.branch)
            @if let Some(preview) = &environment.preview {
                @if environment.protected || preview.ending.is_some() {} @else { " until " (cell(preview.expires_at)) }
            }
        }
        td { (tinted(&word(environment.state))) @if environment.protected { " protected" } }
        td {
            @if let Some(live) = environment.live { (live) } @else { "–" }
            @if let Some(split) = &environment.split { (divided(split)) }
        }
        td { (environment.hosts) }
        td { @for url in &environment.urls { a href=(url) rel="noreferrer" { (url) } " " } }
        td { @if let Some(id) = &environment.execution { a href={ "/console/executions/" (id) } { (id) } } }
    }
}

/// What a release gets of the traffic that comes in place or by steps.
fn divided(split: &Split) -> Markup {
    html! {
        " · " (split.release) " gets " (split.percent) " %"
        @if let (Some(step), Some(steps)) = (split.step, split.steps) { ", step " (step) " of " (steps) }
        @if let Some(verdict) = &split.verdict { ", " (tinted(verdict)) }
        @if let Some(who) = &split.paused_by { ", held by " (who) }
    }
}

fn execution_row(execution: &Execution) -> Markup {
    html! {
        td { (cell(execution.started_at)) }
        td { a href={ "/console/executions/" (execution.id) } { (execution.kind) } }
        td { @if let Some(place) = &execution.place { (place) } }
        td {
            (tinted(&word(execution.state)))
            @if let Some(stage) = &execution.stage { " " (stage) }
        }
        td { (execution.started_by) }
        td { (took(execution.started_at, execution.ended_at)) }
    }
}

pub async fn execution(
    Held(state): Held<State>,
    Path(id): Path<String>,
    ask: Ask,
) -> Result<Response, Refusal> {
    let caller = ask.viewer.0.clone();
    let (own, asked, store) = (
        state.clone(),
        executions::parse::<ExecutionId>(&id)?,
        state.store.clone(),
    );
    // What the page is made of: events, who has approved, and whether it is over.
    let progress = move || {
        let (store, id) = (store.clone(), asked.clone());
        let read = move |db: &Db<'_>| {
            let approvals = db.approvals_of_execution(&id)?;
            let given: Vec<_> = approvals
                .iter()
                .map(|asked| (asked.state, asked.given()))
                .collect();
            let execution = db.execution_summary(&id)?;
            Ok::<_, store::Error>((db.progress(execution.run)?, given, execution.ended_at))
        };
        async move { Ok(store.read(read).await?) }
    };
    let render = move || show(own.clone(), caller.clone(), id.clone());
    live::answer_of(&state, ask, progress, render).await
}

async fn show(state: State, caller: Caller, id: String) -> Result<Page, Refusal> {
    let id: ExecutionId = executions::parse(&id)?;
    executions::allowed(&state, &caller, Action::View, &id).await?;
    let turn = state.drawings.acquire().await.expect("nobody closes it");
    let read = state.store.read(move |db| {
        let (detail, events) = executions::told(db, &id)?;
        let run = db.execution_summary(&id)?.run;
        let all = events.len() < executions::HISTORY;
        Ok::<_, engine::Error>((detail, Sketch::of(db, run, &events, all)?))
    });
    let (detail, sketch) = read.await.map_err(|error| Refusal::internal(&error))?;
    // A machine that cannot be drawn still has events.
    let picture = sketch.and_then(|sketch| sketch.svg());
    drop(turn);
    let ExecutionDetail {
        execution,
        history,
        logs,
        builds,
    } = detail;
    let body = html! {
        h1 {
            (execution.kind) @if let Some(place) = &execution.place { " of " (place) } " "
            (tinted(&word(execution.state)))
        }
        (facts(&execution))
        @if let Some(picture) = picture {
            h2 { "States" }
            div.scroll.picture { (maud::PreEscaped(picture)) }
        }
        @for build in &builds {
            h2 {
                "Build " (build.number)
                @if let Some(name) = &build.identifier { " (" (name) ")" }
                @if let Some(builder) = &build.builder { " on " (builder) }
            }
            @if let Some(why) = &build.waiting { p { "waits for " (why) } }
            (table(&["Phase", "Began (UTC)", "State", "Took", ""], build.phases.iter().map(phase).collect(), ""))
            @if !build.exported.is_empty() || !build.secondary.is_empty() {
                ul {
                    @for (name, value) in &build.exported { li { (name) "=" (value) } }
                    @for (name, digest) in &build.secondary { li { "artifact " (name) " " (digest) } }
                }
            }
        }
        h2 { "Logs" }
        ul {
            @for log in &logs { li { a href={ "/console/logs/" (log) } { (log) } } }
            @if logs.is_empty() { li.faint { "none yet" } }
        }
        h2 { "Events" }
        (table(&["", "At (UTC)", "State", "Event", ""], history.iter().map(event).collect(), "none yet"))
    };
    Ok(Page {
        title: format!("{} {}", execution.kind, execution.id),
        body,
        settled: execution.ended_at.is_some(),
    })
}

fn facts(execution: &Execution) -> Markup {
    let rows = [
        ("Execution", Some(execution.id.to_string())),
        (
            "Started",
            Some(format!(
                "{} by {}",
                at(execution.started_at),
                execution.started_by
            )),
        ),
        ("Ended", execution.ended_at.map(at)),
        (
            "Took",
            execution
                .ended_at
                .map(|end| took(execution.started_at, Some(end))),
        ),
        ("Works on", execution.stage.clone()),
        ("Waits for", execution.waiting.clone()),
        ("Error", execution.error.clone()),
        ("Cause", execution.cause.clone()),
    ];
    html! {
        dl { @for (name, value) in &rows { @if let Some(value) = value { dt { (name) } dd { (value) } } } }
    }
}

fn phase(phase: &PhaseReport) -> Markup {
    let took = phase.duration_ms.and_then(|duration_ms| {
        let end = phase
            .started_at
            .checked_add(std::time::Duration::from_millis(duration_ms));
        end.ok().map(|end| took(phase.started_at, Some(end)))
    });
    html! {
        td { (phase.name) }
        td { (cell(phase.started_at)) }
        td { @if let Some(status) = phase.status { (tinted(&word(status))) } }
        td { (took.unwrap_or_default()) }
        td { (phase.message.as_deref().unwrap_or_default()) }
    }
}

fn event(event: &HistoryEvent) -> Markup {
    html! {
        td { (event.id) }
        td { (cell(event.at)) }
        td { (event.state.as_deref().unwrap_or_default()) }
        td { (event.kind) }
        td { (event.detail.as_deref().unwrap_or_default()) }
    }
}

/// What a log has so far, up to one chunk of it.
pub async fn log(
    Held(state): Held<State>,
    Path(log): Path<String>,
    Query(from): Query<logs::From>,
    Viewer(caller): Viewer,
) -> Result<axum::response::Html<String>, Refusal> {
    let actor = caller.0.actor.clone();
    let offset = from.offset();
    let Json(text) = logs::read(Held(state), caller, Path(log.clone()), Query(from)).await?;
    let more = !text.text.is_empty() && !text.ended;
    let body = html! {
        h1 { (log) }
        pre { (text.text) }
        @if offset > 0 { a href={ "/console/logs/" (log) } { "From the start" } " " }
        @if more { a href={ "/console/logs/" (log) "?offset=" (text.next) } { "Go on" } }
    };
    Ok(super::frame::whole(&log, Some(&actor), &body, false))
}
