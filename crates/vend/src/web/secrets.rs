//! Secrets of apps: values go in and never out.

use axum::{Json, extract::State as Held};
use model::{
    AppName, EnvironmentName, TenantName,
    policy::Action,
    wire::{NewSecret, Page, SecretInfo},
};
use serde::Deserialize;
use store::SecretScope;

use super::{
    apps::named,
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    scope::keyed,
    state::State,
};

/// Where a secret applies.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Whose {
    /// Of this environment only; of the whole app when absent.
    #[param(value_type = Option<String>)]
    environment: Option<EnvironmentName>,
}

/// None when it was unset, and is kept only for releases that may come back.
fn wire(secret: store::SecretInfo) -> Option<SecretInfo> {
    let version = secret.current?;
    let set = secret
        .versions
        .into_iter()
        .find(|known| known.version == version)?;
    Some(SecretInfo {
        name: secret.name,
        environment: secret.scope.environment,
        version,
        generated: secret.generated,
        set_at: set.set_at,
        set_by: set.set_by,
    })
}

/// Names and versions of an app's secrets.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/secrets", operation_id = "secrets.list", tag = "secrets",
    params(("tenant" = String, Path), ("app" = String, Path), Paging),
    responses((status = 200, body = Page<SecretInfo>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<SecretInfo>>, Refusal> {
    caller.may(Action::View, Some(&tenant), &named(&tenant, &app))?;
    let secrets = state.store.read(move |db| db.secrets(&tenant, &app)).await?;
    let secrets = secrets.into_iter().filter_map(wire).collect();
    Ok(Json(keyed(
        secrets,
        paging.cursor.as_deref(),
        paging.limit(),
        key,
    )))
}

fn key(secret: &SecretInfo) -> String {
    let environment = secret.environment.as_ref().map_or("", EnvironmentName::as_str);
    format!("{} {environment}", secret.name)
}

/// Refuses what the platform has made up for itself: a database would be locked out.
fn own(secrets: &[store::SecretInfo], scope: &SecretScope, name: &str) -> Result<(), Refusal> {
    let generated = secrets
        .iter()
        .any(|secret| secret.generated && secret.name == name && secret.scope == *scope);
    match generated {
        true => Err(Refusal::conflict(format!("`{name}` is the platform's own"))),
        false => Ok(()),
    }
}

/// Sets a secret. Releases made from now on use it.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/apps/{app}/secrets/{name}", operation_id = "secrets.set", tag = "secrets",
    params(("tenant" = String, Path), ("app" = String, Path), ("name" = String, Path), Whose),
    request_body = NewSecret, responses((status = 200, body = SecretInfo), Refusal))]
pub async fn set(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app, name)): Path<(TenantName, AppName, String)>,
    Query(whose): Query<Whose>,
    input::Json(new): input::Json<NewSecret>,
) -> Result<Json<SecretInfo>, Refusal> {
    caller.may(Action::Develop, Some(&tenant), &named(&tenant, &app))?;
    let by = state.by(&caller.0);
    let scope = SecretScope {
        tenant,
        app,
        environment: whose.environment,
    };
    let set = move |tx: &mut store::Tx<'_>| -> Result<SecretInfo, Refusal> {
        own(&tx.secrets(&scope.tenant, &scope.app)?, &scope, &name)?;
        let version = tx.set_secret(&scope, &name, &new.value, &by)?;
        Ok(SecretInfo {
            name,
            environment: scope.environment,
            version,
            generated: false,
            set_at: by.at,
            set_by: by.actor,
        })
    };
    Ok(Json(state.store.write(set).await?))
}

/// Takes a secret back. Releases that use it keep it while they may come back.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/apps/{app}/secrets/{name}", operation_id = "secrets.unset",
    tag = "secrets",
    params(("tenant" = String, Path), ("app" = String, Path), ("name" = String, Path), Whose),
    responses((status = 200, body = ()), Refusal))]
pub async fn unset(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app, name)): Path<(TenantName, AppName, String)>,
    Query(whose): Query<Whose>,
) -> Result<Json<()>, Refusal> {
    caller.may(Action::Develop, Some(&tenant), &named(&tenant, &app))?;
    let by = state.by(&caller.0);
    let scope = SecretScope {
        tenant,
        app,
        environment: whose.environment,
    };
    let unset = move |tx: &mut store::Tx<'_>| -> Result<(), Refusal> {
        own(&tx.secrets(&scope.tenant, &scope.app)?, &scope, &name)?;
        Ok(tx.unset_secret(&scope, &name, &by)?)
    };
    Ok(Json(state.store.write(unset).await?))
}
