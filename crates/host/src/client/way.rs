//! How a node is reached: at its socket, or over the connection that its machine has dialled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::body::Body;
use camino::{Utf8Path, Utf8PathBuf};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use model::{HostId, port::Fault};

use crate::{container::chain, machine::Machines, socket};

#[derive(Debug, Clone)]
pub(super) enum Way {
    Socket(Utf8PathBuf),
    /// Each call takes the connection that the machine has then.
    Dialled {
        machines: Machines,
        machine: HostId,
        lost: Arc<AtomicBool>,
    },
}

impl Way {
    /// Whatever the node answers.
    pub async fn send(&self, method: Method, uri: &str, body: Body) -> Result<Response<Incoming>, Fault> {
        let request = |uri: String| {
            Request::builder()
                .method(method)
                .uri(uri)
                .header("host", "node")
                .header("content-type", "application/json")
                .body(body)
                .map_err(|error| Fault::order(error.to_string()))
        };
        match self {
            Self::Socket(socket) => over_socket(socket, request(uri.to_owned())?).await,
            Self::Dialled {
                machines, machine, ..
            } => {
                let connection = machines.connection(machine);
                let mut connection = connection.ok_or_else(|| self.lost("it is not connected"))?;
                let sent = ask(&mut connection, request(format!("http://node{uri}"))?).await;
                sent.map_err(|error| self.gone(&error))
            }
        }
    }

    /// The connection broke after the order was sent, or may have been.
    pub fn gone(&self, error: &dyn std::error::Error) -> Fault {
        match self {
            Self::Socket(_) => {
                Fault::platform(format!("the node went away while it was asked: {}", chain(error)))
                    .next("ask again under the same ticket: what was done is not done twice")
            }
            Self::Dialled { .. } => self.lost(&format!("it went away while it was asked: {}", chain(error))),
        }
    }

    /// Has a call broken, so that the node may know nothing of it? Never of a node at a socket.
    pub fn has_lost(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            Self::Dialled { lost, .. } => lost.load(Ordering::Relaxed),
        }
    }

    fn lost(&self, why: &str) -> Fault {
        let Self::Dialled { machine, lost, .. } = self else {
            return Fault::platform(format!("the node cannot be asked: {why}"));
        };
        lost.store(true, Ordering::Relaxed);
        Fault::platform(format!("the builder {machine} cannot be asked: {why}"))
            .next("see on the builder whether `vend agent --builder` runs and reaches the platform")
    }
}

async fn over_socket(socket: &Utf8Path, request: Request<Body>) -> Result<Response<Incoming>, Fault> {
    let stream = socket::connect(socket).await.map_err(|error| {
        Fault::platform(format!("the node cannot be reached at {socket}: {error}"))
            .next("`vend up` starts it again; `vend doctor` says why when it does not")
    })?;
    let gone = |error: hyper::Error| Way::Socket(socket.to_owned()).gone(&error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(gone)?;
    // Ends with the exchange: when the response is read, or its receiver dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(gone)
}

async fn ask(
    connection: &mut http2::SendRequest<Body>,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, hyper::Error> {
    // HTTP/2 says it in the address.
    request.headers_mut().remove("host");
    connection.ready().await?;
    connection.send_request(request).await
}
