//! The health check of gRPC: one unary call with an empty message, over HTTP/2 without TLS.

use std::{io, net::SocketAddr};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    client::conn::http2::handshake,
    header::{CONTENT_TYPE, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// An empty message: not compressed, of no bytes.
const EMPTY: &[u8] = &[0; 5];
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

/// The gRPC status of the answer.
pub async fn ask(address: SocketAddr, method: &str) -> io::Result<u16> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(not_grpc)?;
    let request = Request::post(format!("http://{address}{method}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(Bytes::from_static(EMPTY)))
        .map_err(not_grpc)?;
    let call = async {
        let answer = sender.send_request(request).await.map_err(not_grpc)?;
        let (parts, body) = answer.into_parts();
        // A call that fails at once has its status in the first head.
        if let Some(status) = status(&parts.headers) {
            return Ok(status);
        }
        let body = http_body_util::Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        body.trailers()
            .and_then(status)
            .ok_or(io::ErrorKind::InvalidData.into())
    };
    let mut call = std::pin::pin!(call);
    tokio::select! {
        status = &mut call => status,
        // What it has brought before its end counts.
        _ = connection => call.await,
    }
}

fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn not_grpc<E>(_: E) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
