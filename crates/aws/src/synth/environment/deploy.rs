//! CodeDeploy: one application, and a deployment group for each half.

use model::spec::MinimumHealthy;
use serde_json::{Value, json};

use super::{Half, Scope, ports};
use crate::synth::template::{Resource, Template, att, re};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let application = json!({ "ApplicationName": re("AWS::StackName"), "ComputePlatform": "Server" });
    let about = "What CodeDeploy calls this environment.";
    template.add(Resource::new(
        "Application",
        "AWS::CodeDeploy::Application",
        about,
        application,
    ));
    let configuration = configuration(template, scope);
    for half in scope.halves() {
        template.add(group(scope, *half, &configuration));
    }
}

/// One of CodeDeploy's own, or one that is made for a number of hosts or a percentage.
fn configuration(template: &mut Template, scope: &Scope<'_>) -> Value {
    let (rule, zones) = (scope.spec.deploy.minimum_healthy, scope.spec.deploy.zones);
    match rule {
        // Those of CodeDeploy know no zones.
        _ if zones.is_some() => {}
        MinimumHealthy::OneAtATime => return json!("CodeDeployDefault.OneAtATime"),
        MinimumHealthy::HalfAtATime => return json!("CodeDeployDefault.HalfAtATime"),
        MinimumHealthy::AllAtOnce => return json!("CodeDeployDefault.AllAtOnce"),
        MinimumHealthy::Percent(_) | MinimumHealthy::Count(_) => {}
    }
    let hosts = scope.spec.scaling.min.max(1);
    let mut properties = json!({ "ComputePlatform": "Server", "MinimumHealthyHosts": least(rule, hosts) });
    if let Some(zones) = zones {
        properties["ZonalConfig"] = json!({
            "FirstZoneMonitorDurationInSeconds": zones.first_monitor.as_secs(),
            "MonitorDurationInSeconds": zones.monitor.as_secs(),
            "MinimumHealthyHostsPerZone": least(zones.minimum_healthy, hosts),
        });
    }
    let about = "How many hosts must stay healthy while others are deployed.";
    template.add(Resource::new(
        "DeploymentPace",
        "AWS::CodeDeploy::DeploymentConfig",
        about,
        properties,
    ));
    re("DeploymentPace")
}

/// The rule for so many hosts. What leaves none of them to be deployed CodeDeploy refuses, except in presets of its own.
fn least(rule: MinimumHealthy, hosts: u32) -> Value {
    let (kind, value) = match rule {
        MinimumHealthy::OneAtATime => ("HOST_COUNT", hosts - 1),
        MinimumHealthy::HalfAtATime if hosts > 1 => ("FLEET_PERCENT", 50),
        MinimumHealthy::HalfAtATime | MinimumHealthy::AllAtOnce => ("HOST_COUNT", 0),
        MinimumHealthy::Percent(percent) => ("FLEET_PERCENT", percent),
        MinimumHealthy::Count(count) => ("HOST_COUNT", count),
    };
    json!({ "Type": kind, "Value": value })
}

fn group(scope: &Scope<'_>, half: Half, configuration: &Value) -> Resource {
    let topic = |name: &str, events: &[&str]| {
        json!({
            "TriggerName": name.to_lowercase(),
            "TriggerTargetArn": scope.shared(&format!("{name}Topic")),
            "TriggerEvents": events,
        })
    };
    let made = super::alarm::of_deployments(scope);
    let made = made.iter().map(|what| json!({ "Name": re(half.id(what)) }));
    // Those that vend.yaml names are somebody's own.
    let own = scope.spec.deploy.alarms.as_ref();
    let named = own.iter().flat_map(|own| &own.names);
    let named = named.map(|name| json!({ "Name": name.as_str() }));
    let alarms: Vec<Value> = made.chain(named).collect();
    let mut rolls_back = vec!["DEPLOYMENT_FAILURE"];
    rolls_back.extend((!alarms.is_empty()).then_some("DEPLOYMENT_STOP_ON_ALARM"));
    let mut properties = json!({
        "ApplicationName": re("Application"),
        "DeploymentGroupName": half.word().to_lowercase(),
        "ServiceRoleArn": scope.shared("DeployRole"),
        "AutoScalingGroups": [re(half.id("Group"))],
        "DeploymentConfigName": configuration,
        "OutdatedInstancesStrategy": "UPDATE",
        "TerminationHookEnabled": true,
        "AutoRollbackConfiguration": { "Enabled": true, "Events": rolls_back },
        "AlarmConfiguration": {
            "Enabled": !alarms.is_empty(),
            "IgnorePollAlarmFailure": own.is_some_and(|own| own.ignore_unknown),
            "Alarms": alarms,
        },
        "TriggerConfigurations": [
            topic("Builds", &["DeploymentStart", "DeploymentSuccess"]),
            topic("Operations", &["DeploymentFailure", "DeploymentStop", "DeploymentRollback"]),
        ],
        "DeploymentStyle": { "DeploymentType": "IN_PLACE", "DeploymentOption": "WITHOUT_TRAFFIC_CONTROL" },
    });
    // Only hosts that serve while they are deployed must be taken out of the traffic: a half that is new gets none yet.
    if scope.halves().len() == 1 && scope.wave().is_none() {
        properties["DeploymentStyle"]["DeploymentOption"] = json!("WITH_TRAFFIC_CONTROL");
        // CodeDeploy takes ten, and there are nine at most.
        let groups = [half.id(scope.targets())]
            .into_iter()
            .chain(ports::groups(scope, half));
        let groups: Vec<Value> = groups
            .map(|id| json!({ "Name": att(format!("{id}.TargetGroupName")) }))
            .collect();
        properties["LoadBalancerInfo"] = json!({ "TargetGroupInfoList": groups });
    }
    let about = format!(
        "Puts revisions on the hosts of the {} half, also on those that scaling adds later.",
        half.word().to_lowercase()
    );
    let group = Resource::new(
        half.id("Deployments"),
        "AWS::CodeDeploy::DeploymentGroup",
        about,
        properties,
    );
    // CodeDeploy puts the last revision of the group on each host that starts. Of a half that comes again that would be the
    // release before the last one, so the group goes with the half's hosts, and what it remembers with it.
    match scope.halves().len() {
        1 => group,
        _ => group.when(half.id("IsRunning")),
    }
}
