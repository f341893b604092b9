//! Hosts: how they start, and the groups that keep their number.

use model::spec::MinimumHealthy;
use serde_json::{Value, json};

use super::{Half, Scope, boot, ports, scaling};
use crate::synth::{
    Error,
    pipeline::LEAD_S,
    size::{self, Architecture},
    template::{Resource, Template, att, re, sub},
};

/// Seconds that a host takes until its app begins: it starts, and CodeDeploy puts the revision on it.
const START_S: i64 = 210;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let (types, architecture) = size::types(&scope.spec.host.size, &scope.config.sizes)?;
    base(template, architecture);
    for half in scope.halves() {
        let script = boot::script(scope, *half)?;
        template.condition(
            half.id("IsBaked"),
            json!({ "Fn::Not": [{ "Fn::Equals": [re(half.id("Image")), ""] }] }),
        );
        template.add(launch(scope, *half, &types, &script));
        template.add(group(scope, *half, &types));
        template.output(
            &half.id("GroupName"),
            "The group of hosts, for flows",
            re(half.id("Group")),
        );
        template.add(hook(scope, *half));
        if let Some(warm) = scope.options.scaling.warm {
            template.add(warm_pool(*half, scope.spec.scaling.min, warm));
        }
        scaling::add(template, scope, *half)?;
    }
    Ok(())
}

/// What hosts would start from if nothing were baked yet.
fn base(template: &mut Template, architecture: Architecture) {
    let image = json!({
        "Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        "Default": format!("/aws/service/debian/release/12/latest/{}", architecture.debian()),
        "Description": "The base image, which stands in until one is baked",
    });
    template.parameter("BaseImage", image);
}

fn launch(scope: &Scope<'_>, half: Half, types: &[String], script: &Value) -> Resource {
    let tags = |kind: &str| {
        json!({
            "ResourceType": kind,
            "Tags": [
                { "Key": "Name", "Value": sub(format!("${{AWS::StackName}}-{}", half.word().to_lowercase())) },
                { "Key": "vend:stack", "Value": re("AWS::StackName") },
            ],
        })
    };
    let mut data = json!({
        "ImageId": { "Fn::If": [half.id("IsBaked"), re(half.id("Image")), re("BaseImage")] },
        "InstanceType": types[0],
        "IamInstanceProfile": { "Arn": att("HostProfile.Arn") },
        "Monitoring": { "Enabled": true },
        "EbsOptimized": true,
        "MetadataOptions": {
            "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "disabled",
        },
        "BlockDeviceMappings": [{
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "VolumeType": scope.volume(), "VolumeSize": scope.options.disk.unwrap_or(20), "Encrypted": true,
                "KmsKeyId": scope.shared("KeyArn"), "DeleteOnTermination": true,
            },
        }],
        "TagSpecifications": [tags("instance"), tags("volume")],
        "UserData": { "Fn::Base64": script },
    });
    match scope.wave() {
        None => data["SecurityGroupIds"] = json!([att("HostGroup.GroupId")]),
        // The carrier's network knows the host by this address, and the host goes out with it.
        Some(_) => {
            data["NetworkInterfaces"] = json!([{
                "DeviceIndex": 0, "AssociateCarrierIpAddress": true, "DeleteOnTermination": true, "Groups": [att("HostGroup.GroupId")],
            }]);
        }
    }
    let about = format!(
        "How a host of the {} half starts: no SSH key, metadata by session only, an encrypted disk.",
        half.word().to_lowercase()
    );
    Resource::new(
        half.id("Launch"),
        "AWS::EC2::LaunchTemplate",
        about,
        json!({ "LaunchTemplateData": data }),
    )
}

fn group(scope: &Scope<'_>, half: Half, types: &[String]) -> Resource {
    let running = |number: u32| json!({ "Fn::If": [half.id("IsRunning"), number.to_string(), "0"] });
    let launch = json!({ "LaunchTemplateId": re(half.id("Launch")), "Version": att(half.id("Launch.LatestVersionNumber")) });
    let options = &scope.options.scaling;
    let mut properties = json!({
        "MinSize": running(scope.spec.scaling.min),
        "MaxSize": running(scope.spec.scaling.max),
        "VPCZoneIdentifier": scope.subnets("Private"),
        "HealthCheckType": judge(scope, half),
        "HealthCheckGracePeriod": grace(scope),
        "CapacityRebalance": options.spot.is_some(),
        "MetricsCollection": [{ "Granularity": "1Minute" }],
        "NotificationConfigurations": [{
            "TopicARN": scope.shared("OperationsTopic"),
            "NotificationTypes": ["autoscaling:EC2_INSTANCE_LAUNCH_ERROR", "autoscaling:EC2_INSTANCE_TERMINATE_ERROR"],
        }],
        "Tags": [{ "Key": "Name", "Value": sub(format!("${{AWS::StackName}}-{}", half.word().to_lowercase())), "PropagateAtLaunch": true }],
    });
    if scope.wave().is_none() {
        let own = [half.id(scope.targets())]
            .into_iter()
            .chain(ports::groups(scope, half));
        properties["TargetGroupARNs"] = own.map(re).collect();
    }
    match options.warm.is_some() || scope.outpost().is_some() {
        true => properties["LaunchTemplate"] = launch,
        false => properties["MixedInstancesPolicy"] = mixed(launch, types, options.spot),
    }
    let about = format!(
        "The hosts of the {} half. A release decides whether there are any; scaling decides how many.",
        half.word().to_lowercase()
    );
    Resource::new(
        half.id("Group"),
        "AWS::AutoScaling::AutoScalingGroup",
        about,
        properties,
    )
    .policy("UpdatePolicy", update(scope, half))
}

/// Who says that a host is ill. The load balancer looks at the hosts of a half from their start, and finds nobody there until
/// their revision is deployed: while a half has no traffic only EC2 is asked, else Auto Scaling would replace its hosts
/// during a migration or a deployment.
fn judge(scope: &Scope<'_>, half: Half) -> Value {
    match (scope.wave(), scope.halves().len()) {
        (Some(_), _) => json!("EC2"),
        (None, 1) => json!("ELB"),
        _ => json!({ "Fn::If": [half.id("IsServing"), "ELB", "EC2"] }),
    }
}

/// Seconds from the start of a host for which the load balancer is not believed. What is changed in place has no weight to
/// go by: there the first release has its migration, and then each host in its turn, before the last host answers.
fn grace(scope: &Scope<'_>) -> i64 {
    if scope.halves().len() > 1 {
        return START_S + scope.within();
    }
    let migrate = scope.deploy.migrate.as_ref();
    let migrate = migrate.map_or(0, |migrate| migrate.timeout.as_secs().max(1) + LEAD_S);
    let turns = i64::from(scope.spec.scaling.min.max(1));
    migrate + (START_S + scope.within()) * turns
}

/// Several types, so that a host is to be had when the first is not; beyond the first hosts on the spot market, if asked.
fn mixed(launch: Value, types: &[String], spot: Option<u32>) -> Value {
    let overrides: Vec<Value> = types.iter().map(|name| json!({ "InstanceType": name })).collect();
    json!({
        "InstancesDistribution": {
            "OnDemandAllocationStrategy": "prioritized",
            "OnDemandBaseCapacity": spot.unwrap_or(0),
            "OnDemandPercentageAboveBaseCapacity": if spot.is_some() { 0 } else { 100 },
            "SpotAllocationStrategy": "price-capacity-optimized",
        },
        "LaunchTemplate": { "LaunchTemplateSpecification": launch, "Overrides": overrides },
    })
}

/// Sizes that scaling has changed stay. In place a new image replaces hosts a few at a time. A half that does not run has nothing
/// to replace, and may have no such policy: CloudFormation takes none whose least is not below the group's most, which is 0.
/// Where there are two halves nothing replaces hosts that serve: the next release starts those of the other half as hosts start
/// by then.
/// Source: "UpdatePolicy attribute" of the CloudFormation guide, MinInstancesInService; "Condition functions", Fn::If.
fn update(scope: &Scope<'_>, half: Half) -> Value {
    let sizes = json!({ "IgnoreUnmodifiedGroupSizeProperties": true });
    if scope.halves().len() > 1 {
        return json!({ "AutoScalingScheduledAction": sizes });
    }
    let (min, max) = (scope.spec.scaling.min, scope.spec.scaling.max);
    // At least one host must be replaceable, and a group that runs keeps what deployments keep.
    let kept = match scope.spec.deploy.minimum_healthy {
        MinimumHealthy::AllAtOnce => 0,
        MinimumHealthy::OneAtATime => min.saturating_sub(1),
        MinimumHealthy::HalfAtATime => min / 2,
        MinimumHealthy::Percent(percent) => (min * percent.min(100)).div_ceil(100),
        MinimumHealthy::Count(count) => count,
    };
    let rolling = json!({
        "MaxBatchSize": (min / 2).max(1),
        "MinInstancesInService": kept.min(max.saturating_sub(1)),
        "PauseTime": "PT2M",
        "SuspendProcesses": ["AZRebalance", "AlarmNotification", "ScheduledActions"],
    });
    json!({
        "AutoScalingRollingUpdate": { "Fn::If": [half.id("IsRunning"), rolling, re("AWS::NoValue")] },
        "AutoScalingScheduledAction": sizes,
    })
}

/// A host that must go finishes what it does.
fn hook(scope: &Scope<'_>, half: Half) -> Resource {
    let properties = json!({
        "AutoScalingGroupName": re(half.id("Group")),
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "HeartbeatTimeout": scope.drain().clamp(30, 7_200),
        "DefaultResult": "CONTINUE",
    });
    let about = "A host that goes gets no new requests, and time to finish the old ones.";
    Resource::new(
        half.id("Drain"),
        "AWS::AutoScaling::LifecycleHook",
        about,
        properties,
    )
}

/// Without a bound of its own a pool holds all that the group may still become.
fn warm_pool(half: Half, min: u32, warm: u32) -> Resource {
    let running = |number: u32| json!({ "Fn::If": [half.id("IsRunning"), number, 0] });
    let properties = json!({
        "AutoScalingGroupName": re(half.id("Group")),
        "MinSize": running(warm),
        "MaxGroupPreparedCapacity": running(min.saturating_add(warm)),
        "PoolState": "Stopped",
        "InstanceReusePolicy": { "ReuseOnScaleIn": false },
    });
    let about = "Hosts that have started once and cost only their disk until they are needed.";
    Resource::new(
        half.id("WarmPool"),
        "AWS::AutoScaling::WarmPool",
        about,
        properties,
    )
}
