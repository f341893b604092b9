//! The users' state machines and their executions, as pictures.

use std::fmt::{self, Write as _};

use axum::{extract::State as Held, response::Response};
use maud::{Markup, PreEscaped, html};
use model::{TenantName, policy::Action};
use serde_json::Value;
use store::{MachineFilter, Run, RunFilter, StateMachine, Status};

use super::{
    frame::{at, cell, state as tinted, table, took, word},
    live::{self, Ask, Page},
};
use crate::{
    states::draw::{Drawing, Statuses},
    web::{auth::Caller, drawings::Sketch, input::Path, refusal::Refusal, state::State},
};

/// Machines of a tenant, and executions of a machine, on one page.
const MOST: u32 = 100;
/// Events on one page; the whole history is had by `aws stepfunctions get-execution-history`.
const EVENTS: usize = 2_000;
/// Bytes of an input, an output, and the details of an event; the whole is had in the same way.
const TEXT: usize = 16 * 1024;
const DETAILS: usize = 2 * 1024;

pub async fn list(Held(state): Held<State>, ask: Ask) -> Result<Response, Refusal> {
    let caller = ask.viewer.0.clone();
    let own = state.clone();
    live::answer(&state, ask, move || every(own.clone(), caller.clone())).await
}

async fn every(state: State, caller: Caller) -> Result<Page, Refusal> {
    caller.may(Action::View, caller.0.tenant.as_ref(), "tenant")?;
    let tenant = caller.0.tenant;
    let read = state.store.read(move |db| {
        let tenants = match tenant {
            Some(own) => vec![own],
            None => db.tenants()?.into_iter().map(|tenant| tenant.name).collect(),
        };
        let filter = MachineFilter {
            limit: MOST,
            ..MachineFilter::default()
        };
        let mut all = Vec::new();
        for tenant in tenants {
            all.extend(db.state_machines(&tenant, &filter)?);
        }
        Ok::<_, store::Error>(all)
    });
    let machines = read.await?;
    let row = |machine: &StateMachine| {
        html! {
            td { a href={ "/console/machines/" (machine.tenant) "/" (machine.name) } { (machine.name) } }
            td { (machine.tenant) }
            td { @if machine.express { "express" } @else { "standard" } }
            td { (cell(machine.updated_at)) }
        }
    };
    let body = html! {
        h1 { "State machines" }
        (table(
            &["Name", "Tenant", "Type", "Changed (UTC)"],
            machines.iter().map(row).collect(),
            "There is none yet: aws stepfunctions create-state-machine --endpoint-url of this platform makes one.",
        ))
    };
    Ok(Page {
        title: "State machines".into(),
        body,
        settled: false,
    })
}

pub async fn machine(
    Held(state): Held<State>,
    Path((tenant, name)): Path<(TenantName, String)>,
    ask: Ask,
) -> Result<Response, Refusal> {
    let caller = ask.viewer.0.clone();
    let own = state.clone();
    live::answer(&state, ask, move || {
        one(own.clone(), caller.clone(), tenant.clone(), name.clone())
    })
    .await
}

async fn one(state: State, caller: Caller, tenant: TenantName, name: String) -> Result<Page, Refusal> {
    let what = format!("state machine `{name}`");
    caller.may(Action::View, Some(&tenant), &what)?;
    let read = state.store.read(move |db| {
        let Some(machine) = db.state_machine(&tenant, &name)? else {
            return Ok(None);
        };
        let filter = RunFilter {
            machine: machine.key,
            limit: MOST,
            ..RunFilter::default()
        };
        Ok::<_, store::Error>(Some((db.runs(&filter)?, machine)))
    });
    let (runs, machine) = read.await?.ok_or_else(|| Refusal::not_found(what))?;
    let row = |run: &Run| {
        html! {
            td { (cell(run.started_at)) }
            td { a href={ "/console/runs/" (run.key) } { (run.name) } }
            td { (tinted(&word(run.status))) }
            td { (took(run.started_at, run.ended_at)) }
        }
    };
    let body = html! {
        h1 { (machine.name) }
        p.faint { (machine.tenant) ", " @if machine.express { "express" } @else { "standard" } ", changed " (at(machine.updated_at)) }
        (picture(&machine.definition))
        h2 { "Executions" }
        (table(
            &["Started (UTC)", "Name", "State", "Took"],
            runs.iter().map(row).collect(),
            if machine.express { "Express executions are not kept." } else { "None has been started yet." },
        ))
        details { summary { "Definition" } pre { (machine.definition) } }
    };
    Ok(Page {
        title: machine.name,
        body,
        settled: false,
    })
}

pub async fn run(Held(state): Held<State>, Path(key): Path<u64>, ask: Ask) -> Result<Response, Refusal> {
    let caller = ask.viewer.0.clone();
    let (own, store) = (state.clone(), state.store.clone());
    let progress = move || {
        let store = store.clone();
        async move { Ok(store.read(move |db| db.progress(key)).await?) }
    };
    let render = move || execution(own.clone(), caller.clone(), key);
    live::answer_of(&state, ask, progress, render).await
}

async fn execution(state: State, caller: Caller, key: u64) -> Result<Page, Refusal> {
    let what = format!("execution `{key}`");
    let found = state.store.read(move |db| db.run_by_key(key)).await?;
    let (run, _) = found.ok_or_else(|| Refusal::not_found(&what))?;
    // The platform's own are pages of their own, by their ids.
    let tenant = run.tenant.as_ref().ok_or_else(|| Refusal::not_found(&what))?;
    caller.may(Action::View, Some(tenant), &what)?;
    let turn = state.drawings.acquire().await.expect("nobody closes it");
    let read = state.store.read(move |db| {
        let (events, last) = engine::history(db, key, 1, EVENTS)?;
        let sketch = Sketch::of(db, key, &events, last <= events.len() as u64)?;
        Ok::<_, engine::Error>((events, last, sketch))
    });
    let (events, last, sketch) = read.await.map_err(|error| Refusal::internal(&error))?;
    let picture = sketch.and_then(|sketch| sketch.svg());
    drop(turn);
    let body = html! {
        h1 { (run.name) " " (tinted(&word(run.status))) }
        (facts(&run))
        @if let Some(picture) = picture { div.scroll.picture { (PreEscaped(picture)) } }
        h2 { "Input" } pre { (pretty(&run.input)) }
        @if let Some(output) = &run.output { h2 { "Output" } pre { (pretty(output)) } }
        h2 { "Events" }
        (table(&["", "At (UTC)", "Event", "After", ""], events.iter().map(row).collect(), "none yet"))
        @if last > events.len() as u64 { p.faint { (events.len()) " of " (last) " events are shown." } }
    };
    Ok(Page {
        title: run.name,
        body,
        settled: run.status != Status::Running,
    })
}

fn facts(run: &Run) -> Markup {
    let rows = [
        ("Execution", Some(run.arn.clone())),
        ("Started", Some(at(run.started_at))),
        ("Ended", run.ended_at.map(at)),
        ("Took", run.ended_at.map(|end| took(run.started_at, Some(end)))),
        (
            "Tried again",
            (run.redrives > 0).then(|| format!("{} times", run.redrives)),
        ),
        ("Error", run.error.clone()),
        ("Cause", run.cause.clone()),
    ];
    html! {
        dl { @for (name, value) in &rows { @if let Some(value) = value { dt { (name) } dd { (value) } } } }
    }
}

fn row(event: &asl::HistoryEvent) -> Markup {
    let details = &event.details;
    let text = ["name", "error", "resource"]
        .iter()
        .find_map(|member| details[*member].as_str());
    html! {
        td { (event.id) }
        td { (cell(event.at)) }
        td { (event.kind.as_str()) }
        td { (event.previous) }
        td {
            (text.unwrap_or_default())
            @if !details.is_null() { details { summary { "details" } pre { (cut(details, DETAILS)) } } }
        }
    }
}

/// The machine as `vend states draw` draws it; nothing when it cannot be drawn.
fn picture(definition: &str) -> Markup {
    let definition = asl::json::read(definition).unwrap_or_default();
    match Drawing::of(&definition) {
        Ok(drawing) => html! { div.scroll.picture { (PreEscaped(drawing.svg(&Statuses::default()))) } },
        Err(error) => html! { p.faint { (error) } },
    }
}

fn pretty(json: &str) -> String {
    let value = asl::json::read(json).unwrap_or_else(|_| json.into());
    cut(&value, TEXT)
}

/// The first bytes of a value, written to be read.
fn cut(value: &Value, most: usize) -> String {
    let mut text = Cut(String::new(), most);
    // Whatever does not fit ends it.
    if write!(text, "{value:#}").is_err() {
        text.0.push('…');
    }
    text.0
}

struct Cut(String, usize);

impl fmt::Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let fits = part.floor_char_boundary(self.1 - self.0.len());
        self.0.push_str(&part[..fits]);
        if fits < part.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_they_are() {
        let value = r#"{"$serde_json::private::Number":"1"}"#;
        assert_eq!(pretty(value), "{\n  \"$serde_json::private::Number\": \"1\"\n}");
        assert_eq!(pretty("1E5"), "1E5");
    }

    #[test]
    fn what_is_long_is_cut_between_letters() {
        let long = Value::from("é".repeat(1 << 16));
        for most in 0..9 {
            let text = cut(&long, most);
            let kept = text.strip_suffix('…').unwrap();
            assert!(kept.len() <= most && kept.len() + 1 >= most, "{most}: {text}");
        }
        assert_eq!(cut(&Value::from("é"), 4), "\"é\"");
    }
}
