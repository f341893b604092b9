//! An app on AWS, as its files say: where its flows, stacks, secrets and logs are.

use std::collections::BTreeMap;

use ::aws::{
    Client,
    site::{self, Site},
    stack::{self, Stack},
    synth::{self, Config, Engine, Kind, Priorities, Runtime},
};
use model::spec;

use super::{Exit, Failure, broken, tree::made};

/// Kind, name and foundation of a stack.
type Place = (Kind, String, String);

pub struct Home {
    config: Config,
    app: spec::App,
    sites: BTreeMap<String, Site>,
    stacks: Vec<Place>,
    /// Environments of branches that were asked for, by the word that asked.
    branches: Vec<(String, spec::Environment)>,
}

/// An environment of the app.
#[derive(Clone, Copy)]
pub struct Spot<'h> {
    home: &'h Home,
    pub spec: &'h spec::Environment,
}

/// A foundation into which an environment's releases go.
#[derive(Clone, Copy)]
pub struct Target<'h> {
    spot: Spot<'h>,
    pub foundation: &'h str,
    pub stack: &'h str,
}

impl Home {
    pub fn new(config: Config, app: spec::App, made: &synth::Output, sites: BTreeMap<String, Site>) -> Self {
        let stacks = made.names();
        Self {
            stacks: stacks
                .map(|(kind, name, label)| (kind, name.to_owned(), label.to_string()))
                .collect(),
            config,
            app,
            sites,
            branches: Vec::new(),
        }
    }

    /// Also with the environments of branches that are asked for: by the branch, or by the name that its stacks have.
    pub async fn knowing(mut self, asked: &[String]) -> Result<Self, Failure> {
        for word in asked {
            if self.app.environments.iter().any(|own| own.name.as_str() == word) {
                continue;
            }
            if spec::is_apart(word) {
                self.stands(word).await?;
            } else if let Some(own) = self.preview(word)? {
                let stacks = self.of(&own)?;
                if self.is_there(&stacks).await? {
                    self.adopt(word, own, stacks);
                }
            }
        }
        Ok(self)
    }

    /// Also with what all environments of branches have in common that are made from an entry of this name, or from that of
    /// the environment that is asked for.
    pub fn sharing(mut self, name: &str) -> Result<Self, Failure> {
        let mut patterns = self.app.patterns.iter();
        let Some(pattern) = patterns.find(|own| own.environment.name.as_str() == name) else {
            return Ok(self);
        };
        // Any branch that fits will do.
        let sample = pattern.branches.first().map(|own| own.replace('*', "x"));
        let own = pattern.environment_of(&sample.unwrap_or_default());
        let stacks = self.of(&own)?;
        self.adopt(name, own, stacks);
        Ok(self)
    }

    /// The stacks of a branch's environment, as the files make it.
    fn of(&self, own: &spec::Environment) -> Result<Vec<Place>, Failure> {
        let made = made(&self.config, &self.app, Some(own), &mut Priorities::default())?;
        let stacks = made.of_branch();
        Ok(stacks
            .map(|own| (own.kind, own.name.clone(), own.foundation.to_string()))
            .collect())
    }

    /// Is one of the stacks there? Where an entry takes every branch, each mistyped name would be one.
    async fn is_there(&self, stacks: &[Place]) -> Result<bool, Failure> {
        for (_, stack, label) in stacks.iter().filter(|(kind, ..)| *kind == Kind::Environment) {
            let client = &self.site(label).client;
            if stack::one(client, stack).await.map_err(broken)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a branch's environment in.
    fn adopt(&mut self, word: &str, own: spec::Environment, stacks: Vec<Place>) {
        self.stacks.extend(stacks);
        let name = spec::name_apart(&self.app.app, &own.branch);
        self.branches
            .push((word.to_owned(), spec::Environment { name, ..own }));
    }

    /// Takes a branch's environment in by its name, from which nobody sees the branch: its stacks say what it was made from.
    async fn stands(&mut self, name: &str) -> Result<(), Failure> {
        let mut own = None;
        for site in self.sites.values() {
            for found in site::found(site).await.map_err(broken)? {
                let Some(mark) = found.mark.filter(|mark| {
                    mark.platform == self.config.platform.as_str()
                        && self.sites.contains_key(&mark.foundation)
                        && mark.app.as_deref() == Some(self.app.app.as_str())
                        && mark.environment.as_deref() == Some(name)
                }) else {
                    continue;
                };
                let entry = |pattern: &&spec::Pattern| {
                    Some(pattern.environment.name.as_str()) == mark.preview.as_deref()
                };
                own = own.or_else(|| self.app.patterns.iter().find(entry));
                let stack = (mark.kind, found.stack.name, mark.foundation);
                // Foundations may be in one region.
                if !self.stacks.contains(&stack) {
                    self.stacks.push(stack);
                }
            }
        }
        if let (Some(pattern), Ok(parsed)) = (own, name.parse()) {
            let own = spec::Environment {
                name: parsed,
                ..pattern.environment.clone()
            };
            self.branches.push((name.to_owned(), own));
        }
        Ok(())
    }

    pub fn app(&self) -> &str {
        self.app.app.as_str()
    }

    /// Does CodeBuild fetch the source itself?
    pub fn has_repository(&self) -> bool {
        let own = self.config.apps.get(&self.app.app);
        own.is_some_and(|own| own.repository.is_some())
    }

    /// The environments that are asked for; all of them, when none is.
    pub fn spots(&self, names: &[String]) -> Result<Vec<Spot<'_>>, Failure> {
        if names.is_empty() {
            let all = self.app.environments.iter();
            return Ok(all.map(|spec| Spot { home: self, spec }).collect());
        }
        names.iter().map(|name| self.spot(name)).collect()
    }

    pub fn spot(&self, name: &str) -> Result<Spot<'_>, Failure> {
        let mut all = self.app.environments.iter();
        if let Some(spec) = all.find(|own| own.name.as_str() == name) {
            return Ok(Spot { home: self, spec });
        }
        if let Some((_, spec)) = self.branches.iter().find(|(word, _)| word == name) {
            return Ok(Spot { home: self, spec });
        }
        Err(self.no_environment(name))
    }

    fn no_environment(&self, name: &str) -> Failure {
        let mut patterns = self.app.patterns.iter();
        if let Some(pattern) = patterns.find(|own| own.environment.name.as_str() == name) {
            let branches = pattern.branches.join(" ");
            let what = format!("`{name}` is one environment for each branch ({branches})");
            return Failure::new(Exit::NotFound, what)
                .next("the same with the branch instead, such as feature/login; vend aws status shows which are there");
        }
        let known: Vec<&str> = self
            .app
            .environments
            .iter()
            .map(|own| own.name.as_str())
            .collect();
        let what = match spec::is_apart(name) {
            true => format!(
                "no stack of {} is of the branch's environment `{name}`",
                self.app()
            ),
            false => format!("{} has no environment `{name}`", self.app()),
        };
        Failure::new(Exit::NotFound, what).cause(format!("vend.yaml has {}", known.join(", ")))
    }

    /// How each of its environments is built, those of branches among them.
    pub fn builds(&self) -> impl Iterator<Item = &spec::Build> {
        let patterns = self.app.patterns.iter().map(|pattern| &pattern.environment);
        self.app.environments.iter().chain(patterns).map(|own| &own.build)
    }

    /// `vend/production/shop`, where it is built: secrets of builds and of its flows are below it.
    pub fn built(&self) -> String {
        format!("{}/{}/{}", self.platform(), self.pipeline().0, self.app())
    }

    /// A foundation's key.
    pub fn key(&self, foundation: &str) -> String {
        format!("alias/{}-{foundation}", self.platform())
    }

    fn site(&self, foundation: &str) -> &Site {
        let site = self.sites.get(foundation);
        site.expect("every stack stands on a foundation of the file")
    }

    /// The foundation where the app is built and its flows run.
    pub fn pipeline(&self) -> (&str, &Site) {
        let mut all = self.stacks.iter();
        let found = all.find(|(kind, ..)| *kind == Kind::Pipeline);
        let (.., label) = found.expect("every app has a pipeline");
        (label, self.site(label))
    }

    /// The environment that a branch has to itself, if it has one.
    pub fn preview(&self, branch: &str) -> Result<Option<spec::Environment>, Failure> {
        let clash = |clash: spec::Clash| Failure::usage(clash.to_string());
        let all = self.app.following(branch).map_err(clash)?;
        Ok(all.into_iter().find(|own| own.preview.is_some()))
    }

    /// The ARN of the machine that makes stacks of branches.
    pub async fn branches(&self) -> Result<String, Failure> {
        let (_, site) = self.pipeline();
        let name = format!("{}-branches", self.table());
        site.machine(&name).await.map_err(broken)
    }

    fn platform(&self) -> &str {
        self.config.platform.as_str()
    }

    /// The bucket of sources and revisions.
    pub async fn artifacts(&self) -> Result<String, Failure> {
        let (label, site) = self.pipeline();
        let account = &site.caller().await.map_err(broken)?.account;
        let region = site.client.region();
        Ok(format!(
            "{}-{label}-artifacts-{account}-{region}",
            self.platform()
        ))
    }

    /// The table of turns.
    pub fn table(&self) -> String {
        format!(
            "{}-pipeline-{}-{}",
            self.platform(),
            self.pipeline().0,
            self.app()
        )
    }
}

impl<'h> Spot<'h> {
    /// Who is asked about its releases.
    pub fn client(&self) -> &'h Client {
        &self.home.pipeline().1.client
    }

    pub fn name(&self) -> &'h str {
        self.spec.name.as_str()
    }

    pub fn home(&self) -> &'h Home {
        self.home
    }

    /// The ARN of the state machine that moves its releases.
    pub async fn flow(&self) -> Result<String, Failure> {
        let home = self.home;
        let (label, site) = home.pipeline();
        let name = format!("{}-flow-{label}-{}-{}", home.platform(), home.app(), self.name());
        site.machine(&name).await.map_err(broken)
    }

    pub fn targets(&self) -> Vec<Target<'h>> {
        let home = self.home;
        let name = |label: &str| format!("{}-{label}-{}-{}", home.platform(), home.app(), self.name());
        let all = home
            .stacks
            .iter()
            .filter(|(kind, own, label)| *kind == Kind::Environment && *own == name(label));
        all.map(|(_, stack, foundation)| Target {
            spot: *self,
            foundation,
            stack,
        })
        .collect()
    }

    pub fn runtime(&self) -> Runtime {
        let app = self.home.config.apps.get(&self.home.app.app);
        let own = app.and_then(|app| app.environments.get(self.spec.entry()));
        own.map(|own| own.runtime).unwrap_or_default()
    }

    /// What its database is, if it has one.
    pub fn engine(&self) -> Engine {
        let app = self.home.config.apps.get(&self.home.app.app);
        let own = app.and_then(|app| app.environments.get(&self.spec.name));
        let engine = own.and_then(|own| own.database.as_ref()?.engine);
        engine.unwrap_or(Engine::Mariadb)
    }
}

impl<'h> Target<'h> {
    pub fn client(&self) -> &'h Client {
        &self.spot.home.site(self.foundation).client
    }

    /// `vend/production/shop/staging`: its log group is called so.
    pub fn path(&self) -> String {
        self.below(self.spot.name())
    }

    /// The same for what lies below it; all environments of branches have the secrets of their entry.
    pub fn shelf(&self) -> String {
        self.below(self.spot.spec.entry().as_str())
    }

    fn below(&self, name: &str) -> String {
        let home = self.spot.home;
        format!("{}/{}/{}/{name}", home.platform(), self.foundation, home.app())
    }

    /// The foundation's key.
    pub fn key(&self) -> String {
        self.spot.home.key(self.foundation)
    }

    /// Its stack, which must be there.
    pub async fn stack(&self) -> Result<Stack, Failure> {
        let found = stack::one(self.client(), self.stack).await.map_err(broken)?;
        let missing = || {
            let what = format!("there is no stack {}", self.stack);
            Failure::new(Exit::NotFound, what).next(match self.spot.spec.preview {
                Some(_) => "vend aws push on its branch: it makes what a branch has".to_owned(),
                None => format!("vend aws apply --only {}", self.stack),
            })
        };
        found.ok_or_else(missing)
    }

    /// Its stack, which must stand still and be whole.
    pub async fn still(&self) -> Result<Stack, Failure> {
        let stack = self.stack().await?;
        if stack.status.is_usable() {
            return Ok(stack);
        }
        let next = match stack.status.0.as_str() {
            "UPDATE_ROLLBACK_FAILED" => format!("vend aws continue {}", self.stack),
            _ => "vend aws status".to_owned(),
        };
        let what = format!("{} is {}, and cannot be changed now", self.stack, stack.status.0);
        Err(Failure::failed(what).next(next))
    }
}
