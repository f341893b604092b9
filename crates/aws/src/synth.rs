//! From plans to what AWS reads: CloudFormation templates, Packer's, and state machines.
//!
//! Pure: the same input gives the same bytes; nothing is read, called or timed. The room knows the model of `vend.yaml`
//! and what an operator decides ([`Config`]); it must not know a client of AWS, because a template has to be right before
//! there is an account. Ids in templates come from what a resource is for, never from its place in a list, so that a change
//! in one corner replaces nothing in another.

mod cidr;
mod config;
mod environment;
mod foundation;
mod packer;
mod pipeline;
mod place;
mod policy;
mod priority;
mod size;
mod template;
mod value;
mod whole;
mod word;
mod yaml;

use model::{AppName, EnvironmentName, spec};

pub use cidr::{Cidr, Onsite};
pub use config::{
    Access, Alarms, App, Config, Custom, Database, Endpoint, Engine, Environment, Forge, Foundation, Mails,
    Nat, Network, Repository, Retention, Runtime, Scaling, Schedule, Slack, Test, Zones,
};
pub use environment::environment;
pub use foundation::foundation;
pub use packer::{alone, packer};
pub use pipeline::{flow, machine, pipeline};
pub use place::{Outpost, Placement, Volume};
pub use priority::Priorities;
#[cfg(test)]
pub(crate) use size::BUILT_IN;
pub use size::{Architecture, Size};
pub(crate) use template::logical;
pub use template::{
    GUARD, MAX_BYTES, MAX_INLINE_BYTES, MAX_OUTPUTS, MAX_PARAMETERS, MAX_RESOURCES, Resource, Template,
};
pub use whole::{Asking, File, Output, Refused, all, all_with, has_new_rule, most_with};
pub use word::{Account, Arn, ChatId, Domain, Label, Mail, NotA, Prefix, Region, Zone};

/// Why there is no template. Display says where the cause stands in the operator's file or in `vend.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{at}: {why}")]
    Config { at: String, why: String },
    #[error("the stack `{stack}` would have {count} {what}; CloudFormation takes {most}")]
    TooLarge {
        stack: String,
        what: &'static str,
        count: usize,
        most: usize,
    },
    #[error("the stack `{stack}` would have two resources `{id}`")]
    Twice { stack: String, id: String },
    #[error(
        "a text of `{id}` in the stack `{stack}` holds `{{{{resolve:`, and CloudFormation would put a secret there for \
         everybody to read: write `{{{{secret:NAME}}}}` in vend.yaml"
    )]
    Reference { stack: String, id: String },
}

impl Error {
    fn config(at: impl Into<String>, why: String) -> Self {
        Self::Config { at: at.into(), why }
    }
}

/// What a stack holds. In this order they are made, and in the reverse order they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Foundation,
    Pipeline,
    Environment,
    Flow,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Foundation, Self::Pipeline, Self::Environment, Self::Flow];

    pub fn word(self) -> &'static str {
        match self {
            Self::Foundation => "foundation",
            Self::Pipeline => "pipeline",
            Self::Environment => "environment",
            Self::Flow => "flow",
        }
    }
}

/// The tag of stacks of an app.
const APP: &str = "vend:app";
/// The tag of stacks that come and go with a branch: the entry of `vend.yaml` that they were made from.
const PREVIEW: &str = "vend:preview";

/// One stack: what CloudFormation is given, and what a person should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Its name on AWS, and the name of its file.
    pub name: String,
    pub kind: Kind,
    /// The foundation on which it stands, or which it is.
    pub foundation: Label,
    /// The app whose it is, and the environment; a foundation is nobody's.
    pub app: Option<AppName>,
    pub environment: Option<EnvironmentName>,
    /// The entry of `vend.yaml` that it was made from, where it comes and goes with a branch.
    pub preview: Option<EnvironmentName>,
    pub region: Region,
    /// Whose it is, by key: CloudFormation hands them on to all that it makes. They never change as long as the stack is the
    /// same, because each change of one would change every resource.
    pub tags: Vec<(&'static str, String)>,
    pub template: Template,
    /// What `vend.yaml` says and AWS does otherwise, in sentences.
    pub notes: Vec<String>,
    /// Why none of this name is made where none stands. One that stands is changed and goes as any other does: its name came
    /// before the rule.
    pub refused: Option<String>,
}

impl Stack {
    /// A stack on a foundation. Refuses what CloudFormation would refuse for its number or size.
    fn new(
        kind: Kind,
        name: String,
        (label, foundation): (&Label, &Foundation),
        template: Template,
        notes: Vec<String>,
    ) -> Result<Self, Error> {
        template.check(&name)?;
        Ok(Self {
            name,
            kind,
            foundation: label.clone(),
            app: None,
            environment: None,
            preview: None,
            region: foundation.region.clone(),
            tags: Vec::new(),
            template,
            notes,
            refused: None,
        })
    }

    /// Says whose it is to whoever looks at what it holds.
    fn tagged(mut self, config: &Config) -> Self {
        let text = |own: &dyn std::fmt::Display| Some(own.to_string());
        let own = self.app.as_ref().and_then(|app| config.apps.get(app));
        let tenant = own.and_then(|own| own.tenant.as_ref());
        let all = [
            ("vend:platform", text(&config.platform)),
            ("vend:foundation", text(&self.foundation)),
            ("vend:kind", text(&self.kind.word())),
            ("vend:tenant", tenant.map(ToString::to_string)),
            (APP, self.app.as_ref().map(ToString::to_string)),
            (
                "vend:environment",
                self.environment.as_ref().map(ToString::to_string),
            ),
            (PREVIEW, self.preview.as_ref().map(ToString::to_string)),
        ];
        self.tags = all
            .into_iter()
            .filter_map(|(key, own)| Some((key, own?)))
            .collect();
        self
    }

    /// Says whose it is.
    fn of(mut self, app: &AppName, environment: Option<&spec::Environment>) -> Self {
        self.app = Some(app.clone());
        self.environment = environment.map(|own| own.name.clone());
        let preview = environment.and_then(|own| own.preview.as_ref());
        self.preview = preview.map(|own| own.of.clone());
        self
    }
}
