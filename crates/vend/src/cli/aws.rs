//! `vend aws`: the same files on AWS. `synth` and `eject` need no account; the others ask CloudFormation, with the caller's
//! own credentials, and need no platform.

mod applied;
mod apply;
mod destroy;
mod doctor;
mod eject;
mod folder;
mod gone;
mod home;
mod hosts;
mod kept;
mod logs;
mod moving;
mod plan;
mod project;
mod push;
mod reach;
mod receiver;
mod releases;
mod rollback;
mod secrets;
mod slot;
mod stacks;
mod synth;
mod tree;
mod whose;

use std::{error::Error as StdError, path::Path, process::ExitCode};

use ::aws::{client, stack::Stack};
use clap::Subcommand;
use model::spec;
pub use moving::{Move, run as move_environment};

use super::{Exit, Failure, Global, is_yes};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum Aws {
    /// Write the CloudFormation templates, state machines and Packer files of an app and its foundations.
    Synth(synth::Synth),
    /// Show what `apply` would do: resources that are replaced, data that would be lost, and what it costs.
    Plan(plan::Plan),
    /// Make the stacks as the files say.
    Apply(apply::Apply),
    /// Show the stacks that are there, and whether they are as the files say.
    Status(stacks::Status),
    /// Show what the stacks say: addresses, names, ARNs.
    Outputs(stacks::Outputs),
    /// Compare what is there with what the stacks' templates say.
    Drift(stacks::Drift),
    /// Let nothing delete stacks, load balancers and databases.
    Protect(stacks::Protect),
    /// Let them be deleted again.
    Unprotect(stacks::Protect),
    /// Leave UPDATE_ROLLBACK_FAILED: roll back what can be rolled back.
    Continue(stacks::Continue),
    /// Delete the stacks and what they hold.
    Destroy(destroy::Destroy),
    /// Write everything that is needed to go on without Vend.
    Eject(eject::Eject),
    /// Send this working tree's commit and release it into the environments that follow its branch.
    Push(push::Push),
    /// Show releases: which commit, where it is, how it ended.
    Releases(releases::Releases),
    /// Say yes to a release that waits for people.
    Approve(releases::Approve),
    /// Say no to a release that waits for people, and why.
    Reject(releases::Reject),
    /// Go back: at once while the half before still runs, else by releasing its commit again.
    Rollback(rollback::Rollback),
    /// Stop the half that runs without traffic.
    Retire(rollback::Retire),
    /// Show which half has the traffic, and how its hosts are.
    Hosts(hosts::Hosts),
    /// Set the number of hosts of an environment.
    Scale(hosts::Scale),
    /// Values that only ever go in.
    #[command(subcommand, visible_alias = "secret")]
    Secrets(secrets::Secrets),
    /// Show what hosts, builds and flows have written.
    Logs(logs::Logs),
    /// Check credentials, regions, services, sizes, quotas and permissions, before anything is made.
    Doctor(doctor::Doctor),
}

/// What fails is a problem, as `--json` shows those of a platform.
pub async fn run(aws: &Aws, global: &Global) -> Result<ExitCode, Failure> {
    let output = global.output();
    let done = command(aws, global).await;
    done.map_err(|failure| failure.into_problem(&output))
}

async fn command(aws: &Aws, global: &Global) -> Result<ExitCode, Failure> {
    let output = global.output();
    match aws {
        Aws::Synth(own) => synth::run(own, &output)?,
        Aws::Plan(own) => return Box::pin(plan::run(own, &output)).await,
        Aws::Apply(own) => return apply::run(own, &output).await,
        Aws::Status(own) => stacks::status(own, &output).await?,
        Aws::Outputs(own) => stacks::outputs(own, &output).await?,
        Aws::Drift(own) => return stacks::drift(own, &output).await,
        Aws::Protect(own) => stacks::protect(own, true, &output).await?,
        Aws::Unprotect(own) => stacks::protect(own, false, &output).await?,
        Aws::Continue(own) => return stacks::carry_on(own, &output).await,
        Aws::Destroy(own) => return Box::pin(destroy::run(own, &output)).await,
        Aws::Eject(own) => eject::run(own, &output)?,
        Aws::Push(own) => return push::run(own, &output).await,
        Aws::Releases(own) => releases::run(own, &output).await?,
        Aws::Approve(own) => releases::approve(own, &output).await?,
        Aws::Reject(own) => releases::reject(own, &output).await?,
        Aws::Rollback(own) => rollback::run(own, &output).await?,
        Aws::Retire(own) => rollback::retire(own, &output).await?,
        Aws::Hosts(own) => hosts::run(own, &output).await?,
        Aws::Scale(own) => hosts::scale(own, &output).await?,
        Aws::Secrets(own) => secrets::run(own, &output).await?,
        Aws::Logs(own) => logs::run(own, &output).await?,
        Aws::Doctor(own) => return doctor::run(own, &output).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The least that an operator's file says.
const LEAST: &str = "[foundations.production]
region = \"eu-central-1\"
domain = \"apps.example.com\"    # yours: hosts get names below it
mail = { operations = [\"ops@example.com\"] }";

/// An operator's file that cannot be read: most often nobody has written it yet.
fn unread(path: &Path, error: &std::io::Error) -> Failure {
    if error.kind() != std::io::ErrorKind::NotFound {
        return Failure::file(path, error);
    }
    Failure::failed(format!("there is no {}", path.display()))
        .cause(format!(
            "it says where on AWS an app goes, and four lines are enough:\n{LEAST}"
        ))
        .next("write it, or say where it is: --config FILE (docs/aws.md, \"Options\", has all of its keys)")
}

/// What a call that failed is to a person.
fn broken(error: client::Error) -> Failure {
    let (exit, what, next) = match &error {
        client::Error::Credentials(_) => (
            Exit::Refused,
            "AWS does not know who you are",
            Some("vend aws doctor"),
        ),
        client::Error::Account { .. } => (
            Exit::Refused,
            "nothing is done with credentials of another account than `account` of the foundation says",
            Some(
                "another --profile or AWS_PROFILE, or `access` of the foundation: vend aws doctor, with the same files",
            ),
        ),
        client::Error::Unreachable { .. } => (Exit::Unreachable, "AWS cannot be reached", None),
        error if error.is_denied() => (Exit::Refused, "AWS does not let you", Some("vend aws doctor")),
        _ => (Exit::Failed, "AWS refuses", None),
    };
    let failure = Failure::new(exit, what).cause(chain(&error));
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// What a refused call is to a person, where a stack was to be changed or taken away: the build of branches may not do that to one
/// that was made before stacks had tags.
fn refused(error: client::Error, stack: &Stack, branch: Option<&spec::Environment>) -> Failure {
    match branch.filter(|_| error.is_denied() && !stack.is_tagged()) {
        None => broken(error),
        Some(own) => Failure::new(
            Exit::Refused,
            format!(
                "{} was made before stacks had tags, and the build of branches may change only those whose tags say that they are a branch's",
                stack.name
            ),
        )
        .cause(chain(&error))
        .next(format!("vend aws apply --branch {}, once, by an operator", own.branch)),
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Asks a person, who must be there to be asked.
fn agreed(question: &str, yes: bool, output: &Output) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    if !output.terminal || output.json {
        return Err(Failure::usage("nobody is here to be asked").next("the same with --yes"));
    }
    output.text(&format!("{question} [y/N] "));
    let failed = |error: std::io::Error| Failure::failed("nothing can be asked").cause(error.to_string());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(is_yes(&line))
}

#[cfg(test)]
mod tests {
    use ::aws::stack::Status;

    use super::*;

    /// Whatever the command is: what to write, and where the rest is said.
    #[test]
    fn who_has_no_aws_toml_reads_what_to_write() {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = unread(Path::new("./aws.toml"), &error);
        assert_eq!(failure.what, "there is no ./aws.toml");
        let cause = failure.cause.unwrap_or_default();
        let (_, written) = cause.split_once('\n').unwrap();
        let config: ::aws::synth::Config = toml::from_str(written).unwrap();
        assert!(
            written.lines().count() == 4 && config.check().is_ok(),
            "{written}"
        );
    }

    /// What its build is told of a stack of a branch that it may not change.
    #[test]
    fn a_stack_of_a_branch_without_tags_wants_an_operator_once() {
        let yaml = "app: shop\nenvironments:\n  preview: { branches: 'feature/*' }\n";
        let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
        let own = app.following("feature/login").unwrap().remove(0);
        let stack = |tags: &[&str]| Stack {
            name: "vend-production-shop-x-b-0123456789ab".into(),
            id: "i".into(),
            status: Status("UPDATE_COMPLETE".into()),
            why: None,
            outputs: Vec::new(),
            parameters: Vec::new(),
            tags: tags.iter().map(|key| ((*key).into(), String::new())).collect(),
            is_protected: false,
            at: "t".into(),
            drift: String::new(),
        };
        let denied = |code: &str| client::Error::Refused {
            service: "cloudformation",
            operation: "CreateChangeSet",
            code: code.to_owned(),
            message: "not authorized".to_owned(),
        };
        let said =
            |code: &str, tags: &[&str], branch| format!("{:?}", refused(denied(code), &stack(tags), branch));
        let old = said("AccessDenied", &["vend:platform"], Some(&own));
        assert!(old.contains("was made before stacks had tags"), "{old}");
        assert!(
            old.contains("vend aws apply --branch feature/login, once, by an operator"),
            "{old}"
        );
        for other in [
            said("AccessDenied", &["vend:app", "vend:preview"], Some(&own)),
            said("AccessDenied", &[], None),
            said("ValidationError", &[], Some(&own)),
        ] {
            assert!(!other.contains("had tags"), "{other}");
        }
    }
}
