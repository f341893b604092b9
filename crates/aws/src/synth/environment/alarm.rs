//! What rings: answers of 5xx, connections that nobody took, slowness, unhealthy hosts, lines with ERROR, and databases that come to their end.

use serde_json::{Value, json};

use super::{Half, Scope};
use crate::synth::{
    foundation::{balancers, days},
    template::{Resource, Template, att, re},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    log_group(template, scope);
    let wanted = &scope.options.alarms;
    for half in scope.halves() {
        if scope.wave().is_some() {
            template.add(failing(scope, *half));
            continue;
        }
        let latency = f64::from(wanted.latency) / 1_000.0;
        template.add(of_half(
            scope,
            *half,
            "Errors",
            "HTTPCode_Target_5XX_Count",
            json!({ "Statistic": "Sum" }),
            json!(wanted.errors),
        ));
        template.add(of_half(
            scope,
            *half,
            "Latency",
            "TargetResponseTime",
            json!({ "ExtendedStatistic": "p95" }),
            json!(latency),
        ));
        // An app that is dead answers nothing that could be counted as its error.
        template.add(of_half(
            scope,
            *half,
            "Refused",
            "TargetConnectionErrorCount",
            json!({ "Statistic": "Sum" }),
            json!(wanted.errors),
        ));
        template.add(of_half(
            scope,
            *half,
            "Unhealthy",
            "UnHealthyHostCount",
            json!({ "Statistic": "Minimum" }),
            json!(1),
        ));
    }
    if scope.options.dedicated_balancer && scope.wave().is_none() {
        for alarm in balancers(
            scope.balancer(),
            &scope.name,
            &scope.shared("OperationsTopic"),
            wanted.errors,
        ) {
            template.add(alarm);
        }
    }
    let properties = json!({
        "AlarmDescription": format!("{}: lines with ERROR in the log", scope.name),
        "Namespace": "Vend",
        "MetricName": format!("{}-errors", scope.name),
        "Statistic": "Sum",
        "Period": 300,
        "EvaluationPeriods": 1,
        "Threshold": wanted.log_errors,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [scope.shared("OperationsTopic")],
    });
    template.add(Resource::new(
        "LogErrors",
        "AWS::CloudWatch::Alarm",
        "Too many lines with ERROR.",
        properties,
    ));
    databases(template, scope);
}

/// The alarms of a half that end a deployment. Those of an only half may ring because of what is there already: they would end
/// the deployment that mends it, and the way back too.
pub(super) fn of_deployments(scope: &Scope<'_>) -> &'static [&'static str] {
    match (scope.halves().len(), scope.wave()) {
        (1, _) => &[],
        (_, Some(_)) => &["Failing"],
        (_, None) => &["Errors", "Latency", "Refused"],
    }
}

/// Where no load balancer sees hosts, EC2 does.
fn failing(scope: &Scope<'_>, half: Half) -> Resource {
    let properties = json!({
        "AlarmDescription": format!("{} {}: StatusCheckFailed", scope.name, half.word().to_lowercase()),
        "Namespace": "AWS/EC2",
        "MetricName": "StatusCheckFailed",
        "Dimensions": [{ "Name": "AutoScalingGroupName", "Value": re(half.id("Group")) }],
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": 3,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [scope.shared("OperationsTopic")],
        "OKActions": [scope.shared("OperationsTopic")],
    });
    let about = "A host that EC2 finds broken, for three minutes.";
    Resource::new(half.id("Failing"), "AWS::CloudWatch::Alarm", about, properties)
}

/// What a database's machines run short of: the name in the id, the metric, the bound, and which side of it rings.
const SHORT: [(&str, &str, f64, &str); 2] = [
    ("Cpu", "CPUUtilization", 80.0, "GreaterThanOrEqualToThreshold"),
    ("Memory", "FreeableMemory", 200e6, "LessThanOrEqualToThreshold"),
];

fn databases(template: &mut Template, scope: &Scope<'_>) {
    let machines: Vec<Resource> = template.of("AWS::RDS::DBInstance").cloned().collect();
    for machine in &machines {
        for (what, metric, bound, side) in SHORT {
            template.add(of_database(
                scope,
                &machine.id,
                what,
                (metric, json!(bound), side),
            ));
        }
        // A cluster's storage grows by itself; that of a machine by its own has an end.
        let storage = machine.properties["AllocatedStorage"].as_str();
        if let Some(gib) = storage.and_then(|text| text.parse::<u64>().ok()) {
            let tenth = json!(gib * (1 << 30) / 10);
            let short = ("FreeStorageSpace", tenth, "LessThanOrEqualToThreshold");
            template.add(of_database(scope, &machine.id, "Storage", short));
        }
    }
    if machines.iter().any(|machine| machine.id == "DatabaseSecond") {
        let late = ("AuroraReplicaLag", json!(200), "GreaterThanOrEqualToThreshold");
        template.add(of_database(scope, "DatabaseSecond", "Lag", late));
    }
}

fn of_database(scope: &Scope<'_>, id: &str, what: &str, short: (&str, Value, &str)) -> Resource {
    let (metric, bound, side) = short;
    let mut properties = json!({
        "AlarmDescription": format!("{} {id}: {metric}", scope.name),
        "Namespace": "AWS/RDS",
        "MetricName": metric,
        "Dimensions": [{ "Name": "DBInstanceIdentifier", "Value": re(id) }],
        "Statistic": "Average",
        "Period": 300,
        "EvaluationPeriods": 2,
        "Threshold": bound,
        "ComparisonOperator": side,
        "TreatMissingData": "notBreaching",
        "AlarmActions": [scope.shared("OperationsTopic")],
        "OKActions": [scope.shared("OperationsTopic")],
    });
    // A database that says nothing is dead, or as good as dead: that is told once, by the metric that each has.
    if what == "Cpu" {
        properties["TreatMissingData"] = "missing".into();
        properties["InsufficientDataActions"] = json!([scope.shared("OperationsTopic")]);
    }
    let about = match what {
        "Cpu" => "The database's processor has little left, or it says nothing any more.",
        "Memory" => "The database has less than 200 MB of memory left.",
        "Storage" => "Less than a tenth of the database's first storage is left.",
        _ => "The second machine is more than 200 ms behind.",
    };
    Resource::new(format!("{id}{what}"), "AWS::CloudWatch::Alarm", about, properties)
}

/// An alarm about what the load balancer sees of a half.
fn of_half(
    scope: &Scope<'_>,
    half: Half,
    what: &str,
    metric: &str,
    statistic: Value,
    threshold: Value,
) -> Resource {
    let counted = ["Errors", "Refused"].contains(&what);
    let mut properties = json!({
        "AlarmDescription": format!("{} {}: {metric}", scope.name, half.word().to_lowercase()),
        "Namespace": "AWS/ApplicationELB",
        "MetricName": metric,
        "Dimensions": [
            { "Name": "LoadBalancer", "Value": scope.balancer() },
            { "Name": "TargetGroup", "Value": att(format!("{}.TargetGroupFullName", half.id(scope.targets()))) },
        ],
        "Period": if counted { 300 } else { 60 },
        "EvaluationPeriods": if counted { 1 } else { 5 },
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [scope.shared("OperationsTopic")],
        "OKActions": [scope.shared("OperationsTopic")],
    });
    for (key, value) in statistic.as_object().into_iter().flatten() {
        properties[key] = value.clone();
    }
    let about = match what {
        "Errors" => "Too many answers of 5xx.",
        "Refused" => "Too many connections that no host took.",
        "Latency" => "Too slow for more than one in twenty.",
        _ => "A host that is not well, for five minutes.",
    };
    Resource::new(half.id(what), "AWS::CloudWatch::Alarm", about, properties)
}

fn log_group(template: &mut Template, scope: &Scope<'_>) {
    let properties = json!({
        "LogGroupName": format!("/{}", scope.path()),
        "KmsKeyId": scope.shared("KeyArn"),
        "RetentionInDays": days(scope.foundation.retention.logs),
    });
    template.add(Resource::new(
        "LogGroup",
        "AWS::Logs::LogGroup",
        "What hosts and the app write.",
        properties,
    ));
    let properties = json!({
        "LogGroupName": re("LogGroup"),
        "FilterPattern": "ERROR",
        "MetricTransformations": [{
            "MetricNamespace": "Vend", "MetricName": format!("{}-errors", scope.name), "MetricValue": "1", "DefaultValue": 0,
        }],
    });
    template.add(Resource::new(
        "LogErrorFilter",
        "AWS::Logs::MetricFilter",
        "Counts lines with ERROR.",
        properties,
    ));
}
