//! Dumps of databases, as they are read and as they come: never held in memory.

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Query, State},
    response::{IntoResponse as _, Response},
    routing::{post, put},
};
use futures_util::TryStreamExt as _;
use model::{AppName, EnvironmentName, HostId, Place, TenantName};
use serde::{Deserialize, Serialize};
use tokio_util::io::{ReaderStream, StreamReader};

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

/// The same, in the query of a request whose body is a dump.
#[derive(Debug, Deserialize)]
struct Named {
    host: HostId,
    tenant: TenantName,
    app: AppName,
    environment: EnvironmentName,
    name: String,
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/databases/dump", post(dump))
        .route("/v1/databases/load", put(load).layer(DefaultBodyLimit::disable()))
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

async fn load(State(node): State<Node>, Query(named): Query<Named>, body: Body) -> Response {
    let Named {
        host,
        tenant,
        app,
        environment,
        name,
    } = named;
    let place = Place {
        tenant,
        app,
        environment,
    };
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let dump = Box::pin(StreamReader::new(stream));
    answer(node.databases.load(&host, &place, &name, dump).await)
}

async fn open(State(node): State<Node>, Order(asked): Order<Asking>) -> Response {
    answer(node.databases.open(&asked.host, &asked.place, &asked.name).await)
}

async fn count(State(node): State<Node>, Order(asked): Order<Asking>) -> Response {
    answer(node.databases.count(&asked.host, &asked.place, &asked.name).await)
}
