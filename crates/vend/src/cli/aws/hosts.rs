//! Hosts on AWS: which half serves with which hosts, and how many there shall be.

use ::aws::{
    live::{
        fleet::{self, Host, Size},
        half::{self, Half},
    },
    stack::Stack,
};
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure, broken,
    home::{Spot, Target},
    project::Files,
    push,
};
use crate::output::{Output, Table, Tone, cell, clean, maybe};

#[derive(Debug, Args)]
pub struct Hosts {
    /// Only this environment, or that of this branch.
    #[arg(long, short, value_name = "NAME")]
    environment: Vec<String>,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
pub struct Scale {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    /// How many; between `scaling.min` and `scaling.max` of vend.yaml.
    hosts: u32,
    #[command(flatten)]
    files: Files,
}

/// A half of an environment in one foundation.
#[derive(Debug, Serialize)]
struct Line {
    environment: String,
    stack: String,
    #[serde(flatten)]
    half: Half,
    hosts: Vec<Host>,
}

pub async fn run(own: &Hosts, output: &Output) -> Result<(), Failure> {
    let home = own.files.home()?.knowing(&own.environment).await?;
    let mut all = Vec::new();
    let spots = home.spots(&own.environment)?;
    for spot in &spots {
        for target in spot.targets() {
            let stack = match target.stack().await {
                // Nobody asked for it by its name.
                Err(failure) if failure.exit == Exit::NotFound && own.environment.is_empty() => continue,
                found => found?,
            };
            for half in half::halves(&stack).into_iter().filter(|half| half.runs) {
                all.push(Line {
                    environment: spot.name().to_owned(),
                    stack: target.stack.to_owned(),
                    hosts: fleet::hosts(target.client(), &stack, &half)
                        .await
                        .map_err(broken)?,
                    half,
                });
            }
        }
    }
    let next = push::next(&spots);
    output.show(&all, |all| table(all, &next, output));
    Ok(())
}

fn table(all: &[Line], next: &str, output: &Output) -> String {
    let mut table = Table::new(["STACK", "HALF", "IMAGE", "TRAFFIC", "HOST", "HEALTH", "WHY"]);
    for line in all {
        let half = [
            (line.stack.clone(), Tone::Strong),
            cell(line.half.word.to_lowercase()),
            cell(&line.half.image),
            cell(format!("{} %", line.half.weight)),
        ];
        let row = |host: (String, Tone), health: (String, Tone), why: (String, Tone)| {
            let [stack, word, image, traffic] = half.clone();
            [stack, word, image, traffic, host, health, why]
        };
        for host in &line.hosts {
            let tone = match host.health.as_str() {
                "healthy" => Tone::Good,
                "initial" | "draining" => Tone::Wait,
                _ => Tone::Bad,
            };
            table.row(row(
                cell(&host.id),
                (clean(&host.health), tone),
                maybe(host.why.as_ref()),
            ));
        }
        if line.hosts.is_empty() {
            table.row(row(cell("-"), ("none yet".to_owned(), Tone::Wait), cell("-")));
        }
    }
    table.render(output, &format!("nothing runs yet\nnext: {next}"))
}

/// A half that serves, between its bounds.
struct Group<'h> {
    target: Target<'h>,
    stack: Stack,
    half: Half,
    /// None: containers.
    size: Option<Size>,
}

pub async fn scale(own: &Scale, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    let groups = serving(&spot).await?;
    // All of them are looked at before the first is changed.
    for group in &groups {
        fits(&spot, group, own.hosts)?;
    }
    let mut changed = Vec::new();
    for group in &groups {
        if group.size.is_none_or(|size| size.desired != own.hosts) {
            let scaled = fleet::scale(group.target.client(), &group.stack, &group.half, own.hosts).await;
            scaled.map_err(broken)?;
            changed.push(group.target.stack);
        }
    }
    let (name, hosts) = (spot.name(), own.hosts);
    let said = serde_json::json!({ "environment": name, "hosts": hosts, "changed": changed });
    output.show(&said, |_| match changed.is_empty() {
        true => format!("{name} has {hosts} hosts already\n"),
        false => format!("{name} gets {hosts} hosts\nnext: vend aws hosts --environment {name}\n"),
    });
    Ok(())
}

/// The halves that have traffic.
async fn serving<'h>(spot: &Spot<'h>) -> Result<Vec<Group<'h>>, Failure> {
    let mut all = Vec::new();
    for target in spot.targets() {
        let stack = target.stack().await?;
        for half in half::halves(&stack)
            .into_iter()
            .filter(|half| half.runs && half.weight > 0)
        {
            let size = fleet::size(target.client(), &stack, &half)
                .await
                .map_err(broken)?;
            all.push(Group {
                target,
                stack: stack.clone(),
                half,
                size,
            });
        }
    }
    match all.is_empty() {
        true => {
            Err(Failure::failed(format!("nothing of {} runs yet", spot.name())).next(push::next(&[*spot])))
        }
        false => Ok(all),
    }
}

fn fits(spot: &Spot<'_>, group: &Group<'_>, hosts: u32) -> Result<(), Failure> {
    let scaling = spot.spec.scaling;
    let (least, most) = group
        .size
        .map_or((scaling.min, scaling.max), |size| (size.least, size.most));
    if (least..=most).contains(&hosts) {
        return Ok(());
    }
    let what = format!(
        "{} has between {least} and {most} hosts, and {hosts} were asked for",
        spot.name()
    );
    Err(Failure::usage(what)
        .cause("`scaling` of vend.yaml says so")
        .next("change it there, then vend aws apply"))
}
