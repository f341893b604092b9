//! How an execution went, in AWS's words: the answer of DescribeExecution and GetExecutionHistory together.

use asl::{HistoryEvent, Status};
use serde::Serialize;
use serde_json::{Map, Value};

/// What `vend states run --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `SUCCEEDED`, `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub status: &'static str,
    /// JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub events: Vec<Value>,
}

impl Report {
    pub fn new(status: &Status, history: &[HistoryEvent]) -> Self {
        let (mut output, mut error, mut cause) = (None, None, None);
        match status {
            Status::Succeeded { output: value } => output = Some(value.to_string()),
            Status::Failed {
                error: own,
                cause: why,
            }
            | Status::Aborted {
                error: own,
                cause: why,
            } => {
                error.clone_from(own);
                cause.clone_from(why);
            }
            Status::Running | Status::TimedOut => {}
        }
        Self {
            status: status.as_str(),
            output,
            error,
            cause,
            events: history.iter().map(event).collect(),
        }
    }
}

/// An event as GetExecutionHistory shows it; times are RFC 3339.
fn event(event: &HistoryEvent) -> Value {
    let mut members = Map::new();
    members.insert("timestamp".into(), event.at.to_string().into());
    members.insert("type".into(), event.kind.as_str().into());
    members.insert("id".into(), event.id.into());
    members.insert("previousEventId".into(), event.previous.into());
    if !event.details.is_null() {
        members.insert(event.kind.details(), event.details.clone());
    }
    Value::Object(members)
}
