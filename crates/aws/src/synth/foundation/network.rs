//! The network: three tiers over the zones, and what leaves a trace of its traffic.

use serde_json::json;

use super::{Scope, named};
use crate::synth::{
    Error,
    cidr::Cidr,
    policy::{Role, grant},
    template::{Resource, Template, att, logical, re, sub},
};

/// A tier's subnets: how much of the network each has, and where the first lies. A third zone, added later, moves nothing.
struct Tier {
    word: &'static str,
    /// Bits more than the network's own.
    bits: u8,
    first: u32,
    about: &'static str,
}

const TIERS: [Tier; 3] = [
    Tier {
        word: "Public",
        bits: 4,
        first: 0,
        about: "Load balancers and ways out; no hosts.",
    },
    Tier {
        word: "Private",
        bits: 3,
        first: 2,
        about: "Hosts: they reach out, nothing reaches in but the load balancer.",
    },
    Tier {
        word: "Isolated",
        bits: 4,
        first: 12,
        about: "Data: no way out and none in, but from hosts.",
    },
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let range = scope.options.network.range(scope.label)?;
    vpc(template, range);
    let letters = scope.options.network.zones.letters();
    for tier in &TIERS {
        for (zone, letter) in letters.iter().enumerate() {
            let bits = range.bits() + tier.bits;
            let part = range.part(bits, tier.first + u32::try_from(zone).unwrap_or(0));
            let part = part.expect("tiers lie inside the network");
            template.add(subnet(tier, zone, letter, part));
        }
        // One value for each zone: CloudFormation changes none that is imported, and a further zone changes none of these.
        for letter in letters {
            let id = format!("{}Subnet{letter}", tier.word);
            template.export(&id, &format!("The subnet of one zone. {}", tier.about), re(&id));
        }
        // Stacks of an earlier version import all of them as one text, and none of today's does.
        let ids: Vec<_> = letters
            .iter()
            .map(|letter| re(format!("{}Subnet{letter}", tier.word)))
            .collect();
        let all = json!({ "Fn::Join": [",", ids] });
        template.export(
            &format!("{}Subnets", tier.word),
            &format!(
                "For stacks of earlier versions: subnets, with commas. {}",
                tier.about
            ),
            all,
        );
    }
    for (n, zone) in scope.options.network.local_zones.iter().enumerate() {
        local(template, range, n, zone);
    }
    carrier(template, scope, range);
    public_routes(template, letters);
    isolated_routes(template, letters);
    flow_logs(template, scope);
    Ok(())
}

/// A Local Zone's subnets, in what the tiers leave of the network: load balancers there, and hosts, which go out by the region's
/// first way.
fn local(template: &mut Template, range: Cidr, n: usize, zone: &str) {
    let n = u32::try_from(n).unwrap_or(0);
    // A sixteenth for the public tiers of four zones, and an eighth for their private ones.
    for (word, bits, first, table, about) in [
        (
            "Public",
            6,
            3 * 4,
            "PublicRoutes",
            "Load balancers of a Local Zone.",
        ),
        ("Private", 5, 10 * 2, "PrivateRoutesA", "Hosts in a Local Zone."),
    ] {
        let part = range.part(range.bits() + bits, first + n);
        let part = part.expect("a foundation has no more Local Zones than fit");
        let id = logical(&[zone, word, "Subnet"]);
        let properties = json!({
            "VpcId": re("Vpc"),
            "CidrBlock": part.to_string(),
            "AvailabilityZone": zone,
            "MapPublicIpOnLaunch": false,
            "Tags": named(&format!("{}-{zone}", word.to_lowercase())),
        });
        let subnet = Resource::new(&id, "AWS::EC2::Subnet", about, properties).skip(
            "W3010",
            "A Local Zone is one by its name, and is in no list of a region's zones.",
        );
        template.add(subnet);
        let routes = json!({ "SubnetId": re(&id), "RouteTableId": re(table) });
        template.add(Resource::new(
            format!("{id}Routes"),
            "AWS::EC2::SubnetRouteTableAssociation",
            "Its routes.",
            routes,
        ));
        template.export(&format!("{id}s"), &format!("The subnet. {about}"), re(&id));
    }
}

/// Wavelength Zones' subnets, in what is left of the network, and their way: the carrier's gateway, by which the carrier's network
/// reaches hosts and hosts the internet.
fn carrier(template: &mut Template, scope: &Scope<'_>, range: Cidr) {
    let zones = &scope.options.network.wavelength_zones;
    let Some(first) = zones.first() else {
        return;
    };
    let id = |zone: &str| logical(&[zone, "Carrier", "Subnet"]);
    for (n, zone) in zones.iter().enumerate() {
        let n = u32::try_from(n).unwrap_or(0);
        // The last sixteenth holds eight: the first four are theirs.
        let part = range.part(range.bits() + 7, 15 * 8 + n);
        let part = part.expect("a foundation has no more Wavelength Zones than fit");
        let about = "Hosts in a Wavelength Zone.";
        let properties = json!({
            "VpcId": re("Vpc"),
            "CidrBlock": part.to_string(),
            "AvailabilityZone": zone,
            "MapPublicIpOnLaunch": false,
            "Tags": named(&format!("carrier-{zone}")),
        });
        let subnet = Resource::new(id(zone), "AWS::EC2::Subnet", about, properties).skip(
            "W3010",
            "A Wavelength Zone is one by its name, and is in no list of a region's zones.",
        );
        template.add(subnet);
        let routes = json!({ "SubnetId": re(id(zone)), "RouteTableId": re("CarrierRoutes") });
        template.add(Resource::new(
            format!("{}Routes", id(zone)),
            "AWS::EC2::SubnetRouteTableAssociation",
            "Its routes.",
            routes,
        ));
        template.export(
            &format!("{}s", id(zone)),
            &format!("The subnet. {about}"),
            re(id(zone)),
        );
    }
    let gateway = json!({ "VpcId": re("Vpc"), "Tags": named("carrier") });
    let about = "The way to the carrier's network, which only a network with a Wavelength Zone has.";
    template
        .add(Resource::new("CarrierGateway", "AWS::EC2::CarrierGateway", about, gateway).after(id(first)));
    let table = json!({ "VpcId": re("Vpc"), "Tags": named("carrier") });
    let about = "Routes of hosts in Wavelength Zones.";
    template.add(Resource::new(
        "CarrierRoutes",
        "AWS::EC2::RouteTable",
        about,
        table,
    ));
    let route = json!({
        "RouteTableId": re("CarrierRoutes"), "DestinationCidrBlock": "0.0.0.0/0", "CarrierGatewayId": re("CarrierGateway"),
    });
    let about = "To the carrier's network and the internet.";
    template.add(Resource::new("CarrierRoute", "AWS::EC2::Route", about, route));
}

fn vpc(template: &mut Template, range: Cidr) {
    let properties = json!({
        "CidrBlock": range.to_string(),
        "EnableDnsHostnames": true,
        "EnableDnsSupport": true,
        "Tags": named("network"),
    });
    template.add(Resource::new("Vpc", "AWS::EC2::VPC", "The network.", properties));
    let tags = json!({ "Tags": named("gateway") });
    template.add(Resource::new(
        "Gateway",
        "AWS::EC2::InternetGateway",
        "The way to the internet.",
        tags,
    ));
    let attached = json!({ "InternetGatewayId": re("Gateway"), "VpcId": re("Vpc") });
    template.add(Resource::new(
        "GatewayAttachment",
        "AWS::EC2::VPCGatewayAttachment",
        "The way, open.",
        attached,
    ));
    template.export("Vpc", "The network", re("Vpc"));
    template.export("VpcCidr", "The network's range", att("Vpc.CidrBlock"));
}

fn subnet(tier: &Tier, zone: usize, letter: &str, part: Cidr) -> Resource {
    let properties = json!({
        "VpcId": re("Vpc"),
        "CidrBlock": part.to_string(),
        "AvailabilityZone": { "Fn::Select": [zone, { "Fn::GetAZs": "" }] },
        "MapPublicIpOnLaunch": false,
        "Tags": named(&format!("{}-{}", tier.word.to_lowercase(), letter.to_lowercase())),
    });
    Resource::new(
        format!("{}Subnet{letter}", tier.word),
        "AWS::EC2::Subnet",
        tier.about,
        properties,
    )
}

fn public_routes(template: &mut Template, letters: &[&str]) {
    let tags = json!({ "VpcId": re("Vpc"), "Tags": named("public") });
    template.add(Resource::new(
        "PublicRoutes",
        "AWS::EC2::RouteTable",
        "Routes of the public tier.",
        tags,
    ));
    let route = json!({ "RouteTableId": re("PublicRoutes"), "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": re("Gateway") });
    let route =
        Resource::new("PublicRoute", "AWS::EC2::Route", "To the internet.", route).after("GatewayAttachment");
    template.add(route);
    for letter in letters {
        template.add(association("Public", letter, "PublicRoutes"));
    }
}

fn isolated_routes(template: &mut Template, letters: &[&str]) {
    let tags = json!({ "VpcId": re("Vpc"), "Tags": named("isolated") });
    let about = "Routes of the isolated tier: there are none, and none may be added.";
    template.add(Resource::new(
        "IsolatedRoutes",
        "AWS::EC2::RouteTable",
        about,
        tags,
    ));
    for letter in letters {
        template.add(association("Isolated", letter, "IsolatedRoutes"));
    }
}

/// A subnet on its route table.
pub(super) fn association(tier: &str, letter: &str, table: &str) -> Resource {
    let properties = json!({ "SubnetId": re(format!("{tier}Subnet{letter}")), "RouteTableId": re(table) });
    Resource::new(
        format!("{tier}Subnet{letter}Routes"),
        "AWS::EC2::SubnetRouteTableAssociation",
        "Its routes.",
        properties,
    )
}

fn flow_logs(template: &mut Template, scope: &Scope<'_>) {
    template.add(scope.log_group("FlowLogGroup", "Who spoke with whom.", "network"));
    let write = grant(
        "WriteFlowLogs",
        "The network's records go into its log group",
        "logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents",
        [att("FlowLogGroup.Arn")],
    );
    let role =
        Role::of_service("FlowLogRole", "Writes flow logs.", "vpc-flow-logs.amazonaws.com").grant(write);
    template.add(role.resource(scope.platform, re("Boundary")));
    let properties = json!({
        "ResourceType": "VPC",
        "ResourceId": re("Vpc"),
        "TrafficType": "ALL",
        "LogDestinationType": "cloud-watch-logs",
        "LogGroupName": re("FlowLogGroup"),
        "DeliverLogsPermissionArn": att("FlowLogRole.Arn"),
        "MaxAggregationInterval": 600,
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}-network") }],
    });
    template.add(Resource::new(
        "FlowLog",
        "AWS::EC2::FlowLog",
        "Every connection leaves a line.",
        properties,
    ));
}
