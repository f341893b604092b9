//! Logs, by app or by name.

mod tail;

use clap::{Args, ValueEnum};
use model::wire::{AccessLog, App, Host, LogEntry, LogText, Place};

use super::{
    Client, Exit, Failure, Global,
    client::escape,
    executions::POLL,
    lines::{Line, Lines},
    target::Target,
};
use crate::output::{Output, Tone, tame};

/// Logs that are looked through for the newest: those of a large fleet's deployments are many.
const ALL: usize = 10_000;
/// Requests that are shown.
const REQUESTS: u32 = 500;

#[derive(Debug, Args)]
pub struct Logs {
    /// TENANT/APP, TENANT/APP/ENVIRONMENT (with `--access` also TENANT), or one log by its name, such as build/t-….
    target: String,
    /// Which log of the app.
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// Go on with what is added.
    #[arg(long, short)]
    follow: bool,
    /// Begin with so many of the last lines; 20 with `--follow`, else all.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["access", "list"])]
    lines: Option<usize>,
    /// Show the newest requests, as the load balancer wrote them down.
    #[arg(long, conflicts_with_all = ["kind", "follow", "list"])]
    access: bool,
    /// Show the names of the logs that there are, and nothing else.
    #[arg(long)]
    list: bool,
    /// Show when each line came, and its phase: of builds, bakes and deployments.
    #[arg(long, conflicts_with_all = ["access", "list"])]
    times: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What the app writes, on all hosts but those that are kept for the way back.
    Service,
    /// What the host writes.
    Console,
    Build,
    Bake,
    /// What the scripts of the newest deployment said, host by host.
    Deploy,
    All,
}

pub async fn run(command: &Logs, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    if is_name(&command.target) {
        known(&command.target, &client).await?;
        return show(&command.target, command, &client, &output).await;
    }
    if command.access {
        return access(&command.target, &client, &output).await;
    }
    let target = Target::read(&command.target)?;
    let page = client
        .list::<LogEntry>(&format!("/v1/logs?{}", target.query()), ALL)
        .await?;
    let kind = super::releases::word_of(command.kind);
    let wanted = |entry: &&LogEntry| command.kind == Kind::All || entry.kind == kind;
    if command.list {
        output.show(&page, |page| {
            page.items
                .iter()
                .map(|entry| format!("{}  {}\n", entry.at, entry.log))
                .collect()
        });
        return Ok(());
    }
    let Some(newest) = page.items.iter().filter(wanted).max_by_key(|entry| entry.at) else {
        return Err(nothing(&target, &command.target, &kind, &client).await);
    };
    if let (Some(deployment), false) = (&newest.deployment, output.json) {
        eprintln!(
            "{}",
            output.tone(Tone::Strong, &format!("deployment {deployment}"))
        );
    }
    let logs = match of_hosts(newest, &page.items, &client).await? {
        logs if logs.is_empty() => beside(newest, &page.items),
        logs => logs,
    };
    if command.follow && logs.len() > 1 && !output.json && !command.times {
        return tail::follow(&logs, command.first(), &client, &output).await;
    }
    for log in logs {
        if !output.json {
            eprintln!("{}", output.tone(Tone::Strong, log));
        }
        show(log, command, &client, &output).await?;
    }
    Ok(())
}

/// The logs of the same kind of all hosts where a newest one is from, but for those that are kept: the newest may be one
/// of these. None of what is not a host's.
async fn of_hosts<'a>(
    newest: &LogEntry,
    entries: &'a [LogEntry],
    client: &Client,
) -> Result<Vec<&'a str>, Failure> {
    let (Some(place), "service" | "console") = (&newest.place, newest.kind.as_str()) else {
        return Ok(Vec::new());
    };
    let Place {
        tenant,
        app,
        environment,
    } = place;
    let path = format!("/v1/hosts?tenant={tenant}&app={app}&environment={environment}");
    let hosts = client.list::<Host>(&path, ALL).await?.items;
    Ok(beside_kept(&hosts, &newest.kind, entries))
}

fn beside_kept<'a>(hosts: &[Host], kind: &str, entries: &'a [LogEntry]) -> Vec<&'a str> {
    // One that is kept for the way back is quiet; one that is to serve, or could not, is what somebody looks for.
    let is_meant = |entry: &&LogEntry| {
        let own = entry.log.split('/').nth(1);
        let mut hosts = hosts.iter().filter(|host| host.wanted != "kept");
        entry.kind == kind && hosts.any(|host| own == Some(host.id.as_str()))
    };
    entries
        .iter()
        .filter(is_meant)
        .map(|entry| entry.log.as_str())
        .collect()
}

/// All logs of what a newest one is a part of, in the order in which they began: builds of a batch have one ticket, each
/// with a name behind it; so have the hosts of an execution's deployment.
fn beside<'a>(newest: &'a LogEntry, entries: &'a [LogEntry]) -> Vec<&'a str> {
    let Some(whole) = whole(newest) else {
        return vec![&newest.log];
    };
    let mut all: Vec<&LogEntry> = entries
        .iter()
        .filter(|entry| entry.kind == newest.kind && self::whole(entry) == Some(whole))
        .collect();
    all.sort_by_key(|entry| (entry.at, &entry.log));
    all.into_iter().map(|entry| entry.log.as_str()).collect()
}

/// What a log is a part of: the batch's ticket, or the execution that deploys.
fn whole(entry: &LogEntry) -> Option<&str> {
    match entry.kind.as_str() {
        "build" => Some(entry.log.split_once('.')?.0),
        "deploy" => entry.log.split_once("t-")?.1.split('-').next(),
        _ => None,
    }
}

/// Why there is nothing to show: no such app, no such log where a log was meant, or nothing was written yet.
async fn nothing(target: &Target, typed: &str, kind: &str, client: &Client) -> Failure {
    match client.get::<App>(&target.app_path()).await {
        Ok(_) => Failure::new(Exit::NotFound, format!("{target} has no {kind} log yet"))
            .next(format!("vend logs {target} --list")),
        Err(failure) if failure.exit == Exit::NotFound && KINDS.contains(&target.tenant.as_str()) => {
            match client.list::<LogEntry>("/v1/logs?", ALL).await {
                Ok(page) => unknown(typed, &page.items),
                Err(failure) => failure,
            }
        }
        Err(failure) => failure,
    }
}

/// Of a tenant, an app or an environment.
async fn access(target: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let query = match target.contains('/') {
        true => Target::read(target)?.query(),
        false => format!("tenant={}", escape(target)),
    };
    let log: AccessLog = client
        .get(&format!("/v1/access?{query}&limit={REQUESTS}"))
        .await?;
    output.show(&log, |log| {
        log.lines.iter().map(|line| format!("{}\n", tame(line))).collect()
    });
    Ok(())
}

/// What the name of a log begins with.
const KINDS: [&str; 5] = ["build", "bake", "deploy", "host", "machine"];

/// A log's name starts with its kind and an id, and no tenant has an app that is called like an id.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('/');
    let kind = parts.next().unwrap_or_default();
    let id = parts.next().unwrap_or_default();
    let id = id
        .strip_prefix("t-")
        .or_else(|| id.strip_prefix("h-"))
        .unwrap_or_default();
    KINDS.contains(&kind) && id.len() >= 13
}

/// Refuses a log that there is not, and says which there are. One of an old execution is in no list, and has text.
async fn known(log: &str, client: &Client) -> Result<(), Failure> {
    let empty = match client.get::<LogText>(&path(log, 0)).await {
        Ok(text) => text.text.is_empty() && text.next == 0,
        Err(failure) if failure.exit == Exit::NotFound => true,
        Err(failure) => return Err(failure),
    };
    if !empty {
        return Ok(());
    }
    let page = client.list::<LogEntry>("/v1/logs?", ALL).await?;
    match page.items.iter().any(|entry| entry.log == log) {
        true => Ok(()),
        false => Err(unknown(log, &page.items)),
    }
}

/// Names of logs that an error lists.
const LISTED: usize = 20;

fn unknown(log: &str, there: &[LogEntry]) -> Failure {
    let kind = log.split('/').next().unwrap_or_default();
    // Those of the same kind first: they are what was most likely meant. Then the newest.
    let mut there: Vec<&LogEntry> = there.iter().collect();
    there.sort_by_key(|entry| (!entry.log.starts_with(kind), std::cmp::Reverse(entry.at)));
    let names: Vec<&str> = there
        .iter()
        .take(LISTED)
        .map(|entry| entry.log.as_str())
        .collect();
    let more = match there.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let failure = Failure::new(Exit::NotFound, format!("there is no log `{log}`"));
    match names.first() {
        Some(first) => failure
            .cause(format!("the logs are: {}{more}", names.join(", ")))
            .next(format!("vend logs {first}")),
        None => failure
            .cause("there are no logs yet")
            .next("vend push TENANT/APP"),
    }
}

/// Where the text of a log is read.
pub fn path(log: &str, offset: u64) -> String {
    let name: Vec<String> = log.split('/').map(escape).collect();
    format!("/v1/logs/{}?offset={offset}", name.join("/"))
}

async fn show(log: &str, command: &Logs, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut offset = 0;
    // What there is already, until its end is reached: only then it is known which lines are the last.
    let mut before = command.first().map(|lines| (lines, String::new()));
    let mut lines = command.times.then(Lines::default);
    loop {
        let chunk: LogText = client.get(&path(log, offset)).await?;
        let read = chunk.next.saturating_sub(offset);
        let moved = read > 0;
        // One that is written to all the time is read up to where there is little left.
        let more = moved && !(command.follow && read < LITTLE);
        let text = match &mut lines {
            Some(lines) => timed(&lines.feed(&chunk.text, offset, &chunk.times)),
            None => chunk.text.clone(),
        };
        offset = chunk.next;
        match (&mut before, output.json) {
            (_, true) => output.show(&chunk, |_| String::new()),
            (Some((lines, held)), false) => {
                held.push_str(&text);
                *held = last(held, *lines).to_owned();
                if !more {
                    say(held, output);
                    before = None;
                }
            }
            (None, false) => say(&text, output),
        }
        if !moved && (chunk.ended || !command.follow) {
            if let (Some(lines), false) = (&mut lines, output.json) {
                say(&timed(&lines.end()), output);
            }
            if offset == 0 && !output.json {
                eprintln!("{log} has no lines");
            }
            return Ok(());
        }
        if !moved {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Lines with when they came, in UTC, and their phase.
fn timed(lines: &[Line]) -> String {
    let shown = |line: &Line| {
        let at = line
            .at
            .map_or(String::new(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        match line.phase.is_empty() {
            true => format!("{at:<20}  {}\n", line.text),
            false => format!("{at:<20}  {:<16} {}\n", line.phase, line.text),
        }
    };
    lines.iter().map(shown).collect()
}

fn say(text: &str, output: &Output) {
    match output.terminal {
        true => output.text(&tame(text)),
        false => output.text(text),
    }
}

/// Bytes of an answer that is not cut off by its own limit.
const LITTLE: u64 = host::logs::CHUNK_BYTES as u64 / 2;
/// Lines that are shown before those that are waited for.
const BEFORE: usize = 20;

impl Logs {
    /// So many of the lines that there are already; absent: all.
    fn first(&self) -> Option<usize> {
        self.lines.or(self.follow.then_some(BEFORE))
    }
}

/// The last lines of a text; one that has no end yet is one.
fn last(text: &str, lines: usize) -> &str {
    let whole = text.strip_suffix('\n').unwrap_or(text);
    let before = match lines {
        0 => Some(text.len()),
        lines => whole.rmatch_indices('\n').nth(lines - 1).map(|(at, _)| at + 1),
    };
    &text[before.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_text_are_cut_at_their_beginnings() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(last(text, lines), expected, "{text:?} {lines}");
        }
    }

    #[test]
    fn hosts_that_are_not_kept_are_shown_whatever_is_newest() {
        let host = |id: &str, wanted: &str| -> Host {
            serde_json::from_value(serde_json::json!({
                "id": id, "wanted": wanted, "role": "app", "address": "10.0.0.1",
                "place": { "tenant": "acme", "app": "shop", "environment": "dev" },
                "created_at": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        let hosts =
            [("h-1", "serving"), ("h-2", "kept"), ("h-3", "serving")].map(|(id, wanted)| host(id, wanted));
        let entry = |log: &str, kind: &str| LogEntry {
            log: log.into(),
            kind: kind.into(),
            place: None,
            deployment: None,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let there = [
            entry("host/h-1/service", "service"),
            entry("host/h-1/console", "console"),
            entry("host/h-2/service", "service"),
            entry("host/h-3/service", "service"),
        ];
        assert_eq!(
            beside_kept(&hosts, "service", &there),
            ["host/h-1/service", "host/h-3/service"]
        );
        assert!(beside_kept(&hosts[1..2], "service", &there).is_empty());
    }

    #[test]
    fn parts_of_one_thing_are_shown_together() {
        let entry = |(log, kind, second): (&str, &str, i64)| LogEntry {
            log: log.into(),
            kind: kind.into(),
            place: None,
            deployment: None,
            at: jiff::Timestamp::from_second(second).unwrap(),
        };
        let there = [
            ("build/t-b-1-1.test", "build", 4),
            ("build/t-b-1-1.lint", "build", 3),
            ("build/t-a-1-1.lint", "build", 1),
            ("build/t-c-1-1", "build", 9),
            ("deploy/t-b-roll.h-1", "deploy", 6),
            ("deploy/t-b-roll.h-2", "deploy", 5),
            ("deploy/t-a-deploy.h-2", "deploy", 2),
            ("machine/h-7/deploy-t-d-machines.h-7", "deploy", 7),
            ("machine/h-8/deploy-t-d-machines.h-8", "deploy", 7),
            ("host/h-1.x/service", "service", 8),
        ]
        .map(entry);
        for (newest, expected) in [
            (0, vec!["build/t-b-1-1.lint", "build/t-b-1-1.test"]),
            (3, vec!["build/t-c-1-1"]),
            (4, vec!["deploy/t-b-roll.h-2", "deploy/t-b-roll.h-1"]),
            (
                8,
                vec![
                    "machine/h-7/deploy-t-d-machines.h-7",
                    "machine/h-8/deploy-t-d-machines.h-8",
                ],
            ),
            (9, vec!["host/h-1.x/service"]),
        ] {
            assert_eq!(beside(&there[newest], &there), expected);
        }
    }

    #[test]
    fn an_unknown_log_lists_those_that_there_are() {
        let entry = |log: &str, second: i64| LogEntry {
            log: log.into(),
            kind: "build".into(),
            place: None,
            deployment: None,
            at: jiff::Timestamp::from_second(second).unwrap(),
        };
        let there = [
            entry("build/t-1", 1),
            entry("host/h-1/service", 9),
            entry("build/t-2", 2),
        ];
        let failure = unknown("build/t-9", &there);
        assert_eq!(failure.what, "there is no log `build/t-9`");
        assert_eq!(
            failure.cause.as_deref(),
            Some("the logs are: build/t-2, build/t-1, host/h-1/service")
        );
        assert_eq!(failure.next.as_deref(), Some("vend logs build/t-2"));
    }
}
