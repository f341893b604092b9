//! What a post of Alertmanager's says of alarms.
//!
//! Pure. A post is about one group and has all of its alerts, those that fire and those that do not any more; so who tells
//! is the group, and an alarm that it does not name does not fire in it.
//! <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>

use std::collections::{BTreeMap, btree_map::Entry};

use model::{
    AlarmName, TenantName,
    alarm::{AlarmState, NotAnAlarm},
    wire::{Alert, AlertStatus, Alerts},
};
use store::{Heard, Told};

use super::tidy;

/// Sentences about what was passed over that are given back.
pub const SAID: usize = 20;

/// What is told, and in sentences what of it is not taken.
pub fn read(alerts: Alerts) -> (Told, Vec<String>) {
    let Alerts {
        group,
        truncated,
        alerts: list,
    } = alerts;
    let mut passed_over = Vec::new();
    if list.odd > 0 {
        passed_over.push(format!("{} alerts could not be read", list.odd));
    }
    if list.rest > 0 {
        passed_over.push(format!("{} alerts are too many to be read at once", list.rest));
    }
    let is_all = !group.is_empty() && truncated == 0 && list.odd == 0 && list.rest == 0;
    let mut alarms: BTreeMap<AlarmName, (AlarmState, Option<String>)> = BTreeMap::new();
    for alert in &list.alerts {
        let name = match alert.labels.get("alertname").map_or("", String::as_str).parse() {
            Ok(name) => name,
            Err(why) => {
                let why: NotAnAlarm = why;
                if passed_over.len() < SAID {
                    passed_over.push(format!("alertname: {why}"));
                }
                continue;
            }
        };
        let state = state(alert);
        match alarms.entry(name) {
            Entry::Vacant(first) => {
                first.insert((state, reason(alert)));
            }
            Entry::Occupied(mut known) => {
                if state == AlarmState::Alarm && known.get().0 == AlarmState::Ok {
                    known.insert((state, reason(alert)));
                }
            }
        }
    }
    if truncated > 0 || list.rest > 0 || list.odd > 0 {
        // Of those that are well another alert may fire that is not among them.
        alarms.retain(|_, (state, _)| *state == AlarmState::Alarm);
    }
    let told = Told {
        teller: group,
        is_all,
        alarms,
    };
    (told, passed_over)
}

fn state(alert: &Alert) -> AlarmState {
    match alert.status {
        AlertStatus::Firing => AlarmState::Alarm,
        AlertStatus::Resolved => AlarmState::Ok,
    }
}

fn reason(alert: &Alert) -> Option<String> {
    let text = |name: &str| alert.annotations.get(name).and_then(|text| tidy(text));
    text("summary").or_else(|| text("description"))
}

/// The same of what there was no room for.
pub fn left(tenant: &TenantName, heard: &Heard) -> Vec<String> {
    let none = heard
        .passed_over
        .iter()
        .map(|name| format!("{name}: {tenant} has as many alarms as it may have"));
    let uncounted = heard.uncounted.iter().map(|name| {
        format!(
            "{name}: too many groups fire, so it rings until somebody says: vend alarms set '{tenant}/{name}' --state ok"
        )
    });
    none.chain(uncounted).take(SAID).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn alert(status: &str, name: &str, annotations: Value) -> Value {
        json!({ "status": status, "labels": { "alertname": name, "instance": "a" },
            "annotations": annotations, "startsAt": "2026-01-01T00:00:00Z", "fingerprint": "f" })
    }

    fn told(truncated: u64, alerts: Vec<Value>) -> (Told, Vec<String>) {
        let body = json!({ "version": "4", "groupKey": "{}:{}", "truncatedAlerts": truncated,
            "status": "firing", "alerts": alerts });
        read(serde_json::from_value(body).unwrap())
    }

    fn of(told: &Told, name: &str) -> Option<(AlarmState, Option<String>)> {
        told.alarms.get(&name.parse().unwrap()).cloned()
    }

    #[test]
    fn an_alarm_rings_while_one_of_its_alerts_fires() {
        let alerts = vec![
            alert("resolved", "Errors", json!({ "summary": "well" })),
            alert("firing", "Errors", json!({ "description": "7 %\n fail" })),
            alert("resolved", "Errors", json!({})),
            alert("resolved", "Slow", json!({})),
        ];
        let (all, passed_over) = told(0, alerts.clone());
        assert_eq!(
            of(&all, "Errors"),
            Some((AlarmState::Alarm, Some("7 %  fail".into())))
        );
        assert_eq!(of(&all, "Slow"), Some((AlarmState::Ok, None)));
        assert_eq!(
            (all.alarms.len(), all.is_all, all.teller.as_str()),
            (2, true, "{}:{}")
        );
        assert!(passed_over.is_empty());
        // Some of the group were left out: what fires does, and what does not may.
        let (some, _) = told(3, alerts);
        assert_eq!(of(&some, "Slow"), None);
        assert_eq!((some.alarms.len(), some.is_all), (1, false));
    }

    #[test]
    fn what_is_odd_is_passed_over_and_the_rest_is_taken() {
        let (all, passed_over) = told(
            0,
            vec![
                alert("firing", "", json!({})),
                alert("pending", "Slow", json!({})),
                json!("an alert"),
                json!({ "status": "firing", "labels": { "alertname": 7 } }),
                alert("firing", "Errors", json!({})),
                alert("resolved", "Latency", json!({})),
            ],
        );
        assert_eq!(of(&all, "Errors"), Some((AlarmState::Alarm, None)));
        // What could not be read may be that it fires.
        assert_eq!(of(&all, "Latency"), None);
        assert_eq!((all.alarms.len(), all.is_all), (1, false));
        assert_eq!(passed_over.len(), 2, "{passed_over:?}");
        assert_eq!(passed_over[0], "3 alerts could not be read");
        assert!(passed_over[1].starts_with("alertname: `` is not the name of an alarm"));
        let many = (0..99).map(|number| alert("firing", &format!("-{number}"), json!({})));
        assert_eq!(told(0, many.collect()).1.len(), SAID);
    }
}
