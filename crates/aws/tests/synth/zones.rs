//! Zones of `vend.yaml` are CodeDeploy's; Local Zones of `aws.toml` are the foundation's subnets.

use aws::synth::{Config, Priorities, Template, environment, foundation};
use model::spec;
use serde_json::{Value, json};

use crate::{of, template};

fn pace(healthy: &str) -> Value {
    let config: Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         [apps.shop.environments.live]\nruntime = 'host'\nstrategy = 'in-place'\n",
    )
    .unwrap();
    let yaml = format!(
        "app: shop\ndeploy: {{ strategy: in-place, minimum_healthy: {healthy}, \
         zones: {{ minimum_healthy: 50%, monitor: 5m, first_monitor: 1h }} }}\n\
         scaling: {{ min: 4 }}\nenvironments:\n  live: {{}}\n"
    );
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let label = "production".parse().unwrap();
    let stack = environment(
        &config,
        &app.app,
        &app.environments[0],
        &label,
        &mut Priorities::default(),
    );
    let template: Value = serde_json::from_str(&stack.unwrap().template.json()).unwrap();
    template["Resources"]["DeploymentPace"]["Properties"].clone()
}

#[test]
fn a_zone_is_watched_and_keeps_its_minimum() {
    let zonal = json!({
        "FirstZoneMonitorDurationInSeconds": 3600,
        "MonitorDurationInSeconds": 300,
        "MinimumHealthyHostsPerZone": { "Type": "FLEET_PERCENT", "Value": 50 },
    });
    for (healthy, kind, value) in [
        ("one-at-a-time", "HOST_COUNT", 3),
        ("half-at-a-time", "FLEET_PERCENT", 50),
        ("all-at-once", "HOST_COUNT", 0),
        ("2", "HOST_COUNT", 2),
    ] {
        let pace = pace(healthy);
        assert_eq!(
            pace["MinimumHealthyHosts"],
            json!({ "Type": kind, "Value": value }),
            "{healthy}"
        );
        assert_eq!(pace["ZonalConfig"], zonal, "{healthy}");
    }
}

/// CodeDeploy refuses such a deployment at once (HEALTH_CONSTRAINTS_INVALID).
#[test]
fn a_minimum_that_leaves_no_host_to_be_deployed_is_refused() {
    let made = |deploy: &str, min: u32, options: &str| {
        let app = crate::deployed(deploy, &format!("{{ min: {min}, max: 20 }}"));
        let label = "production".parse().unwrap();
        let own = &app.environments[0];
        let config = crate::config(options);
        let made = environment(&config, &app.app, own, &label, &mut Priorities::default());
        made.map(drop).map_err(|error| error.to_string())
    };
    let in_place = "strategy = 'in-place'";
    for (rule, min, options, taken) in [
        ("75%", 2, in_place, false),
        ("75%", 2, "", false),
        ("75%", 4, in_place, true),
        ("50%", 1, "", false),
        ("50%", 2, "", true),
        ("2", 2, in_place, false),
        ("1", 2, in_place, true),
        ("99%", 10, "", false),
        ("one-at-a-time", 1, in_place, true),
        ("half-at-a-time", 1, "", true),
        ("75%", 2, "runtime = 'fargate'", true),
    ] {
        let made = made(&format!("{{ minimum_healthy: {rule} }}"), min, options);
        assert_eq!(made.is_ok(), taken, "{rule} of {min}: {made:?}");
        if let Err(why) = made {
            for part in ["deploy.minimum_healthy", "scaling.min", "one-at-a-time"] {
                assert!(why.contains(part), "{part}: {why}");
            }
        }
    }
}

#[test]
fn an_environment_in_a_local_zone_stands_there_with_all_of_it() {
    let text = "[foundations.production]\nregion = 'us-west-2'\ndomain = 'a.example.com'\n\
         network = { cidr = '10.3.0.0/16', zones = '3', local_zones = ['us-west-2-lax-1a', 'us-west-2-den-1a'] }\n\
         [apps.shop.environments.live]\ndedicated_balancer = true\nplacement = { local_zone = 'us-west-2-den-1a' }\n";
    let config: Config = toml::from_str(text).unwrap();
    let label = "production".parse().unwrap();
    let network = foundation(&config, &label).unwrap().template;
    let of = |id: &str| of(&network, id);
    let public = of("UsWest2Den1aPublicSubnet");
    assert_eq!(
        (&public["AvailabilityZone"], &public["CidrBlock"]),
        (&json!("us-west-2-den-1a"), &json!("10.3.52.0/22"))
    );
    assert_eq!(of("UsWest2Lax1aPrivateSubnet")["CidrBlock"], "10.3.160.0/21");
    assert_eq!(
        of("UsWest2Den1aPrivateSubnetRoutes")["RouteTableId"]["Ref"],
        "PrivateRoutesA"
    );
    assert_eq!(
        of("UsWest2Den1aPublicSubnetRoutes")["RouteTableId"]["Ref"],
        "PublicRoutes"
    );
    apart(&network, 9 + 4);
    // Without them the network is as it was, and a third one moves nothing.
    let without: Config =
        toml::from_str(&text.replace(", local_zones = ['us-west-2-lax-1a', 'us-west-2-den-1a']", ""))
            .unwrap();
    let all = network.resources.iter();
    let others: Vec<_> = all
        .filter(|own| !own.id.starts_with("UsWest2"))
        .cloned()
        .collect();
    assert_eq!(others, foundation(&without, &label).unwrap().template.resources);
    // Hosts and their load balancer stand there, on disks that are there.
    let (app, _) =
        spec::App::parse("app: shop\nenvironments:\n  live: {}\n", "vend.yaml", &|_| true).unwrap();
    let stack = environment(
        &config,
        &app.app,
        &app.environments[0],
        &label,
        &mut Priorities::default(),
    )
    .unwrap();
    let subnets = |tier: &str| json!({ "Fn::Split": [",", { "Fn::ImportValue": format!("vend-production-UsWest2Den1a{tier}Subnets") }] });
    let of = |id: &str| crate::of(&stack.template, id);
    assert_eq!(of("Balancer")["Subnets"], subnets("Public"));
    assert_eq!(of("BlueGroup")["VPCZoneIdentifier"], subnets("Private"));
    let disk = &of("GreenLaunch")["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"];
    assert_eq!(
        (&disk["VolumeType"], &disk["Encrypted"]),
        (&json!("gp2"), &json!(true))
    );
}

#[test]
fn an_environment_on_an_outpost_stands_there_with_its_load_balancer_and_its_database() {
    let network = template("rack-vend-production");
    const RACK: &str = "Op0123456789abcdef0";
    for (tier, range, table) in [
        ("Private", "10.3.248.0/23", format!("{RACK}Routes")),
        ("Isolated", "10.3.252.0/23", "IsolatedRoutes".to_owned()),
    ] {
        let subnet = of(network, &format!("{RACK}{tier}Subnet"));
        assert_eq!(
            (&subnet["CidrBlock"], &subnet["AvailabilityZone"]),
            (&json!(range), &json!("eu-central-1b"))
        );
        assert!(
            subnet["OutpostArn"]
                .as_str()
                .unwrap()
                .ends_with("/op-0123456789abcdef0")
        );
        let routes = of(network, &format!("{RACK}{tier}SubnetRoutes"));
        assert_eq!(routes["RouteTableId"]["Ref"], table.as_str());
    }
    // Out by the region's NAT, which takes packets from there, and to the building by the rack's own gateway.
    assert_eq!(
        of(network, &format!("{RACK}Route"))["InstanceId"]["Ref"],
        "NatInstance"
    );
    assert!(
        of(network, "NatGroup")
            .to_string()
            .contains(&format!("{RACK}PrivateSubnet.CidrBlock"))
    );
    for range in ["192x168x0x0x16", "172x20x1x0x24"] {
        let id = format!("{RACK}To{range}");
        assert_eq!(of(network, &id)["LocalGatewayId"], "lgw-0123456789abcdef0");
        let after = network.resource(&id).unwrap().body()["DependsOn"].to_string();
        assert!(after.contains("LgwRtb0123456789abcdef0Join"), "{after}");
    }
    assert!(
        of(network, "S3Endpoint")["RouteTableIds"]
            .to_string()
            .contains(&format!("{RACK}Routes"))
    );
    let own = template("rack-vend-production-press-production");
    let subnets = |tier: &str| json!({ "Fn::Split": [",", { "Fn::ImportValue": format!("vend-production-{RACK}{tier}Subnets") }] });
    let balancer = of(own, "Balancer");
    assert_eq!(
        (&balancer["Subnets"], &balancer["Scheme"]),
        (&subnets("Private"), &json!("internal"))
    );
    let from = of(own, "BalancerGroup")["SecurityGroupIngress"].to_string();
    assert!(
        from.contains("172.20.1.0/24") && !from.contains("0.0.0.0/0"),
        "{from}"
    );
    for half in ["Blue", "Green"] {
        let group = of(own, &format!("{half}Group"));
        assert_eq!(group["VPCZoneIdentifier"], subnets("Private"));
        assert!(group["MixedInstancesPolicy"].is_null() && !group["LaunchTemplate"].is_null());
        let launch = &of(own, &format!("{half}Launch"))["LaunchTemplateData"];
        assert_eq!(launch["InstanceType"], "m5.xlarge");
        assert_eq!(launch["BlockDeviceMappings"][0]["Ebs"]["VolumeType"], "gp2");
    }
    assert_eq!(of(own, "DatabaseSubnets")["SubnetIds"], subnets("Isolated"));
    let database = of(own, "Database");
    for (key, value) in [
        ("DBInstanceClass", json!("db.m5.large")),
        ("StorageType", json!("gp2")),
        ("StorageEncrypted", json!(true)),
        ("MultiAZ", json!(false)),
        ("MaxAllocatedStorage", Value::Null),
        ("EnableCloudwatchLogsExports", Value::Null),
        ("MonitoringInterval", Value::Null),
    ] {
        assert_eq!(database[key], value, "{key}");
    }
    assert!(own.resource("DatabaseMonitoringRole").is_none());
}

#[test]
fn zones_waves_and_racks_share_the_network_and_no_address() {
    let rack = include_str!("cases/rack.toml")
        .split("[[")
        .nth(1)
        .unwrap()
        .split("[sizes")
        .next()
        .unwrap()
        .to_owned();
    let other = rack.replace("abcdef0\"\nzone", "abcdef1\"\nzone");
    let text = format!(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n[foundations.production.network]\ncidr = '10.3.0.0/20'\n\
         zones = '3'\nlocal_zones = ['eu-central-1-ham-1a', 'eu-central-1-waw-1a', 'eu-central-1-a-1a', 'eu-central-1-b-1a']\n\
         wavelength_zones = ['eu-central-1-wl1-ber-wlz-1', 'eu-central-1-wl1-muc-wlz-1', 'eu-central-1-wl1-dtm-wlz-1', 'eu-central-1-wl1-ham-wlz-1']\n\
         [[{rack}[[{other}"
    );
    let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let network = foundation(&config, &"production".parse().unwrap())
        .unwrap()
        .template;
    apart(&network, 9 + 8 + 4 + 4);
    let joins = network.of("AWS::EC2::LocalGatewayRouteTableVPCAssociation");
    assert_eq!(joins.count(), 1, "two racks behind one gateway");
}

/// No two subnets share an address, and there are so many.
fn apart(network: &Template, count: usize) {
    let subnets: Vec<(u32, u32)> = network
        .of("AWS::EC2::Subnet")
        .map(|own| {
            let text = own.properties["CidrBlock"].as_str().unwrap();
            let (first, bits) = text.split_once('/').unwrap();
            let first = u32::from(first.parse::<std::net::Ipv4Addr>().unwrap());
            (first, first + (1 << (32 - bits.parse::<u32>().unwrap())) - 1)
        })
        .collect();
    assert_eq!(subnets.len(), count);
    for (n, one) in subnets.iter().enumerate() {
        assert!(
            subnets[..n]
                .iter()
                .all(|other| one.1 < other.0 || other.1 < one.0),
            "{subnets:?}"
        );
    }
}
