//! `vend move`: an environment goes from a platform to AWS, and comes back.
//!
//! What is made on AWS is made with the caller's own credentials, by the same code as `vend aws apply` and `push`; who
//! serves is the platform's to know, and a row of it. Each step looks first whether it is done, so that what was broken off
//! goes on when it is typed again.

mod back;
mod data;
mod frost;
mod plan;
mod step;

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use model::wire::{Environment, EnvironmentState, Forwarded, Move as Moved, Release, Side};

use super::{Exit, Failure, project::Files};
use crate::{
    cli::{Client, Global, target::Target},
    output::{Output, Tone},
};

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Nobody is served for so long, if it is not said again: a command that was killed is not waited for longer. In seconds.
const CLOSED_S: u32 = 900;
/// And so often it is said.
const SAID: Duration = Duration::from_secs(200);
/// Until hosts are there that AWS has served instead of.
const WAKES: Duration = Duration::from_secs(600);
/// A share is taken back when more than so many in a hundred requests fail there, and so many at least.
const TOLERATED: u64 = 5;

#[derive(Debug, Args)]
pub struct Move {
    /// TENANT/APP/ENVIRONMENT
    target: String,
    #[command(flatten)]
    files: Files,
    /// Where it is to run.
    #[arg(long, required_unless_present_any = ["finish", "abort"])]
    engine: Option<Engine>,
    /// Show what would be done, what it costs and what does not move. Nothing is changed.
    #[arg(long)]
    plan: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The shares of the requests that go there, one after the other, in percent.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10,50,100",
        value_name = "PERCENT"
    )]
    weights: Vec<u32>,
    /// For so many seconds each share is watched before the next.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    watch: u64,
    /// Stop what runs here of an environment that is wholly served by AWS.
    #[arg(long, conflicts_with_all = ["engine", "abort", "plan"])]
    finish: bool,
    /// Serve all of it where its data is, at once. What was made on AWS stays there.
    #[arg(long, conflicts_with_all = ["engine", "plan"])]
    abort: bool,
    /// What was written on AWS since the data went there is lost.
    #[arg(long, requires = "abort")]
    lose_writes: bool,
    /// The receiver's program, where it is not this one: a build of vend for another architecture.
    #[arg(long, value_name = "FILE", env = "VEND_RECEIVER")]
    receiver: Option<std::path::PathBuf>,
}

/// Where an environment runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Aws,
    Embedded,
}

pub async fn run(own: &Move, global: &Global) -> Result<ExitCode, Failure> {
    let output = global.output();
    let trip = Trip::new(own, global.client()?, &output)?;
    match own.engine {
        _ if own.finish => trip.finish().await?,
        _ if own.abort => Box::pin(trip.abort(own)).await?,
        Some(Engine::Embedded) => Box::pin(back::back(&trip, own)).await?,
        _ => Box::pin(step::there(&trip, own)).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// An environment and its platform.
struct Trip<'o> {
    client: Client,
    target: Target,
    /// Of the environment, and of its move.
    environment: String,
    path: String,
    output: &'o Output,
}

impl<'o> Trip<'o> {
    fn new(own: &Move, client: Client, output: &'o Output) -> Result<Self, Failure> {
        check(&own.weights)?;
        if output.json && !(own.plan || own.finish || own.abort) {
            return Err(Failure::usage("a move is told as it goes, not in JSON").next("the same with --plan"));
        }
        let target = Target::read(&own.target)?;
        let environment = target.environment_path()?;
        Ok(Self {
            client,
            path: format!("{environment}/move"),
            environment,
            target,
            output,
        })
    }

    async fn shown(&self) -> Result<Environment, Failure> {
        self.client.get(&self.environment).await
    }

    /// The release that is live here.
    async fn live(&self) -> Result<Release, Failure> {
        let shown = self.shown().await?;
        let none = || {
            Failure::failed(format!(
                "{} has no release yet: there is nothing to move",
                self.target
            ))
        };
        let live = shown.live.ok_or_else(|| none().next("vend push"))?;
        self.client
            .get(&format!("{}/releases/{live}", self.environment))
            .await
    }

    /// The move that is under way; `None`: it runs here, and stays. An environment that is not there is an error.
    async fn found(&self) -> Result<Option<Moved>, Failure> {
        match self.client.get(&self.path).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.exit == Exit::NotFound => self.shown().await.map(|_| None),
            Err(failure) => Err(failure),
        }
    }

    /// The move, which must be under way.
    async fn the_move(&self) -> Result<Moved, Failure> {
        self.client.get(&self.path).await
    }

    async fn forward(&self, share: u32) -> Result<Moved, Failure> {
        let body = Forwarded {
            share,
            closed: false,
            closed_s: None,
        };
        self.client.put(&self.path, &body).await
    }

    /// Serves nobody, for a while.
    async fn close(&self, share: u32) -> Result<Moved, Failure> {
        let body = Forwarded {
            share,
            closed: true,
            closed_s: Some(CLOSED_S),
        };
        self.client.put(&self.path, &body).await
    }

    /// Does something while nobody is served, and says again and again that it goes on.
    async fn closed<T>(&self, share: u32, doing: impl Future<Output = T>) -> T {
        let saying = async {
            loop {
                tokio::time::sleep(SAID).await;
                // Who cannot say it goes on all the same: what comes too late is refused.
                let _ = self.close(share).await;
            }
        };
        tokio::select! {
            done = doing => done,
            () = saying => unreachable!("it is said for ever"),
        }
    }

    fn tell(&self, step: &str, what: &str) {
        let step = self.output.tone(Tone::Strong, &format!("{step:<9}"));
        self.output.line(&format!("{step} {what}"));
    }

    async fn finish(&self) -> Result<(), Failure> {
        let path = format!("{}/finish", self.path);
        let done: Moved = self.client.post(&path, &serde_json::json!({})).await?;
        self.output.show(&done, |done| {
            format!(
                "{} runs on AWS; its hosts here are being stopped, and requests for its names go on to {}\nback: {}\n",
                self.target,
                done.host,
                way_back(&self.target)
            )
        });
        Ok(())
    }

    async fn abort(&self, own: &Move) -> Result<(), Failure> {
        let found = self.the_move().await?;
        if own.lose_writes && found.finished_at.is_some() {
            // What is served here must run here first.
            self.reopen().await?;
        }
        if !own.lose_writes && found.data == Some(Side::Away) && (found.closed || found.torn) {
            return back::stays(self, own).await;
        }
        self.end(&found, own.lose_writes).await
    }

    /// All is served here.
    async fn end(&self, found: &Moved, lose: bool) -> Result<(), Failure> {
        let () = self
            .client
            .delete(&format!("{}?lose_writes={lose}", self.path))
            .await?;
        let ended = serde_json::json!({ "ended": self.target.to_string(), "share": found.share });
        self.output.show(&ended, |_| {
            format!(
                "{} is served here; {} % of the requests went to {}\nwhat was made on AWS stays until: vend aws destroy --only STACK (vend aws status has their names)\n",
                self.target, found.share, found.host
            )
        });
        Ok(())
    }

    /// Starts its hosts here, which serve nobody yet.
    async fn reopen(&self) -> Result<(), Failure> {
        let path = format!("{}/reopen", self.path);
        let _: Moved = self.client.post(&path, &serde_json::json!({})).await?;
        self.awake().await
    }

    /// Waits until its hosts serve here.
    async fn awake(&self) -> Result<(), Failure> {
        let end = tokio::time::Instant::now() + WAKES;
        loop {
            let shown = self.shown().await?;
            if shown.state == EnvironmentState::Live && shown.execution.is_none() {
                self.tell("hosts", "they are up here");
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                return Err(
                    Failure::failed(format!("the hosts of {} do not come up here", self.target))
                        .cause("all of its requests still go to AWS")
                        .next(format!("vend executions list {}", self.target)),
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The command that brings an environment back.
fn way_back(target: &Target) -> String {
    format!("vend move {target} --engine embedded")
}

/// Shares grow, and end at 100 at most.
fn check(weights: &[u32]) -> Result<(), Failure> {
    let grow = weights.windows(2).all(|pair| pair[0] < pair[1]);
    match grow && weights.iter().all(|weight| (1..=100).contains(weight)) {
        true => Ok(()),
        false => Err(Failure::usage("weights grow from 1 to 100").next("--weights 10,50,100")),
    }
}

/// Does too much of what went there fail?
fn is_bad(requests: u64, errors: u64) -> bool {
    errors >= TOLERATED && errors * 100 > requests * TOLERATED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow() {
        for (weights, good) in [
            (vec![10, 50, 100], true),
            (vec![100], true),
            (vec![25], true),
            (vec![50, 10], false),
            (vec![50, 50], false),
            (vec![0, 100], false),
            (vec![101], false),
        ] {
            assert_eq!(check(&weights).is_ok(), good, "{weights:?}");
        }
    }

    #[test]
    fn a_few_failures_of_many_are_not_a_reason() {
        assert!(!is_bad(0, 0) && !is_bad(4, 4), "too few to say");
        assert!(is_bad(5, 5) && is_bad(100, 6));
        assert!(!is_bad(100, 5) && !is_bad(1000, 20));
    }
}
