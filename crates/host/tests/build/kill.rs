//! A node that is killed while it bakes or builds leaves nothing half-made.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use host::container::tag_of;
use model::{
    port::{BakeOrder, Bakery as _, BuildOrder},
    spec::Buildspec,
};

use crate::{
    world::{self, World},
    yard::unpack,
};

/// The first argument of a process that bakes until it is killed; the second is its node's directory, the third, if there
/// is one, the salt of an image of three steps.
pub const BAKES: &str = "bake-until-killed";
/// The first argument of a process that builds until it is killed; then its node's directory, the build's ticket, and
/// anything if it is to take long.
pub const BUILDS: &str = "build-until-killed";
const RUNNING: &str = "begun";

/// What a process does that is killed: on a node of its own.
fn alone<F: Future<Output = ()>>(node: &str, work: impl FnOnce(World) -> F) {
    host::container::enter_private_mounts().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(world::open(Utf8Path::new(node)).await).await });
}

pub fn build(node: &str, ticket: &str, long: bool) {
    alone(node, async |world| {
        let mut order = cached(&world);
        if long {
            let text = "version: 0.2\nphases: { build: { commands: [sleep 1000] } }\n";
            order.buildspec = Buildspec::parse(text, "b").unwrap().0;
        }
        let _ = world.build(&ticket.parse().unwrap(), &order).await;
    });
}

pub fn bake(node: &str, salt: Option<&str>) {
    alone(node, async |world| {
        let script = format!("touch /half; echo {RUNNING}; sleep 1000\n");
        let order = match salt {
            Some(salt) => three_steps(&world, salt),
            None => world.bake_order(&[("infra/slow.sh", &script)], &["infra/slow.sh"]),
        };
        let _ = world.bake(&"t-killed".parse().unwrap(), &order).await;
    });
}

/// The same files for every salt, made by other keys.
fn three_steps(world: &World, salt: &str) -> BakeOrder {
    let step = |number: u32| {
        format!(
            "# {salt}\nset -e\nmkdir /opt/{number}; for n in $(seq 300); do echo {number} $n > /opt/{number}/$n; done\n\
             sleep 0.1; rm /opt/{number}/7; ln /opt/{number}/8 /opt/{number}/linked\n"
        )
    };
    let (one, two, three) = (step(1), step(2), step(3));
    let files = [("a.sh", one.as_str()), ("b.sh", &two), ("c.sh", &three)];
    let mut order = world.bake_order(&files, &["a.sh", "b.sh", "c.sh"]);
    order.inputs.clear();
    order
}

/// A new node that has the base, and nothing else.
pub async fn with_base(world: &World, node: &Utf8Path) {
    let base = "debian-12".parse().unwrap();
    let base = world
        .oven
        .bases()
        .ensure(host::base::Wanted::of(&base), |_| {})
        .await
        .unwrap();
    let _ = fs::remove_dir_all(node);
    for home in ["layers", "bases"] {
        fs::create_dir_all(node.join(home)).unwrap();
    }
    let known = "bases/debian-12.json";
    fs::copy(world.node().join(known), node.join(known)).unwrap();
    let layer = format!("layers/{}", base.key.hex());
    let copied = Command::new("cp")
        .args([
            "-al",
            world.node().join(&layer).as_str(),
            node.join(&layer).as_str(),
        ])
        .status()
        .unwrap();
    assert!(copied.success());
}

pub async fn a_killed_bake_leaves_nothing(world: &World) {
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    with_base(world, &node).await;
    let program = std::env::current_exe().unwrap();
    for _ in 0..2 {
        let mut child = Command::new(&program)
            .args([BAKES, node.as_str()])
            .spawn()
            .unwrap();
        let log = node.join("logs/bake/t-killed");
        while !said(&log) {
            assert!(child.try_wait().unwrap().is_none(), "the bake ended by itself");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            !crate::support::machine_state(&tag_of(&node)).is_empty(),
            "a container runs"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_dir_all(node.join("logs"));
        // The next node's start.
        let next = world::open(&node).await;
        nothing_is_half_made(&next);
        assert_eq!(next.layers.list().unwrap().len(), 1, "half a layer was left");
        assert!(next.oven.images().list().unwrap().is_empty());
        next.containers.teardown_all().await.unwrap();
        assert_eq!(
            crate::support::machine_state(&tag_of(&node)),
            Vec::<String>::new()
        );
    }
    fs::remove_dir_all(&node).unwrap();
}

fn nothing_is_half_made(node: &World) {
    assert!(node.containers.list().is_empty(), "a container was left");
    for home in ["bakes", "builds"] {
        let left = fs::read_dir(node.node().join(home)).unwrap().count();
        assert_eq!(left, 0, "work was left in {home}");
    }
    let staged = fs::read_dir(node.node().join("cache/+new")).unwrap().count();
    assert_eq!(staged, 0, "half of a cache was left");
    let layers = fs::read_dir(node.node().join("layers")).unwrap().count();
    assert_eq!(
        layers,
        node.layers.list().unwrap().len(),
        "what is there is whole"
    );
    let mounts = fs::read_to_string("/proc/1/mounts").unwrap();
    assert!(!mounts.contains(node.node().as_str()), "{mounts}");
}

/// What only containers have of the machine: processes, groups, links, namespaces.
fn nothing_runs(node: &World) {
    let tag = tag_of(node.node());
    let group = format!("vend-{tag}/");
    let alive = processes("cgroup", &group);
    assert!(alive.is_empty(), "processes were left: {alive:?}");
    let left = Command::new("sh")
        .args([
            "-c",
            &format!(
                "find /sys/fs/cgroup -path '*vend-{tag}/*build*' -type d; ip -o link | grep vh{tag}; ip netns list | grep {tag}; losetup --list | grep {}; true",
                node.node()
            ),
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&left.stdout),
        "",
        "of the container that was killed"
    );
}

/// The command lines of the processes of which a file in `/proc` holds a text.
fn processes(file: &str, text: &str) -> Vec<String> {
    let read = |path: PathBuf| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    let all = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    all.filter(|process| read(process.join(file)).is_ok_and(|own| own.contains(text)))
        .map(|process| {
            format!(
                "{} {}",
                process.display(),
                read(process.join("cmdline")).unwrap_or_default()
            )
        })
        .collect()
}

/// A build that leaves a cache of 300 files, and fails when it finds another number of them or none.
fn cached(world: &World) -> BuildOrder {
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - mkdir -p deps; found=$(ls deps | wc -l); echo \"found $found\"; [ $found = 0 ] || [ $found = 300 ]\n      - for n in $(seq 300); do echo $n > deps/$n; done; sleep 0.3; cat deps/* | sort -n > all\nartifacts: { files: all }\ncache: { paths: ['deps/**/*'] }\n";
    let mut order = world.build_order(&[("a", "")], Buildspec::parse(text, "b").unwrap().0);
    order.image = Some("debian-12".to_owned());
    order
}

/// A process that builds on a node of its own.
fn builder(node: &Utf8Path, ticket: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args([BUILDS, node.as_str(), ticket]).spawn().unwrap()
}

/// Kills a build at a random instant before `latest`, or in the middle of a call of the runtime, which goes on without
/// who made it.
async fn kill_build(node: &Utf8Path, ticket: &str, latest: Option<Duration>) {
    let begun = Instant::now();
    let mut child = builder(node, ticket);
    let wait = match latest {
        Some(latest) => latest,
        None => {
            let call = format!("--root {node}/crun");
            while processes("cmdline", &call).is_empty() && child.try_wait().unwrap().is_none() {}
            Duration::from_millis(40)
        }
    };
    tokio::time::sleep(wait.mul_f64(random())).await;
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{ticket}: killed after {:?}", begun.elapsed());
}

pub async fn a_build_that_is_killed_at_any_instant_is_made_once(world: &World) {
    const ROUNDS: u32 = 15;
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    with_base(world, &node).await;
    // The first makes what is only made once.
    builder(&node, "t-first").wait().unwrap();
    let begun = Instant::now();
    builder(&node, "t-whole").wait().unwrap();
    let whole = begun.elapsed();
    let mut expected = None;
    let mut cut = 0;
    for round in 0..ROUNDS {
        let name = format!("t-round-{round}");
        kill_build(&node, &name, (round % 3 != 0).then_some(whole)).await;
        let next = world::open(&node).await;
        nothing_is_half_made(&next);
        nothing_runs(&next);
        // Made again, or told again: what comes of it is the same.
        let (ticket, log) = (name.parse().unwrap(), format!("build/{name}").parse().unwrap());
        let made = || next.log(&log).matches("The build succeeded").count();
        cut += u32::from(made() == 0);
        let built = next.build(&ticket, &cached(&next)).await.unwrap();
        let all = &unpack(&next, &built.artifact)["all"];
        assert_eq!(all.len(), 1092, "the numbers to 300");
        assert_eq!(*expected.get_or_insert(built.artifact), built.artifact);
        let before = made();
        let again = next.build(&ticket, &cached(&next)).await.unwrap();
        assert_eq!(
            (again.artifact, made()),
            (built.artifact, before),
            "an answer is given again"
        );
        nothing_runs(&next);
        next.containers.teardown_all().await.unwrap();
        let left = crate::support::machine_state(&tag_of(&node));
        assert_eq!(left, Vec::<String>::new());
    }
    println!("{cut} of {ROUNDS} builds were cut short");
    assert!(cut > 0, "every build was done before it was killed");
    fs::remove_dir_all(&node).unwrap();
}

pub async fn a_build_ends_with_who_listens_to_it(world: &World) {
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    with_base(world, &node).await;
    // The first makes what is only made once.
    builder(&node, "t-first").wait().unwrap();
    let program = std::env::current_exe().unwrap();
    let arguments = [BUILDS, node.as_str(), "t-long", "long"];
    let mut child = Command::new(program).args(arguments).spawn().unwrap();
    let group = format!("vend-{}/", tag_of(&node));
    let runs = || processes("cgroup", &group);
    while !runs().iter().any(|process| process.contains("sleep 1000")) {
        assert!(child.try_wait().unwrap().is_none(), "the build ended by itself");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Nobody clears away, and no node is started.
    let begun = Instant::now();
    while !runs().is_empty() && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = runs();
    world::open(&node).await.containers.teardown_all().await.unwrap();
    assert_eq!(left, Vec::<String>::new());
    fs::remove_dir_all(&node).unwrap();
}

/// Between 0 and 1.
fn random() -> f64 {
    let mut bits = [0; 4];
    fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bits)
        .unwrap();
    f64::from(u32::from_ne_bytes(bits)) / f64::from(u32::MAX)
}

pub async fn a_bake_that_is_killed_at_any_instant_is_taken_up_as_it_was(world: &World) {
    const ROUNDS: u32 = 20;
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    with_base(world, &node).await;
    let program = std::env::current_exe().unwrap();
    // What an undisturbed one makes, and how long such a process takes.
    let begun = Instant::now();
    let whole = Command::new(&program)
        .args([BAKES, node.as_str(), "whole"])
        .status()
        .unwrap();
    assert!(whole.success());
    let whole = begun.elapsed();
    let expected = {
        let next = world::open(&node).await;
        let order = three_steps(&next, "whole");
        let baked = next.bake(&next.ticket(), &order).await.unwrap();
        assert!(baked.reused);
        baked.image
    };
    let mut cut = 0;
    for round in 0..ROUNDS {
        let salt = format!("round-{round}");
        let after = whole.mul_f64(random());
        let mut child = Command::new(&program)
            .args([BAKES, node.as_str(), &salt])
            .spawn()
            .unwrap();
        tokio::time::sleep(after).await;
        child.kill().unwrap();
        child.wait().unwrap();
        println!("round {round}: killed after {after:?}");
        let next = world::open(&node).await;
        nothing_is_half_made(&next);
        // Whatever was made is used again, and what comes of it are the same files as ever.
        let order = three_steps(&next, &salt);
        cut += u32::from(next.oven.find(&order).await.unwrap().is_none());
        let baked = next.bake(&next.ticket(), &order).await.unwrap();
        assert_eq!(baked.image, expected);
        next.containers.teardown_all().await.unwrap();
        assert_eq!(
            crate::support::machine_state(&tag_of(&node)),
            Vec::<String>::new()
        );
    }
    println!("{cut} of {ROUNDS} bakes were cut short");
    assert!(cut > 0, "every bake was done before it was killed");
    fs::remove_dir_all(&node).unwrap();
}

/// Whether a log, whatever its file is called and however it is kept, tells that the script runs.
fn said(log: &Utf8Path) -> bool {
    let (Some(home), Some(name)) = (log.parent(), log.file_name()) else {
        return false;
    };
    let files = home.read_dir_utf8().into_iter().flatten().flatten();
    files
        .filter(|file| file.file_name().starts_with(name))
        .any(|file| {
            fs::read(file.path()).is_ok_and(|bytes| {
                bytes
                    .windows(RUNNING.len())
                    .any(|part| part == RUNNING.as_bytes())
            })
        })
}
