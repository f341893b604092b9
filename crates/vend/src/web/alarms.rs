//! How alarms are, told by whoever measures. What they end is decided elsewhere.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Held};
use jiff::SignedDuration;
use model::{
    AlarmName, TenantName,
    alarm::AlarmState,
    policy::Action,
    wire::{Alarm, AlertStatus, Alerts, Ignoring, NewAlarm, Page},
};

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    scope::keyed,
    state::State,
};

/// Characters of a reason that are kept.
const REASON: usize = 500;
const WEEK_S: u32 = 7 * 24 * 3600;

/// The tenant and the alarm, if the caller may do `action` there.
fn named(
    caller: &Caller,
    action: Action,
    (tenant, name): (TenantName, String),
) -> Result<(TenantName, AlarmName), Refusal> {
    caller.may(action, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let name = name
        .parse()
        .map_err(|error: model::alarm::NotAnAlarm| Refusal::invalid(error.to_string()))?;
    Ok((tenant, name))
}

/// One line that a terminal may show.
fn tidy(text: &str) -> Option<String> {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = clean.take(REASON).collect();
    Some(short.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A tenant's alarms, as they were told.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/alarms", operation_id = "alarms.list", tag = "alarms",
    params(("tenant" = String, Path), Paging), responses((status = 200, body = Page<Alarm>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Alarm>>, Refusal> {
    caller.may(Action::View, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let alarms = state.store.read(move |db| db.alarms(&tenant)).await?;
    let alarms = alarms.into_values().map(Alarm::from).collect();
    let key = |alarm: &Alarm| alarm.name.to_string();
    Ok(Json(keyed(alarms, paging.cursor.as_deref(), paging.limit(), key)))
}

/// Tells how an alarm is. One that nobody knew is known from then on. Deployments that name it in `deploy.alarms` do not begin
/// while it is in alarm, and those that are under way go back.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/alarms/{name}", operation_id = "alarms.set", tag = "alarms",
    params(("tenant" = String, Path), ("name" = String, Path)),
    request_body = NewAlarm, responses((status = 200, body = Alarm), Refusal))]
pub async fn set(
    Held(state): Held<State>,
    caller: Caller,
    Path(path): Path<(TenantName, String)>,
    input::Json(new): input::Json<NewAlarm>,
) -> Result<Json<Alarm>, Refusal> {
    let (tenant, name) = named(&caller, Action::Alarm, path)?;
    let by = state.by(&caller.0);
    let reason = new.reason.as_deref().and_then(tidy);
    let written = state
        .store
        .write(move |tx| tx.set_alarm(&tenant, &name, new.state, reason.as_deref(), &by));
    Ok(Json(written.await?.into()))
}

/// Takes what Prometheus' Alertmanager posts to a webhook. An alarm of which several alerts come at once is in alarm while
/// one of them fires.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/alarms", operation_id = "alarms.receive", tag = "alarms",
    params(("tenant" = String, Path)),
    request_body = Alerts, responses((status = 200, body = Page<Alarm>), Refusal))]
pub async fn receive(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    input::Json(told): input::Json<Alerts>,
) -> Result<Json<Page<Alarm>>, Refusal> {
    caller.may(Action::Alarm, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let by = state.by(&caller.0);
    let states = states(told)?;
    let written = state.store.write(move |tx| {
        let set = |(name, (state, reason)): (AlarmName, (AlarmState, Option<String>))| {
            tx.set_alarm(&tenant, &name, state, reason.as_deref(), &by)
        };
        states
            .into_iter()
            .map(set)
            .collect::<Result<Vec<_>, store::Error>>()
    });
    let items = written.await?.into_iter().map(Alarm::from).collect();
    Ok(Json(Page { items, next: None }))
}

/// How each alarm is that alerts tell of, and why.
fn states(told: Alerts) -> Result<BTreeMap<AlarmName, (AlarmState, Option<String>)>, Refusal> {
    let mut states = BTreeMap::new();
    for alert in told.alerts {
        let name = alert.labels.get("alertname").map_or("", String::as_str);
        let name: AlarmName = name
            .parse()
            .map_err(|error: model::alarm::NotAnAlarm| Refusal::invalid(format!("alertname: {error}")))?;
        let text = |name: &str| alert.annotations.get(name).and_then(|text| tidy(text));
        let reason = text("summary").or_else(|| text("description"));
        let state = match alert.status {
            AlertStatus::Firing => AlarmState::Alarm,
            AlertStatus::Resolved => AlarmState::Ok,
        };
        let known = states.entry(name).or_insert((state, reason.clone()));
        if state == AlarmState::Alarm && known.0 == AlarmState::Ok {
            *known = (state, reason);
        }
    }
    Ok(states)
}

/// Deployments do not mind an alarm for a while: the fix must go out while it rings.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/alarms/{name}/ignore", operation_id = "alarms.ignore", tag = "alarms",
    params(("tenant" = String, Path), ("name" = String, Path)),
    request_body = Ignoring, responses((status = 200, body = Alarm), Refusal))]
pub async fn ignore(
    Held(state): Held<State>,
    caller: Caller,
    Path(path): Path<(TenantName, String)>,
    input::Json(wanted): input::Json<Ignoring>,
) -> Result<Json<Alarm>, Refusal> {
    let (tenant, name) = named(&caller, Action::Develop, path)?;
    let reason = tidy(&wanted.reason).ok_or_else(|| Refusal::invalid("why is it to be ignored?"))?;
    if wanted.for_s > WEEK_S {
        return Err(Refusal::invalid("an alarm is ignored for seven days at most"));
    }
    let by = state.by(&caller.0);
    let until = by.at + SignedDuration::from_secs(wanted.for_s.into());
    let written = state
        .store
        .write(move |tx| tx.ignore_alarm(&tenant, &name, until, &reason, &by));
    Ok(Json(written.await?.into()))
}

/// Forgets an alarm. Where one is named that nobody has told of, deployments do not begin, unless told not to mind.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/alarms/{name}", operation_id = "alarms.remove", tag = "alarms",
    params(("tenant" = String, Path), ("name" = String, Path)), responses((status = 200, body = ()), Refusal))]
pub async fn remove(
    Held(state): Held<State>,
    caller: Caller,
    Path(path): Path<(TenantName, String)>,
) -> Result<Json<()>, Refusal> {
    let (tenant, name) = named(&caller, Action::Develop, path)?;
    let by = state.by(&caller.0);
    let removed = state.store.write(move |tx| tx.remove_alarm(&tenant, &name, &by));
    Ok(Json(removed.await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_alarm_rings_while_one_of_its_alerts_fires() {
        let alert = |status: &str, name: &str, annotations: serde_json::Value| {
            json!({ "status": status, "labels": { "alertname": name, "instance": "a" },
                "annotations": annotations, "startsAt": "2026-01-01T00:00:00Z", "fingerprint": "f" })
        };
        let told = |alerts: Vec<serde_json::Value>| {
            let body = json!({ "version": "4", "groupKey": "{}", "status": "firing", "alerts": alerts });
            states(serde_json::from_value(body).unwrap())
        };
        let all = told(vec![
            alert("resolved", "Errors", json!({ "summary": "well" })),
            alert("firing", "Errors", json!({ "description": "7 %\n fail" })),
            alert("resolved", "Errors", json!({})),
            alert("resolved", "Slow", json!({})),
        ]);
        let all = all.unwrap();
        let of = |name: &str| all[&name.parse::<AlarmName>().unwrap()].clone();
        assert_eq!(of("Errors"), (AlarmState::Alarm, Some("7 %  fail".into())));
        assert_eq!(of("Slow"), (AlarmState::Ok, None));
        assert_eq!(all.len(), 2);
        assert!(told(vec![alert("firing", "", json!({}))]).is_err());
        assert_eq!(tidy(&"x".repeat(9000)).unwrap().len(), REASON);
        assert_eq!(tidy(" \u{1b}[2J "), Some("[2J".into()));
        assert_eq!(tidy("\n"), None);
    }
}
