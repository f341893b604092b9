//! The history of an execution, in AWS's words.

use crate::payload::Payload;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

/// One event of the history, as `GetExecutionHistory` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// From 1, without gaps.
    pub id: u64,
    /// The event that caused this one; 0 for the first ones.
    pub previous: u64,
    pub at: Timestamp,
    pub kind: Kind,
    /// The detail object with AWS's field names, in which payloads are JSON text; null when the type has none.
    pub details: Value,
}

/// AWS's name of an event type, such as `TaskStateEntered`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The member of AWS's `HistoryEvent` that holds the details, such as `stateEnteredEventDetails`.
    pub fn details(&self) -> String {
        let name = self.as_str();
        for shared in ["StateEntered", "StateExited"] {
            if name.ends_with(shared) {
                return format!("s{}EventDetails", &shared[1..]);
            }
        }
        let mut chars = name.chars();
        let first = chars.next().map(|first| first.to_ascii_lowercase());
        format!(
            "{}{}EventDetails",
            first.map(String::from).unwrap_or_default(),
            chars.as_str()
        )
    }
}

impl From<&'static str> for Kind {
    fn from(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl From<String> for Kind {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

impl PartialEq<str> for Kind {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Adds a payload as JSON text, with the remark that nothing was cut off.
pub fn payload(details: &mut Value, name: &str, value: &Payload) {
    details[name] = Value::String(value.text().to_owned());
    details[format!("{name}Details")] = json!({ "truncated": false });
}

/// Adds what is there of an error and a cause.
pub fn failure(details: &mut Value, error: Option<&str>, cause: Option<&str>) {
    for (name, text) in [("error", error), ("cause", cause)] {
        if let Some(text) = text {
            details[name] = text.into();
        }
    }
}
