//! How a load balancer on AWS speaks to hosts: what `host.traffic` says, or a refusal by name.

use std::collections::BTreeMap;

use aws::synth::{Config, Priorities, all};
use model::spec;

fn made(yaml: &str) -> Result<BTreeMap<String, String>, String> {
    let config = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n";
    let config: Config = toml::from_str(config).unwrap();
    let text = format!("app: shop\nenvironments: {{ production: {{}} }}\n{yaml}\n");
    let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
    let stacks = all(&config, &app, &mut Priorities::default()).map_err(|error| error.to_string())?;
    let mut told = BTreeMap::new();
    for stack in &stacks.stacks {
        for group in stack
            .template
            .of("AWS::ElasticLoadBalancingV2::TargetGroup")
            .filter(|group| group.id == "BlueTargets")
        {
            let properties = &group.properties;
            for key in ["ProtocolVersion", "HealthCheckPath", "Matcher"] {
                let value = &properties[key];
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                told.insert(key.to_owned(), text);
            }
            for attribute in properties["TargetGroupAttributes"].as_array().unwrap() {
                let text = |key: &str| attribute[key].as_str().unwrap().to_owned();
                told.insert(text("Key"), text("Value"));
            }
        }
    }
    Ok(told)
}

#[test]
fn words_become_attributes() {
    let usual = made("").unwrap();
    assert_eq!(usual["ProtocolVersion"], "HTTP1");
    assert_eq!(usual["load_balancing.algorithm.type"], "round_robin");
    assert!(
        !usual
            .keys()
            .any(|key| key.starts_with("stickiness") || key.starts_with("slow_start"))
    );
    let slow =
        made("host: { traffic: { slow_start: 1m, stickiness: { duration: 1h, cookie: id } } }").unwrap();
    for (key, value) in [
        ("slow_start.duration_seconds", "60"),
        ("stickiness.enabled", "true"),
        ("stickiness.type", "app_cookie"),
        ("stickiness.app_cookie.duration_seconds", "3600"),
        ("stickiness.app_cookie.cookie_name", "id"),
    ] {
        assert_eq!(slow[key], value, "{key}");
    }
    let grpc = made("host: { traffic: { protocol: grpc, algorithm: anomaly-mitigation } }").unwrap();
    for (key, value) in [
        ("ProtocolVersion", "GRPC"),
        ("HealthCheckPath", "/grpc.health.v1.Health/Check"),
        ("Matcher", r#"{"GrpcCode":"0"}"#),
        ("load_balancing.algorithm.type", "weighted_random"),
        ("load_balancing.algorithm.anomaly_mitigation", "on"),
    ] {
        assert_eq!(grpc[key], value, "{key}");
    }
}

#[test]
fn what_cannot_be_there_is_refused_by_name() {
    for (yaml, key) in [
        ("access: { deny: 192.0.2.7 }", "production.access: "),
        ("host: { traffic: { ejection: {} } }", "host.traffic.ejection"),
        ("host: { health: { protocol: tcp } }", "host.health.protocol"),
        ("host: { health: { protocol: grpc } }", "host.health.protocol"),
        (
            "host: { traffic: { slow_start: 1m, algorithm: weighted-random } }",
            "host.traffic.slow_start",
        ),
    ] {
        let error = made(yaml).expect_err(yaml);
        assert!(
            error.contains(key) && error.contains("Application Load Balancer"),
            "{error}"
        );
    }
}
