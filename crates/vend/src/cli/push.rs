//! `vend push`: git push with the right URL and credentials, and then how it goes.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use clap::Args;
use model::{
    release::ReleaseState,
    wire::{self, App, PushState},
};

use super::{Client, Failure, Global, Outcome, edge, executions, releases::push_cell, target::Target};
use crate::output::{Output, clean, lines};

/// How long a push may take to get an execution before the client stops looking.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Push {
    /// TENANT/APP
    target: String,
    /// The branch to push to; the one that is checked out when absent.
    #[arg(long, short)]
    branch: Option<String>,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    /// Do not wait for the release.
    #[arg(long)]
    detach: bool,
}

pub async fn run(command: &Push, global: &Global) -> Outcome {
    let (client, output) = (global.client()?, global.output());
    let target = Target::read(&command.target)?;
    let app: App = client.get(&target.app_path()).await?;
    if let Some(repository) = &app.repository {
        return Err(
            Failure::usage(format!("{target} is built from {}", clean(repository)))
                .next("push there; its webhook starts the release"),
        );
    }
    let branch = match &command.branch {
        Some(branch) => branch.clone(),
        None => ask_git(&["symbolic-ref", "--short", "HEAD"])?,
    };
    let commit = ask_git(&["rev-parse", "HEAD"])?;
    let known = find(&target, &branch, &commit, &client).await?;
    let changed = ask_git(&["status", "--porcelain", "--untracked-files=no"]);
    if !output.json && changed.is_ok_and(|changed| !changed.is_empty()) {
        output.line("note: changes that are not committed stay here");
    }
    push(&app.git_url, &branch, command.force, global)?;
    let Some(mut push) = find(&target, &branch, &commit, &client).await? else {
        output.line("the platform has the commit; nothing new is to be released");
        return Ok(ExitCode::SUCCESS);
    };
    let is_new = known.is_none_or(|known| known.number != push.number);
    let failed = !is_new && push.state == PushState::Failed;
    if let Some(place) = push.environment.as_ref().filter(|_| failed) {
        if !output.json {
            output.line("this commit was pushed before and failed: it is released again");
        }
        let path = format!("{}/environments/{place}/retry", target.app_path());
        push = client.post(&path, &()).await?;
    }
    if !is_new && matches!(push.state, PushState::Done | PushState::Superseded) && !output.json {
        return say_again(&target, &push, &client, &output).await;
    }
    if command.detach || output.json {
        output.show(&push, |_| {
            format!("pushed\nnext: vend status {target} --follow\n")
        });
        return Ok(ExitCode::SUCCESS);
    }
    follow(&target, push, &client, &output).await
}

fn ask_git(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("git").args(arguments).output();
    let output = output.map_err(|error| Failure::failed("git cannot be run").cause(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(
            Failure::failed("this is not a working tree with a commit on a branch")
                .cause(String::from_utf8_lossy(&output.stderr).trim().to_owned())
                .next("git init && git add --all && git commit"),
        ),
    }
}

fn push(url: &str, branch: &str, force: bool, global: &Global) -> Result<(), Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::failed("this program has no path").cause(error.to_string()))?;
    let quoted = own.to_string_lossy().replace('\'', r"'\''");
    let mut git = Command::new("git");
    // The empty helper forgets the user's own helpers, which would keep the token.
    git.args(["-c", "credential.helper="])
        .arg("-c")
        .arg(format!("credential.helper=!'{quoted}' git credential"))
        .args(["push", "--quiet"])
        .args(force.then_some("--force"))
        .arg(url)
        .arg(format!("HEAD:refs/heads/{branch}"))
        .env("VEND_DATA", global.data())
        .env("GIT_TERMINAL_PROMPT", "0");
    if let Some(url) = &global.url() {
        git.env("VEND_URL", url);
    }
    let status = git
        .status()
        .map_err(|error| Failure::failed("git cannot be run").cause(error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => {
            Err(Failure::failed("git push failed")
                .next(
                    "look at what git said: 403 is a token that may not push (vend whoami), and what is behind the branch there \
                     is pulled first, or replaced with --force",
                ))
        }
    }
}

/// The newest push of the branch, if it is this commit's.
async fn find(
    target: &Target,
    branch: &str,
    commit: &str,
    client: &Client,
) -> Result<Option<wire::Push>, Failure> {
    let path = format!("{}/pushes", target.app_path());
    let page = client.list::<wire::Push>(&path, 20).await?;
    let newest = page.items.into_iter().find(|push| push.commit.branch == branch);
    Ok(newest.filter(|push| push.commit.id == commit))
}

/// What became of a commit that the branch had before.
async fn say_again(target: &Target, push: &wire::Push, client: &Client, output: &Output) -> Outcome {
    output.line("the branch has this commit already: nothing new is released");
    let Some(environment) = &push.environment else {
        return Ok(ExitCode::SUCCESS);
    };
    let path = format!("{}/environments/{environment}", target.app_path());
    let live = client.get::<wire::Environment>(&path).await?.live;
    let releases = client
        .list::<wire::Release>(&format!("{path}/releases"), 100)
        .await?;
    let of_it = |release: &&wire::Release| release.commit.id == push.commit.id;
    let own = releases.items.iter().filter(of_it).map(|release| release.number);
    let own: Vec<u64> = own.collect();
    output.say(&again_text(&format!("{target}/{environment}"), live, &own));
    Ok(ExitCode::SUCCESS)
}

/// `own`: the releases of the commit.
fn again_text(place: &str, live: Option<u64>, own: &[u64]) -> String {
    match (live, own.iter().max()) {
        (Some(live), _) if own.contains(&live) => format!("it is live as v{live}\n"),
        (Some(live), Some(newest)) => format!(
            "v{live} serves, and not v{newest}, which it became\nnext: vend rollback {place} --to v{newest}\n"
        ),
        (Some(live), None) => format!("v{live} serves\nnext: vend why {place}\n"),
        (None, _) => format!("nothing is live\nnext: vend why {place}\n"),
    }
}

/// Where what was pushed is live, what to do next, and how to take it back.
async fn say_where(
    target: &Target,
    push: &wire::Push,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let Some(environment) = &push.environment else {
        return Ok(());
    };
    let path = format!("{}/environments/{environment}", target.app_path());
    let environment: wire::Environment = client.get(&path).await?;
    let releases = client
        .list::<wire::Release>(&format!("{path}/releases"), 20)
        .await?;
    let was_live = |release: &wire::Release| release.state == ReleaseState::Retired;
    let has_another = releases.items.iter().any(was_live);
    // A platform of an older version does not tell, and the release is live all the same.
    let names = edge::asked(client, &format!("?{}", target.query())).await;
    let mut names = names.unwrap_or_default();
    names.retain(|name| name.place == environment.place);
    output.say(&live_text(target, &environment, &names, has_another));
    Ok(())
}

fn live_text(
    target: &Target,
    environment: &wire::Environment,
    names: &[wire::Name],
    has_another: bool,
) -> String {
    let mut text: String = environment
        .urls
        .iter()
        .map(|url| format!("live: {}\n", clean(url)))
        .collect();
    for name in names {
        if let Some(problem) = &name.problem {
            text.push_str(&format!(
                "{} does not lead here: {}\n",
                clean(&name.name),
                clean(problem)
            ));
        }
    }
    let name = &environment.place.environment;
    let undo = match has_another {
        true => format!("vend rollback {target}/{name}"),
        // There is nothing to go back to.
        false => format!("vend environments destroy {target}/{name}"),
    };
    let next = match environment.urls.is_empty() {
        // It is on machines: nobody asks it over the platform, and its processes write their logs there.
        true => format!("vend hosts list {}", target.tenant),
        false => format!("vend logs {target}/{name} --follow"),
    };
    text.push_str(&format!("next: {next}\nundo: {undo}\n"));
    text
}

async fn follow(target: &Target, mut push: wire::Push, client: &Client, output: &Output) -> Outcome {
    let start = Instant::now();
    let mut said = None;
    loop {
        if let Some(execution) = &push.execution {
            let code = executions::follow(execution.as_str(), client, output).await?;
            if code == ExitCode::SUCCESS {
                say_where(target, &push, client, output).await?;
            }
            return Ok(code);
        }
        if push.state != PushState::Waiting {
            let (state, tone) = push_cell(push.state);
            let reason = lines(push.reason.as_deref().unwrap_or_default(), "  ");
            output.line(&format!("{}: {reason}", output.tone(tone, &state)));
            output.line(&format!("next: vend why {target}"));
            return Ok(match push.state {
                PushState::Done | PushState::Superseded => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            });
        }
        if push.reason != said {
            said.clone_from(&push.reason);
            output.line(&format!("waits: {}", clean(said.as_deref().unwrap_or_default())));
        } else if said.is_none() && start.elapsed() > PATIENCE {
            output.line(&format!("pushed, and not started yet\nnext: vend why {target}"));
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(executions::POLL).await;
        let path = format!("{}/pushes", target.app_path());
        let page = client.list::<wire::Push>(&path, 50).await?;
        match page.items.into_iter().find(|other| other.number == push.number) {
            Some(newer) => push = newer,
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_there_already_is_said_to_be_live_or_not() {
        let text = |live, own: &[u64]| again_text("acme/shop/dev", live, own);
        assert_eq!(text(Some(3), &[3]), "it is live as v3\n");
        assert_eq!(
            text(Some(3), &[4, 5]),
            "v3 serves, and not v5, which it became\nnext: vend rollback acme/shop/dev --to v5\n"
        );
        assert_eq!(text(Some(3), &[]), "v3 serves\nnext: vend why acme/shop/dev\n");
        assert_eq!(
            text(None, &[2]),
            "nothing is live\nnext: vend why acme/shop/dev\n"
        );
    }

    #[test]
    fn a_push_ends_with_address_next_and_undo() {
        let environment: wire::Environment = serde_json::from_value(serde_json::json!({
            "place": { "tenant": "acme", "app": "shop", "environment": "dev" },
            "branch": "dev", "state": "live", "protected": false, "live": 3, "hosts": 1,
            "urls": ["http://dev.shop.acme.localhost:8080/"], "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let target = Target::read("acme/shop").unwrap();
        assert_eq!(
            live_text(&target, &environment, &[], true),
            "live: http://dev.shop.acme.localhost:8080/\n\
             next: vend logs acme/shop/dev --follow\n\
             undo: vend rollback acme/shop/dev\n"
        );
        let placed = wire::Environment {
            urls: Vec::new(),
            ..environment.clone()
        };
        assert_eq!(
            live_text(&target, &placed, &[], true),
            "next: vend hosts list acme\nundo: vend rollback acme/shop/dev\n"
        );
        assert!(
            live_text(&target, &environment, &[], false)
                .ends_with("undo: vend environments destroy acme/shop/dev\n")
        );
        let name = |name: &str, problem: Option<&str>| wire::Name {
            name: name.into(),
            place: environment.place.clone(),
            listeners: Vec::new(),
            since: None,
            problem: problem.map(str::to_owned),
        };
        let names = [
            name("own.example.com", None),
            name("bank.example.com", Some("it is another's")),
        ];
        assert!(
            live_text(&target, &environment, &names, true).starts_with(
                "live: http://dev.shop.acme.localhost:8080/\nbank.example.com does not lead here: it is another's\nnext: "
            )
        );
    }
}
