//! Asks an agent: for the node, and for `systemctl` inside the host. What answers may be hostile, so every answer has a
//! size, and all that the node asks for has a deadline.

use std::time::Duration;

use axum::body::{Body, Bytes};
use camino::{Utf8Path, Utf8PathBuf};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, client::conn::http2};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use model::{
    DeploymentId, Digest, Ticket,
    port::{Death, Fault, LogChunk, Verdict},
    spec::Checks,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Error,
    api::{
        Configuration, ControlOrder, ControlOutcome, DaemonOrder, Deploy, Health, LogFile, Reports, RunOrder,
        RunOutcome, ServiceStatus,
    },
};
use crate::socket;

/// For what is answered at once.
const QUICK: Duration = Duration::from_secs(10);

/// For what starts or stops something: systemd's own time-outs, and a little.
const CHANGE: Duration = Duration::from_secs(200);

/// For `systemctl`, which waits as long as the units that it is about allow themselves.
const ENDLESS: Duration = Duration::MAX;

/// CodeDeploy's longest deployment.
const DEPLOYMENT: Duration = Duration::from_secs(8 * 3600);

/// Largest answer.
const ANSWER: usize = 8 << 20;

/// One agent. Each call is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Socket(Utf8PathBuf),
    /// The agent's machine has dialled, and all calls share its connection.
    Dialled(http2::SendRequest<Body>),
}

impl Client {
    /// The agent whose socket is at a path. The path may be inside a directory that a host writes to.
    pub fn new(socket: impl AsRef<Utf8Path>) -> Self {
        Self {
            way: Way::Socket(socket.as_ref().to_owned()),
        }
    }

    /// The agent at the other end of a connection.
    pub(crate) fn dialled(connection: http2::SendRequest<Body>) -> Self {
        Self {
            way: Way::Dialled(connection),
        }
    }

    /// What all calls to an agent that has dialled share.
    pub(crate) fn connection(&self) -> Option<http2::SendRequest<Body>> {
        match &self.way {
            Way::Socket(_) => None,
            Way::Dialled(connection) => Some(connection.clone()),
        }
    }

    pub async fn health(&self) -> Result<Health, Error> {
        self.get("/v1/health").await
    }

    /// Gives the host its environment, and so starts what is enabled in it.
    pub async fn configure(&self, configuration: &Configuration) -> Result<(), Error> {
        self.post("/v1/configure", configuration, CHANGE).await
    }

    /// Brings a revision's tar into the host. The agent keeps it only when its digest is right.
    pub async fn put_revision(&self, digest: &Digest, body: Body, limit: Duration) -> Result<(), Error> {
        let uri = format!("/v1/revisions/{digest}");
        self.send(Method::PUT, &uri, body, limit).await
    }

    /// Has another program take over from the agent. What the host runs goes on; the next question is answered by it.
    pub async fn succeed(&self, digest: &Digest, program: Body, limit: Duration) -> Result<(), Error> {
        let uri = format!("/v1/program/{digest}");
        self.send(Method::PUT, &uri, program, limit).await
    }

    /// Does the agent remember this ticket: does its deployment run, or has it an answer?
    pub async fn knows(&self, ticket: &Ticket) -> Result<bool, Error> {
        self.get(&format!("/v1/tickets/{ticket}")).await
    }

    /// All events of a ticket, as far as they have come; none when it is not known there.
    pub async fn progress(&self, ticket: &Ticket) -> Result<Reports, Error> {
        self.get(&format!("/v1/tickets/{ticket}/events")).await
    }

    /// Runs lifecycle events, for as long as they take.
    pub async fn deploy(&self, deploy: &Deploy) -> Result<Reports, Error> {
        self.post("/v1/deploy", deploy, DEPLOYMENT).await
    }

    /// Ends the script that a deployment runs, if it does.
    pub async fn stop_deployment(&self, deployment: &DeploymentId, reason: &str) -> Result<(), Error> {
        self.post(&format!("/v1/deployments/{deployment}/stop"), &reason, QUICK)
            .await
    }

    /// Waits a while for a process of the app to end though it should go on, from `since` on.
    pub async fn death(&self, since: Timestamp) -> Result<Option<Death>, Error> {
        self.get(&format!("/v1/deaths/{}", since.as_millisecond())).await
    }

    pub async fn check(&self, checks: &Checks, limit: Duration) -> Result<Verdict, Error> {
        self.post("/v1/check", checks, limit).await
    }

    pub async fn services(&self) -> Result<Vec<ServiceStatus>, Error> {
        self.get("/v1/services").await
    }

    pub async fn start(&self, service: &str) -> Result<(), Error> {
        self.service(service, "start").await
    }

    pub async fn stop(&self, service: &str) -> Result<(), Error> {
        self.service(service, "stop").await
    }

    pub async fn restart(&self, service: &str) -> Result<(), Error> {
        self.service(service, "restart").await
    }

    pub async fn reload(&self, service: &str) -> Result<(), Error> {
        self.service(service, "reload").await
    }

    /// Keeps a daemon running. One that runs already goes on; its new definition takes effect at its next start.
    pub async fn daemon(&self, order: &DaemonOrder) -> Result<(), Error> {
        self.post("/v1/daemon", order, CHANGE).await
    }

    /// Runs a command to its end.
    pub async fn run(&self, order: &RunOrder) -> Result<RunOutcome, Error> {
        let limit = Duration::from_millis(order.timeout_ms).saturating_add(QUICK);
        self.post("/v1/run", order, limit).await
    }

    /// Does one call of `systemctl`.
    pub async fn control(&self, order: &ControlOrder) -> Result<ControlOutcome, Error> {
        self.post("/v1/control", order, ENDLESS).await
    }

    pub async fn logs(&self) -> Result<Vec<LogFile>, Error> {
        self.get("/v1/logs").await
    }

    /// Some text of a log of the agent, by its name without `.log`.
    pub(crate) async fn log(&self, name: &str, offset: u64) -> Result<LogChunk, Error> {
        self.get(&format!("/v1/logs/{name}/{offset}")).await
    }

    /// Has a machine make itself another key; gives the public one.
    pub(crate) async fn new_key(&self) -> Result<String, Error> {
        self.send(Method::POST, "/v1/machine/key", Body::empty(), QUICK)
            .await
    }

    /// Gives a machine the certificate of that key.
    pub(crate) async fn new_certificate(&self, certificate: &str) -> Result<(), Error> {
        let json = serde_json::to_vec(certificate).map_err(|error| Error::Answer(error.into()))?;
        self.send(Method::PUT, "/v1/machine/certificate", Body::from(json), QUICK)
            .await
    }

    /// Tells a machine that nobody knows it any more.
    pub(crate) async fn removed(&self) -> Result<(), Error> {
        self.send(Method::POST, "/v1/machine/removed", Body::empty(), QUICK)
            .await
    }

    async fn service(&self, service: &str, verb: &str) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if service.is_empty() || !service.chars().all(plain) {
            return Err(Error::Fault(Fault::order(format!(
                "`{service}` is not the name of a service"
            ))));
        }
        let uri = format!("/v1/services/{service}/{verb}");
        self.send(Method::POST, &uri, Body::empty(), CHANGE).await
    }

    async fn get<T: DeserializeOwned>(&self, uri: &str) -> Result<T, Error> {
        self.send(Method::GET, uri, Body::empty(), QUICK).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        uri: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Error> {
        let json = serde_json::to_vec(body).map_err(|error| Error::Answer(error.into()))?;
        self.send(Method::POST, uri, Body::new(Full::new(Bytes::from(json))), limit)
            .await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Body,
        limit: Duration,
    ) -> Result<T, Error> {
        let exchange = timeout(limit, self.exchange(method, uri, body));
        let (status, bytes) = exchange.await.map_err(|_| Error::Deadline(limit))??;
        let broken = |error: serde_json::Error| Error::Answer(error.into());
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(broken);
        }
        match serde_json::from_slice::<Fault>(&bytes) {
            Ok(fault) => Err(Error::Fault(fault)),
            Err(_) => {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
                Err(Error::Refused(format!("{status} {text}")))
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &str,
        body: Body,
    ) -> Result<(hyper::StatusCode, Bytes), Error> {
        let socket = match &self.way {
            Way::Socket(socket) => socket,
            Way::Dialled(connection) => return ask(connection.clone(), method, uri, body).await,
        };
        let stream = socket::connect(socket).await.map_err(Error::Connect)?;
        let broken = |error: hyper::Error| Error::Answer(error.into());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| Error::Answer(error.into()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let bytes = Limited::new(response.into_body(), ANSWER)
                .collect()
                .await
                .map_err(Error::Answer)?;
            Ok((status, bytes.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // Once it ended, the answer is there or never will be.
            end = connection => {
                end.map_err(broken)?;
                answer.await
            }
        }
    }
}

/// One of the calls of a connection that is shared.
async fn ask(
    mut connection: http2::SendRequest<Body>,
    method: Method,
    uri: &str,
    body: Body,
) -> Result<(hyper::StatusCode, Bytes), Error> {
    let broken = |error: hyper::Error| Error::Answer(error.into());
    let request = Request::builder()
        .method(method)
        .uri(format!("http://agent{uri}"))
        .header("content-type", "application/json")
        .body(body)
        .map_err(|error| Error::Answer(error.into()))?;
    connection.ready().await.map_err(broken)?;
    let response = connection.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), ANSWER).collect().await;
    Ok((status, bytes.map_err(Error::Answer)?.to_bytes()))
}
