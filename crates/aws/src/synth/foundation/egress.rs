//! Ways out of the private tier: NAT, and endpoints of services that are reached without it.

use serde_json::{Value, json};

use super::{Scope, named, network::association};
use crate::synth::{
    Error,
    config::{Endpoint, Nat},
    policy::document,
    template::{Resource, Template, att, logical, re, sub},
};

/// What hosts cannot live without: deployments, sessions, secrets, logs.
const NEEDED: [Endpoint; 7] = [
    Endpoint::CodedeployCommandsSecure,
    Endpoint::Codedeploy,
    Endpoint::Ec2messages,
    Endpoint::Logs,
    Endpoint::Secretsmanager,
    Endpoint::Ssm,
    Endpoint::Ssmmessages,
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let network = &scope.options.network;
    if network.nat == Nat::None
        && let Some(missing) = NEEDED.iter().find(|needed| !network.endpoints.contains(needed))
    {
        let why = format!(
            "without NAT, hosts need the endpoint `{}`, which is not in `endpoints`",
            missing.service()
        );
        return Err(Error::config(
            format!("foundations.{}.network.nat", scope.label),
            why,
        ));
    }
    let letters = network.zones.letters();
    match network.nat {
        Nat::PerZone => letters.iter().for_each(|letter| gateway(template, letter)),
        Nat::One => gateway(template, letters[0]),
        Nat::Instance => instance(template, scope, letters),
        Nat::None => {}
    }
    for letter in letters {
        let table = Table {
            id: format!("PrivateRoutes{letter}"),
            name: format!("private-{}", letter.to_lowercase()),
            about: "Routes of one zone's private tier.",
            route: format!("PrivateRoute{letter}"),
        };
        natted(template, network.nat, &table, letter, letters[0]);
        template.add(association("Private", letter, &table.id));
    }
    endpoints(template, scope, letters);
    Ok(())
}

fn gateway(template: &mut Template, letter: &str) {
    let address = json!({ "Domain": "vpc", "Tags": named(&format!("nat-{}", letter.to_lowercase())) });
    let about = "The address that the world sees of hosts.";
    template.add(
        Resource::new(format!("NatAddress{letter}"), "AWS::EC2::EIP", about, address)
            .after("GatewayAttachment"),
    );
    let properties = json!({
        "AllocationId": att(format!("NatAddress{letter}.AllocationId")),
        "SubnetId": re(format!("PublicSubnet{letter}")),
        "Tags": named(&format!("nat-{}", letter.to_lowercase())),
    });
    template.add(Resource::new(
        format!("Nat{letter}"),
        "AWS::EC2::NatGateway",
        "Hosts' way out.",
        properties,
    ));
}

/// A table of routes, and the id of its way out.
pub(super) struct Table {
    pub id: String,
    pub name: String,
    pub about: &'static str,
    pub route: String,
}

/// A table whose way out is NAT: that of the zone `letter`, or of the `first`.
pub(super) fn natted(template: &mut Template, nat: Nat, table: &Table, letter: &str, first: &str) {
    let tags = json!({ "VpcId": re("Vpc"), "Tags": named(&table.name) });
    template.add(Resource::new(
        &table.id,
        "AWS::EC2::RouteTable",
        table.about,
        tags,
    ));
    let mut route = json!({ "RouteTableId": re(&table.id), "DestinationCidrBlock": "0.0.0.0/0" });
    match nat {
        Nat::PerZone => route["NatGatewayId"] = re(format!("Nat{letter}")),
        Nat::One => route["NatGatewayId"] = re(format!("Nat{first}")),
        Nat::Instance => route["InstanceId"] = re("NatInstance"),
        Nat::None => route = Value::Null,
    }
    if !route.is_null() {
        template.add(Resource::new(
            &table.route,
            "AWS::EC2::Route",
            "Out, by NAT.",
            route,
        ));
    }
}

/// A small instance that hides hosts behind its address. It is restarted by EC2 when its hardware fails. Another takes its place
/// when its image or its start changes: it is started while the old one stands, so both have an interface of their own, and
/// address and routes follow the new one.
fn instance(template: &mut Template, scope: &Scope<'_>, letters: &[&str]) {
    let image = json!({
        "Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        "Default": "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64",
        "Description": "The NAT instance's image",
    });
    template.parameter("NatImage", image);
    let local = scope.options.network.local_zones.iter();
    let subnets = letters.iter().map(|letter| format!("PrivateSubnet{letter}"));
    let subnets = subnets.chain(local.map(|zone| logical(&[zone, "Private", "Subnet"])));
    let outposts = scope.options.network.outposts.iter();
    let subnets = subnets.chain(outposts.map(|own| format!("{}PrivateSubnet", own.id())));
    let from: Vec<Value> = subnets
        .map(|subnet| {
            let range = att(format!("{subnet}.CidrBlock"));
            json!({ "IpProtocol": "tcp", "FromPort": 1, "ToPort": 65_535, "CidrIp": range, "Description": "Hosts" })
        })
        .collect();
    let group = json!({
        "GroupDescription": "NAT: from hosts, to the internet",
        "VpcId": re("Vpc"),
        "SecurityGroupIngress": from,
        "SecurityGroupEgress": ports(scope).map(|port| rule_out(port, "What hosts may call")).collect::<Vec<_>>(),
        "Tags": named("nat"),
    });
    template.add(Resource::new(
        "NatGroup",
        "AWS::EC2::SecurityGroup",
        "Who may use the NAT instance, and for what.",
        group,
    ));
    let address = json!({ "Domain": "vpc", "InstanceId": re("NatInstance"), "Tags": named("nat") });
    let about = "The address that the world sees of hosts.";
    template.add(Resource::new("NatAddress", "AWS::EC2::EIP", about, address).after("GatewayAttachment"));
    template.add(launch());
    let properties = json!({
        "LaunchTemplate": { "LaunchTemplateId": re("NatLaunch"), "Version": att("NatLaunch.LatestVersionNumber") },
        "SubnetId": re(format!("PublicSubnet{}", letters[0])),
        "SecurityGroupIds": [att("NatGroup.GroupId")],
        "SourceDestCheck": false,
        "Tags": named("nat"),
    });
    let about = "Translates addresses; takes no connections from outside.";
    let instance = Resource::new("NatInstance", "AWS::EC2::Instance", about, properties)
        .skip(
            "CKV_AWS_8",
            "The disk is encrypted in the launch template, where the rule does not look.",
        )
        .skip(
            "CKV_AWS_79",
            "IMDSv2 is required in the launch template, where the rule does not look.",
        )
        .skip(
            "CKV_AWS_126",
            "Detailed monitoring is on in the launch template, where the rule does not look.",
        )
        .skip("CKV_AWS_135", "T4g is optimised for EBS without asking.");
    template.add(instance);
}

fn launch() -> Resource {
    let script = "#!/bin/bash\n\
        # Packets of hosts leave with this instance's address.\n\
        set -eu\n\
        until dnf install -y nftables; do sleep 5; done\n\
        echo net.ipv4.ip_forward=1 > /etc/sysctl.d/90-nat.conf\n\
        sysctl --system\n\
        cat > /etc/sysconfig/nftables.conf <<'RULES'\n\
        table ip nat {\n  chain out {\n    type nat hook postrouting priority 100;\n    masquerade\n  }\n}\n\
        RULES\n\
        systemctl enable --now nftables\n";
    let data = json!({
        "ImageId": re("NatImage"),
        "InstanceType": "t4g.nano",
        "Monitoring": { "Enabled": true },
        "MetadataOptions": { "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled" },
        "MaintenanceOptions": { "AutoRecovery": "default" },
        "BlockDeviceMappings": [{
            "DeviceName": "/dev/xvda",
            "Ebs": { "Encrypted": true, "KmsKeyId": att("Key.Arn"), "VolumeType": "gp3", "VolumeSize": 8, "DeleteOnTermination": true },
        }],
        "UserData": { "Fn::Base64": script },
    });
    Resource::new(
        "NatLaunch",
        "AWS::EC2::LaunchTemplate",
        "How the NAT instance starts.",
        json!({ "LaunchTemplateData": data }),
    )
}

/// The ports that hosts may call on the internet.
pub(super) fn ports<'s>(scope: &'s Scope<'_>) -> impl Iterator<Item = u16> + 's {
    let more = scope
        .options
        .network
        .egress
        .iter()
        .copied()
        .filter(|port| ![80, 443].contains(port));
    [80, 443].into_iter().chain(more)
}

fn rule_out(port: u16, about: &str) -> Value {
    json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0", "Description": about })
}

fn endpoints(template: &mut Template, scope: &Scope<'_>, letters: &[&str]) {
    let mut tables: Vec<Value> = letters
        .iter()
        .map(|letter| re(format!("PrivateRoutes{letter}")))
        .collect();
    tables.push(re("PublicRoutes"));
    let outposts = scope.options.network.outposts.iter();
    tables.extend(outposts.map(|own| re(format!("{}Routes", own.id()))));
    for (id, service) in [("S3Endpoint", "s3"), ("DynamodbEndpoint", "dynamodb")] {
        let properties = json!({
            "VpcId": re("Vpc"),
            "VpcEndpointType": "Gateway",
            "ServiceName": sub(format!("com.amazonaws.${{AWS::Region}}.{service}")),
            "RouteTableIds": tables,
        });
        template.add(Resource::new(
            id,
            "AWS::EC2::VPCEndpoint",
            "Costs nothing, and saves NAT's price by the byte.",
            properties,
        ));
    }
    let mut wanted = scope.options.network.endpoints.clone();
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        return;
    }
    let group = json!({
        "GroupDescription": "Endpoints: from this network, to nowhere",
        "VpcId": re("Vpc"),
        "SecurityGroupIngress": [{ "IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": att("Vpc.CidrBlock"), "Description": "HTTPS" }],
        "SecurityGroupEgress": [closed()],
        "Tags": named("endpoints"),
    });
    template.add(Resource::new(
        "EndpointGroup",
        "AWS::EC2::SecurityGroup",
        "Who may use the endpoints.",
        group,
    ));
    let subnets: Vec<Value> = letters
        .iter()
        .map(|letter| re(format!("PrivateSubnet{letter}")))
        .collect();
    for endpoint in wanted {
        let id = format!("{}Endpoint", logical(&[endpoint.service()]));
        let own = json!({
            "Effect": "Allow",
            "Principal": "*",
            "Action": "*",
            "Resource": "*",
            "Condition": { "StringEquals": { "aws:PrincipalAccount": re("AWS::AccountId") } },
        });
        let properties = json!({
            "VpcId": re("Vpc"),
            "VpcEndpointType": "Interface",
            "ServiceName": sub(format!("com.amazonaws.${{AWS::Region}}.{}", endpoint.service())),
            "PrivateDnsEnabled": true,
            "SubnetIds": subnets,
            "SecurityGroupIds": [att("EndpointGroup.GroupId")],
            "PolicyDocument": document(vec![own]),
        });
        template.add(Resource::new(
            id,
            "AWS::EC2::VPCEndpoint",
            "A service inside the network, for this account only.",
            properties,
        ));
    }
}

/// A security group without any rule for traffic out gets one for all traffic. This one leads nowhere.
pub(crate) fn closed() -> Value {
    json!({ "IpProtocol": "icmp", "FromPort": 0, "ToPort": 0, "CidrIp": "127.0.0.1/32", "Description": "Nothing goes out" })
}
