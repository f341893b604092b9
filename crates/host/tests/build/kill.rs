//! A node that is killed while it bakes leaves nothing half-made.

use std::{fs, process::Command, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use host::container::tag_of;

use crate::world::{self, World};

/// The first argument of a process that bakes until it is killed; the second is its node's directory.
pub const BAKES: &str = "bake-until-killed";
const RUNNING: &str = "begun";

/// What the process does that is killed.
pub fn bake(node: &str) {
    host::container::enter_private_mounts().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = world::open(Utf8Path::new(node)).await;
        let script = format!("touch /half; echo {RUNNING}; sleep 1000\n");
        let order = world.bake_order(&[("infra/slow.sh", &script)], &["infra/slow.sh"]);
        let _ = world.bake(&"t-killed".parse().unwrap(), &order).await;
    });
}

pub async fn a_killed_bake_leaves_nothing(world: &World) {
    let base = "debian-12".parse().unwrap();
    let base = world
        .oven
        .bases()
        .ensure(host::base::Wanted::of(&base), |_| {})
        .await
        .unwrap();
    let node: Utf8PathBuf = world.node().with_file_name("killed");
    let _ = fs::remove_dir_all(&node);
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
        assert!(next.containers.list().is_empty(), "a container was left");
        assert_eq!(fs::read_dir(node.join("bakes")).unwrap().count(), 0);
        assert_eq!(next.layers.list().unwrap().len(), 1, "half a layer was left");
        assert_eq!(fs::read_dir(node.join("layers")).unwrap().count(), 1);
        assert!(next.oven.images().list().unwrap().is_empty());
        next.containers.teardown_all().await.unwrap();
        assert_eq!(
            crate::support::machine_state(&tag_of(&node)),
            Vec::<String>::new()
        );
    }
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
