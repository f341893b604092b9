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
    /// CloudFormation's type, or `snapshot`.
    pub kind: String,
    pub physical: String,
    /// Its name is the one that a new one would have.
    pub is_taken: bool,
}

/// What is there of the stacks that shall be made at a site. `known`: the names of all stacks of the files, by which it is told
/// whose a snapshot is.
pub async fn kept(site: &Site, new: &[&Wanted], known: &[&str]) -> Result<Vec<Kept>, Error> {
    let names: Vec<&str> = new.iter().map(|own| own.name.as_str()).collect();
    let would_be = |left: &Left| {
        let mut all = new.iter().filter_map(|own| own.template.resource(&left.id));
        all.any(|own| own.kind == left.kind)
    };
    let mut all: Vec<Kept> = Vec::new();
    for left in destroy::left(site, &names)
        .await?
        .iter()
        .filter(|left| would_be(left))
    {
        if is_there(&site.client, left).await? {
            all.push(Kept {
                kind: left.kind.clone(),
                physical: left.physical.clone(),
                // The name of a zone may be given twice.
                is_taken: left.kind != "AWS::Route53::HostedZone",
            });
        }
    }
    let has_database = |own: &&&Wanted| {
        let mut all = own.template.resources.iter();
        all.any(|own| own.kind.starts_with("AWS::RDS::DB"))
    };
    let mut bases = new
        .iter()
        .filter(has_database)
        .map(|own| own.name.as_str())
        .peekable();
    if bases.peek().is_some() {
        let snapshots = remains::last_snapshots(&site.client, known).await?;
        let own = bases.flat_map(|base| of(&snapshots, base, known)).map(|id| Kept {
            kind: "snapshot".to_owned(),
            physical: id,
            is_taken: false,
        });
        all.extend(own);
    }
    Ok(all)
}

/// Of snapshots those of one stack: their names begin with its, and with no longer one's.
fn of(snapshots: &[String], stack: &str, known: &[&str]) -> Vec<String> {
    let begins = |id: &str, name: &str| id.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let is_own = |id: &&String| {
        let longer = known
            .iter()
            .any(|name| name.len() > stack.len() && begins(id, name));
        begins(id, stack) && !longer
    };
    snapshots.iter().filter(is_own).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_snapshot_is_of_the_stack_with_the_longest_name() {
        let ids = [
            "a-live-snapshot-database-1",
            "a-live-2-snapshot-database-1",
            "a-livelier-x",
        ]
        .map(str::to_owned);
        let known = ["a-live", "a-live-2"];
        assert_eq!(of(&ids, "a-live", &known), [ids[0].as_str()]);
        assert_eq!(of(&ids, "a-live-2", &known), [ids[1].as_str()]);
        assert_eq!(of(&ids, "a", &known), [ids[2].as_str()], "of neither longer name");
    }
}
