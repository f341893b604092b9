//! Hosts of an environment: which there are, whether they are well, and how many there shall be.

use serde::Serialize;
use serde_json::json;

use super::half::Half;
use crate::{
    call,
    client::{Client, Error, Form, Node},
    stack::Stack,
};

/// A host or container, as the load balancer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// `i-…`, or a container's address.
    pub id: String,
    /// The load balancer's word: `healthy`, `initial`, `unhealthy`, `draining`.
    pub health: String,
    pub why: Option<String>,
}

/// Between which numbers a half's hosts may be, and how many are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    pub least: u32,
    pub most: u32,
    pub desired: u32,
}

fn output(stack: &Stack, id: &str) -> Option<String> {
    let mut all = stack.outputs.iter();
    all.find(|own| own.id == id).map(|own| own.value.clone())
}

/// The hosts of a half.
pub async fn hosts(client: &Client, stack: &Stack, half: &Half) -> Result<Vec<Host>, Error> {
    let Some(arn) = output(stack, &half.id("TargetsArn")) else {
        return members(client, stack, half).await;
    };
    let mut form = Form::default();
    form.add("TargetGroupArn", &arn);
    let answer = client.query(&call::HEALTH, form).await?;
    let all = answer.list("TargetHealthDescriptions").map(|node| {
        let health = |path: &str| {
            let found = node.at(&["TargetHealth", path]);
            found.map(|own| own.text.clone()).filter(|text| !text.is_empty())
        };
        Host {
            id: node
                .at(&["Target", "Id"])
                .map_or_else(String::new, |own| own.text.clone()),
            health: health("State").unwrap_or_default(),
            why: health("Description"),
        }
    });
    Ok(all.collect())
}

/// The hosts of a half that no load balancer sees, as their group does: a host whose app stays unwell says so there.
async fn members(client: &Client, stack: &Stack, half: &Half) -> Result<Vec<Host>, Error> {
    let Some(name) = output(stack, &half.id("GroupName")) else {
        return Ok(Vec::new());
    };
    let mut form = Form::default();
    form.list("AutoScalingGroupNames.member", [name.as_str()]);
    let answer = client.query(&call::GROUPS, form).await?;
    let group = answer.list("AutoScalingGroups").next();
    Ok(group
        .into_iter()
        .flat_map(|group| group.list("Instances").map(member))
        .collect())
}

/// One of a group, in the load balancer's words.
fn member(node: &Node) -> Host {
    let state = node.text("LifecycleState");
    let health = match (state, node.text("HealthStatus")) {
        ("InService", "Healthy") => "healthy",
        (state, _) if state.starts_with("Pending") => "initial",
        (state, _) if state.starts_with("Terminat") => "draining",
        _ => "unhealthy",
    };
    Host {
        id: node.text("InstanceId").to_owned(),
        health: health.to_owned(),
        why: Some(state.to_owned()).filter(|_| health != "healthy"),
    }
}

/// The size of a half's group of hosts. None: it runs containers, or there is no such group.
pub async fn size(client: &Client, stack: &Stack, half: &Half) -> Result<Option<Size>, Error> {
    let Some(name) = output(stack, &half.id("GroupName")) else {
        return Ok(None);
    };
    let mut form = Form::default();
    form.list("AutoScalingGroupNames.member", [name.as_str()]);
    let answer = client.query(&call::GROUPS, form).await?;
    let number = |text: &str| text.parse().unwrap_or(0);
    let found = answer.list("AutoScalingGroups").next().map(|node| Size {
        least: number(node.text("MinSize")),
        most: number(node.text("MaxSize")),
        desired: number(node.text("DesiredCapacity")),
    });
    Ok(found)
}

/// Asks for so many hosts or containers of a half. AWS makes them, or takes them away, in its own time.
pub async fn scale(client: &Client, stack: &Stack, half: &Half, count: u32) -> Result<(), Error> {
    let Some(name) = output(stack, &half.id("GroupName")) else {
        // The cluster is called as the stack, and its services as the halves.
        let ask =
            json!({ "cluster": stack.name, "service": half.word.to_lowercase(), "desiredCount": count });
        return client.json(&call::SCALE_SERVICE, ask).await.map(drop);
    };
    let mut form = Form::default();
    form.add("AutoScalingGroupName", &name)
        .add("DesiredCapacity", &count.to_string())
        .add("HonorCooldown", "false");
    client.query(&call::SCALE_GROUP, form).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_says_how_its_hosts_are_where_no_load_balancer_does() {
        for (state, said, health) in [
            ("InService", "Healthy", "healthy"),
            ("InService", "Unhealthy", "unhealthy"),
            ("Pending:Wait", "Healthy", "initial"),
            ("Terminating:Wait", "Healthy", "draining"),
            ("Standby", "Healthy", "unhealthy"),
        ] {
            let text = format!(
                "<member><InstanceId>i-1</InstanceId><LifecycleState>{state}</LifecycleState><HealthStatus>{said}</HealthStatus></member>"
            );
            let host = member(&Node::parse(text.as_bytes()).unwrap());
            assert_eq!(
                (host.id.as_str(), host.health.as_str()),
                ("i-1", health),
                "{state} {said}"
            );
        }
    }
}
