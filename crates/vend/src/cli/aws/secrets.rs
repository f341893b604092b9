//! Secrets of an environment on AWS. A value is read from standard input, and nothing here ever shows one.

use std::collections::BTreeMap;

use ::aws::live::vault::{self, KEPT_DAYS, Set, Shelf};
use clap::Subcommand;
use jiff::Timestamp;
use model::spec::{self, Variable};
use serde::Serialize;

use super::{Exit, Failure, broken, home::Spot, project::Files};
use crate::{
    cli::{access::value_from_stdin, now},
    output::{Output, Table, Tone, ago, cell, clean},
};

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Set a secret. The value is read from standard input, never from the command line.
    Set {
        environment: String,
        name: String,
        #[command(flatten)]
        files: Files,
    },
    /// Show which secrets are set, and which vend.yaml wants.
    List {
        environment: String,
        #[command(flatten)]
        files: Files,
    },
    /// Unset a secret. It can be set again at any time.
    Unset {
        environment: String,
        name: String,
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Debug, Serialize)]
struct Line {
    foundation: String,
    name: String,
    /// None: it is wanted, and not set.
    set_at: Option<Timestamp>,
    is_set: bool,
    /// The variables that vend.yaml gives its value to.
    variables: Vec<String>,
}

pub async fn run(own: &Secrets, output: &Output) -> Result<(), Failure> {
    match own {
        Secrets::Set {
            environment,
            name,
            files,
        } => {
            let home = files.home()?;
            set(&home.spot(environment)?, name, output).await
        }
        Secrets::List { environment, files } => {
            let home = files.home()?;
            list(&home.spot(environment)?, output).await
        }
        Secrets::Unset {
            environment,
            name,
            files,
        } => {
            let home = files.home()?;
            unset(&home.spot(environment)?, name, output).await
        }
    }
}

fn named(name: &str) -> Result<(), Failure> {
    match spec::is_secret(name) {
        true => Ok(()),
        false => Err(
            Failure::usage(format!("`{}` is not the name of a secret", clean(name)))
                .cause("it has at most 64 letters, digits, `-`, `_` and `.`, and a letter or digit first"),
        ),
    }
}

async fn set(spot: &Spot<'_>, name: &str, output: &Output) -> Result<(), Failure> {
    named(name)?;
    let value = value_from_stdin("value")?;
    // The same in every target, and for every try.
    let ticket = format!("{:016x}{:016x}", crate::clock::bits(), crate::clock::bits());
    let mut said = Vec::new();
    for target in spot.targets() {
        let (prefix, key) = (format!("{}/", target.path()), target.key());
        let shelf = Shelf {
            prefix: &prefix,
            key: &key,
        };
        let done = vault::set(target.client(), shelf, name, &value, &ticket)
            .await
            .map_err(broken)?;
        let word = match done {
            Set::Made => "set",
            Set::Changed => "changed",
            Set::Restored => "set again",
        };
        said.push(serde_json::json!({ "secret": format!("{prefix}{name}"), "done": word }));
    }
    let text = |said: &Vec<serde_json::Value>| {
        let line = |one: &serde_json::Value| {
            let word = |member: &str| one[member].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {}; hosts that start from now on have it\n",
                word("done"),
                word("secret")
            )
        };
        said.iter().map(line).collect()
    };
    output.show(&said, text);
    Ok(())
}

/// The secrets that vend.yaml wants, with the variables that get them, and the load balancer's for who signs in.
fn wanted(spot: &Spot<'_>) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, variable) in &spot.spec.host.env {
        if let Variable::Secret(secret) = variable {
            all.entry(secret.clone()).or_default().push(name.clone());
        }
    }
    if let Some(login) = &spot.spec.authenticate {
        let used = all.entry(login.client_secret.clone()).or_default();
        used.push("authenticate.client_secret".to_owned());
    }
    all
}

async fn list(spot: &Spot<'_>, output: &Output) -> Result<(), Failure> {
    let wanted = wanted(spot);
    let mut all = Vec::new();
    for target in spot.targets() {
        let (prefix, key) = (format!("{}/", target.path()), target.key());
        let shelf = Shelf {
            prefix: &prefix,
            key: &key,
        };
        let there = vault::list(target.client(), shelf).await.map_err(broken)?;
        let missing = wanted.keys().filter(|name| !there.contains_key(*name));
        let mut names: Vec<&String> = there.keys().chain(missing).collect();
        names.sort();
        all.extend(names.into_iter().map(|name| Line {
            foundation: target.foundation.to_owned(),
            name: name.clone(),
            set_at: there.get(name).copied().flatten(),
            is_set: there.contains_key(name),
            variables: wanted.get(name).cloned().unwrap_or_default(),
        }));
    }
    output.show(&all, |all| table(all, spot, output));
    Ok(())
}

/// The secrets that vend.yaml wants and a target has not.
pub async fn missing(spot: &Spot<'_>) -> Result<Vec<String>, Failure> {
    let mut missing = wanted(spot);
    let mut there = BTreeMap::new();
    for target in spot.targets() {
        let (prefix, key) = (format!("{}/", target.path()), target.key());
        let shelf = Shelf {
            prefix: &prefix,
            key: &key,
        };
        for name in vault::list(target.client(), shelf)
            .await
            .map_err(broken)?
            .into_keys()
        {
            *there.entry(name).or_insert(0) += 1;
        }
    }
    let targets = spot.targets().len();
    missing.retain(|name, _| there.get(name).is_none_or(|count| *count < targets));
    Ok(missing.into_keys().collect())
}

fn table(all: &[Line], spot: &Spot<'_>, output: &Output) -> String {
    let mut table = Table::new(["FOUNDATION", "SECRET", "SET", "VARIABLES"]);
    for line in all {
        let set = match (line.is_set, line.set_at) {
            (false, _) => ("missing".to_owned(), Tone::Bad),
            (true, Some(at)) => cell(ago(at, now())),
            (true, None) => cell("yes"),
        };
        let variables = match line.variables.is_empty() {
            true => cell("-"),
            false => cell(line.variables.join(", ")),
        };
        table.row([
            cell(&line.foundation),
            (line.name.clone(), Tone::Strong),
            set,
            variables,
        ]);
    }
    let mut text = table.render(output, "no secrets, and vend.yaml wants none");
    if let Some(missing) = all.iter().find(|line| !line.is_set) {
        text.push_str(&format!(
            "next: vend aws secrets set {} {}\n",
            spot.name(),
            missing.name
        ));
    }
    text
}

async fn unset(spot: &Spot<'_>, name: &str, output: &Output) -> Result<(), Failure> {
    named(name)?;
    let mut is_gone = false;
    for target in spot.targets() {
        let (prefix, key) = (format!("{}/", target.path()), target.key());
        let shelf = Shelf {
            prefix: &prefix,
            key: &key,
        };
        is_gone |= vault::unset(target.client(), shelf, name).await.map_err(broken)?;
    }
    if !is_gone {
        return Err(
            Failure::new(Exit::NotFound, format!("{} has no secret `{name}`", spot.name()))
                .next(format!("vend aws secrets list {}", spot.name())),
        );
    }
    output.show(&serde_json::json!({ "unset": name }), |_| {
        let used = wanted(spot).contains_key(name);
        let hint = match used {
            true => "\nvend.yaml still wants it: hosts that start without it fail",
            false => "",
        };
        format!("unset {name}; AWS keeps it for {KEPT_DAYS} days{hint}\n")
    });
    Ok(())
}
