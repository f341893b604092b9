//! Logs, by app or by name.

use clap::{Args, ValueEnum};
use model::wire::{LogEntry, LogText};

use super::{Client, Failure, Global, client::escape, executions::POLL, target::Target};
use crate::output::{Output, tame};

#[derive(Debug, Args)]
pub struct Logs {
    /// TENANT/APP, TENANT/APP/ENVIRONMENT, or one log by its name, such as build/t-….
    target: String,
    /// Which log of the app.
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// Go on with what is added.
    #[arg(long, short)]
    follow: bool,
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
        return show(&command.target, command.follow, &client, &output).await;
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

/// A log's name starts with its kind and an id, and no tenant has an app that is called like an id.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('/');
    let kind = parts.next().unwrap_or_default();
    let id = parts.next().unwrap_or_default();
    let id = id
        .strip_prefix("t-")
        .or_else(|| id.strip_prefix("h-"))
        .unwrap_or_default();
    matches!(kind, "build" | "bake" | "deploy" | "host") && id.len() >= 13
}

async fn show(log: &str, follow: bool, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut offset = 0;
    let name: Vec<String> = log.split('/').map(escape).collect();
    loop {
        let chunk: LogText = client
            .get(&format!("/v1/logs/{}?offset={offset}", name.join("/")))
            .await?;
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
