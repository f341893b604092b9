//! Answers orders over a local socket: one POST per port method. Decides nothing; it wires the rooms of this crate.
//!
//! The node can be killed at any moment: hosts are not its children, finished answers are on disk, and what was in
//! flight is done again under the same ticket.

pub(crate) mod api;
pub(crate) mod databases;
pub(crate) mod images;
pub(crate) mod logs;
pub(crate) mod objects;
mod prepare;
pub(crate) mod upkeep;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::Router;
use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest,
    port::{Fault, Resources},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use self::{prepare::Preparing, upkeep::Turn};
use crate::{
    bake::{Kitchen, Oven},
    base::{Bases, Mirror},
    build::{Site, Yard},
    container::{self, Containers, chain},
    database::Databases,
    deploy::Deployer,
    hosts::{Attempts, Hosts},
    image::Images,
    layer::Layers,
    network::Outside,
    now,
    oci::Reach,
    socket,
    ticket::Tickets,
};

/// Where a node works and who may ask it.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data directory: the node owns `node` in it and listens at `run/node.sock`.
    pub data: Utf8PathBuf,
    /// The group that may ask, beside root: that of `vend serve`.
    pub group: Option<u32>,
    /// The most bytes of one object.
    pub object_limit_bytes: u64,
    /// What one script of a bake may use.
    pub bake_limits: Resources,
    /// How many scripts of bakes run at a time.
    pub bakes_at_once: usize,
    /// How many builds run at a time; more wait.
    pub builds_at_once: usize,
    /// What this machine is beside its `arch` and `os`, for builds that ask for it.
    pub labels: BTreeMap<String, String>,
    /// Networks that registries may be at although they are not public.
    pub registries: Vec<model::address::Network>,
    /// Private networks that builds and bakes reach.
    pub allowed: Vec<model::address::Network>,
    /// What images may take of the disk.
    pub image_budget_bytes: u64,
    /// Make at the start what the first push would wait for.
    pub prepare: bool,
}

impl NodeConfig {
    pub fn new(data: Utf8PathBuf) -> Self {
        Self {
            data,
            group: None,
            object_limit_bytes: 4 * 1024 * 1024 * 1024,
            bake_limits: Resources {
                cpu: 2.0,
                memory_mib: 2048,
                disk_mib: 20 * 1024,
                pids: 4096,
            },
            bakes_at_once: 2,
            builds_at_once: 2,
            labels: BTreeMap::new(),
            registries: Vec::new(),
            allowed: Vec::new(),
            image_budget_bytes: 50 << 30,
            prepare: true,
        }
    }

    pub fn node(&self) -> Utf8PathBuf {
        self.data.join("node")
    }

    pub fn socket(&self) -> Utf8PathBuf {
        self.data.join("run/node.sock")
    }
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    pub pid: u32,
    /// Isolation that this machine cannot give, and what is done instead. Empty on a full machine.
    pub fallbacks: Vec<String>,
    /// `hybrid or v1`, or `v2`.
    pub cgroups: String,
    /// What is being made that the first push will need; builds that come meanwhile wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparing: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare for containers")]
    Container(#[from] container::Error),
    #[error("cannot prepare the node")]
    Fault(#[from] Fault),
    #[error("cannot prepare the directory of layers")]
    Layers(#[from] crate::layer::Error),
    #[error("cannot prepare the directory of bases")]
    Bases(#[from] crate::base::Error),
    #[error("cannot prepare for bakes")]
    Bakes(#[from] crate::bake::Error),
    #[error("cannot prepare for builds")]
    Builds(#[from] crate::build::Error),
    #[error("cannot prepare the directory of objects")]
    Objects(#[from] crate::objects::Error),
    #[error("cannot prepare the directory of logs")]
    Logs(#[from] crate::logs::Error),
}

/// All that a node can do.
#[derive(Clone)]
pub(crate) struct Node {
    pub containers: Containers,
    pub hosts: Hosts,
    pub databases: Databases,
    pub oven: Oven,
    pub yard: Yard,
    pub deployer: Deployer,
    pub tickets: Tickets,
    pub objects: crate::objects::Directory,
    pub logs: crate::logs::Directory,
    pub preparing: Preparing,
    pub upkeep: Turn,
    pub image_budget_bytes: u64,
    /// Private networks that builds and bakes reach.
    pub allowed: Arc<[model::address::Network]>,
}

/// How long requests may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(3);

/// Between two looks at what others may have changed.
const LOOK: Duration = Duration::from_secs(10);
/// For the names of proxies and archives.
const LOOK_UP: Duration = Duration::from_secs(5);
const LOOKS_A_MINUTE: u32 = 6;
const LOOKS_A_DAY: u32 = 24 * 360;

/// Answers until `shutdown`. [`container::enter_private_mounts`] was called before. Hosts go on after the end.
pub async fn serve(
    config: NodeConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let node = open(&config, false).await?;
    let path = config.socket();
    let listener = socket::bind(&path, 0o660).map_err(io("listen at", &path))?;
    if let Some(group) = config.group {
        std::os::unix::fs::lchown(&path, None, Some(group)).map_err(io("give to its group", &path))?;
    }
    info!(socket = %path, "the node answers");
    let stop = tokio_util::sync::CancellationToken::new();
    let housekeeping = tokio::spawn(keep_house(node.clone()));
    let agents = tokio::spawn(keep_agents(node.hosts.clone()));
    let preparation = config.prepare.then(|| {
        let (oven, preparing) = (node.oven.clone(), node.preparing.clone());
        tokio::spawn(prepare::run(oven, preparing, stop.clone()))
    });
    let server = axum::serve(listener, router(node)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut server = tokio::spawn(async move { server.await });
    tokio::select! {
        () = shutdown => {}
        ended = &mut server => warn!(?ended, "the node's server ended by itself"),
    }
    stop.cancel();
    if tokio::time::timeout(GRACE, &mut server).await.is_err() {
        warn!("requests are cut short; they are done again under their tickets");
        server.abort();
    }
    housekeeping.abort();
    agents.abort();
    if let Some(preparation) = preparation {
        let _ = tokio::time::timeout(GRACE, preparation).await;
    }
    Ok(())
}

/// Removes every container, network, mount and group of a data directory whose node does not run.
pub async fn teardown(config: &NodeConfig) -> Result<(), Error> {
    let containers = Containers::open(&config.node()).await?;
    Ok(containers.teardown_all().await?)
}

/// `apart`: it builds for a platform elsewhere.
async fn open(config: &NodeConfig, apart: bool) -> Result<Node, Error> {
    for (dir, mode) in [(config.node(), 0o700), (config.data.join("run"), 0o755)] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode))
            .map_err(io("set the mode of", &dir))?;
    }
    let node = config
        .node()
        .canonicalize_utf8()
        .map_err(io("find", config.node()))?;
    let tickets = Tickets::open(&node, now()).map_err(io("read the answers under", &node))?;
    let containers = Containers::open(&node).await?;
    // What needs a resolver is looked up when the node runs: see `keep_house`.
    let opened = containers.networks().open_to(Outside::Public {
        also: config.allowed.clone(),
        services: Vec::new(),
    });
    let opened = opened.await;
    opened.map_err(container::Error::from)?;
    let objects = crate::objects::Directory::open(&node, config.object_limit_bytes)?;
    let logs = crate::logs::Directory::open(&node)?;
    let layers = Layers::open(&node)?;
    let images = Images::open(&node, layers.clone())?;
    let stock = (layers, images.clone());
    let lowers = Arc::new(move |image: &Digest| Ok(images.lowers(image)?));
    let hosts = Hosts::new(node.clone(), containers.clone(), tickets.clone(), lowers)?;
    let program = hosts.program();
    let oven = oven(config, &node, &containers, &objects, &logs, stock, program)?;
    oven.keep_within(config.image_budget_bytes, apart);
    let site = Site {
        node: node.clone(),
        containers: containers.clone(),
        objects: objects.clone(),
        logs: logs.clone(),
        oven: oven.clone(),
        program: program.to_owned(),
        at_once: config.builds_at_once,
        queued: crate::build::QUEUED,
        labels: config.labels.clone(),
        apart,
    };
    Ok(Node {
        yard: Yard::open(site)?,
        databases: Databases::new(node, hosts.clone(), oven.clone(), tickets.clone()),
        deployer: Deployer::new(hosts.clone(), objects.clone(), logs.clone(), tickets.clone()),
        containers,
        hosts,
        oven,
        tickets,
        objects,
        logs,
        preparing: Preparing::default(),
        upkeep: Turn::default(),
        image_budget_bytes: config.image_budget_bytes,
        allowed: config.allowed.as_slice().into(),
    })
}

/// Builds and bakes reach what this machine is set up to use, too: they are set up in the same way.
async fn outside(also: &[model::address::Network]) -> Option<Outside> {
    let services = tokio::task::spawn_blocking(|| {
        let asked = asked(crate::base::proxies(), Mirror::of_this_machine());
        crate::network::services(asked.iter().map(String::as_str))
    });
    // A resolver that does not answer holds up nobody, and closes nothing: it is asked again.
    let services = tokio::time::timeout(LOOK_UP, services).await.ok()?.ok()?.ok()?;
    let also = also.to_vec();
    Some(Outside::Public { also, services })
}

/// What this machine asks for others: its proxies and its archives.
fn asked(mut proxies: BTreeMap<String, String>, mirror: Mirror) -> Vec<String> {
    // What is asked without a proxy is no proxy.
    proxies.retain(|name, _| !name.eq_ignore_ascii_case("no_proxy"));
    let archives = [
        mirror.debian,
        mirror.security,
        mirror.ubuntu,
        mirror.ubuntu_security,
    ];
    proxies.into_values().chain(archives).collect()
}

fn oven(
    config: &NodeConfig,
    node: &Utf8Path,
    containers: &Containers,
    objects: &crate::objects::Directory,
    logs: &crate::logs::Directory,
    (layers, images): (Layers, Images),
    program: &Utf8Path,
) -> Result<Oven, Error> {
    let kitchen = Kitchen {
        node: node.to_owned(),
        containers: containers.clone(),
        objects: objects.clone(),
        logs: logs.clone(),
        images,
        bases: Bases::open(
            node,
            layers.clone(),
            Mirror::of_this_machine(),
            Reach::Public {
                also: config.registries.clone(),
            },
        )?,
        layers,
        program: program.to_owned(),
        limits: config.bake_limits.clone(),
        at_once: config.bakes_at_once,
    };
    Ok(Oven::open(kitchen)?)
}

fn router(node: Node) -> Router {
    Router::new()
        .merge(api::router())
        .merge(databases::router())
        .merge(api::building())
        .merge(images::router())
        .merge(logs::router())
        .merge(objects::router())
        .merge(upkeep::router())
        .with_state(node)
}

/// A node that builds for a platform elsewhere.
pub(crate) struct Builder {
    node: Node,
    housekeeping: tokio::task::JoinHandle<()>,
}

impl Builder {
    /// [`container::enter_private_mounts`] was called before.
    pub async fn open(config: &NodeConfig) -> Result<Self, Error> {
        let node = open(config, true).await?;
        let housekeeping = tokio::spawn(keep_house(node.clone()));
        Ok(Self { node, housekeeping })
    }

    /// All that it can be asked.
    pub fn router(&self) -> Router {
        Router::new()
            .merge(api::building())
            .merge(objects::router())
            .merge(upkeep::router())
            .with_state(self.node.clone())
    }

    /// Leaves nothing on the machine but its directory.
    pub async fn close(self) -> Result<(), Error> {
        self.housekeeping.abort();
        Ok(self.node.containers.teardown_all().await?)
    }
}

/// What has to be looked at again and again, for as long as the node runs.
async fn keep_house(node: Node) {
    let mut looks: u32 = 0;
    loop {
        if looks.is_multiple_of(LOOKS_A_MINUTE)
            && let Some(outside) = outside(&node.allowed).await
            && let Err(error) = node.containers.networks().open_to(outside).await
        {
            warn!(error = %chain(&error), "cannot open the packet filter to what this machine uses");
        }
        tokio::time::sleep(LOOK).await;
        if let Err(error) = node.containers.networks().guard().await {
            warn!(error = %chain(&error), "cannot look after the packet filter");
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_A_DAY)
            && let Err(error) = node.tickets.expire(now())
        {
            warn!(%error, "cannot remove old answers");
        }
    }
}

/// Agents of an earlier version are replaced soon after the start of this one; a host that is busy keeps the others
/// waiting, but nothing else.
async fn keep_agents(hosts: Hosts) {
    let mut attempts = Attempts::default();
    loop {
        hosts.renew_agents(&mut attempts).await;
        tokio::time::sleep(LOOK).await;
    }
}

fn io(doing: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { doing, path, source }
}

impl Node {
    fn health(&self) -> Health {
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            fallbacks: self.containers.fallbacks(),
            cgroups: self.containers.cgroups().to_owned(),
            preparing: self.preparing.what(&self.oven),
        }
    }
}

/// A fault as an answer: the status says whose it is.
fn refuse(fault: Fault) -> axum::response::Response {
    use axum::{Json, http::StatusCode, response::IntoResponse as _};
    use model::port::Blame;
    let status = match fault.blame {
        Blame::Customer => StatusCode::UNPROCESSABLE_ENTITY,
        Blame::Order => StatusCode::BAD_REQUEST,
        Blame::Platform => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if fault.blame == Blame::Platform {
        warn!(fault = %fault, "an order failed");
    }
    (status, Json(fault)).into_response()
}

fn broken(error: &dyn std::error::Error) -> Fault {
    Fault::platform(chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_without_a_proxy_is_not_opened_to_builds() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let proxies = BTreeMap::from([
            set("https_proxy", "http://proxy.example:3128"),
            set("no_proxy", "127.0.0.1"),
            set("NO_PROXY", "registry.internal:5000"),
        ]);
        let mut expected = vec!["http://proxy.example:3128".to_owned()];
        expected.extend(asked(BTreeMap::new(), Mirror::default()));
        assert_eq!(expected.len(), 5, "and the archives");
        assert_eq!(asked(proxies, Mirror::default()), expected);
    }
}
