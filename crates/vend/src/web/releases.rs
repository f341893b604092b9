//! Releases, and pushes as people see them.

use axum::{Json, extract::State as Held};
use model::{
    AppName, EnvironmentName, Place, TenantName,
    policy::Action,
    wire::{Migration, MigrationState, Page, Push, PushState, Release},
};

use super::{
    auth::Caller,
    environments::{Named, allowed},
    input::{Paging, Path, Query},
    refusal::Refusal,
    scope::{number, numbered},
    state::State,
};

pub fn push(push: store::Push) -> Push {
    Push {
        number: push.id,
        tenant: push.tenant,
        app: push.app,
        commit: push.commit,
        pusher: push.pushed_by,
        origin: push.origin,
        state: match push.state {
            store::PushState::Waiting => PushState::Waiting,
            store::PushState::Running => PushState::Running,
            store::PushState::Superseded => PushState::Superseded,
            store::PushState::Done => PushState::Done,
            store::PushState::Failed => PushState::Failed,
            store::PushState::Ignored => PushState::Ignored,
        },
        reason: push.reason,
        environment: push.environment,
        execution: push.execution,
        received_at: push.at,
    }
}

fn wire(release: store::Release) -> Release {
    Release {
        place: release.place.into(),
        number: release.content.number,
        state: release.state,
        commit: release.content.commit,
        image: release.content.image,
        revision: release.content.revision,
        execution: release.execution,
        created_at: release.content.created_at,
        reason: release.reason,
        spec: None,
        migration: None,
    }
}

fn migration(migration: store::Migration) -> Migration {
    Migration {
        script: migration.script,
        state: match migration.state {
            store::MigrationState::Running => MigrationState::Running,
            store::MigrationState::Succeeded => MigrationState::Succeeded,
            store::MigrationState::Failed => MigrationState::Failed,
        },
        irreversible: migration.irreversible,
        host: migration.host,
        reason: migration.reason,
        log: migration.log,
        started_at: migration.started_at,
        ended_at: migration.ended_at,
    }
}

/// Releases of an environment, newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/releases",
    operation_id = "releases.list", tag = "releases",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path), Paging),
    responses((status = 200, body = Page<Release>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Release>>, Refusal> {
    let place = allowed(&caller, Action::View, named)?;
    let (before, limit) = (number(paging.cursor.as_deref())?, paging.limit());
    let releases = state
        .store
        .read(move |db| {
            db.environment(&place)?;
            db.releases(&place, before, limit)
        })
        .await?;
    let number = |release: &store::Release| release.content.number;
    Ok(Json(numbered(releases, limit, number, wire)))
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/releases/{number}",
    operation_id = "releases.show", tag = "releases",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path), ("number" = u64, Path)),
    responses((status = 200, body = Release), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app, environment, number)): Path<(TenantName, AppName, EnvironmentName, u64)>,
) -> Result<Json<Release>, Refusal> {
    let place: Place = allowed(&caller, Action::View, Path((tenant, app, environment)))?;
    let read = state.store.read(move |db| -> Result<_, store::Error> {
        Ok((db.release(&place, number)?, db.migration(&place, number)?))
    });
    let (release, migrated) = read.await?;
    Ok(Json(Release {
        spec: serde_json::to_value(&release.content.spec).ok(),
        migration: migrated.map(migration),
        ..wire(release)
    }))
}
