//! Zones of `vend.yaml` are CodeDeploy's.

use aws::synth::{Config, Priorities, environment};
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
