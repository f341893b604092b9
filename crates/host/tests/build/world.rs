//! One node for all cases.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    bake::{Kitchen, Oven},
    base::{Bases, Mirror},
    build::{Site, Yard},
    container::{Containers, tag_of},
    image::Images,
    layer::Layers,
    logs, objects,
    oci::Reach,
    ticket::Tickets,
};
use jiff::SignedDuration;
use model::{
    Digest, Ticket,
    port::{BakeOrder, Baked, BuildLimits, BuildOrder, Built, Commit, Fault, LogRef, Resources},
    spec::{
        Buildspec,
        build::{Cache, Env, OnFailure, Phase, PhaseName, Version},
    },
};

pub struct World {
    node: Utf8PathBuf,
    pub containers: Containers,
    pub objects: objects::Directory,
    pub logs: logs::Directory,
    pub layers: Layers,
    pub oven: Oven,
    pub yard: Yard,
    /// What the yard stands on.
    pub site: Site,
    pub answers: Tickets,
    /// Makes what is only done once different in every run.
    pub salt: String,
    tickets: AtomicU64,
}

/// Runs cases on the shared data directory and then looks whether anything was left on the machine.
pub fn run<F: Future<Output = World>>(cases: impl FnOnce(World) -> F) {
    let node = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("vend-build/node");
    fs::create_dir_all(&node).unwrap();
    let lock = fs::File::create(node.join(".tests")).unwrap();
    lock.lock().unwrap();
    host::container::enter_private_mounts().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = cases(open(&node).await).await;
        assert!(world.containers.list().is_empty(), "containers were left");
        world.containers.teardown_all().await.unwrap();
        assert_eq!(
            crate::support::machine_state(&tag_of(&node)),
            Vec::<String>::new()
        );
    });
}

/// Registries may be on this machine's loopback, which customers cannot have.
pub fn bases(node: &Utf8Path, layers: &Layers) -> Bases {
    let also = vec!["127.0.0.1/32".parse().unwrap()];
    Bases::open(
        node,
        layers.clone(),
        Mirror::of_this_machine(),
        Reach::Public { also },
    )
    .unwrap()
}

pub async fn open(node: &Utf8Path) -> World {
    let containers = Containers::open(node).await.unwrap();
    let objects = objects::Directory::open(node, 4 << 30).unwrap();
    let logs = logs::Directory::open(node).unwrap();
    let layers = Layers::open(node).unwrap();
    let images = Images::open(node, layers.clone()).unwrap();
    let oven = Oven::open(Kitchen {
        node: node.to_owned(),
        containers: containers.clone(),
        objects: objects.clone(),
        logs: logs.clone(),
        layers: layers.clone(),
        images,
        bases: bases(node, &layers),
        program: std::env::current_exe().unwrap().try_into().unwrap(),
        limits: Resources {
            cpu: 2.0,
            memory_mib: 1024,
            disk_mib: 4096,
            pids: 1000,
        },
        at_once: 2,
    });
    let site = Site {
        node: node.to_owned(),
        containers: containers.clone(),
        objects: objects.clone(),
        logs: logs.clone(),
        oven: oven.unwrap(),
        program: std::env::current_exe().unwrap().try_into().unwrap(),
        at_once: 2,
        queued: host::build::QUEUED,
        labels: BTreeMap::from([("fleet".to_owned(), "big".to_owned())]),
        apart: false,
    };
    World {
        node: node.to_owned(),
        containers,
        objects,
        logs,
        layers,
        oven: site.oven.clone(),
        yard: Yard::open(site.clone()).unwrap(),
        site,
        answers: Tickets::open(node, "2025-01-01T00:00:00Z".parse().unwrap()).unwrap(),
        salt: tempfile::tempdir()
            .unwrap()
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned(),
        tickets: AtomicU64::new(0),
    }
}

impl World {
    /// The node's directory.
    pub fn node(&self) -> &Utf8Path {
        &self.node
    }

    pub fn ticket(&self) -> Ticket {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let salt = self.salt.trim_start_matches('.').to_lowercase();
        format!("t-{salt}-{number}").parse().unwrap()
    }

    pub fn source(&self, files: &[(&str, &str)]) -> Digest {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        self.objects
            .keep(&tar.into_inner().unwrap()[..], "tar".into())
            .unwrap()
    }

    /// Builds as a node does: until the ticket is stopped.
    pub async fn build(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        let (yard, own, order) = (self.yard.clone(), ticket.clone(), order.clone());
        let work = |stop| async move { yard.build_until(&own, &order, stop).await };
        self.answers
            .until_stopped(ticket, Digest::of("order"), work)
            .await
    }

    pub async fn bake(&self, ticket: &Ticket, order: &BakeOrder) -> Result<Baked, Fault> {
        let (oven, own, order) = (self.oven.clone(), ticket.clone(), order.clone());
        let work = |stop| async move { oven.bake_until(&own, &order, stop).await };
        self.answers
            .until_stopped(ticket, Digest::of("order"), work)
            .await
    }

    /// Waits until a log has a text.
    pub async fn says(&self, log: &str, text: &str) {
        let log = log.parse().unwrap();
        while !self.log(&log).contains(text) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self, log: &LogRef) -> String {
        let mut text = String::new();
        let mut offset = 0;
        loop {
            let chunk = self.logs.chunk(log, offset).unwrap();
            text.push_str(&chunk.text);
            if chunk.ended || chunk.next == offset {
                return text;
            }
            offset = chunk.next;
        }
    }

    pub fn bake_order(&self, files: &[(&str, &str)], scripts: &[&str]) -> BakeOrder {
        BakeOrder {
            place: "acme/shop/dev".parse().unwrap(),
            source: self.source(files),
            base: "debian-12".to_owned(),
            login: None,
            scripts: scripts.iter().map(|script| (*script).into()).collect(),
            inputs: vec!["infra/**".to_owned()],
            commit: commit(),
            trunk: None,
            timeout: SignedDuration::from_mins(5),
        }
    }
}

impl World {
    pub fn build_order(&self, files: &[(&str, &str)], buildspec: Buildspec) -> BuildOrder {
        BuildOrder {
            place: "acme/shop/dev".parse().unwrap(),
            source: self.source(files),
            buildspec,
            commit: commit(),
            number: 7,
            variables: BTreeMap::new(),
            secrets: BTreeMap::new(),
            limits: BuildLimits {
                cpu: 2.0,
                memory_mib: 1024,
                disk_mib: 1024,
                pids: 200,
                timeout: SignedDuration::from_mins(5),
                pass_rate_percent: 100.0,
                tests_asked: false,
                coverage_percent: None,
            },
            labels: BTreeMap::new(),
            image: None,
            login: None,
            task: None,
            push: None,
            trunk: None,
        }
    }
}

/// A buildspec of these phases.
pub fn buildspec(phases: Vec<Phase>) -> Buildspec {
    Buildspec {
        version: Version::V0_2,
        env: Env::default(),
        phases,
        artifacts: None,
        reports: Vec::new(),
        cache: Cache::default(),
        batch: None,
    }
}

pub fn phase(name: PhaseName, commands: &[&str], finally: &[&str]) -> Phase {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Phase {
        name,
        run_as: None,
        on_failure: OnFailure::Transition,
        commands: texts(commands),
        finally: texts(finally),
        runtime_versions: BTreeMap::new(),
    }
}

pub fn commit() -> Commit {
    Commit {
        id: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        author: "Ada <ada@acme.example>".to_owned(),
        message: "one line".to_owned(),
        branch: "dev".to_owned(),
        repository: "http://git.example/acme/shop".to_owned(),
        committed_at: "2025-01-02T03:04:05Z".parse().unwrap(),
    }
}
