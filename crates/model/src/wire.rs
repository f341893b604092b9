//! What goes over HTTP, as types: the requests and answers of `/v1`.
//!
//! The room exists so that server and clients cannot disagree. A type here is a promise to people outside: fields
//! are added, never renamed. It knows nothing of how the platform stores or does anything.

mod access;
mod alarms;
mod builders;
mod catalogue;
mod doors;
mod images;
mod moving;
mod names;
mod record;
mod release;
mod run;

pub use access::{
    CreatedToken, Health, NewSecret, NewToken, RoleHealth, SecretInfo, Session, Token, Version,
    WebhookSecret, Whoami,
};
pub use alarms::{Alarm, Alert, AlertList, AlertStatus, Alerts, AlertsTaken, Ignoring, NewAlarm};
pub use builders::{Builder, Building, NewBuilder};
pub use catalogue::{
    App, Environment, EnvironmentState, NewApp, NewTenant, Place, Preview, Scale, Split, Started, Tenant,
};
pub use doors::{Allowed, Closed, Closing};
pub use images::{
    Bases, ImageApp, ImageShown, Imported, ImportedStatement, NewRefresh, Refreshed, RefreshedBase,
};
pub use moving::{Arrived, Elsewhere, Forwarded, Loaded, Move, NewMove, Side};
pub use names::{Listener, Name};
pub use record::{Delivery, DeliveryDetail, DeliveryVerdict, PublicKey};
pub use release::{
    Analysis, Approval, ApprovalState, Decision, DeployedHost, Deployment, Migration, MigrationState,
    NewDecision, NewRollback, PlanAnswer, Push, PushState, Release, Traffic, Why, WhyEnvironment,
};
pub use run::{
    AccessLog, BuildRun, Drawing, EdgeStatus, EdgeTarget, Execution, ExecutionDetail, ExecutionState,
    HistoryEvent, Host, Image, Invitation, LogEntry, LogText, Machine, NewInvitation, Usage,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// One page of a list. Ask again with `cursor` set to `next` until there is no `next`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Why a request was not done, as `application/problem+json` (RFC 9457, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// What kind of problem, as a URN: `urn:vend:problem:not-found`.
    pub r#type: String,
    /// The kind in words; the same for every problem of the kind.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What went wrong this time, and why.
    pub detail: String,
    /// The next command to type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The id of the request, to find it in the log of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What is wrong with a file, line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}
