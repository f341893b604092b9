//! The node as its client sees it: images, hosts, databases, logs and objects over the socket of a real process that is
//! killed in between.
//!
//! This binary plays every role: `agent` inside hosts, `node` is the process that gets killed, otherwise the test. Bases
//! and images stay between runs, because they take a minute to make.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    process::{Child, Command},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    agent::{self, api::RunOrder},
    client::Client,
    container::tag_of,
    node::NodeConfig,
};
use model::{
    Digest, HostId, Place, Secret,
    port::{
        BakeOrder, Bakery as _, Blame, Commit, DatabaseEngine, DatabaseOrder, Databases as _, HostOrder,
        HostRole, Hosts as _, Keep, Logs as _, Network, Objects as _, Resources, Upkeep as _,
    },
};
use support::machine_state;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("agent") => agent::main(),
        Some("node") => node(Utf8Path::new(&args[2])),
        Some("teardown") => teardown(Utf8PathBuf::from(&args[2])),
        // Nothing is ignored here: test runners ask for that list too.
        Some("--list") if args.iter().any(|arg| arg == "--ignored") => {}
        Some("--list") => println!("node: test"),
        _ => test(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn node(data: &Utf8Path) {
    host::container::enter_private_mounts().unwrap();
    let config = NodeConfig::new(data.to_owned());
    runtime()
        .block_on(host::node::serve(config, std::future::pending()))
        .unwrap();
}

struct World {
    config: NodeConfig,
    client: Client,
    process: Child,
}

impl World {
    async fn start(data: &Utf8Path) -> Self {
        let config = NodeConfig::new(data.to_owned());
        let client = Client::new(config.socket());
        let process = spawn(data);
        let world = Self {
            config,
            client,
            process,
        };
        world.answers().await;
        world
    }

    async fn answers(&self) {
        for _ in 0..200 {
            if let Ok(health) = self.client.health().await {
                println!("  node {} {} {:?}", health.pid, health.cgroups, health.fallbacks);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the node does not answer");
    }

    /// As by the kernel when memory is short.
    async fn kill_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        assert_eq!(self.client.health().await.unwrap_err().blame, Blame::Platform);
        self.process = spawn(&self.config.data);
        self.answers().await;
    }

    async fn shell(&self, host: &HostId, script: &str) -> agent::api::RunOutcome {
        let socket = self
            .config
            .node()
            .join("hosts")
            .join(host.as_str())
            .join("disk/run/agent.sock");
        // The socket is on a disk that only the node has mounted: go where the node is.
        let socket = Utf8PathBuf::from(format!("/proc/{}/root{socket}", self.process.id()));
        let order = RunOrder {
            command: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            directory: None,
            environment: BTreeMap::new(),
            stdin: None,
            timeout_ms: 20_000,
        };
        agent::Client::new(socket).run(&order).await.unwrap()
    }
}

impl Drop for World {
    /// Also after a failed assertion no node stays, and what it left is removed by the next run.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(data: &Utf8Path) -> Child {
    Command::new("/proc/self/exe")
        .args(["node", data.as_str()])
        .spawn()
        .unwrap()
}

fn test() {
    if !support::can_run() {
        return;
    }
    let data = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("vend-node");
    std::fs::create_dir_all(&data).unwrap();
    let lock = std::fs::File::create(data.join(".tests")).unwrap();
    lock.lock().unwrap();
    for left in ["node/tickets", "node/volumes"] {
        let _ = std::fs::remove_dir_all(data.join(left));
    }
    let before = Command::new("/proc/self/exe")
        .args(["teardown", data.as_str()])
        .status()
        .unwrap();
    assert!(before.success());
    runtime().block_on(async {
        let mut world = World::start(&data).await;
        println!("objects go in and out");
        objects(&world.client).await;
        println!("an image is baked");
        let image = first_bake(&world.client).await;
        println!("a host and a database find each other");
        let app = app(image);
        let up = world.client.start(&"t-app".parse().unwrap(), &app).await.unwrap();
        println!("  host up in {} ms", up.duration_ms);
        database(&mut world, &app.host).await;
        println!("logs are read through the node");
        let log = world
            .client
            .read(&"bake/t-bake".parse().unwrap(), 0)
            .await
            .unwrap();
        println!("  {} bytes of the bake's log", log.next);
        println!("the build image gets ready");
        prepared(&world.client).await;
        println!("a sweep keeps what is needed");
        sweep(&world, &app).await;
        world.client.stop(&app.host).await.unwrap();
        world.client.remove_network(&network()).await.unwrap();
        assert!(world.client.list().await.unwrap().is_empty());
    });
    teardown(data);
    println!("test node ... ok");
}

fn teardown(data: Utf8PathBuf) {
    host::container::enter_private_mounts().unwrap();
    runtime().block_on(async {
        let config = NodeConfig::new(data);
        host::node::teardown(&config).await.unwrap();
        let tag = tag_of(&config.node().canonicalize_utf8().unwrap());
        assert_eq!(machine_state(&tag), Vec::<String>::new());
    });
}

async fn objects(client: &Client) {
    let dir = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    let bytes = vec![7; 3 << 20];
    std::fs::write(dir.join("in"), &bytes).unwrap();
    let digest = client.put(&dir.join("in")).await.unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert!(client.has(&digest).await.unwrap());
    client.get(&digest, &dir.join("out")).await.unwrap();
    assert_eq!(std::fs::read(dir.join("out")).unwrap(), bytes);
    let missing = client
        .get(&Digest::of("missing"), &dir.join("none"))
        .await
        .unwrap_err();
    assert_eq!(missing.blame, Blame::Order);
    assert!(!dir.join("none").exists());
}

/// The first bake on a machine waits for the base that the node prepares, and its log says so.
async fn first_bake(client: &Client) -> Digest {
    let preparing = client.health().await.unwrap().preparing;
    println!("  preparing: {preparing:?}");
    // Another one in each run, so that it is made and downloads what it needs.
    let script = format!(
        "#!/bin/sh\n# {}\nset -e\napt-get update -q\napt-get install -qy --no-install-recommends mariadb-client\n\
         mkdir -p /srv/app\n",
        std::process::id()
    );
    let image = bake(client, "t-bake", &script).await;
    if preparing.as_deref() == Some("base debian-12") {
        let log = client.read(&"bake/t-bake".parse().unwrap(), 0).await.unwrap();
        assert!(
            log.text.contains("waiting for the base debian-12"),
            "{}",
            log.text
        );
    }
    image
}

async fn prepared(client: &Client) {
    for _ in 0..6000 {
        if client.health().await.unwrap().preparing.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the build image does not get ready");
}

/// Everything is made to look old; what is wanted and what a host runs from stays all the same.
async fn sweep(world: &World, app: &HostOrder) {
    let (client, node) = (&world.client, world.config.node());
    let kept = bake(client, "t-kept", "#!/bin/sh\ntouch /kept\n").await;
    let unwanted = bake(client, "t-unwanted", "#!/bin/sh\ntouch /unwanted\n").await;
    let dir = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    let mut objects = Vec::new();
    for text in ["wanted", "unwanted", "young"] {
        std::fs::write(dir.join(text), text).unwrap();
        objects.push(client.put(&dir.join(text)).await.unwrap());
    }
    let object = |digest: &Digest| {
        node.join("objects/sha256")
            .join(&digest.hex()[..2])
            .join(digest.hex())
    };
    let logs = node.join("logs/build");
    std::fs::create_dir_all(&logs).unwrap();
    for name in ["t-old", "t-wanted"] {
        std::fs::write(logs.join(name), "said\n").unwrap();
        age(&logs.join(name), 100);
    }
    age_all(&node);
    age(&object(&objects[0]), 1);
    age(&object(&objects[1]), 1);
    let keep = Keep {
        images: [kept].into(),
        objects: [objects[0]].into(),
        logs: ["build/t-wanted".parse().unwrap()].into(),
    };
    let swept = client.sweep(&keep).await.unwrap();
    println!(
        "  {} images, {} layers, {} objects, {} logs, {} bytes",
        swept.images.len(),
        swept.layers,
        swept.objects,
        swept.logs,
        swept.bytes
    );
    assert!(!swept.busy && swept.images.contains(&unwanted) && swept.layers > 0);
    assert!(!swept.images.contains(&kept) && !swept.images.contains(&app.image));
    assert!(!logs.join("t-old").exists() && logs.join("t-wanted").exists());
    let has = [
        client.has(&objects[0]).await.unwrap(),
        client.has(&objects[1]).await.unwrap(),
        client.has(&objects[2]).await.unwrap(),
    ];
    assert_eq!(has, [true, false, true]);
    client.stop(&app.host).await.unwrap();
    for (ticket, image) in [("t-again", app.image), ("t-back", kept)] {
        let order = HostOrder { image, ..app.clone() };
        client.start(&ticket.parse().unwrap(), &order).await.unwrap();
        client.stop(&app.host).await.unwrap();
    }
    assert!(
        node.join("cache/acme").exists(),
        "its bakes have downloaded packages"
    );
    client.forget(&place().tenant, None).await.unwrap();
    assert!(!node.join("cache/acme").exists());
}

/// As if nothing had used an image or a layer for a day.
fn age_all(node: &Utf8Path) {
    for image in node.join("images").read_dir_utf8().unwrap() {
        age(image.unwrap().path(), 1);
    }
    for layer in node.join("layers").read_dir_utf8().unwrap() {
        let record = layer.unwrap().path().join("layer.json");
        if record.exists() {
            age(&record, 1);
        }
    }
}

fn age(path: &Utf8Path, days: u64) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    file.set_modified(now - Duration::from_secs(days * 24 * 3600))
        .unwrap();
}

async fn bake(client: &Client, ticket: &str, script: &str) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    std::fs::write(dir.join("install.sh"), script).unwrap();
    let tar = dir.join("source.tar");
    let made = Command::new("tar")
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "-cf",
            tar.as_str(),
            "-C",
            dir.as_str(),
        ])
        .arg("install.sh")
        .status()
        .unwrap();
    assert!(made.success());
    let order = BakeOrder {
        place: place(),
        source: client.put(&tar).await.unwrap(),
        base: "debian-12".into(),
        login: None,
        scripts: vec!["install.sh".into()],
        inputs: vec![],
        commit: Commit {
            id: "0".repeat(40),
            author: "A".into(),
            message: "m".into(),
            branch: "main".into(),
            repository: "r".into(),
            committed_at: jiff::Timestamp::UNIX_EPOCH,
        },
        trunk: None,
        timeout: jiff::SignedDuration::from_mins(20),
    };
    let baked = client.bake(&ticket.parse().unwrap(), &order).await.unwrap();
    assert_eq!(client.find(&order).await.unwrap().unwrap().image, baked.image);
    baked.image
}

async fn database(world: &mut World, app: &HostId) {
    let ensure = async |world: &World, ticket: &str, password: &str| {
        let up = world
            .client
            .ensure(&ticket.parse().unwrap(), &database_order(password))
            .await
            .unwrap();
        println!(
            "  {ticket}: up in {} ms, existing data: {}",
            up.duration_ms, up.existing_data
        );
        up
    };
    let first = ensure(world, "t-db1", "it's \\secret").await;
    assert_eq!((first.existing_data, first.port), (false, 3306));
    let made = world
        .shell(
            app,
            &sql(
                "it's \\secret",
                "CREATE TABLE t (n INT); INSERT INTO t VALUES (42)",
            ),
        )
        .await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    closed(world, app).await;

    world.kill_and_restart().await;
    assert_eq!(
        ensure(world, "t-db1", "it's \\secret").await,
        first,
        "the first answer"
    );
    let second = ensure(world, "t-db2", "another secret").await;
    assert!(second.existing_data);
    let refused = world.shell(app, &sql("it's \\secret", "SELECT n FROM t")).await;
    assert!(refused.stderr.contains("Access denied"), "{}", refused.stderr);
    let read = world.shell(app, &sql("another secret", "SELECT n FROM t")).await;
    assert_eq!(read.stdout, "n\n42\n", "{}", read.stderr);

    world.client.stop(&database_order("").host).await.unwrap();
    ensure(world, "t-db3", "another secret").await;
    let read = world.shell(app, &sql("another secret", "SELECT n FROM t")).await;
    assert_eq!(read.stdout, "n\n42\n", "{}", read.stderr);

    world
        .client
        .destroy(&database_order("").host, &place())
        .await
        .unwrap();
    world
        .client
        .destroy(&database_order("").host, &place())
        .await
        .unwrap();
    let again = ensure(world, "t-db4", "a third secret").await;
    assert!(!again.existing_data, "deleted for ever");
    world
        .client
        .destroy(&database_order("").host, &place())
        .await
        .unwrap();

    // Whoever deletes while it is made deletes what is made.
    for round in 0..4 {
        let (ticket, order) = (
            format!("t-race{round}").parse().unwrap(),
            database_order("a fourth"),
        );
        let destroying = async {
            tokio::time::sleep(Duration::from_millis(10 + 40 * round)).await;
            world.client.destroy(&order.host, &place()).await.unwrap();
        };
        let (made, ()) = tokio::join!(world.client.ensure(&ticket, &order), destroying);
        println!("  deleted meanwhile: {made:?}");
        let hosts = world.client.list().await.unwrap();
        assert!(
            hosts.iter().all(|host| host.host != order.host),
            "round {round}: {made:?}"
        );
    }
}

/// Only its port can be reached, and nothing from it.
async fn closed(world: &World, app: &HostId) {
    let database = database_order("").host;
    let listen = "timeout 8 perl -e 'use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 9, Listen => 1) or die; $s->accept' & sleep 0.3";
    world
        .shell(&database, &format!("({listen}) >/dev/null 2>&1 </dev/null"))
        .await;
    world
        .shell(app, &format!("({listen}) >/dev/null 2>&1 </dev/null"))
        .await;
    let reach =
        |address: Ipv4Addr, port: u16| format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}'");
    let to = |address, port| reach(address, port);
    assert_eq!(world.shell(app, &to(address(9), 3306)).await.code, Some(0));
    assert_ne!(
        world.shell(app, &to(address(9), 9)).await.code,
        Some(0),
        "another port of the database"
    );
    assert_ne!(
        world.shell(&database, &to(address(2), 9)).await.code,
        Some(0),
        "the app from the database"
    );
    assert_ne!(
        world
            .shell(&database, "timeout 2 getent hosts deb.debian.org")
            .await
            .code,
        Some(0),
        "the world"
    );
}

fn sql(password: &str, statement: &str) -> String {
    let password = password
        .replace('\\', "\\\\")
        .replace('\'', "'\\''")
        .replace("\\\\", "\\");
    format!(
        "MYSQL_PWD='{password}' mariadb --no-defaults -h {} -u shop -D shop --batch -e '{statement}'",
        address(9)
    )
}

fn place() -> Place {
    "acme/shop/dev".parse().unwrap()
}

fn network() -> Network {
    Network {
        number: 5,
        subnet: Ipv4Addr::new(10, 214, 5, 0),
        prefix: 24,
    }
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 214, 5, last)
}

fn resources() -> Resources {
    Resources {
        cpu: 1.0,
        memory_mib: 256,
        disk_mib: 256,
        pids: 128,
    }
}

fn app(image: Digest) -> HostOrder {
    HostOrder {
        host: "h-app".parse().unwrap(),
        place: place(),
        role: HostRole::App,
        image,
        network: network(),
        address: address(2),
        uid_base: 1_000_000,
        resources: resources(),
        port: 8080,
        secrets: BTreeSet::new(),
        environment: BTreeMap::new(),
        processes: BTreeMap::new(),
    }
}

fn database_order(password: &str) -> DatabaseOrder {
    DatabaseOrder {
        host: "h-database".parse().unwrap(),
        place: place(),
        engine: DatabaseEngine::Mariadb,
        network: network(),
        address: address(9),
        uid_base: 1_065_536,
        resources: resources(),
        name: "shop".into(),
        password: Secret::new(password.into()),
    }
}
