//! What there is: `status`, `outputs`, `drift`; and what is done with single stacks: `protect`, `unprotect`, `continue`.

use std::{process::ExitCode, time::Duration};

use ::aws::{
    plan::{Doing, doing},
    protect,
    site::Found,
    stack::{self, Drift as Drifted, Output as Said},
    synth::Kind,
    watch,
};
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure,
    apply::Progress,
    broken,
    project::{Loaded, Project},
    whose::Shared,
};
use crate::output::{Output, Table, Tone, cell, clean, maybe};

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    project: Project,
}

#[derive(Debug, Args)]
pub struct Outputs {
    #[command(flatten)]
    project: Project,
}

#[derive(Debug, Args)]
pub struct Drift {
    #[command(flatten)]
    project: Project,
}

#[derive(Debug, Args)]
pub struct Protect {
    #[command(flatten)]
    project: Project,
}

#[derive(Debug, Args)]
pub struct Continue {
    /// The stack that is UPDATE_ROLLBACK_FAILED.
    stack: String,
    #[command(flatten)]
    project: Project,
    /// Leave this resource as it is; it is then not as its template says. [default: none, all are tried again]
    #[arg(long, value_name = "RESOURCE")]
    skip: Vec<String>,
}

/// One line of the status.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    foundation: String,
    region: String,
    /// CloudFormation's word; none for a stack that is not there.
    status: Option<String>,
    why: Option<String>,
    /// The entry of vend.yaml that it was made from, where it comes and goes with a branch.
    preview: Option<String>,
    /// What `apply` would do; none for a stack that the files do not have any more.
    doing: Option<Doing>,
    is_protected: bool,
    /// It holds what refuses deletion, and somebody took its protection away.
    is_unprotected: bool,
    drift: Option<String>,
    at: Option<String>,
    cents: u64,
    /// Resources without a price, which it leaves out.
    unpriced: usize,
}

pub async fn status(own: &Status, output: &Output) -> Result<(), Failure> {
    let loaded = own.project.load_most(output)?;
    let found = loaded.found().await?;
    let mut lines = Vec::new();
    for wanted in &loaded.wanted {
        let own = found.iter().find(|(_, found)| found.stack.name == wanted.name);
        let mut line = line(
            &loaded,
            &wanted.name,
            &wanted.mark.foundation,
            own.map(|(_, found)| found),
        );
        let found = own.map(|(_, found)| found);
        // A pipeline goes with all environments: what it shall be is not known without one.
        let refused = found.filter(|_| wanted.mark.kind == Kind::Pipeline);
        let refused = refused.and_then(|found| loaded.refusal(found));
        line.doing = Some(match refused {
            Some(why) => Doing::Refused { why },
            None => doing(wanted, found),
        });
        line.is_unprotected = wanted.is_guarded() && found.is_some() && !line.is_protected;
        line.cents = wanted.price.cents;
        line.unpriced = wanted.price.unknown;
        lines.push(line);
    }
    for (foundation, found) in &found {
        let is_known = loaded.made.stacks.iter().any(|own| own.name == found.stack.name);
        if !is_known && loaded.is_own(found) {
            let mut line = line(&loaded, &found.stack.name, foundation, Some(found));
            line.doing = loaded.refusal(found).map(|why| Doing::Refused { why });
            lines.push(line);
        }
    }
    output.show(&lines, |lines| table(lines, output));
    for said in loaded.elsewhere(&found).await {
        output.note(&said);
    }
    Ok(())
}

fn line(loaded: &Loaded, name: &str, foundation: &str, found: Option<&Found>) -> Line {
    let stack = found.map(|found| &found.stack);
    Line {
        name: name.to_owned(),
        foundation: foundation.to_owned(),
        region: loaded.site(foundation).client.region().to_owned(),
        status: stack.map(|stack| stack.status.0.clone()),
        why: stack.and_then(|stack| stack.why.clone()),
        preview: found
            .and_then(|found| found.mark.as_ref())
            .and_then(|mark| mark.preview.clone()),
        doing: None,
        is_protected: stack.is_some_and(|stack| stack.is_protected),
        is_unprotected: false,
        drift: stack
            .map(|stack| stack.drift.clone())
            .filter(|drift| drift != "NOT_CHECKED"),
        at: stack.map(|stack| stack.at.clone()),
        cents: found
            .and_then(|found| found.mark.as_ref())
            .map_or(0, |mark| mark.cents),
        unpriced: 0,
    }
}

fn table(lines: &[Line], output: &Output) -> String {
    let mut table = Table::new([
        "STACK",
        "REGION",
        "STATUS",
        "FILES",
        "PROTECTED",
        "DRIFT",
        "US$/MONTH",
    ]);
    for line in lines {
        let files = match &line.doing {
            None if line.preview.is_some() => ("of a branch".to_owned(), Tone::Good),
            None => ("no more there (vend aws destroy --gone)".to_owned(), Tone::Wait),
            Some(Doing::Nothing) => ("the same".to_owned(), Tone::Good),
            Some(Doing::Create | Doing::CreateAgain) => ("not applied".to_owned(), Tone::Wait),
            Some(Doing::Wait { .. }) => ("being applied".to_owned(), Tone::Wait),
            Some(Doing::Stuck { .. }) => ("stuck".to_owned(), Tone::Bad),
            Some(Doing::Refused { .. }) => ("refused (vend aws plan)".to_owned(), Tone::Bad),
            Some(_) => ("changed".to_owned(), Tone::Wait),
        };
        table.row([
            (line.name.clone(), Tone::Strong),
            cell(&line.region),
            maybe(line.status.as_ref()),
            files,
            match (line.is_protected, line.is_unprotected) {
                (true, _) => cell("yes"),
                (false, true) => ("no (vend aws protect)".to_owned(), Tone::Wait),
                (false, false) => cell("-"),
            },
            maybe(line.drift.as_ref()),
            cell(format!(
                "{}{:.2}",
                if line.unpriced > 0 { "≥ " } else { "" },
                line.cents as f64 / 100.0
            )),
        ]);
    }
    let mut text = table.render(output, "no stacks");
    for line in lines {
        let is_bad = line
            .status
            .as_deref()
            .is_some_and(|status| status.contains("FAILED") || status.contains("ROLLBACK"));
        if let Some(why) = line.why.as_deref().filter(|_| is_bad) {
            text.push_str(&format!("{}: {}\n", line.name, clean(why)));
        }
    }
    text
}

/// A stack's outputs.
#[derive(Debug, Serialize)]
struct Says {
    stack: String,
    outputs: Vec<Said>,
}

pub async fn outputs(own: &Outputs, output: &Output) -> Result<(), Failure> {
    let loaded = own.project.load_most(output)?;
    let found = loaded.found().await?;
    let asked = found
        .into_iter()
        .filter(|(_, found)| loaded.is_own(found) && loaded.is_asked(&found.stack.name));
    let all: Vec<Says> = asked
        .map(|(_, found)| Says {
            stack: found.stack.name,
            outputs: found.stack.outputs,
        })
        .collect();
    output.show(&all, |all| {
        let mut table = Table::new(["STACK", "OUTPUT", "VALUE"]);
        for says in all {
            for said in &says.outputs {
                table.row([
                    (says.stack.clone(), Tone::Strong),
                    cell(&said.id),
                    cell(&said.value),
                ]);
            }
        }
        table.render(output, "no outputs")
    });
    Ok(())
}

/// How a stack compares.
#[derive(Debug, Serialize)]
struct Compared {
    stack: String,
    /// `IN_SYNC`, `DRIFTED`, or why it could not be compared.
    drift: String,
    resources: Vec<Drifted>,
}

pub async fn drift(own: &Drift, output: &Output) -> Result<ExitCode, Failure> {
    let loaded = own.project.load_most(output)?;
    let mut all = Vec::new();
    for (foundation, found) in loaded.found().await? {
        let is_asked = loaded.is_own(&found) && loaded.is_asked(&found.stack.name);
        if is_asked && found.stack.status.is_usable() {
            all.push(compared(&loaded, &foundation, &found).await?);
        }
    }
    output.show(&all, |all| differences(all, output));
    let is_same = all.iter().all(|one| one.drift == "IN_SYNC");
    Ok(if is_same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn compared(loaded: &Loaded, foundation: &str, found: &Found) -> Result<Compared, Failure> {
    let client = &loaded.site(foundation).client;
    let name = &found.stack.name;
    let id = stack::detect(client, name).await.map_err(broken)?;
    let drift = loop {
        let (state, drift, why) = stack::detected(client, &id).await.map_err(broken)?;
        match state.as_str() {
            "DETECTION_IN_PROGRESS" => tokio::time::sleep(Duration::from_secs(1)).await,
            "DETECTION_FAILED" => break why.unwrap_or(state),
            _ => break drift,
        }
    };
    Ok(Compared {
        stack: name.clone(),
        drift,
        resources: stack::drifts(client, name).await.map_err(broken)?,
    })
}

fn differences(all: &[Compared], output: &Output) -> String {
    let mut text = String::new();
    for one in all {
        let tone = if one.drift == "IN_SYNC" {
            Tone::Good
        } else {
            Tone::Bad
        };
        text.push_str(&format!(
            "{}  {}\n",
            one.stack,
            output.tone(tone, &clean(&one.drift))
        ));
        for own in &one.resources {
            text.push_str(&format!(
                "  {} ({}) {}\n",
                clean(&own.id),
                clean(&own.kind),
                clean(&own.status)
            ));
            for (path, template, real) in &own.differences {
                text.push_str(&format!(
                    "    {}: the template says {}, it is {}\n",
                    clean(path),
                    clean(template),
                    clean(real)
                ));
            }
        }
    }
    if text.is_empty() {
        "no stacks\n".to_owned()
    } else {
        text
    }
}

/// What became of a stack's protection.
#[derive(Debug, Serialize)]
struct Switched {
    stack: String,
    is_protected: bool,
    was_protected: bool,
    /// What it was switched for beside the stack itself.
    with: Vec<String>,
    /// Why it stays as it is.
    stays: Option<String>,
}

pub async fn protect(own: &Protect, on: bool, output: &Output) -> Result<(), Failure> {
    let loaded = own.project.load_most(output)?;
    let all = loaded.found().await?;
    let shared = Shared::of(&loaded, &all);
    let mut done = Vec::new();
    for (foundation, found) in all {
        let status = &found.stack.status;
        let is_asked = loaded.is_own(&found) && loaded.is_asked(&found.stack.name);
        if !is_asked || status.is_moving() || status.is_review() {
            continue;
        }
        let mut switched = Switched {
            stack: found.stack.name.clone(),
            is_protected: found.stack.is_protected,
            was_protected: found.stack.is_protected,
            with: Vec::new(),
            stays: None,
        };
        // Others count on it: only who names it takes its protection away.
        if !on && loaded.is_whole() && shared.has(&foundation, &found) {
            let name = &found.stack.name;
            switched.stays = Some(format!("other apps stand on it (--only {name})"));
        } else {
            let held = protect::protect(loaded.site(&foundation), &found.stack, on).await;
            switched.with = held.map_err(broken)?;
            switched.is_protected = on;
        }
        if !output.json {
            output.line(&told(&switched));
        }
        done.push(switched);
    }
    if output.json {
        output.show(&done, |_| String::new());
    }
    Ok(())
}

fn told(switched: &Switched) -> String {
    let name = &switched.stack;
    if let Some(why) = &switched.stays {
        return format!("{name} stays as it is: {why}");
    }
    let word = match (switched.is_protected, switched.was_protected) {
        (true, _) => "protected",
        (false, true) => "not protected any more",
        (false, false) => "not protected, and was not",
    };
    let with = match switched.with.as_slice() {
        [] => String::new(),
        held => format!(", with {}", held.join(", ")),
    };
    format!("{name} is {word}{with}")
}

/// The way out of a rollback that failed. What is protected cannot be taken away by it, and then its protection goes first.
pub fn out_of(own: &Project, stack: &str, why: &str) -> String {
    let goes_on = own.about(&format!("continue {stack}"));
    match is_guarded(why) {
        true => format!(
            "{}, then {goes_on}, then {}",
            own.only("unprotect", [stack]),
            own.only("protect", [stack])
        ),
        false => goes_on,
    }
}

/// Does AWS say that protection hindered it? Load balancers, databases and stacks say it each in their own words.
fn is_guarded(why: &str) -> bool {
    let why = why.to_lowercase();
    [
        "deletion protection",
        "deletionprotection",
        "deletion_protection",
        "terminationprotection",
    ]
    .iter()
    .any(|word| why.contains(word))
}

pub async fn carry_on(own: &Continue, output: &Output) -> Result<ExitCode, Failure> {
    let loaded = own.project.load_most(output)?;
    let found = loaded.found().await?;
    let Some((foundation, found)) = found.iter().find(|(_, found)| found.stack.name == own.stack) else {
        let what = format!("there is no stack `{}`", own.stack);
        return Err(Failure::new(Exit::NotFound, what).next("vend aws status"));
    };
    let status = &found.stack.status.0;
    if found.stack.status.is_usable() {
        let done = serde_json::json!({ "stack": own.stack, "status": status });
        output.show(&done, |_| {
            format!("{} is {status}: there is nothing to continue\n", own.stack)
        });
        return Ok(ExitCode::SUCCESS);
    }
    if status != "UPDATE_ROLLBACK_FAILED" {
        let next = match status.as_str() {
            "DELETE_FAILED" => own.project.only("destroy", [own.stack.as_str()]),
            _ => own.project.only("apply", [own.stack.as_str()]),
        };
        return Err(
            Failure::failed(format!("{} is {status}: there is nothing to continue", own.stack)).next(next),
        );
    }
    let client = &loaded.site(foundation).client;
    let events = stack::events(client, &own.stack, None).await.map_err(broken)?;
    let stuck = watch::stuck(&own.stack, &events);
    let mark = events.last().map(|event| event.id.clone());
    // First everything is tried again: what hindered it may be gone.
    let token = format!("vend-continue-{}", crate::clock::now().as_millisecond());
    stack::carry_on(client, &own.stack, None, &own.skip, &token)
        .await
        .map_err(broken)?;
    let mut progress = Progress::new(&own.stack, stuck.len(), output);
    let waited = watch::wait(client, &found.stack.id, mark, &mut |event| progress.tell(event)).await;
    progress.end();
    let (now, events) = waited.map_err(broken)?;
    let status = now.map_or_else(|| "gone".to_owned(), |stack| stack.status.0);
    if status == "UPDATE_ROLLBACK_COMPLETE" {
        let done = serde_json::json!({ "stack": own.stack, "status": status });
        output.show(&done, |_| {
            format!("{} is {status}: as it was before the change\n", own.stack)
        });
        return Ok(ExitCode::SUCCESS);
    }
    let skip: Vec<String> = watch::stuck(&own.stack, &events)
        .iter()
        .map(|id| format!(" --skip {id}"))
        .collect();
    let cause = watch::cause(&own.stack, &events);
    let why = cause.as_ref().map_or("", |cause| cause.why.as_str());
    let skips = own
        .project
        .about(&format!("continue {}{}", own.stack, skip.concat()));
    let failure = Failure::failed(format!("{} is {status}", own.stack)).next(match is_guarded(why) {
        true => format!(
            "{}; or leave it as it is: {skips}",
            out_of(&own.project, &own.stack, why)
        ),
        false => skips,
    });
    Err(match cause {
        Some(cause) => failure.cause(cause.to_string()),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        own: Continue,
    }

    #[test]
    fn what_is_protected_is_unprotected_before_the_rollback_goes_on() {
        let own = Line::parse_from(["continue", "shop", "--config", "other.toml"]).own;
        let way = |why: &str| out_of(&own.project, "shop", why);
        for why in [
            "Load balancer 'arn:…' cannot be deleted because deletion protection is enabled (Service: ElasticLoadBalancingV2)",
            "Cannot delete protected DB Instance, please disable deletion protection and try again.",
        ] {
            assert_eq!(
                way(why),
                "vend aws unprotect --config other.toml --only shop, then vend aws continue shop --config other.toml, \
                 then vend aws protect --config other.toml --only shop"
            );
        }
        assert_eq!(way("it is in use"), "vend aws continue shop --config other.toml");
    }
}
