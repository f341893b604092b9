//! Hosts for containers, where containers want hosts of the environment's own.
//!
//! None is protected from going: nobody would take the protection away when the stack goes, and its deletion would wait for ever
//! for hosts that stay. What runs on a host that must go is moved first (`ManagedDraining`).
//! Source: <https://github.com/aws/containers-roadmap/issues/2862>

use serde_json::json;

use super::{Scope, providers};
use crate::synth::{
    policy::{Grant, Role, grant, log_in},
    size::Architecture,
    template::{Resource, Template, att, re, sub},
};

/// Hosts for containers, as many as the containers need.
pub(super) fn add(template: &mut Template, scope: &Scope<'_>, types: &[String], architecture: Architecture) {
    let path = match architecture {
        Architecture::Arm64 => "arm64/",
        Architecture::X86_64 => "",
    };
    let image = json!({
        "Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        "Default": format!("/aws/service/ecs/optimized-ami/amazon-linux-2023/{path}recommended/image_id"),
        "Description": "The image of hosts for containers",
    });
    template.parameter("HostImage", image);
    let role = Role::of_silent_service(
        "CapacityRole",
        "Hosts for containers: answer to ECS.",
        "ec2.amazonaws.com",
    )
    .path("host/")
    .grants(agent())
    .resource(scope.platform(), scope.shared("Boundary"))
    .skip(
        "CKV_AWS_111",
        "ECS's agent and Session Manager learn the names of resources only when they call.",
    );
    template.add(role);
    let profile = json!({ "Path": format!("/{}/host/", scope.platform()), "Roles": [re("CapacityRole")] });
    template.add(Resource::new(
        "CapacityProfile",
        "AWS::IAM::InstanceProfile",
        "Gives hosts their role.",
        profile,
    ));
    let script = "#!/bin/bash\n\
        printf 'ECS_CLUSTER=%s\\nECS_AWSVPC_BLOCK_IMDS=true\\nECS_ENABLE_SPOT_INSTANCE_DRAINING=true\\n' '${Cluster}' >> /etc/ecs/ecs.config\n";
    let data = json!({
        "ImageId": re("HostImage"),
        "InstanceType": types[0],
        "IamInstanceProfile": { "Arn": att("CapacityProfile.Arn") },
        "SecurityGroupIds": [att("HostGroup.GroupId")],
        "Monitoring": { "Enabled": true },
        "EbsOptimized": true,
        "MetadataOptions": { "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1 },
        "BlockDeviceMappings": [{
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "VolumeType": scope.volume(), "VolumeSize": scope.options.disk.unwrap_or(30), "Encrypted": true,
                "KmsKeyId": scope.shared("KeyArn"), "DeleteOnTermination": true,
            },
        }],
        "UserData": { "Fn::Base64": sub(script) },
    });
    let about = "How a host for containers starts.";
    template.add(Resource::new(
        "CapacityLaunch",
        "AWS::EC2::LaunchTemplate",
        about,
        json!({ "LaunchTemplateData": data }),
    ));
    let properties = json!({
        "MinSize": "0",
        // Both halves, and as much again for containers that start anew.
        "MaxSize": scope.spec.scaling.max.saturating_mul(4).to_string(),
        // Said: a group that had it before does not lose it by silence.
        "NewInstancesProtectedFromScaleIn": false,
        "VPCZoneIdentifier": scope.subnets("Private"),
        "CapacityRebalance": scope.options.scaling.spot.is_some(),
        "LaunchTemplate": { "LaunchTemplateId": re("CapacityLaunch"), "Version": att("CapacityLaunch.LatestVersionNumber") },
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}-capacity"), "PropagateAtLaunch": true }],
    });
    template.add(Resource::new(
        "CapacityGroup",
        "AWS::AutoScaling::AutoScalingGroup",
        "Hosts for containers.",
        properties,
    ));
    let properties = json!({ "AutoScalingGroupProvider": {
        "AutoScalingGroupArn": re("CapacityGroup"),
        "ManagedScaling": { "Status": "ENABLED", "TargetCapacity": 100 },
        "ManagedTerminationProtection": "DISABLED",
        "ManagedDraining": "ENABLED",
    } });
    template.add(Resource::new(
        "Capacity",
        "AWS::ECS::CapacityProvider",
        "As many hosts as containers need.",
        properties,
    ));
    providers(
        template,
        json!([re("Capacity")]),
        json!([{ "CapacityProvider": re("Capacity"), "Weight": 1 }]),
    );
}

/// What ECS's agent and Session Manager's do on a host.
fn agent() -> Vec<Grant> {
    vec![
        grant(
            "Join",
            "ECS's agent joins its cluster and says how its containers are; it learns the names of resources only then",
            "ec2:DescribeTags ecs:DeregisterContainerInstance ecs:DiscoverPollEndpoint ecs:Poll ecs:RegisterContainerInstance \
             ecs:StartTelemetrySession ecs:SubmitAttachmentStateChanges ecs:SubmitContainerStateChange ecs:SubmitTaskStateChange \
             ecs:UpdateContainerInstancesState",
            [json!("*")],
        ),
        log_in(),
        grant(
            "Sessions",
            "Shells by Session Manager, on record, instead of SSH; its channels know no single resources",
            "ssm:UpdateInstanceInformation ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel \
             ssmmessages:OpenControlChannel ssmmessages:OpenDataChannel",
            [json!("*")],
        ),
    ]
}
