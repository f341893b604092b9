//! How many hosts or containers the new half has: none of an earlier release when it begins, and as many as the old half
//! before the traffic moves.

use serde_json::json;

use super::{
    Whole,
    target::{Look, Target},
};
use crate::synth::config::Runtime;

/// A group among those of an answer, in JSONata, by the variable with its half.
fn group(half: &str) -> String {
    format!(
        "$states.result.AutoScalingGroups[AutoScalingGroupName = $lookup($outputs, {half} & 'GroupName')]"
    )
}

/// A half that `keep_old` still runs stops first, and with it goes what CodeDeploy remembers of it: a host that starts would
/// else be given the revision that was the last one there, against data that is migrated since.
/// Source: "Integrating CodeDeploy with Amazon EC2 Auto Scaling" of the CodeDeploy guide.
pub(super) fn clear(target: &mut Target, whole: &Whole<'_>, stopped: &str, next: &str) {
    let runs = "$lookup($before, $new & 'Runs') = 'yes'".to_owned();
    target.choice("Free", &[(runs, "Clear")], next);
    target.update("Clear", stopped, "Emptied");
    let drain = whole.deploy.drain.as_secs().max(0);
    let own = whole.options().and_then(|own| own.scaling.drain).map(i64::from);
    let look = Look {
        what: "autoscaling:describeAutoScalingGroups",
        arguments: json!({ "AutoScalingGroupNames": ["{% $lookup($outputs, $new & 'GroupName') %}"] }),
        assign: json!({ "left": "{% $count($states.result.AutoScalingGroups[0].Instances) %}" }),
        good: "$left = 0",
        bad: None,
        minutes: 30 + own.unwrap_or(drain).min(7_200) / 60,
        error: "Vend.Hosts",
        cause: "{% $string($left) & ' hosts of an earlier release have not gone' %}",
    };
    target.until("Emptied", look, next);
}

/// The new half comes to the number of the old one, which may have been scaled: `$wanted`.
pub(super) fn follow(target: &mut Target, whole: &Whole<'_>, next: &str) {
    match whole.runtime() {
        Runtime::Host => hosts(target, next),
        _ => containers(target, whole, next),
    }
    target.choice("Grow", &[("$wanted > $size".to_owned(), "Resize")], next);
}

fn hosts(target: &mut Target, next: &str) {
    let (old, new) = (group("$old"), group("$new"));
    let names = ["$old", "$new"].map(|half| format!("{{% $lookup($outputs, {half} & 'GroupName') %}}"));
    let wanted =
        format!("{{% $min([$max([{old}.DesiredCapacity, {new}.DesiredCapacity]), {new}.MaxSize]) %}}");
    target.task(
        "Size",
        "autoscaling:describeAutoScalingGroups",
        json!({ "AutoScalingGroupNames": names }),
        json!({ "wanted": wanted, "size": format!("{{% {new}.DesiredCapacity %}}") }),
        "Grow",
    );
    let name = "{% $lookup($outputs, $new & 'GroupName') %}";
    target.task(
        "Resize",
        "autoscaling:setDesiredCapacity",
        json!({ "AutoScalingGroupName": name, "DesiredCapacity": "{% $wanted %}", "HonorCooldown": false }),
        json!({}),
        "Grown",
    );
    let serving = format!("{new}.Instances[LifecycleState = 'InService']");
    let look = Look {
        what: "autoscaling:describeAutoScalingGroups",
        arguments: json!({ "AutoScalingGroupNames": [name] }),
        // What scaling takes back meanwhile is not waited for.
        assign: json!({
            "up": format!("{{% $count({serving}) %}}"),
            "wanted": format!("{{% $min([$wanted, {new}.DesiredCapacity]) %}}"),
        }),
        good: "$up >= $wanted",
        bad: None,
        // CodeDeploy puts the revision on each before it counts.
        minutes: 90,
        error: "Vend.Hosts",
        cause: "{% 'only ' & $string($up) & ' of ' & $string($wanted) & ' hosts came up, which the old half has' %}",
    };
    target.until("Grown", look, next);
}

/// A service begins with one container, and its least number holds for what scaling does: who releases says how many.
fn containers(target: &mut Target, whole: &Whole<'_>, next: &str) {
    let scaling = &whole.environment.scaling;
    let schedules = whole.options().map_or(&[][..], |own| &own.scaling.schedule);
    let most = schedules
        .iter()
        .filter_map(|own| own.max)
        .chain([scaling.max])
        .max();
    let count = |half: &str| {
        format!(
            "$states.result.Services[ServiceName = $lowercase({half}) and Status = 'ACTIVE'].DesiredCount"
        )
    };
    let wanted = format!(
        "{{% $min([$max([{}, {}]), {}]) %}}",
        scaling.min,
        count("$old"),
        most.unwrap_or(scaling.max)
    );
    target.task(
        "Size",
        "ecs:describeServices",
        json!({ "Cluster": "{% $target.stack %}", "Services": ["blue", "green"] }),
        json!({ "wanted": wanted, "size": format!("{{% {} %}}", count("$new")) }),
        "Grow",
    );
    target.task(
        "Resize",
        "ecs:updateService",
        json!({ "Cluster": "{% $target.stack %}", "Service": "{% $lowercase($new) %}", "DesiredCount": "{% $wanted %}" }),
        json!({}),
        next,
    );
}
