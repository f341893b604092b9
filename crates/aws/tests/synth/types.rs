//! What an id of a template is, whatever else the template says.

use std::collections::{BTreeMap, BTreeSet};

use aws::synth::Kind;

use crate::iam::stacks;

/// "Update of resource type is not permitted": CloudFormation takes no other type for an id that stands, so one that comes with
/// another option, another runtime or another engine has an id of its own.
#[test]
fn no_id_has_two_types() {
    let mut types = BTreeMap::<_, BTreeSet<&str>>::new();
    for stack in stacks() {
        for own in &stack.template.resources {
            types
                .entry((format!("{:?}", stack.kind), own.id.as_str()))
                .or_default()
                .insert(own.kind);
        }
    }
    let kinds: BTreeSet<&str> = types.keys().map(|(kind, _)| kind.as_str()).collect();
    let all = [Kind::Foundation, Kind::Pipeline, Kind::Environment, Kind::Flow];
    assert_eq!(kinds.len(), all.len());
    assert!(types.len() > 150, "{}", types.len());
    types.retain(|_, own| own.len() > 1);
    assert_eq!(types, BTreeMap::new());
}

/// Of two policies of one metric the second is refused. Those of containers had other ids and the predefined metrics once, and
/// stand beside those of today until an update is whole.
/// Source: `PolicyName` of `AWS::ApplicationAutoScaling::ScalingPolicy` in the CloudFormation guide.
#[test]
fn policies_of_containers_say_their_metric_in_full() {
    let mut seen = 0;
    for stack in stacks() {
        for policy in stack.template.of("AWS::ApplicationAutoScaling::ScalingPolicy") {
            let own = &policy.properties["TargetTrackingScalingPolicyConfiguration"];
            assert!(own["PredefinedMetricSpecification"].is_null(), "{}", policy.id);
            let metric = &own["CustomizedMetricSpecification"];
            let is_known = [
                ("AWS/ECS", "CPUUtilization"),
                ("AWS/ApplicationELB", "RequestCountPerTarget"),
            ]
            .iter()
            .any(|(of, name)| metric["Namespace"] == *of && metric["MetricName"] == *name);
            assert!(is_known && !metric["Dimensions"].is_null(), "{}", policy.id);
            let name = policy.properties["PolicyName"]["Fn::Sub"].as_str().unwrap();
            assert!(name.ends_with(&format!("-{}", policy.id)), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
