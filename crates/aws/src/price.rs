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
    fargate_cpu: f64,
    fargate_gib: f64,
    database_gib: f64,
    instance: BTreeMap<String, f64>,
    database: BTreeMap<String, f64>,
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
            "AWS::ElasticLoadBalancingV2::LoadBalancer" => hour(|region| region.balancer),
            "AWS::EC2::VPCEndpoint" if own["VpcEndpointType"] == "Interface" => {
                let zones = own["SubnetIds"].as_array().map_or(2, Vec::len) as f64;
                hour(|region| region.endpoint).map(|price| price * zones)
            }
            "AWS::EC2::Instance" => instance(here?, &own["InstanceType"]),
            "AWS::AutoScaling::AutoScalingGroup" => return self.group(resource, template, here),
            "AWS::ECS::Service" => return service(resource, template, here),
            "AWS::RDS::DBInstance" => database(here?, own),
            _ => return None,
        })
    }

    /// The hosts of the half that runs: the other one has none.
    fn group(&self, resource: &Resource, template: &Template, here: Option<&Region>) -> Option<Option<f64>> {
        if resource.id.starts_with("Green") {
            return None;
        }
        let own = &resource.properties;
        let count = least(&own["MinSize"])?;
        let launch = template.of("AWS::EC2::LaunchTemplate").next()?;
        let data = &launch.properties["LaunchTemplateData"];
        let disk = data["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
            .as_f64()
            .unwrap_or(8.0);
        let price = here.and_then(|here| Some(instance(here, &data["InstanceType"])? + disk * here.gp3));
        Some(price.map(|price| price * count))
    }
}

fn instance(here: &Region, kind: &Value) -> Option<f64> {
    here.instance.get(kind.as_str()?).map(|price| price * HOURS)
}

fn service(resource: &Resource, template: &Template, here: Option<&Region>) -> Option<Option<f64>> {
    if resource.id.starts_with("Green") {
        return None;
    }
    let count = least(&resource.properties["DesiredCount"])?;
    let task = template.of("AWS::ECS::TaskDefinition").next()?;
    if task.properties["RequiresCompatibilities"][0] != "FARGATE" {
        return None;
    }
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let price = here.and_then(|here| {
        let cpu = number(&task.properties["Cpu"])? / 1024.0 * here.fargate_cpu;
        let memory = number(&task.properties["Memory"])? / 1024.0 * here.fargate_gib;
        Some((cpu + memory) * HOURS * count)
    });
    Some(price)
}

fn database(here: &Region, own: &Value) -> Option<f64> {
    let copies = if own["MultiAZ"] == true { 2.0 } else { 1.0 };
    let hour = here.database.get(own["DBInstanceClass"].as_str()?)?;
    let storage = own["AllocatedStorage"]
        .as_str()
        .and_then(|text| text.parse::<f64>().ok());
    Some((hour * HOURS + storage.unwrap_or(0.0) * here.database_gib) * copies)
}

/// The number of hosts when the half runs.
fn least(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        Value::Object(_) => least(&value["Fn::If"][1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn price(resources: Vec<Resource>, region: &str) -> Price {
        let mut template = Template::new("");
        template.resources = resources;
        List::shipped().of(&template, region)
    }

    fn nat() -> Resource {
        Resource::new("Nat", "AWS::EC2::NatGateway", "", json!({}))
    }

    #[test]
    fn what_stands_has_a_price() {
        let key = Resource::new("Key", "AWS::KMS::Key", "", json!({}));
        let group = |id| {
            let properties = json!({ "MinSize": { "Fn::If": ["BlueIsRunning", 2, 0] } });
            Resource::new(id, "AWS::AutoScaling::AutoScalingGroup", "", properties)
        };
        let data = json!({ "LaunchTemplateData": {
            "InstanceType": "t4g.small", "BlockDeviceMappings": [{ "Ebs": { "VolumeSize": 20 } }] } });
        let launch = Resource::new("BlueLaunch", "AWS::EC2::LaunchTemplate", "", data);
        assert_eq!(price(vec![key.clone(), nat()], "us-east-1").cents, 100 + 3285);
        // Two hosts at 12.264 and their disks at 1.60; the other half has none.
        let halves = vec![group("BlueGroup"), group("GreenGroup"), launch];
        assert_eq!(price(halves, "us-east-1").cents, 2773);
        let elsewhere = price(vec![key, nat()], "sa-east-1");
        assert_eq!((elsewhere.cents, elsewhere.unknown), (100, 1));
        let vpc = Resource::new("Vpc", "AWS::EC2::VPC", "", json!({}));
        assert_eq!(price(vec![vpc], "sa-east-1"), Price::default());
    }
}
