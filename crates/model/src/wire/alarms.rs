use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    pub alerts: Vec<Alert>,
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
