//! Alarms of somebody's own, by their names in `vend.yaml`.

use aws::synth::{Priorities, environment};
use serde_json::{Value, json};

use crate::{
    config, deployed,
    keys::made,
    world::{LIVE, World, failure, release_of},
};

#[test]
fn alarms_that_vend_yaml_names_are_asked_at_each_step() {
    let linear = |alarms: &str| deployed(&format!("{{ strategy: linear, {alarms} }}"), "{ min: 2 }");
    let named = linear("alarms: { names: [shop-orders-fail] }");
    // Those of the new half are quiet, and the other one rings.
    let mut world = World::new(&LIVE);
    world.alarm_after = Some(1);
    let status = release_of(&named, "", &mut world);
    assert!(failure(&status).contains("an alarm rings: errors"), "{status:?}");
    world.is("BlueWeight", "100");
    world.is("GreenWeight", "0");

    let mut world = World::new(&LIVE);
    assert_eq!(release_of(&named, "", &mut world).as_str(), "SUCCEEDED");
    let mut alone = World::new(&LIVE);
    assert_eq!(release_of(&linear(""), "", &mut alone).as_str(), "SUCCEEDED");
    assert_eq!(world.alarms, 2 * alone.alarms);
}

#[test]
fn more_alarms_than_codedeploy_takes_are_refused_with_how_many_it_takes() {
    let named = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
        made(&format!(
            "deploy: {{ alarms: {{ names: [{}] }} }}",
            names.join(", ")
        ))
    };
    let (_, notes) = named(7).unwrap();
    assert!(
        notes.iter().any(|note| note.contains("CloudWatch does not know")),
        "{notes:?}"
    );
    let why = named(8).unwrap_err();
    for part in [
        "deploy.alarms.names",
        "takes 10 alarms",
        "3 are made here",
        "8 are named",
        "name 7 at most",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

/// An alarm that rings for what is there already would end the deployment that mends it, and the way back.
#[test]
fn in_place_only_alarms_that_are_named_end_a_deployment() {
    let made = |deploy: &str| -> Value {
        let app = deployed(deploy, "{ min: 2 }");
        let label = "production".parse().unwrap();
        let own = &app.environments[0];
        let stack = environment(&config(""), &app.app, own, &label, &mut Priorities::default()).unwrap();
        crate::of(&stack.template, "BlueDeployments")
    };
    let both = made("{}");
    assert_eq!(both["AlarmConfiguration"]["Alarms"].as_array().unwrap().len(), 3);
    let alone = made("{ strategy: in-place }");
    assert_eq!(alone["AlarmConfiguration"]["Alarms"], json!([]));
    assert_eq!(alone["AlarmConfiguration"]["Enabled"], false);
    assert_eq!(
        alone["AutoRollbackConfiguration"]["Events"],
        json!(["DEPLOYMENT_FAILURE"])
    );
    let named = made("{ strategy: in-place, alarms: { names: [orders] } }");
    let own = &named["AlarmConfiguration"];
    assert_eq!(
        (&own["Enabled"], &own["Alarms"]),
        (&json!(true), &json!([{ "Name": "orders" }]))
    );
}
