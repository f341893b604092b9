//! Outposts: their subnets, in what is left of the network, and the way to the building that they stand in.

use serde_json::json;

use super::{Scope, egress, named};
use crate::synth::{
    Error, Outpost,
    cidr::Cidr,
    template::{Resource, Template, re},
};

/// The tiers of an Outpost: the first of the network's 128 parts that are its, its routes (its own where there are none), and what it is for.
/// Wavelength Zones have those before.
const TIERS: [(&str, u32, Option<&str>, &str); 2] = [
    ("Private", 124, None, "Hosts and load balancers on an Outpost."),
    (
        "Isolated",
        126,
        Some("IsolatedRoutes"),
        "Data on an Outpost: no way out and none in, but from hosts.",
    ),
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let network = &scope.options.network;
    let range = network.range(scope.label)?;
    for (n, own) in network.outposts.iter().enumerate() {
        subnets(template, own, range, u32::try_from(n).unwrap_or(0));
        let letters = network.zones.letters();
        let table = egress::Table {
            id: format!("{}Routes", own.id()),
            name: format!("outpost-{}", own.id().to_lowercase()),
            about: "Routes of hosts on an Outpost: no NAT stands there, so they go out by the region's.",
            route: format!("{}Route", own.id()),
        };
        egress::natted(template, network.nat, &table, letters[0], letters[0]);
        local(template, own);
    }
    joined(template, &network.outposts);
    Ok(())
}

fn subnets(template: &mut Template, own: &Outpost, range: Cidr, n: u32) {
    for (tier, first, routes, about) in TIERS {
        let part = range.part(range.bits() + 7, first + n);
        let part = part.expect("a foundation has no more Outposts than fit");
        let id = format!("{}{tier}Subnet", own.id());
        let properties = json!({
            "VpcId": re("Vpc"),
            "CidrBlock": part.to_string(),
            "AvailabilityZone": own.zone,
            "OutpostArn": own.arn.as_str(),
            "MapPublicIpOnLaunch": false,
            "Tags": named(&format!("{}-{}", tier.to_lowercase(), own.id().to_lowercase())),
        });
        let subnet = Resource::new(&id, "AWS::EC2::Subnet", about, properties).skip(
            "W3010",
            "An Outpost belongs to one zone, which its owner knows by name.",
        );
        template.add(subnet);
        let table = routes.map_or_else(|| format!("{}Routes", own.id()), str::to_owned);
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

/// What stands in the building is reached by the rack's own gateway.
fn local(template: &mut Template, own: &Outpost) {
    for range in &own.local {
        let route = json!({
            "RouteTableId": re(format!("{}Routes", own.id())), "DestinationCidrBlock": range.to_string(), "LocalGatewayId": own.gateway,
        });
        let id = format!("{}To{}", own.id(), range.to_string().replace(['.', '/'], "x"));
        let route = Resource::new(id, "AWS::EC2::Route", "To the building.", route);
        template.add(route.after(join(&own.routes)));
    }
}

/// The network is joined to a gateway's table once, however many Outposts it has.
fn joined(template: &mut Template, outposts: &[Outpost]) {
    let mut tables: Vec<&str> = outposts.iter().map(|own| own.routes.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    for table in tables {
        let properties =
            json!({ "LocalGatewayRouteTableId": table, "VpcId": re("Vpc"), "Tags": named("outposts") });
        template.add(Resource::new(
            join(table),
            "AWS::EC2::LocalGatewayRouteTableVPCAssociation",
            "The network, known to the local gateway.",
            properties,
        ));
    }
}

fn join(table: &str) -> String {
    crate::synth::template::logical(&[table, "Join"])
}
