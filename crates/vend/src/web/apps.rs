//! Apps.

use axum::{Json, extract::State as Held, http::StatusCode};
use model::{
    AppName, TenantName,
    policy::Action,
    wire::{App, NewApp, Page, Push, Started, Why},
};

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    releases,
    scope::{keyed, number, numbered},
    state::State,
    why,
};

fn wire(app: store::App, state: &State) -> App {
    let place = format!("{}/{}", app.tenant, app.name);
    App {
        git_url: format!("{}/git/{place}.git", state.url),
        hooks: ["github", "gitlab"]
            .map(|provider| format!("{}/hooks/{provider}/{place}", state.url))
            .into(),
        repository: app.repository,
        tenant: app.tenant,
        name: app.name,
        created_at: app.created_at,
    }
}

/// How an app that is not there, or not to be seen, is called.
pub fn named(tenant: &TenantName, app: &AppName) -> String {
    format!("app `{tenant}/{app}`")
}

/// A password in a URL would be in every list, in the ledger, and on git's command line.
fn has_password(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    // The user of an HTTP URL is often the token itself.
    user.is_some_and(|user| scheme != "ssh" || user.contains(':'))
}

#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps", operation_id = "apps.create", tag = "apps",
    params(("tenant" = String, Path)), request_body = NewApp,
    responses((status = 201, body = App), Refusal))]
pub async fn create(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    input::Json(new): input::Json<NewApp>,
) -> Result<(StatusCode, Json<App>), Refusal> {
    caller.may(Action::Develop, Some(&tenant), &format!("tenant `{tenant}`"))?;
    if new.repository.as_deref().is_some_and(has_password) {
        return Err(Refusal::invalid(
            "the URL holds a password: repositories that ask for one are not available yet",
        )
        .next("use a repository that is read without one, or push here"));
    }
    if let Some(url) = &new.repository {
        let admitted = state.remotes.of(&tenant).admit(url);
        admitted.map_err(|error| Refusal::invalid(error.to_string()))?;
    }
    let (by, built_in) = (state.by(&caller.0), new.repository.is_none());
    let (owner, name) = (tenant.clone(), new.name.clone());
    let there = state
        .store
        .read(move |db| {
            db.tenant(&owner)?;
            let apps = db.apps(Some(&owner))?;
            Ok::<_, store::Error>(apps.iter().any(|app| app.name == name))
        })
        .await?;
    if !there {
        // What an app of that name left behind belongs to nobody.
        let removed = state.repositories.remove(&tenant, &new.name).await;
        removed.map_err(|error| Refusal::internal(&error))?;
    }
    let app = state
        .store
        .write(move |tx| tx.create_app(&tenant, &new.name, new.repository.as_deref(), &by))
        .await?;
    if built_in {
        let made = state.repositories.ensure(&app.tenant, &app.name).await;
        made.map_err(|error| Refusal::internal(&error))?;
    }
    Ok((StatusCode::CREATED, Json(wire(app, &state))))
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps", operation_id = "apps.list", tag = "apps",
    params(("tenant" = String, Path), Paging),
    responses((status = 200, body = Page<App>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Path(tenant): Path<TenantName>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<App>>, Refusal> {
    caller.may(Action::View, Some(&tenant), &format!("tenant `{tenant}`"))?;
    let apps = state
        .store
        .read(move |db| db.tenant(&tenant).and_then(|tenant| db.apps(Some(&tenant.name))))
        .await?;
    let apps = apps.into_iter().map(|app| wire(app, &state)).collect();
    let page = keyed(apps, paging.cursor.as_deref(), paging.limit(), |app: &App| {
        app.name.to_string()
    });
    Ok(Json(page))
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}", operation_id = "apps.show", tag = "apps",
    params(("tenant" = String, Path), ("app" = String, Path)),
    responses((status = 200, body = App), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
) -> Result<Json<App>, Refusal> {
    caller.may(Action::View, Some(&tenant), &named(&tenant, &app))?;
    let app = state.store.read(move |db| db.app(&tenant, &app)).await?;
    Ok(Json(wire(app, &state)))
}

/// Deletes an app with its repository, environments, hosts and databases.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/apps/{app}", operation_id = "apps.delete", tag = "apps",
    params(("tenant" = String, Path), ("app" = String, Path)),
    responses((status = 202, body = Started), Refusal))]
pub async fn delete(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    caller.may(Action::Administer, Some(&tenant), &named(&tenant, &app))?;
    let found = {
        let (tenant, app) = (tenant.clone(), app.clone());
        state.store.read(move |db| db.app(&tenant, &app)).await?
    };
    let by = state.by(&caller.0);
    let executions = state.commands.delete_app(found.tenant, found.name, by).await?;
    let removed = state.repositories.remove(&tenant, &app).await;
    removed.map_err(|error| Refusal::internal(&error))?;
    let started = Started {
        summary: format!("app {tenant}/{app} is being deleted"),
        executions,
    };
    Ok((StatusCode::ACCEPTED, Json(started)))
}

/// What was pushed, newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/pushes", operation_id = "pushes.list", tag = "releases",
    params(("tenant" = String, Path), ("app" = String, Path), Paging),
    responses((status = 200, body = Page<Push>), Refusal))]
pub async fn pushes(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Push>>, Refusal> {
    caller.may(Action::View, Some(&tenant), &named(&tenant, &app))?;
    let (before, limit) = (number(paging.cursor.as_deref())?, paging.limit());
    let pushes = state
        .store
        .read(move |db| db.pushes(&tenant, &app, None, before, limit))
        .await?;
    Ok(Json(numbered(pushes, limit, |push| push.id, releases::push)))
}

/// Why the app is as it is, and what to type.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/why", operation_id = "apps.why", tag = "apps",
    params(("tenant" = String, Path), ("app" = String, Path)),
    responses((status = 200, body = Why), Refusal))]
pub async fn why(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
) -> Result<Json<Why>, Refusal> {
    caller.may(Action::View, Some(&tenant), &named(&tenant, &app))?;
    Ok(Json(why::of(&state, tenant, app).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_seen() {
        for (url, expected) in [
            ("https://git.example/a.git", false),
            ("ssh://git@git.example/a.git", false),
            ("git@git.example:a.git", false),
            ("https://git.example/a@b:c.git", false),
            ("https://u:p@git.example/a.git", true),
            ("https://glpat-x@git.example/a.git", true),
            ("ssh://u:p@git.example/a.git", true),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }
}
