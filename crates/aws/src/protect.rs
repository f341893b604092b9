//! Whether stacks can be deleted, with the load balancers, databases and hosts in them.

use std::time::Duration;

use crate::{
    call,
    client::{Client, Error, Form, Node},
    site::Site,
    stack::{self, Event, Held, Stack},
    watch,
};

/// The group of hosts of containers. Earlier versions protected each of its hosts, and had ECS do it.
pub(crate) const HOSTS: &str = "CapacityGroup";
/// As many hosts as one call takes.
const MOST: usize = 50;
/// Until hosts are looked at again.
const PAUSE: Duration = Duration::from_secs(30);

/// Switches protection on or off; gives the ids of the resources that it was switched for beside the stack itself.
pub async fn protect(site: &Site, stack: &Stack, on: bool) -> Result<Vec<String>, Error> {
    let client = &site.client;
    let mut switched = Vec::new();
    for held in stack::resources(client, &stack.id).await? {
        if switch(client, &held, on).await? {
            switched.push(held.id);
        }
    }
    // Last: when something else refuses, the stack is as protected as before.
    if stack.is_protected != on {
        stack::protect(client, &stack.name, on).await?;
    }
    Ok(switched)
}

/// Types of which AWS deletes none that is protected.
pub(crate) const GUARDED: [&str; 3] = [
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::RDS::DBInstance",
    "AWS::RDS::DBCluster",
];
/// What AWS says of such a resource that is not there: a stack tells for a while of what it held before.
const NONE_THERE: [&str; 3] = [
    "LoadBalancerNotFound",
    "DBInstanceNotFound",
    "DBClusterNotFoundFault",
];

/// Switches one resource's protection. False: it has none, or is not there any more.
pub(crate) async fn switch(client: &Client, held: &Held, on: bool) -> Result<bool, Error> {
    let word = if on { "true" } else { "false" };
    let mut form = Form::default();
    let call = match held.kind.as_str() {
        _ if held.physical.is_empty() || held.status.is_out() => return Ok(false),
        "AWS::ElasticLoadBalancingV2::LoadBalancer" => {
            form.add("LoadBalancerArn", &held.physical);
            form.add("Attributes.member.1.Key", "deletion_protection.enabled");
            form.add("Attributes.member.1.Value", word);
            call::BALANCER_ATTRIBUTES
        }
        "AWS::RDS::DBInstance" => {
            form.add("DBInstanceIdentifier", &held.physical)
                .add("DeletionProtection", word);
            form.add("ApplyImmediately", "true");
            call::MODIFY_DATABASE
        }
        "AWS::RDS::DBCluster" => {
            form.add("DBClusterIdentifier", &held.physical)
                .add("DeletionProtection", word);
            form.add("ApplyImmediately", "true");
            call::MODIFY_CLUSTER
        }
        _ => return Ok(false),
    };
    match client.query(&call, form).await {
        Ok(_) => Ok(true),
        // An Aurora instance is protected by its cluster.
        Err(error) if error.code() == "InvalidParameterCombination" => Ok(false),
        Err(error) if NONE_THERE.contains(&error.code()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Is the resource protected? False too if there is nothing to protect, or it is not there any more.
pub(crate) async fn is_on(client: &Client, held: &Held) -> Result<bool, Error> {
    let mut form = Form::default();
    let (call, id, list) = match held.kind.as_str() {
        _ if held.physical.is_empty() || held.status.is_out() => return Ok(false),
        "AWS::ElasticLoadBalancingV2::LoadBalancer" => {
            (call::BALANCER_STATE, "LoadBalancerArn", "Attributes")
        }
        "AWS::RDS::DBInstance" => (call::DATABASE_STATE, "DBInstanceIdentifier", "DBInstances"),
        "AWS::RDS::DBCluster" => (call::CLUSTER_STATE, "DBClusterIdentifier", "DBClusters"),
        _ => return Ok(false),
    };
    form.add(id, &held.physical);
    let answer = match client.query(&call, form).await {
        Err(error) if NONE_THERE.contains(&error.code()) => return Ok(false),
        other => other?,
    };
    let is_on = |own: &Node| match own.text("Key") {
        "deletion_protection.enabled" => own.text("Value") == "true",
        _ => own.text("DeletionProtection") == "true",
    };
    Ok(answer.list(list).any(is_on))
}

/// Lets the hosts of containers go that are protected from it. A group that shrinks, or is deleted, would wait for them for ever.
pub(crate) async fn release(client: &Client, held: &[Held]) -> Result<(), Error> {
    let is_group = |held: &&Held| held.id == HOSTS && !held.physical.is_empty();
    for group in held.iter().filter(is_group) {
        let mut form = Form::default();
        form.list("AutoScalingGroupNames.member", [group.physical.as_str()]);
        let answer = client.query(&call::GROUPS, form).await?;
        let groups = answer.list("AutoScalingGroups");
        let hosts: Vec<&str> = groups
            .flat_map(|group| group.list("Instances"))
            .filter(|host| is_protected(host))
            .map(|host| host.text("InstanceId"))
            .collect();
        for some in hosts.chunks(MOST) {
            let_go(client, &group.physical, some).await?;
        }
    }
    Ok(())
}

/// Lets these go. Where one of them went meanwhile AWS refuses it for all; then each is asked for alone.
async fn let_go(client: &Client, group: &str, hosts: &[&str]) -> Result<(), Error> {
    let each = match ask(client, group, hosts).await {
        Err(error) if error.code() == "ValidationError" && hosts.len() > 1 => hosts.chunks(1),
        other => return or_gone(other),
    };
    for host in each {
        or_gone(ask(client, group, host).await)?;
    }
    Ok(())
}

async fn ask(client: &Client, group: &str, hosts: &[&str]) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("AutoScalingGroupName", group)
        .add("ProtectedFromScaleIn", "false");
    form.list("InstanceIds.member", hosts.iter().copied());
    client.query(&call::RELEASE_HOSTS, form).await.map(drop)
}

/// A host that went, or whose group did, needs nothing.
fn or_gone(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if error.code() == "ValidationError" => Ok(()),
        other => other,
    }
}

/// Whoever is on the way out cannot be asked for anything.
fn is_protected(host: &Node) -> bool {
    host.text("ProtectedFromScaleIn") == "true" && host.text("LifecycleState") == "InService"
}

/// Waits as [`watch::wait`] does. Of what is `held` the hosts of containers go meanwhile: ECS protects those that get containers,
/// and the group those that are new, where their stack is of an earlier version.
pub(crate) async fn wait(
    client: &Client,
    id: &str,
    mark: Option<String>,
    held: &[Held],
    tell: &mut dyn FnMut(&Event),
) -> Result<(Option<Stack>, Vec<Event>), Error> {
    tokio::select! {
        done = watch::wait(client, id, mark, tell) => done,
        error = Box::pin(releasing(client, held, PAUSE)) => Err(error),
    }
}

/// Lets hosts go from time to time. It ends with an error only.
async fn releasing(client: &Client, held: &[Held], pause: Duration) -> Error {
    if held.iter().all(|held| held.id != HOSTS) {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = release(client, held).await {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{self, action},
        stack::Status,
    };

    fn held() -> Vec<Held> {
        vec![Held {
            id: HOSTS.into(),
            kind: "AWS::AutoScaling::AutoScalingGroup".into(),
            physical: "shop-CapacityGroup-1".into(),
            status: Status("CREATE_COMPLETE".into()),
        }]
    }

    /// How often hosts were to be let go.
    fn tries(forms: &[String]) -> usize {
        let tries = forms.iter().filter(|own| action(own) == "SetInstanceProtection");
        tries.count()
    }

    fn refused(code: &str) -> String {
        format!("<Error><Code>{code}</Code><Message>m</Message></Error>")
    }

    fn host(id: &str) -> String {
        format!(
            "<member><InstanceId>{id}</InstanceId><LifecycleState>InService</LifecycleState>\
             <ProtectedFromScaleIn>true</ProtectedFromScaleIn></member>"
        )
    }

    /// A creation that was rolled back, and a database that somebody deleted by hand.
    #[tokio::test]
    async fn what_is_gone_hinders_no_switch() {
        let answer = |asked: &str, _: &[String]| {
            let held = |kind: &str, physical: &str, status: &str| {
                format!(
                    "<member><LogicalResourceId>{physical}</LogicalResourceId><PhysicalResourceId>{physical}</PhysicalResourceId>\
                     <ResourceType>{kind}</ResourceType><ResourceStatus>{status}</ResourceStatus></member>"
                )
            };
            match asked {
                "ListStackResources" => {
                    let [balancer, instance, cluster] = GUARDED;
                    let all = [
                        held(balancer, "rolled-back", "DELETE_COMPLETE"),
                        held(balancer, "retained", "DELETE_SKIPPED"),
                        held(balancer, "lost", "CREATE_COMPLETE"),
                        held(instance, "lost", "CREATE_COMPLETE"),
                        held(cluster, "stays", "UPDATE_COMPLETE"),
                    ];
                    format!(
                        "<StackResourceSummaries>{}</StackResourceSummaries>",
                        all.concat()
                    )
                }
                "ModifyLoadBalancerAttributes" => refused("LoadBalancerNotFound"),
                "ModifyDBInstance" => refused("DBInstanceNotFound"),
                _ => String::new(),
            }
        };
        let (address, forms) = fixtures::service(answer);
        let site = Site::new(Client::at(address));
        let stack = Stack::fixture("UPDATE_COMPLETE");
        assert_eq!(protect(&site, &stack, true).await.unwrap(), ["stays"]);
        let forms = forms.lock().unwrap().clone();
        assert!(
            forms
                .iter()
                .all(|own| !own.contains("rolled-back") && !own.contains("retained")),
            "{forms:?}"
        );
        assert_eq!(action(forms.last().unwrap()), "UpdateTerminationProtection");
    }

    #[tokio::test]
    async fn a_host_that_went_meanwhile_keeps_no_other() {
        // The second of three is not in service any more when they are asked for.
        let answer = |asked: &str, before: &[String]| match (asked, tries(before)) {
            ("DescribeAutoScalingGroups", _) => {
                let hosts: String = ["i-1", "i-2", "i-3"].into_iter().map(host).collect();
                format!(
                    "<AutoScalingGroups><member><Instances>{hosts}</Instances></member></AutoScalingGroups>"
                )
            }
            (_, 0 | 2) => refused("ValidationError"),
            _ => String::new(),
        };
        let (address, forms) = fixtures::service(answer);
        release(&Client::at(address), &held()).await.unwrap();
        let forms = forms.lock().unwrap().clone();
        assert_eq!(
            fixtures::released(&forms),
            ["i-1", "i-2", "i-3", "i-1", "i-2", "i-3"]
        );
        assert_eq!(tries(&forms), 4);
    }

    #[tokio::test]
    async fn hosts_are_let_go_again_and_again_until_that_is_refused() {
        let answer = |asked: &str, before: &[String]| match (asked, tries(before)) {
            ("DescribeAutoScalingGroups", _) => fixtures::GROUP.to_owned(),
            (_, 2) => refused("AccessDenied"),
            _ => String::new(),
        };
        let (address, forms) = fixtures::service(answer);
        let error = releasing(&Client::at(address), &held(), Duration::ZERO).await;
        assert!(error.is_denied(), "{error}");
        assert_eq!(tries(&forms.lock().unwrap()), 3);
    }
}
