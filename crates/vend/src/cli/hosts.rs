//! Hosts, deployments, and what the load balancer sees.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use model::{
    port::{CheckResult, EventReport, EventStatus, HostState, LogRef},
    route::TargetState,
    wire::{Analysis, Deployment, EdgeStatus, Host, Invitation, Machine, NewInvitation, Page, Traffic},
};

use super::{
    Failure, Global,
    client::escape,
    now,
    releases::word,
    target::{self, Target},
};
use crate::output::{Output, Table, Tone, ago, cell, clean, duration, headline, maybe, size};

#[derive(Debug, Subcommand)]
pub enum Hosts {
    /// List hosts of the platform and registered machines, with what they use.
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
    },
    /// Let one machine of a tenant's own in: gives what it runs to join.
    Invite {
        tenant: String,
        /// What the machine is for, such as role=web: environments name these.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Minutes until nobody is let in with it any more.
        #[arg(long, value_name = "MINUTES", default_value_t = 60)]
        expires: u32,
    },
    /// Remove a registered machine: it gets nothing new, its app is stopped, and its key is nobody's any more.
    Remove { id: String },
}

pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub enum Deployments {
    /// List the deployments of an environment, newest first.
    List {
        /// TENANT/APP/ENVIRONMENT
        target: String,
    },
    /// Show a deployment: each host's lifecycle events, and what failed.
    Show { id: String },
}

#[derive(Debug, Args)]
pub struct Targets {
    /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
    target: Option<String>,
}

pub async fn hosts(command: &Hosts, global: &Global) -> Result<(), Failure> {
    match command {
        Hosts::List { target } => list(target.as_deref(), global).await,
        Hosts::Invite {
            tenant,
            labels,
            expires,
        } => {
            let new = NewInvitation {
                labels: labels.iter().cloned().collect(),
                expires_in: Some(expires.saturating_mul(60)),
            };
            let path = format!("/v1/tenants/{}/machines/invitations", escape(tenant));
            let invitation: Invitation = global.client()?.post(&path, &new).await?;
            global
                .output()
                .show(&invitation, |invitation| joining(invitation, "vend agent"));
            Ok(())
        }
        Hosts::Remove { id } => {
            let client = global.client()?;
            let machine: Machine = client.delete(&format!("/v1/machines/{}", escape(id))).await?;
            let output = global.output();
            output.show(&machine, |machine| {
                format!(
                    "{} leaves: its app is stopped, and then nobody knows its key\n",
                    machine.id
                )
            });
            Ok(())
        }
    }
}

/// What is typed on the machine that an invitation is for. A command line is seen by all users of a machine, and kept.
pub fn joining(invitation: &Invitation, agent: &str) -> String {
    let Invitation {
        token,
        url,
        expires_at,
    } = invitation;
    format!(
        "run on the machine, as root, until {expires_at}:\n{agent} --join {url} --token-file -\nand give it this token:\n{}\n",
        token.expose()
    )
}

/// Hosts of the platform, and machines of customers where there are any.
async fn list(target: Option<&str>, global: &Global) -> Result<(), Failure> {
    let path = format!("/v1/hosts?{}", target::scope(target)?);
    let page = global.client()?.list::<Host>(&path, 10_000).await?;
    let path = format!("/v1/machines?{}", target::scope(target)?);
    let machines = global.client()?.list::<Machine>(&path, 10_000).await?;
    if page.items.is_empty() && machines.items.is_empty() {
        target::known(target, &global.client()?).await?;
    }
    let output = global.output();
    let both = Everything {
        page: &page,
        machines: &machines.items,
    };
    output.show(&both, |both| {
        let Everything { page, machines } = both;
        let mut table = Table::new([
            "HOST", "WHERE", "ROLE", "WANTED", "SEEN", "RELEASE", "ADDRESS", "CPU TIME", "MEMORY", "DISK",
            "PIDS", "CREATED",
        ]);
        for host in &page.items {
            let seen = match host.seen {
                Some(HostState::Running) => ("running".to_owned(), Tone::Good),
                Some(HostState::Stopped) => ("stopped".to_owned(), Tone::Bad),
                None => ("-".to_owned(), Tone::Faint),
            };
            table.row([
                cell(&host.id),
                cell(&host.place),
                cell(word(&host.role)),
                cell(&host.wanted),
                seen,
                maybe(host.release.map(|number| format!("v{number}"))),
                cell(&host.address),
                maybe(host.cpu_ms.map(milliseconds)),
                maybe(host.memory_bytes.map(size)),
                maybe(host.disk_bytes.map(size)),
                maybe(host.pids),
                cell(ago(host.created_at, now())),
            ]);
        }
        let hosts = table.render(&output, "no hosts");
        match machines {
            [] => hosts,
            machines => format!("{hosts}\n{}", machines_text(machines, &output)),
        }
    });
    Ok(())
}

#[derive(serde::Serialize)]
struct Everything<'a> {
    #[serde(flatten)]
    page: &'a Page<Host>,
    machines: &'a [Machine],
}

fn machines_text(machines: &[Machine], output: &Output) -> String {
    let mut table = Table::new([
        "MACHINE", "NAME", "STATE", "LABELS", "WHERE", "RELEASE", "ADDRESS", "CPU", "MEMORY", "DISK",
        "JOINED", "WHY",
    ]);
    for machine in machines {
        let labels: Vec<String> = machine
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let usage = machine.usage.unwrap_or_default();
        let tone = match machine.state.as_str() {
            "connected" => Tone::Good,
            "leaving" => Tone::Wait,
            _ => Tone::Bad,
        };
        table.row([
            cell(&machine.id),
            cell(headline(&machine.name, 40)),
            (machine.state.clone(), tone),
            cell(labels.join(" ")),
            match &machine.place {
                Some(place) => cell(place),
                None => cell(&machine.tenant),
            },
            maybe(machine.release.map(|number| format!("v{number}"))),
            maybe(machine.address.as_ref()),
            maybe(usage.cpu_percent.map(|percent| format!("{percent} %"))),
            maybe(of(usage.memory_bytes, usage.memory_total_bytes)),
            maybe(of(usage.disk_bytes, usage.disk_total_bytes)),
            cell(ago(machine.joined_at, now())),
            maybe(trouble(machine)),
        ]);
    }
    table.render(output, "")
}

/// `1.5 GiB of 4.0 GiB`
fn of(part: Option<u64>, whole: Option<u64>) -> Option<String> {
    Some(format!("{} of {}", size(part?), size(whole?)))
}

fn milliseconds(ms: u64) -> String {
    duration(jiff::SignedDuration::from_millis(
        i64::try_from(ms).unwrap_or(i64::MAX),
    ))
}

/// What failed there last, and whether it is tried again.
fn trouble(machine: &Machine) -> Option<String> {
    let failure = machine.failure.as_deref().map(|failure| headline(failure, 100));
    let again = match (machine.tries, machine.next_try) {
        (0, _) => return failure,
        (tries, Some(next)) => format!("tried {tries}x, again at {}", next.strftime("%H:%M:%S UTC")),
        (tries, None) => format!("tried {tries}x, and not again by itself"),
    };
    Some(failure.map_or_else(|| again.clone(), |failure| format!("{failure} ({again})")))
}

pub async fn deployments(command: &Deployments, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Deployments::List { target } => {
            let path = format!("/v1/deployments?{}", Target::read(target)?.query());
            let page = client.list::<Deployment>(&path, 200).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["DEPLOYMENT", "RELEASE", "STRATEGY", "STATE", "STARTED", "WHY"]);
                for deployment in &page.items {
                    table.row([
                        cell(&deployment.id),
                        cell(format!("v{}", deployment.release)),
                        cell(&deployment.strategy),
                        cell(&deployment.state),
                        cell(ago(deployment.started_at, now())),
                        maybe(why(deployment)),
                    ]);
                }
                table.render(&output, "no deployments yet")
            });
        }
        Deployments::Show { id } => {
            let deployment: Deployment = client.get(&format!("/v1/deployments/{}", escape(id))).await?;
            output.show(&deployment, |deployment| deployment_text(deployment, &output));
        }
    }
    Ok(())
}

/// Why it is, where nobody wanted it, and why it ended as it did.
fn why(deployment: &Deployment) -> Option<String> {
    let parts = [&deployment.cause, &deployment.reason];
    let parts: Vec<String> = parts.into_iter().flatten().map(|part| clean(part)).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

fn deployment_text(deployment: &Deployment, output: &Output) -> String {
    let mut text = format!(
        "{} of v{} in {}, {}: {}\n",
        deployment.id,
        deployment.release,
        deployment.place,
        clean(&deployment.strategy),
        clean(&deployment.state)
    );
    if let Some(cause) = &deployment.cause {
        text.push_str(&format!("by itself: {}\n", clean(cause)));
    }
    if let (Some(who), Some(since)) = (&deployment.paused_by, deployment.paused_at) {
        text.push_str(&format!(
            "paused {} by {}\nnext: vend deploy resume {}\n",
            ago(since, now()),
            clean(who),
            deployment.place
        ));
    }
    if let Some(reason) = &deployment.reason {
        let code = deployment.code.as_ref().map(|code| format!(" ({})", clean(code)));
        text.push_str(&format!("cause: {}{}\n", clean(reason), code.unwrap_or_default()));
    }
    for analysis in &deployment.analyses {
        text.push_str(&analysis_text(analysis, output));
    }
    for host in &deployment.hosts {
        text.push_str(&format!("{}\n", host.host));
        for event in &host.events {
            text.push_str(&event_text(event, output));
        }
        for log in logs(&host.events) {
            text.push_str(&format!("  log: vend logs {}\n", clean(log.as_str())));
        }
        for check in host.verdict.iter().flat_map(|verdict| &verdict.results) {
            text.push_str(&check_text(check, output));
        }
    }
    text
}

/// What scripts said, each log once.
fn logs(events: &[EventReport]) -> Vec<&LogRef> {
    let mut logs: Vec<&LogRef> = events.iter().filter_map(|event| event.log.as_ref()).collect();
    let mut seen = BTreeSet::new();
    logs.retain(|log| seen.insert(*log));
    logs
}

/// `step 1 of 3, 10 %: as-good  new 120 requests, 0 failed, p99 12 ms  old …`
fn analysis_text(analysis: &Analysis, output: &Output) -> String {
    let tone = match analysis.verdict.as_str() {
        "as-good" => Tone::Good,
        "worse" => Tone::Bad,
        _ => Tone::Wait,
    };
    let part = |traffic: &Traffic| {
        let p99 = traffic.p99_ms.map(|p99| format!(", p99 {p99:.1} ms"));
        let (requests, failed) = (traffic.requests, traffic.failed);
        format!("{requests} requests, {failed} failed{}", p99.unwrap_or_default())
    };
    let verdict = output.tone(tone, &clean(&analysis.verdict));
    format!(
        "step {} of {}, {} %: {verdict}; new {}; old {}\n",
        analysis.step,
        analysis.steps,
        analysis.percent,
        part(&analysis.new),
        part(&analysis.old)
    )
}

fn event_text(event: &EventReport, output: &Output) -> String {
    let tone = match event.status {
        EventStatus::Succeeded => Tone::Good,
        EventStatus::Failed => Tone::Bad,
        EventStatus::InProgress => Tone::Strong,
        EventStatus::Skipped | EventStatus::Pending | EventStatus::Unknown => Tone::Faint,
    };
    let took = match event.status.is_outcome() {
        true => milliseconds(event.duration_ms),
        false => String::new(),
    };
    let line = format!(
        "  {:<20} {:<10} {took}",
        event.event.to_string(),
        word(&event.status)
    );
    let mut text = format!("{}\n", output.tone(tone, &line));
    if let Some(failure) = &event.failure {
        text.push_str(&format!(
            "    {}: {}\n",
            clean(&failure.script),
            clean(&failure.told())
        ));
        for line in failure.log.lines() {
            text.push_str(&format!("    | {}\n", clean(line)));
        }
    }
    text
}

fn check_text(check: &CheckResult, output: &Output) -> String {
    let what = clean(&format!("{} {} {}", check.kind, check.name, check.property));
    match check.passed {
        true => format!("  {} {what}\n", output.tone(Tone::Good, "ok    ")),
        false => format!(
            "  {} {what}: expected {}, found {}\n",
            output.tone(Tone::Bad, "failed"),
            headline(&check.expected, 100),
            headline(&check.found, 100)
        ),
    }
}

pub async fn targets(command: &Targets, global: &Global) -> Result<(), Failure> {
    let path = format!("/v1/edge?{}", target::scope(command.target.as_deref())?);
    let status: EdgeStatus = global.client()?.get(&path).await?;
    if status.targets.is_empty() {
        target::known(command.target.as_deref(), &global.client()?).await?;
    }
    let output = global.output();
    output.show(&status, |status| {
        let mut table = Table::new([
            "GROUP", "HOST", "ADDRESS", "STATE", "REQUESTS", "ERRORS", "OPEN", "WHY",
        ]);
        for target in &status.targets {
            let tone = match target.state {
                TargetState::Healthy => Tone::Good,
                TargetState::Unhealthy => Tone::Bad,
                TargetState::Initial | TargetState::Draining => Tone::Wait,
            };
            table.row([
                cell(&target.group),
                cell(&target.host),
                cell(&target.address),
                (word(&target.state), tone),
                cell(target.requests),
                cell(target.errors),
                cell(target.active),
                maybe(target.reason.as_ref()),
            ]);
        }
        table.render(&output, "the load balancer has no targets")
    });
    Ok(())
}
