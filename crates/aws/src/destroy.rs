//! Takes stacks away, in the reverse order of their making, and what they have left. Nothing is forgotten on the way: what a
//! stack keeps is found again by CloudFormation's own record of it, so that a destruction that broke off goes on.

use std::cmp::Reverse;

use hyper::{Method, body::Bytes};
use serde::Serialize;
use serde_json::json;

use crate::{
    bucket, call,
    client::{Client, Error as Broken, Node, Rest},
    protect,
    site::{Found, Site},
    stack::{self, Event, Held, Stack, Status},
    synth::Kind,
    watch::{self, Cause, Pace},
};

/// Services go on writing logs for a while into a bucket that is being emptied.
const ROUNDS: usize = 5;
/// Days until a key is gone; the most that KMS takes.
const DAYS: u32 = 30;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] Broken),
    #[error("{0} is protected")]
    Protected(String),
}

/// How it went with one stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Gone,
    Failed { status: Status, cause: Option<Cause> },
}

/// What a stack left, or will leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub id: String,
    pub kind: String,
    pub physical: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum Fate {
    Deleted {
        objects: usize,
    },
    /// It was not there any more.
    Gone,
    /// Days until it goes.
    Scheduled {
        days: u32,
    },
    Kept {
        why: String,
    },
}

/// Types that a stack keeps when it goes, and that are deleted after it.
pub(crate) const KEPT: [&str; 5] = [
    "AWS::S3::Bucket",
    "AWS::DynamoDB::Table",
    "AWS::ECR::Repository",
    "AWS::Route53::HostedZone",
    "AWS::KMS::Key",
];

/// The order in which stacks go: flows, environments, pipelines, foundations.
pub fn order(mut found: Vec<Found>, kind: impl Fn(&Found) -> Kind) -> Vec<Found> {
    found.sort_by_key(|found| (Reverse(kind(found)), found.stack.name.clone()));
    found
}

/// Deletes a stack, and tells what it leaves. `start` names this attempt.
pub async fn destroy(
    site: &Site,
    stack: &Stack,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<(Outcome, Vec<Left>), Error> {
    if stack.is_protected {
        return Err(Error::Protected(stack.name.clone()));
    }
    let client = &site.client;
    let is_gone = stack.status.is_moving() && begun(client, stack, tell).await?;
    let held = stack::resources(client, &stack.id).await?;
    if is_gone {
        return Ok((Outcome::Gone, kept(held)));
    }
    let mut outcome = delete(client, (stack, &held), start, 1, tell).await?;
    if matches!(outcome, Outcome::Failed { .. }) && is_cleared(client, &stack.id).await? {
        outcome = delete(client, (stack, &held), start, 2, tell).await?;
    }
    Ok((outcome, kept(held)))
}

/// Waits for what somebody began who is gone: often this very destruction. Is the stack gone then?
async fn begun(client: &Client, stack: &Stack, tell: &mut dyn FnMut(&Event)) -> Result<bool, Broken> {
    let mark = watch::mark(client, &stack.id).await?;
    // After the mark: of what came to its end before there is no event to wait for.
    let mut now = stack::one(client, &stack.id).await?;
    if now.as_ref().is_some_and(|stack| stack.status.is_moving()) {
        let held = stack::resources(client, &stack.id).await?;
        protect::release(client, &held).await?;
        (now, _) = protect::wait(client, &stack.id, mark, &held, tell).await?;
    }
    Ok(now.is_none_or(|stack| stack.status.is_gone()))
}

fn kept(held: Vec<Held>) -> Vec<Left> {
    let ours = held
        .into_iter()
        .filter(|held| KEPT.contains(&held.kind.as_str()) && !held.physical.is_empty());
    ours.map(|held| Left {
        id: held.id,
        kind: held.kind,
        physical: held.physical,
    })
    .collect()
}

async fn delete(
    client: &Client,
    (stack, held): (&Stack, &[Held]),
    start: &str,
    attempt: u32,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let mark = watch::mark(client, &stack.id).await?;
    let text = format!("{start}|{}|{attempt}", stack.id);
    let token = format!("vend-destroy-{}", &crate::sign::digest(text.as_bytes())[..24]);
    protect::release(client, held).await?;
    // Without a role: CloudFormation takes the one that made the stack.
    stack::delete(client, &stack.id, None, &[], &token).await?;
    let (now, events) = protect::wait(client, &stack.id, mark, held, tell).await?;
    match now {
        Some(stack) if !stack.status.is_gone() => {
            let cause = watch::cause(&stack.name, &events);
            Ok(Outcome::Failed {
                status: stack.status,
                cause,
            })
        }
        _ => Ok(Outcome::Gone),
    }
}

/// Empties buckets that held a deletion up. Is there any sense in another try? What hangs on something else (a network on
/// the last address of a load balancer) is often gone the second time.
async fn is_cleared(client: &Client, stack: &str) -> Result<bool, Error> {
    let held = stack::resources(client, stack).await?;
    let stuck: Vec<Held> = held.into_iter().filter(|held| held.status.is_failure()).collect();
    for bucket in stuck.iter().filter(|held| held.kind == "AWS::S3::Bucket") {
        bucket::empty(client, &bucket.physical).await?;
    }
    Ok(!stuck.is_empty())
}

/// What destroyed stacks of these names have left, by CloudFormation's own record, each with its stack's name.
pub async fn left(site: &Site, names: &[&str]) -> Result<Vec<(String, Left)>, Broken> {
    let mut all = Vec::new();
    for (name, id) in stack::destroyed(&site.client, names).await? {
        for left in kept(stack::resources(&site.client, &id).await?) {
            let own = (name.clone(), left);
            if !all.contains(&own) {
                all.push(own);
            }
        }
    }
    Ok(all)
}

/// Deletes what a stack left. `forgets`: the key too, without which no snapshot of a database can be read any more.
pub async fn sweep(site: &Site, left: &Left, forgets: bool) -> Result<Fate, Error> {
    let client = &site.client;
    let name = left.physical.as_str();
    let deleted = Fate::Deleted { objects: 0 };
    match left.kind.as_str() {
        "AWS::S3::Bucket" => drain(client, name).await,
        "AWS::DynamoDB::Table" => {
            let done = client
                .json(&call::DELETE_TABLE, json!({ "TableName": name }))
                .await;
            fate(done.map(drop), deleted, &["ResourceNotFoundException"])
        }
        "AWS::ECR::Repository" => {
            let ask = json!({ "repositoryName": name, "force": true });
            let done = client.json(&call::DELETE_REPOSITORY, ask).await;
            fate(done.map(drop), deleted, &["RepositoryNotFoundException"])
        }
        "AWS::Route53::HostedZone" => fate(zone(client, name).await, deleted, &["NoSuchHostedZone"]),
        _ => key(client, name, forgets).await,
    }
}

fn fate(done: Result<(), Broken>, fate: Fate, gone: &[&str]) -> Result<Fate, Error> {
    match done {
        Ok(()) => Ok(fate),
        Err(error) if gone.contains(&error.code()) => Ok(Fate::Gone),
        Err(error) => Err(error.into()),
    }
}

async fn drain(client: &Client, name: &str) -> Result<Fate, Error> {
    let mut objects = 0;
    let mut pace = Pace::new();
    for round in 1.. {
        match bucket::empty(client, name).await? {
            None => return Ok(Fate::Gone),
            Some(gone) => objects += gone,
        }
        match bucket::remove(client, name).await {
            Ok(()) => break,
            Err(error) if error.code() == "BucketNotEmpty" && round < ROUNDS => pace.rest().await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Fate::Deleted { objects })
}

async fn key(client: &Client, id: &str, forgets: bool) -> Result<Fate, Error> {
    let found = client.json(&call::DESCRIBE_KEY, json!({ "KeyId": id })).await;
    let found = match found {
        Err(error) if error.code() == "NotFoundException" => return Ok(Fate::Gone),
        other => other?,
    };
    if found["KeyMetadata"]["KeyState"] == "PendingDeletion" {
        return Ok(Fate::Gone);
    }
    if !forgets {
        let why = "snapshots of databases cannot be read without it".to_owned();
        return Ok(Fate::Kept { why });
    }
    client
        .json(
            &call::DELETE_KEY,
            json!({ "KeyId": id, "PendingWindowInDays": DAYS }),
        )
        .await?;
    Ok(Fate::Scheduled { days: DAYS })
}

/// Deletes a zone with its records; those of certificates and hosts that are gone are all that can be in it.
async fn zone(client: &Client, id: &str) -> Result<(), Broken> {
    let path = zone_path(id);
    loop {
        let answer = client
            .rest(
                &call::ZONE_RECORDS,
                rest(Method::GET, format!("{path}/rrset"), Bytes::new()),
            )
            .await?;
        let page = Node::parse(&answer.body).unwrap_or_default();
        let records = page.list("ResourceRecordSets");
        // A zone's own two go with it.
        let own = |record: &&Node| !["NS", "SOA"].contains(&record.text("Type"));
        let changes: String = records.filter(own).map(removal).collect();
        if changes.is_empty() {
            break;
        }
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch>\
             <Changes>{changes}</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        client
            .rest(
                &call::CHANGE_RECORDS,
                rest(Method::POST, format!("{path}/rrset/"), body.into()),
            )
            .await?;
    }
    client
        .rest(&call::DELETE_ZONE, rest(Method::DELETE, path, Bytes::new()))
        .await
        .map(drop)
}

pub(crate) fn zone_path(id: &str) -> String {
    format!("/2013-04-01/hostedzone/{}", id.trim_start_matches("/hostedzone/"))
}

pub(crate) fn rest(method: Method, path: String, body: Bytes) -> Rest<'static> {
    Rest {
        method,
        bucket: None,
        path,
        query: String::new(),
        headers: Vec::new(),
        body,
    }
}

/// A record as a change that deletes it: exactly as it was read.
fn removal(record: &Node) -> String {
    format!("<Change><Action>DELETE</Action>{}</Change>", record.xml())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, action};

    fn answer(asked: &str, before: &[String]) -> String {
        let is_done = before.iter().any(|own| action(own) == "DeleteStack");
        let status = if is_done {
            "DELETE_COMPLETE"
        } else {
            "UPDATE_COMPLETE"
        };
        match asked {
            "ListStackResources" => fixtures::GROUP_HELD.to_owned(),
            "DescribeAutoScalingGroups" => fixtures::GROUP.to_owned(),
            "DescribeStacks" => format!(
                "<Stacks><member><StackName>shop</StackName><StackId>arn</StackId><StackStatus>{status}</StackStatus>\
                 <CreationTime>2026-01-01T00:00:00Z</CreationTime></member></Stacks>"
            ),
            "DescribeStackEvents" => format!(
                "<StackEvents><member><EventId>{status}</EventId><LogicalResourceId>shop</LogicalResourceId>\
                 <ResourceStatus>{status}</ResourceStatus></member></StackEvents>"
            ),
            _ => String::new(),
        }
    }

    #[tokio::test]
    async fn hosts_of_containers_that_were_protected_hold_no_destruction_up() {
        let (address, forms) = fixtures::service(answer);
        let site = Site::new(Client::at(address));
        let stack = stack::one(&site.client, "shop").await.unwrap().unwrap();
        let (outcome, left) = destroy(&site, &stack, "t", &mut |_| {}).await.unwrap();
        assert_eq!((outcome, left), (Outcome::Gone, Vec::new()));
        let forms = forms.lock().unwrap().clone();
        assert_eq!(fixtures::released(&forms), ["i-1"]);
        let at = |name: &str| forms.iter().position(|own| action(own) == name);
        assert!(at("SetInstanceProtection") < at("DeleteStack"), "{forms:?}");
    }

    /// An earlier attempt began it, and was cut short.
    #[tokio::test]
    async fn a_destruction_that_is_under_way_is_told_and_not_held_up() {
        let ends = |asked: &str, before: &[String]| {
            let is_free = before.iter().any(|own| action(own) == "SetInstanceProtection");
            let event = |status: &str| {
                format!(
                    "<member><EventId>{status}</EventId><LogicalResourceId>shop</LogicalResourceId>\
                     <ResourceStatus>{status}</ResourceStatus></member>"
                )
            };
            let new = if is_free {
                "DELETE_COMPLETE"
            } else {
                "DELETE_IN_PROGRESS"
            };
            match asked {
                "DescribeStacks" => answer(asked, before).replace("UPDATE_COMPLETE", new),
                "DescribeStackEvents" if is_free => {
                    let (new, old) = (event(new), event("DELETE_IN_PROGRESS"));
                    format!("<StackEvents>{new}{old}</StackEvents>")
                }
                "DescribeStackEvents" => format!("<StackEvents>{}</StackEvents>", event(new)),
                _ => answer(asked, before),
            }
        };
        let (address, forms) = fixtures::service(ends);
        let site = Site::new(Client::at(address));
        let stack = stack::one(&site.client, "shop").await.unwrap().unwrap();
        let mut told = Vec::new();
        let mut tell = |event: &Event| told.push(event.status.0.clone());
        let (outcome, left) = destroy(&site, &stack, "t", &mut tell).await.unwrap();
        assert_eq!((outcome, left), (Outcome::Gone, Vec::new()));
        assert_eq!(told, ["DELETE_COMPLETE"]);
        let forms = forms.lock().unwrap().clone();
        assert_eq!(fixtures::released(&forms), ["i-1"]);
        assert!(!forms.iter().any(|own| action(own) == "DeleteStack"), "{forms:?}");
    }
}
