//! What an execution had open when it is over: its approvals, its work, its migration, its deployments, its release and
//! its push end with it. The one place that says how, whoever notices.

use std::collections::BTreeMap;

use model::{
    ExecutionId, Place,
    port::{Code, Fault},
    release::ReleaseState,
};
use store::{By, Db, DeploymentState, Error, PushState, Tx};

use super::{cancel, migrate, supersede};

/// An execution that brings nothing any more.
pub struct Over<'a> {
    pub execution: &'a ExecutionId,
    pub place: &'a Place,
    /// Under which it failed. Empty where nobody said.
    pub error: &'a str,
    pub reason: &'a str,
}

/// Ends all of it. What has ended stays as it is, so doing it again changes nothing.
pub fn all(tx: &Tx<'_>, over: &Over<'_>, by: &By) -> Result<(), Error> {
    let Over {
        execution,
        place,
        error,
        reason,
    } = *over;
    tx.void_approvals(execution, "nobody waits for the answer any more", by)?;
    tx.stop_work(execution, &Fault::platform(reason), &BTreeMap::new(), by)?;
    if tx.environment(place).is_err() {
        // All of it went with the environment, but the push.
        return push(tx, over, reason, by);
    }
    let mut reason = reason.to_owned();
    if let Some(own) = tx.migration_of(place, execution)? {
        tx.end_migration(place, own.release, Some(&reason), None, by)?;
        // What is live after all works with what its migration made.
        let stays = tx.environment(place)?.live == Some(own.release);
        let crossed = match stays {
            true => None,
            false => migrate::crossed(tx, place, own.release)?,
        };
        reason.extend(crossed.map(|own| format!("; {own}")));
    }
    reason.extend(stopped_undo(tx, execution)?);
    for own in tx.deployments_of_execution(execution)? {
        let (state, code) = verdict(error);
        tx.finish_deployment(&own.id, state, code, Some(&reason), by)?;
    }
    let release = tx.release_of_execution(place, execution)?;
    if let Some(release) = release.filter(|release| release.state == ReleaseState::Pending) {
        tx.fail_release(place, release.content.number, &reason, by)?;
    }
    push(tx, over, &reason, by)
}

fn push(tx: &Tx<'_>, over: &Over<'_>, reason: &str, by: &By) -> Result<(), Error> {
    let state = match over.error {
        supersede::ERROR => PushState::Superseded,
        _ => PushState::Failed,
    };
    for push in tx.pushes_of_execution(over.place, over.execution)? {
        tx.finish_push(push.id, state, Some(reason), by)?;
    }
    Ok(())
}

/// What to say of a way back that somebody stopped.
fn stopped_undo(db: &Db<'_>, execution: &ExecutionId) -> Result<Option<String>, Error> {
    let mut undos = db.deployments_of_execution(execution)?.into_iter().skip(1);
    let stopped = undos.find(|undo| undo.state == DeploymentState::Stopped);
    let Some(undo) = stopped else { return Ok(None) };
    let mut told = format!(
        "; its way back {} was stopped ({})",
        undo.id,
        undo.reason.unwrap_or_default()
    );
    if db.environment(&undo.place)?.live == Some(undo.release) {
        told.push_str(&format!(
            ", and hosts that did not get v{} back are replaced",
            undo.release
        ));
    }
    Ok(Some(told))
}

/// How a deployment ended, with CodeDeploy's code for it: of the error under which its execution failed.
pub(super) fn verdict(error: &str) -> (DeploymentState, Option<&'static str>) {
    let code = match error {
        cancel::ERROR | supersede::ERROR => return (DeploymentState::Stopped, Some("MANUAL_STOP")),
        other if Code::of_error(other) == Some(Code::AlarmActive) => {
            return (DeploymentState::Stopped, Some(Code::AlarmActive.as_str()));
        }
        "States.Timeout" | "Vend.Deadline" => Some("TIMEOUT"),
        "Vend.Customer" => Some("HEALTH_CONSTRAINTS"),
        "Vend.Platform" => Some("AGENT_ISSUE"),
        other => Code::of_error(other).map(Code::as_str),
    };
    (DeploymentState::Failed, code)
}

#[cfg(test)]
mod tests {
    use DeploymentState::{Failed, Stopped};

    use super::*;

    #[test]
    fn deployments_end_with_codedeploys_codes() {
        for (error, expected) in [
            (cancel::ERROR, (Stopped, Some("MANUAL_STOP"))),
            (supersede::ERROR, (Stopped, Some("MANUAL_STOP"))),
            ("States.Timeout", (Failed, Some("TIMEOUT"))),
            ("Vend.Deadline", (Failed, Some("TIMEOUT"))),
            ("Vend.Customer", (Failed, Some("HEALTH_CONSTRAINTS"))),
            ("Vend.AlarmActive", (Stopped, Some("ALARM_ACTIVE"))),
            (
                "Vend.HealthConstraintsInvalid",
                (Failed, Some("HEALTH_CONSTRAINTS_INVALID")),
            ),
            ("Vend.NoInstances", (Failed, Some("NO_INSTANCES"))),
            ("Vend.Platform", (Failed, Some("AGENT_ISSUE"))),
            ("States.Runtime", (Failed, None)),
        ] {
            assert_eq!(verdict(error), expected, "{error}");
        }
    }
}
