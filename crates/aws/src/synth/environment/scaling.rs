//! How many hosts: kept at a load, added in steps, changed by the clock.

use serde_json::{Value, json};

use super::{Half, Scope};
use crate::synth::{
    Error,
    config::Schedule,
    template::{Resource, Template, att, listed, re},
};

/// Percent of the processor at which hosts are kept when nothing is said and there may be more than the least.
const CPU: u32 = 60;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>, half: Half) -> Result<(), Error> {
    let options = &scope.options.scaling;
    let (min, max) = (scope.spec.scaling.min, scope.spec.scaling.max);
    let said = options.cpu.is_some() || options.requests.is_some() || options.step.is_some();
    let cpu = options.cpu.or_else(|| (!said).then_some(CPU));
    if let Some(cpu) = cpu {
        percent(scope, "scaling.cpu", cpu)?;
    }
    // Where there are never more than the least, there is nothing to keep at a load: such a policy is refused.
    let grows = max > min;
    if let Some(cpu) = cpu.filter(|_| grows) {
        let metric = json!({ "PredefinedMetricType": "ASGAverageCPUUtilization" });
        template.add(tracking(
            half,
            "ByCpu",
            &format!("Keeps processors at {cpu} %."),
            metric,
            cpu,
        ));
    }
    if let Some(requests) = options.requests.filter(|_| grows) {
        let metric = json!({ "PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": label(scope, half) });
        let about = format!("Keeps hosts at {requests} requests a minute each.");
        // Requests are counted for a target group once a rule leads to it, and no policy asks for them before.
        let policy = tracking(half, "ByRequests", &about, metric, requests.max(1));
        template.add(policy.after("Rule"));
    }
    if let Some(step) = options.step {
        percent(scope, "scaling.step", step)?;
        steps(template, scope, half, step);
    }
    for schedule in &options.schedule {
        template.add(scheduled(scope, half, schedule)?);
    }
    Ok(())
}

fn percent(scope: &Scope<'_>, key: &str, value: u32) -> Result<(), Error> {
    let why = || {
        Error::config(
            scope.at(key),
            format!("{value} is not a percentage from 1 to 100"),
        )
    };
    (1..=100).contains(&value).then_some(()).ok_or_else(why)
}

/// The pair of load balancer and target group, as a metric names it.
pub(super) fn label(scope: &Scope<'_>, half: Half) -> Value {
    let targets = att(format!("{}.TargetGroupFullName", half.id(scope.targets())));
    json!({ "Fn::Join": ["/", [scope.balancer(), targets]] })
}

fn tracking(half: Half, what: &str, about: &str, metric: Value, target: u32) -> Resource {
    let properties = json!({
        "AutoScalingGroupName": re(half.id("Group")),
        "PolicyType": "TargetTrackingScaling",
        "EstimatedInstanceWarmup": 120,
        "TargetTrackingConfiguration": { "PredefinedMetricSpecification": metric, "TargetValue": target },
    });
    Resource::new(
        half.id(what),
        "AWS::AutoScaling::ScalingPolicy",
        about,
        properties,
    )
}

fn steps(template: &mut Template, scope: &Scope<'_>, half: Half, percent: u32) {
    let policy = json!({
        "AutoScalingGroupName": re(half.id("Group")),
        "PolicyType": "StepScaling",
        "AdjustmentType": "ChangeInCapacity",
        "EstimatedInstanceWarmup": 120,
        "MetricAggregationType": "Average",
        "StepAdjustments": [
            { "MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 15, "ScalingAdjustment": 1 },
            { "MetricIntervalLowerBound": 15, "ScalingAdjustment": 2 },
        ],
    });
    let about = "Adds a host, or two when it is much too much.";
    template.add(Resource::new(
        half.id("BySteps"),
        "AWS::AutoScaling::ScalingPolicy",
        about,
        policy,
    ));
    let shrink = json!({
        "AutoScalingGroupName": re(half.id("Group")),
        "PolicyType": "StepScaling",
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "StepAdjustments": [{ "MetricIntervalUpperBound": 0, "ScalingAdjustment": -1 }],
    });
    template.add(Resource::new(
        half.id("ByStepsBack"),
        "AWS::AutoScaling::ScalingPolicy",
        "Takes a host away.",
        shrink,
    ));
    let alarms = [
        ("Busy", "GreaterThanOrEqualToThreshold", percent, 2, "BySteps"),
        ("Idle", "LessThanThreshold", percent / 2, 15, "ByStepsBack"),
    ];
    for (what, operator, threshold, minutes, policy) in alarms {
        let properties = json!({
            "AlarmDescription": format!("{} {}: processors {threshold} %", scope.name, half.word().to_lowercase()),
            "Namespace": "AWS/EC2",
            "MetricName": "CPUUtilization",
            "Dimensions": [{ "Name": "AutoScalingGroupName", "Value": re(half.id("Group")) }],
            "Statistic": "Average",
            "Period": 60,
            "EvaluationPeriods": minutes,
            "ComparisonOperator": operator,
            "Threshold": threshold,
            "TreatMissingData": "notBreaching",
            "AlarmActions": [re(half.id(policy))],
        });
        // A release asks for alarms whose names begin with the new half's: those of its size say nothing about the release.
        template.add(Resource::new(
            format!("{what}{}", half.word()),
            "AWS::CloudWatch::Alarm",
            "Asks for a step.",
            properties,
        ));
    }
}

/// A size by the clock, for the half that runs.
fn scheduled(scope: &Scope<'_>, half: Half, schedule: &Schedule) -> Result<Resource, Error> {
    check(scope, schedule)?;
    let mut properties = json!({
        "AutoScalingGroupName": re(half.id("Group")), "Recurrence": schedule.cron, "TimeZone": "UTC", "MinSize": schedule.min,
    });
    if let Some(max) = schedule.max {
        properties["MaxSize"] = json!(max);
    }
    let id = listed(&half.id("At"), &schedule.cron);
    let about = format!("At `{}` UTC: at least {}.", schedule.cron, schedule.min);
    Ok(Resource::new(id, "AWS::AutoScaling::ScheduledAction", about, properties).when(half.id("IsRunning")))
}

/// Five fields of digits, names and signs. What they mean is for AWS to judge.
pub(super) fn check(scope: &Scope<'_>, schedule: &Schedule) -> Result<(), Error> {
    let field = |field: &str| {
        field.len() <= 60
            && field
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"*,-/?#".contains(&b))
    };
    let fields: Vec<&str> = schedule.cron.split(' ').collect();
    if fields.len() != 5 || !fields.iter().all(|part| !part.is_empty() && field(part)) {
        let why = format!("`{}` is not five fields of cron", schedule.cron.escape_debug());
        return Err(Error::config(scope.at("scaling.schedule"), why));
    }
    if schedule.max.is_some_and(|max| max < schedule.min) {
        return Err(Error::config(
            scope.at("scaling.schedule"),
            "`max` is less than `min`".to_owned(),
        ));
    }
    let most = scope.spec.scaling.max;
    if schedule.max.is_none() && schedule.min > most {
        let why = format!(
            "`min` is {} and `scaling.max` of vend.yaml {most}: say the `max` of that time too",
            schedule.min
        );
        return Err(Error::config(scope.at("scaling.schedule"), why));
    }
    Ok(())
}
