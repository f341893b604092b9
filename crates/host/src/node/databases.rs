//! Dumps of databases, as they are read: never held in memory.

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use model::{HostId, Place};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::{
    Node,
    api::{Order, answer},
    refuse,
};

const PIECE: usize = 1 << 18;
/// What was counted of the data in a dump.
pub const COUNTED: &str = "vend-counted";

/// Which database.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asking {
    pub host: HostId,
    pub place: Place,
    pub name: String,
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/databases/dump", post(dump))
        .route("/v1/databases/open", post(open))
        .route("/v1/databases/count", post(count))
}

async fn dump(State(node): State<Node>, Order(asked): Order<Asking>) -> Response {
    let databases = node.databases.clone();
    match databases.dump(&asked.host, &asked.place, &asked.name).await {
        Err(fault) => refuse(fault),
        Ok(dumped) => {
            let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(dumped.file), PIECE);
            ([(COUNTED, dumped.counted)], Body::from_stream(stream)).into_response()
        }
    }
}

async fn open(State(node): State<Node>, Order(asked): Order<Asking>) -> Response {
    answer(node.databases.open(&asked.host, &asked.place, &asked.name).await)
}

async fn count(State(node): State<Node>, Order(asked): Order<Asking>) -> Response {
    answer(node.databases.count(&asked.host, &asked.place, &asked.name).await)
}
