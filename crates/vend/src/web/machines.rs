//! Registered machines: who is let in, which there are, and how they go.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Held, http::StatusCode};
use host::machine::{Report, Seen};
use jiff::SignedDuration;
use model::{
    HostId, TenantName,
    policy::Action,
    spec::is_label,
    wire::{Invitation, Machine, NewInvitation, Page, Usage},
};

use super::{
    auth::Caller,
    input::{self, Path, Query},
    refusal::Refusal,
    scope::{Scope, keyed},
    state::State,
};
use crate::flow::late;

/// Of an invitation.
const USUAL: u32 = 3600;
const LONGEST: u32 = 7 * 24 * 3600;
/// Of one machine.
const LABELS: usize = 20;

fn wire(state: &State, machine: store::Machine) -> Machine {
    let seen = state.sight.machine(&machine.id);
    let next_try = late::next_try(&machine);
    Machine {
        state: presence(machine.leaving, seen).to_owned(),
        address: address(seen, machine.address),
        usage: seen.and_then(|seen| seen.report).map(used),
        id: machine.id,
        tenant: machine.tenant,
        name: machine.name,
        labels: machine.labels,
        place: machine.place.map(Into::into),
        release: machine.release,
        next_try,
        tries: machine.tries,
        failure: machine.failure,
        joined_at: machine.joined_at,
        seen_at: machine.seen_at,
    }
}

/// What a machine that dials does, whatever it is for.
pub fn presence(leaving: bool, seen: Option<Seen>) -> &'static str {
    match (leaving, seen) {
        (true, _) => "leaving",
        (false, Some(_)) => "connected",
        (false, None) => "away",
    }
}

/// Where it dials from, or did last.
pub fn address(seen: Option<Seen>, last: Option<String>) -> Option<String> {
    seen.map(|seen| seen.address.ip().to_string()).or(last)
}

fn used(report: Report) -> Usage {
    let (usage, disk) = (report.usage, report.disk);
    Usage {
        cpu_percent: report.cpu_percent,
        cpu_ms: usage.map(|usage| usage.cpu_ms),
        cores: usage.map(|usage| usage.cores),
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        memory_total_bytes: usage.map(|usage| usage.memory_total_bytes),
        disk_bytes: disk.map(|disk| disk.used_bytes),
        disk_total_bytes: disk.map(|disk| disk.total_bytes),
    }
}

/// Lets one machine of the tenant in. The token is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/machines/invitations", operation_id = "machines.invite", tag = "hosts",
    params(("tenant" = String, Path)), request_body = NewInvitation,
    responses((status = 201, body = Invitation), Refusal))]
pub async fn invite(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    input::Json(new): input::Json<NewInvitation>,
) -> Result<(StatusCode, Json<Invitation>), Refusal> {
    caller.may(Action::Administer, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let seconds = lasting(new.expires_in)?;
    check(&new.labels)?;
    let by = state.by(&caller.0);
    let expires_at = by.at + SignedDuration::from_secs(seconds.into());
    let wanted = store::NewInvitation {
        tenant,
        labels: new.labels,
        expires_at,
    };
    let ticket = state.commands.invite(wanted, by).await?;
    let invitation = Invitation {
        token: ticket.text,
        url: ticket.url,
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(invitation)))
}

/// How long an invitation is good, in seconds.
pub fn lasting(wanted: Option<u32>) -> Result<u32, Refusal> {
    let seconds = wanted.unwrap_or(USUAL);
    match (1..=LONGEST).contains(&seconds) {
        true => Ok(seconds),
        false => Err(Refusal::invalid("an invitation ends after 1 second to 7 days")),
    }
}

/// Labels as an invitation gives them.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let wrong = labels
        .iter()
        .find(|(name, value)| !is_label(name) || !is_label(value));
    if let Some((name, value)) = wrong {
        let text = format!(
            "`{name}={value}` is not a label: both are letters, digits, `.`, `_` and `-`, at most 63 of them"
        );
        return Err(Refusal::invalid(text));
    }
    match labels.len() {
        0..=LABELS => Ok(()),
        _ => Err(Refusal::invalid(format!("a machine has at most {LABELS} labels"))),
    }
}

/// Registered machines.
#[utoipa::path(get, path = "/v1/machines", operation_id = "machines.list", tag = "hosts", params(Scope),
    responses((status = 200, body = Page<Machine>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Machine>>, Refusal> {
    let scope = scope.within(&caller)?;
    let tenant = scope.tenant.clone();
    let mut machines = state.store.read(move |db| db.machines(tenant.as_ref())).await?;
    if scope.app.is_some() {
        machines.retain(|machine| machine.place.as_ref().is_some_and(|place| scope.holds(place)));
    }
    let machines = machines
        .into_iter()
        .map(|machine| wire(&state, machine))
        .collect();
    let key = |machine: &Machine| format!("{} {}", machine.tenant, machine.id);
    Ok(Json(keyed(machines, scope.cursor.as_deref(), scope.limit(), key)))
}

/// Removes a machine: it gets nothing new, its app is stopped by its own scripts, and nobody knows its key any more.
#[utoipa::path(delete, path = "/v1/machines/{id}", operation_id = "machines.remove", tag = "hosts",
    params(("id" = String, Path)),
    responses((status = 202, body = Machine), Refusal))]
pub async fn remove(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<HostId>,
) -> Result<(StatusCode, Json<Machine>), Refusal> {
    let what = format!("machine `{id}`");
    let own = id.clone();
    let found = state.store.read(move |db| db.machine(&own)).await?;
    caller.may(Action::Administer, Some(&found.tenant), &what)?;
    state.commands.remove_machine(id, state.by(&caller.0)).await?;
    let leaving = store::Machine {
        leaving: true,
        ..found
    };
    Ok((StatusCode::ACCEPTED, Json(wire(&state, leaving))))
}
