//! Whether stacks can be deleted, with the load balancers and databases in them.

use crate::{
    call,
    client::{Client, Error, Form},
    site::Site,
    stack::{self, Held, Stack},
};

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

async fn switch(client: &Client, held: &Held, on: bool) -> Result<bool, Error> {
    let word = if on { "true" } else { "false" };
    let mut form = Form::default();
    let call = match held.kind.as_str() {
        _ if held.physical.is_empty() => return Ok(false),
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
        Err(error) => Err(error),
    }
}
