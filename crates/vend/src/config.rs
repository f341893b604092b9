//! Where a platform keeps its things, and what its operator decided in `platform.toml`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    address::Network,
    port::{BuildLimits, Resources},
    spec,
};
use serde::Deserialize;
use store::Subnets;

pub mod balancer;
mod edge;

pub use balancer::{AccessLog, Cipher, Edge, Limited, Minimum, Shape, Trusted, Workers};
pub use edge::{Authority, Dedicated, Dns, Rotate};

/// The one data directory of a platform. Each role owns one directory in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data(pub Utf8PathBuf);

impl Data {
    pub fn serve(&self) -> Utf8PathBuf {
        self.0.join("serve")
    }

    pub fn node(&self) -> Utf8PathBuf {
        self.0.join("node")
    }

    pub fn edge(&self) -> Utf8PathBuf {
        self.0.join("edge")
    }

    pub fn run(&self) -> Utf8PathBuf {
        self.0.join("run")
    }

    pub fn api_socket(&self) -> Utf8PathBuf {
        self.run().join("api.sock")
    }

    pub fn node_socket(&self) -> Utf8PathBuf {
        self.run().join("node.sock")
    }

    pub fn edge_socket(&self) -> Utf8PathBuf {
        self.edge().join("edge.sock")
    }

    pub fn repositories(&self) -> Utf8PathBuf {
        self.serve().join("git")
    }

    pub fn platform_toml(&self) -> Utf8PathBuf {
        self.0.join("platform.toml")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read {
        path: Utf8PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not a valid platform.toml")]
    Parse {
        path: Utf8PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{path}: `pool` must be a private IPv4 network of /8 to /20, such as 10.64.0.0/10")]
    Pool { path: Utf8PathBuf },
    #[error("{path}: {why}")]
    Wrong { path: Utf8PathBuf, why: String },
    #[error("{path}: `{text}` in `{key}` is not a network, such as 10.1.2.0/24")]
    Network {
        path: Utf8PathBuf,
        text: String,
        key: &'static str,
    },
}

/// `platform.toml`. A platform without the file runs on these defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Platform {
    /// Environments are called `ENVIRONMENT.APP.TENANT.` and this.
    pub domain: String,
    pub listen: Listen,
    pub network: Pool,
    /// Size classes of hosts.
    pub sizes: BTreeMap<String, Size>,
    pub builds: Builds,
    pub sources: Sources,
    pub images: Images,
    pub registries: Registries,
    pub states: States,
    pub dns: Dns,
    pub acme: Option<Authority>,
    pub machines: Machines,
    pub deployments: Deployments,
    pub edge: Edge,
    pub access_log: AccessLog,
    pub branches: Branches,
}

/// What is baked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// What images may take of the disk. Near it what nothing needs goes at once; at it new bakes wait.
    pub budget_gib: u64,
    /// What stands on an old base is made again without anybody's yes, where its own `image.refresh: automatic` says so.
    /// Otherwise people are asked as for any release.
    pub refresh_automatically: bool,
}

/// Where images come from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// Networks that registries may be at although they are not public, such as `10.1.2.0/24`.
    pub allow: Vec<String>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            budget_gib: 50,
            refresh_automatically: true,
        }
    }
}

impl Registries {
    /// The networks that are allowed; one that is not a network was refused when the file was read.
    pub fn networks(&self) -> Vec<Network> {
        networks(&self.allow)
    }
}

/// The Step Functions API.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct States {
    /// Callers on loopback that sign with keys of nobody, or do not sign at all, act as developers of this tenant. Without
    /// it they are refused.
    pub unsigned: Option<model::TenantName>,
    /// Where distributed Maps read and write objects: `BUCKET/KEY` below the directory with the number of the tenant, as
    /// in ARNs (`000000000007`). serve must be able to read and write there. Without it such Maps fail, and others have their items from their input.
    pub objects: Option<Utf8PathBuf>,
}

/// How deployments go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deployments {
    /// A newer push waits so long for a script of a hook, or twice as long as one host's hooks took together in the
    /// environment's last deployments, whatever is more. Then it takes the release's place. For one that is built or baked it
    /// waits so long without anything new, or twice as long as one build or bake took, and longer each time in a row.
    pub patience_s: u32,
}

impl Default for Deployments {
    fn default() -> Self {
        Self { patience_s: 300 }
    }
}

/// Environments that come and go with their branches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Branches {
    /// So many of them one tenant has at the same time, whatever its `vend.yaml`s allow.
    pub most_per_tenant: u32,
}

impl Default for Branches {
    fn default() -> Self {
        Self { most_per_tenant: 20 }
    }
}

/// Machines of customers' own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machines {
    /// Where they dial. Without it no machine can join.
    pub listen: Option<SocketAddr>,
    /// `HOST:PORT` under which machines reach that, where it is another.
    pub address: Option<String>,
    /// How long the certificate of a machine is good. It gets another after a third of that; one that was away for longer
    /// needs another invitation.
    pub certificate_s: u32,
}

impl Default for Machines {
    fn default() -> Self {
        Self {
            listen: None,
            address: None,
            certificate_s: 7 * 24 * 3600,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Of the edge: customers' traffic. Port 0 picks a free one.
    pub http: SocketAddr,
    /// Of serve: API, git and webhooks.
    pub api: SocketAddr,
    /// Of the edge, with the certificates in `edge/certificates`.
    pub https: Option<SocketAddr>,
    /// Where the TCP and UDP ports of apps are; where `http` is, when nothing is said.
    pub apps: Option<IpAddr>,
    /// By domain, what listens for it alone.
    pub dedicated: BTreeMap<String, Dedicated>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Each environment gets a /24 of it. Without one, each data directory has its own part of 10.64.0.0/10, so that
    /// two platforms can live on one machine.
    pub pool: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Cores.
    pub cpu: f64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub pids: u32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Builds {
    pub cpu: f64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub pids: u32,
    /// So many builds run at a time; more wait.
    pub at_once: usize,
    /// What this machine is beside its `arch` and `os`, for builds that ask for it.
    pub labels: BTreeMap<String, String>,
    /// Private networks that builds and the scripts of images reach, such as `10.1.2.0/24`.
    pub allow: Vec<String>,
    /// A builder elsewhere that says nothing for so long while it has a build is given up; a build waits as long for one
    /// that is not connected.
    pub silent_s: u32,
}

/// Repositories elsewhere.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Networks that repositories may be fetched from although they are not public, such as `10.1.2.0/24`.
    pub allow: Vec<String>,
    /// What one fetch may bring.
    pub most_mib: u64,
    pub timeout_s: u64,
}

impl Default for Platform {
    fn default() -> Self {
        let size = |cpu, memory_mib| Size {
            cpu,
            memory_mib,
            disk_mib: 4 * 1024,
            pids: 512,
        };
        Self {
            domain: "localhost".into(),
            listen: Listen::default(),
            network: Pool::default(),
            sizes: BTreeMap::from([
                ("tiny".into(), size(0.5, 256)),
                ("small".into(), size(1.0, 512)),
                ("medium".into(), size(2.0, 2048)),
                ("large".into(), size(4.0, 8192)),
            ]),
            builds: Builds::default(),
            sources: Sources::default(),
            images: Images::default(),
            registries: Registries::default(),
            states: States::default(),
            dns: Dns::default(),
            acme: None,
            machines: Machines::default(),
            deployments: Deployments::default(),
            edge: Edge::default(),
            access_log: AccessLog::default(),
            branches: Branches::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            http: ([127, 0, 0, 1], 8080).into(),
            api: ([127, 0, 0, 1], 7070).into(),
            https: None,
            apps: None,
            dedicated: BTreeMap::new(),
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            most_mib: 1024,
            timeout_s: 600,
        }
    }
}

impl Sources {
    /// The networks that are allowed; one that is not a network was refused when the file was read.
    pub fn networks(&self) -> Vec<Network> {
        networks(&self.allow)
    }
}

fn networks(allowed: &[String]) -> Vec<Network> {
    allowed.iter().filter_map(|text| Network::exact(text)).collect()
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            cpu: 2.0,
            memory_mib: 4096,
            disk_mib: 10 * 1024,
            pids: 1024,
            at_once: 2,
            labels: BTreeMap::new(),
            allow: Vec::new(),
            silent_s: 300,
        }
    }
}

impl Builds {
    /// As it is configured, of builders.
    pub fn silent(&self) -> Duration {
        Duration::from_secs(self.silent_s.into())
    }

    /// The networks that are allowed; one that is not a network was refused when the file was read.
    pub fn networks(&self) -> Vec<Network> {
        networks(&self.allow)
    }
}

impl Platform {
    /// Reads `platform.toml` of the data directory; without one, the defaults.
    pub fn load(path: &Utf8Path) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(Error::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let platform: Self = toml::from_str(&text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if platform.network.pool.is_some() && platform.network.named().is_none() {
            return Err(Error::Pool {
                path: path.to_owned(),
            });
        }
        let wrong = |text: &&String| Network::exact(text).is_none();
        for (key, allowed) in [
            ("sources.allow", &platform.sources.allow),
            ("registries.allow", &platform.registries.allow),
            ("builds.allow", &platform.builds.allow),
        ] {
            if let Some(text) = allowed.iter().find(wrong) {
                return Err(Error::Network {
                    path: path.to_owned(),
                    text: text.clone(),
                    key,
                });
            }
        }
        if let Some(why) = edge::wrong(&platform) {
            return Err(Error::Wrong {
                path: path.to_owned(),
                why,
            });
        }
        Ok(platform)
    }

    pub fn resources(&self, size: &str) -> Option<Resources> {
        self.sizes.get(size).map(|size| Resources {
            cpu: size.cpu,
            memory_mib: size.memory_mib,
            disk_mib: size.disk_mib,
            pids: size.pids,
        })
    }

    pub fn build_limits(&self, build: &spec::Build) -> BuildLimits {
        let Builds {
            cpu,
            memory_mib,
            disk_mib,
            pids,
            ..
        } = self.builds;
        BuildLimits {
            cpu,
            memory_mib,
            disk_mib,
            pids,
            timeout: build.timeout,
            pass_rate_percent: build.pass_rate,
            tests_asked: build.pass_rate_asked,
            coverage_percent: build.coverage,
        }
    }

    /// The name under which the edge serves an environment.
    pub fn hostname(&self, place: &model::Place) -> String {
        format!(
            "{}.{}.{}.{}",
            place.environment, place.app, place.tenant, self.domain
        )
    }
}

impl Pool {
    /// The pool that the operator named; `None` when it cannot be one.
    pub fn named(&self) -> Option<Subnets> {
        let (base, prefix) = self.pool.as_ref()?.split_once('/')?;
        let base: Ipv4Addr = base.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (8..=20).contains(prefix))?;
        (base.is_private() && u32::from(base) << prefix == 0).then_some(Subnets { base, prefix })
    }

    /// The pool of a platform whose operator named none.
    pub fn of(data: &Data) -> Subnets {
        // 10.64 to 10.127, away from what home routers, Docker and AWS use by default.
        let part = model::Digest::of(data.0.as_str()).as_bytes()[0] % 64;
        Subnets {
            base: Ipv4Addr::new(10, 64 + part, 0, 0),
            prefix: 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_has_labels() {
        let text =
            "[builds]\nat_once = 3\nsilent_s = 7\nlabels = { fleet = \"big\" }\nallow = [\"10.1.2.0/24\"]\n";
        let builds = toml::from_str::<Platform>(text).unwrap().builds;
        assert_eq!(builds.networks(), ["10.1.2.0/24".parse().unwrap()]);
        assert_eq!((builds.at_once, builds.labels["fleet"].as_str()), (3, "big"));
        assert_eq!(builds.silent().as_secs(), 7);
        assert_eq!(
            (builds.cpu, Builds::default().at_once),
            (Builds::default().cpu, 2)
        );
    }

    #[test]
    fn only_a_private_network_is_a_pool() {
        for (pool, expected) in [
            ("10.64.0.0/10", true),
            ("10.64.0.1/10", false),
            ("8.0.0.0/8", false),
            ("10.0.0.0/24", false),
        ] {
            assert_eq!(
                Pool {
                    pool: Some(pool.into())
                }
                .named()
                .is_some(),
                expected,
                "{pool}"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<Platform>("domian = 'x'").is_err());
        assert_eq!(
            toml::from_str::<Platform>("domain = 'example.com'")
                .unwrap()
                .domain,
            "example.com"
        );
    }
}
