//! Logs of an environment, in CloudWatch: what hosts, builds and flows wrote.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::text;
use crate::{
    call,
    client::{Client, Error},
};

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub at: Timestamp,
    /// A host's id, or a build's.
    pub stream: String,
    pub text: String,
}

/// Lines of several hosts do not arrive in their order: for so many milliseconds they are asked for again.
const LATE: i64 = 30_000;

/// Reads a log group from a time on, and goes on with what is added.
pub struct Reader {
    group: String,
    pattern: Option<String>,
    /// Milliseconds.
    from: i64,
    newest: i64,
    /// Times and ids of what was read and will be asked for again.
    seen: BTreeSet<(i64, String)>,
}

impl Reader {
    /// `pattern`: of CloudWatch's own language.
    pub fn new(group: String, pattern: Option<String>, from: Timestamp) -> Self {
        Self {
            group,
            pattern,
            from: from.as_millisecond(),
            newest: from.as_millisecond(),
            seen: BTreeSet::new(),
        }
    }

    fn start(&self) -> i64 {
        self.from.max(self.newest - LATE)
    }

    /// What is new, told page by page. False: there is no such group.
    pub async fn read(&mut self, client: &Client, tell: &mut dyn FnMut(Line)) -> Result<bool, Error> {
        let mut ask = json!({ "logGroupName": self.group, "startTime": self.start() });
        if let Some(pattern) = &self.pattern {
            ask["filterPattern"] = json!(pattern);
        }
        loop {
            let mut page = match client.json(&call::READ_LOG, ask.clone()).await {
                Err(error) if error.code() == "ResourceNotFoundException" => return Ok(false),
                other => other?,
            };
            for event in page["events"].as_array().into_iter().flatten() {
                if let Some(line) = self.take(event) {
                    tell(line);
                }
            }
            self.seen = self.seen.split_off(&(self.start(), String::new()));
            match page["nextToken"].take() {
                Value::Null => return Ok(true),
                token => ask["nextToken"] = token,
            }
        }
    }

    /// An event that was not read before.
    fn take(&mut self, event: &Value) -> Option<Line> {
        let at = event["timestamp"].as_i64()?;
        if !self.seen.insert((at, text(event, "eventId"))) {
            return None;
        }
        self.newest = self.newest.max(at);
        Some(Line {
            at: Timestamp::from_millisecond(at).ok()?,
            stream: text(event, "logStreamName"),
            text: text(event, "message").trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_is_told_once() {
        let mut reader = Reader::new("g".into(), None, Timestamp::UNIX_EPOCH);
        let event = |at: i64, id: &str| json!({ "timestamp": at, "eventId": id, "logStreamName": "i-1", "message": "m\n" });
        let mut told = |at, id| reader.take(&event(at, id)).map(|line| line.text);
        assert_eq!(told(5, "a"), Some("m".into()));
        assert_eq!(told(5, "b"), Some("m".into()));
        assert_eq!(told(5, "a"), None);
        assert_eq!(told(6, "c"), Some("m".into()));
        assert_eq!(told(6, "c"), None);
        // One that arrives late is told, too.
        assert_eq!(told(4, "d"), Some("m".into()));
    }
}
