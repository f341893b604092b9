//! Domains and ports of apps, and since when each leads where.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Place;

/// A domain or a port that a release of an environment asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Name {
    /// A domain in lower case, or a port as `tcp-15432`.
    pub name: String,
    pub place: Place,
    /// Where it alone is to be had, beside the listeners that all share.
    pub listeners: Vec<Listener>,
    /// Since when it is the environment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Why it does not lead to the environment; whose it is instead is not told. Absent as `since` is: it has not been given
    /// to anybody yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A socket of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// `http`, `https`, `tcp` or `udp`.
    pub speaks: String,
}
