//! Killed while the image that a build needs is made: nothing of it stays, and the next build makes it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use camino::Utf8Path;

use crate::{ends::entries, home, place, said, tree, vend, vend_in};

/// All that there is on the machine of builds in a home, but for what is whole.
fn left(home: &Path) -> Vec<String> {
    let path = home.to_str().unwrap();
    let tag = host::container::tag_of(Utf8Path::new(path));
    let mut found = Vec::new();
    for process in entries("/proc") {
        let text = |file: &str| {
            let bytes = fs::read(process.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let name = process.display();
        if text("cmdline").contains(path) || text("cgroup").contains(&format!("vend-{tag}/")) {
            found.push(format!("process {name}: {}", text("cmdline")));
        }
        if text("mountinfo").contains(path) {
            found.push(format!("mount in {name}"));
        }
    }
    for directory in ["bakes", "builds", "containers"] {
        let entries = entries(home.join(directory));
        found.extend(entries.iter().map(|path| format!("directory {}", path.display())));
    }
    for layer in entries(home.join("layers")) {
        if !layer.join("layer.json").exists() || layer.file_name().unwrap().as_encoded_bytes()[0] == b'.' {
            found.push(format!("half a layer {}", layer.display()));
        }
    }
    let groups = entries("/sys/fs/cgroup");
    for group in groups.iter().chain([&PathBuf::from("/sys/fs/cgroup")]) {
        let inner = entries(group.join(format!("vend-{tag}")));
        let inner = inner.iter().filter(|path| path.is_dir());
        found.extend(inner.map(|path| format!("group {}", path.display())));
    }
    for link in entries("/sys/class/net") {
        let name = link.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(&format!("vend{tag}")) || name.starts_with(&format!("vh{tag}")) {
            found.push(format!("link {name}"));
        }
    }
    found
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(tree: &Path, home: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
    command
        .args(["build", "--local"])
        .arg(tree)
        .arg("--home")
        .arg(home)
        .args(more);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a build some time after what it leaves has all of these, and waits until nothing is left.
fn kill(mut child: Child, home: &Path, there: &[&str], after: Duration) {
    wait("it was never seen at work", || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it was killed"
        );
        let left = left(home);
        there
            .iter()
            .all(|what| left.iter().any(|line| line.contains(what)))
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut last = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        last = left(home);
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("left behind: {last:#?}");
}

fn copy(what: &str, to: &Path) {
    let from = home().join(what);
    if from.exists() {
        fs::create_dir_all(to.join(what).parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-a").arg(from).arg(to.join(what)).status();
        assert!(copied.unwrap().success());
    }
}

#[test]
fn a_build_that_is_killed_while_its_image_is_made_leaves_nothing() {
    let Some(_one) = place() else { return };
    let tree = tree(&[(
        "buildspec.yml",
        "version: 0.2\nphases: { build: { commands: [git --version] } }\n",
    )]);
    // What was downloaded once is not downloaded again.
    let first = vend(tree.path(), &[]);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    let new = home().with_file_name("killed-bakes");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).unwrap();
    let new = new.canonicalize().unwrap();
    copy("bases/archives", &new);
    copy("cache/+platform", &new);

    // While its base is installed.
    for after in [0, 2_000] {
        let child = start(tree.path(), &new, &["--image", "debian-12"]);
        let there = ["mmdebstrap", "half a layer", "mount in"];
        // Its layer is whole by then on a fast machine, and may stay; half of it may not.
        kill(child, &new, &there, Duration::from_millis(after));
    }
    let built = vend_in(&new, tree.path(), &["--image", "debian-12", "--json"]);
    assert_eq!(built.status.code(), Some(1), "the bare base has no git");
    assert!(said(&built).contains("exit status 127"), "{}", said(&built));

    // While the script of `standard` runs in its container.
    for after in [0, 3_000] {
        let child = start(tree.path(), &new, &[]);
        let there = ["apt-get", "group ", "link ", "directory ", "mount in"];
        kill(child, &new, &there, Duration::from_millis(after));
        assert_eq!(entries(new.join("layers")).len(), 1, "the base alone");
        assert_eq!(entries(new.join("images")).len(), 1, "the base alone");
    }
    let built = vend_in(&new, tree.path(), &[]);
    assert_eq!(built.status.code(), Some(0), "{}", said(&built));
    assert!(said(&built).contains("git version"), "{}", said(&built));
    assert_eq!(left(&new), Vec::<String>::new());
    fs::remove_dir_all(&new).unwrap();
}
