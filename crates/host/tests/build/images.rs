//! Images that are the same whoever bakes them, and that others can read.

use std::{fs, process::Command};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    image::{Images, Packing},
    layer::Layers,
    oci::{
        self, Reach, export,
        layout::Layout,
        registry::{Login, Repository},
    },
};
use jiff::Timestamp;
use model::{
    Digest, Secret,
    port::{Bakery as _, Blame},
    spec::{Reference, build::PhaseName::Build},
};

use crate::world::{World, buildspec, phase};

/// A script that does what scripts do: packages, users, Python, and things that are another every time.
fn install(world: &World) -> String {
    format!(
        "#!/bin/sh\n# {}\nset -e\napt-get update -q\napt-get install -qy --no-install-recommends python3-pip tree\n\
         useradd -m deploy\npip install --break-system-packages --no-deps idna==3.7\n\
         date > /var/log/dpkg.log; cat /proc/sys/kernel/random/uuid | tr -d - > /etc/machine-id\n\
         mkdir -p /opt/app; echo 1 > /opt/app/VERSION\n",
        world.salt
    )
}

pub async fn two_bakes_from_nothing_are_one_image(world: &World) {
    let script = install(world);
    let files = [
        ("infra/install.sh", script.as_str()),
        (
            "infra/second.sh",
            "apt-get install -qy --no-install-recommends netcat-openbsd\nldconfig\n",
        ),
    ];
    let order = world.bake_order(&files, &["infra/install.sh", "infra/second.sh"]);
    let first = world.oven.bake(&world.ticket(), &order).await.unwrap();
    let before = world.oven.images().records(&first.image).unwrap();
    assert!(before.iter().all(|record| record.content.is_some()));
    // The layers are made anew, the base stays.
    let keep = before[0].key;
    let far: Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
    fs::remove_file(world.node().join(format!("images/{}.json", first.image.hex()))).unwrap();
    world.layers.sweep(&[keep].into(), far).unwrap();
    assert!(world.layers.get(&before[1].key).unwrap().is_none());
    let mut other = order.clone();
    other.commit.committed_at = far;
    let second = world.oven.bake(&world.ticket(), &other).await.unwrap();
    assert!(!second.reused);
    let after = world.oven.images().records(&second.image).unwrap();
    let contents =
        |records: &[host::layer::Record]| -> Vec<_> { records.iter().map(|record| record.content).collect() };
    assert_eq!(contents(&before), contents(&after));
    assert_eq!(first.image, second.image);
    // What only scripts need is not in the image.
    let top = world.layers.files(&after[1].key);
    assert!(top.join("usr/bin/tree").exists() && !top.join("var/lib/apt/lists").exists());
    assert!(!top.join("etc/machine-id").exists() && !top.join("var/log/dpkg.log").exists());
}

pub async fn bases_are_made_and_made_again_the_same(world: &World) {
    for name in ["debian-13", "ubuntu-24.04"] {
        let base = name.parse().unwrap();
        let wanted = host::base::Wanted::of(&base);
        let made = world.oven.bases().ensure(wanted, |_| {}).await.unwrap();
        let release = fs::read_to_string(world.layers.files(&made.key).join("usr/lib/os-release")).unwrap();
        let (id, version) = name.split_once('-').unwrap();
        assert!(release.contains(&format!("ID={id}\n")), "{release}");
        assert!(
            release.contains(&format!("VERSION_ID=\"{version}\"")),
            "{release}"
        );
        let script = format!(
            "# {}\nset -e\napt-get update -q\napt-get install -qy --no-install-recommends tree\n",
            world.salt
        );
        let mut order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
        order.base = name.to_owned();
        let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
        assert_eq!(baked.layers[0].made_by, format!("base {name}"));
    }
    // From nothing: another layer directory, the same bytes.
    let base = "debian-12".parse().unwrap();
    let wanted = host::base::Wanted::of(&base);
    let first = world.oven.bases().ensure(wanted, |_| {}).await.unwrap();
    let fresh = tempfile::tempdir_in(world.node()).unwrap();
    let fresh = Utf8Path::from_path(fresh.path()).unwrap();
    let layers = Layers::open(fresh).unwrap();
    let again = crate::world::bases(fresh, &layers)
        .ensure(wanted, |_| {})
        .await
        .unwrap();
    assert_eq!((again.key, again.content), (first.key, first.content));
    // Looked at again on the same day it is no other one, and nothing on it is stale.
    assert!(!world.oven.bases().refresh(wanted, |_| {}).await.unwrap());
    let all = world.oven.bases().all().unwrap();
    assert!(!world.oven.bases().is_stale(&first.key, &all).unwrap());
    let mut moved = all.clone();
    for known in &mut moved {
        known.key = Digest::of("another");
    }
    assert!(world.oven.bases().is_stale(&first.key, &moved).unwrap());
}

/// A small image that was baked, for tests that only read it.
pub async fn small(world: &World) -> (Digest, Vec<host::layer::Record>) {
    let script = format!(
        "# {}\nset -e\nuseradd deploy; mkdir /opt/full; echo a > /opt/full/a; ln /opt/full/a /opt/full/b\n\
         ln -s /opt/full/a /opt/link; cp /bin/true /opt/cap; setcap cap_net_raw+ep /opt/cap || true\n\
         chown deploy /opt/full/a; chmod 4755 /opt/cap; mkfifo /opt/pipe\n\
         mkdir -p /opt/{}; echo long > /opt/{}/file\n",
        world.salt,
        "d".repeat(120),
        "d".repeat(120)
    );
    let second = "set -e\nrm -r /opt/full; mkdir /opt/full; echo c > /opt/full/c; rm /opt/link\n";
    let files = [("infra/a.sh", script.as_str()), ("infra/b.sh", second)];
    let order = world.bake_order(&files, &["infra/a.sh", "infra/b.sh"]);
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    (baked.image, world.oven.images().records(&baked.image).unwrap())
}

/// Standard output of a tool, which must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let there = found.is_ok_and(|found| found.status.success());
    if !there {
        println!("skipped: needs {program}");
    }
    there
}

pub async fn what_is_exported_comes_back_as_the_same_image(world: &World) {
    let (image, records) = small(world).await;
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let out = |name: &str| {
        let path = work.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let images = world.oven.images();
    let (one, two) = (out("one"), out("two"));
    let first = images.export(&image, &one, Packing::Gzip, Some("v1")).unwrap();
    let second = images.export(&image, &two, Packing::Gzip, Some("v1")).unwrap();
    assert_eq!(first, second, "a manifest says nothing about when it was written");

    // On this platform nothing is new, on another one all is: the image is the same.
    let known = world.layers.list().unwrap().len();
    assert_eq!(images.import(&Layout::open(&one).unwrap(), None).unwrap(), image);
    assert_eq!(world.layers.list().unwrap().len(), known);
    let node = out("node");
    let layers = Layers::open(&node).unwrap();
    let elsewhere = Images::open(&node, layers.clone()).unwrap();
    for packing in [Packing::Zstd, Packing::Plain] {
        let written = out(&format!("{packing:?}"));
        images.export(&image, &written, packing, None).unwrap();
        assert_eq!(
            elsewhere.import(&Layout::open(&written).unwrap(), None).unwrap(),
            image
        );
    }
    let imported = elsewhere.records(&image).unwrap();
    assert_eq!(imported.len(), records.len());
    for (ours, theirs) in records.iter().zip(&imported) {
        assert_eq!((ours.content, &ours.made_by), (theirs.content, &theirs.made_by));
    }
    assert_eq!(
        imported[2].commit.as_ref().unwrap().author,
        "Ada <ada@acme.example>"
    );
    let back = out("back");
    assert_eq!(
        elsewhere
            .export(&image, &back, Packing::Gzip, Some("v1"))
            .unwrap(),
        first
    );

    // A byte that is another one is found.
    let layout = Layout::open(&two).unwrap();
    let found = layout.find(Some("v1")).unwrap();
    let blob = two.join(format!("blobs/sha256/{}", found.manifest.layers[1].digest.hex()));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let node = out("damaged");
    let layers = Layers::open(&node).unwrap();
    let damaged = Images::open(&node, layers.clone()).unwrap();
    damaged.import(&layout, Some("v1")).unwrap_err();
    assert!(damaged.list().unwrap().is_empty() && layers.list().unwrap().len() == 1);
}

pub async fn other_tools_read_what_is_exported(world: &World) {
    let (image, _) = small(world).await;
    // Buildah takes only small letters for the path of a layout.
    let work = world.node().join("exported");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work).unwrap();
    let path = work.join("layout");
    fs::create_dir(&path).unwrap();
    let digest = world
        .oven
        .images()
        .export(&image, &path, Packing::Gzip, Some("v1"))
        .unwrap();
    if there("skopeo") {
        let inspected = run("skopeo", &["inspect", &format!("oci:{path}:v1")]);
        assert!(inspected.contains(&digest.to_string()), "{inspected}");
        assert!(
            inspected.contains("\"org.opencontainers.image.revision\""),
            "{inspected}"
        );
        // Every blob is read and checked on the way.
        run(
            "skopeo",
            &["copy", &format!("oci:{path}:v1"), &format!("dir:{work}/copied")],
        );
    }
    if there("umoci") {
        let bundle = work.join("bundle");
        run(
            "umoci",
            &["unpack", "--image", &format!("{path}:v1"), bundle.as_str()],
        );
        check_files(&bundle.join("rootfs"));
    }
    if there("buildah") {
        let storage = [
            format!("--root={work}/storage"),
            format!("--runroot={work}/run"),
            "--storage-driver=vfs".to_owned(),
        ];
        let with = |rest: &[&str]| -> String {
            let all: Vec<&str> = storage
                .iter()
                .map(String::as_str)
                .chain(rest.iter().copied())
                .collect();
            run("buildah", &all).trim().to_owned()
        };
        let container = with(&["from", &format!("oci:{path}:v1")]);
        let root = with(&["mount", &container]);
        check_files(Utf8Path::new(&root));
        let says = Command::new("chroot")
            .args([&root, "/bin/sh", "-c", "cat /etc/debian_version"])
            .output()
            .unwrap();
        assert!(
            says.status.success() && says.stdout.starts_with(b"12"),
            "{says:?}"
        );
        with(&["umount", &container]);
        with(&["rm", &container]);
    }
    fs::remove_dir_all(&work).unwrap();
}

/// What [`small`] leaves, whoever unpacked it.
fn check_files(root: &Utf8Path) {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let names: Vec<_> = root.join("opt/full").read_dir_utf8().unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "what was deleted is back: {names:?}");
    assert_eq!(fs::read_to_string(root.join("opt/full/c")).unwrap(), "c\n");
    assert!(fs::symlink_metadata(root.join("opt/link")).is_err());
    let cap = fs::metadata(root.join("opt/cap")).unwrap();
    assert_eq!((cap.mode() & 0o7777, cap.uid()), (0o4755, 0));
    assert!(
        fs::symlink_metadata(root.join("opt/pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(root.join("opt").join("d".repeat(120)).join("file").exists());
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(passwd.contains("deploy:"));
}

/// Debian's registry, on a free port, until it is dropped.
pub struct Registry {
    child: std::process::Child,
    pub address: String,
}

impl Registry {
    pub fn start(home: &Utf8Path, password: Option<(&str, &str)>) -> Option<Self> {
        if !there("docker-registry") {
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let auth = password.map_or(String::new(), |(user, password)| {
            let hash = run(
                "python3",
                &[
                    "-c",
                    "import crypt,sys;print(crypt.crypt(sys.argv[1],crypt.mksalt(crypt.METHOD_BLOWFISH)))",
                    password,
                ],
            );
            let path = home.join("htpasswd");
            fs::write(&path, format!("{user}:{}\n", hash.trim())).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}\n")
        });
        let config = home.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {home}/registry }}\nhttp:\n  addr: {address}\n{auth}"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", config.as_str()])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, address };
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "the registry ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(registry)
    }

    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pushed(world: &World, image: &Digest, to: &Reference, login: Option<Login>, work: &Utf8Path) -> usize {
    let path = tempfile::tempdir_in(work).unwrap();
    let path = Utf8PathBuf::try_from(path.path().to_owned()).unwrap();
    fs::create_dir_all(&path).unwrap();
    world
        .oven
        .images()
        .export(image, &path, Packing::Gzip, None)
        .unwrap();
    let layout = Layout::open(&path).unwrap();
    let found = layout.find(None).unwrap();
    let repository = Repository::open(to, login, Reach::Anywhere, true);
    let (sent, missing) = export::push(&layout, &path, &found, &repository, &to.wanted()).unwrap();
    assert_eq!(missing, None);
    sent
}

pub async fn a_registry_s_image_is_a_base(world: &World) {
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let Some(registry) = Registry::start(work, None) else {
        return;
    };
    let (image, records) = small(world).await;
    let reference = registry.reference("acme/small:v1");
    let sent = pushed(world, &image, &reference, None, work);
    assert_eq!(sent, records.len() + 1);
    assert_eq!(
        pushed(world, &image, &reference, None, work),
        0,
        "blobs that are there are not sent again"
    );

    let check = "set -e\n[ \"$(ls /opt/full)\" = c ]; id deploy; [ \"$(stat -c %a /opt/cap)\" = 4755 ]; touch /opt/more\n";
    let mut order = world.bake_order(&[("infra/check.sh", check)], &["infra/check.sh"]);
    order.base = format!("oci:{reference}");
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    println!("{}", world.log(baked.log.as_ref().unwrap()));
    let base = world.layers.get(&baked.layers[0].key).unwrap().unwrap();
    assert_eq!(base.made_by, format!("base oci:{reference}"));
    check_files(&world.layers.files(&base.key));

    // A build runs in it as it is, also when it is named as CodeBuild does.
    for name in [format!("oci:{reference}"), reference.to_string()] {
        let commands = ["id deploy", "[ \"$(ls /opt/full)\" = c ]"];
        let mut build = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &commands, &[])]));
        build.image = Some(name);
        let (_, log) = crate::yard::succeeds(world, &build).await;
        crate::yard::has(&log, &[&format!("The build runs in oci:{reference}")]);
    }

    // Docker's own media types, an index, zstd: skopeo writes them.
    if there("skopeo") {
        let from = format!("docker://{reference}");
        let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        for (format, name) in [("v2s2", "docker:1"), ("oci", "oci:1")] {
            let to = registry.reference(&format!("acme/{name}"));
            run(
                "skopeo",
                &[
                    "copy",
                    insecure[0],
                    insecure[1],
                    "--format",
                    format,
                    &from,
                    &format!("docker://{to}"),
                ],
            );
            let repository = Repository::open(&to, None, Reach::Anywhere, false);
            let found = oci::find(&repository, &to.wanted()).unwrap();
            assert_eq!(found.config.rootfs.diff_ids.len(), records.len());
            order.base = format!("oci:{to}");
            let again = world.oven.bake(&world.ticket(), &order).await.unwrap();
            let again = world.layers.get(&again.layers[0].key).unwrap().unwrap();
            assert_eq!(again.content, base.content, "{format} holds the same files");
        }
    }

    // A tag that moves makes what stands on it stale, once it is looked at.
    let (second, _) = small(world).await;
    assert_eq!(second, image);
    let other = world.bake_order(
        &[("infra/o.sh", &format!("# {}\ntouch /other\n", world.salt))],
        &["infra/o.sh"],
    );
    let other = world.oven.bake(&world.ticket(), &other).await.unwrap();
    pushed(world, &other.image, &reference, None, work);
    let named = format!("oci:{reference}").parse().unwrap();
    let wanted = host::base::Wanted {
        tenant: Some(&order.place.tenant),
        ..host::base::Wanted::of(&named)
    };
    assert!(world.oven.bases().refresh(wanted, |_| {}).await.unwrap());
    let all = world.oven.bases().all().unwrap();
    assert!(world.oven.bases().is_stale(&base.key, &all).unwrap());

    let mut missing = order.clone();
    missing.base = format!("oci:{}", registry.reference("acme/nothing:v1"));
    let fault = world.oven.bake(&world.ticket(), &missing).await.unwrap_err();
    assert!(fault.message.contains("there is no image"), "{fault}");
    assert_eq!(fault.blame, Blame::Customer);
}

pub async fn registries_ask_who_one_is(world: &World) {
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let Some(registry) = Registry::start(work, Some(("ada", "open sesame"))) else {
        return;
    };
    let (image, _) = small(world).await;
    let reference = registry.reference("acme/private:v1");
    let secret = Secret::new("ada:open sesame".to_owned());
    pushed(world, &image, &reference, Some(Login::read(&secret)), work);
    let script = format!("# {}\ntouch /private\n", world.salt);
    let mut order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    order.base = format!("oci:{reference}");
    for wrong in [None, Some("ada:wrong"), Some("token")] {
        order.login = wrong.map(|wrong| Secret::new(wrong.to_owned()));
        let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
        assert!(fault.message.contains("does not give"), "{fault}");
        assert!(fault.next.unwrap().contains("image.login"));
    }
    order.login = Some(secret);
    world.oven.bake(&world.ticket(), &order).await.unwrap();
    // What one tenant's login got is not another's.
    order.place = "rival/shop/dev".parse().unwrap();
    order.login = None;
    let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
    assert!(fault.message.contains("does not give"), "{fault}");
}

pub async fn registries_inside_are_not_reached(world: &World) {
    let mut order = world.bake_order(&[("infra/a.sh", "true\n")], &["infra/a.sh"]);
    for host in ["127.0.0.2:5000", "10.0.0.1:5000", "169.254.169.254", "[::1]:5000"] {
        order.base = format!("oci:{host}/a:1");
        let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
        assert!(fault.message.contains("is not a public address"), "{fault}");
        assert!(fault.next.unwrap().contains("registries.allow"));
    }
}

pub async fn a_tar_and_a_layout_are_bases(world: &World) {
    let (image, _) = small(world).await;
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let path = work.join("tree/images/base");
    fs::create_dir_all(&path).unwrap();
    world
        .oven
        .images()
        .export(&image, &path, Packing::Gzip, Some("v1"))
        .unwrap();
    let rootfs = work.join("tree/images/base.tar.gz");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        fs::File::create(&rootfs).unwrap(),
        flate2::Compression::fast(),
    ));
    let base = "debian-12".parse().unwrap();
    let base = world
        .oven
        .bases()
        .ensure(host::base::Wanted::of(&base), |_| {})
        .await
        .unwrap();
    tar.follow_symlinks(false);
    tar.sparse(false);
    for name in ["bin", "lib", "lib64", "usr/bin", "usr/lib", "usr/lib64", "etc"] {
        let from = world.layers.files(&base.key).join(name);
        match fs::symlink_metadata(&from).unwrap().is_dir() {
            true => tar.append_dir_all(name, &from).unwrap(),
            false => tar.append_path_with_name(&from, name).unwrap(),
        }
    }
    tar.into_inner().unwrap().finish().unwrap();
    let infra = work.join("tree/infra");
    fs::create_dir(&infra).unwrap();
    fs::write(infra.join("a.sh"), "set -e\ntest -x /usr/bin/env; touch /here\n").unwrap();
    let packed = work.join("source.tar");
    host::tree::pack(&work.join("tree"), 1, fs::File::create(&packed).unwrap()).unwrap();
    let source = world
        .objects
        .keep(fs::File::open(&packed).unwrap(), "tar".into())
        .unwrap();
    let mut order = world.bake_order(&[("x", "")], &["infra/a.sh"]);
    order.source = source;
    for base in [
        "tar:images/base.tar.gz",
        "layout:images/base:v1",
        "layout:images/base",
    ] {
        order.base = base.to_owned();
        let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
        // The same files under two names are one image, which keeps the name that it first had.
        assert!(baked.layers[0].made_by.starts_with(&format!("base {base}")));
        assert!(world.oven.find(&order).await.unwrap().is_some());
    }
    order.base = "layout:images/base:v2".to_owned();
    let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
    assert!(fault.message.contains("`v2`"), "{fault}");
    order.base = "tar:missing.tar".to_owned();
    let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
    assert!(fault.message.contains("missing.tar"), "{fault}");
}
