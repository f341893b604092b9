//! Extractors whose refusals are ours.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
    response::IntoResponse,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::refusal::{Kind, Refusal};

/// Why a body is not wholly here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than it may be, or it broke off.
    Broken,
    Late,
}

/// A body of so many bytes at most, wholly here by then.
pub async fn whole(body: Body, most: usize, until: Instant) -> Result<Bytes, Unread> {
    match timeout_at(until, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Unread::Broken),
        Err(_) => Err(Unread::Late),
    }
}

/// A JSON body.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refuse_json(rejection)),
        }
    }
}

fn refuse_json(rejection: JsonRejection) -> Refusal {
    let kind = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        _ => Kind::Invalid,
    };
    // serde's message names the field and the place. A value may be a secret, so it is not repeated: of a text that
    // has a wrong type serde quotes the text.
    let text = rejection.body_text();
    let detail = match text.split_once("invalid type:") {
        Some((before, _)) => format!("{before}a value has the wrong type"),
        None => text,
    };
    Refusal::new(kind, detail)
}

/// Parameters of the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            // A name that cannot be one names nothing.
            Err(rejection) => Err(Refusal::new(Kind::NotFound, rejection.body_text())),
        }
    }
}

/// Parameters after the question mark.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal::invalid(rejection.body_text())),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// At most so many items; 1 to 500, 100 when absent.
    pub limit: Option<u32>,
}

impl Paging {
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 500)
    }
}

/// Nothing is here.
pub async fn nowhere(request: Request) -> axum::response::Response {
    Refusal::new(
        Kind::NotFound,
        format!("there is nothing at {}", request.uri().path()),
    )
    .next("vend --help")
    .into_response()
}

/// Something is here, but not for this method.
pub async fn wrong_method(request: Request) -> axum::response::Response {
    Refusal::new(
        Kind::NotAllowed,
        format!("{} is not possible here", request.method()),
    )
    .into_response()
}
