//! The port methods as requests: JSON in, the outcome or a fault out.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest, Request, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use model::{
    DeploymentId, Digest, HostId, Place, Ticket,
    port::{
        BakeOrder, Bakery as _, BuildOrder, CheckOrder, DatabaseOrder, Databases as _, DeployOrder,
        Deployer as _, Fault, HostOrder, Hosts as _, LogRef, Logs as _, Network,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Health, Node, refuse};

/// The largest order, in bytes: an environment of a host may be large.
const LIMIT: usize = 8 * 1024 * 1024;

/// An order and the ticket that it is done under.
#[derive(Serialize, Deserialize)]
pub struct Ticketed<T> {
    pub ticket: Ticket,
    pub order: T,
}

/// Which bytes of which log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reading {
    pub log: LogRef,
    pub offset: u64,
}

/// Which database to delete.
#[derive(Debug, Serialize, Deserialize)]
pub struct Destroying {
    pub host: HostId,
    pub place: Place,
}

/// Whose processes to watch, and from when on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watching {
    pub host: HostId,
    pub since: Timestamp,
}

/// Which deployment to end on which host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ending {
    pub host: HostId,
    pub deployment: DeploymentId,
    /// For people.
    pub reason: String,
}

/// Which build or bake to stop.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stopping {
    pub ticket: Ticket,
    /// For people.
    pub reason: String,
}

/// What builds need, on a node that does nothing else too.
pub fn building() -> Router<Node> {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/builds/build", post(build))
        .route("/v1/builds/waits", post(waits))
        .route("/v1/builds/list", post(builds))
        .route("/v1/work/stop", post(stop_work))
        .route("/v1/logs/read", post(read_log))
        .layer(DefaultBodyLimit::max(LIMIT))
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/hosts/start", post(start))
        .route("/v1/hosts/stop", post(stop))
        .route("/v1/hosts/list", post(list))
        .route("/v1/networks/remove", post(remove_network))
        .route("/v1/databases/ensure", post(ensure))
        .route("/v1/databases/destroy", post(destroy))
        .route("/v1/images/bake", post(bake))
        .route("/v1/images/find", post(find))
        .route("/v1/deployments/deploy", post(deploy))
        .route("/v1/deployments/progress", post(progress))
        .route("/v1/deployments/stop", post(end))
        .route("/v1/deployments/watch", post(watch))
        .route("/v1/deployments/check", post(check))
        .layer(DefaultBodyLimit::max(LIMIT))
}

async fn health(State(node): State<Node>) -> Json<Health> {
    Json(node.health())
}

async fn start(State(node): State<Node>, Order(call): Order<Ticketed<HostOrder>>) -> Response {
    answer(node.hosts.start(&call.ticket, &call.order).await)
}

async fn stop(State(node): State<Node>, Order(host): Order<HostId>) -> Response {
    answer(node.hosts.stop(&host).await)
}

async fn list(State(node): State<Node>) -> Response {
    answer(node.hosts.list().await)
}

async fn remove_network(State(node): State<Node>, Order(network): Order<Network>) -> Response {
    answer(node.hosts.remove_network(&network).await)
}

async fn ensure(State(node): State<Node>, Order(call): Order<Ticketed<DatabaseOrder>>) -> Response {
    answer(node.databases.ensure(&call.ticket, &call.order).await)
}

async fn destroy(State(node): State<Node>, Order(which): Order<Destroying>) -> Response {
    answer(node.databases.destroy(&which.host, &which.place).await)
}

async fn build(State(node): State<Node>, Order(call): Order<Ticketed<BuildOrder>>) -> Response {
    let (yard, ticket) = (node.yard.clone(), call.ticket.clone());
    // What is kept about a ticket must not help to guess a secret.
    let secretless = BuildOrder {
        secrets: Default::default(),
        login: None,
        // The commit says which it is of: a version before this one did not tell it.
        push: None,
        trunk: None,
        ..call.order.clone()
    };
    let digest = digest(&secretless);
    let key = call.ticket.clone();
    let work = |stop| Box::pin(async move { yard.build_until(&ticket, &call.order, stop).await });
    answer(node.tickets.until_stopped(&key, digest, work).await)
}

/// Does a build or a bake wait for its turn?
async fn waits(State(node): State<Node>, Order(ticket): Order<Ticket>) -> Response {
    answer(Ok(node.yard.waits(&ticket) || node.oven.waits(&ticket)))
}

/// What goes on under tickets: on a node that only builds, its builds.
async fn builds(State(node): State<Node>) -> Response {
    answer(Ok(node.tickets.running()))
}

async fn bake(State(node): State<Node>, Order(call): Order<Ticketed<BakeOrder>>) -> Response {
    let (oven, ticket) = (node.oven.clone(), call.ticket.clone());
    // What is kept about a ticket must not help to guess a secret.
    let secretless = BakeOrder {
        login: None,
        // Of no concern to what is made, and a version before this one did not tell it.
        trunk: None,
        ..call.order.clone()
    };
    let digest = digest(&secretless);
    let key = call.ticket.clone();
    let work = |stop| async move { oven.bake_until(&ticket, &call.order, stop).await };
    answer(node.tickets.until_stopped(&key, digest, work).await)
}

async fn stop_work(State(node): State<Node>, Order(which): Order<Stopping>) -> Response {
    answer(node.tickets.stop(&which.ticket, &which.reason).await)
}

async fn find(State(node): State<Node>, Order(order): Order<BakeOrder>) -> Response {
    answer(node.oven.find(&order).await)
}

async fn deploy(State(node): State<Node>, Order(call): Order<Ticketed<DeployOrder>>) -> Response {
    answer(node.deployer.deploy(&call.ticket, &call.order).await)
}

async fn progress(State(node): State<Node>, Order(call): Order<Ticketed<HostId>>) -> Response {
    answer(node.deployer.progress(&call.order, &call.ticket).await)
}

async fn end(State(node): State<Node>, Order(which): Order<Ending>) -> Response {
    let deployer = &node.deployer;
    answer(
        deployer
            .stop_deployment(&which.host, &which.deployment, &which.reason)
            .await,
    )
}

async fn watch(State(node): State<Node>, Order(which): Order<Watching>) -> Response {
    answer(node.deployer.watch(&which.host, which.since).await)
}

async fn check(State(node): State<Node>, Order(order): Order<CheckOrder>) -> Response {
    answer(node.deployer.check(&order).await)
}

/// Of an order without secrets.
fn digest(order: &impl Serialize) -> Digest {
    Digest::of(serde_json::to_vec(order).expect("an order was JSON when it came in"))
}

async fn read_log(State(node): State<Node>, Order(reading): Order<Reading>) -> Response {
    match node.hosts.log(&reading.log, reading.offset).await {
        Some(of_host) => answer(of_host),
        None => answer(node.logs.read(&reading.log, reading.offset).await),
    }
}

pub(super) fn answer<T: Serialize>(outcome: Result<T, Fault>) -> Response {
    match outcome {
        Ok(value) => Json(value).into_response(),
        Err(fault) => refuse(fault),
    }
}

/// A JSON body; one that cannot be read is refused as a fault of the order, without repeating what is in it.
pub(super) struct Order<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Order<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::from_request(request, state).await {
            Ok(Json(order)) => Ok(Self(order)),
            Err(JsonRejection::JsonDataError(_)) => {
                Err(refuse(Fault::order("the order is not of the expected shape")))
            }
            Err(JsonRejection::JsonSyntaxError(_)) => Err(refuse(Fault::order("the order is not JSON"))),
            Err(other) => Err(refuse(Fault::order(other.body_text()))),
        }
    }
}
