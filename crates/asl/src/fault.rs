//! What goes wrong inside an execution: data that the language reports, not an `Error` of this crate.

use crate::limit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const ALL: &str = "States.ALL";
pub const DATA_LIMIT: &str = "States.DataLimitExceeded";
pub const HEARTBEAT: &str = "States.HeartbeatTimeout";
pub const INTRINSIC: &str = "States.IntrinsicFailure";
pub const NO_CHOICE: &str = "States.NoChoiceMatched";
pub const ITEM_READER: &str = "States.ItemReaderFailed";
pub const PARAMETER_PATH: &str = "States.ParameterPathFailure";
pub const QUERY: &str = "States.QueryEvaluationError";
pub const RESULT_PATH: &str = "States.ResultPathMatchFailure";
pub const RESULT_WRITER: &str = "States.ResultWriterFailed";
pub const RUNTIME: &str = "States.Runtime";
pub const TASK_FAILED: &str = "States.TaskFailed";
pub const THRESHOLD: &str = "States.ExceedToleratedFailureThreshold";
pub const TIMEOUT: &str = "States.Timeout";

/// An error of a state, on its way through retriers and catchers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// A second name that the error answers to: AWS reports a missed heartbeat as `States.Timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// A task reported it, so `States.TaskFailed` matches.
    #[serde(default)]
    pub task: bool,
    /// `States.ALL` does not match it.
    #[serde(default)]
    pub terminal: bool,
    /// The field whose JSONata failed, if it is one field: the history has an event for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// That event follows the state's own, not the one before.
    #[serde(default)]
    pub late: bool,
}

impl Fault {
    pub fn runtime(cause: impl Into<String>) -> Self {
        Self {
            error: Some(RUNTIME.into()),
            cause: Some(cause.into()),
            terminal: true,
            ..Self::default()
        }
    }

    pub fn named(error: &str, cause: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            cause: Some(cause.into()),
            ..Self::default()
        }
    }

    /// A payload that outgrew [`limit::PAYLOAD`] or [`limit::DEPTH`].
    pub fn too_large(what: &str) -> Self {
        let cause = format!(
            "The state/task '{what}' returned a result with a size exceeding the maximum number of bytes service limit."
        );
        Self {
            terminal: true,
            ..Self::named(DATA_LIMIT, cause)
        }
    }

    /// Puts AWS's opening sentence in front of the cause.
    pub fn at(mut self, state: &str, entered: u64) -> Self {
        if let Some(cause) = &mut self.cause {
            let opening = "An error occurred while executing the state";
            *cause = format!("{opening} '{state}' (entered at the event id #{entered}). {cause}");
            cause.truncate(cause.floor_char_boundary(limit::CAUSE));
        }
        self
    }

    /// The same fault, whose cause tells of another one that came to it.
    pub fn besides(mut self, other: &Self) -> Self {
        let what = other
            .cause
            .as_deref()
            .or(other.error.as_deref())
            .unwrap_or_default();
        let cause = self.cause.get_or_insert_default();
        cause.push_str(&format!("; and the results could not be written: {what}"));
        cause.truncate(cause.floor_char_boundary(limit::CAUSE));
        self
    }

    /// Whether one name of an `ErrorEquals` matches.
    pub fn answers(&self, name: &str) -> bool {
        if self.error.as_deref() == Some(name) || self.alias.as_deref() == Some(name) {
            return true;
        }
        match name {
            ALL => !self.terminal,
            TASK_FAILED => self.task && self.error.as_deref() != Some(TIMEOUT),
            _ => false,
        }
    }

    /// The error object that a catcher hands on.
    pub fn output(&self) -> Value {
        json!({ "Error": self.error, "Cause": self.cause })
    }
}
