//! Secrets of an environment on AWS, and those of an app's builds. A value is read from standard input, and nothing here ever shows one.

use std::collections::BTreeMap;

use ::aws::{
    Client,
    live::vault::{self, KEPT_DAYS, Set, Shelf},
};
use clap::Subcommand;
use jiff::Timestamp;
use model::spec::{self, Build, Variable};
use serde::Serialize;

use super::{
    Exit, Failure, broken,
    home::{Home, Spot, Target},
    project::Files,
};
use crate::{
    cli::{access::value_from_stdin, now},
    output::{Output, Table, Tone, ago, cell, clean},
};

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Set a secret. The value is read from standard input, never from the command line.
    Set {
        /// An environment, an entry with `branches`, or `build` for the builds of all of them.
        environment: String,
        name: String,
        #[command(flatten)]
        files: Files,
    },
    /// Show which secrets are set, and which vend.yaml wants.
    List {
        /// An environment, an entry with `branches`, or `build` for the builds of all of them.
        environment: String,
        #[command(flatten)]
        files: Files,
    },
    /// Unset a secret. It can be set again at any time.
    Unset {
        /// An environment, an entry with `branches`, or `build` for the builds of all of them.
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
            set(
                &Owner::named(&home(files, environment).await?, environment)?,
                name,
                output,
            )
            .await
        }
        Secrets::List { environment, files } => {
            list(
                &Owner::named(&home(files, environment).await?, environment)?,
                output,
            )
            .await
        }
        Secrets::Unset {
            environment,
            name,
            files,
        } => {
            unset(
                &Owner::named(&home(files, environment).await?, environment)?,
                name,
                output,
            )
            .await
        }
    }
}

/// With the environments of branches: they have the secrets of the entry that they are made from.
async fn home(files: &Files, name: &str) -> Result<Home, Failure> {
    files.home()?.sharing(name)?.knowing(&[name.to_owned()]).await
}

/// The name under which the secrets of an app's builds are set: no environment is called so.
const BUILD: &str = "build";

/// Whose secrets are meant: an environment's, or those of the app's builds.
struct Owner<'h> {
    name: &'h str,
    shelves: Vec<Held<'h>>,
    /// The secrets that vend.yaml wants, each with what gets its value.
    wanted: BTreeMap<String, Vec<String>>,
    /// Who asks for them when it starts.
    readers: &'static str,
}

/// Where they are in one foundation.
struct Held<'h> {
    foundation: &'h str,
    client: &'h Client,
    prefix: String,
    key: String,
}

impl Held<'_> {
    fn shelf(&self) -> Shelf<'_> {
        Shelf {
            prefix: &self.prefix,
            key: &self.key,
        }
    }

    async fn list(&self) -> Result<BTreeMap<String, Option<Timestamp>>, Failure> {
        vault::list(self.client, self.shelf()).await.map_err(broken)
    }
}

impl<'h> Owner<'h> {
    fn named(home: &'h Home, name: &str) -> Result<Self, Failure> {
        match home.spot(name) {
            Err(_) if name == BUILD => Ok(Self::builds(home, home.builds())),
            spot => Ok(Self::environment(&spot?)),
        }
    }

    /// One shelf in each foundation into which it is released; the load balancer's secret for who signs in is there, too.
    fn environment(spot: &Spot<'h>) -> Self {
        let mut wanted = wanted(&spot.spec.host.env);
        if let Some(login) = &spot.spec.authenticate {
            let used = wanted.entry(login.client_secret.clone()).or_default();
            used.push("authenticate.client_secret".to_owned());
        }
        let held = |target: Target<'h>| Held {
            foundation: target.foundation,
            client: target.client(),
            prefix: format!("{}/", target.shelf()),
            key: target.key(),
        };
        Self {
            name: spot.spec.entry().as_str(),
            shelves: spot.targets().into_iter().map(held).collect(),
            wanted,
            readers: "hosts",
        }
    }

    /// Where CodeBuild reads them: builds of all environments have one shelf.
    fn builds(home: &'h Home, of: impl Iterator<Item = &'h Build>) -> Self {
        let (foundation, site) = home.pipeline();
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (secret, variables) in of.flat_map(|build| wanted(&build.env)) {
            all.entry(secret).or_default().extend(variables);
        }
        for variables in all.values_mut() {
            variables.sort();
            variables.dedup();
        }
        Self {
            name: BUILD,
            shelves: vec![Held {
                foundation,
                client: &site.client,
                prefix: format!("{}/{BUILD}/", home.built()),
                key: home.key(foundation),
            }],
            wanted: all,
            readers: "builds",
        }
    }

    /// The secrets that vend.yaml wants and a foundation has not.
    async fn missing(self) -> Result<Vec<Missing>, Failure> {
        let mut there = BTreeMap::new();
        for held in &self.shelves {
            for name in held.list().await?.into_keys() {
                *there.entry(name).or_insert(0) += 1;
            }
        }
        let everywhere = |name: &String| there.get(name) == Some(&self.shelves.len());
        let missing = self.wanted.keys().filter(|name| !everywhere(name));
        let missing = missing.map(|name| Missing {
            owner: self.name.to_owned(),
            name: name.clone(),
        });
        Ok(missing.collect())
    }
}

/// A secret that is wanted and not set.
pub struct Missing {
    /// What `vend aws secrets set` calls whose it is.
    pub owner: String,
    pub name: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.owner == BUILD {
            true => write!(f, "{} (of builds)", self.name),
            false => f.write_str(&self.name),
        }
    }
}

/// What is missing on AWS for a release of this environment: its own secrets, and those of its builds.
pub async fn missing(spot: &Spot<'_>) -> Result<Vec<Missing>, Failure> {
    let mut missing = Owner::environment(spot).missing().await?;
    let builds = Owner::builds(spot.home(), std::iter::once(&spot.spec.build));
    missing.extend(builds.missing().await?);
    Ok(missing)
}

/// The secrets whose values variables have, each with the variables.
fn wanted(env: &BTreeMap<String, Variable>) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, variable) in env {
        if let Variable::Secret(secret) = variable {
            all.entry(secret.clone()).or_default().push(name.clone());
        }
    }
    all
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

async fn set(owner: &Owner<'_>, name: &str, output: &Output) -> Result<(), Failure> {
    named(name)?;
    let value = value_from_stdin("value")?;
    // The same in every foundation, and for every try.
    let ticket = format!("{:016x}{:016x}", crate::clock::bits(), crate::clock::bits());
    let mut said = Vec::new();
    for held in &owner.shelves {
        let done = vault::set(held.client, held.shelf(), name, &value, &ticket)
            .await
            .map_err(broken)?;
        let word = match done {
            Set::Made => "set",
            Set::Changed => "changed",
            Set::Restored => "set again",
        };
        said.push(serde_json::json!({ "secret": format!("{}{name}", held.prefix), "done": word }));
    }
    let text = |said: &Vec<serde_json::Value>| {
        let line = |one: &serde_json::Value| {
            let word = |member: &str| one[member].as_str().unwrap_or_default().to_owned();
            let (done, secret, readers) = (word("done"), word("secret"), owner.readers);
            match owner.wanted.contains_key(name) {
                true => format!("{done} {secret}; {readers} that start from now on have it\n"),
                false => format!("{done} {secret}; nothing in vend.yaml asks for it yet\n"),
            }
        };
        said.iter().map(line).collect()
    };
    output.show(&said, text);
    Ok(())
}

async fn list(owner: &Owner<'_>, output: &Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    for held in &owner.shelves {
        let there = held.list().await?;
        let missing = owner.wanted.keys().filter(|name| !there.contains_key(*name));
        let mut names: Vec<&String> = there.keys().chain(missing).collect();
        names.sort();
        all.extend(names.into_iter().map(|name| Line {
            foundation: held.foundation.to_owned(),
            name: name.clone(),
            set_at: there.get(name).copied().flatten(),
            is_set: there.contains_key(name),
            variables: owner.wanted.get(name).cloned().unwrap_or_default(),
        }));
    }
    output.show(&all, |all| table(all, owner.name, output));
    Ok(())
}

fn table(all: &[Line], owner: &str, output: &Output) -> String {
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
        text.push_str(&format!("next: vend aws secrets set {owner} {}\n", missing.name));
    }
    text
}

async fn unset(owner: &Owner<'_>, name: &str, output: &Output) -> Result<(), Failure> {
    named(name)?;
    let mut is_gone = false;
    for held in &owner.shelves {
        is_gone |= vault::unset(held.client, held.shelf(), name)
            .await
            .map_err(broken)?;
    }
    if !is_gone {
        return Err(
            Failure::new(Exit::NotFound, format!("{} has no secret `{name}`", owner.name))
                .next(format!("vend aws secrets list {}", owner.name)),
        );
    }
    output.show(&serde_json::json!({ "unset": name }), |_| {
        let hint = match owner.wanted.contains_key(name) {
            true => format!(
                "\nvend.yaml still wants it: {} that start without it fail",
                owner.readers
            ),
            false => String::new(),
        };
        format!("unset {name}; AWS keeps it for {KEPT_DAYS} days{hint}\n")
    });
    Ok(())
}
