//! The pipeline of an app: where its source becomes a revision and an image, and what hears of a push.
//!
//! One stack for the app, and one for each environment's flow, so that an app with many environments stays below
//! CloudFormation's limits and a new environment changes nothing of the others.

mod bake;
mod branch;
mod flow;
mod machine;
mod notice;
mod projects;
mod receiver;

use model::{AppName, spec};
use serde_json::{Value, json};

pub(super) use branch::run_by;
pub use flow::flow;
pub(super) use flow::flow_name;
pub(super) use machine::LEAD_S;
pub use machine::machine;

use super::{
    Error, Kind, Stack,
    config::{self, Config, Foundation, Nat, Runtime},
    template::{Template, import, sub},
    word::Label,
};

/// What log groups of a pipeline are called, beside those of its app's environments.
pub(super) const LOGS: [&str; 6] = ["api", "bake", "branches", "build", "pack", "tests"];

/// What every part of a pipeline needs to know.
struct Scope<'c> {
    config: &'c Config,
    app: &'c spec::App,
    options: &'c config::App,
    label: &'c Label,
    foundation: &'c Foundation,
}

impl Scope<'_> {
    fn platform(&self) -> &str {
        self.config.platform.as_str()
    }

    /// `vend-pipeline-tools-shop`: what projects, the table and the receiver are called after.
    fn name(&self) -> String {
        format!("{}-pipeline-{}-{}", self.platform(), self.label, self.app.app)
    }

    fn shared(&self, id: &str) -> Value {
        import(&format!("{}-{}", self.platform(), self.label), id)
    }

    /// The bucket of artifacts, by its name.
    fn bucket(&self) -> Value {
        sub(format!(
            "{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}",
            self.platform(),
            self.label
        ))
    }

    /// Something in the bucket of artifacts.
    fn objects(&self, path: &str) -> Value {
        let bucket = format!(
            "{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}",
            self.platform(),
            self.label
        );
        sub(format!("arn:${{AWS::Partition}}:s3:::{bucket}/{path}"))
    }

    /// The repository of images, by its name.
    fn repository(&self) -> String {
        format!("{}/{}", self.platform(), self.app.app)
    }

    fn runtime(&self, environment: &spec::Environment) -> Runtime {
        self.options
            .environments
            .get(environment.entry())
            .map_or(Runtime::Host, |options| options.runtime)
    }

    /// One of the pipeline's stacks.
    fn stack(&self, kind: Kind, name: String, template: Template) -> Result<Stack, Error> {
        Stack::new(kind, name, (self.label, self.foundation), template, Vec::new())
    }

    fn has_containers(&self) -> bool {
        self.runtimes().any(|own| own != Runtime::Host)
    }

    fn has_hosts(&self) -> bool {
        self.runtimes().any(|own| own == Runtime::Host)
    }

    fn runtimes(&self) -> impl Iterator<Item = Runtime> {
        let patterns = self.app.patterns.iter().map(|pattern| &pattern.environment);
        let all = self.app.environments.iter().chain(patterns);
        all.map(|environment| self.runtime(environment))
    }
}

/// Where the app's pipeline lives.
pub(super) fn home<'c>(config: &'c Config, app: &AppName) -> Result<&'c Label, Error> {
    let at = || format!("apps.{app}.pipeline");
    if let Some(label) = config.apps.get(app).and_then(|app| app.pipeline.as_ref()) {
        let (label, _) = config
            .foundations
            .get_key_value(label)
            .ok_or_else(|| Error::config(at(), format!("there is no foundation `{label}`")))?;
        return Ok(label);
    }
    let mut all = config.foundations.keys();
    match (all.next(), all.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let others: Vec<&str> = config.apps.keys().map(AppName::as_str).collect();
            let others = match others.is_empty() || config.apps.contains_key(app) {
                true => String::new(),
                false => format!("; it has only apps.{}", others.join(", apps.")),
            };
            let why = format!(
                "there are several foundations: say in which it is built, with `[apps.{app}] pipeline = \"…\"` in aws.toml{others}"
            );
            Err(Error::config(at(), why))
        }
    }
}

fn scope<'c>(config: &'c Config, app: &'c spec::App, default: &'c config::App) -> Result<Scope<'c>, Error> {
    let label = home(config, &app.app)?;
    let options = config.apps.get(&app.app).unwrap_or(default);
    Ok(Scope {
        config,
        app,
        options,
        label,
        foundation: config.foundation(label)?,
    })
}

/// The stack of an app's pipeline.
pub fn pipeline(config: &Config, app: &spec::App) -> Result<Stack, Error> {
    let default = config::App::default();
    let scope = scope(config, app, &default)?;
    let mut template = Template::new(format!("{}: from a push to a revision and an image", app.app));
    projects::add(&mut template, &scope)?;
    receiver::add(&mut template, &scope)?;
    branch::add(&mut template, &scope)?;
    let name = scope.name();
    // Names of CodeBuild's projects and of functions are the stack's, and what they are for.
    if name.len() > 54 {
        let why = format!(
            "the pipeline's name `{name}` is longer than 54 characters, and a function's name is 64 at most"
        );
        return Err(Error::config(format!("apps.{}", app.app), why));
    }
    let mut stack = scope.stack(Kind::Pipeline, name, template)?;
    stack.refused = unbaked(&scope).map(str::to_owned);
    Ok(stack.of(&app.app, None))
}

/// Why no image of hosts can be baked where the pipeline is, if hosts are wanted.
fn unbaked(scope: &Scope<'_>) -> Option<&'static str> {
    let region = scope.foundation.region.as_str();
    // Source: `IsRestricted` of Packer's plugin for AWS.
    let is_untagged = ["cn-", "us-gov-"].iter().any(|start| region.starts_with(start));
    match scope.has_hosts() {
        true if is_untagged => Some(
            "images of hosts cannot be baked here: in this region Packer tags nothing while it makes it, and what a bake may change is \
             known by its tags: let environments have `runtime = \"fargate\"`",
        ),
        true if scope.foundation.network.nat == Nat::None => Some(
            "images of hosts are baked on a host here, which fetches packages from the internet, and there is no NAT: say `pipeline` with \
             a foundation that has one",
        ),
        _ => None,
    }
}

/// The log group of something of a pipeline.
fn log_group(scope: &Scope<'_>, path: &str) -> Value {
    json!({
        "LogGroupName": path,
        "KmsKeyId": scope.shared("KeyArn"),
        "RetentionInDays": super::foundation::days(scope.foundation.retention.logs),
    })
}
