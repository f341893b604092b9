//! Several targets of one release: one after the other, or all at once.

use asl::Status;

use crate::world::{FIRST, World, run};

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
    assert_eq!(
        beside.iter().filter(|own| *own == there).count() * 2,
        beside.len(),
        "{beside:?}"
    );
}
