//! The console: pages for people who would rather look. Made here, read-only, live by server-sent events.
//!
//! The room shows what `/v1` and the Step Functions API answer, and asks their handlers: who may see what is decided
//! there. It has no database access of its own where a handler has the answer, and it changes nothing.

mod door;
mod frame;
mod live;
mod machines;
mod releases;
mod seats;

pub use seats::Seats;

use axum::{
    Router,
    http::header,
    middleware,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};

use super::state::State;

/// Bytes of a form.
const MAX_FORM_BYTES: usize = 4096;

pub fn pages() -> Router<State> {
    Router::new()
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(releases::overview))
        .route("/console/executions/{execution}", get(releases::execution))
        .route("/console/logs/{*log}", get(releases::log))
        .route("/console/machines", get(machines::list))
        .route("/console/machines/{tenant}/{machine}", get(machines::machine))
        .route("/console/runs/{key}", get(machines::run))
        .route("/console/sign-in", get(door::page).post(door::sign_in))
        .route("/console/sign-out", post(door::sign_out))
        .route(
            "/console/console.css",
            get(|| fixed("text/css", include_str!("console/console.css"))),
        )
        .route(
            "/console/console.js",
            get(|| fixed("text/javascript", include_str!("console/console.js"))),
        )
        .layer(axum::extract::DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(middleware::from_fn(frame::guarded))
}

async fn fixed(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // The files belong to this binary: a browser asks again, and an upgrade is seen at once.
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        text,
    )
}
