//! Pushes, releases, rollbacks.

use clap::{Args, Subcommand};
use model::{
    release::ReleaseState,
    wire::{Migration, NewRollback, PlanAnswer, Push, PushState, Release, Started},
};

use super::{Failure, Global, Most, Outcome, apps::started_text, executions, now, plans, target::Target};
use crate::output::{Output, Table, Tone, ago, cell, clean, duration, headline, maybe};

#[derive(Debug, Subcommand)]
pub enum Pushes {
    /// List what was pushed to an app, newest first, and what became of it.
    List {
        /// TENANT/APP
        target: String,
        #[command(flatten)]
        most: Most,
    },
}

#[derive(Debug, Subcommand)]
pub enum Releases {
    /// List the releases of an environment, newest first.
    List {
        /// TENANT/APP/ENVIRONMENT
        target: String,
        #[command(flatten)]
        most: Most,
    },
    /// Show a release: its commit, image and revision, and its migration.
    Show {
        /// TENANT/APP/ENVIRONMENT
        target: String,
        /// v3, or 3.
        #[arg(value_parser = number)]
        number: u64,
    },
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// TENANT/APP/ENVIRONMENT
    target: String,
    /// The release to go back to, such as v3; the one before the live one when absent.
    #[arg(long, value_parser = number, value_name = "vN")]
    to: Option<u64>,
    /// Also to before a migration that is marked irreversible: the data stays as it left it.
    #[arg(long)]
    across_migrations: bool,
    /// Show what it would change, and change nothing.
    #[arg(long)]
    plan: bool,
    /// Show how it goes until it ends.
    #[arg(long, short)]
    follow: bool,
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    digits
        .parse()
        .map_err(|_| format!("`{text}` is not a release: write v3"))
}

pub async fn pushes(command: &Pushes, global: &Global) -> Result<(), Failure> {
    let Pushes::List { target, most } = command;
    let path = format!("{}/pushes", Target::read(target)?.app_path());
    let page = global.client()?.list::<Push>(&path, most.number()).await?;
    let output = global.output();
    output.show(&page, |page| {
        let mut table = Table::new(["WHEN", "BRANCH", "COMMIT", "STATE", "EXECUTION", "MESSAGE"]);
        for push in &page.items {
            table.row([
                cell(ago(push.received_at, now())),
                cell(&push.commit.branch),
                cell(short(&push.commit.id)),
                push_cell(push.state),
                maybe(push.execution.as_ref()),
                cell(headline(&push.commit.message, 60)),
            ]);
        }
        table.render(&output, "nothing was pushed yet") + most.rest(page)
    });
    Ok(())
}

pub async fn releases(command: &Releases, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Releases::List { target, most } => {
            let path = format!("{}/releases", Target::read(target)?.environment_path()?);
            let page = client.list::<Release>(&path, most.number()).await?;
            output.show(&page, |page| {
                releases_text(&page.items, &output) + most.rest(page)
            });
        }
        Releases::Show { target, number } => {
            let path = format!("{}/releases/{number}", Target::read(target)?.environment_path()?);
            let release: Release = client.get(&path).await?;
            output.show(&release, release_text);
        }
    }
    Ok(())
}

fn releases_text(releases: &[Release], output: &Output) -> String {
    let mut table = Table::new(["RELEASE", "STATE", "CREATED", "COMMIT", "AUTHOR", "MESSAGE"]);
    for release in releases {
        let state = match release.state {
            ReleaseState::Pending => ("pending", Tone::Wait),
            ReleaseState::Live => ("live", Tone::Good),
            ReleaseState::Retired => ("retired", Tone::Faint),
            ReleaseState::Failed => ("failed", Tone::Bad),
        };
        table.row([
            cell(format!("v{}", release.number)),
            (state.0.to_owned(), state.1),
            cell(ago(release.created_at, now())),
            cell(short(&release.commit.id)),
            cell(headline(&release.commit.author, 30)),
            cell(headline(&release.commit.message, 60)),
        ]);
    }
    table.render(output, "no releases yet")
}

fn release_text(release: &Release) -> String {
    let mut text = format!(
        "release   {} v{}\nstate     {}\ncreated   {}\ncommit    {} on {}\nauthor    {}\nmessage   {}\nimage     {}\nrevision  {}\n",
        release.place,
        release.number,
        word(&release.state),
        release.created_at,
        release.commit.id,
        headline(&release.commit.branch, 80),
        headline(&release.commit.author, 80),
        headline(&release.commit.message, 200),
        release.image,
        release.revision,
    );
    if let Some(execution) = &release.execution {
        text.push_str(&format!("made by   {execution}\n"));
    }
    if let Some(migration) = &release.migration {
        text.push_str(&migration_text(migration));
    }
    text
}

fn migration_text(migration: &Migration) -> String {
    let Migration {
        script, host, log, ..
    } = migration;
    let took = match migration.ended_at {
        Some(ended) => format!(" in {}", duration(ended.duration_since(migration.started_at))),
        None => String::new(),
    };
    let mark = if migration.irreversible {
        ", irreversible"
    } else {
        ""
    };
    let state = word(&migration.state);
    let mut text = format!(
        "migration {} {state}{took} on {host}{mark}\n",
        headline(script, 200)
    );
    if let Some(reason) = &migration.reason {
        text.push_str(&format!("          {}\n", headline(reason, 300)));
    }
    if let Some(log) = log {
        text.push_str(&format!("          vend logs {log}\n"));
    }
    text
}

pub async fn rollback(command: &Rollback, global: &Global) -> Outcome {
    let (client, output) = (global.client()?, global.output());
    let target = Target::read(&command.target)?;
    let path = format!("{}/rollback", target.environment_path()?);
    let order = NewRollback {
        to: command.to,
        across_migrations: command.across_migrations,
    };
    if command.plan {
        let plan: PlanAnswer = client.post(&format!("{path}/plan"), &order).await?;
        output.show(&plan, |plan| {
            let across = if command.across_migrations {
                " --across-migrations"
            } else {
                ""
            };
            let again = format!("vend rollback {target} --to v{}{across}", plan.plan.to);
            let next = plan.next.as_deref().map_or(again, clean);
            let refused = plan.refused.as_deref().map(clean);
            let refused = refused.map(|why| format!("it would be refused: {why}\n"));
            format!(
                "{}{}next: {next}\n",
                plans::plan_text(&plan.plan, &output),
                output.tone(Tone::Bad, &refused.unwrap_or_default())
            )
        });
        return Ok(std::process::ExitCode::SUCCESS);
    }
    let started: Started = client.post(&path, &order).await?;
    match started.executions.first() {
        Some(execution) if command.follow => {
            output.line(&started.summary);
            executions::follow(execution.as_str(), &client, &output).await
        }
        _ => {
            output.show(&started, started_text);
            Ok(std::process::ExitCode::SUCCESS)
        }
    }
}

/// The first characters of a commit's id, as git shows them.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// How the wire writes a unit variant.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub fn push_cell(state: PushState) -> (String, Tone) {
    let tone = match state {
        PushState::Done => Tone::Good,
        PushState::Failed => Tone::Bad,
        PushState::Ignored | PushState::Superseded => Tone::Faint,
        PushState::Waiting | PushState::Running => Tone::Wait,
    };
    (word(&state), tone)
}

/// How the command line writes a choice.
pub fn word_of(value: impl clap::ValueEnum) -> String {
    let possible = value.to_possible_value();
    possible
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
