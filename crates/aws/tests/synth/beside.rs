//! Several targets of one release: one after the other, or all at once.

use asl::Status;

use crate::world::{FIRST, LIVE, World, failure, run};

/// The stacks that a release looks at, each once for as long as it is not another's turn.
fn turns(options: &str) -> Vec<String> {
    let mut world = World::new(&FIRST);
    let ended = run(options, &mut world);
    assert!(matches!(ended, Status::Succeeded { .. }), "{options}: {ended:?}");
    world.stacks.dedup();
    world.stacks
}

#[test]
fn targets_get_a_release_in_turn_or_at_the_same_time() {
    let (here, there) = ("vend-production-shop-production", "vend-other-shop-production");
    // It is released into each, and then what was before is retired in each.
    assert_eq!(turns("also = ['other']"), [here, there, here, there]);
    let beside = turns("also = ['other']\nparallel = true");
    assert!(beside.len() > 4, "{beside:?}");
    let of_it = beside.iter().filter(|own| *own == there).count();
    assert!(beside.len().abs_diff(2 * of_it) <= 1, "{beside:?}");
}

/// A world in which three foundations have the last release, and a deployment into `failing` fails.
fn three(failing: &str) -> World {
    let one = |label: &str| {
        let mut world = World::new(&LIVE);
        if label == failing {
            world.deployment = "Failed";
        }
        world
    };
    let mut world = one("production");
    world.beside = ["other", "third"].map(|label| (label, one(label))).into();
    world
}

fn updates(world: &World) -> usize {
    let all = world.calls.iter();
    all.filter(|call| *call == "cloudformation:updateStack").count()
}

#[test]
fn where_one_target_fails_all_have_the_old_half() {
    for parallel in ["", "\nparallel = true"] {
        for failing in ["production", "other", "third"] {
            let options = format!("also = ['other', 'third']{parallel}");
            let mut world = three(failing);
            let said = failure(&run(&options, &mut world));
            assert!(
                said.contains("Vend.Deployment")
                    && said.contains(&format!(
                        "vend-{failing}-shop-production: deployment d-1 is Failed"
                    )),
                "{options}, {failing}: {said}"
            );
            for (label, own) in world
                .beside
                .iter()
                .map(|(label, own)| (*label, own))
                .chain([("production", &world)])
            {
                own.is("BlueWeight", "100");
                own.is("GreenWeight", "0");
                own.is("BlueRuns", "yes");
                own.is("GreenRuns", "no");
                // One after the other: what comes after the one that fails is left alone.
                let at = |own: &str| {
                    ["production", "other", "third"]
                        .iter()
                        .position(|label| *label == own)
                };
                let is_left = parallel.is_empty() && at(label) > at(failing);
                assert_eq!(updates(own) == 0, is_left, "{options}, {failing}: {label}");
            }
            assert!(!world.table.contains_key("turn/production"), "the turn is left");
        }
    }
}

#[test]
fn a_target_that_cannot_go_back_is_told_and_keeps_none_of_the_others() {
    for parallel in ["", "\nparallel = true"] {
        let mut world = three("third");
        world.refused = Some(("BlueWeight", "100"));
        let said = failure(&run(&format!("also = ['other', 'third']{parallel}"), &mut world));
        assert!(
            said.contains(
                "d-1 is Failed: it says no more; and not brought back: vend-production-shop-production: "
            ),
            "{said}"
        );
        world.is("BlueWeight", "0");
        world.beside["other"].is("BlueWeight", "100");
    }
}

/// What no state of a target expects ends them all, and of those at the same time nobody knows how far they came.
#[test]
fn where_nobody_knows_how_far_targets_came_the_failure_says_so() {
    for parallel in ["", "\nparallel = true"] {
        let mut world = three("none");
        let other = world.beside.get_mut("other").unwrap();
        other.parameters.insert("GreenRuns".into(), "yes".into());
        other.parameters.insert("GreenWeight".into(), "much".into());
        let said = failure(&run(&format!("also = ['other', 'third']{parallel}"), &mut world));
        assert!(
            said.contains("they may differ: vend aws hosts production"),
            "{said}"
        );
        assert!(!world.table.contains_key("turn/production"), "the turn is left");
    }
}
