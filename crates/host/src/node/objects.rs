//! Objects in and out as streams: they may be larger than memory.

use std::io::Read as _;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRef, Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::TryStreamExt as _;
use model::{Digest, port::Fault};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{Node, broken, refuse};
use crate::{
    now,
    objects::{Directory, Verified},
};

const PIECE: usize = 64 * 1024;

impl FromRef<Node> for Directory {
    fn from_ref(node: &Node) -> Self {
        node.objects.clone()
    }
}

/// Of whatever keeps objects.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Directory: FromRef<S>,
{
    Router::new()
        // The directory has a limit of its own, and what is read is never held in memory.
        .route("/v1/objects", put(keep).layer(DefaultBodyLimit::disable()))
        .route("/v1/objects/{digest}", get(give))
        .route("/v1/objects/has", post(has))
}

async fn keep(State(objects): State<Directory>, body: Body) -> Response {
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let kept = tokio::task::spawn_blocking(move || objects.keep(reader, "what was sent".into()));
    match kept.await {
        Ok(Ok(digest)) => Json(digest).into_response(),
        Ok(Err(error @ crate::objects::Error::TooLarge { .. })) => refuse(Fault::order(error.to_string())),
        Ok(Err(error)) => refuse(broken(&error)),
        Err(_) => refuse(Fault::platform("the writer of objects stopped")),
    }
}

async fn give(State(objects): State<Directory>, Path(digest): Path<Digest>) -> Response {
    match objects.open_object(&digest) {
        Ok(object) => stream(object).into_response(),
        Err(error @ crate::objects::Error::Missing(_)) => refuse(Fault::order(error.to_string())),
        Err(error) => refuse(broken(&error)),
    }
}

/// Whoever asks is about to use it.
async fn has(State(objects): State<Directory>, Json(digest): Json<Digest>) -> Response {
    match tokio::task::spawn_blocking(move || objects.renew(&digest, now().into())).await {
        Ok(Ok(has)) => Json(has).into_response(),
        Ok(Err(error)) => refuse(broken(&error)),
        Err(_) => refuse(Fault::platform("the reader of objects stopped")),
    }
}

/// The bytes of an object. Damaged ones end in an error, so that the receiver never takes them for the whole.
fn stream(mut object: Verified) -> Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(4);
    // Ends when all is read or the receiver goes away.
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = match object.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            piece.truncate(read);
            if sender.blocking_send(Ok(piece.into())).is_err() {
                return;
            }
        }
        if let Err(error) = object.finish() {
            let _ = sender.blocking_send(Err(std::io::Error::other(error)));
        }
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Body::from_stream(pieces)
}
