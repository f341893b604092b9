//! What the load balancer does, as one value: rules and target groups with ALB's meaning.
//!
//! A table is computed from the catalogue by a pure function. It goes to the edge whole or as the difference to the one
//! in force, and is applied or refused as one, so that no order of changes can leave half a route behind.

mod access;
mod authenticate;
mod check;
mod condition;
mod delta;
mod group;
mod own;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Place;

pub use crate::address::Network;
pub use access::{Access, NETWORKS};
pub use authenticate::{Authenticate, Unauthenticated};
pub use check::{Invalid, VALUES, VALUES_PER_RULE, WILDCARDS, is_cookie, regex};
pub use condition::{Conditions, HeaderCondition, Pair, Rewrite, folds, matches};
pub use delta::Delta;
pub use group::{
    Algorithm, Ejection, HealthCheck, HealthProtocol, Protocol, ProxyWord, Stickiness, Target, TargetGroup,
    TargetHealth, TargetState,
};
pub use own::{Listens, Own, Speaks};

/// Everything that the edge needs to serve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change; the edge refuses a table older than the one it has.
    pub version: u64,
    /// In priority order: the first rule whose conditions all hold decides.
    pub rules: Vec<Rule>,
    pub target_groups: BTreeMap<String, TargetGroup>,
}

/// One rule. No condition on a field means that any value will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique in the table; lower goes first.
    pub priority: u32,
    pub place: Place,
    /// Host names, lower case, without port; `*` stands for any characters and `?` for one, as in ALB.
    pub hosts: Vec<String>,
    /// Paths, case-sensitive; `*` and `?` as in ALB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// All other conditions.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// What is changed in a request before it is forwarded.
    #[serde(default, skip_serializing_if = "Transforms::is_empty")]
    pub transforms: Transforms,
    /// Who must have signed in before the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticate: Option<Box<Authenticate>>,
    /// Each must let a source in; else it gets 403, and bytes no answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    pub action: Action,
    /// What the load balancer has for this rule alone.
    #[serde(default, skip_serializing_if = "Own::is_empty")]
    pub own: Own,
}

/// Changes of a request before it is forwarded, as ALB's `transforms`: one of each kind at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Transforms {
    /// Of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Rewrite>,
    /// Of path and query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Rewrite>,
}

impl Transforms {
    pub fn is_empty(&self) -> bool {
        self.host.is_none() && self.url.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// To target groups by weight, 0 to 999. A group of weight 0 gets nothing.
    Forward {
        groups: Vec<Weighted>,
        /// How long a client stays with the group that it first got.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stickiness: Option<SignedDuration>,
    },
    FixedResponse {
        status: u16,
        content_type: String,
        body: String,
    },
    Redirect(Redirect),
}

/// Where a client is sent instead. `#{protocol}`, `#{host}`, `#{port}`, `#{path}` (without its first slash) and
/// `#{query}` stand for what the request had, and are what the parts are when nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(default)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308; ALB has the first two.
    pub status: u16,
    /// `HTTP`, `HTTPS` or `#{protocol}`.
    pub protocol: String,
    /// Its name.
    pub host: String,
    /// 1 to 65535, or `#{port}`.
    pub port: String,
    /// Starts with a slash.
    pub path: String,
    /// Without question mark.
    pub query: String,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            status: 302,
            protocol: "#{protocol}".into(),
            host: "#{host}".into(),
            port: "#{port}".into(),
            path: "/#{path}".into(),
            query: "#{query}".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighted {
    pub group: String,
    pub weight: u32,
}

#[cfg(test)]
mod tests;
