//! Builds that nobody wants any more.

use model::{
    port::{Blame, Builder as _, PhaseStatus},
    spec::build::PhaseName::Build,
};

use crate::{
    world::{World, buildspec, phase},
    yard::{broken, cache, has, names, succeeds},
};

pub async fn a_build_that_is_stopped_while_its_source_comes_leaves_nothing(world: &World) {
    let names: Vec<String> = (0..20_000)
        .map(|number| format!("d{}/f{number}", number % 100))
        .collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let order = world.build_order(&files, buildspec(vec![phase(Build, &["true"], &[])]));
    let ticket = world.ticket();
    let stopping = async {
        world.says(&format!("build/{ticket}"), "DOWNLOAD_SOURCE").await;
        world.answers.stop(&ticket, "ada cancelled it").await.unwrap();
    };
    let (built, ()) = tokio::join!(world.build(&ticket, &order), stopping);
    let fault = built.unwrap_err();
    assert_eq!(fault.message, "the build was stopped: ada cancelled it");
    assert_eq!(fault.blame, Blame::Order, "it is not tried again");
    // Nobody goes on writing there.
    for _ in 0..20 {
        let builds = concat!(env!("CARGO_TARGET_TMPDIR"), "/vend-build/node/builds");
        let left: Vec<_> = std::fs::read_dir(builds).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let log = world.log(&format!("build/{ticket}").parse().unwrap());
    has(&log, &["Phase complete: DOWNLOAD_SOURCE State: STOPPED"]);
}

pub async fn a_stopped_build_ends_at_once_and_stays_stopped(world: &World) {
    let spec = buildspec(vec![phase(
        Build,
        &["echo begun", "sleep 1000"],
        &["echo finally"],
    )]);
    let order = world.build_order(&[("a", "")], spec);
    let tickets = [world.ticket(), world.ticket(), world.ticket()];
    let [first, second, queued] = &tickets;
    let stopping = async {
        for ticket in [first, second] {
            world.says(&format!("build/{ticket}"), "sleep 1000").await;
        }
        world
            .says(&format!("build/{queued}"), "Waiting: 2 builds run")
            .await;
        let waits = [first, second, queued].map(|ticket| world.yard.waits(ticket));
        assert_eq!(waits, [false, false, true]);
        for ticket in [queued, first, second] {
            world.answers.stop(ticket, "ada cancelled it").await.unwrap();
        }
    };
    let late = async {
        world.says(&format!("build/{second}"), "sleep 1000").await;
        world.build(queued, &order).await
    };
    let (one, two, three, ()) = tokio::join!(
        world.build(first, &order),
        world.build(second, &order),
        late,
        stopping
    );
    let faults = [one, two, three].map(Result::unwrap_err);
    for fault in &faults {
        assert_eq!(fault.message, "the build was stopped: ada cancelled it");
        assert_eq!(fault.blame, Blame::Order, "it is not tried again");
        assert_eq!(fault.phases.first().unwrap().name, "SUBMITTED");
        assert_eq!(fault.phases.last().unwrap().name, "COMPLETED");
    }
    assert_eq!(broken(&faults[0]), [("BUILD", PhaseStatus::Stopped)]);
    assert_eq!(names(&faults[2].phases), ["SUBMITTED", "QUEUED", "COMPLETED"]);
    assert_eq!(broken(&faults[2]), [("QUEUED", PhaseStatus::Stopped)]);
    assert!(world.containers.list().is_empty());
    let log = world.log(&format!("build/{first}").parse().unwrap());
    has(&log, &["STOPPED", "the build was stopped: ada cancelled it"]);
    let again = world.build(first, &order).await.unwrap_err();
    assert_eq!(again.message, "the build was stopped: ada cancelled it");
    // Its place is free for the next.
    succeeds(
        world,
        &world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["true"], &[])])),
    )
    .await;
}

pub async fn a_build_that_nobody_waits_for_is_cleared_away(world: &World) {
    let order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["sleep 1000"], &[])]));
    let ticket = world.ticket();
    let log = format!("build/{ticket}").parse().unwrap();
    let building = world.yard.build(&ticket, &order);
    let begun = async {
        while !world.log(&log).contains("sleep 1000") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = building => panic!("it ended"),
        () = begun => {}
    }
    for _ in 0..200 {
        if world.containers.list().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("its container is still there");
}

pub async fn a_build_that_waits_too_long_for_its_turn_is_given_up(world: &World) {
    let site = host::build::Site {
        at_once: 1,
        queued: std::time::Duration::from_secs(1),
        ..world.site.clone()
    };
    let yard = host::build::Yard::open(site).unwrap();
    let order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["sleep 6"], &[])]));
    let (first, second) = (world.ticket(), world.ticket());
    let late = async {
        world.says(&format!("build/{first}"), "sleep 6").await;
        yard.build(&second, &order).await
    };
    let (built, late) = tokio::join!(yard.build(&first, &order), late);
    built.unwrap();
    let fault = late.unwrap_err();
    assert!(fault.message.contains("for its turn, and is given up"), "{fault}");
    assert_eq!(fault.blame, Blame::Order, "it is not tried again");
    let log = world.log(&format!("build/{second}").parse().unwrap());
    has(&log, &["Phase complete: QUEUED State: TIMED_OUT"]);
}

pub async fn a_build_has_the_processors_that_it_may_have(world: &World) {
    let mut order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["sleep 1000"], &[])]));
    order.limits.cpu = 0.5;
    let ticket = world.ticket();
    let looking = async {
        world.says(&format!("build/{ticket}"), "sleep 1000").await;
        let tag = host::container::tag_of(world.node());
        let find = format!(
            "find /sys/fs/cgroup -path '*vend-{tag}/*build-*' \\( -name cpu.max -o -name cpu.cfs_quota_us \\) -exec cat {{}} +"
        );
        let found = std::process::Command::new("sh")
            .args(["-c", &find])
            .output()
            .unwrap();
        let text = String::from_utf8(found.stdout).unwrap();
        // Microseconds of each tenth of a second.
        assert!(
            text.lines().any(|line| line == "50000" || line == "50000 100000"),
            "{text}"
        );
        world.answers.stop(&ticket, "it was seen").await.unwrap();
    };
    let (built, ()) = tokio::join!(world.build(&ticket, &order), looking);
    assert!(built.is_err(), "it was stopped");
}

/// Builds that go on while their tenant is deleted, and one that waits for its turn then, keep what they keep for nobody.
pub async fn what_a_deleted_one_s_builds_keep_is_not_the_next_one_s(world: &World) {
    let salt = world.salt.trim_start_matches('.').to_lowercase();
    let place: model::Place = format!("went-{salt}/shop/dev").parse().unwrap();
    let of = |command: &str| {
        let mut spec = buildspec(vec![phase(Build, &[command], &[])]);
        spec.cache = cache(&["deps/**/*"]);
        let mut order = world.build_order(&[("a", "")], spec);
        order.place = place.clone();
        order
    };
    let keeps = of("echo begun; sleep 4; mkdir -p deps /root/.npm; touch deps/mine /root/.npm/mine");
    let [one, two, third] = [world.ticket(), world.ticket(), world.ticket()];
    let begun = async || {
        for ticket in [&one, &two] {
            world.says(&format!("build/{ticket}"), "begun").await;
        }
    };
    let waiting = async {
        begun().await;
        world.build(&third, &keeps).await
    };
    let deleted = async {
        begun().await;
        world.says(&format!("build/{third}"), "Waiting: ").await;
        world.oven.forget(&place.tenant, None).unwrap();
    };
    let (one, two, third, ()) = tokio::join!(
        world.build(&one, &keeps),
        world.build(&two, &keeps),
        waiting,
        deleted
    );
    for built in [one, two, third] {
        built.unwrap();
    }
    let finds = of("ls deps /root/.npm; [ ! -e deps/mine ] && [ ! -e /root/.npm/mine ]");
    succeeds(world, &finds).await;
}
