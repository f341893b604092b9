//! Logs, by app or by name.

use clap::{Args, ValueEnum};
use model::wire::{AccessLog, LogEntry, LogText};

use super::{Client, Failure, Global, client::escape, executions::POLL, target::Target};
use crate::output::{Output, tame};

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
    /// Show the newest requests, as the load balancer wrote them down.
    #[arg(long, conflicts_with_all = ["kind", "follow", "list"])]
    access: bool,
    /// Show the names of the logs that there are, and nothing else.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What the app writes.
    Service,
    /// What the host writes.
    Console,
    Build,
    Bake,
    Deploy,
    All,
}

pub async fn run(command: &Logs, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    if is_name(&command.target) {
        known(&command.target, &client).await?;
        return show(&command.target, command.follow, &client, &output).await;
    }
    if command.access {
        return access(&command.target, &client, &output).await;
    }
    let target = Target::read(&command.target)?;
    let page = client
        .list::<LogEntry>(&format!("/v1/logs?{}", target.query()), 200)
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
    let newest = page.items.iter().filter(wanted).max_by_key(|entry| entry.at);
    let newest = newest.ok_or_else(|| {
        Failure::new(super::Exit::NotFound, format!("{target} has no {kind} log yet"))
            .next(format!("vend logs {target} --list"))
    })?;
    if !output.json {
        eprintln!("{}", newest.log);
    }
    show(&newest.log, command.follow, &client, &output).await
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

/// A log's name starts with its kind and an id, and no tenant has an app that is called like an id.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('/');
    let kind = parts.next().unwrap_or_default();
    let id = parts.next().unwrap_or_default();
    let id = id
        .strip_prefix("t-")
        .or_else(|| id.strip_prefix("h-"))
        .unwrap_or_default();
    matches!(kind, "build" | "bake" | "deploy" | "host" | "machine") && id.len() >= 13
}

/// Refuses a log that there is not, and says which there are. One of an old execution is in no list, and has text.
async fn known(log: &str, client: &Client) -> Result<(), Failure> {
    let empty = match client.get::<LogText>(&path(log, 0)).await {
        Ok(text) => text.text.is_empty() && text.next == 0,
        Err(failure) if failure.exit == super::Exit::NotFound => true,
        Err(failure) => return Err(failure),
    };
    if !empty {
        return Ok(());
    }
    let page = client.list::<LogEntry>("/v1/logs?", 1000).await?;
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
    let failure = Failure::new(super::Exit::NotFound, format!("there is no log `{log}`"));
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

async fn show(log: &str, follow: bool, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let chunk: LogText = client.get(&path(log, offset)).await?;
        let moved = chunk.next > offset;
        offset = chunk.next;
        match (output.json, output.terminal) {
            (true, _) => output.show(&chunk, |_| String::new()),
            (false, true) => output.text(&tame(&chunk.text)),
            (false, false) => output.text(&chunk.text),
        }
        if !moved && (chunk.ended || !follow) {
            return Ok(());
        }
        if !moved {
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_log_lists_those_that_there_are() {
        let entry = |log: &str, second: i64| LogEntry {
            log: log.into(),
            kind: "build".into(),
            place: None,
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
