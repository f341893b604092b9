//! Scripts in containers, and the layers that they leave.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use jiff::SignedDuration;
use model::{
    Digest,
    port::{BakeOrder, Bakery as _, Blame},
    spec::build::PhaseName,
};

use crate::{
    world::{World, buildspec, phase},
    yard::{has, succeeds},
};

pub async fn an_image_is_baked_once(world: &World) {
    let install = format!(
        "#!/bin/bash\n# {}\nset -e\npwd; ls -R; id -u; echo \"by $VEND_COMMIT_AUTHOR for $VEND_APP\"\n\
         cp infra/motd /etc/motd\napt-get update -q\napt-get install -qy --no-install-recommends tree\n",
        world.salt
    );
    let files = [
        ("infra/install.sh", install.as_str()),
        ("infra/motd", "hello\n"),
        ("app.py", "secret of the app"),
    ];
    let order = world.bake_order(&files, &["infra/install.sh"]);
    assert_eq!(world.oven.find(&order).await.unwrap(), None);
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    assert!(!baked.reused);
    assert_eq!(baked.layers.len(), 2);
    assert_eq!(
        (baked.layers[0].made_by.as_str(), baked.layers[1].made_by.as_str()),
        ("base debian-12", "infra/install.sh")
    );
    let log = world.log(baked.log.as_ref().unwrap());
    println!("{log}");
    for text in [
        "/srv/vend/source\n",
        "motd",
        "\n0\n",
        "by Ada <ada@acme.example> for shop",
        "Setting up tree",
    ] {
        assert!(log.contains(text), "{text}");
    }
    assert!(!log.contains("app.py"), "what is no input is not seen");
    let files = world.layers.files(&baked.layers[1].key);
    assert_eq!(
        std::fs::read_to_string(files.join("etc/motd")).unwrap(),
        "hello\n"
    );
    assert!(files.join("usr/bin/tree").exists());
    for absent in ["srv/vend", "var/cache/apt/archives", "etc/resolv.conf", "run"] {
        assert!(!files.join(absent).exists(), "{absent}");
    }

    let mut again = order.clone();
    again.commit.message = "another".to_owned();
    again.source = world.source(&[
        ("infra/install.sh", &install),
        ("infra/motd", "hello\n"),
        ("app.py", "changed"),
    ]);
    let found = world.oven.find(&again).await.unwrap().unwrap();
    let reused = world.oven.bake(&world.ticket(), &again).await.unwrap();
    assert!(found.reused && reused.reused && reused.log.is_none());
    assert_eq!((found.image, reused.image), (baked.image, baked.image));
    println!(
        "found in {} ms, reused in {} ms",
        found.duration_ms, reused.duration_ms
    );

    let other = world.bake_order(
        &[("infra/install.sh", &install), ("infra/motd", "changed\n")],
        &["infra/install.sh"],
    );
    let changed = world.oven.bake(&world.ticket(), &other).await.unwrap();
    assert!(!changed.reused && changed.image != baked.image);
    let lowers = world.oven.images().lowers(&changed.image).unwrap();
    assert_eq!(lowers.len(), 2);
}

/// What a bake finds in the place of pip's downloads and apt's. It leaves a file with the name of `branch`, and a package.
async fn downloads(
    world: &World,
    place: &str,
    (branch, trunk): (&str, Option<&str>),
    number: u8,
) -> (String, bool) {
    // Whether pip keeps a download is for its registry to say: a file stands for one.
    let script = format!(
        "#!/bin/sh\n# {number} {}\nset -e\nmkdir -p /root/.cache/pip; echo found $(ls /root/.cache/pip) there\n\
         touch /root/.cache/pip/of-{branch}\napt-get update -q\n\
         apt-get install -qy --no-install-recommends tree\n",
        world.salt
    );
    let order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    let order = of(order, place, (branch, trunk));
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    let files = world.layers.files(&baked.layers[1].key);
    for absent in ["root/.cache/pip", "var/cache/apt/archives"] {
        assert!(!files.join(absent).exists(), "{absent} is no part of an image");
    }
    let log = world.log(baked.log.as_ref().unwrap());
    let (_, found) = log.split_once("found ").unwrap();
    let (found, _) = found.split_once("there").unwrap();
    (found.trim().to_owned(), log.contains("Need to get 0 B/"))
}

pub async fn downloads_are_a_branch_s_own(world: &World) {
    let salt = world.salt.trim_start_matches('.').to_lowercase();
    let place = format!("first-{salt}/shop/dev");
    let mut number = 0;
    let mut check = async |place: &str, (branch, trunk), found: &str, has_package: bool| {
        number += 1;
        let expected = (found.to_owned(), has_package);
        let found = downloads(world, place, (branch, trunk), number).await;
        assert_eq!(found, expected, "{place} {branch} of {trunk:?}");
    };
    check(&place, ("main", None), "", false).await;
    check(&place, ("main", None), "of-main", true).await;
    // A branch begins with what main left, and leaves nothing to it.
    check(&place, ("side", None), "of-main", true).await;
    check(&place, ("side", None), "of-main of-side", true).await;
    check(&place, ("other", None), "of-main", true).await;
    check(&place, ("main", None), "of-main", true).await;
    // Where production follows another branch, that one is begun with, and `main` is one like any other.
    check(&place, ("trunk", Some("trunk")), "", false).await;
    check(&place, ("new", Some("trunk")), "of-trunk", true).await;
    // Nobody else's: of another app, of another tenant, of builds.
    check(&place.replace("shop", "site"), ("main", None), "", false).await;
    check(&place.replace("first", "rival"), ("main", None), "", false).await;
    let look = "mkdir -p /root/.cache/pip; echo found $(ls /root/.cache/pip) there; touch /root/.cache/pip/of-a-build";
    let buildspec = buildspec(vec![phase(PhaseName::Build, &[look], &[])]);
    let mut build = world.build_order(&[("a", "")], buildspec);
    build.place = place.parse().unwrap();
    build.commit.branch = "main".to_owned();
    let (_, log) = succeeds(world, &build).await;
    has(&log, &["\nfound there\n"]);
    check(&place, ("main", None), "of-main", true).await;
}

/// Bakes of one place and branch.
fn of(mut order: BakeOrder, place: &str, (branch, trunk): (&str, Option<&str>)) -> BakeOrder {
    order.place = place.parse().unwrap();
    order.commit.branch = branch.to_owned();
    order.trunk = trunk.map(str::to_owned);
    order
}

pub async fn layers_are_a_branch_s_own(world: &World) {
    let order = |text: &str| {
        let script = format!("# {}\nset -e\nmkdir -p /root/.cache/pip\n{text}\n", world.salt);
        world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"])
    };
    let salt = world.salt.trim_start_matches('.').to_lowercase();
    let place = format!("layers-{salt}/shop/dev");
    let plants = order("touch /root/.cache/pip/evil");
    let innocent = order("ls /root/.cache/pip > /found");
    world
        .oven
        .bake(&world.ticket(), &of(plants, &place, ("dev", None)))
        .await
        .unwrap();
    let check = async |place: &str, branch, reused, found: &str| {
        let order = of(innocent.clone(), place, branch);
        let there = world.oven.find(&order).await.unwrap();
        assert_eq!(there.is_some(), reused, "{place} {branch:?}");
        let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
        assert_eq!(baked.reused, reused, "{place} {branch:?}");
        let made = world.layers.files(&baked.layers[1].key).join("found");
        assert_eq!(
            std::fs::read_to_string(made).unwrap().trim(),
            found,
            "{place} {branch:?}"
        );
        baked.image
    };
    let evil = check(&place, ("dev", None), false, "evil").await;
    let clean = check(&place, ("main", None), false, "").await;
    assert_ne!(evil, clean);
    // Another app has its own, and so has another tenant.
    check(&place.replace("shop", "site"), ("dev", None), false, "").await;
    check(&place.replace("layers", "foreign"), ("main", None), false, "").await;
    // What the main branch made is a new branch's beginning, as its downloads are. A branch's own stays so.
    assert_eq!(check(&place, ("side", None), true, "").await, clean);
    assert_eq!(check(&place, ("dev", None), true, "evil").await, evil);
    // All environments of a branch have one image.
    let production = place.replace("/dev", "/production");
    assert_eq!(check(&production, ("main", Some("main")), true, "").await, clean);
    check(&production, ("trunk", Some("trunk")), false, "").await;
}

pub async fn an_image_that_another_branch_made_first_is_made_once_more_and_not_again(world: &World) {
    let script = format!("echo {} > /made\n", world.salt);
    let order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    let of = |branch| of(order.clone(), "acme/shop/dev", (branch, Some("main")));
    let bake = async |branch| world.oven.bake(&world.ticket(), &of(branch)).await.unwrap();
    let (first, own) = (bake("dev").await, bake("main").await);
    assert!(!own.reused && own.image == first.image && own.layers != first.layers);
    // What no image needs goes when nobody used it for long.
    let sweep = async |keep: &[Digest]| {
        let ever = "2200-01-01T00:00:00Z".parse().unwrap();
        let swept = world.oven.sweep(&keep.iter().copied().collect(), ever).await;
        assert!(swept.unwrap().is_some());
    };
    sweep(&[own.image]).await;
    assert!(world.layers.get(&own.layers[1].key).unwrap().is_none());
    assert!(world.layers.get(&first.layers[1].key).unwrap().is_some());
    let found = world.oven.find(&of("main")).await.unwrap().unwrap();
    let again = bake("main").await;
    assert!(found.reused && again.reused && again.log.is_none());
    assert_eq!((found.image, &found.layers), (own.image, &own.layers));
    assert_eq!((again.image, &again.layers), (own.image, &own.layers));
    // Whoever may begin with what the branch left has that image, too.
    assert_eq!(bake("side").await.image, own.image);
    // It is forgotten with its image.
    sweep(&[]).await;
    assert_eq!(world.oven.find(&of("main")).await.unwrap(), None);
    let note = format!("made/{}.json", own.layers[1].key.hex());
    assert!(!world.node().join(note).exists());
}

pub async fn layers_hold_real_ids_and_deletions(world: &World) {
    let one = format!(
        "# {}\nset -e\nuseradd -m deploy; touch /home/deploy/x; chown deploy /home/deploy/x\n\
         cp /bin/ls /usr/local/bin/as-deploy; chown deploy /usr/local/bin/as-deploy; chmod 4755 /usr/local/bin/as-deploy\n\
         mkdir /opt/full; touch /opt/full/a /opt/full/b\n",
        world.salt
    );
    let two = "set -e\nrm /usr/share/doc/adduser/copyright /opt/full/a\nrm -r /opt/full; mkdir /opt/full; touch /opt/full/c\n\
               stat -c '%U %a' /usr/local/bin/as-deploy; [ ! -e /opt/full/b ]\n\
               echo \"<$VEND_COMMIT_MESSAGE> of $VEND_COMMIT_ID\"\n";
    let order = world.bake_order(
        &[("infra/one.sh", &one), ("infra/two.sh", two)],
        &["infra/one.sh", "infra/two.sh"],
    );
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    let first = world.layers.files(&baked.layers[1].key);
    let metadata = std::fs::metadata(first.join("usr/local/bin/as-deploy")).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1000, 0o4755));
    assert_eq!(std::fs::metadata(first.join("etc/passwd")).unwrap().uid(), 0);
    assert_eq!(std::fs::metadata(&first).unwrap().mode() & 0o777, 0o755);
    let second = world.layers.files(&baked.layers[2].key);
    let gone = std::fs::symlink_metadata(second.join("usr/share/doc/adduser/copyright")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let log = world.log(baked.log.as_ref().unwrap());
    assert!(log.contains("deploy 4755"), "{log}");
    let commit = format!("<{}> of {}", order.commit.message, order.commit.id);
    assert!(log.contains(&commit), "{log}");

    let check = "set -e\n[ ! -e /usr/share/doc/adduser/copyright ]; [ \"$(ls /opt/full)\" = c ]\n\
                 [ \"$(stat -c '%U %a' /usr/local/bin/as-deploy)\" = 'deploy 4755' ]; rm -r /opt/full\n";
    let files = [
        ("infra/one.sh", one.as_str()),
        ("infra/two.sh", two),
        ("later.sh", check),
    ];
    let more = world.bake_order(&files, &["infra/one.sh", "infra/two.sh", "later.sh"]);
    let more = world.oven.bake(&world.ticket(), &more).await;
    // `later.sh` is no input, so the first two layers stay as they are.
    let more = more.unwrap();
    assert_eq!(more.layers[..3], baked.layers[..]);
    assert!(
        world
            .log(more.log.as_ref().unwrap())
            .contains("later.sh: running")
    );
}

pub async fn a_failing_script_says_why(world: &World) {
    let order = world.bake_order(
        &[("infra/bad.sh", "echo about to fail\nnot-a-command\nexit 42\n")],
        &["infra/bad.sh"],
    );
    let ticket = world.ticket();
    let fault = world.oven.bake(&ticket, &order).await.unwrap_err();
    println!("{fault}");
    assert_eq!(fault.blame, Blame::Customer);
    assert!(
        fault.message.contains("infra/bad.sh failed with exit code 42")
            && fault.message.contains("not-a-command")
    );
    assert!(fault.next.unwrap().contains("infra/bad.sh"));
    let log = fault.evidence.unwrap();
    assert_eq!(log.as_str(), format!("bake/{ticket}"));
    assert!(world.log(&log).contains("about to fail"));
    assert!(world.oven.find(&order).await.unwrap().is_none());

    let fault = world
        .oven
        .bake(
            &world.ticket(),
            &world.bake_order(&[("infra/x", "")], &["missing.sh"]),
        )
        .await
        .unwrap_err();
    assert!(fault.message.contains("missing.sh"), "{fault}");
    let mut order = world.bake_order(&[("a.sh", "true")], &["a.sh"]);
    order.inputs = Vec::new();
    order.base = "windows-95".to_owned();
    let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
    assert!(fault.message.contains("no base `windows-95`"), "{fault}");
}

/// Scripts of other people, for machines, call `systemctl`; those of packages have tools of their own.
pub async fn what_scripts_enable_is_in_the_image_and_nothing_else_of_systemctl(world: &World) {
    let unit = "[Service]\nExecStart=/opt/shop/run\n[Install]\nWantedBy=multi-user.target\n";
    let script = format!(
        "#!/bin/bash\n# {}\nset -euo pipefail\napt-get update -q\napt-get install -qy --no-install-recommends cron\n\
         cp infra/shop.service /etc/systemd/system/\nsystemctl daemon-reload\nsystemctl enable --now shop.service\n\
         systemctl restart cron\nsystemctl is-enabled shop cron\nsystemctl is-active shop || echo code $?\n\
         systemctl mask apt-daily.timer\nsystemctl frobnicate shop || echo code $?\n",
        world.salt
    );
    let files = [
        ("infra/install.sh", script.as_str()),
        ("infra/shop.service", unit),
    ];
    let order = world.bake_order(&files, &["infra/install.sh"]);
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    let log = world.log(baked.log.as_ref().unwrap());
    println!("{log}");
    for text in [
        "Setting up cron",
        "Created symlink /etc/systemd/system/multi-user.target.wants/shop.service → /etc/systemd/system/shop.service.",
        "systemctl start shop.service: ignored, no service runs while an image is made\n",
        "systemctl restart cron.service: ignored, no service runs",
        "enabled\nenabled\ninactive\ncode 3\n",
        "Unknown command verb frobnicate",
    ] {
        assert!(log.contains(text), "{text}");
    }
    let files = world.layers.files(&baked.layers[1].key);
    let link = |path: &str| std::fs::read_link(files.join("etc/systemd/system").join(path)).unwrap();
    assert_eq!(
        link("multi-user.target.wants/shop.service").to_str(),
        Some("/etc/systemd/system/shop.service")
    );
    assert!(link("multi-user.target.wants/cron.service").ends_with("systemd/system/cron.service"));
    assert_eq!(link("apt-daily.timer").to_str(), Some("/dev/null"));
    for absent in ["srv/vend", "usr/bin/systemctl", "bin/systemctl", "run"] {
        assert!(!files.join(absent).exists(), "{absent}");
    }
}

pub async fn two_at_a_time_make_one_layer(world: &World) {
    let script = format!("# {}\nsleep 2; date +%N > /made\n", world.salt);
    let order = world.bake_order(&[("infra/slow.sh", &script)], &["infra/slow.sh"]);
    let (one, two) = (world.ticket(), world.ticket());
    let (one, two) = tokio::join!(world.oven.bake(&one, &order), world.oven.bake(&two, &order));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.image, two.image);
    assert!(one.reused != two.reused, "one made it, the other waited");
}

pub async fn a_bake_is_stopped_by_its_deadline(world: &World) {
    let script = format!("# {}\necho begun; sleep 1000\n", world.salt);
    let mut order = world.bake_order(&[("infra/forever.sh", &script)], &["infra/forever.sh"]);
    order.timeout = SignedDuration::from_secs(3);
    let fault = world.oven.bake(&world.ticket(), &order).await.unwrap_err();
    assert!(
        fault.message.contains("not baked in 3 seconds") && fault.message.contains("begun"),
        "{fault}"
    );
    assert_eq!(fault.blame, Blame::Customer);
}

pub async fn a_bake_s_time_is_not_that_of_those_before_it(world: &World) {
    let order = |name: &str, seconds: u32| {
        let script = format!("# {name} {}\necho begun; sleep {seconds}\n", world.salt);
        world.bake_order(&[("infra/slow.sh", &script)], &["infra/slow.sh"])
    };
    // Two take all places, for longer than the third may take.
    let (one, two, three) = (world.ticket(), world.ticket(), world.ticket());
    let (first, second, mut third) = (order("one", 12), order("two", 12), order("three", 0));
    third.timeout = SignedDuration::from_secs(9);
    let waiting = async {
        for ticket in [&one, &two] {
            world.says(&format!("bake/{ticket}"), "begun").await;
        }
        let says = async {
            world
                .says(
                    &format!("bake/{three}"),
                    "waiting: scripts of other images run, at most 2",
                )
                .await;
            assert!(world.oven.waits(&three) && !world.oven.waits(&one));
        };
        let (baked, ()) = tokio::join!(world.bake(&three, &third), says);
        assert!(!world.oven.waits(&three));
        baked
    };
    let (one, two, three) = tokio::join!(world.bake(&one, &first), world.bake(&two, &second), waiting);
    one.unwrap();
    two.unwrap();
    three.unwrap();
}

pub async fn a_stopped_bake_ends_unless_another_waits_for_its_layer(world: &World) {
    let order = |text: &str| {
        let script = format!("# {}\n{text}\n", world.salt);
        world.bake_order(&[("infra/slow.sh", &script)], &["infra/slow.sh"])
    };
    let forever = order("echo begun; sleep 1000");
    let ticket = world.ticket();
    let stopping = async {
        world.says(&format!("bake/{ticket}"), "begun").await;
        world.answers.stop(&ticket, "ada cancelled it").await.unwrap();
    };
    let (baked, ()) = tokio::join!(world.bake(&ticket, &forever), stopping);
    let fault = baked.unwrap_err();
    assert_eq!(fault.message, "the bake was stopped: ada cancelled it");
    assert_eq!(fault.blame, Blame::Order);
    assert!(world.log(&fault.evidence.unwrap()).contains("ada cancelled it"));
    assert!(world.containers.list().is_empty());
    assert!(world.oven.find(&forever).await.unwrap().is_none());

    // It runs until it may end, which is after its first bake was stopped.
    let shared = order("echo begun; sleep 2; date +%N > /made");
    let (first, second, third) = (world.ticket(), world.ticket(), world.ticket());
    let stopping = async {
        world.says(&format!("bake/{second}"), "waiting for another").await;
        world.says(&format!("bake/{third}"), "waiting for another").await;
        world.answers.stop(&third, "not this one").await.unwrap();
        world.answers.stop(&first, "ada cancelled it").await.unwrap();
    };
    let begin = async |ticket| {
        world.says(&format!("bake/{first}"), "begun").await;
        world.bake(ticket, &shared).await
    };
    let (one, two, three, ()) = tokio::join!(
        world.bake(&first, &shared),
        begin(&second),
        begin(&third),
        stopping
    );
    let two = two.unwrap();
    assert!(two.reused, "the layer of the stopped bake is the other's");
    assert!(one.is_err() || one.unwrap().image == two.image);
    assert_eq!(three.unwrap_err().message, "the bake was stopped: not this one");
}

pub async fn a_sweep_waits_for_no_bake_and_takes_nothing_from_one(world: &World) {
    let script = |text: &str| format!("# {}\n{text}\n", world.salt);
    let nothing = script("touch /unneeded");
    let (one, two) = (script("touch /one"), script("echo begun; sleep 4; ls /one"));
    let files = [("infra/1.sh", one.as_str()), ("infra/2.sh", two.as_str())];
    let order = world.bake_order(&[("infra/0.sh", &nothing)], &["infra/0.sh"]);
    let unneeded = world.oven.bake(&world.ticket(), &order).await.unwrap().image;
    let order = world.bake_order(&files, &["infra/1.sh", "infra/2.sh"]);
    let (ticket, waiting) = (world.ticket(), world.ticket());
    let another = async {
        world.says(&format!("bake/{ticket}"), "begun").await;
        world.oven.bake(&waiting, &order).await
    };
    let sweep = async {
        world
            .says(&format!("bake/{waiting}"), "waiting for another")
            .await;
        // Later than any use: nothing is spared for its age.
        let ever = "2200-01-01T00:00:00Z".parse().unwrap();
        world.oven.sweep(&[].into(), ever).await.unwrap()
    };
    let (baked, waited, swept) = tokio::join!(world.oven.bake(&ticket, &order), another, sweep);
    let swept = swept.expect("a bake that goes on, and one that waits for it, hold up no sweep");
    assert!(swept.images.contains(&unneeded), "{swept:?}");
    let baked = baked.unwrap();
    assert_eq!(waited.unwrap().image, baked.image);
    assert_eq!(world.oven.images().lowers(&baked.image).unwrap().len(), 3);
    assert!(world.layers.files(&baked.layers[1].key).join("one").exists());
}

pub async fn what_a_deleted_one_baked_is_not_the_next_one_s(world: &World) {
    let salt = world.salt.trim_start_matches('.').to_lowercase();
    let script = format!("# {}\ncp /proc/sys/kernel/random/uuid /own\n", world.salt);
    let order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    let place = |tenant: &str, app: &str| {
        let place = format!("{tenant}-{salt}/{app}/dev");
        of(order.clone(), &place, ("main", None))
    };
    let own = [
        place("gone", "shop"),
        place("gone", "site"),
        place("stays", "shop"),
    ];
    for order in &own {
        world.oven.bake(&world.ticket(), order).await.unwrap();
    }
    let there = async || {
        let mut all = Vec::new();
        for order in &own {
            all.push(world.oven.find(order).await.unwrap().is_some());
        }
        all
    };
    assert_eq!(there().await, [true, true, true]);
    let (tenant, app) = (&own[0].place.tenant, &own[0].place.app);
    world.oven.forget(tenant, Some(app)).unwrap();
    assert_eq!(there().await, [false, true, true]);
    world.oven.bake(&world.ticket(), &own[0]).await.unwrap();
    assert_eq!(there().await, [true, true, true]);
    world.oven.forget(tenant, None).unwrap();
    assert_eq!(there().await, [false, false, true]);
}
