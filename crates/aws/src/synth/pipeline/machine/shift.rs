//! The traffic of one target: it moves to the new half, or back to the old one, and the half without it stops.

use model::{AlarmName, spec::Strategy, stage};
use serde_json::{Value, json};

use super::{
    Whole,
    target::{ALL_TO_OLD, NEW_STOPS, Target},
};

/// The traffic moves: at once, or in steps between which no alarm of the new half may ring.
pub(super) fn add(target: &mut Target, whole: &Whole<'_>) {
    let steps = stage::shares(&whole.deploy);
    let pause = whole
        .deploy
        .steps
        .as_ref()
        .map_or(0, |steps| steps.interval.as_secs().max(1));
    let weights: Vec<u32> = steps.into_iter().chain([100]).collect();
    let times = weights.len();
    let weights = json!(weights);
    // Without an old half there is nobody to share with.
    let weights = format!("{{% $lookup($before, $old & 'Runs') = 'yes' ? {weights} : [100] %}}");
    target.pass(
        "Weights",
        json!({ "weights": weights, "step": 0, "spent": 0 }),
        "Weight",
    );
    target.pass("Weight", json!({ "weight": "{% $weights[$step] %}" }), "Shift");
    target.update_in(
        times,
        "Shift",
        "{ ($new & 'Weight'): $string($weight), ($old & 'Weight'): $string(100 - $weight) }",
        "Shifted",
    );
    if pause == 0 {
        target.add("Shifted", json!({ "Type": "Pass", "Next": "Released" }));
        return;
    }
    target.choice("Shifted", &[("$weight >= 100".to_owned(), "Released")], "Watch");
    target.add(
        "Watch",
        json!({ "Type": "Wait", "Seconds": pause, "Next": "Alarms" }),
    );
    target.task(
        "Alarms",
        "cloudwatch:describeAlarms",
        json!({ "AlarmNamePrefix": "{% $target.stack & '-' & $new %}", "StateValue": "ALARM" }),
        json!({ "ringing": "{% $join([$states.result.MetricAlarms.AlarmName], ', ') %}", "step": "{% $step + 1 %}" }),
        if whole.deploy.alarms.is_some() { "Named" } else { "Quiet" },
    );
    if let Some(alarms) = &whole.deploy.alarms {
        let names: Vec<&str> = alarms.names.iter().map(AlarmName::as_str).collect();
        target.task(
            "Named",
            "cloudwatch:describeAlarms",
            json!({ "AlarmNames": names, "AlarmTypes": ["MetricAlarm", "CompositeAlarm"], "StateValue": "ALARM" }),
            json!({ "ringing": "{% $join([$ringing = '' ? [] : $ringing, $states.result.MetricAlarms.AlarmName, $states.result.CompositeAlarms.AlarmName], ', ') %}" }),
            "Quiet",
        );
    }
    target.choice("Quiet", &[("$ringing = ''".to_owned(), "Weight")], "Loud");
    target.refuse("Loud", "Vend.Alarm", "{% 'an alarm rings: ' & $ringing %}");
}

/// A released target, which `next` is done with; what fails from there on goes to `failed`.
fn entered(whole: &Whole<'_>, next: &str, failed: &str) -> Target {
    let lost = format!("{next}Lost");
    let mut target = Target::new(whole, failed, &lost);
    target.way_back(failed, &lost);
    target.loses(&lost, failed);
    let assign = json!({
        "target": "{% $states.input %}", "old": "{% $states.input.old %}", "new": "{% $states.input.new %}",
    });
    target.pass(&format!("{next}Enter"), assign, next);
    target.add(failed, super::target::failed());
    target
}

fn done() -> Value {
    json!({ "Type": "Succeed", "Output": { "stack": "{% $target.stack %}" } })
}

/// The old half takes the traffic again, if it still runs, and the new one stops: nobody goes back to what was rejected.
pub(super) fn back(whole: &Whole<'_>) -> Value {
    let mut target = entered(whole, "Return", "ReturnFailed");
    target.add("ReturnDone", done());
    if whole.deploy.strategy == Strategy::InPlace {
        target.update("Return", "{}", "ReturnDone");
        return target.processor("ReturnEnter");
    }
    let changes = format!("($lookup($before, $old & 'Runs') = 'yes' ? {ALL_TO_OLD} : {{}})");
    let after = target.settled(whole, "Returned", "Reject");
    target.update("Return", &changes, &after);
    target.way_back("RejectFailed", "RejectLost");
    target.loses("RejectLost", "RejectFailed");
    // Without an old half it still serves.
    let stops = format!("($lookup($before, $new & 'Weight') = '0' ? {NEW_STOPS} : {{}})");
    target.update("Reject", &stops, "ReturnDone");
    let runs = json!({ "stack": "{% $target.stack %}", "runs": "{% $fault %}" });
    target.add("RejectFailed", json!({ "Type": "Succeed", "Output": runs }));
    target.processor("ReturnEnter")
}

/// The old half stops, unless it has the traffic again.
pub(super) fn retire(whole: &Whole<'_>) -> Value {
    let mut target = entered(whole, "Stop", "StopFailed");
    let stops = "($lookup($before, $old & 'Weight') = '0' ? { ($old & 'Runs'): 'no' } : {})";
    target.update("Stop", stops, "StopDone");
    target.add("StopDone", done());
    target.processor("StopEnter")
}
