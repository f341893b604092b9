//! Logs on AWS: what hosts, builds and flows have written, out of CloudWatch.

use std::time::Duration;

use ::aws::{
    Client,
    live::log::{Line, Reader},
    synth::Runtime,
};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::{
    Exit, Failure, broken,
    home::{Home, Spot},
    project::Files,
};
use crate::{
    cli::access::seconds,
    output::{Output, Tone, tame},
};

/// Said to people: what reads the lines wants no others.
const NOTHING: &str =
    "nothing was written in that time: --since 7d looks further back, --follow waits for more";
/// Between two questions for what is new; CloudWatch takes a few a second.
const POLL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Logs {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    #[command(flatten)]
    files: Files,
    /// Whose.
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// From how long ago on, such as 30m, 12h or 7d.
    #[arg(long, default_value = "1h", value_parser = seconds, value_name = "TIME")]
    since: u64,
    /// Only lines that match this pattern of CloudWatch.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Go on with what is added.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What hosts and the app on them write.
    Service,
    /// Builds of the app, of all its environments.
    Build,
    /// Bakes of the app, of all its environments.
    Bake,
    /// Tests of the app, of all its environments.
    Tests,
    /// What the environment's flow did.
    Flow,
}

/// The log groups of a kind, each with who reads it.
fn groups<'h>(home: &'h Home, spot: &Spot<'h>, kind: Kind) -> Vec<(String, &'h Client)> {
    let built = |group: String| vec![(group, &home.pipeline().1.client)];
    let project = |word: &str| built(format!("/{}/{word}", spot.home().built()));
    match kind {
        Kind::Service => {
            let group = |path: String| format!("/{path}");
            spot.targets()
                .iter()
                .map(|target| (group(target.path()), target.client()))
                .collect()
        }
        Kind::Build => project("build"),
        Kind::Bake if spot.runtime() == Runtime::Host => project("bake"),
        Kind::Bake => project("pack"),
        Kind::Tests => project("tests"),
        Kind::Flow => built(format!(
            "/aws/vendedlogs/states/{}/flow/{}",
            spot.home().built(),
            spot.name()
        )),
    }
}

pub async fn run(own: &Logs, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    let since = i64::try_from(own.since).ok().map(SignedDuration::from_secs);
    let from = since.and_then(|since| crate::clock::now().checked_sub(since).ok());
    let from = from.ok_or_else(|| Failure::usage("--since is longer than there has been time"))?;
    let groups = groups(&home, &spot, own.kind);
    let mut readers: Vec<(Reader, &str, &Client)> = groups
        .iter()
        .map(|(group, client)| {
            (
                Reader::new(group.clone(), own.filter.clone(), from),
                group.as_str(),
                *client,
            )
        })
        .collect();
    let mut is_silent = true;
    loop {
        for (reader, group, client) in &mut readers {
            let mut shown = |line: Line| {
                is_silent = false;
                show(&line, output);
            };
            let read = reader.read(client, &mut shown).await.map_err(broken)?;
            if !read {
                return Err(
                    Failure::new(Exit::NotFound, format!("there is no log group {group}"))
                        .next("vend aws apply"),
                );
            }
        }
        if !own.follow {
            if is_silent && output.terminal && !output.json {
                output.line(NOTHING);
            }
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A line, as it comes: a log may have no end.
fn show(line: &Line, output: &Output) {
    if output.json {
        let text = serde_json::to_string(line).expect("a line is plain data");
        output.text(&format!("{text}\n"));
        return;
    }
    let stream = output.tone(Tone::Faint, &tame(&line.stream));
    output.text(&format!("{} {stream} {}\n", line.at, tame(&line.text)));
}
