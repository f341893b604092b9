//! Is there room for hosts: in the account's quota of processors, and on Outposts, which have what their owner bought.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{Method, body::Bytes};
use serde_json::Value;

use super::{Check, Verdict, quota, types};
use crate::{
    call,
    client::{Error, Form, Node, Rest},
    destroy::rest,
    live::rule,
    price::{launch, number},
    site::Site,
    synth::{Resource, Stack, Template},
};

/// The quota of "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in processors.
/// Source: "Amazon EC2 instance type quotas" of the EC2 guide; 2026-11-22.
const QUOTA: &str = "L-1216C47A";
/// How the names of their types begin, up to the generation.
const STANDARD: [&str; 11] = ["a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"];
/// Types in one question.
const BATCH: usize = 100;

const PROCESSORS: &str = "processors";
const OUTPOSTS: &str = "outposts";

/// What the foundation's output is called that has the listener of the load balancer that environments share.
pub const SHARED: &str = "HttpsListener";
/// Target groups behind an Application Load Balancer; nobody raises it.
/// Source: "Quotas for your Application Load Balancers"; 2026-11-23.
const MOST_TARGETS: usize = 100;
const TARGETS: &str = "target groups";

/// Instances by their types, of those that the quota counts.
type Asked = BTreeMap<String, u64>;

/// May all the environments have all of their hosts at once? None: they have no such hosts.
pub(super) async fn processors(site: &Site, templates: &[&Template]) -> Option<Check> {
    let racks = racks(templates);
    let stands_there = |own: &&&Template| racks.iter().any(|rack| rack.stands(own));
    let asked = asked(templates.iter().filter(|own| !stands_there(own)).copied());
    if asked.is_empty() {
        return None;
    }
    let quota = match quota(site, "ec2", QUOTA).await {
        Ok(quota) => quota,
        Err(error) => return Some(Check::unknown(PROCESSORS, &error)),
    };
    let mut each = BTreeMap::new();
    let names: Vec<&str> = asked.keys().map(String::as_str).collect();
    for some in names.chunks(BATCH) {
        let mut form = Form::default();
        form.list("InstanceType", some.iter().copied());
        match site.client.query(&call::TYPES, form).await {
            Ok(answer) => each.extend(sizes(&answer)),
            Err(error) => return Some(Check::unknown(PROCESSORS, &error)),
        }
    }
    Some(room(&asked, &each, quota))
}

/// At most: all that scaling may add to one half while the other still has its least, in every environment at once.
fn asked<'t>(templates: impl Iterator<Item = &'t Template>) -> Asked {
    let mut all = Asked::new();
    for template in templates {
        let alone = template.of("AWS::EC2::Instance").map(|own| (own, 1));
        let groups = template.of("AWS::AutoScaling::AutoScalingGroup");
        let groups = groups.map(|own| (own, most(own)));
        for (own, count) in alone.chain(groups) {
            let kind = launch(own, template).and_then(|data| data["InstanceType"].as_str());
            if let Some(kind) = kind.filter(|kind| is_standard(kind) && count > 0) {
                *all.entry(kind.to_owned()).or_default() += count;
            }
        }
    }
    all
}

fn most(group: &Resource) -> u64 {
    let own = &group.properties;
    let bound = if group.id.starts_with("Green") {
        "MinSize"
    } else {
        "MaxSize"
    };
    let count = number(&own[bound]).unwrap_or(0.0) as u64;
    // The spot market has a quota of its own.
    let shares = &own["MixedInstancesPolicy"]["InstancesDistribution"];
    match shares["OnDemandPercentageAboveBaseCapacity"].as_u64() {
        Some(0) => count.min(shares["OnDemandBaseCapacity"].as_u64().unwrap_or(0)),
        _ => count,
    }
}

fn is_standard(kind: &str) -> bool {
    let family = kind
        .split(|c: char| !c.is_ascii_lowercase())
        .next()
        .unwrap_or_default();
    STANDARD.contains(&family)
}

/// How many processors types have.
fn sizes(answer: &Node) -> Vec<(String, u64)> {
    let one = |own: &Node| {
        let processors = own.at(&["vCpuInfo", "defaultVCpus"])?.text.parse().ok()?;
        Some((own.text("instanceType").to_owned(), processors))
    };
    answer.list("instanceTypeSet").filter_map(one).collect()
}

fn room(asked: &Asked, each: &BTreeMap<String, u64>, quota: Option<f64>) -> Check {
    let Some(quota) = quota else {
        return Check::new(PROCESSORS, Verdict::Unknown, "AWS says no quota");
    };
    let unknown: Vec<&str> = asked
        .keys()
        .filter(|kind| !each.contains_key(*kind))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let said = format!("AWS does not say how many {} has", unknown.join(" or "));
        return Check::new(PROCESSORS, Verdict::Unknown, said);
    }
    let all: u64 = asked.iter().map(|(kind, count)| count * each[kind]).sum();
    if all as f64 > quota {
        let said = format!(
            "all hosts at once have {all} processors, and the account may run {quota}: \
             aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {QUOTA} --desired-value {all}"
        );
        return Check::new(PROCESSORS, Verdict::Bad, said);
    }
    let said = format!(
        "all hosts at once have {all} of the {quota} that the account may run; what else runs there is not counted"
    );
    Check::new(PROCESSORS, Verdict::Good, said)
}

/// An Outpost in which a foundation makes subnets.
struct Rack {
    arn: String,
    /// What those are called whom environments import.
    subnets: Vec<String>,
}

impl Rack {
    fn stands(&self, template: &Template) -> bool {
        let text = template.json();
        self.subnets.iter().any(|name| text.contains(name.as_str()))
    }

    fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }
}

fn racks(templates: &[&Template]) -> Vec<Rack> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for subnet in templates.iter().flat_map(|own| own.of("AWS::EC2::Subnet")) {
        if let Some(arn) = subnet.properties["OutpostArn"].as_str() {
            all.entry(arn.to_owned())
                .or_default()
                .push(format!("-{}s", subnet.id));
        }
    }
    all.into_iter()
        .map(|(arn, subnets)| Rack { arn, subnets })
        .collect()
}

/// Have the Outposts the types of the hosts that shall stand there? Each is asked for itself.
pub(super) async fn outposts(site: &Site, templates: &[&Template]) -> Vec<Check> {
    let mut checks = Vec::new();
    for rack in racks(templates) {
        let there: Vec<&Template> = templates.iter().filter(|own| rack.stands(own)).copied().collect();
        let wanted = types(&there);
        checks.push(match offered(site, rack.id()).await {
            Ok(offered) => slots(rack.id(), &wanted, &offered),
            Err(error) => Check::unknown(OUTPOSTS, &error),
        });
    }
    checks
}

/// The types that an Outpost has slots for, page by page.
async fn offered(site: &Site, id: &str) -> Result<BTreeSet<String>, Error> {
    let mut all = BTreeSet::new();
    let mut query = String::new();
    loop {
        let path = format!("/outposts/{id}/instanceTypes");
        let rest = Rest {
            query,
            ..rest(Method::GET, path, Bytes::new())
        };
        let answer = site.client.rest(&call::OUTPOST_TYPES, rest).await?;
        let page: Value = serde_json::from_slice(&answer.body).map_err(|_| Error::Answer {
            service: call::OUTPOST_TYPES.service,
            operation: call::OUTPOST_TYPES.operation,
        })?;
        all.extend(types_of(&page));
        match page["NextToken"].as_str() {
            Some(next) if !next.is_empty() => {
                query = format!("NextToken={}", crate::sign::encoded(next, ""));
            }
            _ => return Ok(all),
        }
    }
}

fn types_of(page: &Value) -> impl Iterator<Item = String> {
    let all = page["InstanceTypes"].as_array().into_iter().flatten();
    all.filter_map(|own| own["InstanceType"].as_str().map(str::to_owned))
}

fn slots(id: &str, wanted: &BTreeSet<String>, offered: &BTreeSet<String>) -> Check {
    let names =
        |all: &mut dyn Iterator<Item = &String>| all.map(String::as_str).collect::<Vec<_>>().join(", ");
    let missing = names(&mut wanted.difference(offered));
    let has = match offered.is_empty() {
        true => "no slots for hosts".to_owned(),
        false => names(&mut offered.iter()),
    };
    match missing.is_empty() {
        true => Check::new(OUTPOSTS, Verdict::Good, format!("{id} has {has}")),
        false => Check::new(
            OUTPOSTS,
            Verdict::Bad,
            format!(
                "{id} has no {missing}, but {has}: say in `sizes` of the Outpost what it has, and in `[sizes]` what hosts take"
            ),
        ),
    }
}

/// Is there room behind the shared load balancer for the environments that are not there yet? None: none of them shares it.
pub(super) async fn targets(
    site: &Site,
    listener: Result<Option<&str>, &str>,
    stacks: &[&Stack],
    is_there: &dyn Fn(&str) -> bool,
) -> Option<Check> {
    let each = stacks.iter().map(|stack| (stack, shared(&stack.template)));
    let sharing: Vec<_> = each.filter(|(_, count)| *count > 0).collect();
    if sharing.is_empty() {
        return None;
    }
    let new = sharing.iter().filter(|(stack, _)| !is_there(&stack.name));
    let more: usize = new.map(|(_, count)| count).sum();
    let there = match listener {
        Err(why) => return Some(Check::new(TARGETS, Verdict::Unknown, why)),
        Ok(None) => Ok(0),
        Ok(Some(listener)) => rule::groups(&site.client, listener).await.map(|all| all.len()),
    };
    Some(match there {
        Ok(there) => behind(there, more),
        Err(error) => Check::unknown(TARGETS, &error),
    })
}

/// Target groups of a template behind a load balancer that others have too: what its rules there lead to.
fn shared(template: &Template) -> usize {
    let rules = template.of("AWS::ElasticLoadBalancingV2::ListenerRule");
    let rules = rules.filter(|rule| !rule.properties["ListenerArn"]["Fn::ImportValue"].is_null());
    let actions = rules.flat_map(|rule| rule.properties["Actions"].as_array().into_iter().flatten());
    let groups = actions.flat_map(|action| {
        let all = action["ForwardConfig"]["TargetGroups"].as_array();
        all.into_iter().flatten()
    });
    let ids: BTreeSet<&str> = groups
        .filter_map(|group| group["TargetGroupArn"]["Ref"].as_str())
        .collect();
    ids.len()
}

fn behind(there: usize, more: usize) -> Check {
    let said = format!(
        "{there} of {MOST_TARGETS} stand behind the load balancer that environments share, and {more} more are needed"
    );
    match there + more > MOST_TARGETS {
        false => Check::new(TARGETS, Verdict::Good, said),
        true => Check::new(
            TARGETS,
            Verdict::Bad,
            format!("{said}: nobody raises that; give an environment `dedicated_balancer = true`"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(id: &str, least: u32, most: u32, spot: Option<u32>) -> Resource {
        let when = |number: u32| json!({ "Fn::If": ["IsRunning", number.to_string(), "0"] });
        let launch = json!({ "LaunchTemplateId": { "Ref": "Launch" } });
        let own = json!({ "MinSize": when(least), "MaxSize": when(most), "MixedInstancesPolicy": {
            "InstancesDistribution": {
                "OnDemandBaseCapacity": spot.unwrap_or(0), "OnDemandPercentageAboveBaseCapacity": if spot.is_some() { 0 } else { 100 } },
            "LaunchTemplate": { "LaunchTemplateSpecification": launch } } });
        Resource::new(id, "AWS::AutoScaling::AutoScalingGroup", "", own)
    }

    fn environment(kind: &str, groups: Vec<Resource>) -> Template {
        let mut template = Template::new("");
        let data = json!({ "LaunchTemplateData": { "InstanceType": kind } });
        template.add(Resource::new("Launch", "AWS::EC2::LaunchTemplate", "", data));
        groups.into_iter().for_each(|own| template.add(own));
        template
    }

    #[test]
    fn a_release_has_all_of_one_half_and_the_least_of_the_other() {
        let one = environment(
            "t4g.small",
            vec![group("BlueGroup", 2, 8, None), group("GreenGroup", 2, 8, None)],
        );
        let spot = environment(
            "m7g.large",
            vec![
                group("BlueGroup", 2, 8, Some(1)),
                group("GreenGroup", 2, 8, Some(1)),
            ],
        );
        let other = environment("g5.xlarge", vec![group("BlueGroup", 1, 9, None)]);
        let asked = asked([&one, &spot, &other].into_iter());
        let wanted = [("m7g.large".to_owned(), 2), ("t4g.small".to_owned(), 10)];
        assert_eq!(
            asked,
            Asked::from(wanted),
            "those with graphics have another quota"
        );
        assert!(is_standard("im4gn.large") && is_standard("z1d.large"));
        assert!(
            ["inf2.xlarge", "hpc7a.12xlarge", "p5.48xlarge", "x2gd.large"]
                .iter()
                .all(|own| !is_standard(own))
        );
    }

    /// The shape of DescribeInstanceTypes' answer.
    #[test]
    fn more_processors_than_the_account_may_run_are_bad_with_the_command() {
        let answer = Node::parse(
            b"<R><instanceTypeSet><item><instanceType>t4g.small</instanceType><vCpuInfo><defaultVCpus>2</defaultVCpus>\
              <defaultCores>2</defaultCores></vCpuInfo></item></instanceTypeSet></R>",
        );
        let each: BTreeMap<String, u64> = sizes(&answer.unwrap()).into_iter().collect();
        let asked = Asked::from([("t4g.small".to_owned(), 10)]);
        assert_eq!(room(&asked, &each, Some(20.0)).verdict, Verdict::Good);
        let short = room(&asked, &each, Some(16.0));
        assert_eq!(short.verdict, Verdict::Bad);
        for part in [
            "have 20 processors",
            "may run 16",
            "--quota-code L-1216C47A --desired-value 20",
        ] {
            assert!(short.said.contains(part), "{}", short.said);
        }
        assert_eq!(room(&asked, &each, None).verdict, Verdict::Unknown);
        assert_eq!(
            room(&asked, &BTreeMap::new(), Some(1.0)).verdict,
            Verdict::Unknown
        );
    }

    #[test]
    fn the_fifty_first_environment_needs_a_load_balancer_of_its_own() {
        let rule = |listener: Value| {
            let group = |half: &str| json!({ "TargetGroupArn": { "Ref": format!("{half}Targets") } });
            let forward = json!({ "Type": "forward", "ForwardConfig": { "TargetGroups": [group("Blue"), group("Green")] } });
            let own = json!({ "ListenerArn": listener, "Actions": [forward] });
            let mut template = Template::new("");
            for id in ["Rule", "PlainRule"] {
                template.add(Resource::new(
                    id,
                    "AWS::ElasticLoadBalancingV2::ListenerRule",
                    "",
                    own.clone(),
                ));
            }
            template
        };
        assert_eq!(
            shared(&rule(
                json!({ "Fn::ImportValue": "vend-production-HttpsListener" })
            )),
            2
        );
        assert_eq!(shared(&rule(json!({ "Ref": "HttpsListener" }))), 0);
        assert_eq!(behind(98, 2).verdict, Verdict::Good);
        let full = behind(100, 2);
        assert_eq!(full.verdict, Verdict::Bad);
        assert!(full.said.contains("dedicated_balancer"), "{}", full.said);
    }

    /// The shape of GetOutpostInstanceTypes' answer: moto has no Outposts.
    #[test]
    fn an_outpost_without_slots_for_a_type_is_bad_with_what_it_has() {
        let arn = "arn:aws:outposts:eu-central-1:123456789012:outpost/op-0123456789abcdef0";
        let mut foundation = Template::new("");
        let subnet = json!({ "OutpostArn": arn, "AvailabilityZone": "eu-central-1b" });
        foundation.add(Resource::new(
            "Op0123456789abcdef0PrivateSubnet",
            "AWS::EC2::Subnet",
            "",
            subnet,
        ));
        let mut own = environment("m5.xlarge", Vec::new());
        let import = json!({ "VPCZoneIdentifier": { "Fn::ImportValue": "vend-production-Op0123456789abcdef0PrivateSubnets" } });
        own.add(Resource::new(
            "G",
            "AWS::AutoScaling::AutoScalingGroup",
            "",
            import,
        ));
        let elsewhere = environment("t4g.small", Vec::new());
        let all = [&foundation, &own, &elsewhere];
        let racks = racks(&all);
        assert_eq!((racks.len(), racks[0].id()), (1, "op-0123456789abcdef0"));
        assert!(racks[0].stands(&own) && !racks[0].stands(&elsewhere) && !racks[0].stands(&foundation));
        let page = json!({ "InstanceTypes": [{ "InstanceType": "m5.large" }, { "InstanceType": "c5.large" }],
            "OutpostId": "op-0123456789abcdef0", "OutpostArn": arn });
        let offered: BTreeSet<String> = types_of(&page).collect();
        let check = |kind: &str| slots(racks[0].id(), &BTreeSet::from([kind.to_owned()]), &offered);
        assert_eq!(check("m5.large").verdict, Verdict::Good);
        let bad = check("m5.xlarge");
        assert_eq!(bad.verdict, Verdict::Bad);
        assert!(
            bad.said.contains("has no m5.xlarge, but c5.large, m5.large"),
            "{}",
            bad.said
        );
    }
}
