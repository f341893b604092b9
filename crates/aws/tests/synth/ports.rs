//! Ports of an app's own: what is opened, who is reached by them, and when a release moves their traffic.

use asl::Status;
use aws::synth::{Config, Priorities, all};
use model::spec;
use serde_json::{Value, json};

use crate::{
    keys::made,
    of, template,
    world::{FIRST, LIVE, World, failure, release_of},
};

#[test]
fn a_port_is_a_listener_in_front_of_both_halves_by_their_weights() {
    let own = template("vend-production-shop-production");
    let balancer = of(own, "PortsBalancer");
    assert_eq!(
        (&balancer["Type"], &balancer["Scheme"]),
        (&json!("network"), &json!("internet-facing"))
    );
    assert_eq!(
        balancer["SecurityGroups"],
        json!([{ "Fn::GetAtt": "PortsGroup.GroupId" }])
    );
    for (port, protocol, host_port) in [(15432, "TCP", 5432), (5514, "TCP_UDP", 5514)] {
        let listener = of(own, &format!("Port{port}Listener"));
        assert_eq!(
            (&listener["Port"], &listener["Protocol"]),
            (&json!(port), &json!(protocol))
        );
        let groups = &listener["DefaultActions"][0]["ForwardConfig"]["TargetGroups"];
        for (n, half) in ["Blue", "Green"].into_iter().enumerate() {
            let id = format!("{half}Port{port}Targets");
            assert_eq!(groups[n]["TargetGroupArn"]["Ref"], id.as_str());
            assert_eq!(groups[n]["Weight"]["Ref"], format!("{half}Weight"));
            let targets = of(own, &id);
            assert_eq!(
                (&targets["Port"], &targets["Protocol"]),
                (&json!(host_port), &json!(protocol))
            );
            // How hosts are is asked where their HTTP is.
            assert_eq!(targets["HealthCheckPort"], "8080");
            assert_eq!(targets["HealthCheckPath"], "/health");
            assert_eq!(targets["Matcher"]["HttpCode"], "200-299,302");
            let group = of(own, &format!("{half}Group"))["TargetGroupARNs"].to_string();
            assert!(group.contains(&id), "{group}");
        }
    }
    let dev = template("vend-integration-shop-dev");
    let taken_out = of(dev, "BlueDeployments")["LoadBalancerInfo"].to_string();
    assert!(taken_out.contains("BluePort8883Targets"), "{taken_out}");
}

/// Every rule as `protocol port from`.
fn rules(group: &Value) -> Vec<String> {
    let from = |rule: &Value| match rule["CidrIp"].as_str() {
        Some(range) => range.to_owned(),
        None => rule["SourceSecurityGroupId"]["Fn::GetAtt"]
            .as_str()
            .unwrap_or("shared")
            .to_owned(),
    };
    let all = group["SecurityGroupIngress"].as_array().unwrap().iter();
    all.map(|rule| {
        assert_eq!(rule["FromPort"], rule["ToPort"]);
        format!(
            "{} {} {}",
            rule["IpProtocol"].as_str().unwrap(),
            rule["FromPort"],
            from(rule)
        )
    })
    .collect()
}

#[test]
fn only_declared_ports_are_open() {
    let own = template("vend-production-shop-production");
    let world = |all: &[&str]| {
        all.iter()
            .map(|own| format!("{own} 0.0.0.0/0"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rules(&of(own, "PortsGroup")),
        world(&["tcp 5514", "udp 5514", "tcp 15432"])
    );
    let hosts =
        ["tcp 5432", "tcp 5514", "tcp 8080", "udp 5514"].map(|own| format!("{own} PortsGroup.GroupId"));
    assert_eq!(
        rules(&of(own, "HostGroup")),
        ["tcp 8080 shared".to_owned()]
            .into_iter()
            .chain(hosts)
            .collect::<Vec<_>>()
    );
    for id in [
        "PortsToTcp5432",
        "PortsToTcp5514",
        "PortsToTcp8080",
        "PortsToUdp5514",
    ] {
        assert_eq!(
            of(own, id)["DestinationSecurityGroupId"]["Fn::GetAtt"],
            "HostGroup.GroupId",
            "{id}"
        );
    }
    let wave = template("wave-vend-production-game-production");
    assert_eq!(
        rules(&of(wave, "HostGroup")),
        world(&["tcp 9000", "tcp 27015", "udp 27015"])
    );
    assert!(
        template("vend-integration-shop-docks")
            .resource("PortsGroup")
            .is_none()
    );
}

#[test]
fn a_port_has_a_name_below_each_of_the_environments() {
    let own = template("vend-production-shop-production");
    for (id, name) in [
        ("Port5514UDPRecord", "udp-5514.shop-production.apps.example.com"),
        ("Port5514TCPBareRecord", "tcp-5514.shop.apps.example.com"),
        ("Port15432TCPRecord", "tcp-15432.shop-production.apps.example.com"),
    ] {
        let record = of(own, id);
        assert_eq!((&record["Name"], &record["Type"]), (&json!(name), &json!("A")));
        assert_eq!(
            record["AliasTarget"]["DNSName"]["Fn::GetAtt"],
            "PortsBalancer.DNSName"
        );
    }
    // Where no load balancer stands it is another word for the hosts.
    let wave = template("wave-vend-production-game-production");
    let record = of(wave, "Port27015UDPRecord");
    assert_eq!(record["Name"], "udp-27015.game-production.apps.example.com");
    assert_eq!(
        record["AliasTarget"]["DNSName"],
        "game-production.apps.example.com"
    );
    assert!(wave.resource("PortsBalancer").is_none());
}

#[test]
fn containers_open_their_ports_too() {
    let own = template("vend-integration-shop-boxes");
    let mappings = &of(own, "BlueDefinition")["ContainerDefinitions"][0]["PortMappings"];
    assert_eq!(
        *mappings,
        json!([{ "ContainerPort": 8080, "Protocol": "tcp" }, { "ContainerPort": 5514, "Protocol": "udp" }])
    );
    let led = &of(own, "GreenService")["LoadBalancers"];
    assert_eq!(led[1]["TargetGroupArn"]["Ref"], "GreenPort5514Targets");
    assert_eq!(of(own, "GreenPort5514Targets")["TargetType"], "ip");
}

const BOTH: &str = "listeners: [{ protocol: tcp, port: 5514 }, { protocol: udp, port: 5514 }]";

fn listening() -> spec::App {
    let text =
        format!("app: shop\n{BOTH}\nenvironments:\n  production: {{ scaling: {{ min: 2, max: 4 }} }}\n");
    spec::App::parse(&text, "vend.yaml", &|_| true).unwrap().0
}

/// The load balancer of a port asks for itself, and nothing is sent to hosts that it has not found well.
#[test]
fn a_release_waits_for_the_load_balancer_of_each_port() {
    let mut world = World::new(&FIRST);
    assert!(matches!(
        release_of(&listening(), "", &mut world),
        Status::Succeeded { .. }
    ));
    let looks = world.calls.iter().filter(|call| call.contains("TargetHealth"));
    assert_eq!(looks.count(), 2);
    world.is("BlueWeight", "100");
    let mut world = World::new(&FIRST);
    world.unwell = Some("BluePort5514TargetsArn");
    let said = failure(&release_of(&listening(), "", &mut world));
    assert!(said.contains("0 hosts are well and 1 are not"), "{said}");
    world.is("BlueRuns", "no");
}

#[test]
fn what_no_load_balancer_does_is_refused_by_its_reason() {
    let base = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
        network = { wavelength_zones = ['eu-central-1-wl1-muc-wlz-1'], local_zones = ['eu-central-1-ham-1a'] }\n\
        [sizes.small]\ntypes = ['t3.medium']\n[apps.shop.environments.live]\n";
    let refused = |options: &str, ports: &str| {
        let config: Config = toml::from_str(&format!("{base}{options}\n")).unwrap();
        let yaml = format!("app: shop\nlisteners: [{ports}]\nenvironments: {{ live: {{}} }}\n");
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
        let said = all(&config, &app, &mut Priorities::default())
            .unwrap_err()
            .to_string();
        assert!(said.contains("listeners"), "{said}");
        said
    };
    let one = "{ protocol: udp, port: 5514 }";
    let wave = "placement = { wavelength = 'eu-central-1-wl1-muc-wlz-1' }";
    let two = "{ protocol: udp, port: 5514, host_port: 1 }, { protocol: tcp, port: 5514 }";
    assert!(refused("", two).contains("one listener for both"));
    assert!(refused(wave, "{ protocol: udp, port: 5514, host_port: 514 }").contains("leave `host_port` out"));
    let both = "{ protocol: udp, port: 5514 }, { protocol: tcp, port: 5514 }";
    assert!(refused("runtime = 'fargate'", both).contains("by its number alone"));
    let five: Vec<String> = (6000..6005)
        .map(|port| format!("{{ protocol: tcp, port: {port} }}"))
        .collect();
    assert!(refused("runtime = 'fargate'", &five.join(", ")).contains("and there are 5"));
    let local = "dedicated_balancer = true\nplacement = { local_zone = 'eu-central-1-ham-1a' }";
    assert!(refused(local, one).contains("Local Zone"));
}

/// Seconds between each update of a stack and the one before.
fn pauses(world: &World) -> Vec<i64> {
    let pairs = world.updated.windows(2);
    pairs.map(|two| two[1].duration_since(two[0]).as_secs()).collect()
}

/// A Network Load Balancer may send visitors to a half for ten minutes after its traffic was taken.
#[test]
fn a_half_stops_when_the_load_balancer_of_its_ports_has_followed() {
    let plain = crate::app("{ min: 2, max: 4 }");
    for (app, follows) in [(&listening(), true), (&plain, false)] {
        let waits = |pauses: &[i64]| pauses.iter().filter(|pause| **pause >= 600).count();
        // It is brought back: weights, and then the half.
        let mut world = World::new(&LIVE);
        world.alarm_after = Some(0);
        let said = failure(&release_of(app, "strategy = 'canary'", &mut world));
        assert!(said.contains("Vend.Alarm"), "{said}");
        let all = pauses(&world);
        // The watched step before it takes ten minutes anyway.
        assert_eq!(all.last().unwrap() >= &600, follows, "{all:?}");
        // A half that was left with traffic stops before it gets the release.
        let mut world = World::new(&LIVE);
        for (key, value) in [("GreenRuns", "yes"), ("GreenWeight", "30"), ("BlueWeight", "70")] {
            world.parameters.insert(key.into(), value.into());
        }
        world.deployment = "Failed";
        failure(&release_of(app, "", &mut world));
        let all = pauses(&world);
        assert_eq!(all[0] >= 600, follows, "{all:?}");
        assert_eq!(waits(&all), if follows { 2 } else { 0 }, "{all:?}");
        let waits = machine(app).matches("follow new weights").count();
        assert_eq!(waits, if follows { 3 } else { 0 });
    }
}

/// The flow of an environment whose releases are tested.
fn machine(app: &spec::App) -> String {
    let config = crate::config("tests");
    let targets = ["production".parse().unwrap()];
    let own = aws::synth::machine(&config, app, &app.environments[0], &targets).unwrap();
    own.to_string()
}

#[test]
fn what_is_otherwise_is_said() {
    let notes = |yaml: &str| made(yaml).unwrap().1.join("\n");
    let usual = notes("listeners: [{ protocol: udp, port: 5514 }]");
    assert!(!usual.contains("`listeners`"), "{usual}");
    for (yaml, part) in [
        (
            "listeners: [{ protocol: udp, port: 5514, idle: 60s }]",
            "`idle` is 120 s",
        ),
        (
            "listeners: [{ protocol: tcp, port: 5514, name: hosts }]",
            "leads to the load balancer",
        ),
        (
            "deploy: { keep_old: 1m }\nlisteners: [{ protocol: tcp, port: 5514 }]",
            "only after 10 minutes",
        ),
        (
            "host: { traffic: { protocol: grpc } }\nlisteners: [{ protocol: tcp, port: 5514 }]",
            "asks nobody by gRPC",
        ),
    ] {
        let notes = notes(yaml);
        assert!(notes.contains(part), "{notes}");
    }
}
