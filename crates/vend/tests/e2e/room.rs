//! The images' part of the disk: what goes to make room, what never does, and who waits.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::platform::{Copy, Platform, can_run, eventually};

const GIB: u64 = 1 << 30;
/// Longer ago than anything is spared for having been used lately.
const LONG_AGO: SystemTime = SystemTime::UNIX_EPOCH;
const VEND_YAML: &str = "app: shop
image: { scripts: [infra/install.sh] }
host: { health: { path: /, interval: 1s, timeout: 1s } }
deploy: { keep_old: 1s }
environments:
  dev: { branch: dev }
";

/// No image is made, and the build wants another system than all that are here.
const BUILT_YAML: &str = "app: shop
build: { buildspec: buildspec.yml, image: ubuntu-24.04 }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

fn files(data: &Path, below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("node").join(below)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What the layers in a data directory take, as their records say.
fn used(data: &Path) -> u64 {
    let record = |layer: PathBuf| -> Option<u64> {
        let record: Value = serde_json::from_slice(&fs::read(layer.join("layer.json")).ok()?).ok()?;
        record["size_bytes"].as_u64()
    };
    files(data, "layers").into_iter().filter_map(record).sum()
}

/// These images and their layers were not used lately, as far as anybody can tell.
fn age<'a>(data: &Path, images: impl IntoIterator<Item = &'a String>) {
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    for image in images {
        let path = data.join("node/images").join(format!("{}.json", hex(image)));
        let Ok(bytes) = fs::read(&path) else { continue };
        let known: Value = serde_json::from_slice(&bytes).unwrap();
        let layers = known["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str);
        let layers = layers.map(|layer| data.join("node/layers").join(hex(layer)).join("layer.json"));
        for path in layers.chain([path]) {
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(LONG_AGO).unwrap();
        }
    }
}

fn is_there(platform: &Platform, image: &str) -> bool {
    platform.try_vend(&["images", "show", image]).status.success()
}

/// What every platform makes for itself is there: a budget that is reckoned from what is used has room for it.
fn prepared() {
    let platform = Platform::start();
    eventually(
        "the base and the build image are there",
        Duration::from_secs(1200),
        || {
            let health = String::from_utf8(platform.try_vend(&["health", "--json"]).stdout).unwrap();
            let layers = files(platform.data(), "layers");
            let made = layers.iter().filter(|layer| layer.join("layer.json").exists());
            (!health.contains("preparing") && made.count() >= 2).then_some(())
        },
    );
}

#[test]
fn a_full_disk_makes_bakes_wait_and_nothing_that_is_needed_goes() {
    if !can_run() {
        return;
    }
    prepared();
    let mut budget = 0;
    let platform = Platform::start_with(|data| {
        budget = used(data) / GIB + 2;
        format!("[images]\nbudget_gib = {budget}\n")
    });
    let (tenant, app) = platform.tenant_with_app("room");
    let dev = format!("{app}/dev");
    let host = format!("dev.shop.{tenant}.localhost");
    let copy = Copy::new("0", VEND_YAML);
    let mut images = Vec::new();
    for n in 1..=8 {
        copy.write(
            "infra/install.sh",
            format!("#!/bin/sh\n# {tenant}\necho {n} > /etc/motd\n"),
        );
        copy.says(&n.to_string());
        platform.release(&copy, &app, "dev");
        let releases = platform.json(&["releases", "list", &dev]);
        images.push(releases["items"][0]["image"].as_str().unwrap().to_owned());
    }

    // Somebody else fills what is left, and goes.
    let (hog, hog_app) = platform.tenant_with_app("hog");
    let large = Copy::new("large", VEND_YAML);
    let left = budget * GIB - used(platform.data()) + (1 << 20);
    large.write(
        "infra/install.sh",
        format!("#!/bin/sh\n# {hog}\nhead -c {left} /dev/zero > /opt/large\n"),
    );
    large.says("large");
    platform.release(&large, &hog_app, "dev");
    let releases = platform.json(&["releases", "list", &format!("{hog_app}/dev")]);
    let fat = releases["items"][0]["image"].as_str().unwrap().to_owned();
    assert!(used(platform.data()) >= budget * GIB, "the disk is full now");
    // What changes code alone has its image already: no bake waits, and nobody for it.
    large.says("hotfix");
    platform.release(&large, &hog_app, "dev");
    assert_eq!(
        platform.get(&format!("dev.shop.{hog}.localhost"), "/"),
        (200, "hotfix\n".into())
    );

    copy.write(
        "infra/install.sh",
        format!("#!/bin/sh\n# {tenant}\necho 9 > /etc/motd\n"),
    );
    copy.says("9");
    let number = platform.push(&copy, &app, "dev");
    let why = eventually("the bake says why it waits", Duration::from_secs(60), || {
        let why = platform.vend(&["why", &app]);
        why.contains("waits for room").then_some(why)
    });
    assert!(
        why.contains(&format!("of their {budget}.0 GiB")) && why.contains("images.budget_gib"),
        "{why}"
    );
    let executions = platform.json(&["executions", "list", &dev]);
    let waiting = executions["items"][0]["waiting"].as_str().unwrap().to_owned();
    assert!(waiting.starts_with("room: images and caches take"), "{waiting}");
    // Nor is there room for what is brought, and who brings it hears so.
    let carried = tempfile::tempdir().unwrap();
    let layout = carried.path().join("shop.tar").display().to_string();
    platform.vend(&["images", "export", &images[7], &layout]);
    let refused = platform.try_vend(&["images", "import", &layout]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("no room for another image: images and caches take"),
        "{said}"
    );
    // A build whose image is yet to be got waits, too.
    let built = Copy::new("built", BUILT_YAML);
    let (maker, maker_app) = platform.tenant_with_app("maker");
    built.write(
        "buildspec.yml",
        "version: 0.2\nphases: { build: { commands: [\"true\"] } }\n",
    );
    built.says("built");
    platform.push(&built, &maker_app, "dev");
    let why = eventually("the build says why it waits", Duration::from_secs(60), || {
        let why = platform.vend(&["why", &maker_app]);
        why.contains("waits for room").then_some(why)
    });
    assert!(why.contains("images.budget_gib"), "{why}");
    platform.vend(&["tenants", "delete", &maker, "--yes"]);
    assert_eq!(
        platform.get(&host, "/"),
        (200, "8\n".into()),
        "what is live serves on"
    );
    assert!(
        is_there(&platform, &fat),
        "a live host needs it, and it was used lately"
    );

    // All is old now, but the hog's host still needs its image: nothing goes but what nobody needs.
    age(platform.data(), images.iter().chain([&fat]));
    eventually("the oldest image goes", Duration::from_secs(90), || {
        (!is_there(&platform, &images[0])).then_some(())
    });
    assert!(is_there(&platform, &fat), "its host runs");
    for (n, image) in images.iter().enumerate().skip(2) {
        assert!(
            is_there(&platform, image),
            "v{} is live or one of the last five",
            n + 1
        );
    }
    platform.vend(&["tenants", "delete", &hog, "--yes"]);
    eventually("the hog is gone", Duration::from_secs(120), || {
        let shown = platform.try_vend(&["tenants", "show", &hog]);
        (shown.status.code() == Some(4)).then_some(())
    });
    age(platform.data(), [&fat]);
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    assert_eq!(platform.get(&host, "/"), (200, "9\n".into()));
    assert!(!is_there(&platform, &fat));
    assert!(used(platform.data()) < budget * GIB);

    // Going back as far as it is promised works after all that.
    platform.succeeds(&["rollback", &dev, "--to", "v4"]);
    assert_eq!(platform.get(&host, "/"), (200, "4\n".into()));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
