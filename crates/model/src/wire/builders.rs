use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Place;
use crate::{HostId, TenantName};

/// A machine that builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Builder {
    /// Absent: it is the platform's own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<HostId>,
    /// What it calls itself.
    pub name: String,
    /// From its invitation, or of the platform's own; `arch` and `os` are what it is.
    pub labels: BTreeMap<String, String>,
    /// Whose builds it gets; of all tenants when empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub tenants: BTreeSet<TenantName>,
    /// `connected`, `away`, or `leaving`.
    pub state: String,
    /// What it has to do now, oldest first; some of it may wait for its turn there.
    #[serde(default)]
    pub builds: Vec<Building>,
    /// Where it is or was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub joined_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen_at: Option<Timestamp>,
}

/// A build that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Building {
    pub place: Place,
    /// From 1 in its app.
    pub number: u64,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
}

/// Let one builder in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBuilder {
    /// What it is beside its `arch` and `os`: builds ask for these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose builds it gets; of all tenants when empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub tenants: BTreeSet<TenantName>,
    /// Seconds until nobody is let in with it any more; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}
