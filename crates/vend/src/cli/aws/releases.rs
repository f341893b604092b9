//! Releases on AWS: which there are, and the answers to their questions.

use ::aws::{
    Client,
    live::release::{self, About, Question, Release},
};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Exit, Failure, agreed, broken,
    home::{Home, Spot},
    project::Files,
    push::{self, no_flow},
};
use crate::{
    cli::now,
    output::{Output, Table, Tone, ago, cell, clean, duration, lines, maybe},
};

/// Releases among which questions are looked for.
const LOOKED: usize = 200;

#[derive(Debug, Args)]
pub struct Releases {
    /// Only this environment, or that of this branch.
    #[arg(long, short, value_name = "NAME")]
    environment: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// So many of each environment, newest first.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    limit: u16,
}

#[derive(Debug, Args)]
pub struct Approve {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    #[command(flatten)]
    files: Files,
    /// The release, where several wait: the beginning of its name.
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct Reject {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    #[command(flatten)]
    files: Files,
    /// The release, where several wait: the beginning of its name.
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
    /// Why not. It is on record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// A release with what is known of it.
#[derive(Debug, Serialize)]
struct Line {
    environment: String,
    #[serde(flatten)]
    release: Release,
    #[serde(flatten)]
    about: About,
    /// Where it is, if it is under way.
    state: Option<String>,
    waits_for_people: bool,
    is_live: bool,
    /// A release that began later is live.
    is_superseded: bool,
    /// Somebody said no.
    is_rejected: bool,
}

pub async fn run(own: &Releases, output: &Output) -> Result<(), Failure> {
    let home = own.files.home()?.knowing(&own.environment).await?;
    let mut all = Vec::new();
    let spots = home.spots(&own.environment)?;
    for spot in &spots {
        match of(&home, spot, usize::from(own.limit)).await {
            // Nobody asked for it by its name.
            Err(failure) if failure.exit == Exit::NotFound && own.environment.is_empty() => {}
            found => all.extend(found?),
        }
    }
    let next = push::next(&spots);
    output.show(&all, |all| table(all, &next, output));
    Ok(())
}

async fn of(home: &Home, spot: &Spot<'_>, most: usize) -> Result<Vec<Line>, Failure> {
    let client = &home.pipeline().1.client;
    let found = release::list(client, &spot.flow().await?, most).await;
    let mut all = Vec::new();
    for release in found.map_err(|error| no_flow(error, spot))? {
        let about = release::about(client, &release.arn).await.map_err(broken)?;
        let stand = release::stand(client, &release.arn).await.map_err(broken)?;
        let state = stand.state.as_deref();
        all.push(Line {
            environment: spot.name().to_owned(),
            waits_for_people: release.is_running() && stand.question.is_some(),
            is_live: release.is_live(state),
            is_superseded: release.is_superseded(state),
            is_rejected: !release.is_running() && about.is_rejected(),
            state: stand.state.filter(|_| release.is_running()),
            release,
            about,
        });
    }
    Ok(all)
}

fn table(all: &[Line], next: &str, output: &Output) -> String {
    let mut table = Table::new([
        "ENVIRONMENT",
        "RELEASE",
        "BRANCH",
        "AUTHOR",
        "STATE",
        "BEGAN",
        "TOOK",
    ]);
    for line in all {
        let state = match (&line.state, line.release.status.as_str()) {
            _ if line.waits_for_people => ("waits for people".to_owned(), Tone::Wait),
            _ if line.is_live => ("released".to_owned(), Tone::Good),
            _ if line.is_rejected => ("rejected".to_owned(), Tone::Bad),
            _ if line.is_superseded => ("superseded".to_owned(), Tone::Faint),
            (Some(state), "RUNNING") => (state.clone(), Tone::Wait),
            (_, status) => (status.to_lowercase().replace('_', " "), Tone::Bad),
        };
        let push = line.about.push.as_ref();
        let took = |ended: Timestamp| Some(duration(ended.duration_since(line.release.began?)));
        table.row([
            cell(&line.environment),
            (line.release.name.clone(), Tone::Strong),
            maybe(push.map(|push| push.branch.clone())),
            maybe(push.map(|push| push.author.clone())),
            state,
            maybe(line.release.began.map(|at| ago(at, now()))),
            maybe(line.release.ended.and_then(took)),
        ]);
    }
    let mut text = table.render(output, &format!("no releases yet\nnext: {next}"));
    let mut seen: Vec<&str> = Vec::new();
    for line in all {
        let is_newest = !seen.contains(&line.environment.as_str());
        seen.push(&line.environment);
        if line.waits_for_people {
            text.push_str(&format!("next: vend aws approve {}\n", line.environment));
        } else if line.is_rejected {
            let cause = line.about.cause.as_deref().filter(|cause| !cause.is_empty());
            let cause = cause.unwrap_or("somebody said no, and not why");
            let name = &line.release.name;
            text.push_str(&format!(
                "{}: {name} is rejected: {}\n",
                line.environment,
                lines(cause, "  ")
            ));
        } else if let Some(cause) = line.about.cause.as_deref().filter(|_| is_newest) {
            text.push_str(&format!("{}: {}\n", line.environment, lines(cause, "  ")));
        }
    }
    text
}

/// The one release that waits for people.
async fn waiting(home: &Home, spot: &Spot<'_>, named: Option<&str>) -> Result<(Release, Question), Failure> {
    let client = &home.pipeline().1.client;
    let found = release::list(client, &spot.flow().await?, LOOKED).await;
    let found = found.map_err(|error| no_flow(error, spot))?;
    let is_asked = |release: &Release| named.is_none_or(|start| release.name.starts_with(start));
    let mut all = Vec::new();
    for release in found.into_iter().filter(Release::is_running) {
        if !is_asked(&release) {
            continue;
        }
        let stand = release::stand(client, &release.arn).await.map_err(broken)?;
        all.extend(stand.question.map(|question| (release, question)));
    }
    let name = spot.name();
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => Err(
            Failure::new(Exit::NotFound, format!("nothing of {name} waits for people"))
                .next(format!("vend aws releases --environment {name}")),
        ),
        _ => {
            let names: Vec<String> = all.into_iter().map(|(release, _)| release.name).collect();
            Err(Failure::usage("several releases wait: say which one")
                .cause(names.join(", "))
                .next("the same with --release NAME"))
        }
    }
}

pub async fn approve(own: &Approve, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    let (release, question) = waiting(&home, &spot, own.release.as_deref()).await?;
    if !output.json {
        output.line(&clean(&question.text));
    }
    let (_, site) = home.pipeline();
    let by = release::person(&site.caller().await.map_err(broken)?.arn);
    may(&spot, &site.client, &release, &question, by).await?;
    if !agreed("Approve?", own.yes, output)? {
        return Err(Failure::failed("nothing was answered"));
    }
    let heard = release::approve(&site.client, &question, by).await;
    told(heard.map_err(broken)?, "approved", &spot, output)
}

/// Refuses an answer that would not count, where more than one yes is wanted.
async fn may(
    spot: &Spot<'_>,
    client: &Client,
    release: &Release,
    question: &Question,
    by: &str,
) -> Result<(), Failure> {
    let Some(approval) = spot.spec.approval.as_ref().filter(|own| own.required > 1) else {
        return Ok(());
    };
    let refuse = |why: String| {
        Err(Failure::new(Exit::Refused, why)
            .cause(format!("you are {}", clean(by)))
            .next("somebody else says yes"))
    };
    if question.people.iter().any(|own| own == by) {
        return refuse(format!(
            "you said yes already, and {} people must",
            approval.required
        ));
    }
    let about = release::about(client, &release.arn).await.map_err(broken)?;
    let is_author = about.push.is_some_and(|push| release::person(&push.sender) == by);
    match is_author && !approval.author_may_approve {
        true => refuse("you began this release, and others approve it".to_owned()),
        false => Ok(()),
    }
}

pub async fn reject(own: &Reject, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    let (_, question) = waiting(&home, &spot, own.release.as_deref()).await?;
    let (_, site) = home.pipeline();
    let by = &site.caller().await.map_err(broken)?.arn;
    let why = format!("{by} said no: {}", own.reason);
    let heard = release::reject(&site.client, &question, &why).await;
    told(heard.map_err(broken)?, "rejected", &spot, output)
}

fn told(heard: bool, word: &str, spot: &Spot<'_>, output: &Output) -> Result<(), Failure> {
    let next = format!("vend aws releases --environment {}", spot.name());
    if !heard {
        return Err(Failure::failed("nobody waits for the answer any more").next(next));
    }
    let said = serde_json::json!({ "environment": spot.name(), "answer": word });
    output.show(&said, |_| format!("{word}\nnext: {next}\n"));
    Ok(())
}
