//! Containers instead of hosts: a service for each half, on Fargate or on hosts of the environment's own.

mod capacity;

use model::spec::Variable;
use serde_json::{Value, json};

use super::{Half, Scope, access, database, ports, scaling};
use crate::synth::{
    Error,
    config::Runtime,
    policy::{Role, arn, grant, log_in},
    size::{self, Architecture},
    template::{Resource, Template, att, re, sub},
};

/// Processor units and MiB of memory of the size classes, as Fargate sells them.
const SIZES: [(&str, u32, u32); 6] = [
    ("nano", 256, 512),
    ("small", 512, 1_024),
    ("medium", 1_024, 2_048),
    ("large", 2_048, 8_192),
    ("xlarge", 4_096, 16_384),
    ("2xlarge", 8_192, 32_768),
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let size = &scope.spec.host.size;
    let found = SIZES.iter().find(|(name, ..)| name == size);
    let none = || {
        Error::config(
            "host.size",
            format!(
                "`{size}` is no size of a container: there are nano, small, medium, large, xlarge and 2xlarge"
            ),
        )
    };
    let (_, cpu, memory) = *found.ok_or_else(none)?;
    let (types, architecture) = size::types(size, &scope.config.sizes)?;
    let (cpu, memory) = match scope.options.runtime {
        Runtime::Ec2 => on_hosts(cpu, memory, &types[0]),
        _ => (cpu, memory),
    };
    cluster(template, scope);
    execution(template, scope);
    match scope.options.runtime {
        Runtime::Ec2 => capacity::add(template, scope, &types, architecture),
        _ => providers(template, json!(["FARGATE", "FARGATE_SPOT"]), shares(scope)),
    }
    for half in scope.halves() {
        template.add(definition(scope, *half, cpu, memory, architecture));
        template.add(service(scope, *half));
        scale(template, scope, *half)?;
    }
    Ok(())
}

/// What a container of a size class gets on a host of its own: no more than there is room for on that host, or it would wait for
/// one for ever. Of families whose sizes say nothing about their memory it is believed that they have what the class has.
fn on_hosts(cpu: u32, memory: u32, host: &str) -> (u32, u32) {
    let (processors, room) = size::room(host).unwrap_or((cpu, size::left(memory)));
    (cpu.min(processors), memory.min(room))
}

fn cluster(template: &mut Template, scope: &Scope<'_>) {
    let properties = json!({
        "ClusterName": re("AWS::StackName"),
        "ClusterSettings": [{ "Name": "containerInsights", "Value": "enabled" }],
        "Configuration": { "ExecuteCommandConfiguration": {
            "KmsKeyId": scope.shared("KeyArn"),
            "Logging": "OVERRIDE",
            "LogConfiguration": { "CloudWatchLogGroupName": re("LogGroup"), "CloudWatchEncryptionEnabled": true },
        } },
    });
    template.add(Resource::new(
        "Cluster",
        "AWS::ECS::Cluster",
        "Where the containers run; shells in them leave a record.",
        properties,
    ));
}

/// What ECS itself does for a task before it runs.
fn execution(template: &mut Template, scope: &Scope<'_>) {
    let account = scope
        .source()
        .map_or("${AWS::AccountId}", |account| account.as_str());
    let repository = sub(format!(
        "arn:${{AWS::Partition}}:ecr:${{AWS::Region}}:{account}:repository/{}/{}",
        scope.platform(),
        scope.app
    ));
    let role = Role::of_service(
        "StartRole",
        "ECS: fetches the image and the secrets, opens the log.",
        "ecs-tasks.amazonaws.com",
    )
    .path("host/")
    .grant(log_in())
    .grant(grant(
        "Pull",
        "The app's image",
        "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetDownloadUrlForLayer",
        [repository],
    ))
    .grant(grant(
        "Logs",
        "Logs go into this environment's group",
        "logs:CreateLogStream logs:PutLogEvents",
        [arn("logs", &format!("log-group:/{}:*", scope.path()))],
    ))
    .grant(access::secrets(scope))
    .grant(grant(
        "Decrypt",
        "Image and secrets are encrypted",
        "kms:Decrypt",
        access::keys(scope),
    ));
    template.add(role.resource(scope.platform(), scope.shared("Boundary")));
}

fn definition(scope: &Scope<'_>, half: Half, cpu: u32, memory: u32, architecture: Architecture) -> Resource {
    let (plain, secrets) = variables(scope);
    let runtime = match scope.options.runtime {
        Runtime::Fargate => "FARGATE",
        _ => "EC2",
    };
    let http = json!({ "ContainerPort": scope.spec.host.port, "Protocol": "tcp" });
    let opened: Vec<Value> = [http]
        .into_iter()
        .chain(ports::of_containers(scope, half).0)
        .collect();
    let container = json!({
        "Name": "app",
        "Image": re(half.id("Image")),
        "Essential": true,
        "PortMappings": opened,
        "Environment": plain,
        "Secrets": secrets,
        "StopTimeout": scope.drain().clamp(2, 120),
        "LinuxParameters": { "InitProcessEnabled": true },
        "LogConfiguration": { "LogDriver": "awslogs", "Options": {
            "awslogs-group": re("LogGroup"), "awslogs-region": re("AWS::Region"), "awslogs-stream-prefix": half.word().to_lowercase(),
        } },
    });
    let properties = json!({
        "Family": sub(format!("${{AWS::StackName}}-{}", half.word().to_lowercase())),
        "RequiresCompatibilities": [runtime],
        "NetworkMode": "awsvpc",
        "Cpu": cpu.to_string(),
        "Memory": memory.to_string(),
        "RuntimePlatform": {
            "OperatingSystemFamily": "LINUX",
            "CpuArchitecture": architecture.word().to_uppercase(),
        },
        "ExecutionRoleArn": att("StartRole.Arn"),
        "TaskRoleArn": att("HostRole.Arn"),
        "ContainerDefinitions": [container],
    });
    let about = format!(
        "What a container of the {} half is. Without an image there is none.",
        half.word().to_lowercase()
    );
    let definition = Resource::new(
        half.id("Definition"),
        "AWS::ECS::TaskDefinition",
        about,
        properties,
    );
    let odd = |variable: &Variable| matches!(variable, Variable::Plain(text) if text.contains("${"));
    let definition = match scope.spec.host.env.values().any(odd) {
        true => definition.skip(
            "E1029",
            "A variable of the app holds `${`, which is the app's and not CloudFormation's.",
        ),
        false => definition,
    };
    definition
        .skip(
            "CKV_AWS_336",
            "Apps may write beside themselves, as on hosts; the file system goes with the container.",
        )
        .when(half.id("IsRunning"))
}

/// Plain variables, and those that ECS fetches.
fn variables(scope: &Scope<'_>) -> (Vec<Value>, Vec<Value>) {
    let mut plain = vec![json!({ "Name": "PORT", "Value": scope.spec.host.port.to_string() })];
    let mut secrets = Vec::new();
    for (name, variable) in &scope.spec.host.env {
        match variable {
            Variable::Plain(text) => plain.push(json!({ "Name": name, "Value": text })),
            Variable::Secret(own) => {
                let from = arn("secretsmanager", &format!("secret:{}/{own}", scope.secrets()));
                secrets.push(json!({ "Name": name, "ValueFrom": from }));
            }
        }
    }
    if let Some(engine) = scope.engine {
        plain.push(json!({ "Name": "DATABASE_HOST", "Value": sub(database::address(engine)) }));
        plain.push(json!({ "Name": "DATABASE_PORT", "Value": database::port(engine).to_string() }));
        plain.push(json!({ "Name": "DATABASE_NAME", "Value": database::name(scope) }));
        let secret = database::SECRET.replace("{}", database::id(engine));
        for (name, key) in [("DATABASE_USER", "username"), ("DATABASE_PASSWORD", "password")] {
            secrets.push(json!({ "Name": name, "ValueFrom": sub(format!("{secret}:{key}::")) }));
        }
    }
    (plain, secrets)
}

fn service(scope: &Scope<'_>, half: Half) -> Resource {
    let http = json!({
        "ContainerName": "app", "ContainerPort": scope.spec.host.port, "TargetGroupArn": re(half.id(scope.targets())),
    });
    let targets: Vec<Value> = [http]
        .into_iter()
        .chain(ports::of_containers(scope, half).1)
        .collect();
    let mut properties = json!({
        "ServiceName": half.word().to_lowercase(),
        "Cluster": re("Cluster"),
        "TaskDefinition": re(half.id("Definition")),
        "DeploymentConfiguration": {
            "MinimumHealthyPercent": 100,
            "MaximumPercent": 200,
            "DeploymentCircuitBreaker": { "Enable": true, "Rollback": true },
        },
        "EnableECSManagedTags": true,
        "EnableExecuteCommand": true,
        "HealthCheckGracePeriodSeconds": scope.within(),
        "LoadBalancers": targets,
        "NetworkConfiguration": { "AwsvpcConfiguration": {
            "AssignPublicIp": "DISABLED",
            "SecurityGroups": [att("HostGroup.GroupId")],
            "Subnets": scope.subnets("Private"),
        } },
        "PropagateTags": "SERVICE",
    });
    // Where nothing scales there is one number. Where something does, a change of the stack would bring a busy service to its
    // least: whoever releases asks for as many as there were.
    if !scales(scope) {
        properties["DesiredCount"] = json!(scope.spec.scaling.min);
    }
    if scope.options.runtime == Runtime::Fargate {
        properties["PlatformVersion"] = json!("LATEST");
        // ECS takes other shares with new containers only.
        let nonce = scope.options.scaling.spot;
        let nonce = nonce.map_or_else(|| "on-demand".to_owned(), |base| format!("spot-{base}"));
        properties["ForceNewDeployment"] =
            json!({ "EnableForceNewDeployment": true, "ForceNewDeploymentNonce": nonce });
    }
    properties["CapacityProviderStrategy"] = shares(scope);
    let about = format!(
        "The containers of the {} half. A release decides whether there are any.",
        half.word().to_lowercase()
    );
    // A target group takes targets once a rule leads to it.
    let service = Resource::new(half.id("Service"), "AWS::ECS::Service", about, properties).after("Rule");
    let doors = ports::doors(scope.spec);
    let service = doors
        .iter()
        .fold(service, |service, door| service.after(door.id("Listener")));
    service.after("Providers").when(half.id("IsRunning"))
}

/// May there be more than the least?
fn scales(scope: &Scope<'_>) -> bool {
    scope.spec.scaling.max > scope.spec.scaling.min || !scope.options.scaling.schedule.is_empty()
}

/// Where containers find room, and in which shares. Also where there is one place only: a service that was begun with a launch
/// type instead, or goes back to one, is another service, and CloudFormation makes none whose name is taken.
/// Source: the registry's schema of `AWS::ECS::Service`, conditionalCreateOnlyProperties.
fn shares(scope: &Scope<'_>) -> Value {
    match (scope.options.runtime, scope.options.scaling.spot) {
        (Runtime::Fargate, None) => json!([{ "CapacityProvider": "FARGATE", "Weight": 1 }]),
        (Runtime::Fargate, Some(base)) => json!([
            { "CapacityProvider": "FARGATE", "Base": base, "Weight": 0 },
            { "CapacityProvider": "FARGATE_SPOT", "Weight": 1 },
        ]),
        _ => json!([{ "CapacityProvider": re("Capacity"), "Weight": 1 }]),
    }
}

fn scale(template: &mut Template, scope: &Scope<'_>, half: Half) -> Result<(), Error> {
    let (min, max) = (scope.spec.scaling.min, scope.spec.scaling.max);
    let options = &scope.options.scaling;
    for schedule in &options.schedule {
        scaling::check(scope, schedule)?;
    }
    let schedules: Vec<Value> = options
        .schedule
        .iter()
        .enumerate()
        .map(|(index, schedule)| {
            json!({
                "ScheduledActionName": format!("at-{index}"),
                "Schedule": cron(&schedule.cron),
                "Timezone": "UTC",
                "ScalableTargetAction": { "MinCapacity": schedule.min, "MaxCapacity": schedule.max.unwrap_or(max) },
            })
        })
        .collect();
    let mut properties = json!({
        "ServiceNamespace": "ecs",
        "ScalableDimension": "ecs:service:DesiredCount",
        "ResourceId": sub(format!("service/${{Cluster}}/${{{}.Name}}", half.id("Service"))),
        "MinCapacity": min,
        "MaxCapacity": max,
    });
    if !schedules.is_empty() {
        properties["ScheduledActions"] = json!(schedules);
    }
    let about = "How many containers there may be.";
    let target = Resource::new(
        half.id("Scale"),
        "AWS::ApplicationAutoScaling::ScalableTarget",
        about,
        properties,
    );
    template.add(target.when(half.id("IsRunning")));
    let cpu = options
        .cpu
        .or_else(|| (max > min && options.requests.is_none()).then_some(60));
    if let Some(cpu) = cpu {
        template.add(tracking(half, "ServiceByCpu", of_service(half), cpu));
    }
    if let Some(requests) = options.requests {
        let metric = of_targets(scope, half);
        template.add(tracking(half, "ServiceByRequests", metric, requests.max(1)));
    }
    Ok(())
}

/// AWS's cron has a sixth field, for the year, and wants a `?` where the other of the two days is said.
fn cron(five: &str) -> String {
    let fields: Vec<&str> = five.split(' ').collect();
    let (day, weekday) = match (fields[2], fields[4]) {
        ("*", "*") => ("*".to_owned(), "?".to_owned()),
        ("*", weekday) => ("?".to_owned(), shifted(weekday)),
        (day, _) => (day.to_owned(), "?".to_owned()),
    };
    format!(
        "cron({} {} {day} {} {weekday} *)",
        fields[0], fields[1], fields[3]
    )
}

/// Cron counts the days of a week from Sunday, 0 (or 7); AWS from Sunday, 1. A step after `/` is not a day.
fn shifted(weekdays: &str) -> String {
    let mut step = false;
    let shift = |c: char| {
        let digit = c.to_digit(10).filter(|_| !step);
        step = c == '/' || (step && c.is_ascii_digit());
        digit.map_or(c, |day| char::from_digit(day % 7 + 1, 10).unwrap_or(c))
    };
    weekdays.chars().map(shift).collect()
}

/// How busy the processors of a service's containers are.
fn of_service(half: Half) -> Value {
    json!({
        "Namespace": "AWS/ECS",
        "MetricName": "CPUUtilization",
        "Dimensions": [
            { "Name": "ClusterName", "Value": re("Cluster") },
            { "Name": "ServiceName", "Value": att(format!("{}.Name", half.id("Service"))) },
        ],
        "Statistic": "Average",
        "Unit": "Percent",
    })
}

/// How many requests each of them gets in a minute.
fn of_targets(scope: &Scope<'_>, half: Half) -> Value {
    let targets = att(format!("{}.TargetGroupFullName", half.id(scope.targets())));
    json!({
        "Namespace": "AWS/ApplicationELB",
        "MetricName": "RequestCountPerTarget",
        "Dimensions": [
            { "Name": "LoadBalancer", "Value": scope.balancer() },
            { "Name": "TargetGroup", "Value": targets },
        ],
        "Statistic": "Sum",
    })
}

/// A policy with an id of its own: hosts have another type of policy, and an id that stands keeps its type. The metric is said in
/// full, and not by the name that is predefined for it, as it was below the older id: of two policies of one metric the second is
/// refused, and the new one is made before the old one goes.
/// Source: `PolicyName` of `AWS::ApplicationAutoScaling::ScalingPolicy` in the CloudFormation guide.
fn tracking(half: Half, what: &str, metric: Value, target: u32) -> Resource {
    let properties = json!({
        "PolicyName": sub(format!("${{AWS::StackName}}-{}", half.id(what))),
        "PolicyType": "TargetTrackingScaling",
        "ScalingTargetId": re(half.id("Scale")),
        "TargetTrackingScalingPolicyConfiguration": { "CustomizedMetricSpecification": metric, "TargetValue": target },
    });
    let about = "Keeps the load of each container.";
    Resource::new(
        half.id(what),
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        about,
        properties,
    )
    .when(half.id("IsRunning"))
}

fn providers(template: &mut Template, providers: Value, strategy: Value) {
    let properties = json!({ "Cluster": re("Cluster"), "CapacityProviders": providers, "DefaultCapacityProviderStrategy": strategy });
    let about = "Where the cluster's containers find room.";
    template.add(Resource::new(
        "Providers",
        "AWS::ECS::ClusterCapacityProviderAssociations",
        about,
        properties,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_becomes_what_aws_understands() {
        for (five, expected) in [
            ("0 20 * * 1-5", "cron(0 20 ? * 2-6 *)"),
            ("*/5 * * * *", "cron(*/5 * * * ? *)"),
            ("0 0 1 * *", "cron(0 0 1 * ? *)"),
            ("0 6 * * 0", "cron(0 6 ? * 1 *)"),
            ("0 6 * * 7", "cron(0 6 ? * 1 *)"),
            ("0 6 * * MON-FRI", "cron(0 6 ? * MON-FRI *)"),
        ] {
            assert_eq!(cron(five), expected, "{five}");
        }
    }
}
