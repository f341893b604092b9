//! Is the new half well? The load balancers in front of it say so, or the record that each of its hosts keeps.

use model::spec::Strategy;
use serde_json::json;

use super::{
    Whole, size,
    target::{Look, Target},
};
use crate::synth::{config::Runtime, environment::doors};

/// How many there have to be, in JSONata. Hosts were counted when they came up, and scaling may take some back since; where a
/// clock has lowered the bounds, no more than there may be (`$most`).
pub(super) fn least(whole: &Whole<'_>) -> String {
    let min = whole.environment.scaling.min;
    match whole.runtime() {
        Runtime::Host if size::schedules(whole).is_empty() => min.to_string(),
        Runtime::Host => format!("$min([{min}, $most])"),
        _ if whole.deploy.strategy == Strategy::InPlace => {
            let clock = size::schedules(whole)
                .iter()
                .flat_map(|own| [Some(own.min), own.max]);
            clock.flatten().fold(min, u32::min).to_string()
        }
        _ => "$wanted".to_owned(),
    }
}

/// As many hosts of the new half as there have to be keep a record, which only those do that are well.
fn recorded(target: &mut Target, whole: &Whole<'_>, next: &str) {
    let good = format!("$well >= {}", least(whole));
    let kept = |part: u8| format!("$split($lookup($outputs, $new & 'Records'), '/')[{part}]");
    let name = kept(1);
    let own = format!("Type = 'A' and $contains(Name, {name}) and $contains(SetIdentifier, /^i-/)");
    let look = Look {
        what: "route53:listResourceRecordSets",
        arguments: json!({
            "HostedZoneId": format!("{{% {} %}}", kept(0)), "StartRecordName": format!("{{% {name} %}}"), "StartRecordType": "A",
            "MaxItems": "100",
        }),
        assign: json!({ "well": format!("{{% $count($states.result.ResourceRecordSets[{own}]) %}}") }),
        good: &good,
        bad: None,
        minutes: 30,
        error: "Vend.Health",
        cause: "{% 'only ' & $string($well) & ' hosts are well and keep a record' %}",
    };
    target.until("Healthy", look, next);
}

/// All targets of the new half are well, and as many as there have to be, for each load balancer in front of them.
pub(super) fn add(target: &mut Target, whole: &Whole<'_>, next: &str) {
    if whole
        .options()
        .is_some_and(|own| own.placement.wavelength.is_some())
    {
        return recorded(target, whole, next);
    }
    let ports = doors(whole.environment);
    let own = ports.iter().map(|door| (door.id("Healthy"), door.targets()));
    let all: Vec<(String, String)> = [("Healthy".to_owned(), "TargetsArn".to_owned())]
        .into_iter()
        .chain(own)
        .collect();
    for (n, (name, output)) in all.iter().enumerate() {
        let after = all.get(n + 1).map_or(next, |(name, _)| name);
        found_well(target, whole, name, output, after);
    }
}

fn found_well(target: &mut Target, whole: &Whole<'_>, name: &str, output: &str, next: &str) {
    let good = format!("$well >= {} and $ill = 0", least(whole));
    let health = "$states.result.TargetHealthDescriptions.TargetHealth";
    let look = Look {
        what: "elasticloadbalancingv2:describeTargetHealth",
        arguments: json!({ "TargetGroupArn": format!("{{% $lookup($outputs, $new & '{output}') %}}") }),
        assign: json!({
            "well": format!("{{% $count({health}[State = 'healthy']) %}}"),
            "ill": format!("{{% $count({health}[$not(State in ['healthy', 'draining'])]) %}}"),
        }),
        good: &good,
        bad: None,
        minutes: 30,
        error: "Vend.Health",
        cause: "{% $string($well) & ' hosts are well and ' & $string($ill) & ' are not' %}",
    };
    target.until(name, look, next);
}
