//! The stacks of one branch's own environment, beside those that are there.

use std::fs;

use super::World;

#[test]
fn a_branch_has_stacks_that_come_and_go_alone() {
    let Some(world) = World::new() else { return };
    let app = fs::read_to_string(world.path().join("vend.yaml")).unwrap();
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    let own = [
        "vend-production-shop-feature-login-df7c7a-b-7d3c484c6392",
        "vend-flow-production-shop-feature-login-df7c7a-b-7d3c484c6392",
    ];
    let branch = ["--branch", "feature/login"];
    let names = || {
        let list = "print(json.dumps(sorted(s['StackName'] for s in client('cloudformation').describe_stacks()['Stacks'])))";
        let names: Vec<String> = serde_json::from_str(&world.python(list)).unwrap();
        names
    };
    world.good(&["apply", "--yes"]);
    let before = names();
    let kept = fs::read_to_string(world.path().join("aws/priorities.json")).unwrap();
    let plan = world.json(&[&["plan"], &branch[..]].concat());
    let planned: Vec<&str> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["stack"].as_str().unwrap())
        .collect();
    assert_eq!(planned, own);
    world.good(&[&["apply", "--yes"], &branch[..]].concat());
    let mut both: Vec<String> = own
        .iter()
        .map(|name| (*name).to_owned())
        .chain(before.clone())
        .collect();
    both.sort();
    assert_eq!(names(), both);
    let balancer = "e = client('elbv2')\na = e.describe_load_balancers()['LoadBalancers'][0]['LoadBalancerArn']\n\
         print(json.dumps(sorted(r['Priority'] for l in e.describe_listeners(LoadBalancerArn=a)['Listeners'] \
         for r in e.describe_rules(ListenerArn=l['ListenerArn'])['Rules'] if not r['IsDefault'])))";
    let rules: Vec<String> = serde_json::from_str(&world.python(balancer)).unwrap();
    assert!(
        rules.contains(&"1".to_owned()) && rules.iter().any(|own| own.parse::<u32>().unwrap() > 25_000),
        "{rules:?}"
    );
    // Once more changes nothing, and nothing of it is written down.
    let again = world.json(&[&["plan"], &branch[..]].concat());
    assert!(
        again
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["doing"] == "nothing"),
        "{again}"
    );
    assert_eq!(
        fs::read_to_string(world.path().join("aws/priorities.json")).unwrap(),
        kept
    );
    // The files do not name it, and yet it is not what is gone from them; nor is another app's, which stays with the foundation.
    world.write("vend.yaml", &app.replace("app: shop", "app: shop-admin"));
    world.good(&["apply", "--yes"]);
    let with_other = names();
    world.good(&["destroy", "--gone", "--yes"]);
    assert_eq!(names(), with_other);
    let said = world.good(&["destroy", "--yes"]);
    assert!(
        !said.contains("-shop-production") && !said.contains(own[0]),
        "{said}"
    );
    assert_eq!(names(), both);
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    world.good(&["destroy", "--gone", "--yes"]);
    assert_eq!(names(), both);
    let said = world.good(&["status"]);
    assert!(said.contains("of a branch"), "{said}");
    // What says to be of another entry is not touched by its name.
    world.write(
        "vend.yaml",
        &format!("{app}  other: {{ branches: 'feature/*' }}\n"),
    );
    for command in ["apply", "destroy"] {
        let (_, said) = world.bad(&[&[command, "--yes"], &branch[..]].concat());
        assert!(said.contains("is another's"), "{said}");
    }
    assert_eq!(names(), both);
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    // Nothing protects it, and nothing else goes with it.
    let said = world.good(&[&["destroy", "--yes"], &branch[..]].concat());
    assert!(
        own.iter().all(|name| said.contains(&format!("goes: {name}"))),
        "{said}"
    );
    assert_eq!(names(), before);
    // Asked for by name, all of branches goes.
    world.good(&["apply", "--yes", "--branch", "feature/more"]);
    world.good(&["destroy", "--gone", "--branches", "--yes"]);
    assert_eq!(names(), before);
    for other in ["main", "other"] {
        let (code, said) = world.bad(&["apply", "--yes", "--branch", other]);
        assert!(
            code == 2 && said.contains("has no environment of its own"),
            "{said}"
        );
    }
}
