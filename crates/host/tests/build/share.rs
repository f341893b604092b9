//! What images have in common, and what others make of them.

use std::{fs, os::unix::fs::MetadataExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use host::image::Packing;
use host::oci::layout::Layout;
use model::{Digest, port::Bakery as _};
use serde_json::{Value, json};

use crate::{
    images::{run, small, there},
    kill,
    world::{self, World},
};

/// A file of the base that nobody else reads meanwhile.
const LARGE: &str = "usr/bin/perl";
const APPS: usize = 10;

/// Bytes of blocks, each file once.
fn blocks(path: &Utf8Path) -> u64 {
    let text = run("du", &["-sB1", path.as_str()]);
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes of a file that are in memory.
fn resident(path: &Utf8Path) -> u64 {
    let text = run("fincore", &["-n", "-b", "-o", "RES", path.as_str()]);
    text.trim().parse().unwrap()
}

fn forget(path: &Utf8Path) {
    let file = fs::File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

pub async fn ten_apps_share_their_base_on_disk_and_in_memory(world: &World) {
    let base = "debian-12".parse().unwrap();
    let base = world
        .oven
        .bases()
        .ensure(host::base::Wanted::of(&base), |_| {})
        .await
        .unwrap();
    let layers = world.node().join("layers");
    let file = world.layers.files(&base.key).join(LARGE);
    let (before, inode) = (blocks(&layers), fs::metadata(&file).unwrap().ino());
    for app in 0..APPS {
        let script = format!(
            "# {}\nset -e\ncat /{LARGE} > /dev/null\nstat -c %i /{LARGE} > /inode\necho {app} > /app\n",
            world.salt
        );
        let mut order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
        order.place = format!("acme/app{app}/dev").parse().unwrap();
        forget(&file);
        assert_eq!(resident(&file), 0, "nobody has it in memory");
        let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
        assert!(!baked.reused && baked.layers[0].key == base.key);
        // Read through this app's own mounts, the pages are those of the one file that all have. Not of all of it: a machine may
        // take pages back that it thinks cold (DAMON does at once, where others of the same region are).
        assert!(resident(&file) > 0);
        let seen = fs::read_to_string(world.layers.files(&baked.layers[1].key).join("inode")).unwrap();
        assert_eq!(seen.trim(), inode.to_string());
    }
    let grown = blocks(&layers) - before;
    println!(
        "{APPS} apps on a base of {} bytes took {grown} bytes more",
        base.size_bytes
    );
    assert!(grown < base.size_bytes / 50, "{grown} bytes");
}

/// The configuration of a bundle, with another command and without a terminal.
fn says(bundle: &Utf8Path, command: &str) {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", command]);
    // Control groups are the machine's affair, and the machines of tests have them in every shape.
    config["linux"].as_object_mut().unwrap().remove("resources");
    fs::write(&path, config.to_string()).unwrap();
}

pub async fn other_runtimes_run_what_is_exported(world: &World) {
    const LOOK: &str = "set -e; id -un; cat /opt/full/c; test ! -e /opt/link; test -p /opt/pipe; id deploy; . /etc/os-release; echo $ID";
    let (image, _) = small(world).await;
    let work = world.node().join("elsewhere");
    let _ = fs::remove_dir_all(&work);
    let layout = work.join("layout");
    fs::create_dir_all(&layout).unwrap();
    let images = world.oven.images();
    images.export(&image, &layout, Packing::Gzip, Some("v1")).unwrap();
    let check = |who: &str, said: &str| {
        println!("{who}: {}", said.replace('\n', " "));
        assert!(
            said.starts_with("root\nc\n") && said.contains("(deploy)"),
            "{who}: {said}"
        );
        assert!(said.trim_end().ends_with("debian"), "{who}: {said}");
    };
    if there("umoci") {
        let bundle = work.join("bundle");
        run(
            "umoci",
            &["unpack", "--image", &format!("{layout}:v1"), bundle.as_str()],
        );
        says(&bundle, LOOK);
        let at = format!("--root={work}/state");
        for (runtime, more) in [("crun", Some("--cgroup-manager=disabled")), ("runc", None)] {
            if there(runtime) {
                let mut arguments = vec![at.as_str()];
                arguments.extend(more);
                let id = format!("vend-test-{}", std::process::id());
                arguments.extend(["run", "--bundle", bundle.as_str(), &id]);
                check(runtime, &run(runtime, &arguments));
            }
        }
    }
    if there("podman") {
        // Its path may have fifty characters.
        let short = tempfile::tempdir().unwrap();
        let runroot = format!("--runroot={}", short.path().display());
        let root = format!("--root={work}/storage");
        let from = format!("oci:{layout}:v1");
        let arguments = [
            &root,
            &runroot,
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            "run",
            "--rm",
            "--network=none",
            "--cgroups=disabled",
            // Its own wish is more than the limit of some machines.
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=4096:4096",
            &from,
            "/bin/sh",
            "-c",
            LOOK,
        ];
        check("podman", &run("podman", &arguments));
    }
    come_back(world, &image, &layout, &work);
    fs::remove_dir_all(&work).unwrap();
}

/// What other tools have written again is the same image, or one whose difference is told.
fn come_back(world: &World, image: &Digest, layout: &Utf8Path, work: &Utf8Path) {
    let images = world.oven.images();
    if there("skopeo") {
        let (docker, again) = (work.join("docker.tar"), work.join("again"));
        run(
            "skopeo",
            &[
                "copy",
                &format!("oci:{layout}:v1"),
                &format!("docker-archive:{docker}:shop:v1"),
            ],
        );
        run(
            "skopeo",
            &[
                "copy",
                &format!("docker-archive:{docker}"),
                &format!("oci:{again}:v1"),
            ],
        );
        let imported = images.import(&Layout::open(&again).unwrap(), Some("v1")).unwrap();
        assert_eq!(imported, *image, "through Docker's own format and back");
    }
    if there("umoci") {
        let bundle = work.join("changed");
        run(
            "umoci",
            &["unpack", "--image", &format!("{layout}:v1"), bundle.as_str()],
        );
        fs::write(bundle.join("rootfs/opt/added"), "by another tool\n").unwrap();
        run(
            "umoci",
            &["repack", "--image", &format!("{layout}:v2"), bundle.as_str()],
        );
        let imported = images.import(&Layout::open(layout).unwrap(), Some("v2")).unwrap();
        assert_ne!(imported, *image);
        let diff = images.compare(image, &imported).unwrap();
        assert_eq!((diff.packages.len(), diff.files_changed), (0, 1), "{diff:#?}");
        assert!(
            diff.files
                .iter()
                .any(|file| file.path == "opt/added" && file.before.is_none())
        );
    }
}

pub async fn bakes_in_two_places_are_one_image(world: &World) {
    let elsewhere: Utf8PathBuf = world.node().with_file_name("a-second-node");
    kill::with_base(world, &elsewhere).await;
    let script = format!(
        "#!/bin/sh\n# {}\nset -e\napt-get update -q\napt-get install -qy --no-install-recommends python3-pip tree\n\
         useradd -m deploy\npip install --break-system-packages --no-deps idna==3.7\ndate > /var/log/dpkg.log\n",
        world.salt
    );
    let files = [
        ("infra/install.sh", script.as_str()),
        ("infra/second.sh", "ldconfig; touch /made\n"),
    ];
    let scripts = ["infra/install.sh", "infra/second.sh"];
    let here = world
        .bake(&world.ticket(), &world.bake_order(&files, &scripts))
        .await
        .unwrap();
    {
        let second = world::open(&elsewhere).await;
        let mut order = second.bake_order(&files, &scripts);
        order.commit.committed_at = "2030-01-01T00:00:00Z".parse().unwrap();
        order.commit.id = "f".repeat(40);
        let there = second.bake(&second.ticket(), &order).await.unwrap();
        assert!(!there.reused, "nothing was there");
        assert_eq!(here.image, there.image);

        // What is another thing every time makes another image, and the difference is told.
        let odd = format!("# {}\ncat /proc/sys/kernel/random/uuid > /etc/odd\n", world.salt);
        let order = second.bake_order(&[("infra/odd.sh", &odd)], &["infra/odd.sh"]);
        let first = second.bake(&second.ticket(), &order).await.unwrap();
        let base = second.layers.get(&first.layers[0].key).unwrap().unwrap();
        let images = second.oven.images();
        let layout = elsewhere.join("kept");
        fs::create_dir(&layout).unwrap();
        images
            .export(&first.image, &layout, Packing::Plain, None)
            .unwrap();
        fs::remove_file(elsewhere.join(format!("images/{}.json", first.image.hex()))).unwrap();
        second
            .layers
            .sweep(&[base.key].into(), "2200-01-01T00:00:00Z".parse().unwrap())
            .unwrap();
        let again = second.bake(&second.ticket(), &order).await.unwrap();
        assert_ne!(first.image, again.image);
        images.import(&Layout::open(&layout).unwrap(), None).unwrap();
        let diff = images.compare(&first.image, &again.image).unwrap();
        let told: Vec<&str> = diff.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!((diff.packages.len(), told), (0, vec!["etc/odd"]));
        second.containers.teardown_all().await.unwrap();
    }
    fs::remove_dir_all(&elsewhere).unwrap();
}
