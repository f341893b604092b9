//! Wait, in its four forms.

use super::Run;
use super::data::About;
use crate::execution::{Position, Purpose, Strand};
use crate::fault::Fault;
use crate::instant;
use crate::limit;
use crate::machine::{State, Wait};
use crate::path::{Missing, Path};
use crate::query::{self, Kind, Query};
use crate::scope::Spent;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Seconds; beyond this AWS refuses to wait.
const LONGEST: i64 = i32::MAX as i64;

const UNREADABLE: &str =
    "The Timestamp field cannot be parsed as an ISO-8601 extended offset date-time format string";

impl<'m> Run<'m> {
    pub(super) fn wait(&mut self, id: u64, mut strand: Strand, state: &'m State, wait: &Wait) {
        let at = |fault: Fault| fault.at(&strand.state, strand.entered);
        let due = self
            .input(&strand, state)
            .and_then(|input| self.due(&strand, state, wait, &input).map_err(at));
        match due {
            Ok(at) if at <= self.at => self.waited(id, strand),
            Ok(at) => {
                let timer = self.timer_at(at, Purpose::Wait, id);
                strand.position = Position::Wait { timer };
                self.x.strands.insert(id, strand);
            }
            Err(fault) => self.fail(id, strand, fault),
        }
    }

    /// The wait is over.
    pub(super) fn waited(&mut self, id: u64, strand: Strand) {
        match self.state(&strand) {
            Some(state) => self.complete(id, strand, state, None),
            None => self.resume(id, strand),
        }
    }

    pub(super) fn due(
        &self,
        strand: &Strand,
        state: &State,
        wait: &Wait,
        input: &Value,
    ) -> Result<Timestamp, Fault> {
        let at = match wait {
            Wait::Seconds(seconds) => self.after(i64::try_from(*seconds).unwrap_or(i64::MAX)),
            Wait::SecondsPath(path) => {
                let value = self.referenced(strand, state, path, input, "SecondsPath")?;
                self.after(seconds(path, &value)?)
            }
            Wait::SecondsQuery(query) => {
                let value = self.asked(strand, state, query, input, Kind::Number)?;
                self.after(queried_seconds(query, &value)?)
            }
            Wait::Timestamp(text) => {
                instant::parse(text).ok_or_else(|| Fault::runtime(format!("{UNREADABLE}: {text}")))?
            }
            Wait::TimestampPath(path) => {
                let value = self.referenced(strand, state, path, input, "TimestampPath")?;
                timestamp(path, &value)?
            }
            Wait::TimestampQuery(query) => {
                let value = self.asked(strand, state, query, input, Kind::String)?;
                value
                    .as_str()
                    .and_then(instant::parse)
                    .ok_or_else(|| query.refused(format!("{UNREADABLE}: {}", plain(&value))))?
            }
        };
        if at.duration_since(self.at).as_secs() > LONGEST {
            return Err(Fault::runtime("Wait state delay is too long."));
        }
        Ok(at)
    }

    fn after(&self, seconds: i64) -> Timestamp {
        self.at
            .saturating_add(SignedDuration::from_secs(seconds))
            .unwrap_or(Timestamp::MAX)
    }

    fn asked(
        &self,
        strand: &Strand,
        state: &State,
        query: &Query,
        input: &Value,
        kind: Kind,
    ) -> Result<Value, Fault> {
        self.read(strand, state, About::data(input), |scope| {
            query.expect(scope, kind)
        })
    }

    fn referenced(
        &self,
        strand: &Strand,
        state: &State,
        path: &Path,
        input: &Value,
        name: &str,
    ) -> Result<Value, Fault> {
        self.read(strand, state, About::data(input), |scope| scope.read(path))
            .map_err(|missing| match missing {
                Missing::Spent => Spent.into(),
                _ => Fault::runtime(format!(
                    "The {name} parameter does not reference an input value: {}",
                    path.text()
                )),
            })
    }
}

fn seconds(path: &Path, value: &Value) -> Result<i64, Fault> {
    let text = path.text();
    let seconds = value.as_i64().ok_or_else(|| {
        let value = plain(value);
        Fault::runtime(format!(
            "The SecondsPath parameter cannot be parsed as a long value: {text} == {value}"
        ))
    })?;
    if seconds < 0 {
        let cause = format!("The SecondsPath parameter references a negative value: {text} == {seconds}");
        return Err(Fault::runtime(cause));
    }
    Ok(seconds)
}

fn queried_seconds(query: &Query, value: &Value) -> Result<i64, Fault> {
    let seconds = query::whole(value).ok_or_else(|| {
        query.refused(format!(
            "The Seconds field cannot be parsed as a long value: {value}"
        ))
    })?;
    let most = limit::SECONDS;
    if (0..=most as i64).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(query.refused(format!(
            "The Seconds field must be between 0 and {most}: {seconds}"
        )))
    }
}

fn timestamp(path: &Path, value: &Value) -> Result<Timestamp, Fault> {
    value.as_str().and_then(instant::parse).ok_or_else(|| {
        let what = "does not reference a valid ISO-8601 extended offset date-time format string";
        Fault::runtime(format!(
            "The TimestampPath parameter {what}: {} == {}",
            path.text(),
            plain(value)
        ))
    })
}

/// A value as AWS puts it into a sentence: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
