//! A foundation: what all environments of one kind share. Network, key, stores, trail, load balancer, roles.
//!
//! What other stacks need of it is exported, so that CloudFormation itself refuses to take it away under them.

mod audit;
mod balancer;
mod boundary;
mod bucket;
mod egress;
mod key;
mod network;
mod notice;
mod outpost;
mod roles;
mod stacks;

use serde_json::{Value, json};

pub(super) use balancer::{
    TLS, attributes, balancers, protection, redirect, to_providers, unknown, unprotected,
};
pub(super) use egress::closed;

use super::{
    Error, Kind, Stack,
    config::{Config, Foundation},
    template::{Resource, Template, att, re},
    word::{Account, Label},
};

/// What every part of a foundation needs to know.
struct Scope<'c> {
    platform: &'c str,
    label: &'c Label,
    options: &'c Foundation,
    /// Accounts that deploy what was built here.
    targets: Vec<&'c Account>,
    /// The account whose pipelines deploy here, when it is another.
    source: Option<&'c Account>,
}

impl Scope<'_> {
    /// `vend-production`
    fn name(&self) -> String {
        format!("{}-{}", self.platform, self.label)
    }

    /// A log group of the platform, under its key and for its time.
    fn log_group(&self, id: &str, about: &str, path: &str) -> Resource {
        let properties = json!({
            "LogGroupName": format!("/{}/{}/{path}", self.platform, self.label),
            "KmsKeyId": att("Key.Arn"),
            "RetentionInDays": days(self.options.retention.logs),
        });
        Resource::new(id, "AWS::Logs::LogGroup", about, properties)
    }
}

/// The stack of one foundation.
pub fn foundation(config: &Config, label: &Label) -> Result<Stack, Error> {
    config.check()?;
    let options = config.foundation(label)?;
    let from_here = |other: &&Foundation| other.deploys_from.as_ref() == Some(label);
    let mut targets: Vec<&Account> = config
        .foundations
        .values()
        .filter(from_here)
        .filter_map(|other| other.account.as_ref())
        .collect();
    targets.retain(|account| Some(*account) != options.account.as_ref());
    targets.sort();
    targets.dedup();
    let source = options
        .deploys_from
        .as_ref()
        .and_then(|from| config.foundations.get(from)?.account.as_ref());
    let source = source.filter(|account| Some(*account) != options.account.as_ref());
    let scope = Scope {
        platform: config.platform.as_str(),
        label,
        options,
        targets,
        source,
    };
    let mut template = Template::new(format!(
        "{} on AWS: what the environments of kind {label} in {} share",
        scope.platform, options.region
    ));
    key::add(&mut template, &scope);
    network::add(&mut template, &scope)?;
    egress::add(&mut template, &scope)?;
    outpost::add(&mut template, &scope)?;
    bucket::add(&mut template, &scope);
    notice::add(&mut template, &scope);
    boundary::add(&mut template, &scope);
    audit::add(&mut template, &scope);
    balancer::add(&mut template, &scope);
    roles::add(&mut template, &scope);
    stacks::add(&mut template, &scope);
    let name = scope.name();
    let stack = Stack::new(Kind::Foundation, name, (label, options), template, Vec::new())?;
    Ok(Stack {
        refused: config.refusal(label),
        ..stack
    })
}

/// CloudWatch keeps logs for certain numbers of days only: the next one that is not less, and ten years at most.
pub(super) fn days(wanted: u32) -> u32 {
    const STEPS: [u32; 22] = [
        1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288,
        3653,
    ];
    STEPS.into_iter().find(|step| *step >= wanted).unwrap_or(3653)
}

/// `Name`, as the consoles show it.
fn named(name: &str) -> Value {
    json!([{ "Key": "Name", "Value": { "Fn::Sub": format!("${{AWS::StackName}}-{name}") } }])
}

fn topic() -> Value {
    re("OperationsTopic")
}
