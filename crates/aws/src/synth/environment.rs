//! One environment of an app: hosts or containers in two halves, their database, names, alarms and deployments.
//!
//! Blue and green are both in the template, and which of them runs, with which image and how much of the traffic, are
//! parameters of the stack. A release changes parameters, so the stack never drifts from its template, and the way back is
//! to set them as they were. (CodeDeploy's own blue-green deletes the Auto Scaling group that CloudFormation made.)

mod access;
mod alarm;
mod boot;
mod carrier;
mod container;
mod database;
mod deploy;
mod gap;
mod hosts;
mod names;
mod password;
mod ports;
mod scaling;
mod traffic;

use model::{
    AppName,
    spec::{self, Strategy},
};
use serde_json::{Value, json};

pub(super) use ports::doors;

use super::{
    Error, Kind, Priorities, Stack,
    config::{self, Config, Engine, Foundation, Runtime},
    pipeline,
    place::{self, Outpost},
    size,
    template::{Resource, Template, att, import, logical, re},
    word::{Account, Label},
};

/// CodeDeploy names applications, and we name them after stacks, with at most 100 characters.
const MAX_NAME: usize = 90;

/// Below it lie the secrets of builds, beside those of environments.
const BUILD: &str = "build";

/// A half of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Blue,
    Green,
}

impl Half {
    fn word(self) -> &'static str {
        match self {
            Self::Blue => "Blue",
            Self::Green => "Green",
        }
    }

    /// `BlueGroup`
    fn id(self, what: &str) -> String {
        format!("{}{what}", self.word())
    }
}

/// What every part of an environment needs to know.
struct Scope<'c> {
    config: &'c Config,
    app: &'c AppName,
    spec: &'c spec::Environment,
    options: &'c config::Environment,
    deploy: spec::Deploy,
    label: &'c Label,
    foundation: &'c Foundation,
    engine: Option<Engine>,
    name: String,
}

impl Scope<'_> {
    fn platform(&self) -> &str {
        self.config.platform.as_str()
    }

    /// Something of the foundation.
    fn shared(&self, id: &str) -> Value {
        import(&format!("{}-{}", self.config.platform, self.label), id)
    }

    fn subnets(&self, tier: &str) -> Value {
        let place = &self.options.placement;
        let tier = match (&place.local_zone, &place.wavelength, self.outpost()) {
            (Some(zone), ..) => logical(&[zone, tier]),
            // Only hosts stand there; what they keep stands in the region.
            (_, Some(zone), _) if tier == "Private" => logical(&[zone, "Carrier"]),
            // What the building reaches stands beside what it serves: one subnet leads to the local gateway.
            (.., Some(own)) if tier != "Isolated" => format!("{}Private", own.id()),
            (.., Some(own)) => format!("{}{tier}", own.id()),
            _ => {
                let letters = self.foundation.network.zones.letters().iter();
                return letters
                    .map(|letter| self.shared(&format!("{tier}Subnet{letter}")))
                    .collect();
            }
        };
        json!({ "Fn::Split": [",", self.shared(&format!("{tier}Subnets"))] })
    }

    /// The Outpost on which it stands.
    fn outpost(&self) -> Option<&'_ Outpost> {
        let arn = self.options.placement.outpost.as_ref()?;
        self.foundation.network.outpost(arn)
    }

    /// What disks are: Local Zones do not all have the newer kind, and Wavelength Zones only the older.
    fn volume(&self) -> &'static str {
        let place = &self.options.placement;
        match (&place.local_zone, &place.wavelength, self.outpost()) {
            (None, None, None) => "gp3",
            (.., Some(own)) => own.volume.word(),
            _ => "gp2",
        }
    }

    /// An environment that is changed in place has one half.
    fn halves(&self) -> &'static [Half] {
        match self.deploy.strategy {
            Strategy::InPlace => &[Half::Blue],
            _ => &[Half::Blue, Half::Green],
        }
    }

    fn is_container(&self) -> bool {
        self.options.runtime != Runtime::Host
    }

    /// Is it one of those whose data is dear?
    fn is_production(&self) -> bool {
        let named = self.label.as_str() == "production" || self.spec.name.as_str() == "production";
        named && self.spec.preview.is_none()
    }

    /// `app/environment`, as part of names and paths.
    fn path(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.platform(),
            self.label,
            self.app,
            self.spec.name
        )
    }

    /// Where its secrets lie: those of all branches at the entry's, set before any of them is there.
    fn secrets(&self) -> String {
        let entry = self.spec.entry();
        format!("{}/{}/{}/{entry}", self.platform(), self.label, self.app)
    }

    fn at(&self, key: &str) -> String {
        format!("apps.{}.environments.{}.{key}", self.app, self.spec.name)
    }

    /// Seconds for requests under way: as `aws.toml` says, else as `vend.yaml` does.
    fn drain(&self) -> u32 {
        let own = u32::try_from(self.deploy.drain.as_secs()).unwrap_or(0);
        self.options.scaling.drain.unwrap_or(own).min(3_600)
    }

    /// Seconds from the start of the app until it must be well.
    fn within(&self) -> i64 {
        self.spec.host.health.within.as_secs().max(1)
    }

    /// The account that builds, when it is another.
    fn source(&self) -> Option<&Account> {
        let from = self.foundation.deploys_from.as_ref()?;
        let account = self.config.foundations.get(from)?.account.as_ref();
        account.filter(|account| Some(*account) != self.foundation.account.as_ref())
    }

    /// What its target groups are called after their half. One load balancer at most has a target group, and the rule that is
    /// replaced stands until all else is done: an environment that gets a load balancer of its own, or gives it back, has others.
    fn targets(&self) -> &'static str {
        match self.options.dedicated_balancer {
            true => "OwnTargets",
            false => "Targets",
        }
    }

    fn security_group(&self) -> Value {
        match self.options.dedicated_balancer {
            true => att("BalancerGroup.GroupId"),
            false => self.shared("BalancerGroup"),
        }
    }

    /// The load balancer as metrics name it.
    fn balancer(&self) -> Value {
        match self.options.dedicated_balancer {
            true => att("Balancer.LoadBalancerFullName"),
            false => self.shared("BalancerName"),
        }
    }
}

/// The stack of one environment in one foundation.
pub fn environment(
    config: &Config,
    app: &AppName,
    spec: &spec::Environment,
    label: &Label,
    priorities: &mut Priorities,
) -> Result<Stack, Error> {
    let foundation = config.foundation(label)?;
    let default = config::Environment::default();
    let options = config
        .apps
        .get(app)
        .and_then(|app| app.environments.get(spec.entry()))
        .unwrap_or(&default);
    let engine = spec.database.as_ref().map(|_| database::engine(options));
    let name = stack_name(config, label, app, spec);
    let scope = Scope {
        config,
        app,
        spec,
        options,
        deploy: options.deploy(spec),
        label,
        foundation,
        engine,
        name,
    };
    check(&scope)?;
    let mut template = Template::new(format!(
        "{app}, {}: on the foundation {label} of {}",
        spec.name,
        scope.platform()
    ));
    let mut notes = gap::notes(&scope);
    parameters(&mut template, &scope);
    access::add(&mut template, &scope);
    match scope.wave() {
        Some(_) => carrier::add(&mut template, &scope, &mut notes),
        None => traffic::add(&mut template, &scope, &mut notes),
    }
    names::add(&mut template, &scope, priorities)?;
    ports::add(&mut template, &scope);
    database::add(&mut template, &scope)?;
    match scope.is_container() {
        true => container::add(&mut template, &scope)?,
        false => {
            hosts::add(&mut template, &scope)?;
            deploy::add(&mut template, &scope);
        }
    }
    alarm::add(&mut template, &scope);
    if spec.preview.is_some() {
        // All of it goes with its branch.
        template.resources.iter_mut().for_each(Resource::loosen);
    }
    let name = scope.name.clone();
    let mut stack = Stack::new(Kind::Environment, name, (label, foundation), template, notes)?;
    stack.refused = refusal(config, app, spec, label).map(str::to_owned);
    Ok(stack.of(app, Some(spec)))
}

/// Why a new environment may not be called so there.
fn refusal(config: &Config, app: &AppName, spec: &spec::Environment, label: &Label) -> Option<&'static str> {
    if spec.entry().as_str() == BUILD {
        return Some("the app's builds read what lies below this name: call the environment otherwise");
    }
    let is_home = pipeline::home(config, app).is_ok_and(|home| home == label);
    (is_home && pipeline::LOGS.contains(&spec.name.as_str()))
        .then_some("the app's pipeline has a log group of this name there: call the environment otherwise")
}

/// `vend-production-shop-production`
pub(super) fn stack_name(config: &Config, label: &Label, app: &AppName, spec: &spec::Environment) -> String {
    format!("{}-{label}-{app}-{}", config.platform, spec.name)
}

fn check(scope: &Scope<'_>) -> Result<(), Error> {
    let options = scope.options;
    if scope.name.len() > MAX_NAME {
        let why = format!(
            "the stack's name `{}` is longer than {MAX_NAME} characters",
            scope.name
        );
        return Err(Error::config(format!("apps.{}", scope.app), why));
    }
    let (types, architecture) = size::types(&scope.spec.host.size, &scope.config.sizes)?;
    let wanted = place::Wanted {
        options,
        spec: scope.spec,
        engine: scope.engine,
        types: &types,
        architecture,
    };
    let at = scope.at("");
    options
        .placement
        .check(at.trim_end_matches('.'), &wanted, &scope.foundation.network)?;
    if options.scaling.spot.is_some() && options.scaling.warm.is_some() {
        let why = "a warm pool holds hosts of one kind; the Spot market wants several".to_owned();
        return Err(Error::config(scope.at("scaling.warm"), why));
    }
    if scope.halves().len() == 1 && options.scaling.warm.is_some() {
        let why = "a warm host has the image of its time, and in place nothing replaces it when a release brings another: say another \
                   strategy"
            .to_owned();
        return Err(Error::config(scope.at("scaling.warm"), why));
    }
    if scope.is_container() && options.scaling.warm.is_some() {
        return Err(Error::config(
            scope.at("scaling.warm"),
            "only hosts have a warm pool".to_owned(),
        ));
    }
    if options.runtime == Runtime::Ec2 && options.scaling.spot.is_some() {
        return Err(Error::config(
            scope.at("scaling.spot"),
            "the hosts below containers are not bought on the Spot market: say `runtime = \"fargate\"`"
                .to_owned(),
        ));
    }
    if scope.is_container() && options.scaling.step.is_some() {
        return Err(Error::config(
            scope.at("scaling.step"),
            "steps are for hosts; containers follow `cpu` or `requests`".to_owned(),
        ));
    }
    place::registered(&scope.at("placement"), scope.spec)?;
    if let Some((key, why)) = traffic::refused(scope.spec) {
        return Err(Error::config(scope.at(key), why.to_owned()));
    }
    gap::refuse(scope)
}

/// What a release changes.
fn parameters(template: &mut Template, scope: &Scope<'_>) {
    for half in scope.halves() {
        let word = half.word().to_lowercase();
        let image = json!({
            "Type": "String",
            "Default": "",
            "Description": format!("The image of the {word} half; empty before the first release"),
        });
        template.parameter(half.id("Image"), image);
        let runs = json!({
            "Type": "String",
            "Default": "no",
            "AllowedValues": ["yes", "no"],
            "Description": format!("Has the {word} half any hosts?"),
        });
        template.parameter(half.id("Runs"), runs);
        template.condition(
            half.id("IsRunning"),
            json!({ "Fn::Equals": [re(half.id("Runs")), "yes"] }),
        );
        if scope.halves().len() > 1 {
            let weight = json!({
                "Type": "Number",
                "Default": if *half == Half::Blue { 100 } else { 0 },
                "MinValue": 0,
                "MaxValue": 100,
                "Description": format!("Percent of the traffic that the {word} half gets"),
            });
            template.parameter(half.id("Weight"), weight);
            if !scope.is_container() && scope.wave().is_none() {
                template.condition(
                    half.id("IsServing"),
                    json!({ "Fn::Not": [{ "Fn::Equals": [re(half.id("Weight")), "0"] }] }),
                );
            }
        }
    }
}
