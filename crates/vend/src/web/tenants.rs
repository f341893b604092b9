//! Tenants.

use axum::{Json, extract::State as Held, http::StatusCode};
use model::{
    TenantName,
    policy::{Action, decide},
    wire::{NewTenant, Page, Started, Tenant},
};

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    scope::keyed,
    state::State,
};

fn wire(tenant: store::Tenant) -> Tenant {
    Tenant {
        name: tenant.name,
        created_at: tenant.created_at,
    }
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
        .write(move |tx| tx.create_tenant(&new.name, &by))
        .await?;
    Ok((StatusCode::CREATED, Json(wire(tenant))))
}

/// The tenants that the caller may see.
#[utoipa::path(get, path = "/v1/tenants", operation_id = "tenants.list", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<Tenant>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Tenant>>, Refusal> {
    let mut tenants = state.store.read(|db| db.tenants()).await?;
    tenants.retain(|tenant| decide(&caller.0, Action::View, Some(&tenant.name)));
    let tenants = tenants.into_iter().map(wire).collect();
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
    let tenant = state.store.read(move |db| db.tenant(&tenant)).await?;
    Ok(Json(wire(tenant)))
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
