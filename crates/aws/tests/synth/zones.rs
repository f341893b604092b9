//! Zones of `vend.yaml` are CodeDeploy's; Local Zones of `aws.toml` are the foundation's subnets.

use aws::synth::{Config, Priorities, environment, foundation};
use model::spec;
use serde_json::{Value, json};

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
        ("one-at-a-time", "FLEET_PERCENT", 99),
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

#[test]
fn an_environment_in_a_local_zone_stands_there_with_all_of_it() {
    let text = "[foundations.production]\nregion = 'us-west-2'\ndomain = 'a.example.com'\n\
         network = { cidr = '10.3.0.0/16', zones = '3', local_zones = ['us-west-2-lax-1a', 'us-west-2-den-1a'] }\n\
         [apps.shop.environments.live]\ndedicated_balancer = true\nplacement = { local_zone = 'us-west-2-den-1a' }\n";
    let config: Config = toml::from_str(text).unwrap();
    let label = "production".parse().unwrap();
    let network = foundation(&config, &label).unwrap().template;
    let of = |id: &str| network.resource(id).unwrap().properties.clone();
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
    // No two subnets share an address.
    let subnets: Vec<(u32, u32)> = network
        .of("AWS::EC2::Subnet")
        .map(|own| {
            let text = own.properties["CidrBlock"].as_str().unwrap();
            let (first, bits) = text.split_once('/').unwrap();
            let first = u32::from(first.parse::<std::net::Ipv4Addr>().unwrap());
            (first, first + (1 << (32 - bits.parse::<u32>().unwrap())) - 1)
        })
        .collect();
    assert_eq!(subnets.len(), 9 + 4);
    for (n, one) in subnets.iter().enumerate() {
        assert!(
            subnets[..n]
                .iter()
                .all(|other| one.1 < other.0 || other.1 < one.0),
            "{subnets:?}"
        );
    }
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
    let of = |id: &str| stack.template.resource(id).unwrap().properties.clone();
    assert_eq!(of("Balancer")["Subnets"], subnets("Public"));
    assert_eq!(of("BlueGroup")["VPCZoneIdentifier"], subnets("Private"));
    let disk = &of("GreenLaunch")["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"];
    assert_eq!(
        (&disk["VolumeType"], &disk["Encrypted"]),
        (&json!("gp2"), &json!(true))
    );
}
