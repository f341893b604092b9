//! What stacks say of whose they are, to who divides bills and who writes policies.

use std::fs;

use serde_json::Value;

use super::{STACKS, World};

/// The tags of each stack, and that they are those which are written beside its template.
pub fn every_stack_says_whose_it_is(world: &World) {
    let there = world.python(
        "c = client('cloudformation')\n\
         print(json.dumps({s['StackName']: sorted(s['Tags'], key=lambda t: t['Key']) for s in c.describe_stacks()['Stacks']}))",
    );
    let there: Value = serde_json::from_str(&there).unwrap();
    world.good(&["synth", ".", "--out", "synthesised"]);
    for name in STACKS {
        let written = fs::read_to_string(world.path().join(format!("synthesised/tags/{name}.json"))).unwrap();
        let mut written: Vec<Value> = serde_json::from_str(&written).unwrap();
        written.sort_by_key(|tag| tag["Key"].as_str().unwrap().to_owned());
        assert_eq!(there[name], Value::from(written), "{name}");
    }
    let of = |key: &str| {
        let tags = there[STACKS[2]].as_array().unwrap();
        let tag = tags.iter().find(|tag| tag["Key"] == key).unwrap();
        tag["Value"].as_str().unwrap().to_owned()
    };
    let whose = [
        "vend:platform",
        "vend:foundation",
        "vend:kind",
        "vend:app",
        "vend:environment",
    ]
    .map(of);
    assert_eq!(whose, ["vend", "production", "environment", "shop", "production"]);
}

/// Each resource alone is the same text as in its stack, and nothing of a stack is missing.
#[test]
fn resources_are_written_one_by_one_on_request() {
    let Some(world) = World::new() else { return };
    world.good(&["synth", ".", "--out", "whole"]);
    world.good(&["synth", ".", "--out", "parts", "--split"]);
    assert!(!world.path().join("whole/resources").exists());
    let stacks = world.json(&["synth", ".", "--out", "parts", "--split"]);
    for stack in stacks["stacks"].as_array().unwrap() {
        let (name, file) = (
            stack["name"].as_str().unwrap(),
            stack["template"].as_str().unwrap(),
        );
        let whole = fs::read_to_string(world.path().join("whole").join(file)).unwrap();
        let parts: Vec<_> = fs::read_dir(world.path().join("parts/resources").join(name))
            .unwrap()
            .map(|part| part.unwrap().path())
            .collect();
        assert_eq!(stack["resources"], parts.len(), "{name}");
        for part in parts {
            let text = fs::read_to_string(&part).unwrap();
            let (_, own) = text.split_once("Resources:\n").unwrap();
            assert!(whole.contains(own.trim_end()), "{}", part.display());
        }
    }
    // Who wants them no more has them no more.
    world.good(&["synth", ".", "--out", "parts"]);
    assert!(!world.path().join("parts/resources").exists());
}
