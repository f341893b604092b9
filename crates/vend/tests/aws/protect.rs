//! What is protected is not deleted, until somebody says so; and then that is told.

use super::{STACKS, World};

#[test]
fn what_is_protected_refuses_in_both_places_until_it_is_not() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    let balancer = || {
        world.python(
            "e = client('elbv2')\na = e.describe_load_balancers()['LoadBalancers'][0]['LoadBalancerArn']\n\
             print([x['Value'] for x in e.describe_load_balancer_attributes(LoadBalancerArn=a)['Attributes'] if x['Key'] == 'deletion_protection.enabled'][0])",
        )
    };
    let done = world.json(&["unprotect"]);
    assert_eq!(
        (&done[0]["stack"], &done[0]["is_protected"], &done[0]["with"]),
        (&STACKS[0].into(), &false.into(), &serde_json::json!(["Balancer"]))
    );
    assert_eq!(
        (
            world.status(STACKS[0])["is_protected"].as_bool(),
            balancer().as_str()
        ),
        (Some(false), "false")
    );
    // It stays so, and that is said.
    let said = world.good(&["apply", "--yes", "--only", "vend-production"]);
    assert!(
        said.contains(
            "note vend-production: it is not protected, and `apply` leaves it so (vend aws protect --only vend-production)"
        ),
        "{said}"
    );
    let done = world.json(&["apply", "--yes", "--only", "vend-production"]);
    assert_eq!(done[0]["unprotected"], true, "{done}");
    assert!(world.good(&["status"]).contains("no (vend aws protect)"));
    assert!(world.good(&["protect"]).contains("with Balancer"));
    assert!(!world.good(&["status"]).contains("no (vend aws protect)"));
    assert_eq!(
        (
            world.status(STACKS[0])["is_protected"].as_bool(),
            balancer().as_str()
        ),
        (Some(true), "true")
    );
    let (code, said) = world.bad(&["destroy", "--yes"]);
    assert!(code == 3 && said.contains("vend aws unprotect"), "{said}");
    // Once more changes nothing.
    world.good(&["protect"]);
    assert_eq!(balancer(), "true");
}
