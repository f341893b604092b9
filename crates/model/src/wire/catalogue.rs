use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Allowed, Closed, Elsewhere};
use crate::{AppName, EnvironmentName, ExecutionId, TenantName};

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    #[schema(value_type = String)]
    pub name: TenantName,
    /// All that it has is closed for visitors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// Who may ask for anything that it has; absent: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Allowed>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// 1 to 40 lower-case letters, digits and single hyphens, starting with a letter.
    #[schema(value_type = String)]
    pub name: TenantName,
}

/// One repository's software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub name: AppName,
    /// The built-in repository: where to push to and to clone from.
    pub git_url: String,
    /// The repository elsewhere that this app is built from; none for the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Where the git host sends its webhooks, one URL a provider.
    pub hooks: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    #[schema(value_type = String)]
    pub name: AppName,
    /// `https://…` of a repository elsewhere; none for a repository on this platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

/// One environment of one app of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Place {
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub app: AppName,
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
}

impl From<crate::Place> for Place {
    fn from(place: crate::Place) -> Self {
        Self {
            tenant: place.tenant,
            app: place.app,
            environment: place.environment,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.app, self.environment)
    }
}

/// A named stage of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    pub place: Place,
    pub branch: String,
    pub state: EnvironmentState,
    /// Destruction is refused until it is unprotected.
    pub protected: bool,
    /// The release that gets the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// How the traffic is divided, while a release comes in place or by steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Hosts that it should have.
    pub hosts: u32,
    /// Since when it has none, because nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub asleep_since: Option<Timestamp>,
    /// How it comes and goes with its branch; absent: `vend.yaml` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// It is being moved to AWS, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Its visitors get a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// Names under which it is reached, as URLs.
    pub urls: Vec<String>,
    /// What runs for it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub execution: Option<ExecutionId>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// An environment that comes and goes with its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    /// The name in `vend.yaml` of what it was made from; it has the secrets that are set for that.
    #[schema(value_type = String)]
    pub of: EnvironmentName,
    /// It goes then, unless somebody pushes to it. A protected one stays.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Why it is being taken down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
}

/// Two releases get the traffic: this one, and the live one what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Split {
    pub release: u64,
    /// Of the traffic.
    pub percent: u32,
    /// Of canary and linear: which step it is, from 1, of how many before all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// What the last analysis said: `as-good`, `worse`, `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Who holds the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnvironmentState {
    /// No release is live yet.
    Empty,
    /// A release is live.
    Live,
    /// A release is live, and has no hosts until somebody asks for it.
    Sleeping,
    /// It is being removed.
    Destroying,
}

/// How many hosts an environment shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    pub hosts: u32,
}

/// Work was started; the executions say how it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    #[schema(value_type = Vec<String>)]
    pub executions: Vec<ExecutionId>,
    /// What was started, in one sentence.
    pub summary: String,
}
