//! What holds of an environment's two halves while one of them runs and the other does not, serves or does not: conditions
//! are settled both ways.

use std::collections::BTreeMap;

use aws::synth::{Priorities, Template, environment};
use serde_json::{Value, json};

use crate::{
    config, deployed,
    matrix::matrix,
    world::{LIVE, World, failure, release_of},
};

/// The value when these conditions hold and no others.
fn settled(value: &Value, holds: &[String]) -> Option<Value> {
    if value["Ref"] == "AWS::NoValue" {
        return None;
    }
    if let Some([condition, yes, no]) = value["Fn::If"].as_array().map(Vec::as_slice) {
        let is_so = holds.iter().any(|own| condition == own);
        return settled(if is_so { yes } else { no }, holds);
    }
    Some(match value {
        Value::Object(own) => {
            let each = own.iter();
            each.filter_map(|(key, value)| Some((key.clone(), settled(value, holds)?)))
                .collect()
        }
        Value::Array(items) => items.iter().filter_map(|item| settled(item, holds)).collect(),
        other => other.clone(),
    })
}

fn number(value: &Value) -> i64 {
    let text = value.as_str().map(|text| text.parse().unwrap());
    text.or_else(|| value.as_i64())
        .unwrap_or_else(|| panic!("{value}"))
}

/// Each group of hosts of a half, as CloudFormation reads it: the stack's name, the half, the template and the group.
fn groups() -> impl Iterator<Item = (&'static str, &'static str, &'static Template, Value)> {
    matrix().iter().flat_map(|stack| {
        ["Blue", "Green"].into_iter().filter_map(|half| {
            let group = stack.template.resource(&format!("{half}Group"))?;
            Some((stack.name.as_str(), half, &stack.template, group.body()))
        })
    })
}

/// In place CloudFormation replaces hosts; where there are two halves nothing replaces those that serve.
#[test]
fn cloudformation_takes_the_policy_of_a_half_that_runs_and_of_one_that_does_not() {
    assert!(groups().count() > 50);
    let mut alone = 0;
    for (name, half, template, group) in groups() {
        let is_alone = template.resource("GreenGroup").is_none();
        alone += usize::from(is_alone);
        for runs in [true, false] {
            let holds: Vec<String> = runs.then(|| format!("{half}IsRunning")).into_iter().collect();
            let group = settled(&group, &holds).unwrap();
            let (own, rolling) = (
                &group["Properties"],
                &group["UpdatePolicy"]["AutoScalingRollingUpdate"],
            );
            let (min, max) = (number(&own["MinSize"]), number(&own["MaxSize"]));
            assert!(min <= max, "{name} {half} {runs}");
            // It refuses an update of a group whose least in service is not below its most.
            let is_there = runs && is_alone;
            let is_taken = rolling.is_null() != is_there
                && (!is_there || number(&rolling["MinInstancesInService"]) < max);
            assert!(is_taken, "{name} {half} {runs}: {rolling} of {max}");
            assert_eq!(
                max == 0,
                !runs,
                "nothing raises a half that does not run: {name} {half}"
            );
        }
    }
    assert!(alone > 5, "{alone}");
}

/// Else a pool would hold all that scaling may ever add.
#[test]
fn a_warm_pool_holds_what_was_asked_for() {
    let mut seen = 0;
    for stack in matrix() {
        for pool in stack.template.of("AWS::AutoScaling::WarmPool") {
            let half = pool.id.trim_end_matches("WarmPool");
            let group = stack.template.resource(&format!("{half}Group")).unwrap();
            for runs in [true, false] {
                let holds: Vec<String> = runs.then(|| format!("{half}IsRunning")).into_iter().collect();
                let own = settled(&pool.properties, &holds).unwrap();
                let least = number(&settled(&group.properties["MinSize"], &holds).unwrap());
                let warm = number(&own["MinSize"]);
                assert_eq!(number(&own["MaxGroupPreparedCapacity"]), least + warm);
                assert_eq!(warm > 0, runs);
            }
            seen += 1;
        }
    }
    assert!(seen > 1, "{seen}");
}

#[test]
fn no_clock_raises_a_half_that_does_not_run() {
    let mut seen = 0;
    for stack in matrix() {
        for action in stack.template.of("AWS::AutoScaling::ScheduledAction") {
            let group = action.properties["AutoScalingGroupName"]["Ref"].as_str().unwrap();
            let half = group.trim_end_matches("Group");
            assert_eq!(
                action.body()["Condition"],
                format!("{half}IsRunning"),
                "{}",
                stack.name
            );
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// The load balancer finds nobody on a new host until its revision is there, however long a migration takes.
#[test]
fn auto_scaling_asks_the_load_balancer_about_hosts_that_serve_only() {
    let mut alone = 0;
    for (name, half, template, group) in groups() {
        let kind = |serves: bool| {
            let holds: Vec<String> = serves.then(|| format!("{half}IsServing")).into_iter().collect();
            settled(&group, &holds).unwrap()["Properties"]["HealthCheckType"].clone()
        };
        if group["Properties"]["TargetGroupARNs"].is_null() {
            assert_eq!((kind(true), kind(false)), (json!("EC2"), json!("EC2")), "{name}");
            continue;
        }
        let weight = format!("{half}Weight");
        if template.parameters.iter().all(|(own, _)| *own != weight) {
            assert_eq!((kind(true), kind(false)), (json!("ELB"), json!("ELB")), "{name}");
            alone += 1;
            continue;
        }
        assert_eq!((kind(true), kind(false)), (json!("ELB"), json!("EC2")), "{name}");
        let conditions: BTreeMap<_, _> = template.conditions.iter().cloned().collect();
        assert_eq!(
            conditions[&format!("{half}IsServing")],
            json!({ "Fn::Not": [{ "Fn::Equals": [{ "Ref": weight }, "0"] }] }),
            "{name}"
        );
    }
    assert!(alone > 5, "{alone}");
}

#[test]
fn what_is_changed_in_place_has_time_for_its_first_migration_and_each_host() {
    let grace = |deploy: &str, min: u32| {
        let app = deployed(deploy, &format!("{{ min: {min}, max: 4 }}"));
        let label = "production".parse().unwrap();
        let own = &app.environments[0];
        let stack = environment(&config(""), &app.app, own, &label, &mut Priorities::default()).unwrap();
        let group = stack.template.resource("BlueGroup").unwrap();
        number(&group.properties["HealthCheckGracePeriod"])
    };
    let migrate = "migrate: { script: up.sh, timeout: 2h }";
    let beside = grace("{}", 1);
    assert_eq!(
        grace(&format!("{{ {migrate} }}"), 3),
        beside,
        "no weight, no question"
    );
    assert_eq!(grace("{ strategy: in-place }", 1), beside);
    assert_eq!(grace("{ strategy: in-place }", 3), 3 * beside);
    assert!(grace(&format!("{{ strategy: in-place, {migrate} }}"), 3) >= 7_200 + 3 * beside);
}

/// The alarms of the stack as CloudWatch names them: the stack, the logical id and what CloudFormation adds.
fn alarms(template: &Template) -> Vec<(String, bool)> {
    let all = template.of("AWS::CloudWatch::Alarm");
    let scales = |actions: &Value| {
        let mut refs = actions
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|own| own["Ref"].as_str());
        refs.any(|own| {
            template
                .of("AWS::AutoScaling::ScalingPolicy")
                .any(|policy| policy.id == own)
        })
    };
    let named = |id: &str| format!("vend-production-shop-production-{id}-1A2B3C");
    all.map(|own| (named(&own.id), scales(&own.properties["AlarmActions"])))
        .collect()
}

#[test]
fn a_release_is_judged_by_its_alarms_and_not_by_those_of_its_size() {
    let app = deployed("{ strategy: linear }", "{ min: 2, max: 4 }");
    let options = "scaling = { step = 70 }";
    let label = "production".parse().unwrap();
    let own = &app.environments[0];
    let stack = environment(
        &config(options),
        &app.app,
        own,
        &label,
        &mut Priorities::default(),
    )
    .unwrap();
    let all = alarms(&stack.template);
    let named = |is_size: bool| -> Vec<String> {
        let those = all.iter().filter(|(_, scales)| *scales == is_size);
        those.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(named(true).len(), 4);
    // A quiet half asks for fewer hosts, a busy one for more: neither is a fault of the release.
    let mut world = World::new(&LIVE);
    world.ringing = named(true);
    assert_eq!(release_of(&app, options, &mut world).as_str(), "SUCCEEDED");
    assert!(world.alarms > 0);
    let of_new: Vec<String> = named(false)
        .into_iter()
        .filter(|name| name.contains("-Green"))
        .collect();
    assert!(of_new.len() >= 4, "{of_new:?}");
    for one in of_new {
        let mut world = World::new(&LIVE);
        world.ringing = vec![one.clone()];
        let status = release_of(&app, options, &mut world);
        assert!(failure(&status).contains(&one), "{status:?}");
    }
}
