//! The effects that the platform needs, as traits, with the plain data that goes in and comes out.
//!
//! Rules of every port: few methods; a ticket per attempt, and a repeated ticket returns the first answer; an order
//! holds all that is needed, so that the other side needs no memory but its own. Each port has one contract suite
//! that every adapter passes.

mod bake;
mod build;
mod deploy;
mod flow;
mod hosts;
mod images;
mod objects;
mod upkeep;
mod work;

pub use bake::{BakeOrder, Baked, Bakery, Commit, Layer};
pub use build::{
    BuildLimits, BuildOrder, Builder, Built, Coverage, GIT_CREDENTIALS, PhaseReport, PhaseStatus, Share,
    Slower, TestChanges, TestReport,
};
pub use deploy::{
    CheckOrder, CheckResult, Death, DeployOrder, Deployed, Deployer, EventReport, EventStatus,
    LifecycleEvent, ScriptCode, ScriptFailure, Verdict,
};
pub use flow::{Flow, FlowOrder, FlowState, FlowTask};
pub use hosts::{
    COUNT, DatabaseEngine, DatabaseOrder, DatabaseUp, Databases, HostOrder, HostRole, HostSeen, HostState,
    HostUp, Hosts, Network, Resources,
};
pub use images::{
    BaseOrder, BaseSeen, BasesSeen, FileChange, ImageAbout, ImageCheck, ImageDiff, ImageUsage, PackageChange,
    ScriptAbout, Shelf,
};
pub use objects::{LogChunk, LogRef, Logs, Objects};
pub use upkeep::{Keep, Swept, Upkeep};
pub use work::Work;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whose fault a failure is, and so what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// What the customer brought does not work: a failing test, script or check. Doing it again does not help.
    Customer,
    /// The order itself is wrong or not allowed. Doing it again does not help.
    Order,
    /// The platform or its machine failed. Doing it again may help.
    Platform,
}

/// A failure that reaches a person: what failed and why, what to do next, and where the evidence is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub blame: Blame,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<LogRef>,
}

impl Fault {
    pub fn customer(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Customer,
            message: message.into(),
            next: None,
            evidence: None,
        }
    }

    pub fn order(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Order,
            ..Self::customer(message)
        }
    }

    pub fn platform(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Platform,
            ..Self::customer(message)
        }
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub fn evidence(mut self, evidence: LogRef) -> Self {
        self.evidence = Some(evidence);
        self
    }

    /// The error name of a failed Task state: what a definition's Retry and Catch match.
    pub fn error_name(&self) -> &'static str {
        match self.blame {
            Blame::Customer => "Vend.Customer",
            Blame::Order => "Vend.Order",
            Blame::Platform => "Vend.Platform",
        }
    }
}
