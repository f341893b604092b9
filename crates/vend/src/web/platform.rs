//! The platform itself: its version and how it is.

use axum::{Json, extract::State as Held};
use model::{
    policy::Action,
    port::Fault,
    wire::{Health, RoleHealth, Version},
};

use super::{auth::Caller, refusal::Refusal, state::State};

#[utoipa::path(get, path = "/v1/version", operation_id = "version", tag = "platform",
    responses((status = 200, body = Version), Refusal))]
pub async fn version(Held(state): Held<State>, _: Caller) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        url: state.url.clone(),
    })
}

/// Whether every role answers.
#[utoipa::path(get, path = "/v1/health", operation_id = "health", tag = "platform",
    responses((status = 200, body = Health), Refusal))]
pub async fn health(Held(state): Held<State>, caller: Caller) -> Result<Json<Health>, Refusal> {
    let own = caller.0.tenant.clone();
    caller.may(Action::View, own.as_ref(), "platform")?;
    let sight = &state.sight;
    let (hosts, unbound, preparing) = tokio::join!(sight.hosts(), sight.unbound(), sight.preparing());
    let store = state.store.read(|db| db.ledger_head()).await;
    let roles = vec![
        role("serve", store.err().map(|error| error.to_string())),
        node(hosts.and(preparing)),
        edge(unbound),
    ];
    Ok(Json(Health {
        ok: roles.iter().all(|role| role.ok),
        roles,
    }))
}

/// A node that still prepares works already: whoever needs what it makes waits for it.
fn node(preparing: Result<Option<String>, Fault>) -> RoleHealth {
    match preparing {
        Ok(what) => RoleHealth {
            reason: what.map(|what| format!("preparing: {what}")),
            ..role("node", None)
        },
        Err(fault) => role("node", Some(fault.message)),
    }
}

/// An edge that cannot be reached somewhere serves everywhere else.
fn edge(unbound: Result<Vec<String>, Fault>) -> RoleHealth {
    match unbound {
        Ok(closed) => RoleHealth {
            reason: (!closed.is_empty()).then(|| closed.join("; ")),
            ..role("edge", None)
        },
        Err(fault) => role("edge", Some(fault.message)),
    }
}

fn role(name: &str, reason: Option<String>) -> RoleHealth {
    RoleHealth {
        role: name.to_owned(),
        ok: reason.is_none(),
        reason,
    }
}

/// For whoever waits until the platform is there: says nothing to anybody about anything.
pub async fn alive() -> &'static str {
    "ok\n"
}
