//! The health check of HTTP/2, without TLS and without asking first (RFC 9113, section 3.3), by a connection for each
//! request.

use std::{io, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http2::handshake,
    header::{ACCEPT, USER_AGENT},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// The status of the answer to one GET.
pub async fn ask(address: SocketAddr, path: &str) -> io::Result<u16> {
    let request = Request::get(format!("http://{address}{path}"))
        .header(USER_AGENT, "vend-health")
        .header(ACCEPT, "*/*")
        .body(Full::default())
        .map_err(nonsense)?;
    call(address, request, async |answer| Ok(answer.status().as_u16())).await
}

/// Sends a request on a connection of its own, and reads of the answer what is wanted.
pub async fn call<T>(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> io::Result<T>,
) -> io::Result<T> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(nonsense)?;
    let asked = async { read(sender.send_request(request).await.map_err(nonsense)?).await };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        // What it has brought before its end counts.
        _ = connection => asked.await,
    }
}

/// It is not what was asked for.
pub fn nonsense<E>(_: E) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
