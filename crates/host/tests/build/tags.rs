//! Builds in images of registries, public and private, whose tags move.

use camino::Utf8Path;
use host::oci::registry::Login;
use model::{
    Digest, Secret,
    port::{Bakery as _, BuildOrder},
    spec::{
        Reference,
        build::{PhaseName::Build, Task},
    },
};

use crate::{
    images::{Registry, pushed, small},
    world::{World, buildspec, phase},
    yard::{fails, has, succeeds},
};

/// An image with one file of this name.
async fn with(world: &World, name: &str) -> Digest {
    let script = format!("# {}\ntouch /{name}\n", world.salt);
    let order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    world.oven.bake(&world.ticket(), &order).await.unwrap().image
}

fn order(world: &World, image: &Reference, commands: &[&str]) -> BuildOrder {
    let mut order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, commands, &[])]));
    order.image = Some(image.to_string());
    order
}

pub async fn each_build_asks_what_its_tag_is_now(world: &World) {
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let Some(registry) = Registry::start(work, None) else {
        return;
    };
    let (first, second) = (with(world, "first").await, with(world, "second").await);
    let reference = registry.reference("acme/ci:1");
    pushed(world, &first, &reference, None, work);
    // One that goes on until it is stopped, for as long as what it stands on is there.
    let slow = order(world, &reference, &["while ls /first; do sleep 0.1; done"]);
    let ticket = world.ticket();
    let meanwhile = async {
        world.says(&format!("build/{ticket}"), "\n/first\n").await;
        pushed(world, &second, &reference, None, work);
        let build = order(world, &reference, &["ls /"]);
        let (_, log) = succeeds(world, &build).await;
        has(&log, &["\nsecond\n"]);
        // What the tag was is nobody's any more but that build's.
        let ever = "2200-01-01T00:00:00Z".parse().unwrap();
        let sweep = async || {
            let swept = world.oven.sweep(&[first, second].into(), ever).await.unwrap();
            assert!(swept.is_some(), "nothing is baked meanwhile");
        };
        let images = world.oven.images();
        let stands = |image: &&host::image::Image| {
            let record = world.layers.get(&image.layers[0]).unwrap().unwrap();
            image.layers.len() == 1 && record.made_by == format!("base oci:{reference}")
        };
        let standing = || images.list().unwrap().iter().filter(stands).count();
        sweep().await;
        assert_eq!(standing(), 1, "what the slow build stands on");
        world.answers.stop(&ticket, "it was seen").await.unwrap();
        sweep().await;
        assert_eq!(standing(), 0);
        build
    };
    let (stopped, build) = tokio::join!(world.build(&ticket, &slow), meanwhile);
    let message = stopped.unwrap_err().message;
    assert_eq!(message, "the build was stopped: it was seen");

    // A registry that is away leaves what is here.
    let address = registry.address.clone();
    drop(registry);
    let (_, log) = succeeds(world, &build).await;
    let why = format!("what it is now is not known: {address} cannot be reached");
    has(&log, &["\nsecond\n", &why]);
}

/// Nobody asked for a base since long ago.
fn age(world: &World, base: &Reference) {
    let entries = std::fs::read_dir(world.node().join("bases")).unwrap();
    let mut aged = 0;
    for path in entries.map(|entry| entry.unwrap().path()) {
        let known = std::fs::read(&path).unwrap_or_default();
        let Ok(mut known) = serde_json::from_slice::<serde_json::Value>(&known) else {
            continue;
        };
        if known["base"] == format!("oci:{base}") {
            known["checked_at"] = "2020-01-01T00:00:00Z".into();
            std::fs::write(&path, known.to_string()).unwrap();
            aged += 1;
        }
    }
    assert_eq!(aged, 1);
}

pub async fn a_bake_asks_for_a_base_that_nobody_asked_for_lately(world: &World) {
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let Some(registry) = Registry::start(work, None) else {
        return;
    };
    let reference = registry.reference("acme/base:1");
    let bake = async |number: u8| {
        let script = format!("# {number} {}\nls /\n", world.salt);
        let mut order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
        order.base = format!("oci:{reference}");
        let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
        world.log(baked.log.as_ref().unwrap())
    };
    pushed(world, &with(world, "first").await, &reference, None, work);
    has(&bake(1).await, &["\nfirst\n"]);
    pushed(world, &with(world, "second").await, &reference, None, work);
    has(&bake(2).await, &["\nfirst\n"]);
    age(world, &reference);
    has(&bake(3).await, &["\nsecond\n"]);
    // A registry that is away leaves what is here.
    drop(registry);
    age(world, &reference);
    has(&bake(4).await, &["\nsecond\n", "what it is now is not known"]);
}

pub async fn a_private_image_is_one_to_build_in(world: &World) {
    let work = tempfile::tempdir_in(world.node()).unwrap();
    let work = Utf8Path::from_path(work.path()).unwrap();
    let Some(registry) = Registry::start(work, Some(("ada", "open sesame"))) else {
        return;
    };
    let (image, _) = small(world).await;
    let reference = registry.reference("acme/private-ci:v1");
    let secret = Secret::new("ada:open sesame".to_owned());
    pushed(world, &image, &reference, Some(Login::read(&secret)), work);
    let commands = [
        "[ -e /opt/full/c ]",
        "echo \"in $CODEBUILD_BUILD_IMAGE\"; ! env | grep -i sesame",
    ];
    let mut build = order(world, &reference, &commands);
    build.login = Some(secret);
    let (_, log) = succeeds(world, &build).await;
    has(&log, &[&format!("in {reference}")]);
    // Neither without the login, nor as another tenant, nor where the login is for another registry.
    let mut none = build.clone();
    none.login = None;
    let mut foreign = none.clone();
    foreign.place = "rival/shop/dev".parse().unwrap();
    let mut elsewhere = build;
    elsewhere.image = Some("oci:registry.example/acme/ci:1".to_owned());
    elsewhere.task = Some(Task {
        identifier: "a".to_owned(),
        image: Some(reference.to_string()),
        ..Task::default()
    });
    for refused in [none, foreign, elsewhere] {
        let (fault, _) = fails(world, &refused, &["does not give"]).await;
        assert!(fault.next.unwrap().contains("build.login"));
    }
}
