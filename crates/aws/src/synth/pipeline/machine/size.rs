//! How many hosts or containers the new half has: none of an earlier release when it begins, and as many as the old half
//! before the traffic moves.

use serde_json::{Value, json};

use super::{
    Whole,
    target::{ALL_TO_OLD, Look, NEW_STOPS, Target},
};
use crate::synth::config::{Runtime, Schedule};

/// A group among those of an answer, in JSONata, by the variable with its half.
fn group(half: &str) -> String {
    format!(
        "$states.result.AutoScalingGroups[AutoScalingGroupName = $lookup($outputs, {half} & 'GroupName')]"
    )
}

/// A half that `keep_old` still runs stops first, and with it goes what CodeDeploy remembers of it: a host that starts would
/// else be given the revision that was the last one there, against data that is migrated since.
/// Source: "Integrating CodeDeploy with Amazon EC2 Auto Scaling" of the CodeDeploy guide.
pub(super) fn clear(target: &mut Target, whole: &Whole<'_>, next: &str) {
    let runs = "$lookup($before, $new & 'Runs') = 'yes'".to_owned();
    target.choice("Free", &[(runs, "Divert")], next);
    // It has some where a release was stopped in the middle of its steps.
    match target.settled(whole, "DivertedFollows", "Clear") {
        after if after == "Clear" => target.update("Divert", ALL_TO_OLD, &after),
        follows => {
            target.update("Divert", ALL_TO_OLD, "Diverted");
            // Mostly it has none, and nobody has to follow.
            target.choice("Diverted", &[("$asked".to_owned(), &follows)], "Clear");
        }
    }
    target.update("Clear", NEW_STOPS, "Emptied");
    let drain = whole.deploy.drain.as_secs().max(0);
    let own = whole.options().and_then(|own| own.scaling.drain).map(i64::from);
    let look = Look {
        what: "autoscaling:describeAutoScalingGroups",
        arguments: json!({ "AutoScalingGroupNames": ["{% $lookup($outputs, $new & 'GroupName') %}"] }),
        // Those of the warm pool are counted by themselves.
        assign: json!({
            "left": "{% ($group := $states.result.AutoScalingGroups[0]; \
                $count($group.Instances) + ($exists($group.WarmPoolSize) ? $group.WarmPoolSize : 0)) %}",
        }),
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
    let has_clock = !schedules(whole).is_empty();
    match whole.runtime() {
        Runtime::Host => hosts(target, has_clock, next),
        _ => containers(target, whole, has_clock, next),
    }
    target.choice("Grow", &[("$wanted > $size".to_owned(), "Resize")], next);
}

/// The schedules of the environment, by which a clock changes the bounds of what runs.
pub(super) fn schedules<'w>(whole: &'w Whole<'_>) -> &'w [Schedule] {
    whole.options().map_or(&[], |own| &own.scaling.schedule)
}

/// The larger one of the old half's value, if it runs, and the new one's, in JSONata. A clock that has struck for the old half
/// strikes the next time for one that is there since: until then what the clock has raised is raised there too. What it has
/// lowered is not: hosts that have the release already would go, and nobody could be found well where there may be none.
fn bound(old: &str, new: &str) -> String {
    format!("$max([{new}, $lookup($before, $old & 'Runs') = 'yes' ? {old} : {new}])")
}

/// The new half gets the bounds that the clock raised, `$least` and `$most`, by a call.
fn widen(target: &mut Target, what: &str, arguments: Value) {
    let differs = "$least != $bounds[0] or $most != $bounds[1]".to_owned();
    target.choice("Bounds", &[(differs, "Widen")], "Grow");
    target.task("Widen", what, arguments, json!({}), "Grow");
}

fn hosts(target: &mut Target, has_clock: bool, next: &str) {
    let (old, new) = (group("$old"), group("$new"));
    let names = ["$old", "$new"].map(|half| format!("{{% $lookup($outputs, {half} & 'GroupName') %}}"));
    let most = match has_clock {
        true => bound(&format!("{old}.MaxSize"), &format!("{new}.MaxSize")),
        false => format!("{new}.MaxSize"),
    };
    let wanted = format!("{{% $min([$max([{old}.DesiredCapacity, {new}.DesiredCapacity]), {most}]) %}}");
    let mut assign = json!({ "wanted": wanted, "size": format!("{{% {new}.DesiredCapacity %}}") });
    if has_clock {
        let least = bound(&format!("{old}.MinSize"), &format!("{new}.MinSize"));
        assign["least"] = json!(format!("{{% {least} %}}"));
        assign["most"] = json!(format!("{{% {most} %}}"));
        assign["bounds"] = json!(format!("{{% [{new}.MinSize, {new}.MaxSize] %}}"));
        let arguments = json!({
            "AutoScalingGroupName": names[1], "MinSize": "{% $least %}", "MaxSize": "{% $most %}",
        });
        widen(target, "autoscaling:updateAutoScalingGroup", arguments);
    }
    target.task(
        "Size",
        "autoscaling:describeAutoScalingGroups",
        json!({ "AutoScalingGroupNames": names }),
        assign,
        if has_clock { "Bounds" } else { "Grow" },
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
fn containers(target: &mut Target, whole: &Whole<'_>, has_clock: bool, next: &str) {
    let scaling = &whole.environment.scaling;
    let most = schedules(whole)
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
        if has_clock { "Scales" } else { "Grow" },
    );
    if has_clock {
        let id = |half: &str| format!("'service/' & $target.stack & '/' & $lowercase({half})");
        let of = |half: &str, what: &str| {
            format!(
                "$states.result.ScalableTargets[ResourceId = {}].{what}Capacity",
                id(half)
            )
        };
        let most = bound(&of("$old", "Max"), &of("$new", "Max"));
        let ids = ["$old", "$new"].map(|half| format!("{{% {} %}}", id(half)));
        let dimension = json!({ "ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount" });
        let with = |more: Value| {
            let mut all = dimension.clone();
            for (key, value) in more.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            all
        };
        target.task(
            "Scales",
            "applicationautoscaling:describeScalableTargets",
            with(json!({ "ResourceIds": ids })),
            json!({
                // The clock may have struck for both since the release began.
                "wanted": format!("{{% $min([$wanted, {most}]) %}}"),
                "least": format!("{{% {} %}}", bound(&of("$old", "Min"), &of("$new", "Min"))),
                "most": format!("{{% {most} %}}"),
                "bounds": format!("{{% [{}, {}] %}}", of("$new", "Min"), of("$new", "Max")),
            }),
            "Bounds",
        );
        let arguments = json!({
            "ResourceId": ids[1], "MinCapacity": "{% $least %}", "MaxCapacity": "{% $most %}",
        });
        widen(
            target,
            "applicationautoscaling:registerScalableTarget",
            with(arguments),
        );
    }
    target.task(
        "Resize",
        "ecs:updateService",
        json!({ "Cluster": "{% $target.stack %}", "Service": "{% $lowercase($new) %}", "DesiredCount": "{% $wanted %}" }),
        json!({}),
        next,
    );
}
