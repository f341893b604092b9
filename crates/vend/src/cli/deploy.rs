//! A deployment under way: held, let go on, ended.

use std::process::ExitCode;

use clap::Subcommand;
use model::wire::{Deployment, Page, Started};
use serde_json::json;

use super::{
    Client, Failure, Global, Outcome, apps::started_text, client::escape, executions, target::Target,
};

#[derive(Debug, Subcommand)]
pub enum Deploy {
    /// Hold a deployment before its next step: hosts and traffic stay as they are, for seven days at most.
    Pause {
        /// TENANT/APP/ENVIRONMENT, or a deployment's id.
        target: String,
    },
    /// Let a deployment go on that is held.
    Resume {
        /// TENANT/APP/ENVIRONMENT, or a deployment's id.
        target: String,
    },
    /// End a deployment: the release before gets its hosts and all traffic back.
    Abort {
        /// TENANT/APP/ENVIRONMENT, or a deployment's id.
        target: String,
        /// Show how it goes until it ends.
        #[arg(long, short)]
        follow: bool,
    },
}

pub async fn run(command: &Deploy, global: &Global) -> Outcome {
    let (client, output) = (global.client()?, global.output());
    match command {
        Deploy::Pause { target } => {
            let held: Deployment = client
                .post(&path(target, "pause", &client).await?, &json!({}))
                .await?;
            output.show(&held, |held| {
                let (id, place) = (&held.id, &held.place);
                format!(
                    "{id} of v{} stops before its next step\nnext: vend deploy resume {place}\n",
                    held.release
                )
            });
        }
        Deploy::Resume { target } => {
            let path = path(target, "resume", &client).await?;
            let held: Deployment = client.post(&path, &json!({})).await?;
            output.show(&held, |held| {
                format!("{} of v{} goes on\n", held.id, held.release)
            });
        }
        Deploy::Abort { target, follow } => {
            let path = path(target, "abort", &client).await?;
            let started: Started = client.post(&path, &json!({})).await?;
            if let (Some(execution), true) = (started.executions.first(), *follow) {
                output.line(&started.summary);
                // That it ends as failed is what was asked for.
                executions::follow(execution.as_str(), &client, &output).await?;
            } else {
                output.show(&started, started_text);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The operation on a deployment, or on the newest one of an environment.
async fn path(target: &str, verb: &str, client: &Client) -> Result<String, Failure> {
    let id = match target.contains('/') {
        false => target.to_owned(),
        true => newest(target, client).await?,
    };
    Ok(format!("/v1/deployments/{}/{verb}", escape(&id)))
}

async fn newest(target: &str, client: &Client) -> Result<String, Failure> {
    // A deployment is of an environment: an app alone is refused here.
    let own = Target::read(target)?;
    own.environment()?;
    let list = format!("/v1/deployments?{}", own.query());
    let page: Page<Deployment> = client.list(&list, 20).await?;
    let ended = ["Succeeded", "Failed", "Stopped"];
    let open = || {
        page.items
            .iter()
            .filter(|own| !ended.contains(&own.state.as_str()))
    };
    // One that waits for another is not the one that is meant.
    match open().find(|own| own.state != "Queued").or(open().next()) {
        Some(open) => Ok(open.id.to_string()),
        None => Err(Failure::failed(format!("no deployment of {target} is under way"))
            .next(format!("vend deployments list {target}"))),
    }
}
