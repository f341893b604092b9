//! The command line: `vend NOUN VERB`, over the HTTP interface only.
//!
//! The room exists for people: it says what happened in one line, and what to type next. It knows the wire types and
//! nothing of how the platform is made; what it can do, any other client can.

mod access;
pub mod agent;
mod alarms;
mod approvals;
mod apps;
mod audit;
mod aws;
pub mod build;
mod builders;
mod check;
mod client;
mod codedeploy;
mod console;
mod credentials;
mod deploy;
pub mod edge;
mod executions;
mod failure;
mod git;
mod hosts;
mod images;
mod lines;
mod logs;
mod packer;
mod parcel;
mod plans;
mod progress;
mod push;
mod releases;
mod stages;
mod states;
mod status;
mod target;
mod webhooks;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use model::wire::Page;

pub use client::{Client, DATA};
pub use failure::{Exit, Failure};
pub use plans::{is_yes, plan_text, question};

use crate::output::Output;

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(after_help = failure::EXIT_CODES)]
pub struct Global {
    /// Data directory of a platform on this machine [env: VEND_DATA] [default: /var/lib/vend; of the demo: ./vend-demo].
    // By clap's own `env` what the environment says would stand in each usage as if it had to be given.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// URL of a platform elsewhere; the token comes from VEND_TOKEN or `vend login` [env: VEND_URL].
    #[arg(long, global = true)]
    url: Option<String>,
    /// Answer in JSON, as the platform says it.
    #[arg(long, global = true)]
    pub json: bool,
}

// How much of a list is shown. (A doc comment would become the help of every command that has it.)
#[derive(Debug, Clone, Copy, Args)]
pub struct Most {
    /// So many at most.
    #[arg(long, default_value_t = 20, conflicts_with = "all")]
    limit: usize,
    /// The whole list.
    #[arg(long)]
    all: bool,
}

impl Most {
    fn number(self) -> usize {
        match self.all {
            true => usize::MAX,
            false => self.limit.max(1),
        }
    }

    /// What stands under a list that goes on.
    fn rest<T>(self, page: &Page<T>) -> &'static str {
        match page.next {
            Some(_) => "there are more: --limit N shows more of them, --all the whole list\n",
            None => "",
        }
    }
}

impl Global {
    pub fn data(&self) -> PathBuf {
        self.data_or(DATA)
    }

    /// The data directory, where a command has another default.
    pub fn data_or(&self, default: &str) -> PathBuf {
        let said = self.data.clone().or_else(|| said("VEND_DATA").map(PathBuf::from));
        said.unwrap_or_else(|| default.into())
    }

    /// Of a platform elsewhere, if one is meant.
    pub fn url(&self) -> Option<String> {
        let said = || said("VEND_URL").map(|url| url.to_string_lossy().into_owned());
        self.url.clone().or_else(said)
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(self.url().as_deref(), Some(&self.data()))
    }

    pub fn output(&self) -> Output {
        Output::new(self.json, self.again())
    }

    /// What a suggested command must repeat. What stands in the shell's environment holds for the next command too.
    fn again(&self) -> String {
        let given = |name: &str, value: &OsStr| said(name).is_none_or(|own| own != value);
        let url = self.url.as_deref().filter(|url| given("VEND_URL", url.as_ref()));
        let data = self
            .data
            .as_deref()
            .filter(|data| given("VEND_DATA", data.as_os_str()));
        match (url, data) {
            (Some(url), _) => format!(" --url {}", quoted(url)),
            (None, Some(data)) => format!(" --data {}", quoted(&data.to_string_lossy())),
            (None, None) => String::new(),
        }
    }
}

/// What the shell's environment says, if it says anything.
fn said(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:~@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// One of [`Global`] that is nothing to a family of commands: it is taken, and no help shows it.
fn unheard(name: &'static str) -> clap::Arg {
    let arg = clap::Arg::new(name).long(name).global(true).hide(true);
    match name {
        "data" => arg.value_name("DIR").value_parser(clap::value_parser!(PathBuf)),
        _ => arg.value_name("URL"),
    }
}

/// Everything that a client can ask for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check vend.yaml, buildspec and appspec of a working tree, without a platform.
    Check(check::Check),
    /// Build a working tree as a push would, without a platform.
    Build(build::BuildArgs),
    /// Deploy a bundle on this machine, without a platform, as AWS's codedeploy-local does.
    #[command(name = "codedeploy-local")]
    CodedeployLocal(codedeploy::Codedeploy),
    /// Push this working tree's branch to an app and show how it goes.
    Push(push::Push),
    /// Show an app with its environments, what is live and what is under way.
    Status(status::Status),
    /// Say why the last push of an app is not live, and what to type.
    Why(status::WhyArgs),
    /// Say yes to a plan.
    Approve(approvals::Approve),
    /// Say no to a plan, and why.
    Reject(approvals::Reject),
    /// Go back to a kept release.
    Rollback(releases::Rollback),
    /// Pause, resume or abort a deployment.
    #[command(subcommand)]
    Deploy(deploy::Deploy),
    /// Show the logs of an app, or one log by its name.
    Logs(logs::Logs),
    /// Set the number of hosts of an environment.
    Scale(apps::Scale),
    /// Move an environment to AWS, by and by, and back.
    Move(aws::Move),
    /// Start the hosts of an environment that sleeps, as the first request for it would.
    Wake(apps::Wake),
    /// Customers.
    #[command(subcommand, visible_alias = "tenant")]
    Tenants(apps::Tenants),
    /// Software of a tenant, one repository each.
    #[command(subcommand, visible_alias = "app")]
    Apps(apps::Apps),
    /// Stages of an app.
    #[command(subcommand, visible_aliases = ["environment", "env"])]
    Environments(apps::Environments),
    /// What was pushed.
    #[command(subcommand)]
    Pushes(releases::Pushes),
    /// Numbered releases of an environment.
    #[command(subcommand, visible_alias = "release")]
    Releases(releases::Releases),
    /// Runs of flows: releases, rollbacks, destructions.
    #[command(subcommand, visible_alias = "execution")]
    Executions(executions::Executions),
    /// Questions to people about plans.
    #[command(subcommand)]
    Approvals(approvals::Approvals),
    /// What an execution will change, or has changed.
    #[command(subcommand)]
    Plan(approvals::Plans),
    /// Virtual hosts.
    #[command(subcommand, visible_alias = "host")]
    Hosts(hosts::Hosts),
    /// Machines that build, beside the platform's own.
    #[command(subcommand, visible_alias = "builder")]
    Builders(builders::Builders),
    /// Baked images.
    #[command(subcommand, visible_alias = "image")]
    Images(images::Images),
    /// Releases put on hosts, with their lifecycle events.
    #[command(subcommand, visible_alias = "deployment")]
    Deployments(hosts::Deployments),
    /// What monitoring says, which deployments mind.
    #[command(subcommand, visible_alias = "alarm")]
    Alarms(alarms::Alarms),
    /// What the load balancer sees of every host.
    Targets(hosts::Targets),
    /// Values that only ever go in.
    #[command(subcommand, visible_alias = "secret")]
    Secrets(access::Secrets),
    /// Tokens of machines and people.
    #[command(subcommand, visible_alias = "token")]
    Tokens(access::Tokens),
    /// The inbox of webhooks.
    #[command(subcommand, visible_alias = "webhook")]
    Webhooks(webhooks::Webhooks),
    /// The record of what was done, and by whom.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// State machines in Amazon States Language, without a platform: check, run, test and draw them.
    #[command(subcommand)]
    States(states::States),
    /// The same files, on AWS: templates, plans, stacks.
    #[command(subcommand, arg(unheard("data")), arg(unheard("url")))]
    Aws(aws::Aws),
    /// What git calls.
    #[command(subcommand)]
    Git(git::Git),
    /// Keep a token for a platform elsewhere; the token is read from standard input.
    Login(access::Login),
    Console(console::Console),
    /// Who the platform takes you for.
    Whoami,
    /// Versions of this program and of the platform.
    Version,
    /// Whether the platform and its roles are well.
    Health,
    /// Print a completion script for a shell.
    Completions {
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Does it make containers in this process?
    pub fn makes_containers(&self) -> bool {
        matches!(self, Self::Build(_))
    }
}

/// Runs a command. `whole` is the complete command line of the program, for completions.
pub async fn run(command: Command, global: &Global, whole: clap::Command) -> ExitCode {
    match dispatch(command, global, whole).await {
        Ok(code) => code,
        Err(failure) => failure.report(&global.output()),
    }
}

/// What a command comes to: an exit code that is not an error's, such as a check that found problems.
type Outcome = Result<ExitCode, Failure>;

async fn dispatch(command: Command, global: &Global, whole: clap::Command) -> Outcome {
    match command {
        Command::Check(check) => return check::run(&check, global),
        Command::Build(build) => return build::run(&build, global).await,
        Command::CodedeployLocal(codedeploy) => return codedeploy::run(&codedeploy, global).await,
        Command::Push(push) => return push::run(&push, global).await,
        Command::Status(status) => return status::status(&status, global).await,
        Command::Why(why) => status::why(&why, global).await?,
        Command::Approve(approve) => approvals::approve(&approve, global).await?,
        Command::Reject(reject) => approvals::reject(&reject, global).await?,
        Command::Rollback(rollback) => return releases::rollback(&rollback, global).await,
        Command::Deploy(deploy) => return deploy::run(&deploy, global).await,
        Command::Logs(logs) => logs::run(&logs, global).await?,
        Command::Scale(scale) => apps::scale(&scale, global).await?,
        Command::Move(own) => return Box::pin(aws::move_environment(&own, global)).await,
        Command::Wake(wake) => apps::wake(&wake, global).await?,
        Command::Tenants(tenants) => apps::tenants(&tenants, global).await?,
        Command::Apps(apps) => apps::apps(&apps, global).await?,
        Command::Environments(environments) => apps::environments(&environments, global).await?,
        Command::Pushes(pushes) => releases::pushes(&pushes, global).await?,
        Command::Releases(releases) => releases::releases(&releases, global).await?,
        Command::Executions(executions) => return executions::run(&executions, global).await,
        Command::Approvals(approvals) => approvals::approvals(&approvals, global).await?,
        Command::Plan(plans) => approvals::plans(&plans, global).await?,
        Command::Hosts(hosts) => hosts::hosts(&hosts, global).await?,
        Command::Alarms(alarms) => alarms::run(&alarms, global).await?,
        Command::Builders(builders) => builders::run(&builders, global).await?,
        Command::Images(images) => images::run(&images, global).await?,
        Command::Deployments(deployments) => hosts::deployments(&deployments, global).await?,
        Command::Targets(targets) => hosts::targets(&targets, global).await?,
        Command::Secrets(secrets) => access::secrets(&secrets, global).await?,
        Command::Tokens(tokens) => access::tokens(&tokens, global).await?,
        Command::Webhooks(webhooks) => return webhooks::run(&webhooks, global).await,
        Command::Audit(audit) => return audit::run(&audit, global).await,
        Command::States(states) => return states::run(&states, global).await,
        Command::Aws(aws) => return aws::run(&aws, global).await,
        Command::Git(git) => git::run(&git, global).await?,
        Command::Login(login) => access::login(&login, global).await?,
        Command::Console(_) => console::run(global).await?,
        Command::Whoami => access::whoami(global).await?,
        Command::Version => access::version(global).await?,
        Command::Health => return access::health(global).await,
        Command::Completions { shell } => completions(shell, whole, &global.output()),
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell, mut whole: clap::Command, output: &Output) {
    let name = whole.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole, name, &mut script);
    output.text(&String::from_utf8_lossy(&script));
}

/// What the clock of this machine says; for ages in tables.
#[expect(
    clippy::disallowed_methods,
    reason = "a client shows how long ago things were"
)]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_that_it_goes_on() {
        let page = |next: Option<&str>| Page::<u8> {
            items: Vec::new(),
            next: next.map(str::to_owned),
        };
        let most = |limit, all| Most { limit, all };
        assert!(most(20, false).rest(&page(Some("7"))).contains("--all"));
        assert_eq!(most(20, false).rest(&page(None)), "");
        assert_eq!(
            (most(0, false).number(), most(20, true).number()),
            (1, usize::MAX)
        );
    }
}
