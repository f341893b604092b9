//! Asks a node over its socket: every port of `model::port` as a call. Knows nothing of containers.
//!
//! Each call is a connection of its own, so that a node that was restarted is simply asked again, and has a deadline.
//! The node of a machine elsewhere, which only builds, is asked the same over the connection that it has made.
//! A call that breaks is a platform's fault: the caller repeats it under the same ticket.

mod patience;
mod way;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Response, StatusCode, body::Incoming};
use jiff::{SignedDuration, Timestamp};
use model::{
    AppName, DeploymentId, Digest, HostId, Place, TenantName, Ticket,
    port::{
        BakeOrder, Baked, Bakery, BaseOrder, BasesSeen, Blame, BuildOrder, Builder, Built, CheckOrder,
        DatabaseOrder, DatabaseUp, Databases, Death, DeployOrder, Deployed, Deployer, EventReport, Fault,
        HostOrder, HostSeen, HostUp, Hosts, ImageAbout, ImageDiff, ImageExport, ImageTaken, ImageUsage, Keep,
        LogChunk, LogRef, Logs, Network, Objects, Shelf, Swept, Upkeep, Verdict, Work,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use self::{
    patience::{LOOK, Patience, Word},
    way::Way,
};
use crate::{
    build::QUEUED,
    logs::Piece,
    machine::Machines,
    node::{
        Health,
        api::{Destroying, Ending, Reading, Stopping, Ticketed, Watching},
        databases,
        images::Comparing,
        logs::{Copying, Saying},
        upkeep::Forgetting,
    },
};

/// For what only reads.
const QUICK: Duration = Duration::from_secs(15);

/// For a host: its start, or its orderly end.
const CHANGE: Duration = Duration::from_secs(300);

/// For what may have to make a base or an image first.
const MAKE: Duration = Duration::from_secs(3600);
/// A dump comes in, and is loaded: what a dump took an hour to write takes several to be indexed again.
const LOAD: Duration = Duration::from_secs(5 * 3600);

/// CodeDeploy's longest deployment, and a little.
const DEPLOYMENT: Duration = Duration::from_secs(8 * 3600 + 60);

/// The largest answer that is not an object, in bytes.
const ANSWER: usize = 64 * 1024 * 1024;

/// A node. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

impl Client {
    /// The node that listens at `<data>/run/node.sock`.
    pub fn new(socket: Utf8PathBuf) -> Self {
        Self {
            way: Way::Socket(socket),
        }
    }

    /// The node of a machine that has dialled.
    pub(crate) fn of_machine(machines: Machines, machine: HostId) -> Self {
        Self {
            way: Way::Dialled {
                machines,
                machine,
                lost: Arc::default(),
            },
        }
    }

    /// Has a call of this client broken, so that it is not known what became of it?
    pub(crate) fn has_lost(&self) -> bool {
        self.way.has_lost()
    }

    pub async fn health(&self) -> Result<Health, Fault> {
        self.exchange(Method::GET, "/v1/health", Body::empty(), QUICK)
            .await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        uri: &str,
        order: &impl Serialize,
        within: Duration,
    ) -> Result<T, Fault> {
        let json =
            serde_json::to_vec(order).map_err(|error| Fault::order(format!("not an order: {error}")))?;
        self.exchange(Method::POST, uri, Body::from(json), within).await
    }

    async fn ticketed<T: DeserializeOwned>(
        &self,
        uri: &str,
        ticket: &Ticket,
        order: &(impl Serialize + Clone),
        within: Duration,
    ) -> Result<T, Fault> {
        let (ticket, order) = (ticket.clone(), order.clone());
        self.post(uri, &Ticketed { ticket, order }, within).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Body,
        within: Duration,
    ) -> Result<T, Fault> {
        let call = async {
            let response = self.send(method, uri, body).await?;
            let bytes = Limited::new(response.into_body(), ANSWER).collect().await;
            let bytes = bytes.map_err(|error| self.way.gone(error.as_ref()))?.to_bytes();
            serde_json::from_slice(&bytes)
                .map_err(|error| Fault::platform(format!("the node's answer is broken: {error}")))
        };
        tokio::time::timeout(within, call)
            .await
            .map_err(|_| late(uri, within))?
    }

    /// The answer to a build or a bake, which may wait for its turn first.
    async fn patiently<T: DeserializeOwned>(
        &self,
        uri: &str,
        ticket: &Ticket,
        order: &(impl Serialize + Clone),
        timeout: Duration,
    ) -> Result<T, Fault> {
        // The last resort: patience ends before, unless the node says for ever that it waits.
        let within = timeout.saturating_add(QUEUED + MAKE);
        tokio::select! {
            made = self.ticketed(uri, ticket, order, within) => made,
            fault = self.patience(ticket, timeout) => {
                if fault.blame == Blame::Order {
                    // Nobody asks for its answer again. Whether that is heard changes nothing here.
                    let _ = self.stop_work(ticket, &fault.message).await;
                }
                Err(fault)
            }
        }
    }

    /// Why the answer is not waited for any longer.
    async fn patience(&self, ticket: &Ticket, timeout: Duration) -> Fault {
        let mut patience = Patience::new(timeout, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let word = match self.waits(ticket).await {
                Ok(true) => Word::Waits,
                Ok(false) => Word::Goes,
                // An older node does not know the question.
                Err(_) if self.health().await.is_ok() => Word::Goes,
                Err(_) => Word::Silence,
            };
            if let Err(fault) = patience.look(word, Instant::now()) {
                return fault;
            }
        }
    }

    /// A response that is not a fault.
    async fn send(&self, method: Method, uri: &str, body: Body) -> Result<Response<Incoming>, Fault> {
        let response = self.way.send(method, uri, body).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER)
            .collect()
            .await
            .map_err(|error| self.way.gone(error.as_ref()))?;
        let fault = serde_json::from_slice(&bytes.to_bytes());
        Err(fault.unwrap_or_else(|_| Fault::platform(format!("the node answers {status} to {uri}"))))
    }

    async fn keep(&self, path: &Utf8Path) -> Result<Digest, Fault> {
        let file = File::open(path)
            .await
            .map_err(|error| Fault::platform(format!("cannot read {path}: {error}")))?;
        self.take(Body::from_stream(ReaderStream::with_capacity(file, 64 * 1024)))
            .await
    }

    /// Keeps an object as it comes.
    pub(crate) async fn take(&self, bytes: Body) -> Result<Digest, Fault> {
        self.exchange(Method::PUT, "/v1/objects", bytes, MAKE).await
    }

    /// An object as it comes. Whoever takes it looks at its digest.
    pub(crate) async fn give(&self, digest: &Digest) -> Result<Body, Fault> {
        let uri = format!("/v1/objects/{digest}");
        let response = tokio::time::timeout(CHANGE, self.send(Method::GET, &uri, Body::empty())).await;
        let bytes = response
            .map_err(|_| late(&uri, CHANGE))??
            .into_body()
            .into_data_stream();
        let way = self.way.clone();
        Ok(Body::from_stream(bytes.map_err(move |error| way.gone(&error))))
    }

    /// Adds a piece to the copy of a log that another machine writes. Gives where to go on in the original.
    pub(crate) async fn copy_log(&self, log: &LogRef, piece: Piece) -> Result<u64, Fault> {
        let log = log.clone();
        self.post("/v1/logs/copy", &Copying { log, piece }, QUICK).await
    }

    /// One line of the platform's own in the log of a build. Gives how long the log is then, in bytes.
    pub async fn say(&self, log: &LogRef, line: &str) -> Result<u64, Fault> {
        let (log, line) = (log.clone(), line.to_owned());
        self.post("/v1/logs/say", &Saying { log, line }, QUICK).await
    }

    /// The last line of the platform's own in a log, and the log's end. It goes on when more is said.
    pub async fn end_log(&self, log: &LogRef, line: &str) -> Result<(), Fault> {
        let (base, from) = (self.say(log, line).await?, 0);
        let chunk = LogChunk {
            ended: true,
            ..LogChunk::default()
        };
        self.copy_log(log, Piece { base, from, chunk }).await.map(drop)
    }

    /// Does a build or a bake there wait for its turn?
    pub async fn waits(&self, ticket: &Ticket) -> Result<bool, Fault> {
        self.post("/v1/builds/waits", ticket, QUICK).await
    }

    /// The builds that go on there.
    pub async fn building(&self) -> Result<Vec<Ticket>, Fault> {
        self.post("/v1/builds/list", &(), QUICK).await
    }

    /// The bytes are checked here too: a connection that ends early is not the end of an object.
    async fn fetch(&self, digest: &Digest, mut file: File) -> Result<(), Fault> {
        let response = self
            .send(Method::GET, &format!("/v1/objects/{digest}"), Body::empty())
            .await?;
        let cannot =
            |error: std::io::Error| Fault::platform(format!("cannot write the object {digest}: {error}"));
        let mut hash = Sha256::new();
        let mut pieces = response.into_body().into_data_stream();
        while let Some(piece) = pieces.try_next().await.map_err(|error| self.way.gone(&error))? {
            let piece: Bytes = piece;
            hash.update(&piece);
            file.write_all(&piece).await.map_err(cannot)?;
        }
        file.flush().await.map_err(cannot)?;
        match Digest::from_bytes(hash.finalize().into()) == *digest {
            true => Ok(()),
            false => Err(Fault::platform(format!("the object {digest} arrived damaged"))),
        }
    }
}

impl Hosts for Client {
    async fn start(&self, ticket: &Ticket, order: &HostOrder) -> Result<HostUp, Fault> {
        self.ticketed("/v1/hosts/start", ticket, order, CHANGE).await
    }

    async fn stop(&self, host: &HostId) -> Result<(), Fault> {
        self.post("/v1/hosts/stop", host, CHANGE).await
    }

    async fn list(&self) -> Result<Vec<HostSeen>, Fault> {
        self.post("/v1/hosts/list", &(), QUICK).await
    }

    async fn remove_network(&self, network: &Network) -> Result<(), Fault> {
        self.post("/v1/networks/remove", network, CHANGE).await
    }
}

impl Databases for Client {
    async fn ensure(&self, ticket: &Ticket, order: &DatabaseOrder) -> Result<DatabaseUp, Fault> {
        self.ticketed("/v1/databases/ensure", ticket, order, MAKE).await
    }

    async fn destroy(&self, host: &HostId, place: &Place) -> Result<(), Fault> {
        let (host, place) = (host.clone(), place.clone());
        self.post("/v1/databases/destroy", &Destroying { host, place }, CHANGE)
            .await
    }
}

impl Builder for Client {
    async fn build(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        let timeout = std(order.limits.timeout);
        self.patiently("/v1/builds/build", ticket, order, timeout).await
    }
}

impl Bakery for Client {
    async fn bake(&self, ticket: &Ticket, order: &BakeOrder) -> Result<Baked, Fault> {
        let timeout = std(order.timeout);
        self.patiently("/v1/images/bake", ticket, order, timeout).await
    }

    async fn find(&self, order: &BakeOrder) -> Result<Option<Baked>, Fault> {
        self.post("/v1/images/find", order, CHANGE).await
    }
}

impl Work for Client {
    async fn stop_work(&self, ticket: &Ticket, reason: &str) -> Result<Option<Fault>, Fault> {
        let (ticket, reason) = (ticket.clone(), reason.to_owned());
        self.post("/v1/work/stop", &Stopping { ticket, reason }, QUICK)
            .await
    }
}

impl Deployer for Client {
    async fn deploy(&self, ticket: &Ticket, order: &DeployOrder) -> Result<Deployed, Fault> {
        self.ticketed("/v1/deployments/deploy", ticket, order, DEPLOYMENT)
            .await
    }

    async fn progress(&self, host: &HostId, ticket: &Ticket) -> Result<Vec<EventReport>, Fault> {
        self.ticketed("/v1/deployments/progress", ticket, host, QUICK)
            .await
    }

    async fn stop_deployment(
        &self,
        host: &HostId,
        deployment: &DeploymentId,
        reason: &str,
    ) -> Result<(), Fault> {
        let order = Ending {
            host: host.clone(),
            deployment: deployment.clone(),
            reason: reason.to_owned(),
        };
        self.post("/v1/deployments/stop", &order, QUICK).await
    }

    async fn watch(&self, host: &HostId, since: Timestamp) -> Result<Option<Death>, Fault> {
        let host = host.clone();
        self.post("/v1/deployments/watch", &Watching { host, since }, QUICK)
            .await
    }

    async fn check(&self, order: &CheckOrder) -> Result<Verdict, Fault> {
        self.post("/v1/deployments/check", order, CHANGE).await
    }
}

impl Objects for Client {
    async fn put(&self, path: &Utf8Path) -> Result<Digest, Fault> {
        self.keep(path).await
    }

    async fn get(&self, digest: &Digest, path: &Utf8Path) -> Result<(), Fault> {
        let cannot = |error: std::io::Error| Fault::platform(format!("cannot write {path}: {error}"));
        let file = File::create_new(path).await.map_err(cannot)?;
        let fetched = tokio::time::timeout(MAKE, self.fetch(digest, file)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(late("/v1/objects", MAKE)));
        if fetched.is_err() {
            // Half an object is none.
            let _ = tokio::fs::remove_file(path).await;
        }
        fetched
    }

    async fn has(&self, digest: &Digest) -> Result<bool, Fault> {
        self.post("/v1/objects/has", digest, QUICK).await
    }
}

impl Logs for Client {
    async fn read(&self, log: &LogRef, offset: u64) -> Result<LogChunk, Fault> {
        self.post(
            "/v1/logs/read",
            &Reading {
                log: log.clone(),
                offset,
            },
            QUICK,
        )
        .await
    }
}

impl Shelf for Client {
    async fn describe(&self, image: &Digest) -> Result<ImageAbout, Fault> {
        self.post("/v1/images/describe", image, CHANGE).await
    }

    async fn compare(&self, before: &Digest, after: &Digest) -> Result<ImageDiff, Fault> {
        let (before, after) = (*before, *after);
        self.post("/v1/images/compare", &Comparing { before, after }, CHANGE)
            .await
    }

    async fn bases(&self) -> Result<BasesSeen, Fault> {
        self.post("/v1/bases/list", &(), QUICK).await
    }

    async fn refresh(&self, order: &BaseOrder) -> Result<bool, Fault> {
        self.post("/v1/bases/refresh", order, MAKE).await
    }

    async fn usage(&self) -> Result<ImageUsage, Fault> {
        self.post("/v1/images/usage", &(), QUICK).await
    }
}

impl Client {
    /// The bill of materials of an image: SPDX 2.3.
    pub async fn bill(&self, image: &Digest) -> Result<serde_json::Value, Fault> {
        self.post("/v1/images/bill", image, CHANGE).await
    }

    /// The bytes of an object, as they come. Damaged ones end in an error.
    pub async fn object(&self, object: &Digest) -> Result<Body, Fault> {
        let uri = format!("/v1/objects/{object}");
        let response = tokio::time::timeout(CHANGE, self.send(Method::GET, &uri, Body::empty())).await;
        Ok(Body::new(response.map_err(|_| late(&uri, CHANGE))??.into_body()))
    }

    /// An image as a tar of an OCI layout, as it comes.
    pub async fn export(&self, image: &Digest, how: &ImageExport) -> Result<Body, Fault> {
        let uri = format!("/v1/images/export/{image}");
        let json = serde_json::to_vec(how).map_err(|error| Fault::order(error.to_string()))?;
        let response = tokio::time::timeout(MAKE, self.send(Method::POST, &uri, Body::from(json))).await;
        Ok(Body::new(response.map_err(|_| late(&uri, MAKE))??.into_body()))
    }

    /// All of a database, compressed by gzip, as it comes, and what was counted of it. Nobody writes to it from then on.
    pub async fn dump(&self, host: &HostId, place: &Place, name: &str) -> Result<(String, Body), Fault> {
        let asked = asking(host, place, name);
        let json = serde_json::to_vec(&asked).map_err(|error| Fault::order(error.to_string()))?;
        let uri = "/v1/databases/dump";
        let response = tokio::time::timeout(MAKE, self.send(Method::POST, uri, Body::from(json))).await;
        let response = response.map_err(|_| late(uri, MAKE))??;
        let counted = response
            .headers()
            .get(databases::COUNTED)
            .and_then(|value| value.to_str().ok());
        let counted = counted
            .ok_or_else(|| Fault::platform("the node does not say what it dumped"))?
            .to_owned();
        Ok((counted, Body::new(response.into_body())))
    }

    /// Takes in what a dump elsewhere wrote, compressed by gzip, in place of what is there, and gives what was counted of it.
    /// Nobody but the platform writes to it until [`Self::open`].
    pub async fn load(&self, host: &HostId, place: &Place, name: &str, dump: Body) -> Result<String, Fault> {
        let Place {
            tenant,
            app,
            environment,
        } = place;
        let uri = format!(
            "/v1/databases/load?host={host}&tenant={tenant}&app={app}&environment={environment}&name={name}"
        );
        self.exchange(Method::PUT, &uri, dump, LOAD).await
    }

    /// Lets an app write to its database again that was dumped.
    pub async fn open(&self, host: &HostId, place: &Place, name: &str) -> Result<(), Fault> {
        self.post("/v1/databases/open", &asking(host, place, name), CHANGE)
            .await
    }

    /// Counts what was dumped, where it was. Refused when somebody could write since.
    pub async fn count(&self, host: &HostId, place: &Place, name: &str) -> Result<String, Fault> {
        self.post("/v1/databases/count", &asking(host, place, name), MAKE)
            .await
    }

    /// Takes in an image from a tar of an OCI layout.
    pub async fn import(&self, tar: Body) -> Result<ImageTaken, Fault> {
        self.exchange(Method::PUT, "/v1/images/import", tar, MAKE).await
    }
}

fn asking(host: &HostId, place: &Place, name: &str) -> databases::Asking {
    databases::Asking {
        host: host.clone(),
        place: place.clone(),
        name: name.to_owned(),
    }
}

impl Upkeep for Client {
    async fn sweep(&self, keep: &Keep) -> Result<Swept, Fault> {
        self.post("/v1/upkeep/sweep", keep, MAKE).await
    }

    async fn forget(&self, tenant: &TenantName, app: Option<&AppName>) -> Result<(), Fault> {
        let (tenant, app) = (tenant.clone(), app.cloned());
        self.post("/v1/upkeep/forget", &Forgetting { tenant, app }, CHANGE)
            .await
    }
}

fn late(uri: &str, within: Duration) -> Fault {
    Fault::platform(format!(
        "the node did not answer {uri} in {} seconds",
        within.as_secs()
    ))
}

fn std(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(MAKE)
}
