//! Halves that come again, and what a release finds when it begins or leaves when it fails.

use aws::synth::{Priorities, environment};
use serde_json::{Value, json};

use crate::{
    app,
    world::{FIRST, LIVE, World, failure, release_of, run},
};

/// What a half remembers would be put on its next hosts before the release has migrated anything.
#[test]
fn hosts_of_a_half_that_comes_again_start_without_an_earlier_revision() {
    let mut world = World::new(&FIRST);
    for n in 1..=4 {
        let status = run("", &mut world);
        assert_eq!(status.as_str(), "SUCCEEDED", "release {n}: {status:?}");
        assert_eq!(world.early, [""; 0], "release {n}");
        // Another image, or nothing would start.
        for image in ["BlueImage", "GreenImage"] {
            world.parameters.insert(image.to_owned(), format!("ami-{n}"));
        }
    }
}

#[test]
fn a_half_that_is_kept_stops_before_it_gets_the_next_release() {
    let mut world = World::new(&LIVE);
    world.parameters.insert("GreenRuns".into(), "yes".into());
    world.parameters.insert("GreenImage".into(), "ami-older".into());
    world
        .last
        .insert("Green", "the release before the last one".into());
    // So do the hosts of its warm pool, which have an earlier revision too.
    world.warm = 3;
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert_eq!(world.early, [""; 0]);
    world.is("GreenImage", "ami-new");
    world.is("GreenWeight", "100");
    assert_eq!(world.weights[0], "100", "{:?}", world.weights);
}

#[test]
fn the_new_half_is_as_large_as_the_old_one_before_the_traffic_moves() {
    for (options, asked) in [
        ("", "autoscaling:setDesiredCapacity"),
        ("runtime = 'fargate'", "ecs:updateService"),
    ] {
        // Nothing is asked for where the least is enough; 9 hosts are more than vend.yaml allows by now.
        for (old, new) in [(2, 2), (4, 4), (9, 4)] {
            let mut world = World::new(&LIVE);
            world.sizes.insert("Blue", old);
            let status = release_of(&app("{ min: 2, max: 4 }"), options, &mut world);
            assert_eq!(status.as_str(), "SUCCEEDED", "{options}: {status:?}");
            assert_eq!(world.size("Green"), new, "{options}");
            let at = world.calls.iter().position(|call| call == asked);
            assert_eq!(at.is_some(), new > 2, "{options}");
            let (mut moves, at) = (0, at.unwrap_or(0));
            for call in &world.calls[at..] {
                moves += usize::from(call == "cloudformation:updateStack");
            }
            assert!(moves >= 2, "the traffic moves, and then the old half stops");
        }
    }
}

/// A service begins with one container, whatever the least is.
#[test]
fn containers_of_a_first_release_come_to_the_least() {
    let mut world = World::new(&FIRST);
    world.sizes.insert("Blue", 1);
    let status = release_of(&app("{ min: 3, max: 4 }"), "runtime = 'fargate'", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert_eq!(world.size("Blue"), 3);
}

#[test]
fn in_place_a_failure_brings_the_image_back() {
    let options = "strategy = 'in-place'";
    let mut world = World::new(&[("BaseImage", "b"), ("BlueImage", "ami-old"), ("BlueRuns", "yes")]);
    world.deployment = "Failed";
    let status = run(options, &mut world);
    assert!(failure(&status).contains("d-1 is Failed"), "{status:?}");
    world.is("BlueImage", "ami-old");
    world.is("BlueRuns", "yes");
    // The first release has nothing to go back to.
    let mut world = World::new(&[("BaseImage", "b"), ("BlueImage", ""), ("BlueRuns", "no")]);
    world.deployment = "Failed";
    failure(&run(options, &mut world));
    world.is("BlueImage", "ami-new");
}

#[test]
fn an_image_of_another_account_is_copied_with_what_it_is_found_by() {
    let mut world = World::new(&LIVE);
    let status = run("also = ['other']", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let [copy] = world.copies.as_slice() else {
        panic!("{:?}", world.copies)
    };
    let all = copy["TagSpecifications"].as_array().unwrap();
    let kinds: Vec<&Value> = all.iter().map(|own| &own["ResourceType"]).collect();
    assert_eq!(kinds, ["image", "snapshot"]);
    for own in all {
        let tags = own["Tags"].as_array().unwrap();
        for (key, value) in [
            ("vend:platform", "vend"),
            ("vend:app", "shop"),
            ("vend:environment", "production"),
            ("vend:commit", "abc123"),
            ("vend:message", "m of two lines"),
        ] {
            let tag = json!({ "Key": key, "Value": value });
            assert!(tags.contains(&tag), "{tag} {tags:?}");
        }
    }
}

/// EC2 would take the second copy for the first one.
#[test]
fn copies_for_two_targets_are_two() {
    let mut world = World::new(&LIVE);
    let status = run("also = ['other', 'third']", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let tokens: Vec<&str> = world
        .copies
        .iter()
        .map(|own| own["ClientToken"].as_str().unwrap())
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    assert!(tokens.iter().all(|own| own.len() <= 64));
}

#[test]
fn a_deployment_that_fails_leaves_the_old_half_serving() {
    let mut world = World::new(&LIVE);
    world.deployment = "Failed";
    let status = run("", &mut world);
    assert!(
        failure(&status).contains("deployment d-1 is Failed"),
        "{status:?}"
    );
    world.is("BlueWeight", "100");
    world.is("GreenRuns", "no");
}

/// Asked for again, CloudFormation would say that the stack is being changed, and CodeDeploy would begin a second one.
#[test]
fn what_was_begun_without_an_answer_is_begun_once() {
    let mut world = World::new(&LIVE);
    world.unanswered = 4;
    let status = run("strategy = 'canary'", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert_eq!((world.unanswered, world.updated.len()), (0, 4));
    let mut world = World::new(&LIVE);
    world.silent = true;
    let said = failure(&run("", &mut world));
    assert!(said.contains("no answer came"), "{said}");
    let begun = |call: &&String| *call == "codedeploy:createDeployment";
    assert_eq!(world.calls.iter().filter(begun).count(), 1);
    world.is("GreenRuns", "no");
}

/// The half that `keep_old` keeps is the way back of the release that is live.
#[test]
fn what_fails_before_anything_is_changed_leaves_the_half_that_is_kept() {
    let kept = || {
        let mut world = World::new(&LIVE);
        world.parameters.insert("GreenRuns".into(), "yes".into());
        world.parameters.insert("GreenImage".into(), "ami-older".into());
        world
    };
    // The copy into the other account fails.
    let (mut world, mut other) = (kept(), kept());
    other.copied = "failed";
    world.beside = [("other", other)].into();
    let said = failure(&run("also = ['other']", &mut world));
    assert!(said.contains("the copy of the image is failed"), "{said}");
    let other = &world.beside["other"];
    other.is("GreenRuns", "yes");
    assert_eq!(other.weights, [""; 0]);
    // The stack of containers is another's for hours, or CloudFormation takes the change back.
    let mut world = kept();
    world.occupied = true;
    let said = failure(&run("runtime = 'fargate'", &mut world));
    assert!(
        said.contains("has not been done") && !said.contains("not brought back"),
        "{said}"
    );
    world.is("GreenRuns", "yes");
    let mut world = kept();
    world.rolled_back = true;
    let said = failure(&run("runtime = 'fargate'", &mut world));
    assert!(said.contains("UPDATE_ROLLBACK_COMPLETE"), "{said}");
    world.is("GreenRuns", "yes");
    world.is("GreenImage", "ami-older");
}

#[test]
fn what_went_wrong_first_is_told_also_where_the_way_back_fails() {
    let told = |key, value| {
        let mut world = World::new(&LIVE);
        world.alarm_after = Some(0);
        world.refused = Some((key, value));
        (failure(&run("strategy = 'canary'", &mut world)), world)
    };
    let (said, world) = told("BlueWeight", "100");
    assert!(
        said.contains("Vend.Alarm") && said.contains("an alarm rings: errors; and not brought back: not now"),
        "{said}"
    );
    world.is("BlueWeight", "90");
    world.is("GreenRuns", "yes");
    let (said, world) = told("GreenRuns", "no");
    assert!(
        said.contains("Vend.Alarm")
            && said.contains("errors; and brought back, while the half without traffic still runs: not now"),
        "{said}"
    );
    world.is("BlueWeight", "100");
    world.is("GreenRuns", "yes");
}

#[test]
fn failing_tests_bring_the_old_half_back() {
    let mut world = World::new(&LIVE);
    world.tests_fail = true;
    let status = run("tests", &mut world);
    assert!(failure(&status).contains("tests failed"), "{status:?}");
    world.is("BlueWeight", "100");
    world.is("GreenWeight", "0");
    world.is("BlueRuns", "yes");
    // Nobody goes back to what was rejected; its traffic is away before it stops.
    world.is("GreenRuns", "no");
    assert_eq!(world.weights, ["100", "0", "100", "100"]);
    // A first release has nobody to give its traffic to.
    let mut world = World::new(&FIRST);
    world.tests_fail = true;
    failure(&run("tests", &mut world));
    world.is("BlueWeight", "100");
    world.is("BlueRuns", "yes");
    // Where it does not stop it is told beside what went wrong.
    let mut world = World::new(&LIVE);
    world.tests_fail = true;
    world.refused = Some(("GreenRuns", "no"));
    let said = failure(&run("tests", &mut world));
    assert!(
        said.contains("tests failed; and brought back, while the half without traffic still runs: vend-production-shop-production: not now"),
        "{said}"
    );
    world.is("BlueWeight", "100");
}

#[test]
fn in_place_changes_the_only_half() {
    let mut world = World::new(&[("BaseImage", "b"), ("BlueImage", "ami-old"), ("BlueRuns", "yes")]);
    let status = run("strategy = 'in-place'", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("BlueImage", "ami-new");
}

/// The half that this release left is the way back of one that came meanwhile.
#[test]
fn what_a_later_release_goes_back_to_is_not_retired() {
    let mut world = World::new(&LIVE);
    world.overtaken = true;
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("BlueWeight", "0");
    world.is("BlueRuns", "yes");
    assert!(!world.table.contains_key("turn/production"), "the turn is left");
}

/// A clock that has struck strikes the next time only for a half that was not there.
#[test]
fn what_the_clock_made_of_the_old_half_holds_of_the_new_one() {
    let clock = "scaling = { schedule = [{ cron = '0 8 * * *', min = 12, max = 20 }] }";
    for (runtime, asked) in [
        ("host", "autoscaling:updateAutoScalingGroup"),
        ("fargate", "applicationautoscaling:registerScalableTarget"),
    ] {
        let options = format!("runtime = '{runtime}'\n{clock}");
        let calls = |world: &World| world.calls.iter().filter(|call| *call == asked).count();
        let mut world = World::new(&LIVE);
        world.sizes.insert("Blue", 12);
        world.bounds.insert("Blue", (12, 20));
        let status = release_of(&app("{ min: 2, max: 4 }"), &options, &mut world);
        assert_eq!(status.as_str(), "SUCCEEDED", "{runtime}: {status:?}");
        assert_eq!(
            (world.size("Green"), world.bound("Green")),
            (12, (12, 20)),
            "{runtime}"
        );
        assert_eq!(calls(&world), 1, "{runtime}");
        // At another time there is nothing to change, and of a half that does not run nothing is known.
        for parameters in [LIVE, FIRST] {
            let mut world = World::new(&parameters);
            let status = release_of(&app("{ min: 2, max: 4 }"), &options, &mut world);
            assert_eq!(status.as_str(), "SUCCEEDED", "{runtime}: {status:?}");
            assert_eq!(calls(&world), 0, "{runtime}");
        }
    }
}

/// The clock has left two of what vend.yaml wants four of, or none for the night: the release gets as many as that wants, and
/// the clock's next strike holds for it.
#[test]
fn what_the_clock_has_lowered_is_no_reason_for_a_release_to_fail() {
    let clock = "scaling = { schedule = [{ cron = '0 20 * * *', min = 0, max = 2 }] }";
    for runtime in ["host", "fargate"] {
        let options = format!("runtime = '{runtime}'\n{clock}");
        for (size, bounds) in [(2, (1, 2)), (1, (1, 2)), (0, (0, 0))] {
            let mut world = World::new(&LIVE);
            world.sizes = [("Blue", size), ("Green", if runtime == "host" { 4 } else { 1 })].into();
            world.bounds = [("Blue", bounds), ("Green", (4, 8))].into();
            let status = release_of(&app("{ min: 4, max: 8 }"), &options, &mut world);
            assert_eq!(status.as_str(), "SUCCEEDED", "{runtime} {bounds:?}: {status:?}");
            assert_eq!(
                (world.size("Green"), world.bound("Green")),
                (4, (4, 8)),
                "{runtime}"
            );
        }
        // It strikes for both after the release has begun: more than there may be is not waited for.
        let mut world = World::new(&LIVE);
        world.sizes = [("Blue", 2), ("Green", 2)].into();
        world.bounds = [("Blue", (1, 2)), ("Green", (1, 2))].into();
        let status = release_of(&app("{ min: 4, max: 8 }"), &options, &mut world);
        assert_eq!(status.as_str(), "SUCCEEDED", "{runtime}: {status:?}");
        assert_eq!((world.size("Green"), world.bound("Green")), (2, (1, 2)));
    }
    let mut world = World::new(&[("BaseImage", "b"), ("BlueImage", "ami-old"), ("BlueRuns", "yes")]);
    world.bounds = [("Blue", (1, 2))].into();
    let options = format!("strategy = 'in-place'\n{clock}");
    let status = release_of(&app("{ min: 4, max: 8 }"), &options, &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
}

#[test]
fn a_clock_asks_for_no_more_than_there_may_be() {
    let own = app("{ min: 2, max: 4 }");
    let label = "production".parse().unwrap();
    for runtime in ["host", "fargate"] {
        let made = |schedule: &str| {
            let options = format!(
                "runtime = '{runtime}'\nscaling = {{ schedule = [{{ cron = '0 8 * * *', {schedule} }}] }}"
            );
            let config = crate::config(&options);
            environment(
                &config,
                &own.app,
                &own.environments[0],
                &label,
                &mut Priorities::default(),
            )
            .map(drop)
            .map_err(|error| error.to_string())
        };
        let said = made("min = 5").unwrap_err();
        assert!(
            said.contains("scaling.schedule") && said.contains("`max`"),
            "{said}"
        );
        assert_eq!((made("min = 4"), made("min = 5, max = 5")), (Ok(()), Ok(())));
    }
}
