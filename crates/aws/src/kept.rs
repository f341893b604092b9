//! What stacks left that had the names of new ones: buckets, tables, images and zones that they kept, and last snapshots of
//! their databases. A new stack would stand beside it without its data, or cannot be made because a name is taken; so it is
//! asked for before.

use hyper::Method;
use serde::Serialize;
use serde_json::json;

use crate::{
    bucket, call,
    client::{Client, Error},
    destroy::{self, Left},
    plan::Wanted,
    remains,
    site::Site,
};

/// One that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The stack that had it, and the new one of that name.
    #[serde(skip)]
    pub stack: String,
    /// CloudFormation's type, or `snapshot`.
    pub kind: String,
    pub physical: String,
    /// Its name is the one that a new one would have.
    pub is_taken: bool,
}

/// What is there of the stacks that shall be made at a site.
pub async fn kept(site: &Site, new: &[&Wanted]) -> Result<Vec<Kept>, Error> {
    let names: Vec<&str> = new.iter().map(|own| own.name.as_str()).collect();
    let would_be = |stack: &str, left: &Left| {
        let own = new.iter().find(|own| own.name == stack);
        own.and_then(|own| own.template.resource(&left.id))
            .is_some_and(|own| own.kind == left.kind)
    };
    let mut all = Vec::new();
    for (stack, left) in destroy::left(site, &names).await? {
        if would_be(&stack, &left) && is_there(&site.client, &left).await? {
            all.push(Kept {
                stack,
                // The name of a zone may be given twice.
                is_taken: left.kind != "AWS::Route53::HostedZone",
                kind: left.kind,
                physical: left.physical,
            });
        }
    }
    let has_database = |own: &&&Wanted| {
        let mut all = own.template.resources.iter();
        all.any(|own| own.kind.starts_with("AWS::RDS::DB"))
    };
    let databases: Vec<&str> = new
        .iter()
        .filter(has_database)
        .map(|own| own.name.as_str())
        .collect();
    if !databases.is_empty() {
        let snapshots = remains::last_snapshots(&site.client, &databases).await?;
        all.extend(snapshots.into_iter().map(|(stack, id)| Kept {
            stack,
            kind: "snapshot".to_owned(),
            physical: id,
            is_taken: false,
        }));
    }
    Ok(all)
}

/// Somebody may have taken it away since. A key holds no data, and snapshots want it.
async fn is_there(client: &Client, left: &Left) -> Result<bool, Error> {
    let name = left.physical.as_str();
    let (asked, gone) = match left.kind.as_str() {
        "AWS::S3::Bucket" => return bucket::is_there(client, name).await,
        "AWS::DynamoDB::Table" => {
            let ask = json!({ "TableName": name });
            let asked = client.json(&call::DESCRIBE_TABLE, ask).await;
            (asked.map(drop), "ResourceNotFoundException")
        }
        "AWS::ECR::Repository" => {
            let ask = json!({ "repositoryNames": [name] });
            let asked = client.json(&call::DESCRIBE_REPOSITORIES, ask).await;
            (asked.map(drop), "RepositoryNotFoundException")
        }
        "AWS::Route53::HostedZone" => {
            let path = format!("{}/rrset", destroy::zone_path(name));
            let asked = client
                .rest(
                    &call::ZONE_RECORDS,
                    destroy::rest(Method::GET, path, Default::default()),
                )
                .await;
            (asked.map(drop), "NoSuchHostedZone")
        }
        _ => return Ok(false),
    };
    match asked {
        Ok(()) => Ok(true),
        Err(error) if error.code() == gone => Ok(false),
        Err(error) => Err(error),
    }
}
