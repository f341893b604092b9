//! Alarms of somebody's monitoring: what was told of them, and whether a deployment may go on.
//!
//! Pure. The room knows nothing of who tells, or of what is measured.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::{Alarms, written};

/// Why a text does not name an alarm. Display says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the name of an alarm: use 1 to 255 letters, digits, spaces and `. _ : / # + - ( )`, starting with a letter or a digit"
)]
pub struct NotAnAlarm {
    pub text: String,
}

/// What somebody's monitoring calls an alarm. Unique in its tenant. As long as CloudWatch's may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AlarmName(String);

impl AlarmName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AlarmName {
    type Err = NotAnAlarm;

    fn from_str(text: &str) -> Result<Self, NotAnAlarm> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || b" ._:/#+-()".contains(&byte);
        let is_name = text.len() <= 255
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.ends_with(' ')
            && text.bytes().all(may);
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| NotAnAlarm {
            text: text.escape_debug().to_string().chars().take(60).collect(),
        })
    }
}

impl TryFrom<String> for AlarmName {
    type Error = NotAnAlarm;

    fn try_from(text: String) -> Result<Self, NotAnAlarm> {
        text.parse()
    }
}

impl From<AlarmName> for String {
    fn from(name: AlarmName) -> Self {
        name.0
    }
}

impl fmt::Display for AlarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an alarm is, as CloudWatch calls it. One of which nothing was told has no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlarmState {
    Ok,
    Alarm,
}

impl AlarmState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Alarm => "alarm",
        }
    }
}

/// What was told of an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub name: AlarmName,
    pub state: AlarmState,
    pub reason: Option<String>,
    /// It is in this state since then.
    pub since: Timestamp,
    /// When it was told for the last time, and by whom.
    pub told_at: Timestamp,
    pub told_by: String,
    /// Deployments do not mind it until then, because somebody said so.
    pub ignored: Option<(Timestamp, String)>,
}

impl Alarm {
    pub fn is_ignored(&self, now: Timestamp) -> bool {
        self.ignored.as_ref().is_some_and(|(until, _)| now < *until)
    }
}

/// Why a deployment may not begin, or go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    pub name: AlarmName,
    /// Nobody has ever told how it is.
    pub is_unknown: bool,
    /// A clause: `the alarm errors is in alarm since 12:03:04 UTC: 7 % fail`.
    pub why: String,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// The first alarm of a rule that keeps a deployment from beginning or going on. `told`: what was told of the tenant's
/// alarms.
///
/// One that is in alarm does, as in CodeDeploy. So does one of which nobody knows how it is, which is CodeDeploy's alarm
/// whose state cannot be read: `ignore_unknown` is its `ignorePollAlarmFailure`.
/// <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_AlarmConfiguration.html>
pub fn ringing(rule: &Alarms, told: &BTreeMap<AlarmName, Alarm>, now: Timestamp) -> Option<Ring> {
    rule.names.iter().find_map(|name| {
        let why = match told.get(name) {
            Some(alarm) if alarm.is_ignored(now) => None,
            // What rang before its teller fell silent rings until somebody says otherwise.
            Some(alarm) if alarm.state == AlarmState::Alarm => Some(rings(alarm)),
            Some(alarm) => stale(rule, alarm, now),
            None if rule.ignore_unknown => None,
            None => Some(format!("nobody has told how the alarm {name} is")),
        };
        why.map(|why| Ring {
            name: name.clone(),
            is_unknown: !told.contains_key(name),
            why,
        })
    })
}

fn rings(alarm: &Alarm) -> String {
    let since = clock(alarm.since);
    let reason = alarm.reason.as_ref().map(|reason| format!(": {reason}"));
    format!(
        "the alarm {} is in alarm since {since}{}",
        alarm.name,
        reason.unwrap_or_default()
    )
}

fn stale(rule: &Alarms, alarm: &Alarm, now: Timestamp) -> Option<String> {
    let most = rule.stale_after.filter(|_| !rule.ignore_unknown)?;
    (now.duration_since(alarm.told_at) > most).then(|| {
        format!(
            "nobody has told how the alarm {} is since {}, for longer than {}",
            alarm.name,
            clock(alarm.told_at),
            written(most)
        )
    })
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn alarm(state: AlarmState, told_at: i64, ignored: Option<i64>) -> Alarm {
        Alarm {
            name: "errors".parse().unwrap(),
            state,
            reason: Some("7 % fail".into()),
            since: at(0),
            told_at: at(told_at),
            told_by: "token:prometheus".into(),
            ignored: ignored.map(|until| (at(until), "person:ann".into())),
        }
    }

    #[test]
    fn deployments_are_kept_from_going_on_as_codedeploy_does() {
        use AlarmState::{Alarm as Rings, Ok};
        let now = at(1000);
        let cases = [
            // What was told, `ignore_unknown`, `stale_after` in seconds, and a part of what is said.
            (None, false, None, Some("nobody has told how the alarm errors is")),
            (None, true, None, None),
            (Some(alarm(Ok, 0, None)), false, None, None),
            (
                Some(alarm(Ok, 0, None)),
                false,
                Some(999),
                Some("since 1970-01-01 00:00:00 UTC, for longer than 16m39s"),
            ),
            (Some(alarm(Ok, 0, None)), false, Some(1000), None),
            (Some(alarm(Ok, 0, None)), true, Some(999), None),
            (
                Some(alarm(Rings, 900, None)),
                false,
                None,
                Some("is in alarm since 1970-01-01 00:00:00 UTC: 7 % fail"),
            ),
            // That nobody repeats it does not make it well.
            (Some(alarm(Rings, 0, None)), true, Some(10), Some("is in alarm")),
            (Some(alarm(Rings, 900, Some(1001))), false, None, None),
            (
                Some(alarm(Rings, 900, Some(1000))),
                false,
                None,
                Some("is in alarm"),
            ),
            (Some(alarm(Ok, 0, Some(1001))), false, Some(1), None),
        ];
        for (told, ignore_unknown, stale_s, expected) in cases {
            let rule = Alarms {
                names: vec!["errors".parse().unwrap()],
                ignore_unknown,
                stale_after: stale_s.map(SignedDuration::from_secs),
            };
            let what = format!("{told:?} {rule:?}");
            let all = told.into_iter().map(|told| (told.name.clone(), told)).collect();
            let ring = ringing(&rule, &all, now).map(|ring| ring.to_string());
            assert_eq!(ring.is_some(), expected.is_some(), "{what}: {ring:?}");
            let ring = ring.unwrap_or_default();
            assert!(ring.contains(expected.unwrap_or_default()), "{what}: {ring}");
        }
    }

    #[test]
    fn the_first_that_rings_is_named() {
        let rule = Alarms {
            names: ["quiet", "errors", "latency"]
                .map(|name| name.parse().unwrap())
                .to_vec(),
            ignore_unknown: true,
            stale_after: None,
        };
        let told = alarm(AlarmState::Alarm, 1, None);
        let other = Alarm {
            name: "latency".parse().unwrap(),
            ..told.clone()
        };
        let all = [told, other].map(|told| (told.name.clone(), told)).into();
        assert_eq!(ringing(&rule, &all, at(2)).unwrap().name.as_str(), "errors");
    }

    #[test]
    fn names_are_those_of_monitoring() {
        for (text, is_name) in [
            ("HighErrorRate", true),
            ("shop/production: 5xx > 1", false),
            ("shop/production: 5xx (5m)", true),
            ("7", true),
            ("", false),
            ("-x", false),
            ("x ", false),
            ("a\nb", false),
            (&"a".repeat(255), true),
            (&"a".repeat(256), false),
        ] {
            assert_eq!(text.parse::<AlarmName>().is_ok(), is_name, "{text:?}");
        }
    }
}
