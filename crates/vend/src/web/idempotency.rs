//! `Idempotency-Key`: a command that is sent again is not done again, and gets the first answer
//! (draft-ietf-httpapi-idempotency-key-header).

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts as _, Request, State as Held},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::SignedDuration;
use model::{Digest, policy::Principal};
use store::{By, Command};

use super::{
    auth::Caller,
    refusal::{Kind, Refusal, chain},
    router::MAX_BODY_BYTES,
    state::State,
};

/// How long an answer is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Of an answer to a command.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Does a POST with a key once.
pub async fn once(Held(state): Held<State>, request: Request, next: Next) -> Response {
    let has_key = request.headers().contains_key("idempotency-key");
    if request.method() != Method::POST || !has_key {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &state).await {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let (key, body) = match read(&parts, body).await {
        Ok(read) => read,
        Err(refusal) => return refusal.into_response(),
    };
    // A command goes on when its sender has gone: otherwise nobody would know what became of it.
    let work = state
        .tasks
        .spawn(claimed(state.clone(), caller, key, parts, body, next));
    match work.await {
        Ok(response) => response,
        Err(error) => Refusal::internal(&error).into_response(),
    }
}

async fn read(parts: &Parts, body: Body) -> Result<(String, Bytes), Refusal> {
    let key = parts
        .headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok());
    let key = key.map(|key| key.trim().trim_matches('"')).unwrap_or_default();
    if !(1..=200).contains(&key.len()) {
        return Err(Refusal::invalid(
            "an Idempotency-Key has 1 to 200 visible characters",
        ));
    }
    let body = to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|_| Refusal::new(Kind::TooLarge, "the request broke off, or is too large"))?;
    Ok((key.to_owned(), body))
}

async fn claimed(
    state: State,
    Caller(principal): Caller,
    key: String,
    parts: Parts,
    body: Bytes,
    next: Next,
) -> Response {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let digest = Digest::of_parts([parts.method.as_str().as_bytes(), path.as_bytes(), &body]);
    let now = state.now();
    let owner = owner(&principal);
    let (by, own) = (By::new(owner.clone(), now), key.clone());
    let claim = state
        .store
        .write(move |tx| tx.claim_command(&own, &digest, now + KEPT, &by))
        .await;
    match claim {
        Ok(Command::New) => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            keep(&state, owner, key, response).await
        }
        Ok(Command::Done { status, body }) => repeat(status, body),
        Ok(Command::UnderWay) => {
            Refusal::conflict("the first request with this Idempotency-Key is still being done")
                .into_response()
        }
        Ok(Command::Different) => Refusal::new(
            Kind::Unprocessable,
            "this Idempotency-Key was used for another request",
        )
        .into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// Whose keys they are. Tokens of two tenants may have one name.
fn owner(principal: &Principal) -> String {
    let name = format!("{} {:?}", principal.actor, principal.role);
    match &principal.tenant {
        Some(tenant) => store::of_tenant(tenant, &name),
        None => name,
    }
}

/// Keeps an answer, unless the platform failed: then the command may be tried again.
async fn keep(state: &State, actor: String, key: String, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = match to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return Refusal::internal(&error).into_response(),
    };
    let (status, kept) = (parts.status, bytes.clone());
    let written = state
        .store
        .write(move |tx| match status.is_server_error() {
            true => tx.abandon_command(&actor, &key),
            false => tx.answer_command(&actor, &key, status.as_u16(), &kept),
        })
        .await;
    if let Err(error) = written {
        tracing::warn!(error = chain(&error), "the answer of a command could not be kept");
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn repeat(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = match status.is_success() {
        true => "application/json",
        false => "application/problem+json",
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}
