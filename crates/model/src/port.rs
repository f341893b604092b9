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
    BuildLimits, BuildOrder, Builder, Built, Coverage, GIT_CREDENTIALS, PhaseReport, PhaseStatus, PushEvent,
    Share, Slower, TestChanges, TestReport,
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
    BaseOrder, BaseSeen, BasesSeen, FileChange, ImageAbout, ImageCheck, ImageDiff, ImageExport, ImageOrigin,
    ImageTaken, ImageUsage, PackageChange, ScriptAbout, Shelf,
};
pub use objects::{LogChunk, LogRef, LogTime, Logs, Objects};
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

/// CodeDeploy's error codes for failures of a deployment that are known where they arise. Of any other one, the blame says
/// it. <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_ErrorInformation.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// What watches rang: an alarm of somebody's monitoring, or the comparison of new hosts with old ones.
    AlarmActive,
    /// So many hosts have to stay healthy that none may be taken out.
    HealthConstraintsInvalid,
    /// There is no host to deploy to.
    NoInstances,
}

impl Code {
    const ALL: [Self; 3] = [
        Self::AlarmActive,
        Self::HealthConstraintsInvalid,
        Self::NoInstances,
    ];

    /// As CodeDeploy writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlarmActive => "ALARM_ACTIVE",
            Self::HealthConstraintsInvalid => "HEALTH_CONSTRAINTS_INVALID",
            Self::NoInstances => "NO_INSTANCES",
        }
    }

    /// The name under which a failed Task state carries it.
    fn error_name(self) -> &'static str {
        match self {
            Self::AlarmActive => "Vend.AlarmActive",
            Self::HealthConstraintsInvalid => "Vend.HealthConstraintsInvalid",
            Self::NoInstances => "Vend.NoInstances",
        }
    }

    /// The code that the error name of a failed Task state carries.
    pub fn of_error(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.error_name() == name)
    }
}

/// A failure that reaches a person: what failed and why, what to do next, and where the evidence is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub blame: Blame,
    /// Of what a customer can mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<LogRef>,
    /// Of a build that failed: how far it came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseReport>,
}

impl Fault {
    pub fn customer(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Customer,
            code: None,
            message: message.into(),
            next: None,
            evidence: None,
            phases: Vec::new(),
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

    pub fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
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
            Blame::Customer => self.code.map_or("Vend.Customer", Code::error_name),
            Blame::Order => "Vend.Order",
            Blame::Platform => "Vend.Platform",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_travels_as_an_error_name_of_its_own() {
        for code in Code::ALL {
            let fault = Fault::customer("no").code(code);
            assert_eq!(Code::of_error(fault.error_name()), Some(code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            // Whether it is tried again is not the code's to say.
            let fault = Fault::platform("no").code(code);
            assert_eq!(fault.error_name(), "Vend.Platform");
        }
        for name in ["Vend.Customer", "Vend.Platform", "ALARM_ACTIVE", ""] {
            assert_eq!(Code::of_error(name), None, "{name}");
        }
    }

    #[test]
    fn a_fault_that_was_kept_without_a_code_is_read() {
        let kept = r#"{"blame":"customer","message":"no (NO_INSTANCES)"}"#;
        let fault: Fault = serde_json::from_str(kept).unwrap();
        assert_eq!(fault, Fault::customer("no (NO_INSTANCES)"));
        assert_eq!(serde_json::to_string(&fault).unwrap(), kept);
    }
}
