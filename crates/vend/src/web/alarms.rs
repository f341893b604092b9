//! How alarms are, told by whoever measures. What they end is decided elsewhere.

mod alerts;
mod pace;

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest as _, Request, State as Held},
};
use jiff::SignedDuration;
use model::{
    AlarmName, TenantName, alarm,
    policy::{self, Action},
    wire::{Alarm, Alerts, AlertsTaken, Ignoring, NewAlarm, Page},
};
use tokio::time::{Instant, timeout_at};

pub use pace::Pace;

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query, Unread},
    refusal::{Kind, Refusal},
    scope::keyed,
    state::State,
};

/// Characters of a reason that are kept.
const REASON: usize = 500;
const WEEK_S: u32 = 7 * 24 * 3600;
/// Of a post of alerts: a group of Alertmanager's may have thousands.
pub const MAX_ALERTS_BYTES: usize = 4 * 1024 * 1024;
/// Within which it must be here, the wait for others of the tenant included.
const READ: Duration = Duration::from_secs(10);

/// The tenant and the alarm, if the caller may do `action` there.
fn named(
    caller: &Caller,
    action: Action,
    (tenant, name): (TenantName, String),
) -> Result<(TenantName, AlarmName), Refusal> {
    caller.may(action, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let name = name
        .parse()
        .map_err(|error: alarm::NotAnAlarm| Refusal::invalid(error.to_string()))?;
    Ok((tenant, name))
}

/// An alarm as the caller may see it: who tells only is not told what others decided of it.
fn shown(caller: &Caller, tenant: &TenantName, alarm: alarm::Alarm) -> Alarm {
    let ignored = alarm
        .ignored
        .filter(|_| policy::decide(&caller.0, Action::View, Some(tenant)));
    Alarm::from(alarm::Alarm { ignored, ..alarm })
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
    state.pace.admit(&caller.0, by.at)?;
    let reason = new.reason.as_deref().and_then(tidy);
    let (own, teller) = (tenant.clone(), by.clone());
    let written = state
        .store
        .write(move |tx| tx.set_alarm(&own, &name, new.state, reason.as_deref(), &teller))
        .await?;
    state.pace.pay(&caller.0, by.at, std::slice::from_ref(&written));
    Ok(Json(shown(&caller, &tenant, written)))
}

/// Takes what Prometheus' Alertmanager posts to a webhook: 4 MiB at most. An alarm is in alarm while an alert of any group
/// fires that has its name. What cannot be taken of a post is passed over, and said.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/alarms", operation_id = "alarms.receive", tag = "alarms",
    params(("tenant" = String, Path)),
    request_body = Alerts, responses((status = 200, body = AlertsTaken), Refusal))]
pub async fn receive(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    request: Request,
) -> Result<Json<AlertsTaken>, Refusal> {
    caller.may(Action::Alarm, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let by = state.by(&caller.0);
    state.pace.admit(&caller.0, by.at)?;
    let (parts, body) = request.into_parts();
    let turns = state.pace.readers(&tenant);
    let late = || {
        Refusal::new(
            Kind::Busy,
            format!("the post was not here within {} s", READ.as_secs()),
        )
    };
    let until = Instant::now() + READ;
    let bytes = {
        let turn = timeout_at(until, turns.acquire()).await.map_err(|_| late())?;
        let _turn = turn.expect("nobody closes it");
        let read = input::whole(body, MAX_ALERTS_BYTES, until).await;
        read.map_err(|unread| match unread {
            Unread::Late => late(),
            Unread::Broken => Refusal::new(Kind::TooLarge, "the post is over 4 MiB, or it broke off"),
        })?
    };
    let (told, mut passed_over) = {
        let _turn = state.alert_calls.acquire().await.expect("nobody closes it");
        let request = Request::from_parts(parts, Body::from(bytes));
        let input::Json(told) = input::Json::<Alerts>::from_request(request, &()).await?;
        alerts::read(told)
    };
    if let (true, Some(why)) = (told.alarms.is_empty(), passed_over.first()) {
        return Err(Refusal::invalid(why.clone()));
    }
    let (own, teller) = (tenant.clone(), by.clone());
    let written = state.store.write(move |tx| tx.hear_alarms(&own, &told, &teller));
    let heard = written.await?;
    state.pace.pay(&caller.0, by.at, &heard.alarms);
    passed_over.extend(alerts::left(&tenant, &heard));
    passed_over.truncate(alerts::SAID);
    if let Some(first) = passed_over.first() {
        tracing::info!(%tenant, by.actor, "of a post of alerts of {tenant} something is passed over: {first}");
    }
    let items = heard.alarms.into_iter();
    Ok(Json(AlertsTaken {
        items: items.map(|alarm| shown(&caller, &tenant, alarm)).collect(),
        passed_over,
    }))
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
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_a_terminal_may_show() {
        assert_eq!(tidy(&"x".repeat(9000)).unwrap().len(), REASON);
        assert_eq!(tidy(" \u{1b}[2J "), Some("[2J".into()));
        assert_eq!(tidy("\n"), None);
    }
}
