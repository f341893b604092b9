//! Hosts and images of the catalogue, and what the load balancer sees of them.

use std::collections::{BTreeMap, HashMap};

use axum::{Json, extract::State as Held};
use model::{
    HostId,
    port::HostSeen,
    wire::{EdgeStatus, EdgeTarget, Host, Image, Page},
};
use store::{Db, HostState};

use super::{
    auth::Caller,
    input::Query,
    refusal::Refusal,
    scope::{Scope, keyed},
    state::State,
};

/// Releases of an environment whose images are listed.
const RELEASES: u32 = 50;

fn wanted(state: HostState) -> &'static str {
    match state {
        HostState::Starting => "starting",
        HostState::Ready => "ready",
        HostState::Serving => "serving",
        HostState::Updating => "updating",
        HostState::Draining => "draining",
        HostState::Kept => "kept",
        HostState::Retired => "retired",
        HostState::Failed => "failed",
    }
}

fn wire(host: store::Host, seen: Option<&HostSeen>) -> Host {
    Host {
        wanted: wanted(host.state).to_owned(),
        reason: host.reason,
        id: host.id,
        place: host.place.into(),
        role: host.role,
        seen: seen.map(|seen| seen.state),
        release: host.release,
        address: host.address.to_string(),
        image: host.image,
        memory_bytes: seen.map(|seen| seen.memory_bytes),
        cpu_ms: seen.map(|seen| seen.cpu_ms),
        pids: seen.map(|seen| seen.pids),
        disk_bytes: seen.and_then(|seen| seen.disk_bytes),
        disk_total_bytes: seen.and_then(|seen| seen.disk_total_bytes),
        created_at: host.created_at,
    }
}

/// Hosts that may exist.
#[utoipa::path(get, path = "/v1/hosts", operation_id = "hosts.list", tag = "hosts", params(Scope),
    responses((status = 200, body = Page<Host>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Host>>, Refusal> {
    let scope = scope.within(&caller)?;
    let place = scope.place();
    let mut hosts = state
        .store
        .read(move |db| db.standing_hosts(place.as_ref()))
        .await?;
    hosts.retain(|host| scope.holds(&host.place));
    // The catalogue is worth showing when the node cannot be asked, too.
    let seen: HashMap<HostId, HostSeen> = match state.sight.hosts().await {
        Ok(seen) => seen.into_iter().map(|seen| (seen.host.clone(), seen)).collect(),
        Err(fault) => {
            tracing::warn!(%fault, "the node cannot say which hosts it has");
            HashMap::new()
        }
    };
    let hosts = hosts.into_iter().map(|host| {
        let seen = seen.get(&host.id);
        wire(host, seen)
    });
    let key = |host: &Host| format!("{} {}", host.place, host.id);
    Ok(Json(keyed(
        hosts.collect(),
        scope.cursor.as_deref(),
        scope.limit(),
        key,
    )))
}

/// Images that the newest releases stand on.
#[utoipa::path(get, path = "/v1/images", operation_id = "images.list", tag = "hosts", params(Scope),
    responses((status = 200, body = Page<Image>), Refusal))]
pub async fn images(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Image>>, Refusal> {
    let scope = scope.within(&caller)?;
    let own = scope.clone();
    let mut images = state.store.read(move |db| images_of(db, &own)).await?;
    // The catalogue is worth showing when the node cannot be asked, too.
    if let Ok(bases) = state.sight.bases().await {
        for image in &mut images {
            image.stale = bases.is_stale(&image.digest, &image.base);
        }
    }
    let key = |image: &Image| format!("{} {}", image.place, image.digest);
    Ok(Json(keyed(images, scope.cursor.as_deref(), scope.limit(), key)))
}

pub(super) fn images_of(db: &Db<'_>, scope: &Scope) -> Result<Vec<Image>, store::Error> {
    let mut images = BTreeMap::new();
    for environment in db.environments(scope.of_app())? {
        let place = environment.place;
        if !scope.holds(&place) {
            continue;
        }
        for release in db.releases(&place, None, RELEASES)? {
            let image = images
                .entry((place.to_string(), release.content.image))
                .or_insert_with(|| Image {
                    digest: release.content.image,
                    place: place.clone().into(),
                    base: release.content.spec.image.base.clone(),
                    stale: false,
                    releases: Vec::new(),
                    created_at: release.content.created_at,
                });
            image.releases.push(release.content.number);
            image.created_at = release.content.created_at;
        }
    }
    Ok(images.into_values().collect())
}

/// Health and traffic of every host, as the load balancer sees it.
#[utoipa::path(get, path = "/v1/edge", operation_id = "edge.status", tag = "hosts", params(Scope),
    responses((status = 200, body = EdgeStatus), Refusal))]
pub async fn edge(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<EdgeStatus>, Refusal> {
    let scope = scope.within(&caller)?;
    let place = scope.place();
    let hosts = state
        .store
        .read(move |db| db.standing_hosts(place.as_ref()))
        .await?;
    let own: HashMap<String, bool> = hosts
        .into_iter()
        .map(|host| (host.id.to_string(), scope.holds(&host.place)))
        .collect();
    let whole = scope.tenant.is_none();
    let targets = state.sight.targets().await?;
    let targets = targets
        .into_iter()
        .filter(|health| *own.get(&health.target.id).unwrap_or(&whole))
        .map(|health| EdgeTarget {
            group: health.group,
            host: health.target.id,
            address: health.target.address.to_string(),
            state: health.state,
            reason: health.reason,
            requests: health.requests,
            errors: health.errors,
            active: health.active,
        });
    Ok(Json(EdgeStatus {
        targets: targets.collect(),
    }))
}
