use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use utoipa::ToSchema;

use crate::{AlarmName, alarm::AlarmState};

/// What was told of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    #[schema(value_type = String)]
    pub name: AlarmName,
    pub state: AlarmState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It is in this state since then.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it was told for the last time.
    #[schema(value_type = String, format = DateTime)]
    pub told_at: Timestamp,
    pub told_by: String,
    /// Deployments do not mind it until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ignored_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored_by: Option<String>,
}

impl From<crate::alarm::Alarm> for Alarm {
    fn from(alarm: crate::alarm::Alarm) -> Self {
        let (ignored_until, ignored_by) = alarm.ignored.unzip();
        Self {
            name: alarm.name,
            state: alarm.state,
            reason: alarm.reason,
            since: alarm.since,
            told_at: alarm.told_at,
            told_by: alarm.told_by,
            ignored_until,
            ignored_by,
        }
    }
}

/// How an alarm is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAlarm {
    pub state: AlarmState,
    /// Why, in a sentence; of a longer one the first 500 characters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// That deployments are not to mind an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ignoring {
    /// For so many seconds, seven days at most; 0: they mind it again.
    pub for_s: u32,
    pub reason: String,
}

/// What Alertmanager posts to a webhook, as far as it is read.
/// <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Alerts {
    /// The group whose alerts these are.
    #[serde(default, rename = "groupKey")]
    pub group: String,
    /// How many of the group's alerts are not among them.
    #[serde(default, rename = "truncatedAlerts")]
    pub truncated: u64,
    #[schema(value_type = Vec<Alert>)]
    pub alerts: AlertList,
}

/// Alerts, without those that are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertList {
    pub alerts: Vec<Alert>,
    /// How many could not be read.
    pub odd: u64,
    /// How many came after [`AlertList::MOST`], and were not kept.
    pub rest: u64,
}

impl AlertList {
    /// So many are read.
    pub const MOST: usize = 10_000;
}

impl<'de> Deserialize<'de> for AlertList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum One {
            Alert(Alert),
            Odd(IgnoredAny),
        }
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = AlertList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AlertList, A::Error> {
                let mut read = AlertList::default();
                while let Some(one) = list.next_element()? {
                    match one {
                        One::Alert(alert) if read.alerts.len() < AlertList::MOST => read.alerts.push(alert),
                        One::Alert(_) => read.rest = read.rest.saturating_add(1),
                        One::Odd(_) => read.odd = read.odd.saturating_add(1),
                    }
                }
                Ok(read)
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// What became of a post of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertsTaken {
    /// The alarms that it told of, as they are now.
    pub items: Vec<Alarm>,
    /// What of it was not taken, and why; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    pub status: AlertStatus,
    /// `alertname` is the name of the alarm.
    pub labels: BTreeMap<String, String>,
    /// `summary`, or else `description`, is the reason.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    Firing,
    Resolved,
}
