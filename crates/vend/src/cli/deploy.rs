//! A deployment under way: held, let go on, ended.

use std::process::ExitCode;

use clap::Subcommand;
use model::wire::{Deployment, Execution, Page, Started};
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
    /// End a deployment: the release before gets its hosts and all traffic back; registered machines keep what they have.
    Abort {
        /// TENANT/APP/ENVIRONMENT, or a deployment's id.
        target: String,
        /// Show how it goes until it ends.
        #[arg(long, short)]
        follow: bool,
        /// Also in the middle of a migration, of which nobody knows then how far it came.
        #[arg(long)]
        in_migration: bool,
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
        Deploy::Abort {
            target,
            follow,
            in_migration,
        } => {
            let path = path(target, "abort", &client).await? + executions::ending(*in_migration);
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
        true => newest(target, verb, client).await?,
    };
    Ok(format!("/v1/deployments/{}/{verb}", escape(&id)))
}

async fn newest(target: &str, verb: &str, client: &Client) -> Result<String, Failure> {
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
        None => {
            let list = format!("/v1/executions?{}", own.query());
            let page: Page<Execution> = client.list(&list, 20).await?;
            Err(none(target, verb, &page.items))
        }
    }
}

/// What runs may have got to no host yet: it is ended by another command.
fn none(target: &str, verb: &str, executions: &[Execution]) -> Failure {
    let message = format!("no deployment of {target} is under way");
    let Some(running) = executions.iter().find(|execution| !execution.state.ended()) else {
        return Failure::failed(message).next(format!("vend deployments list {target}"));
    };
    let at = running.stage.as_deref().unwrap_or("its first stage");
    let next = match verb {
        "abort" => format!("vend executions cancel {}", running.id),
        _ => format!("vend executions show {} --follow", running.id),
    };
    Failure::failed(format!("{message} yet"))
        .cause(format!("{} {} is at {at}", running.kind, running.id))
        .next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_to_no_host_yet_is_ended_by_its_execution() {
        let execution = |state: &str| -> Execution {
            serde_json::from_value(json!({
                "id": "e-0000000000001", "kind": "release", "state": state, "stage": "Bake",
                "started_by": "ada", "started_at": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        let next = |verb, state: &str| none("acme/shop/dev", verb, &[execution(state)]).next.unwrap();
        assert_eq!(next("abort", "running"), "vend executions cancel e-0000000000001");
        assert_eq!(
            next("pause", "running"),
            "vend executions show e-0000000000001 --follow"
        );
        assert_eq!(next("abort", "failed"), "vend deployments list acme/shop/dev");
    }
}
