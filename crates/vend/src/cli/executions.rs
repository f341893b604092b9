//! Executions: their list, their history, and how they go, live.

mod builds;

use std::{process::ExitCode, time::Duration};

use camino::Utf8PathBuf;
use clap::Subcommand;
use model::wire::{Execution, ExecutionDetail, ExecutionState, HistoryEvent};

use super::{
    Client, Global, Most, Outcome, client::escape, now, parcel::Parcel, progress::Progress, releases::word,
    stages, target,
};
use crate::output::{Output, Table, Tone, ago, cell, clean, duration, lines, maybe, without_next};

/// How often a client that follows asks.
pub const POLL: Duration = Duration::from_millis(400);

#[derive(Debug, Subcommand)]
pub enum Executions {
    /// List what runs and what ran, newest first.
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
        #[command(flatten)]
        most: Most,
    },
    /// Show the stages of an execution with their times, and the reason of every wait.
    Show {
        id: String,
        /// Every event instead of the stages.
        #[arg(long)]
        history: bool,
        /// Go on until it ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Get what was built: the artifact that became the revision, or that of one build, or a secondary one.
    Artifact {
        id: String,
        /// A file that ends in `.tar`, or a directory that is empty or not there.
        to: Utf8PathBuf,
        /// The identifier of a secondary artifact [default: the main one].
        #[arg(long)]
        name: Option<String>,
        /// The build, by its identifier in the batch or its number [default: what became the revision; with --name, the
        /// only build that has it].
        #[arg(long)]
        build: Option<String>,
        /// Replace the file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Stop an execution; what it did is undone.
    Cancel {
        id: String,
        /// Also in the middle of a migration, of which nobody knows then how far it came.
        #[arg(long)]
        in_migration: bool,
    },
}

/// How far somebody goes who ends something, as the API is told.
pub fn ending(in_migration: bool) -> &'static str {
    if in_migration { "?in_migration=true" } else { "" }
}

pub async fn run(command: &Executions, global: &Global) -> Outcome {
    let (client, output) = (global.client()?, global.output());
    match command {
        Executions::List { target, most } => {
            let path = format!("/v1/executions?{}", target::scope(target.as_deref())?);
            let page = client.list::<Execution>(&path, most.number()).await?;
            if page.items.is_empty() {
                target::known(target.as_deref(), &client).await?;
            }
            output.show(&page, |page| list_text(&page.items, &output) + most.rest(page));
        }
        Executions::Show { id, follow: true, .. } if !output.json => {
            return follow(id, &client, &output).await;
        }
        Executions::Show { id, history, .. } => {
            let detail: ExecutionDetail = client.get(&path(id)).await?;
            output.show(&detail, |detail| detail_text(detail, *history, &output));
        }
        Executions::Artifact {
            id,
            to,
            name,
            build,
            force,
        } => {
            let limits = &host::tree::Limits::SOURCE;
            let parcel = Parcel {
                to,
                force: *force,
                limits,
            };
            parcel.is_free()?;
            let (name, build) = (name.as_deref(), build.as_deref());
            let (at, what) = builds::artifact(&client.get(&path(id)).await?, name, build)?;
            parcel.take(&format!("{}/{at}", path(id)), &client).await?;
            output.line(&format!("{to} holds {what}"));
        }
        Executions::Cancel { id, in_migration } => {
            let path = format!("{}/cancel{}", path(id), ending(*in_migration));
            let execution: Execution = client.post(&path, &serde_json::json!({})).await?;
            output.show(&execution, |execution| {
                format!(
                    "cancelling {0}\nnext: vend executions show {0} --follow\n",
                    execution.id
                )
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(id: &str) -> String {
    format!("/v1/executions/{}", escape(id))
}

/// Shows the stages of an execution as they come and go, until it ends. Its failure is a failure of the command.
pub async fn follow(id: &str, client: &Client, output: &Output) -> Outcome {
    let mut seen = 0;
    let mut waiting = None;
    let mut progress = Progress::begin(output);
    let mut told = String::new();
    loop {
        let detail: ExecutionDetail = client.get(&path(id)).await?;
        for event in detail.history.iter().filter(|event| event.id > seen) {
            let line = line(event, &detail, output);
            progress.say(&line);
            told.push_str(&line);
        }
        seen = detail.history.last().map_or(seen, |event| event.id.max(seen));
        let execution = &detail.execution;
        if execution.waiting.is_some() && execution.waiting != waiting {
            let reason = clean(execution.waiting.as_deref().unwrap_or_default());
            let text = format!("          waits: {reason}");
            progress.say(&format!("{}\n", output.tone(Tone::Wait, &text)));
        }
        waiting.clone_from(&execution.waiting);
        if execution.state.ended() {
            progress.say(&end_text(execution, &told, output));
            return Ok(match execution.state {
                ExecutionState::Succeeded => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            });
        }
        progress.look(&detail, client).await;
        tokio::time::sleep(POLL).await;
    }
}

/// An event for who follows: what started, what ended and how long it took, what failed. The whole history is for
/// who looks back.
fn line(event: &HistoryEvent, detail: &ExecutionDetail, output: &Output) -> String {
    let state = clean(event.state.as_deref().unwrap_or_default());
    let since = duration(event.at.duration_since(detail.execution.started_at));
    let told = |tone, text: &str| format!("{since:>12}  {}\n", output.tone(tone, text));
    let started = || {
        let before = detail.history.iter().rev().filter(|other| other.id < event.id);
        let mut starts = before.filter(|other| other.state == event.state && other.kind.ends_with("Started"));
        starts.next().map_or(event.at, |start| start.at)
    };
    match event.kind.as_str() {
        "ActivityStarted" | "TaskStarted" => told(Tone::Plain, &format!("{state} …")),
        "ActivitySucceeded" | "TaskSucceeded" => {
            let took = duration(event.at.duration_since(started()));
            told(Tone::Good, &format!("{state} done in {took}"))
        }
        kind if kind.starts_with("Execution") || kind.ends_with("StateFailed") => String::new(),
        kind if kind.ends_with("Failed") || kind.ends_with("TimedOut") => {
            let (why, _) = without_next(event.detail.as_deref().unwrap_or("no reason was given"));
            told(Tone::Bad, &format!("{state} failed: {}", lines(&why, INDENT)))
        }
        _ => String::new(),
    }
}

/// Below the words of an event, after its time.
const INDENT: &str = "              ";

fn list_text(executions: &[Execution], output: &Output) -> String {
    let mut table = Table::new(["EXECUTION", "KIND", "WHERE", "STATE", "STAGE", "STARTED", "TOOK"]);
    for execution in executions {
        let end = execution.ended_at.unwrap_or_else(now);
        table.row([
            cell(&execution.id),
            cell(&execution.kind),
            maybe(execution.place.as_ref()),
            (word(&execution.state), tone(execution.state)),
            maybe(execution.stage.as_ref()),
            cell(ago(execution.started_at, now())),
            cell(duration(end.duration_since(execution.started_at))),
        ]);
    }
    table.render(output, "nothing has run yet")
}

pub fn tone(state: ExecutionState) -> Tone {
    match state {
        ExecutionState::Running => Tone::Wait,
        ExecutionState::Succeeded => Tone::Good,
        ExecutionState::Failed | ExecutionState::TimedOut => Tone::Bad,
        ExecutionState::Cancelled => Tone::Faint,
    }
}

fn detail_text(detail: &ExecutionDetail, history: bool, output: &Output) -> String {
    let execution = &detail.execution;
    let mut text = format!("{} {}", execution.id, execution.kind);
    if let Some(place) = &execution.place {
        text.push_str(&format!(" of {place}"));
    }
    let by = clean(&execution.started_by);
    text.push_str(&format!(", started {} by {by}\n", execution.started_at));
    if history {
        for event in &detail.history {
            text.push_str(&event_line(event, execution, output));
        }
    } else {
        text.push_str(&stages::text(detail, now(), output));
    }
    if let Some(waiting) = execution.waiting.as_ref().filter(|_| history) {
        let line = format!("          waits: {}", clean(waiting));
        text.push_str(&output.tone(Tone::Wait, &line));
        text.push('\n');
    }
    if execution.state.ended() {
        let end = end_text(execution, &text, output);
        text.push_str(&end);
    }
    for build in &detail.builds {
        text.push_str(&builds::text(build, output));
    }
    for log in &detail.logs {
        text.push_str(&format!("log: vend logs {}\n", clean(log)));
    }
    text
}

/// `  1.2 s   Build            TaskSucceeded  …`: the time since the start.
fn event_line(event: &HistoryEvent, execution: &Execution, output: &Output) -> String {
    let since = duration(event.at.duration_since(execution.started_at));
    let kind = clean(&event.kind);
    let tone = match kind.as_str() {
        kind if kind.ends_with("Failed") || kind.ends_with("TimedOut") => Tone::Bad,
        kind if kind.ends_with("Succeeded") => Tone::Good,
        kind if kind.ends_with("Scheduled") => Tone::Faint,
        _ => Tone::Plain,
    };
    let state = clean(event.state.as_deref().unwrap_or_default());
    let kind = output.tone(tone, &format!("{kind:<24}"));
    let line = format!(
        "{since:>12}  {state:<20} {kind} {}",
        lines(event.detail.as_deref().unwrap_or_default(), INDENT)
    );
    format!("{}\n", line.trim_end())
}

/// `told` was said before: a cause that is in it is not said again.
fn end_text(execution: &Execution, told: &str, output: &Output) -> String {
    let end = execution.ended_at.unwrap_or(execution.started_at);
    let took = duration(end.duration_since(execution.started_at));
    let mut text = match execution.state {
        ExecutionState::Succeeded => {
            output.tone(Tone::Good, &format!("{} succeeded in {took}", execution.kind))
        }
        state => output.tone(
            Tone::Bad,
            &format!("{} {} after {took}", execution.kind, word(&state)),
        ),
    };
    text.push('\n');
    if let Some(cause) = execution.cause.as_ref().or(execution.error.as_ref()) {
        let (cause, next) = without_next(cause);
        let first = clean(cause.lines().next().unwrap_or_default());
        if first.is_empty() || !told.contains(&first) {
            text.push_str(&format!("cause: {}\n", lines(&cause, "       ")));
        }
        let why = execution.place.as_ref();
        let why = why.map(|place| format!("vend why {}/{}", place.tenant, place.app));
        if let Some(next) = next.or(why) {
            text.push_str(&format!("next:  {}\n", clean(&next)));
        }
    }
    text
}
