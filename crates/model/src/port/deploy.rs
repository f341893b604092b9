use std::fmt;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Fault, LogRef};
use crate::{DeploymentId, Digest, HostId, Place, Ticket, spec::Migrate};

/// Puts a revision on a host that runs.
pub trait Deployer {
    /// Runs the lifecycle events of the order on the host, in their order, up to the first that fails. A failed
    /// script is not a fault: it is in the answer.
    fn deploy(
        &self,
        ticket: &Ticket,
        order: &DeployOrder,
    ) -> impl Future<Output = Result<Deployed, Fault>> + Send;

    /// How far the order of this ticket has come on the host: all of its events, those that wait and the one that runs, too.
    /// Empty when it is not known there.
    fn progress(
        &self,
        host: &HostId,
        ticket: &Ticket,
    ) -> impl Future<Output = Result<Vec<EventReport>, Fault>> + Send;

    /// Ends the script that a deployment runs on the host, if it does: the deployment fails there. One that has ended,
    /// or is not known, is left as it is.
    fn stop_deployment(
        &self,
        host: &HostId,
        deployment: &DeploymentId,
        reason: &str,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Waits for a process of the app to end though it should go on, from `since` on. `None` when all went on for as
    /// long as one call may take: ask again.
    fn watch(
        &self,
        host: &HostId,
        since: Timestamp,
    ) -> impl Future<Output = Result<Option<Death>, Fault>> + Send;

    /// Runs checks on the host.
    fn check(&self, order: &CheckOrder) -> impl Future<Output = Result<Verdict, Fault>> + Send;
}

/// A process that ended though it should go on. It may have been started again since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Of the Procfile, or a unit's name.
    pub service: String,
    /// How it ended: `exit code 1`.
    pub exit: String,
    /// The last lines that it said.
    pub last: String,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process {} does not stay up: {}", self.service, self.exit)?;
        match self.last.as_str() {
            "" => Ok(()),
            last => write!(f, "; it last said:\n{last}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeployOrder {
    pub deployment: DeploymentId,
    pub place: Place,
    pub host: HostId,
    /// A tar of the revision.
    pub revision: Digest,
    /// Where the appspec is in the revision; `None` for an app with a Procfile only, whose revision is unpacked
    /// to `/srv/app` and whose processes are started there.
    pub appspec: Option<Utf8PathBuf>,
    pub events: Vec<LifecycleEvent>,
    /// What the event `Migrate` runs. Such an order has its revision beside those of deployments, which its
    /// `DownloadBundle` does not touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migrate>,
    /// What takes the application away may fail, and the deployment goes on: CodeDeploy's `ignoreApplicationStopFailures`.
    /// <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeployment.html>
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignores_stop: bool,
    /// The commit that the revision was made from, which scripts know as `BUNDLE_COMMIT`. It tells nothing of what is done:
    /// the revision does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl DeployOrder {
    /// The first event whose failure is the deployment's.
    pub fn failure<'r>(&self, reports: &'r [EventReport]) -> Option<&'r EventReport> {
        // What the end of the agent cut off did not go on.
        let went_on = |report: &EventReport| {
            let failure = report.failure.as_ref();
            failure.is_none_or(|failure| failure.code != ScriptCode::FailedAfterRestart)
        };
        let is_ignored =
            |report: &EventReport| self.ignores_stop && report.event.is_leaving() && went_on(report);
        let mut failed = reports
            .iter()
            .filter(|report| report.status == EventStatus::Failed);
        failed.find(|report| !is_ignored(report))
    }
}

/// CodeDeploy's lifecycle events, in the order of an in-place deployment.
/// <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum LifecycleEvent {
    BeforeBlockTraffic,
    BlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    DownloadBundle,
    BeforeInstall,
    Install,
    AfterInstall,
    ApplicationStart,
    ValidateService,
    BeforeAllowTraffic,
    AllowTraffic,
    AfterAllowTraffic,
    /// Vend's own, and not one of [`Self::ALL`]: the release's migration, on one host, with nothing deployed yet.
    Migrate,
}

impl LifecycleEvent {
    pub const ALL: [Self; 13] = [
        Self::BeforeBlockTraffic,
        Self::BlockTraffic,
        Self::AfterBlockTraffic,
        Self::ApplicationStop,
        Self::DownloadBundle,
        Self::BeforeInstall,
        Self::Install,
        Self::AfterInstall,
        Self::ApplicationStart,
        Self::ValidateService,
        Self::BeforeAllowTraffic,
        Self::AllowTraffic,
        Self::AfterAllowTraffic,
    ];

    /// What runs on a new host before it gets traffic.
    pub const BEFORE_TRAFFIC: [Self; 7] = [
        Self::ApplicationStop,
        Self::DownloadBundle,
        Self::BeforeInstall,
        Self::Install,
        Self::AfterInstall,
        Self::ApplicationStart,
        Self::ValidateService,
    ];

    /// What a migration is made of.
    pub const MIGRATION: [Self; 2] = [Self::DownloadBundle, Self::Migrate];

    /// Is it about what ran before? Its scripts are those of the revision before, where there is one.
    pub fn is_leaving(self) -> bool {
        matches!(
            self,
            Self::BeforeBlockTraffic | Self::AfterBlockTraffic | Self::ApplicationStop
        )
    }

    /// May an appspec hang scripts on it?
    pub fn is_scriptable(self) -> bool {
        !matches!(
            self,
            Self::BlockTraffic | Self::DownloadBundle | Self::Install | Self::AllowTraffic | Self::Migrate
        )
    }
}

impl fmt::Display for LifecycleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    pub events: Vec<EventReport>,
    pub log: LogRef,
}

impl Deployed {
    /// The first event that failed, whether or not it matters: see [`DeployOrder::failure`].
    pub fn failure(&self) -> Option<&EventReport> {
        self.events
            .iter()
            .find(|event| event.status == EventStatus::Failed)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventReport {
    pub event: LifecycleEvent,
    pub status: EventStatus,
    #[schema(value_type = String)]
    pub started_at: Timestamp,
    pub duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ScriptFailure>,
    /// Where all is that was said meanwhile, unless there was nothing to do. Its name is the platform's to say, not a host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub log: Option<LogRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventStatus {
    /// The host was told to do it, and has not come to it yet.
    Pending,
    InProgress,
    Succeeded,
    Failed,
    /// Nothing to do, or an event before it failed.
    Skipped,
    /// The deployment ended, and the host never said how this did.
    Unknown,
}

impl EventReport {
    /// An event that nothing is to be said of yet but this.
    pub fn only(event: LifecycleEvent, status: EventStatus, at: Timestamp) -> Self {
        Self {
            event,
            status,
            started_at: at,
            duration_ms: 0,
            failure: None,
            log: None,
        }
    }
}

impl EventStatus {
    /// Can a host that has done an order say this of an event?
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

/// The agent's diagnostics of a failed event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptFailure {
    pub code: ScriptCode,
    pub script: String,
    pub message: String,
    /// The last whole lines of its output, at most 2,048 characters.
    pub log: String,
    /// The processes that have its output open, each with its command: `pid 312 (sleep 1000)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
}

impl ScriptFailure {
    /// Something that is none of a script's own ends, with what was said until then.
    pub fn unknown(message: String, log: String) -> Self {
        Self {
            code: ScriptCode::UnknownError,
            script: String::new(),
            message,
            log,
            holders: Vec::new(),
        }
    }

    /// The message for people: with who is to blame, which the agent's own sentence does not say.
    pub fn told(&self) -> String {
        match self.holders.is_empty() {
            true => self.message.clone(),
            false => format!("{}, which {} left open", self.message, self.holders.join(", ")),
        }
    }
}

/// CodeDeploy's diagnostic codes, 1 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ScriptCode {
    ScriptMissing = 1,
    ScriptNotExecutable = 2,
    ScriptTimedOut = 3,
    ScriptFailed = 4,
    UnknownError = 5,
    OutputsLeftOpen = 6,
    FailedAfterRestart = 7,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckOrder {
    pub host: HostId,
    /// The text of a goss file, already checked.
    pub checks: crate::spec::Checks,
}

/// Whether a host is as its checks say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    pub results: Vec<CheckResult>,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.results.iter().all(|result| result.passed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckResult {
    /// The kind of resource: `port`, `http`, …
    pub kind: String,
    pub name: String,
    pub property: String,
    pub passed: bool,
    pub expected: String,
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_who_has_an_output_open() {
        let mut failure = ScriptFailure {
            code: ScriptCode::OutputsLeftOpen,
            script: "s.sh".into(),
            message: "s.sh failed to close STDOUT".into(),
            log: String::new(),
            holders: Vec::new(),
        };
        assert_eq!(failure.told(), "s.sh failed to close STDOUT");
        failure.holders = vec!["pid 3 (a)".into(), "pid 4 (b)".into()];
        let told = "s.sh failed to close STDOUT, which pid 3 (a), pid 4 (b) left open";
        assert_eq!(failure.told(), told);
    }

    #[test]
    fn only_what_takes_the_application_away_may_fail_and_only_when_asked_for() {
        use LifecycleEvent::{AfterBlockTraffic, ApplicationStop, BeforeBlockTraffic, Install};
        let report = |event, code| EventReport {
            event,
            status: EventStatus::Failed,
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: 1,
            failure: Some(ScriptFailure {
                code,
                script: "stop.sh".into(),
                message: "no".into(),
                log: String::new(),
                holders: Vec::new(),
            }),
            log: None,
        };
        let mut order = DeployOrder {
            deployment: DeploymentId::from_bits(1),
            place: "acme/shop/dev".parse().unwrap(),
            host: HostId::from_bits(1),
            revision: Digest::of(""),
            appspec: None,
            events: LifecycleEvent::ALL.to_vec(),
            migration: None,
            ignores_stop: false,
            commit: None,
        };
        // Nodes that are older know an order by its text.
        assert!(!serde_json::to_string(&order).unwrap().contains("ignores_stop"));
        for (event, code, ignored) in [
            (ApplicationStop, ScriptCode::ScriptFailed, true),
            (BeforeBlockTraffic, ScriptCode::ScriptTimedOut, true),
            (AfterBlockTraffic, ScriptCode::ScriptMissing, true),
            (ApplicationStop, ScriptCode::FailedAfterRestart, false),
            (Install, ScriptCode::UnknownError, false),
        ] {
            let reports = [report(event, code), report(Install, ScriptCode::UnknownError)];
            order.ignores_stop = false;
            assert_eq!(order.failure(&reports), Some(&reports[0]), "{event}");
            order.ignores_stop = true;
            assert_eq!(
                order.failure(&reports),
                Some(&reports[usize::from(ignored)]),
                "{event}"
            );
            assert_eq!(order.failure(&reports[..1]).is_none(), ignored, "{event}");
        }
    }
}
