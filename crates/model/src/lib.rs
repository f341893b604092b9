//! Our nouns and rules, as plain values.
//!
//! The room exists so that every decision of the platform can be read, tested and argued about without a
//! machine under it. It knows nothing of tokio, SQL, files or clocks: time and randomness arrive as values.

pub mod address;
pub mod alarm;
pub mod digest;
pub mod id;
pub mod ledger;
pub mod plan;
pub mod policy;
pub mod port;
pub mod problem;
pub mod release;
pub mod route;
pub mod secret;
pub mod spec;
pub mod stage;
pub mod webhook;
pub mod wire;

pub use alarm::AlarmName;
pub use digest::Digest;
pub use id::{
    AppName, ApprovalId, DeliveryId, DeploymentId, EnvironmentName, ExecutionId, HostId, Name, Place,
    TenantName, Ticket,
};
pub use problem::Problem;
pub use secret::Secret;
