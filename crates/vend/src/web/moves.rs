//! Environments that move to AWS and back. Who serves them is decided here; what is made there is not.

use axum::{
    Json,
    body::Body,
    extract::State as Held,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::SignedDuration;
use model::{
    Place,
    policy::Action,
    route::TargetState,
    wire::{Arrived, Forwarded, Loaded, Move, NewMove},
};
use serde::Deserialize;

use super::{
    auth::Caller,
    commands::Moving,
    environments::{Named, allowed},
    input::{self, Query},
    refusal::Refusal,
    state::State,
};
use crate::reconcile::routes;

/// For so long nobody is served when whoever closes does not say it: a dump, a load and what comes between.
const CLOSED_S: u32 = 18_000;

/// What is lost on the way back.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Ending {
    /// What was written on AWS since its data went there.
    #[serde(default)]
    lose_writes: bool,
}

async fn wire(state: &State, place: Place) -> Result<Move, Refusal> {
    let own = place.clone();
    let found = state.store.read(move |db| {
        db.environment(&own)?;
        db.find_move(&own)
    });
    let found = found.await?.ok_or_else(|| {
        Refusal::not_found(format!("move of `{place}`"))
            .next(format!("vend move {place} --engine aws --plan"))
    })?;
    let group = routes::elsewhere(&place);
    // Who serves it is worth showing when the load balancer cannot be asked, too.
    let seen = state.sight.targets().await.unwrap_or_default();
    let seen = seen.into_iter().find(|seen| seen.group == group);
    let known = seen.as_ref().filter(|seen| seen.state != TargetState::Initial);
    Ok(Move {
        place: found.place.into(),
        host: found.host,
        release: found.release,
        share: found.share,
        closed: found.closed,
        closed_at: found.closed_at,
        closed_until: found.closed_until,
        torn: found.torn,
        data: found.data,
        healthy: known.map(|seen| seen.state == TargetState::Healthy),
        reason: seen.as_ref().and_then(|seen| seen.reason.clone()),
        requests: seen.as_ref().map_or(0, |seen| seen.requests),
        errors: seen.as_ref().map_or(0, |seen| seen.errors),
        finished_at: found.finished_at,
        began_at: found.began_at,
        began_by: found.began_by,
    })
}

/// Takes a step, which only the platform's operator may: it is their load balancer that speaks to hosts elsewhere.
async fn step(state: &State, caller: &Caller, named: Named, step: Moving) -> Result<Place, Refusal> {
    let place = allowed(caller, Action::Operate, named)?;
    let own = place.clone();
    state.store.read(move |db| db.environment(&own)).await?;
    let by = state.by(&caller.0);
    state.commands.moved(place.clone(), step, by).await?;
    Ok(place)
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move",
    operation_id = "environments.move.show", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = Move), Refusal))]
pub async fn show(Held(state): Held<State>, caller: Caller, named: Named) -> Result<Json<Move>, Refusal> {
    let place = allowed(&caller, Action::View, named)?;
    wire(&state, place).await.map(Json)
}

/// Begins to move an environment to AWS: from now on its load balancer there is probed. Nothing is forwarded yet.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move",
    operation_id = "environments.move.begin", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = NewMove, responses((status = 201, body = Move), Refusal))]
pub async fn begin(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(new): input::Json<NewMove>,
) -> Result<(StatusCode, Json<Move>), Refusal> {
    let host = new.host.to_ascii_lowercase();
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-')
    };
    let is_name = host.len() <= 253 && host.split('.').all(label) && host.contains('.');
    if !is_name || host.parse::<std::net::IpAddr>().is_ok() {
        return Err(Refusal::invalid(format!(
            "`{}` is not the name of a host",
            host.escape_debug()
        )));
    }
    let place = step(&state, &caller, named, Moving::Begin { host }).await?;
    Ok((StatusCode::CREATED, Json(wire(&state, place).await?)))
}

/// Says how the requests of an environment that moves are divided. The load balancer has followed when this answers.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move",
    operation_id = "environments.move.forward", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = Forwarded, responses((status = 200, body = Move), Refusal))]
pub async fn forward(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(forwarded): input::Json<Forwarded>,
) -> Result<Json<Move>, Refusal> {
    let Forwarded {
        share,
        closed,
        closed_s,
    } = forwarded;
    if share > 100 {
        return Err(Refusal::invalid("a share is 0 to 100 percent"));
    }
    let closed_s = closed_s.unwrap_or(CLOSED_S);
    if !(60..=86_400).contains(&closed_s) {
        return Err(Refusal::invalid(
            "nobody is served for 60 to 86400 seconds at most",
        ));
    }
    let closed = closed.then(|| SignedDuration::from_secs(closed_s.into()));
    let place = step(&state, &caller, named, Moving::Serve { share, closed }).await?;
    wire(&state, place).await.map(Json)
}

/// Stops what runs here of an environment that is wholly served by AWS. Its requests go on being forwarded.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move/finish",
    operation_id = "environments.move.finish", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 202, body = Move), Refusal))]
pub async fn finish(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<(StatusCode, Json<Move>), Refusal> {
    let place = step(&state, &caller, named, Moving::Finish).await?;
    Ok((StatusCode::ACCEPTED, Json(wire(&state, place).await?)))
}

/// Starts the hosts of an environment that AWS serves again. Its requests go on being forwarded.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move/reopen",
    operation_id = "environments.move.reopen", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 202, body = Move), Refusal))]
pub async fn reopen(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<(StatusCode, Json<Move>), Refusal> {
    let place = step(&state, &caller, named, Moving::Reopen).await?;
    Ok((StatusCode::ACCEPTED, Json(wire(&state, place).await?)))
}

/// What was counted of a dump: the name of a header.
pub const COUNTED: &str = "vend-counted";

/// All of the data of an environment that moves and serves nobody: SQL, compressed by gzip. The header `vend-counted` says how
/// much it is. From then on nobody writes to it here, until the move has ended or is served here.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move/dump",
    operation_id = "environments.move.dump", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = String, content_type = "application/gzip"), Refusal))]
pub async fn dump(Held(state): Held<State>, caller: Caller, named: Named) -> Result<Response, Refusal> {
    let place = allowed(&caller, Action::Operate, named)?;
    let own = place.clone();
    state.store.read(move |db| db.environment(&own)).await?;
    let (counted, body) = state.commands.dump(place, state.by(&caller.0)).await?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/gzip"),
        (COUNTED, counted.as_str()),
    ];
    Ok((headers, body).into_response())
}

/// Takes in what a dump on AWS wrote: SQL, compressed by gzip, in place of the data here. Only while nobody is served, and
/// the data is on AWS. Until it has arrived, nobody may have it served here.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move/load",
    operation_id = "environments.move.load", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body(content = String, content_type = "application/gzip"),
    responses((status = 200, body = Loaded), Refusal))]
pub async fn load(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    body: Body,
) -> Result<Json<Loaded>, Refusal> {
    let place = allowed(&caller, Action::Operate, named)?;
    let own = place.clone();
    state.store.read(move |db| db.environment(&own)).await?;
    let counted = state.commands.load(place, body, state.by(&caller.0)).await?;
    Ok(Json(Loaded { counted }))
}

/// Says that the data has arrived, with what was counted of it on AWS, which must be what was counted here.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move/arrived",
    operation_id = "environments.move.arrived", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = Arrived, responses((status = 200, body = Move), Refusal))]
pub async fn arrived(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(arrived): input::Json<Arrived>,
) -> Result<Json<Move>, Refusal> {
    let settle = Moving::Settle {
        side: arrived.side,
        counted: arrived.counted,
        since: arrived.closed_at,
    };
    let place = step(&state, &caller, named, settle).await?;
    wire(&state, place).await.map(Json)
}

/// Ends a move: all is served here, and nothing is forwarded any more. What is on AWS stays there.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/move",
    operation_id = "environments.move.end", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path), Ending),
    responses((status = 204), Refusal))]
pub async fn end(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    Query(ending): Query<Ending>,
) -> Result<StatusCode, Refusal> {
    let lose = ending.lose_writes;
    step(&state, &caller, named, Moving::End { lose }).await?;
    Ok(StatusCode::NO_CONTENT)
}
