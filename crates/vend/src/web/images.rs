//! Images: what they hold, what was signed about them, and in and out.
//!
//! An image belongs to the tenants whose apps have baked it or have a release on it; to everybody else it is not there. It is what it holds: two
//! tenants may have made the same, and each sees it by its own names.

use axum::{
    Json,
    body::Body,
    extract::{Path, State as Held},
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use host::oci::attached;
use model::{
    Digest,
    ledger::Deed,
    policy::Action,
    port::{Blame, Fault, ImageDiff, ImageExport},
    spec::Base,
    wire::{Bases, ImageApp, ImageShown, Imported, ImportedStatement, NewRefresh, Refreshed},
};
use serde::Deserialize;
use store::{Attestation, Origin};

use super::{
    auth::Caller,
    hosts::images_of,
    input::{self, Query},
    refusal::{Kind, Refusal},
    scope::Scope,
    state::State,
};

/// What an image came from in the apps of the caller's scope, which each know it by their own names. Without a tenant there may
/// be none: it was taken in, or is the platform's own.
///
/// # Errors
///
/// No app of the caller's tenant has made it.
async fn seen(state: &State, caller: &Caller, image: Digest) -> Result<Vec<Origin>, Refusal> {
    let scope = Scope::default().within(caller)?;
    let of_tenant = scope.tenant.is_some();
    let read = state
        .store
        .read(move |db| db.image_origins(&image, scope.of_app()));
    let origins = read.await?;
    match origins.is_empty() && of_tenant {
        true => Err(Refusal::not_found(format_args!("image {image}")).next("vend images list")),
        false => Ok(origins),
    }
}

/// The node refuses to show what is not there in only one way: there is no such image.
fn missing(fault: Fault) -> Refusal {
    let kind = match fault.blame {
        Blame::Order => Kind::NotFound,
        _ => return fault.into(),
    };
    Refusal {
        next: fault.next,
        ..Refusal::new(kind, fault.message)
    }
}

/// What an image is made of, and what was signed about it.
#[utoipa::path(get, path = "/v1/images/{digest}", operation_id = "images.show", tag = "images",
    params(("digest" = String, Path)), responses((status = 200, body = ImageShown), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(image): Path<Digest>,
) -> Result<Json<ImageShown>, Refusal> {
    let origins = seen(&state, &caller, image).await?;
    let about = state.sight.image(image).await.map_err(missing)?;
    let scope = Scope::default().within(&caller)?;
    let signed = state
        .store
        .read(move |db| db.attestations(&image, scope.of_app()))
        .await?;
    let apps = origins.iter().map(|origin| ImageApp {
        tenant: origin.tenant.clone(),
        app: origin.app.clone(),
        commit: origin.content.commit.clone(),
    });
    let apps = apps.collect();
    let about = match origins.first() {
        Some(origin) => {
            let mut about = about.of(&origin.content);
            about.stale = state.sight.bases().await?.is_stale(&image, &about.base);
            about
        }
        // Taken in, or the platform's own.
        None => about,
    };
    Ok(Json(ImageShown {
        about,
        apps,
        attestations: signed.into_iter().map(|one| one.envelope).collect(),
    }))
}

/// The bill of materials of an image, as SPDX 2.3.
#[utoipa::path(get, path = "/v1/images/{digest}/bill", operation_id = "images.bill", tag = "images",
    params(("digest" = String, Path)), responses((status = 200, body = Object), Refusal))]
pub async fn bill(
    Held(state): Held<State>,
    caller: Caller,
    Path(image): Path<Digest>,
) -> Result<Json<serde_json::Value>, Refusal> {
    seen(&state, &caller, image).await?;
    Ok(Json(state.sight.bill(image).await.map_err(missing)?))
}

/// What differs between two images.
#[utoipa::path(get, path = "/v1/images/{digest}/diff/{other}", operation_id = "images.diff", tag = "images",
    params(("digest" = String, Path), ("other" = String, Path)), responses((status = 200, body = ImageDiff), Refusal))]
pub async fn diff(
    Held(state): Held<State>,
    caller: Caller,
    Path((before, after)): Path<(Digest, Digest)>,
) -> Result<Json<ImageDiff>, Refusal> {
    seen(&state, &caller, before).await?;
    seen(&state, &caller, after).await?;
    Ok(Json(state.sight.compare(before, after).await.map_err(missing)?))
}

/// The bases that are known: the platform's own, and those of the caller.
#[utoipa::path(get, path = "/v1/bases", operation_id = "bases.list", tag = "images",
    responses((status = 200, body = Bases), Refusal))]
pub async fn bases(Held(state): Held<State>, caller: Caller) -> Result<Json<Bases>, Refusal> {
    let scope = Scope::default().within(&caller)?;
    let mut seen = state.sight.bases().await?;
    let own = scope.tenant.clone();
    let images = state.store.read(move |db| images_of(db, &scope)).await?;
    let stale = images
        .into_iter()
        .filter(|image| seen.is_stale(&image.digest, &image.base))
        .map(|image| image.digest)
        .collect();
    if let Some(own) = &own {
        seen.bases
            .retain(|base| base.tenant.as_ref().is_none_or(|tenant| tenant == own));
    }
    Ok(Json(Bases {
        bases: seen.bases,
        stale,
    }))
}

/// Looks now whether the bases of live releases have become others. What stands on one that has is made again, as its
/// own `vend.yaml` wants. Answers when all were looked at, which may take minutes.
#[utoipa::path(post, path = "/v1/bases/refresh", operation_id = "bases.refresh", tag = "images",
    request_body = NewRefresh, responses((status = 200, body = Refreshed), Refusal))]
pub async fn refresh(
    Held(state): Held<State>,
    caller: Caller,
    input::Json(new): input::Json<NewRefresh>,
) -> Result<Json<Refreshed>, Refusal> {
    caller.may(Action::Operate, None, "platform")?;
    if let Some(base) = &new.base {
        let why = |error| Refusal::invalid(format!("`{base}` is no base: {error}"));
        base.parse::<Base>().map_err(why)?;
    }
    let by = state.by(&caller.0);
    Ok(Json(state.commands.refresh_bases(new.base, by).await?))
}

/// How an image is written.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Exporting {
    /// `gzip` (when absent), `zstd` or `none`.
    compression: Option<String>,
    /// What the image is called in the layout; `latest` when absent.
    tag: Option<String>,
    /// Without its bill of materials and what was signed about it.
    alone: Option<bool>,
}

/// An image as a tar of an OCI layout, with its bill of materials and what was signed about it for the app whose names it has.
#[utoipa::path(get, path = "/v1/images/{digest}/export", operation_id = "images.export", tag = "images",
    params(("digest" = String, Path), Exporting),
    responses((status = 200, body = String, content_type = "application/x-tar"), Refusal))]
pub async fn export(
    Held(state): Held<State>,
    caller: Caller,
    Path(image): Path<Digest>,
    Query(how): Query<Exporting>,
) -> Result<Response, Refusal> {
    let origin = seen(&state, &caller, image).await?.into_iter().next();
    let plain = |text: &String| {
        text.len() <= 128
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let compression = how.compression.unwrap_or_else(|| "gzip".to_owned());
    if !["gzip", "zstd", "none"].contains(&compression.as_str()) {
        return Err(Refusal::invalid("the compression is `gzip`, `zstd` or `none`"));
    }
    if !how.tag.as_ref().is_none_or(plain) {
        return Err(Refusal::invalid("a tag is letters, digits and `._-`"));
    }
    let told = match how.alone {
        Some(true) => None,
        _ => Some(told(&state, image, origin.as_ref()).await?),
    };
    let statements = told.as_ref().map_or(0, Vec::len);
    let how = ImageExport {
        compression,
        tag: how.tag,
        origin: origin.map(|origin| origin.content),
        told,
    };
    let body = state.sight.export(image, how).await.map_err(missing)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (STATEMENTS, statements.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// How many signed statements an export has.
pub const STATEMENTS: HeaderName = HeaderName::from_static("vend-statements");

/// What was signed about an image for the app whose names it has, and for no other that has the same files. What no app has
/// made nobody has said anything of.
async fn told(
    state: &State,
    image: Digest,
    origin: Option<&Origin>,
) -> Result<Vec<serde_json::Value>, Refusal> {
    let Some((tenant, app)) = origin.map(|of| (of.tenant.clone(), of.app.clone())) else {
        return Ok(Vec::new());
    };
    let signed = state
        .store
        .read(move |db| db.attestations(&image, Some((&tenant, Some(&app)))));
    Ok(newest(signed.await?))
}

/// What goes with an image, oldest first: the newest of each kind. It has a verdict for each release that stood on it, however
/// many these are; all that goes is as much as is read of an image elsewhere.
fn newest(signed: Vec<Attestation>) -> Vec<serde_json::Value> {
    const OF_EACH: usize = 20;
    let mut kept: Vec<Attestation> = Vec::new();
    for one in signed.into_iter().rev() {
        let same = kept.iter().filter(|other| other.predicate == one.predicate);
        if same.count() < OF_EACH {
            kept.push(one);
        }
    }
    kept.into_iter().rev().map(|one| one.envelope).collect()
}

/// Takes in an image: the body is a tar of an OCI layout.
#[utoipa::path(put, path = "/v1/images", operation_id = "images.import", tag = "images",
    request_body(content = String, content_type = "application/x-tar"),
    responses((status = 200, body = Imported), Refusal))]
pub async fn import(Held(state): Held<State>, caller: Caller, body: Body) -> Result<Json<Imported>, Refusal> {
    caller.may(Action::Operate, None, "platform")?;
    let taken = state.sight.import(body).await?;
    let image = taken.image;
    let deed = Deed {
        actor: caller.0.actor.clone(),
        action: "image.import".to_owned(),
        tenant: None,
        object: image.to_string(),
        detail: serde_json::json!({}),
    };
    let now = state.now();
    state.store.write(move |tx| tx.record(deed, now)).await?;
    let statements = state.store.read(move |db| {
        let own = taken.told.iter().map(|envelope| ImportedStatement {
            about: attached::predicate(envelope),
            own: db.has_signed(&image, envelope),
        });
        Ok::<_, store::Error>(own.collect())
    });
    Ok(Json(Imported {
        image,
        bill: taken.bill,
        statements: statements.await?,
        warning: taken.warning,
    }))
}
