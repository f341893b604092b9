//! What visitors get while nothing is released: a page in the place of an app, or nothing for those who may not ask.

use axum::{Json, extract::State as Held};
use model::{
    TenantName,
    policy::Action,
    route::{Access, NETWORKS, Network},
    wire::{Allowed, Closing, Environment, Tenant},
};
use store::Door;

use super::{
    auth::Caller,
    environments::{self, Named, allowed},
    input::{self, Path},
    refusal::Refusal,
    state::State,
    tenants,
};

/// Bytes of a page: what the load balancer answers by itself. It is in each rule of a place, and all rules are one table.
const PAGE: usize = 8 * 1024;

async fn close(state: &State, caller: &Caller, door: Door, closing: Closing) -> Result<(), Refusal> {
    if closing.page.as_ref().is_some_and(|page| page.len() > PAGE) {
        return Err(Refusal::invalid(format!("a page has {PAGE} bytes at most")));
    }
    let is_text = |page: &String| {
        !page
            .chars()
            .any(|char| char.is_control() && !"\n\r\t".contains(char))
    };
    if !closing.page.as_ref().is_none_or(is_text) {
        return Err(Refusal::invalid(
            "a page is text: there are no control characters in it",
        ));
    }
    let by = state.by(&caller.0);
    let written = state
        .store
        .write(move |tx| tx.close(&door, closing.page.as_deref(), &by));
    written.await?;
    Ok(state.commands.follow().await?)
}

async fn open(state: &State, caller: &Caller, door: Door) -> Result<(), Refusal> {
    let by = state.by(&caller.0);
    state.store.write(move |tx| tx.open(&door, &by)).await?;
    Ok(state.commands.follow().await?)
}

/// The tenant, if the caller may decide about all that it has.
fn whole(caller: &Caller, Path(tenant): Path<TenantName>) -> Result<TenantName, Refusal> {
    caller.may(Action::Administer, Some(&tenant), &format!("tenant `{tenant}`"))?;
    Ok(tenant)
}

/// Closes an environment: its visitors get a page, with 503, until it is opened. One that is closed gets the new page. The load
/// balancer has followed when this answers.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/closure",
    operation_id = "environments.close", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = Closing, responses((status = 200, body = Environment), Refusal))]
pub async fn close_environment(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(closing): input::Json<Closing>,
) -> Result<Json<Environment>, Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    close(&state, &caller, Door::Environment(place.clone()), closing).await?;
    environments::of_place(&state, place).await.map(Json)
}

/// Opens an environment that was closed by itself.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/closure",
    operation_id = "environments.open", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = Environment), Refusal))]
pub async fn open_environment(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<Json<Environment>, Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    open(&state, &caller, Door::Environment(place.clone())).await?;
    environments::of_place(&state, place).await.map(Json)
}

/// Closes all that a tenant has.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/closure", operation_id = "tenants.close", tag = "tenants",
    params(("tenant" = String, Path)),
    request_body = Closing, responses((status = 200, body = Tenant), Refusal))]
pub async fn close_tenant(
    Held(state): Held<State>,
    caller: Caller,
    named: Path<TenantName>,
    input::Json(closing): input::Json<Closing>,
) -> Result<Json<Tenant>, Refusal> {
    let tenant = whole(&caller, named)?;
    close(&state, &caller, Door::Tenant(tenant.clone()), closing).await?;
    tenants::of(&state, tenant).await.map(Json)
}

/// Opens a tenant that was closed. Environments that are closed by themselves stay so.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/closure", operation_id = "tenants.open", tag = "tenants",
    params(("tenant" = String, Path)), responses((status = 200, body = Tenant), Refusal))]
pub async fn open_tenant(
    Held(state): Held<State>,
    caller: Caller,
    named: Path<TenantName>,
) -> Result<Json<Tenant>, Refusal> {
    let tenant = whole(&caller, named)?;
    open(&state, &caller, Door::Tenant(tenant.clone())).await?;
    tenants::of(&state, tenant).await.map(Json)
}

/// Says who may ask for anything of a tenant, in the place of what was said before. Its environments may let in fewer, as
/// their `vend.yaml`s say.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/access", operation_id = "tenants.access", tag = "tenants",
    params(("tenant" = String, Path)),
    request_body = Allowed, responses((status = 200, body = Tenant), Refusal))]
pub async fn access(
    Held(state): Held<State>,
    caller: Caller,
    named: Path<TenantName>,
    input::Json(wanted): input::Json<Allowed>,
) -> Result<Json<Tenant>, Refusal> {
    let tenant = whole(&caller, named)?;
    let access = Access {
        allow: networks(&wanted.allow)?,
        deny: networks(&wanted.deny)?,
    };
    let (name, by) = (tenant.clone(), state.by(&caller.0));
    let written = state.store.write(move |tx| tx.set_access(&name, &access, &by));
    written.await?;
    state.commands.follow().await?;
    tenants::of(&state, tenant).await.map(Json)
}

fn networks(texts: &[String]) -> Result<Vec<Network>, Refusal> {
    if texts.len() > NETWORKS {
        return Err(Refusal::invalid(format!(
            "a list has {NETWORKS} networks at most"
        )));
    }
    let read = |text: &String| {
        Network::exact(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "`{}` is not an address or a network, such as 192.0.2.0/24",
                text.escape_debug()
            ))
        })
    };
    texts.iter().map(read).collect()
}
