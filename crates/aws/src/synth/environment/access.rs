//! Who reaches whom: the load balancer hosts, hosts their data, and nobody else anybody.

use serde_json::{Value, json};

use super::{Scope, carrier, database, ports};
use crate::synth::{
    config::{Endpoint, Nat},
    foundation::closed,
    policy::{Grant, Role, arn, grant},
    template::{Resource, Template, att, re, sub},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    hosts(template, scope);
    if let Some(engine) = scope.engine {
        data(template, scope, database::port(engine));
    }
    role(template, scope);
}

fn tags(name: &str) -> Value {
    json!([{ "Key": "Name", "Value": sub(format!("${{AWS::StackName}}-{name}")) }])
}

fn hosts(template: &mut Template, scope: &Scope<'_>) {
    let port = scope.spec.host.port;
    let out = |port: u16| json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0", "Description": "Packages and services" });
    let more = scope
        .foundation
        .network
        .egress
        .iter()
        .copied()
        .filter(|port| ![80, 443].contains(port));
    let egress: Vec<Value> = [80, 443].into_iter().chain(more).map(out).collect();
    let mut ingress = json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port });
    let (from, about) = match scope.wave() {
        None => {
            ingress["SourceSecurityGroupId"] = scope.security_group();
            ingress["Description"] = json!("The load balancer");
            (
                "Hosts: from the load balancer, on the port of the app",
                "Hosts take connections from the load balancer only, on the app's port; there is no SSH.",
            )
        }
        Some(_) => {
            ingress["CidrIp"] = json!("0.0.0.0/0");
            ingress["Description"] = json!("The network of the carrier");
            (
                "Hosts: from the network of the carrier, on the port of the app",
                "Hosts take connections from the carrier's network, on the app's port and no other; there is no SSH.",
            )
        }
    };
    let ingress: Vec<Value> = [ingress].into_iter().chain(ports::ingress(scope)).collect();
    let about = match scope.spec.listeners.is_empty() {
        true => about.to_owned(),
        false => about.replace("port", "ports"),
    };
    let properties = json!({
        "GroupDescription": from,
        "VpcId": scope.shared("Vpc"),
        "SecurityGroupIngress": ingress,
        "SecurityGroupEgress": egress,
        "Tags": tags("hosts"),
    });
    let group = Resource::new("HostGroup", "AWS::EC2::SecurityGroup", about, properties);
    template.add(match scope.wave() {
        // Who had another load balancer is served by that one for as long as this one, and its certificate, are made.
        None => group.after("Rule"),
        Some(_) => group,
    });
}

fn data(template: &mut Template, scope: &Scope<'_>, port: u16) {
    let properties = json!({
        "GroupDescription": "Data: from the hosts of this environment",
        "VpcId": scope.shared("Vpc"),
        "SecurityGroupIngress": [{
            "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "SourceSecurityGroupId": att("HostGroup.GroupId"),
            "Description": "Hosts of this environment",
        }],
        "SecurityGroupEgress": [closed()],
        "Tags": tags("data"),
    });
    template.add(Resource::new(
        "DataGroup",
        "AWS::EC2::SecurityGroup",
        "Data is reached by this environment's hosts only.",
        properties,
    ));
    let properties = json!({
        "GroupId": att("HostGroup.GroupId"), "IpProtocol": "tcp", "FromPort": port, "ToPort": port,
        "DestinationSecurityGroupId": att("DataGroup.GroupId"), "Description": "The database",
    });
    template.add(Resource::new(
        "HostsToData",
        "AWS::EC2::SecurityGroupEgress",
        "Hosts reach their data.",
        properties,
    ));
}

/// What hosts, or the containers of tasks, may do.
fn role(template: &mut Template, scope: &Scope<'_>) {
    let (service, about) = match scope.is_container() {
        true => (
            "ecs-tasks.amazonaws.com",
            "What the app may do: nothing of AWS but its own logs and a shell on record.",
        ),
        false => (
            "ec2.amazonaws.com",
            "What hosts may do: fetch their revision, read their secrets, write their logs.",
        ),
    };
    let role = match scope.is_container() {
        true => Role::of_service("HostRole", about, service).grants(sessions_of_tasks(scope)),
        false => Role::of_silent_service("HostRole", about, service).grants(host(scope)),
    };
    let role = role
        .path("host/")
        .resource(scope.platform(), scope.shared("Boundary"));
    template.add(match scope.is_container() {
        true => role,
        false => role.skip(
            "CKV_AWS_111",
            "Session Manager's and EC2's message calls know no single resources.",
        ),
    });
    if !scope.is_container() {
        let properties = json!({ "Path": format!("/{}/host/", scope.platform()), "Roles": [re("HostRole")] });
        template.add(Resource::new(
            "HostProfile",
            "AWS::IAM::InstanceProfile",
            "Gives hosts their role.",
            properties,
        ));
    }
}

/// What ECS Exec does in a container, as the task: no shell is opened of which there would be no record.
/// Source: "Monitor Amazon ECS containers with ECS Exec", logging and auditing.
fn sessions_of_tasks(scope: &Scope<'_>) -> Vec<Grant> {
    vec![
        grant(
            "Sessions",
            "A shell in a container, by Session Manager; its channels know no single resources",
            "ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel ssmmessages:OpenControlChannel \
             ssmmessages:OpenDataChannel",
            [json!("*")],
        ),
        grant(
            "SessionsRecord",
            "What is typed and said there goes into this environment's group",
            "logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents",
            [
                arn("logs", &format!("log-group:/{}", scope.path())),
                arn("logs", &format!("log-group:/{}:*", scope.path())),
            ],
        ),
        grant(
            "SessionsRecordIsEncrypted",
            "The session ends unless that group is encrypted; groups are asked for without a name",
            "logs:DescribeLogGroups",
            [json!("*")],
        ),
        grant(
            "SessionsKey",
            "What goes between the container and who sits before it is encrypted with the foundation's key",
            "kms:Decrypt",
            [scope.shared("KeyArn")],
        ),
    ]
}

fn host(scope: &Scope<'_>) -> Vec<Grant> {
    let mut grants = vec![
        grant(
            "FetchRevisions",
            "CodeDeploy's agent fetches this app's revisions",
            "s3:GetObject s3:GetObjectVersion",
            [artifacts(scope, &format!("revision/{}/*", scope.app))],
        ),
        grant(
            "Logs",
            "Logs go into this environment's group",
            "logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents",
            [
                arn("logs", &format!("log-group:/{}", scope.path())),
                arn("logs", &format!("log-group:/{}:*", scope.path())),
            ],
        ),
        grant(
            "Decrypt",
            "Revisions and secrets are encrypted",
            "kms:Decrypt",
            keys(scope),
        ),
        grant(
            "Sessions",
            "Shells and commands by Session Manager, on record, instead of SSH; its channels know no single resources",
            "ec2messages:AcknowledgeMessage ec2messages:DeleteMessage ec2messages:FailMessage ec2messages:GetEndpoint \
             ec2messages:GetMessages ec2messages:SendReply ssm:ListInstanceAssociations ssm:UpdateInstanceInformation \
             ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel ssmmessages:OpenControlChannel \
             ssmmessages:OpenDataChannel",
            [json!("*")],
        ),
    ];
    if scope.engine.is_some() {
        grants.push(grant(
            "FetchData",
            "Data that moves here: this environment's, which no build writes and no other host reads",
            "s3:GetObject s3:GetObjectVersion",
            [artifacts(
                scope,
                &format!("move/{}/{}/*", scope.app, scope.spec.name),
            )],
        ));
    }
    if database::moves(scope) {
        let own = format!("move/{}/{}/*", scope.app, scope.spec.name);
        grants.push(grant(
            "SendData",
            "Data that leaves for where it came from, below a prefix of this environment's own",
            "s3:AbortMultipartUpload s3:PutObject",
            [artifacts(scope, &own)],
        ));
        grants.push(grant(
            "EncryptData",
            "The same is encrypted",
            "kms:GenerateDataKey",
            keys(scope),
        ));
    }
    grants.push(secrets(scope));
    if scope.wave().is_some() {
        grants.extend(carrier::grants(scope));
    }
    if is_by_endpoint(scope) {
        grants.push(grant(
            "CommandsByEndpoint",
            "Through its endpoint, CodeDeploy's agent is known by its role",
            "codedeploy-commands-secure:GetDeploymentSpecification codedeploy-commands-secure:PollHostCommand \
             codedeploy-commands-secure:PutHostCommandAcknowledgement codedeploy-commands-secure:PutHostCommandComplete",
            [json!("*")],
        ));
    }
    grants
}

/// Does CodeDeploy's agent ask for its orders at an endpoint of the network, which only knows whom IAM lets in?
pub(super) fn is_by_endpoint(scope: &Scope<'_>) -> bool {
    let network = &scope.foundation.network;
    network.nat == Nat::None || network.endpoints.contains(&Endpoint::CodedeployCommandsSecure)
}

/// Secrets of this environment, and its database's.
pub(super) fn secrets(scope: &Scope<'_>) -> Grant {
    let mut resources = vec![arn("secretsmanager", &format!("secret:{}/*", scope.secrets()))];
    if scope.engine.is_some() {
        resources.push(database::secret(scope));
    }
    grant(
        "Secrets",
        "The app's variables come from this environment's secrets",
        "secretsmanager:GetSecretValue",
        resources,
    )
}

/// The key here, and that of the account which built, if it is another.
pub(super) fn keys(scope: &Scope<'_>) -> Vec<Value> {
    let mut keys = vec![scope.shared("KeyArn")];
    if let Some(account) = scope.source() {
        keys.push(sub(format!(
            "arn:${{AWS::Partition}}:kms:${{AWS::Region}}:{account}:key/*"
        )));
    }
    keys
}

/// What hosts read of the artifacts, which lie in the foundation that builds.
fn artifacts(scope: &Scope<'_>, path: &str) -> Value {
    let account = scope
        .source()
        .map_or("${AWS::AccountId}", |account| account.as_str());
    let from = scope.foundation.deploys_from.as_ref().unwrap_or(scope.label);
    let platform = scope.platform();
    sub(format!(
        "arn:${{AWS::Partition}}:s3:::{platform}-{from}-artifacts-{account}-${{AWS::Region}}/{path}"
    ))
}
