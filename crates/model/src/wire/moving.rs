use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Place;

/// Where the data of an environment is true that moves between this platform and AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Here,
    Away,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "here",
            Self::Away => "on AWS",
        })
    }
}

/// An environment's way to AWS and back. While it is there, nothing is released or rolled back here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Move {
    pub place: Place,
    /// The name of its load balancer on AWS.
    pub host: String,
    /// The release that was live here when it began.
    pub release: u64,
    /// Percent of the requests that are forwarded there.
    pub share: u32,
    /// Nobody is served: the data is on the way.
    pub closed: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_at: Option<Timestamp>,
    /// After this it is served where its data is, unless whoever carries it says before that it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_until: Option<Timestamp>,
    /// A load was begun here and has not arrived: its data is on AWS only.
    #[serde(default)]
    pub torn: bool,
    /// Where its data is true; absent: it has no database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Side>,
    /// Is it well there, as this platform's load balancer sees it? Absent: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Why it is not well there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Requests that were forwarded there, and those of them that failed, since the load balancer knows it.
    pub requests: u64,
    pub errors: u64,
    /// Since when nothing of it runs here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    pub began_by: String,
}

/// How much of an environment is served on AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Elsewhere {
    /// The name of its load balancer there.
    pub host: String,
    /// Percent of the requests that are forwarded there.
    pub share: u32,
    /// Nobody is served: the data is on the way.
    pub closed: bool,
    /// Nothing of it runs here any more.
    pub finished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMove {
    /// The name under which the environment answers on AWS, over HTTPS.
    pub host: String,
}

/// The data of an environment has arrived on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Arrived {
    /// What was counted of it on AWS: `3 tables, 120 rows, 0123456789abcdef`.
    pub counted: String,
    /// Where it has arrived.
    #[serde(default = "away")]
    pub side: Side,
    /// Since when nobody is served, as it was told to whoever dumped it. Refused when somebody was served since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_at: Option<Timestamp>,
}

fn away() -> Side {
    Side::Away
}

/// What was counted of data that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Loaded {
    /// `3 tables, 120 rows, 0123456789abcdef`.
    pub counted: String,
}

/// How the requests of an environment that moves are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forwarded {
    /// Percent of the requests that are forwarded to AWS.
    pub share: u32,
    /// Answer all of them with 503 instead.
    #[serde(default)]
    pub closed: bool,
    /// With `closed`: for so many seconds at most, if it is not said again. Then all is served where the data is. 60 to 86400;
    /// without it 18000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_s: Option<u32>,
}
