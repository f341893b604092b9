//! A node that is killed while it bakes leaves nothing half-made.

use std::{fs, io::Read as _, process::Command, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use host::container::tag_of;
use model::port::{BakeOrder, Bakery as _};

use crate::world::{self, World};

/// The first argument of a process that bakes until it is killed; the second is its node's directory, the third, if there
/// is one, the salt of an image of three steps.
pub const BAKES: &str = "bake-until-killed";
const RUNNING: &str = "begun";

/// What the process does that is killed.
pub fn bake(node: &str, salt: Option<&str>) {
    host::container::enter_private_mounts().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = world::open(Utf8Path::new(node)).await;
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
    assert_eq!(fs::read_dir(node.node().join("bakes")).unwrap().count(), 0);
    let layers = fs::read_dir(node.node().join("layers")).unwrap().count();
    assert_eq!(
        layers,
        node.layers.list().unwrap().len(),
        "what is there is whole"
    );
    let mounts = fs::read_to_string("/proc/1/mounts").unwrap();
    assert!(!mounts.contains(node.node().as_str()), "{mounts}");
}

pub async fn a_bake_that_is_killed_at_any_instant_is_taken_up_as_it_was(world: &World) {
    const ROUNDS: u32 = 20;
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    with_base(world, &node).await;
    let program = std::env::current_exe().unwrap();
    // What an undisturbed one makes, and how long such a process takes.
    let begun = std::time::Instant::now();
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
        let mut bits = [0; 4];
        fs::File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut bits)
            .unwrap();
        let after = whole.mul_f64(f64::from(u32::from_ne_bytes(bits)) / f64::from(u32::MAX));
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
