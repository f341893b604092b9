//! Whose turn it is while a release moves an environment: it is held for as long as that takes, left however that ends, and
//! what is another's is not touched.

use serde_json::json;

use crate::world::{LIVE, World, failure, release, run};

fn calls(world: &World, what: &str) -> usize {
    world.calls.iter().filter(|call| *call == what).count()
}

/// One that lasts a day may be over before all shares of the traffic have moved.
#[test]
fn a_turn_is_held_anew_before_each_change_of_a_stack() {
    let mut world = World::new(&LIVE);
    let status = release("{ strategy: linear, interval: 3h }", "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let mut held = false;
    for call in &world.calls {
        match call.as_str() {
            "dynamodb:putItem" => held = true,
            "cloudformation:updateStack" => assert!(std::mem::take(&mut held), "{:?}", world.calls),
            _ => {}
        }
    }
    assert!(calls(&world, "cloudformation:updateStack") > 10);
    assert!(!world.table.contains_key("turn/production"), "the turn is left");
}

#[test]
fn a_release_that_has_lost_its_turn_leaves_everything_to_who_has_it() {
    for (after, weights) in [(0, vec![]), (3, vec!["100", "90", "80"])] {
        let mut world = World::new(&LIVE);
        world.stolen_after = Some(after);
        let status = run("strategy = 'linear'", &mut world);
        let said = failure(&status);
        assert!(
            said.contains("Vend.Turn") && said.contains("another has its turn"),
            "{said}"
        );
        assert_eq!(world.weights, weights, "nothing is changed any more");
        assert_eq!(world.table["turn/production"]["owner"], json!({ "S": "another" }));
    }
    // Also where it was lost on the way back: then what went wrong first is told.
    let mut world = World::new(&LIVE);
    world.deployment = "Failed";
    world.stolen_after = Some(1);
    let said = failure(&run("", &mut world));
    assert!(
        said.contains("d-1 is Failed: it says no more; and not brought back: another has its turn"),
        "{said}"
    );
    assert_eq!(calls(&world, "cloudformation:updateStack"), 1);
    // And where several have the release by then.
    let mut world = World::new(&LIVE);
    world.beside = [("other", World::new(&LIVE))].into();
    world.stolen_after = Some(2);
    let said = failure(&run("also = ['other']", &mut world));
    assert!(
        said.contains("not brought back: vend-production-shop-production: another has its turn"),
        "{said}"
    );
    world.is("GreenWeight", "100");
    assert_eq!(calls(&world.beside["other"], "cloudformation:updateStack"), 0);
}

/// The first three answers are lost, and then all of them: what was taken is left for the next release.
#[test]
fn a_turn_that_was_taken_without_a_word_is_asked_for_again_or_left() {
    let mut world = World::new(&LIVE);
    world.unheard = Some(("turn/", 3));
    let status = run("", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let mut world = World::new(&LIVE);
    world.unheard = Some(("turn/", 100));
    let said = failure(&run("", &mut world));
    assert!(said.contains("no answer came"), "{said}");
    assert!(!world.table.contains_key("turn/production"), "the turn is left");
    assert_eq!(calls(&world, "cloudformation:updateStack"), 0);
}
