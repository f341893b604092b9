//! Is everything there that an apply needs? Asked before anything is made; nothing here changes anything.

mod permission;
mod room;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

pub use room::SHARED;

use crate::{
    call,
    client::{Error, Form, Node},
    site::{Caller, Site},
    synth::{Kind, Stack, Template, logical},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    /// AWS does not say, or does not let the caller ask.
    Unknown,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub what: &'static str,
    pub verdict: Verdict,
    pub said: String,
}

impl Check {
    fn new(what: &'static str, verdict: Verdict, said: impl Into<String>) -> Self {
        Self {
            what,
            verdict,
            said: said.into(),
        }
    }

    fn unknown(what: &'static str, error: &Error) -> Self {
        Self::new(what, Verdict::Unknown, error.to_string())
    }
}

/// Looks at a foundation and what stands on it. `account`: the one that it should be; `listener`: of the load balancer that
/// environments share, by its ARN, if there is one, or why that is not known; `is_there`: is this stack made already?
pub async fn doctor(
    site: &Site,
    account: Option<&str>,
    listener: Result<Option<&str>, &str>,
    stacks: &[&Stack],
    is_there: &dyn Fn(&str) -> bool,
) -> Vec<Check> {
    let caller = match site.caller().await {
        Ok(caller) => caller,
        Err(error) => {
            let source = std::error::Error::source(&error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            return vec![Check::new(
                "credentials",
                Verdict::Bad,
                format!("{error}{source}"),
            )];
        }
    };
    let mut checks = vec![Check::new("credentials", Verdict::Good, caller.arn.as_str())];
    checks.extend(account.map(|wanted| own(caller, wanted)));
    checks.push(region(site).await);
    let templates: Vec<&Template> = stacks.iter().map(|stack| &stack.template).collect();
    checks.push(services(site, &templates).await);
    checks.push(sizes(site, &templates, None).await);
    let beside = beside(&templates, site.client.region());
    if !beside.is_empty() {
        checks.push(zones(site, &beside).await);
    }
    for zone in &beside {
        let there = standing(&templates, zone);
        if !there.is_empty() {
            checks.push(sizes(site, &there, Some(zone)).await);
        }
    }
    let is_new = stacks
        .iter()
        .any(|stack| stack.kind == Kind::Foundation && !is_there(&stack.name));
    let foundation = stacks
        .iter()
        .find(|stack| stack.kind == Kind::Foundation && is_new);
    if let Some(foundation) = foundation {
        checks.extend(quotas(site, &foundation.template).await);
    }
    checks.extend(room::processors(site, &templates).await);
    checks.extend(room::outposts(site, &templates).await);
    checks.extend(room::targets(site, listener, stacks, is_there).await);
    let made = stacks.iter().filter(|stack| stack.kind != Kind::Environment);
    let made: Vec<&Template> = made.map(|stack| &stack.template).collect();
    checks.push(permission::permissions(site, caller, &made).await);
    checks
}

fn own(caller: &Caller, wanted: &str) -> Check {
    match caller.account == wanted {
        true => Check::new("account", Verdict::Good, wanted),
        false => Check::new(
            "account",
            Verdict::Bad,
            format!(
                "the credentials are of {}; aws.toml says {wanted}",
                caller.account
            ),
        ),
    }
}

async fn region(site: &Site) -> Check {
    let name = site.client.region();
    let mut form = Form::default();
    form.add("AllRegions", "true").add("RegionName.1", name);
    match site.client.query(&call::REGIONS, form).await {
        Ok(answer) => enabled(&answer, name),
        Err(error) if error.code() == "InvalidParameterValue" => {
            Check::new("region", Verdict::Bad, format!("there is no region {name}"))
        }
        Err(error) => Check::unknown("region", &error),
    }
}

fn enabled(answer: &Node, name: &str) -> Check {
    let found = answer
        .list("regionInfo")
        .find(|region| region.text("regionName") == name);
    match found.map(|region| region.text("optInStatus")) {
        None => Check::new("region", Verdict::Bad, format!("there is no region {name}")),
        Some("not-opted-in") => Check::new(
            "region",
            Verdict::Bad,
            format!("the account has not enabled {name}: aws account enable-region --region-name {name}"),
        ),
        Some(_) => Check::new("region", Verdict::Good, name),
    }
}

/// The services of resource types, as AWS's list of regions names them. Those of IAM and Budgets know no region.
const SERVICES: [(&str, &str); 26] = [
    ("AWS::ApiGatewayV2::", "apigateway"),
    ("AWS::ApplicationAutoScaling::", "application-autoscaling"),
    ("AWS::AutoScaling::", "autoscaling"),
    ("AWS::CertificateManager::", "acm"),
    ("AWS::Chatbot::", "chatbot"),
    ("AWS::CloudTrail::", "cloudtrail"),
    ("AWS::CloudWatch::", "cloudwatch"),
    ("AWS::CodeBuild::", "codebuild"),
    ("AWS::CodeDeploy::", "codedeploy"),
    ("AWS::DynamoDB::", "dynamodb"),
    ("AWS::EC2::", "ec2"),
    ("AWS::ECR::", "ecr"),
    ("AWS::ECS::", "ecs"),
    ("AWS::ElasticLoadBalancingV2::", "elb"),
    ("AWS::Events::", "events"),
    ("AWS::KMS::", "kms"),
    ("AWS::Lambda::", "lambda"),
    ("AWS::Logs::", "logs"),
    ("AWS::RDS::", "rds"),
    ("AWS::Route53::", "route53"),
    ("AWS::S3::", "s3"),
    ("AWS::SNS::", "sns"),
    ("AWS::SSM::", "ssm"),
    ("AWS::SecretsManager::", "secretsmanager"),
    ("AWS::StepFunctions::", "stepfunctions"),
    ("AWS::WAFv2::", "waf"),
];

async fn services(site: &Site, templates: &[&Template]) -> Check {
    let mut there: BTreeSet<String> = BTreeSet::new();
    let path = format!(
        "/aws/service/global-infrastructure/regions/{}/services",
        site.client.region()
    );
    let mut ask = json!({ "Path": path });
    loop {
        let page = match site.client.json(&call::SERVICE_REGIONS, ask.clone()).await {
            Ok(page) => page,
            Err(error) => return Check::unknown("services", &error),
        };
        let values = page["Parameters"].as_array().into_iter().flatten();
        there.extend(values.filter_map(|one| one["Value"].as_str().map(str::to_owned)));
        match page["NextToken"].as_str() {
            Some(next) if !next.is_empty() => ask["NextToken"] = next.into(),
            _ => break,
        }
    }
    missing(&there, templates)
}

fn missing(there: &BTreeSet<String>, templates: &[&Template]) -> Check {
    if there.is_empty() {
        return Check::new(
            "services",
            Verdict::Unknown,
            "AWS has no list of the region's services",
        );
    }
    let kinds = || {
        templates
            .iter()
            .flat_map(|template| &template.resources)
            .map(|own| own.kind)
    };
    let needed = SERVICES
        .iter()
        .filter(|(start, _)| kinds().any(|kind| kind.starts_with(start)));
    let names: Vec<&str> = needed.map(|(_, name)| *name).collect();
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !there.contains(*name))
        .collect();
    match missing.as_slice() {
        [] => Check::new(
            "services",
            Verdict::Good,
            format!("all {} are there", names.len()),
        ),
        missing => Check::new(
            "services",
            Verdict::Bad,
            format!("the region has no {}", missing.join(", ")),
        ),
    }
}

/// Every instance type that a template names.
fn types(templates: &[&Template]) -> BTreeSet<String> {
    fn find(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(own) => {
                found.extend(own.get("InstanceType").and_then(Value::as_str).map(str::to_owned));
                own.values().for_each(|value| find(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| find(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for resource in templates.iter().flat_map(|template| &template.resources) {
        find(&resource.properties, &mut found);
    }
    found
}

/// Local and Wavelength Zones in which a template makes subnets. A region's own zones are one letter longer than its name.
fn beside(templates: &[&Template], region: &str) -> BTreeSet<String> {
    let subnets = templates.iter().flat_map(|own| own.of("AWS::EC2::Subnet"));
    let zones = subnets.filter_map(|subnet| subnet.properties["AvailabilityZone"].as_str());
    let is_beside = |zone: &&str| zone.strip_prefix(region).is_some_and(|rest| rest.len() > 1);
    zones.filter(is_beside).map(str::to_owned).collect()
}

/// The templates whose hosts stand in such a zone: they name its subnets.
fn standing<'t>(templates: &[&'t Template], zone: &str) -> Vec<&'t Template> {
    let names = ["Private", "Carrier"].map(|tier| format!("-{}Subnets", logical(&[zone, tier])));
    let is_there = |own: &&&Template| {
        let text = own.json();
        names.iter().any(|name| text.contains(name.as_str()))
    };
    templates.iter().filter(is_there).copied().collect()
}

/// Has the account asked for the zones? Subnets are made in no other.
async fn zones(site: &Site, wanted: &BTreeSet<String>) -> Check {
    let mut form = Form::default();
    form.add("AllAvailabilityZones", "true");
    form.list("ZoneName", wanted.iter().map(String::as_str));
    match site.client.query(&call::ZONES, form).await {
        Ok(answer) => opened(&answer, wanted),
        Err(error) if error.code() == "InvalidParameterValue" => {
            Check::new("zones", Verdict::Bad, error.to_string())
        }
        Err(error) => Check::unknown("zones", &error),
    }
}

fn opened(answer: &Node, wanted: &BTreeSet<String>) -> Check {
    let closed = wanted.iter().filter_map(|zone| {
        let found = answer
            .list("availabilityZoneInfo")
            .find(|own| own.text("zoneName") == zone);
        match found.map(|own| (own.text("optInStatus"), own.text("groupName"))) {
            None => Some(format!("the region has no zone {zone}")),
            Some(("not-opted-in", group)) => Some(format!(
                "the account has not asked for {zone}: aws ec2 modify-availability-zone-group --group-name {group} --opt-in-status opted-in"
            )),
            Some(_) => None,
        }
    });
    let closed: Vec<String> = closed.collect();
    match closed.as_slice() {
        [] => {
            let all: Vec<&str> = wanted.iter().map(String::as_str).collect();
            Check::new("zones", Verdict::Good, all.join(", "))
        }
        closed => Check::new("zones", Verdict::Bad, closed.join("; ")),
    }
}

/// Are the instances that are wanted to be had, in the region or in one zone of it?
async fn sizes(site: &Site, templates: &[&Template], zone: Option<&str>) -> Check {
    let wanted = types(templates);
    if wanted.is_empty() {
        return Check::new("sizes", Verdict::Good, "no instances are wanted");
    }
    let mut form = Form::default();
    form.add("Filter.1.Name", "instance-type");
    form.list("Filter.1.Value", wanted.iter().map(String::as_str));
    if let Some(zone) = zone {
        form.add("LocationType", "availability-zone");
        form.add("Filter.2.Name", "location")
            .add("Filter.2.Value.1", zone);
    }
    let answer = match site.client.query(&call::OFFERINGS, form).await {
        Ok(answer) => answer,
        Err(error) => return Check::unknown("sizes", &error),
    };
    let offered: BTreeSet<&str> = answer
        .list("instanceTypeOfferingSet")
        .map(|own| own.text("instanceType"))
        .collect();
    let missing: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|own| !offered.contains(own))
        .collect();
    match missing.as_slice() {
        [] => Check::new(
            "sizes",
            Verdict::Good,
            wanted.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        ),
        missing => Check::new(
            "sizes",
            Verdict::Bad,
            format!("{} has no {}", zone.unwrap_or("the region"), missing.join(", ")),
        ),
    }
}

/// What a new foundation needs more of: how many there are, and how many there may be.
async fn quotas(site: &Site, template: &Template) -> Vec<Check> {
    let needs = |kind| template.of(kind).count() as f64;
    let counted = [
        (
            "networks",
            "vpc",
            "L-F678F1CE",
            needs("AWS::EC2::VPC"),
            call::VPCS,
            "vpcSet",
        ),
        (
            "addresses",
            "ec2",
            "L-0263D0A3",
            needs("AWS::EC2::EIP"),
            call::ADDRESSES,
            "addressesSet",
        ),
    ];
    let mut checks = Vec::new();
    for (what, service, code, more, call, list) in counted {
        let quota = quota(site, service, code).await;
        let there = site.client.query(&call, Form::default()).await;
        checks.push(match (quota, there) {
            (Ok(quota), Ok(there)) => enough(what, quota, there.list(list).count() as f64, more),
            (Err(error), _) | (_, Err(error)) => Check::unknown(what, &error),
        });
    }
    checks
}

/// How many of something the account may have, by the codes of the service and of the quota, if AWS says so.
async fn quota(site: &Site, service: &str, code: &str) -> Result<Option<f64>, Error> {
    let ask = json!({ "ServiceCode": service, "QuotaCode": code });
    let answer = site.client.json(&call::QUOTA, ask).await?;
    Ok(answer["Quota"]["Value"].as_f64())
}

fn enough(what: &'static str, quota: Option<f64>, there: f64, more: f64) -> Check {
    match quota {
        None => Check::new(what, Verdict::Unknown, "AWS says no quota"),
        Some(quota) if there + more > quota => Check::new(
            what,
            Verdict::Bad,
            format!("{there} of {quota} are used, and {more} more are needed: ask AWS for a higher quota"),
        ),
        Some(quota) => Check::new(
            what,
            Verdict::Good,
            format!("{there} of {quota} are used, {more} more are needed"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Resource;

    #[test]
    fn a_zone_that_the_account_has_not_asked_for_is_bad_with_the_command() {
        let subnet =
            |id: &str, zone| Resource::new(id, "AWS::EC2::Subnet", "", json!({ "AvailabilityZone": zone }));
        let mut foundation = Template::new("");
        foundation.add(subnet("A", json!({ "Fn::Select": [0, { "Fn::GetAZs": "" }] })));
        foundation.add(subnet("Rack", json!("us-west-2b")));
        foundation.add(subnet("Lax", json!("us-west-2-lax-1a")));
        let mut environment = Template::new("");
        let group = json!({ "VPCZoneIdentifier": { "Fn::ImportValue": "vend-production-UsWest2Lax1aPrivateSubnets" } });
        environment.add(Resource::new(
            "G",
            "AWS::AutoScaling::AutoScalingGroup",
            "",
            group,
        ));
        let all = [&foundation, &environment];
        let wanted = beside(&all, "us-west-2");
        assert_eq!(wanted.iter().collect::<Vec<_>>(), ["us-west-2-lax-1a"]);
        assert_eq!(standing(&all, "us-west-2-lax-1a"), [&environment]);
        assert!(standing(&all, "us-west-2-lax-1b").is_empty());
        let answer = |status: &str| {
            let text = format!(
                "<R><availabilityZoneInfo><item><zoneName>us-west-2-lax-1a</zoneName><groupName>us-west-2-lax-1</groupName>\
                 <optInStatus>{status}</optInStatus></item></availabilityZoneInfo></R>"
            );
            opened(&Node::parse(text.as_bytes()).unwrap(), &wanted)
        };
        assert_eq!(answer("opted-in").verdict, Verdict::Good);
        let closed = answer("not-opted-in");
        assert_eq!(closed.verdict, Verdict::Bad);
        assert!(
            closed.said.contains("--group-name us-west-2-lax-1 "),
            "{}",
            closed.said
        );
        let nowhere = opened(&Node::parse(b"<R/>").unwrap_or_default(), &wanted);
        assert_eq!(nowhere.verdict, Verdict::Bad);
    }

    /// As the snapshots have them.
    #[test]
    fn every_type_of_resource_has_its_service() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/synth/golden");
        let mut kinds = BTreeSet::new();
        let mut open = vec![std::path::PathBuf::from(golden)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|own| own.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let parts = text.split("Type: AWS::").skip(1);
            kinds.extend(parts.filter_map(|part| part.split_whitespace().next().map(str::to_owned)));
        }
        assert!(kinds.len() > 60, "{kinds:?}");
        for kind in kinds {
            let is_everywhere = kind.starts_with("IAM::") || kind.starts_with("Budgets::");
            let kind = format!("AWS::{kind}");
            let is_known = SERVICES.iter().any(|(start, _)| kind.starts_with(start));
            assert!(is_known || is_everywhere, "{kind}");
        }
    }

    #[test]
    fn what_is_missing_is_bad() {
        let mut template = Template::new("");
        let launch = json!({ "LaunchTemplateData": { "InstanceType": "t4g.small" } });
        template.add(Resource::new("L", "AWS::EC2::LaunchTemplate", "", launch));
        template.add(Resource::new("D", "AWS::RDS::DBInstance", "", json!({})));
        assert_eq!(types(&[&template]).into_iter().collect::<Vec<_>>(), ["t4g.small"]);
        let there = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let check = missing(&there(&["ec2"]), &[&template]);
        assert_eq!((check.verdict, check.said.contains("rds")), (Verdict::Bad, true));
        assert_eq!(
            missing(&there(&["ec2", "rds"]), &[&template]).verdict,
            Verdict::Good
        );
        assert_eq!(missing(&there(&[]), &[&template]).verdict, Verdict::Unknown);
        assert_eq!(enough("x", Some(5.0), 5.0, 1.0).verdict, Verdict::Bad);
        assert_eq!(enough("x", Some(5.0), 4.0, 1.0).verdict, Verdict::Good);
        let region = Node::parse(b"<R><regionInfo><item><regionName>a</regionName><optInStatus>not-opted-in</optInStatus></item></regionInfo></R>");
        assert_eq!(enabled(&region.unwrap(), "a").verdict, Verdict::Bad);
    }
}
