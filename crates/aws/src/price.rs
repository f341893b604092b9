//! What a template costs a month, by a list of prices that is shipped with its date. What depends on use (traffic, requests,
//! bytes) has no price here, and of what runs more or less the least is counted: it is what an idle environment costs.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::synth::{Resource, Template};

const HOURS: f64 = 730.0;

/// Prices in US dollars: of an hour for what runs, of a month for what lies.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// When the prices were gathered.
    pub date: String,
    pub source: String,
    everywhere: BTreeMap<String, f64>,
    regions: BTreeMap<String, Region>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    nat: f64,
    balancer: f64,
    endpoint: f64,
    gp3: f64,
    /// Of containers on Fargate's 64-bit ARM.
    fargate_cpu: f64,
    fargate_gib: f64,
    #[serde(default)]
    fargate_x86_cpu: Option<f64>,
    #[serde(default)]
    fargate_x86_gib: Option<f64>,
    database_gib: f64,
    instance: BTreeMap<String, f64>,
    /// Of MariaDB and MySQL, in one zone; a second one costs as much again.
    database: BTreeMap<String, f64>,
    /// Of PostgreSQL, and of one machine of Aurora's.
    #[serde(default)]
    postgres: BTreeMap<String, f64>,
    #[serde(default)]
    aurora: BTreeMap<String, f64>,
}

/// What a stack costs a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Price {
    pub cents: u64,
    /// Resources that cost something by the hour, of which the list has no price.
    pub unknown: usize,
}

impl List {
    /// The list that comes with the program.
    pub fn shipped() -> &'static Self {
        static LIST: LazyLock<List> = LazyLock::new(|| {
            serde_json::from_str(include_str!("price/list.json")).expect("a test reads the list")
        });
        &LIST
    }

    /// A list of one's own.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Has it prices of this region? None is taken from another.
    pub fn knows(&self, region: &str) -> bool {
        self.regions.contains_key(region)
    }

    /// What a template's resources cost in a region.
    pub fn of(&self, template: &Template, region: &str) -> Price {
        let mut dollars = 0.0;
        let mut unknown = 0;
        for resource in &template.resources {
            match self.resource(resource, template, region) {
                Some(Some(price)) => dollars += price,
                Some(None) => unknown += 1,
                None => {}
            }
        }
        Price {
            cents: (dollars * 100.0).round() as u64,
            unknown,
        }
    }

    /// None: it costs nothing while it does nothing. Some(None): it does, and nobody knows what.
    fn resource(&self, resource: &Resource, template: &Template, region: &str) -> Option<Option<f64>> {
        let own = &resource.properties;
        let month = |name: &str| self.everywhere.get(name).copied();
        let here = self.regions.get(region);
        let hour = |price: fn(&Region) -> f64| here.map(|region| price(region) * HOURS);
        Some(match resource.kind {
            "AWS::KMS::Key" => month("key"),
            "AWS::Route53::HostedZone" => month("zone"),
            "AWS::SecretsManager::Secret" => month("secret"),
            "AWS::CloudWatch::Alarm" => month("alarm"),
            "AWS::EC2::EIP" => month("address").map(|price| price * HOURS),
            "AWS::WAFv2::WebACL" => {
                let rules = own["Rules"].as_array().map_or(0, Vec::len) as f64;
                Some(month("acl")? + rules * month("acl_rule")?)
            }
            "AWS::EC2::NatGateway" => hour(|region| region.nat),
            "AWS::ElasticLoadBalancingV2::LoadBalancer" => {
                // It has a public address in each zone.
                let addresses = match own["Scheme"] == "internet-facing" {
                    true => zones(&own["Subnets"]) * month("address")? * HOURS,
                    false => 0.0,
                };
                hour(|region| region.balancer).map(|price| price + addresses)
            }
            "AWS::EC2::VPCEndpoint" if own["VpcEndpointType"] == "Interface" => {
                hour(|region| region.endpoint).map(|price| price * zones(&own["SubnetIds"]))
            }
            "AWS::EC2::Instance" => here.and_then(|here| self.host(here, launch(resource, template)?)),
            "AWS::AutoScaling::AutoScalingGroup" => return self.group(resource, template, here),
            "AWS::ECS::Service" => return service(resource, template, here),
            "AWS::RDS::DBInstance" => here.and_then(|here| {
                // RDS keeps the password that it makes as a secret, which is in no template.
                let secret = match own["ManageMasterUserPassword"] == true {
                    true => month("secret")?,
                    false => 0.0,
                };
                Some(database(here, own)? + secret)
            }),
            "AWS::RDS::DBCluster" if own["ManageMasterUserPassword"] == true => month("secret"),
            _ => return None,
        })
    }

    /// The hosts of the half that runs: the other one has none. Of hosts below containers there are as many as containers, of
    /// which each has room for one.
    fn group(&self, resource: &Resource, template: &Template, here: Option<&Region>) -> Option<Option<f64>> {
        if resource.id.starts_with("Green") {
            return None;
        }
        let own = &resource.properties;
        let count = match (number(&own["MinSize"])?, template.resource("BlueService")) {
            (0.0, Some(service)) => least(service, template)?,
            (least, _) => least,
        };
        let here = here.filter(|_| is_in_region(own));
        let price = here.and_then(|here| self.host(here, launch(resource, template)?));
        Some(price.map(|price| price * count))
    }

    /// A host, its disk, and its metrics of each minute.
    fn host(&self, here: &Region, data: &Value) -> Option<f64> {
        let disk = data["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"].as_f64();
        let hour = here.instance.get(data["InstanceType"].as_str()?)?;
        let metrics = match data["Monitoring"]["Enabled"] == true {
            true => *self.everywhere.get("monitoring")?,
            false => 0.0,
        };
        Some(hour * HOURS + disk.unwrap_or(8.0) * here.gp3 + metrics)
    }
}

/// How the hosts of a group, or an instance, start: the launch template that is named somewhere in it.
pub(crate) fn launch<'t>(resource: &Resource, template: &'t Template) -> Option<&'t Value> {
    fn names(value: &Value, id: &str) -> bool {
        match value {
            Value::Object(own) => {
                own.get("LaunchTemplateId").is_some_and(|own| own["Ref"] == id)
                    || own.values().any(|own| names(own, id))
            }
            Value::Array(items) => items.iter().any(|own| names(own, id)),
            _ => false,
        }
    }
    let mut all = template.of("AWS::EC2::LaunchTemplate");
    let own = all.find(|own| names(&resource.properties, &own.id))?;
    Some(&own.properties["LaunchTemplateData"])
}

/// Hosts in Local and Wavelength Zones and on Outposts, which have subnets of their own, do not cost what the region's do.
fn is_in_region(group: &Value) -> bool {
    let subnets = group["VPCZoneIdentifier"]["Fn::Split"][1]["Fn::ImportValue"].as_str();
    subnets.is_none_or(|own| own.rsplit('-').next() == Some("PrivateSubnets"))
}

/// In how many zones something is: in two, where the list of its subnets is another stack's.
fn zones(subnets: &Value) -> f64 {
    subnets.as_array().map_or(2, Vec::len) as f64
}

fn service(resource: &Resource, template: &Template, here: Option<&Region>) -> Option<Option<f64>> {
    if resource.id.starts_with("Green") {
        return None;
    }
    let count = least(resource, template)?;
    let task = template.of("AWS::ECS::TaskDefinition").next()?;
    if task.properties["RequiresCompatibilities"][0] != "FARGATE" {
        return None;
    }
    let is_arm = task.properties["RuntimePlatform"]["CpuArchitecture"] == "ARM64";
    let price = here.and_then(|here| {
        let (cpu, gib) = match is_arm {
            true => (here.fargate_cpu, here.fargate_gib),
            false => (here.fargate_x86_cpu?, here.fargate_x86_gib?),
        };
        let cpu = number(&task.properties["Cpu"])? / 1024.0 * cpu;
        let memory = number(&task.properties["Memory"])? / 1024.0 * gib;
        Some((cpu + memory) * HOURS * count)
    });
    Some(price)
}

/// How many containers a service has at least. Where their number changes the service says none, and what scales it does.
fn least(service: &Resource, template: &Template) -> Option<f64> {
    number(&service.properties["DesiredCount"]).or_else(|| {
        let scale = template.resource("BlueScale")?;
        number(&scale.properties["MinCapacity"])
    })
}

fn database(here: &Region, own: &Value) -> Option<f64> {
    let copies = if own["MultiAZ"] == true { 2.0 } else { 1.0 };
    let prices = match own["Engine"].as_str() {
        Some(engine) if engine.starts_with("aurora") => &here.aurora,
        Some("postgres") => &here.postgres,
        _ => &here.database,
    };
    let hour = prices.get(own["DBInstanceClass"].as_str()?)?;
    let storage = own["AllocatedStorage"]
        .as_str()
        .and_then(|text| text.parse::<f64>().ok());
    Some((hour * HOURS + storage.unwrap_or(0.0) * here.database_gib) * copies)
}

/// A number of hosts: that when the half runs.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        Value::Object(_) => number(&value["Fn::If"][1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::synth;

    fn price(resources: Vec<Resource>, region: &str) -> Price {
        let mut template = Template::new("");
        template.resources = resources;
        List::shipped().of(&template, region)
    }

    fn nat() -> Resource {
        Resource::new("Nat", "AWS::EC2::NatGateway", "", json!({}))
    }

    #[test]
    fn what_the_list_has_no_price_of_is_counted_in_every_region() {
        let database = |class| {
            let own = json!({ "DBInstanceClass": class, "AllocatedStorage": "20" });
            Resource::new("Database", "AWS::RDS::DBInstance", "", own)
        };
        let started = json!({ "LaunchTemplate": { "LaunchTemplateId": { "Ref": "NatLaunch" } } });
        let instance = Resource::new("NatInstance", "AWS::EC2::Instance", "", started);
        let launch = |id: &str, kind| {
            let data =
                json!({ "InstanceType": kind, "BlockDeviceMappings": [{ "Ebs": { "VolumeSize": 8 } }] });
            Resource::new(
                id,
                "AWS::EC2::LaunchTemplate",
                "",
                json!({ "LaunchTemplateData": data }),
            )
        };
        let all = || {
            vec![
                launch("OtherLaunch", "m7g.large"),
                launch("NatLaunch", "t4g.nano"),
                instance.clone(),
                database("db.t4g.micro"),
            ]
        };
        // 3.066 for the instance and 0.64 for its disk; 11.68 for the database and 2.30 for what it holds.
        let known = Price {
            cents: 1769,
            unknown: 0,
        };
        assert_eq!(price(all(), "us-east-1"), known);
        assert_eq!(price(all(), "sa-east-1"), Price { cents: 0, unknown: 2 });
        assert_eq!(price(vec![database("db.x9.huge")], "us-east-1").unknown, 1);
    }

    /// Database classes that are the default somewhere, and of which no price is known: the plan counts them.
    const WITHOUT: [(&str, &str); 3] = [
        ("eu-central-1", "postgres"),
        ("eu-central-1", "aurora-mysql"),
        ("eu-central-1", "aurora-postgres"),
    ];

    /// The environment's stack of an app with this size of host and this database.
    fn environment(region: &str, size: &str, options: &str) -> Template {
        environment_of(region, size, options, "{}")
    }

    /// The same, that scales so.
    fn environment_of(region: &str, size: &str, options: &str, scaling: &str) -> Template {
        let config = format!(
            "[foundations.tools]\nregion = '{region}'\ndomain = 'a.example.com'\n\
             network = {{ cidr = '10.9.0.0/16', wavelength_zones = ['{region}-wl1-xyz-wlz-1'] }}\n\
             [apps.shop.environments.live]\n{options}\n"
        );
        let config: synth::Config = toml::from_str(&config).unwrap();
        let text = format!(
            "app: shop\nhost: {{ port: 8080, size: {size} }}\ndatabase: {{ engine: mariadb }}\nenvironments: {{ live: {{ scaling: {scaling} }} }}\n"
        );
        let (app, _) = model::spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
        let made = synth::all(&config, &app, &mut synth::Priorities::default()).unwrap();
        let mut stacks = made.stacks.into_iter();
        stacks
            .find(|stack| stack.kind == synth::Kind::Environment)
            .unwrap()
            .template
    }

    #[test]
    fn what_is_the_default_has_a_price_in_each_region_of_the_list() {
        let list = List::shipped();
        for region in list.regions.keys() {
            for (class, types) in synth::BUILT_IN {
                let template = environment(region, class, "");
                let data = template.of("AWS::EC2::LaunchTemplate").next().unwrap();
                let own = &data.properties["LaunchTemplateData"]["InstanceType"];
                assert_eq!(own, types[0]);
                let unknown = list.of(&template, region).unknown;
                assert_eq!(unknown, 0, "{class} in {region}");
            }
            for engine in ["mysql", "mariadb", "postgres", "aurora-mysql", "aurora-postgres"] {
                let cents = [false, true].map(|both| {
                    let options = format!("database = {{ engine = '{engine}', multi_az = {both} }}");
                    let price = list.of(&environment(region, "small", &options), region);
                    let is_without = WITHOUT.contains(&(region.as_str(), engine));
                    assert_eq!(price.unknown > 0, is_without, "{engine} in {region}, {both}");
                    price.cents
                });
                assert!(cents[1] > cents[0] || WITHOUT.contains(&(region.as_str(), engine)));
            }
        }
    }

    /// The number of containers that scale is not in their service, and an architecture has its own price.
    #[test]
    fn containers_cost_something_however_they_scale_and_run() {
        let list = List::shipped();
        let cost = |region: &str, options: &str, lines: &str| {
            let containers = environment_of(region, "small", options, lines);
            let without = |own: &Resource| {
                !matches!(
                    own.kind,
                    "AWS::ECS::Service" | "AWS::AutoScaling::AutoScalingGroup"
                )
            };
            let mut rest = containers.clone();
            rest.resources.retain(without);
            let (all, rest) = (list.of(&containers, region), list.of(&rest, region));
            (all.cents - rest.cents, all.unknown - rest.unknown)
        };
        let fargate = "runtime = 'fargate'\ndatabase = { engine = 'mariadb' }";
        // Half of 0.03238 and one of 0.00356, for 730 hours.
        assert_eq!(cost("us-east-1", fargate, "{ min: 1, max: 1 }"), (1442, 0));
        assert_eq!(cost("us-east-1", fargate, "{ min: 2, max: 2 }"), (2884, 0));
        assert_eq!(cost("us-east-1", fargate, "{ min: 2, max: 5 }"), (2884, 0));
        assert_eq!(cost("sa-east-1", fargate, "{ min: 2, max: 5 }"), (0, 1));
        // A host of t4g.small, its disk of 30 GiB and its metrics: 12.264, 2.40 and 2.10.
        let hosts = "runtime = 'ec2'";
        assert_eq!(cost("us-east-1", hosts, "{ min: 1, max: 1 }"), (1676, 0));
        assert_eq!(cost("us-east-1", hosts, "{ min: 2, max: 5 }"), (3353, 0));
        // Half of 0.04048 and one of 0.004445.
        let intel = "runtime = 'fargate'\n[sizes.small]\ntypes = ['t3.small']";
        assert_eq!(cost("us-east-1", intel, "{ min: 1, max: 2 }"), (1802, 0));
        assert_eq!(cost("eu-central-1", intel, "{ min: 1, max: 2 }"), (0, 1));
    }

    #[test]
    fn hosts_beside_the_region_do_not_have_its_prices() {
        let region = environment("us-east-1", "t3.medium", "");
        assert_eq!(List::shipped().of(&region, "us-east-1").unknown, 0);
        let zone = "placement = { wavelength = 'us-east-1-wl1-xyz-wlz-1' }";
        let beside = environment("us-east-1", "t3.medium", zone);
        assert_eq!(List::shipped().of(&beside, "us-east-1").unknown, 1);
    }

    #[test]
    fn what_stands_has_a_price() {
        let key = Resource::new("Key", "AWS::KMS::Key", "", json!({}));
        let group = |id| {
            let properties = json!({ "MinSize": { "Fn::If": ["BlueIsRunning", 2, 0] }, "MixedInstancesPolicy": {
                "LaunchTemplate": { "LaunchTemplateSpecification": { "LaunchTemplateId": { "Ref": "BlueLaunch" } } } } });
            Resource::new(id, "AWS::AutoScaling::AutoScalingGroup", "", properties)
        };
        let data = json!({ "LaunchTemplateData": {
            "InstanceType": "t4g.small", "BlockDeviceMappings": [{ "Ebs": { "VolumeSize": 20 } }] } });
        let launch = Resource::new("BlueLaunch", "AWS::EC2::LaunchTemplate", "", data);
        assert_eq!(price(vec![key.clone(), nat()], "us-east-1").cents, 100 + 3285);
        // Two hosts at 12.264 and their disks at 1.60; the other half has none.
        let halves = vec![group("BlueGroup"), group("GreenGroup"), launch];
        assert_eq!(price(halves, "us-east-1").cents, 2773);
        let balancer = |scheme: &str| {
            let own =
                json!({ "Scheme": scheme, "Subnets": [{ "Ref": "A" }, { "Ref": "B" }, { "Ref": "C" }] });
            let own = Resource::new("Balancer", "AWS::ElasticLoadBalancingV2::LoadBalancer", "", own);
            price(vec![own], "us-east-1").cents
        };
        // 16.425, and three public addresses at 3.65.
        assert_eq!([balancer("internal"), balancer("internet-facing")], [1643, 2738]);
        let watched = |is: bool| {
            let data = json!({ "InstanceType": "t4g.nano", "Monitoring": { "Enabled": is } });
            let launch = json!({ "LaunchTemplateData": data });
            let launch = Resource::new("NatLaunch", "AWS::EC2::LaunchTemplate", "", launch);
            let own = json!({ "LaunchTemplate": { "LaunchTemplateId": { "Ref": "NatLaunch" } } });
            let own = Resource::new("Nat", "AWS::EC2::Instance", "", own);
            price(vec![launch, own], "us-east-1").cents
        };
        assert_eq!(watched(true) - watched(false), 210);
        let elsewhere = price(vec![key, nat()], "sa-east-1");
        assert_eq!((elsewhere.cents, elsewhere.unknown), (100, 1));
        let vpc = Resource::new("Vpc", "AWS::EC2::VPC", "", json!({}));
        assert_eq!(price(vec![vpc], "sa-east-1"), Price::default());
    }
}
