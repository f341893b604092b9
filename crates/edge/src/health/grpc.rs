//! The health check of gRPC: one unary call with an empty message, over HTTP/2 without TLS.

use std::{io, net::SocketAddr};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    header::{CONTENT_TYPE, TE},
};

use super::http2::{call, nonsense};

/// An empty message: not compressed, of no bytes.
const EMPTY: &[u8] = &[0; 5];
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

/// The gRPC status of the answer.
pub async fn ask(address: SocketAddr, method: &str) -> io::Result<u16> {
    let request = Request::post(format!("http://{address}{method}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(Bytes::from_static(EMPTY)))
        .map_err(nonsense)?;
    call(address, request, async |answer| {
        let (parts, body) = answer.into_parts();
        // A call that fails at once has its status in the first head.
        if let Some(status) = status(&parts.headers) {
            return Ok(status);
        }
        let body = Limited::new(body, ANSWER).collect().await.map_err(nonsense)?;
        body.trailers()
            .and_then(status)
            .ok_or(io::ErrorKind::InvalidData.into())
    })
    .await
}

fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
