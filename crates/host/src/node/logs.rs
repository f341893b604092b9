//! Logs of builds that run elsewhere.

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    response::Response,
    routing::post,
};
use model::port::{Fault, LogRef};
use serde::{Deserialize, Serialize};

use super::{
    Node,
    api::{Order, answer},
    broken,
};
use crate::logs::{self, Piece};

/// The most bytes of one copy: somewhat more than a build says where it runs.
const MOST: u64 = 80 << 20;
/// The largest order, in bytes: a piece of a log, with all that JSON makes of it.
const LIMIT: usize = 4 << 20;

/// A piece for the copy of a log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Copying {
    pub log: LogRef,
    pub piece: Piece,
}

/// A line of the platform's own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saying {
    pub log: LogRef,
    pub line: String,
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/logs/copy", post(copy))
        .route("/v1/logs/say", post(say))
        .layer(DefaultBodyLimit::max(LIMIT))
}

async fn copy(State(node): State<Node>, Order(copying): Order<Copying>) -> Response {
    let Copying { log, piece } = copying;
    answer(write(node, log, move |logs, log| logs.copy(log, &piece, MOST)).await)
}

async fn say(State(node): State<Node>, Order(saying): Order<Saying>) -> Response {
    let Saying { log, line } = saying;
    answer(write(node, log, move |logs, log| logs.say(log, &line)).await)
}

async fn write(
    node: Node,
    log: LogRef,
    work: impl FnOnce(&logs::Directory, &LogRef) -> Result<u64, logs::Error> + Send + 'static,
) -> Result<u64, Fault> {
    if !log.as_str().starts_with("build/") {
        return Err(Fault::order("only logs of builds come from elsewhere"));
    }
    tokio::task::spawn_blocking(move || work(&node.logs, &log))
        .await
        .map_err(|_| Fault::platform("the log's writer stopped"))?
        .map_err(|error| broken(&error))
}
