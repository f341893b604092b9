//! Flows, run by our own interpreter against a small world.

use crate::world::{FIRST, LIVE, World, failure, release, run};

#[test]
fn the_first_release_goes_to_blue_and_gets_all_at_once() {
    let mut world = World::new(&FIRST);
    let status = run("strategy = 'canary'", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("BlueImage", "ami-new");
    world.is("BlueRuns", "yes");
    world.is("BlueWeight", "100");
    world.is("GreenRuns", "no");
    assert_eq!(world.alarms, 0, "there is nobody to share the traffic with");
}

#[test]
fn the_next_release_goes_to_the_idle_half_and_the_old_one_stops() {
    let mut world = World::new(&LIVE);
    world.taken = true;
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("GreenImage", "ami-new");
    world.is("GreenWeight", "100");
    world.is("BlueWeight", "0");
    world.is("BlueRuns", "no");
    world.is("BlueImage", "ami-old");
}

#[test]
fn a_canary_and_a_line_move_in_their_steps() {
    let mut world = World::new(&LIVE);
    assert_eq!(run("strategy = 'canary'", &mut world).as_str(), "SUCCEEDED");
    assert_eq!(world.weights, ["100", "90", "0", "0"]);
    let mut world = World::new(&LIVE);
    assert_eq!(run("strategy = 'linear'", &mut world).as_str(), "SUCCEEDED");
    assert_eq!(
        world.weights,
        [
            "100", "90", "80", "70", "60", "50", "40", "30", "20", "10", "0", "0"
        ]
    );
}

#[test]
fn an_alarm_brings_all_traffic_back() {
    let mut world = World::new(&LIVE);
    world.alarm_after = Some(2);
    let status = run("strategy = 'linear'", &mut world);
    assert!(failure(&status).contains("Vend.Alarm"), "{status:?}");
    world.is("BlueWeight", "100");
    world.is("GreenWeight", "0");
    world.is("GreenRuns", "no");
    world.is("BlueRuns", "yes");
    assert_eq!(
        world
            .calls
            .iter()
            .filter(|call| *call == "dynamodb:deleteItem")
            .count(),
        1
    );
}

#[test]
fn a_change_that_cloudformation_takes_back_is_not_tried_for_ever() {
    let mut world = World::new(&LIVE);
    world.rolled_back = true;
    let status = run("", &mut world);
    assert!(
        failure(&status).contains("UPDATE_ROLLBACK_COMPLETE"),
        "{status:?}"
    );
    world.is("BlueWeight", "100");
    assert_eq!(
        world
            .calls
            .iter()
            .filter(|call| *call == "cloudformation:updateStack")
            .count(),
        1
    );
}

#[test]
fn steps_are_those_of_vend_yaml() {
    let mut world = World::new(&LIVE);
    let status = release("{ strategy: canary, percent: 25%, interval: 2m }", "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert_eq!(world.weights, ["100", "75", "0", "0"]);
    let mut world = World::new(&LIVE);
    release("{ strategy: linear, steps: 3 }", "", &mut world);
    assert_eq!(world.weights, ["100", "66", "32", "0", "0"]);
    // The operator's word is above it, and has its own steps.
    let mut world = World::new(&LIVE);
    release(
        "{ strategy: linear, steps: 3 }",
        "strategy = 'canary'",
        &mut world,
    );
    assert_eq!(world.weights, ["100", "90", "0", "0"]);
    let mut world = World::new(&[("BaseImage", "b"), ("BlueImage", "ami-old"), ("BlueRuns", "yes")]);
    let status = release("{ strategy: in-place }", "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("BlueImage", "ami-new");
}

#[test]
fn a_push_that_began_before_one_that_is_live_is_not_released() {
    let mut world = World::new(&LIVE);
    world.began("2026-01-01T00:00:00.001Z");
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let calls = |what: &str| world.calls.iter().filter(|call| *call == what).count();
    assert_eq!(
        (calls("cloudformation:updateStack"), calls("dynamodb:deleteItem")),
        (0, 1)
    );
    assert!(!world.table.contains_key("turn/production"), "the turn is left");
    assert_eq!(world.table["newest/production"]["owner"]["S"], "another");
    let told = world.told.last().unwrap();
    assert!(told["TopicArn"].as_str().unwrap().ends_with(":builds"), "{told}");
    assert!(crate::notices::mail(told).contains("began later"), "{told}");
    world.is("GreenRuns", "no");
    // What began earlier, or is this one again, is no reason.
    world.began("2025-12-31T23:59:59Z");
    assert_eq!(run("", &mut world).as_str(), "SUCCEEDED");
    world.is("GreenWeight", "100");
    assert_eq!(world.table["newest/production"]["began"]["N"], "1767225600000");
}

/// The first waits for people while the second begins, and comes to nothing or goes live.
#[test]
fn only_a_later_release_that_is_live_is_in_the_way_of_an_earlier_one() {
    let later = |deployment: &'static str| {
        let mut world = World::new(&LIVE);
        world.begins = Some("2026-01-01T01:00:00Z");
        world.deployment = deployment;
        let status = run("", &mut world);
        world.begins = None;
        world.deployment = "Succeeded";
        (world, status)
    };
    let (mut world, status) = later("Failed");
    assert!(failure(&status).contains("Vend.Deployment"), "{status:?}");
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("GreenWeight", "100");
    assert_eq!(world.table["newest/production"]["began"]["N"], "1767225600000");
    let (mut world, status) = later("Succeeded");
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let moved = world.weights.len();
    assert_eq!(run("", &mut world).as_str(), "SUCCEEDED");
    assert_eq!(world.weights.len(), moved, "it is not released");
    assert_eq!(world.table["newest/production"]["began"]["N"], "1767229200000");
    let told = crate::notices::mail(world.told.last().unwrap());
    assert!(told.contains("a release that began later is live"), "{told}");
}

#[test]
fn a_half_that_does_not_stop_is_told_and_the_release_is_live() {
    let mut world = World::new(&LIVE);
    world.refused = Some(("BlueRuns", "no"));
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    world.is("GreenWeight", "100");
    let said: Vec<String> = world.told.iter().map(crate::notices::mail).collect();
    let last = said.last().unwrap();
    assert!(
        last.contains("live at commit abc123, and the half before did not stop")
            && last.contains("not now")
            && last.contains("vend aws retire production"),
        "{last}"
    );
    assert!(!said.iter().any(|text| text.contains("not released")), "{said:?}");
    assert!(!world.table.contains_key("turn/production"), "the turn is left");
}

/// The rule and the group change at the same time: who stops in the update that takes the traffic drops requests.
#[test]
fn the_traffic_is_away_before_a_half_stops() {
    for (alarm_after, weights) in [
        (0, vec!["100", "90", "100", "100"]),
        (3, vec!["100", "90", "80", "70", "60", "100", "100"]),
    ] {
        let mut world = World::new(&LIVE);
        world.alarm_after = Some(alarm_after);
        let status = run("strategy = 'linear'", &mut world);
        assert!(failure(&status).contains("Vend.Alarm"), "{status:?}");
        assert_eq!(world.weights, weights);
        world.is("GreenRuns", "no");
    }
    // A release that was stopped in the middle of its steps has left its half with traffic.
    let mut world = World::new(&LIVE);
    for (key, value) in [("GreenRuns", "yes"), ("GreenWeight", "30"), ("BlueWeight", "70")] {
        world.parameters.insert(key.into(), value.into());
    }
    assert_eq!(run("", &mut world).as_str(), "SUCCEEDED");
    assert_eq!(world.weights, ["100", "100", "100", "0", "0"]);
}
