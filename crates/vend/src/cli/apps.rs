//! Tenants, apps and environments.

use clap::{Args, Subcommand};
use model::wire::{self, App, Environment, EnvironmentState, NewApp, NewTenant, Page, Started, Tenant};

use super::{
    Client, Failure, Global, now,
    target::{self, Target},
};
use crate::output::{Output, Table, Tone, ago, cell, clean, maybe};

#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// Take in a customer.
    Create { name: String },
    /// List all tenants that you may see.
    List,
    /// Show a tenant: since when it is there, and who may visit its apps.
    Show { name: String },
    /// Delete a tenant with its apps, environments, hosts, databases, images and secrets.
    Delete {
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Subcommand)]
pub enum Apps {
    /// Create an app, with a repository to push to.
    Create {
        /// TENANT/APP
        target: String,
        /// URL of a repository elsewhere that it is built from.
        #[arg(long)]
        repository: Option<String>,
    },
    /// List the apps of a tenant, or of all tenants that you may see.
    List { tenant: Option<String> },
    /// Show an app: where to push, what it is built from, its webhooks.
    Show {
        /// TENANT/APP
        target: String,
    },
    /// Delete an app with its repository, environments, hosts and databases.
    Delete {
        /// TENANT/APP
        target: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Subcommand)]
pub enum Environments {
    /// List the environments of an app, with what is live in them.
    List {
        /// TENANT/APP
        target: String,
    },
    /// Show an environment: its branch, what is live, its hosts and URLs.
    Show {
        /// TENANT/APP/ENVIRONMENT
        target: String,
    },
    /// Destroy an environment with its hosts and its database.
    Destroy {
        /// TENANT/APP/ENVIRONMENT
        target: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// Refuse its destruction until it is unprotected.
    Protect {
        /// TENANT/APP/ENVIRONMENT
        target: String,
    },
    /// Allow its destruction again.
    Unprotect {
        /// TENANT/APP/ENVIRONMENT
        target: String,
    },
}

#[derive(Debug, Args)]
pub struct Scale {
    /// TENANT/APP/ENVIRONMENT
    target: String,
    /// Hosts that it shall have: between `scaling.min` and `scaling.max` of vend.yaml.
    hosts: u32,
}

#[derive(Debug, Args)]
pub struct Wake {
    /// TENANT/APP/ENVIRONMENT
    target: String,
}

/// Consent to what cannot be undone.
#[derive(Debug, Args)]
pub struct Sure {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Asks on a terminal; elsewhere `--yes` is needed.
    fn ask(&self, question: &str, command: &str) -> Result<(), Failure> {
        use std::io::{BufRead as _, IsTerminal as _};
        if self.yes {
            return Ok(());
        }
        let no = || Failure::usage("nothing was done").next(format!("{command} --yes"));
        if !std::io::stdin().is_terminal() {
            return Err(no().cause("this cannot be undone, and nobody is here to ask"));
        }
        eprint!("{question} This cannot be undone. Type `yes`: ");
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        match read {
            Ok(_) if line.trim() == "yes" => Ok(()),
            _ => Err(no()),
        }
    }
}

pub async fn tenants(command: &Tenants, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Tenants::Create { name } => {
            let new = NewTenant {
                name: target::tenant(Some(name))?,
            };
            let tenant: Tenant = client.post("/v1/tenants", &new).await?;
            output.show(&tenant, |tenant| {
                format!(
                    "created tenant {0}\nnext: vend apps create {0}/APP\n",
                    tenant.name
                )
            });
        }
        Tenants::List => {
            let page = client.list::<Tenant>("/v1/tenants", 10_000).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["TENANT", "CREATED"]);
                for tenant in &page.items {
                    table.row([cell(&tenant.name), cell(ago(tenant.created_at, now()))]);
                }
                table.render(&output, "no tenants yet\nnext: vend tenants create NAME")
            });
        }
        Tenants::Show { name } => {
            let path = format!("/v1/tenants/{}", target::tenant(Some(name))?);
            let tenant: Tenant = client.get(&path).await?;
            output.show(&tenant, tenant_text);
        }
        Tenants::Delete { name, sure } => {
            let name = target::tenant(Some(name))?;
            sure.ask(
                &format!("Delete tenant {name} with everything that it holds?"),
                &format!("vend tenants delete {name}"),
            )?;
            let started: Started = client.delete(&format!("/v1/tenants/{name}")).await?;
            output.show(&started, started_text);
        }
    }
    Ok(())
}

fn tenant_text(tenant: &Tenant) -> String {
    let access = super::edge::access_text(tenant.access.as_ref());
    let closed = tenant.closed.as_ref().map(super::edge::closed_text);
    let closed = closed.map_or(String::new(), |closed| format!("{closed}\n"));
    format!(
        "{}, created {}; {access}\n{closed}",
        tenant.name,
        ago(tenant.created_at, now())
    )
}

pub async fn apps(command: &Apps, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Apps::Create { target, repository } => {
            let target = Target::read(target)?;
            let new = NewApp {
                name: target.app.clone(),
                repository: repository.clone(),
            };
            let path = format!("/v1/tenants/{}/apps", target.tenant);
            let app: App = client.post(&path, &new).await?;
            output.show(&app, |app| {
                let (pushed, next) = match &app.repository {
                    Some(repository) => (
                        format!("it is built from {repository}"),
                        format!("vend webhooks secret {target} --provider github"),
                    ),
                    None => (format!("push to {}", app.git_url), format!("vend push {target}")),
                };
                format!("created app {target}; {pushed}\nnext: {next}\n")
            });
        }
        Apps::List { tenant } => {
            let page = list_apps(tenant.as_deref(), &client).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["APP", "REPOSITORY", "CREATED"]);
                for app in &page.items {
                    table.row([
                        cell(format!("{}/{}", app.tenant, app.name)),
                        cell(app.repository.as_ref().unwrap_or(&app.git_url)),
                        cell(ago(app.created_at, now())),
                    ]);
                }
                table.render(&output, "no apps yet\nnext: vend apps create TENANT/APP")
            });
        }
        Apps::Show { target } => {
            let app: App = client.get(&Target::read(target)?.app_path()).await?;
            output.show(&app, app_text);
        }
        Apps::Delete { target, sure } => {
            let target = Target::read(target)?;
            sure.ask(
                &format!("Delete app {target} with everything that it holds?"),
                &format!("vend apps delete {target}"),
            )?;
            let started: Started = client.delete(&target.app_path()).await?;
            output.show(&started, started_text);
        }
    }
    Ok(())
}

/// The apps of one tenant, or of every tenant that the caller may see.
async fn list_apps(tenant: Option<&str>, client: &Client) -> Result<Page<App>, Failure> {
    let tenants = match tenant {
        None if std::env::var_os(target::VARIABLE).is_none() => {
            let all = client.list::<Tenant>("/v1/tenants", 10_000).await?;
            all.items.into_iter().map(|tenant| tenant.name).collect()
        }
        named => vec![target::tenant(named)?],
    };
    let mut apps = Page {
        items: Vec::new(),
        next: None,
    };
    for tenant in tenants {
        let path = format!("/v1/tenants/{tenant}/apps");
        let page = client.list::<App>(&path, 10_000).await?;
        apps.items.extend(page.items);
    }
    Ok(apps)
}

fn app_text(app: &App) -> String {
    let mut text = format!(
        "app         {}/{}\ncreated     {}\npush to     {}\n",
        app.tenant,
        app.name,
        ago(app.created_at, now()),
        app.git_url
    );
    if let Some(repository) = &app.repository {
        text.push_str(&format!("built from  {repository}\n"));
    }
    for hook in &app.hooks {
        text.push_str(&format!("webhook     {hook}\n"));
    }
    text
}

pub async fn environments(command: &Environments, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Environments::List { target } => {
            let path = format!("{}/environments", Target::read(target)?.app_path());
            let page = client.list::<Environment>(&path, 10_000).await?;
            output.show(&page, |page| environments_text(&page.items, &output));
        }
        Environments::Show { target } => {
            let path = Target::read(target)?.environment_path()?;
            let environment: Environment = client.get(&path).await?;
            output.show(&environment, environment_text);
        }
        Environments::Destroy { target, sure } => {
            let target = Target::read(target)?;
            let path = target.environment_path()?;
            sure.ask(
                &format!("Destroy {target} with its hosts and its database?"),
                &format!("vend environments destroy {target}"),
            )?;
            let started: Started = client.delete(&path).await?;
            output.show(&started, started_text);
        }
        Environments::Protect { target } => protect(target, "protect", &client, &output).await?,
        Environments::Unprotect { target } => protect(target, "unprotect", &client, &output).await?,
    }
    Ok(())
}

async fn protect(target: &str, verb: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let path = format!("{}/{verb}", Target::read(target)?.environment_path()?);
    let environment: Environment = client.post(&path, &serde_json::json!({})).await?;
    output.show(&environment, |environment| {
        format!("{verb}ed {}\n", environment.place)
    });
    Ok(())
}

pub async fn wake(command: &Wake, global: &Global) -> Result<(), Failure> {
    let path = format!("{}/wake", Target::read(&command.target)?.environment_path()?);
    let started: Started = global.client()?.post(&path, &serde_json::json!({})).await?;
    global.output().show(&started, started_text);
    Ok(())
}

pub async fn scale(command: &Scale, global: &Global) -> Result<(), Failure> {
    let target = Target::read(&command.target)?;
    let path = format!("{}/scale", target.environment_path()?);
    let scale = wire::Scale { hosts: command.hosts };
    let started: Started = global.client()?.post(&path, &scale).await?;
    global.output().show(&started, started_text);
    Ok(())
}

/// What was started, and how to watch it.
pub fn started_text(started: &Started) -> String {
    let mut text = format!("{}\n", started.summary);
    if let [only] = started.executions.as_slice() {
        text.push_str(&format!("next: vend executions show {only} --follow\n"));
    } else {
        for execution in &started.executions {
            text.push_str(&format!("  {execution}\n"));
        }
    }
    text
}

pub fn environments_text(environments: &[Environment], output: &Output) -> String {
    let mut table = Table::new(["ENVIRONMENT", "BRANCH", "STATE", "LIVE", "HOSTS", "URL"]);
    for environment in environments {
        let (state, tone) = match environment.state {
            EnvironmentState::Empty => ("empty", Tone::Faint),
            EnvironmentState::Live => ("live", Tone::Good),
            EnvironmentState::Sleeping => ("sleeping", Tone::Faint),
            EnvironmentState::Destroying => ("destroying", Tone::Wait),
        };
        let state = match (environment.execution.is_some(), environment.protected) {
            (true, _) if environment.state != EnvironmentState::Destroying => format!("{state}, changing"),
            (_, true) => format!("{state}, protected"),
            _ => state.to_owned(),
        };
        table.row([
            cell(&environment.place.environment),
            cell(&environment.branch),
            (state, tone),
            maybe(environment.live.map(|number| format!("v{number}"))),
            cell(environment.hosts),
            maybe(environment.urls.first()),
        ]);
    }
    let mut text = table.render(
        output,
        "no environments yet: they are made by the first push to their branches",
    );
    let divided = environments.iter().filter_map(|environment| {
        let split = split_text(environment)?;
        Some(format!("{}: {split}\n", environment.place.environment))
    });
    text.extend(divided.map(|line| output.tone(Tone::Wait, &line)));
    let elsewhere = environments.iter().filter_map(|environment| {
        let elsewhere = elsewhere_text(environment)?;
        Some(format!("{}: {elsewhere}\n", environment.place.environment))
    });
    text.extend(elsewhere.map(|line| output.tone(Tone::Wait, &line)));
    let closed = environments.iter().filter_map(|environment| {
        let closed = super::edge::closed_text(environment.closed.as_ref()?);
        Some(format!("{}: {closed}\n", environment.place.environment))
    });
    text.extend(closed.map(|line| output.tone(Tone::Wait, &line)));
    let of_branches = environments.iter().filter_map(|environment| {
        let until = until_text(environment)?;
        Some(format!("{}: {until}\n", environment.place.environment))
    });
    text.extend(of_branches.map(|line| output.tone(Tone::Faint, &line)));
    text
}

/// `goes with its branch feature/login, or at 2026-11-28 16:48 UTC`
fn until_text(environment: &Environment) -> Option<String> {
    let preview = environment.preview.as_ref()?;
    let branch = clean(&environment.branch);
    Some(match (&preview.ending, environment.protected) {
        (Some(reason), _) => format!("is being taken down: {}", clean(reason)),
        (None, true) => format!("is of branch {branch}, and stays because it is protected"),
        (None, false) => {
            let at = preview.expires_at.strftime("%Y-%m-%d %H:%M");
            format!("goes with its branch {branch}, or at {at} UTC unless somebody pushes")
        }
    })
}

/// `v4 gets 20 % of the traffic, v3 80 % (step 1 of 4, as-good)`
fn split_text(environment: &Environment) -> Option<String> {
    let split = environment.split.as_ref()?;
    let (percent, old) = (split.percent, 100_u32.saturating_sub(split.percent));
    let step = split.step.zip(split.steps);
    let more = [
        step.map(|(step, steps)| format!("step {step} of {steps}")),
        split
            .verdict
            .as_ref()
            .map(|verdict| format!("last analysis: {verdict}")),
        split.paused_by.as_ref().map(|who| format!("held by {who}")),
    ];
    let more: Vec<String> = more.into_iter().flatten().map(|part| clean(&part)).collect();
    let more = match more.is_empty() {
        true => String::new(),
        false => format!(" ({})", more.join(", ")),
    };
    let live = environment.live.map(|live| format!(", v{live} {old} %"));
    let new = split.release;
    Some(format!(
        "v{new} gets {percent} % of the traffic{}{more}",
        live.unwrap_or_default()
    ))
}

/// `10 % is forwarded to shop-production.apps.example.com (vend move acme/shop/production --abort ends it)`
fn elsewhere_text(environment: &Environment) -> Option<String> {
    let own = environment.elsewhere.as_ref()?;
    let (host, place) = (clean(&own.host), &environment.place);
    Some(match own {
        _ if own.finished => {
            format!("all is forwarded to {host} (vend move {place} --engine embedded brings it back)")
        }
        _ if own.closed => format!("nobody is served: its data is on the way to {host}, or back"),
        _ => format!(
            "{} % is forwarded to {host} (vend move {place} --abort ends it)",
            own.share
        ),
    })
}

fn environment_text(environment: &Environment) -> String {
    let live = match environment.live {
        Some(number) => format!("v{number}"),
        None => "nothing".to_owned(),
    };
    let mut text = format!(
        "environment  {}\nbranch       {}\nlive         {live}\nhosts        {}\nprotected    {}\n",
        environment.place,
        environment.branch,
        environment.hosts,
        if environment.protected { "yes" } else { "no" },
    );
    if let Some(until) = until_text(environment) {
        text.push_str(&format!("until        it {until}\n"));
    }
    if let Some(split) = split_text(environment) {
        text.push_str(&format!("traffic      {split}\n"));
    }
    if let Some(closed) = &environment.closed {
        text.push_str(&format!("visitors     {}\n", super::edge::closed_text(closed)));
    }
    if let Some(elsewhere) = elsewhere_text(environment) {
        text.push_str(&format!("on AWS       {elsewhere}\n"));
    }
    for url in &environment.urls {
        text.push_str(&format!("url          {url}\n"));
    }
    if let Some(execution) = &environment.execution {
        text.push_str(&format!(
            "changing     vend executions show {execution} --follow\n"
        ));
    }
    text
}
