//! Tenants.

use axum::{Json, extract::State as Held, http::StatusCode};
use model::{
    TenantName,
    policy::{Action, decide},
    wire::{Closed, NewTenant, Page, Started, Tenant},
};
use store::Db;

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    scope::keyed,
    state::State,
};

/// As people see what is closed.
pub fn closed(closure: store::Closure) -> Closed {
    Closed {
        whole: closure.whole,
        since: closure.at,
        by: closure.by,
    }
}

fn wire(db: &Db<'_>, tenant: store::Tenant) -> Result<Tenant, store::Error> {
    Ok(Tenant {
        closed: db.closure_of_tenant(&tenant.name)?.map(closed),
        access: Some(tenant.access)
            .filter(|access| !access.is_empty())
            .map(Into::into),
        name: tenant.name,
        created_at: tenant.created_at,
    })
}

/// The tenant as it is now.
pub async fn of(state: &State, name: TenantName) -> Result<Tenant, Refusal> {
    let read = state.store.read(move |db| wire(db, db.tenant(&name)?));
    Ok(read.await?)
}

/// Takes in a customer.
#[utoipa::path(post, path = "/v1/tenants", operation_id = "tenants.create", tag = "tenants",
    request_body = NewTenant,
    responses((status = 201, body = Tenant), Refusal))]
pub async fn create(
    Held(state): Held<State>,
    caller: Caller,
    input::Json(new): input::Json<NewTenant>,
) -> Result<(StatusCode, Json<Tenant>), Refusal> {
    caller.may(Action::Operate, None, "tenant")?;
    let by = state.by(&caller.0);
    let tenant = state
        .store
        .write(move |tx| {
            let tenant = tx.create_tenant(&new.name, &by)?;
            wire(tx, tenant)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(tenant)))
}

/// The tenants that the caller may see.
#[utoipa::path(get, path = "/v1/tenants", operation_id = "tenants.list", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<Tenant>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Tenant>>, Refusal> {
    let read = state.store.read(|db| {
        let tenants = db.tenants()?.into_iter();
        tenants
            .map(|tenant| wire(db, tenant))
            .collect::<Result<Vec<_>, store::Error>>()
    });
    let mut tenants = read.await?;
    tenants.retain(|tenant| decide(&caller.0, Action::View, Some(&tenant.name)));
    let page = keyed(tenants, paging.cursor.as_deref(), paging.limit(), |tenant| {
        tenant.name.to_string()
    });
    Ok(Json(page))
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}", operation_id = "tenants.show", tag = "tenants",
    params(("tenant" = String, Path)),
    responses((status = 200, body = Tenant), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
) -> Result<Json<Tenant>, Refusal> {
    caller.may(Action::View, Some(&tenant), &format!("tenant `{tenant}`"))?;
    of(&state, tenant).await.map(Json)
}

/// Deletes a tenant with everything that it holds.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", operation_id = "tenants.delete", tag = "tenants",
    params(("tenant" = String, Path)),
    responses((status = 202, body = Started), Refusal))]
pub async fn delete(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    caller.may(Action::Operate, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let name = tenant.clone();
    let (apps, found) = state
        .store
        .read(move |db| Ok::<_, store::Error>((db.apps(Some(&name))?, db.tenant(&name)?)))
        .await?;
    let executions = state
        .commands
        .delete_tenant(found.name, state.by(&caller.0))
        .await?;
    for app in apps {
        let removed = state.repositories.remove(&app.tenant, &app.name).await;
        removed.map_err(|error| Refusal::internal(&error))?;
    }
    let started = Started {
        summary: format!("tenant {tenant} is being deleted"),
        executions,
    };
    Ok((StatusCode::ACCEPTED, Json(started)))
}
