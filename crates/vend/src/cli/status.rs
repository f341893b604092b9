//! What an app is doing, and why.

use std::process::ExitCode;

use clap::Args;
use model::wire::{App, Environment, Execution, Why, WhyEnvironment};

use super::{
    Client, Failure, Global, Outcome,
    apps::environments_text,
    executions, now,
    releases::{push_cell, short},
    target::Target,
};
use crate::output::{Output, Tone, ago, clean, headline, lines, without_next};

#[derive(Debug, Args)]
pub struct Status {
    /// TENANT/APP[/ENVIRONMENT]
    target: String,
    /// Show what runs, until nothing runs any more.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// TENANT/APP[/ENVIRONMENT]
    target: String,
}

pub async fn status(command: &Status, global: &Global) -> Outcome {
    let (client, output) = (global.client()?, global.output());
    let target = Target::read(&command.target)?;
    if command.follow && !output.json {
        return follow(&target, &client, &output).await;
    }
    let app: App = client.get(&target.app_path()).await?;
    let environments = match &target.environment {
        Some(_) => vec![client.get::<Environment>(&target.environment_path()?).await?],
        None => {
            let path = format!("{}/environments", target.app_path());
            client.list(&path, 1000).await?.items
        }
    };
    let why: Why = client.get(&format!("{}/why", target.app_path())).await?;
    let why = narrow(why, &target);
    let all = serde_json::json!({ "app": app, "environments": environments, "why": why });
    output.show(&all, |_| {
        let head = format!("{}/{}", app.tenant, app.name);
        let from = app.repository.as_ref().unwrap_or(&app.git_url);
        format!(
            "{}  {}\n\n{}\n{}",
            output.tone(Tone::Strong, &head),
            clean(from),
            environments_text(&environments, &output),
            why_text(&why, &output)
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Follows one execution after the other, until none runs.
async fn follow(target: &Target, client: &Client, output: &Output) -> Outcome {
    let mut code = ExitCode::SUCCESS;
    loop {
        let path = format!("/v1/executions?{}", target.query());
        let page = client.list::<Execution>(&path, 20).await?;
        let running = page.items.iter().rev().find(|execution| !execution.state.ended());
        match running {
            Some(execution) => {
                output.line(&format!("{} {}", execution.id, execution.kind));
                code = executions::follow(execution.id.as_str(), client, output).await?;
            }
            None => return Ok(code),
        }
    }
}

pub async fn why(command: &WhyArgs, global: &Global) -> Result<(), Failure> {
    let (client, target) = (global.client()?, Target::read(&command.target)?);
    let why: Why = client.get(&format!("{}/why", target.app_path())).await?;
    if target.environment.is_some() {
        // One that is not there is refused by its name.
        let _: Environment = client.get(&target.environment_path()?).await?;
    }
    let (why, output) = (narrow(why, &target), global.output());
    output.show(&why, |why| why_text(why, &output));
    Ok(())
}

/// Only what is about the environment that was asked for.
fn narrow(mut why: Why, target: &Target) -> Why {
    if let Some(name) = &target.environment {
        why.environments
            .retain(|environment| environment.environment == *name);
        why.notes.clear();
        why.next = why.environments.first().and_then(|own| own.next.clone());
    }
    why
}

fn why_text(why: &Why, output: &Output) -> String {
    // They are about what is newer than what any environment has.
    let mut text: String = why
        .notes
        .iter()
        .map(|note| format!("{}\n", output.tone(Tone::Wait, &lines(note, "  "))))
        .collect();
    let environments = why.environments.iter();
    text.extend(environments.map(|environment| environment_text(environment, output)));
    let said = why
        .environments
        .iter()
        .any(|environment| environment.next.is_some());
    if let Some(next) = why.next.as_ref().filter(|_| !said) {
        text.push_str(&format!("next: {}\n", clean(next)));
    }
    text
}

fn environment_text(environment: &WhyEnvironment, output: &Output) -> String {
    let tone = match (environment.up_to_date, &environment.error) {
        (true, _) => Tone::Good,
        (_, Some(_)) => Tone::Bad,
        _ => Tone::Wait,
    };
    let name = format!("{}:", environment.environment);
    let mut text = format!(
        "{} {}\n",
        output.tone(tone, &name),
        lines(&environment.sentence, "  ")
    );
    if let Some(push) = &environment.push {
        let (state, _) = push_cell(push.state);
        text.push_str(&format!(
            "  last push {} {} {} ({state})\n",
            short(&push.commit.id),
            headline(&push.commit.message, 60),
            ago(push.received_at, now()),
        ));
    }
    let error = environment.error.as_deref().unwrap_or_default();
    let (error, next) = without_next(error);
    let (error, next) = (lines(&error, "         "), next.map(|next| clean(&next)));
    if !error.is_empty() {
        text.push_str(&format!("  cause: {error}\n"));
    }
    // One line stands in the cause already.
    if environment.said.iter().any(|line| !error.contains(&clean(line))) {
        text.push_str("  it last said:\n");
        for line in &environment.said {
            text.push_str(&format!("    | {}\n", clean(line)));
        }
    }
    if let Some(way_back) = &environment.way_back {
        text.push_str(&format!("  back:  {}\n", lines(way_back, "         ")));
    }
    if let Some(log) = &environment.log {
        text.push_str(&format!("  log:   vend logs {}\n", clean(log)));
    }
    if let Some(next) = environment.next.as_ref().or(next.as_ref()) {
        text.push_str(&format!("  next:  {}\n", clean(next)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_environment_that_was_asked_for_is_told() {
        let own = |name: &str, next: &str| serde_json::json!({ "environment": name, "up_to_date": false, "sentence": name, "next": next });
        let why: Why = serde_json::from_value(serde_json::json!({
            "tenant": "acme", "app": "shop", "notes": ["push of 0a1b2c3d to x: no environment has it"],
            "environments": [own("dev", "vend logs dev"), own("can", "vend logs can")], "next": "vend logs dev",
        }))
        .unwrap();
        let all = narrow(why.clone(), &Target::read("acme/shop").unwrap());
        assert_eq!(all, why);
        let one = narrow(why, &Target::read("acme/shop/can").unwrap());
        assert_eq!(
            why_text(&one, &Output::new(false, String::new())),
            "can: can\n  next:  vend logs can\n"
        );
        assert_eq!(one.next.as_deref(), Some("vend logs can"));
    }

    #[test]
    fn what_is_newest_comes_first() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "tenant": "acme", "app": "shop",
            "environments": [{ "environment": "dev", "live": 1, "up_to_date": true, "sentence": "the last push is live as v1" }],
            "notes": ["push of 0a1b2c3d to main: cannot fetch the commit yet: it did not answer"],
        }))
        .unwrap();
        let text = why_text(&why, &Output::new(false, String::new()));
        assert_eq!(
            text,
            "push of 0a1b2c3d to main: cannot fetch the commit yet: it did not answer\ndev: the last push is live as v1\n"
        );
    }

    #[test]
    fn a_failed_build_keeps_its_lines_and_names_its_log() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "tenant": "acme", "app": "shop",
            "environments": [{
                "environment": "dev", "up_to_date": false, "sentence": "the last push failed, nothing serves yet",
                "error": "BUILD failed: exit status 1; its last lines:\nFAIL a.test\nFAIL b.test",
                "log": "build/t-1", "next": "correct the build and push again",
            }],
            "notes": [],
        }))
        .unwrap();
        assert_eq!(
            why_text(&why, &Output::new(false, String::new())),
            concat!(
                "dev: the last push failed, nothing serves yet\n",
                "  cause: BUILD failed: exit status 1; its last lines:\n",
                "         FAIL a.test\n",
                "         FAIL b.test\n",
                "  log:   vend logs build/t-1\n",
                "  next:  correct the build and push again\n",
            )
        );
    }
}
