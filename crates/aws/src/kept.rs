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
    synth::Template,
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

/// What of a template stays when its stack goes, as a template of its own, with which CloudFormation's import begins a stack that
/// takes it back. It has nothing else: an import makes no resource and adds no output. None: nothing stays.
pub fn import(template: &Template) -> Option<Template> {
    let all = template.resources.iter();
    let stays = all.filter(|own| own.is_retained() && destroy::KEPT.contains(&own.kind));
    let ids: Vec<&str> = stays.map(|own| own.id.as_str()).collect();
    if ids.is_empty() {
        return None;
    }
    let mut part = template.part(&ids);
    part.parameters.clear();
    part.conditions.clear();
    part.outputs.clear();
    Some(part)
}

/// Somebody may have taken it away since. A key holds no data, and snapshots want it.
pub async fn is_there(client: &Client, left: &Left) -> Result<bool, Error> {
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
    use super::*;
    use crate::synth;

    /// An import makes nothing, so nothing may be in it that has to be made.
    #[test]
    fn what_stays_names_nothing_that_goes() {
        let config: synth::Config =
            toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
                .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        let part = import(&stack.template).unwrap();
        let ids: Vec<&str> = part.resources.iter().map(|own| own.id.as_str()).collect();
        assert_eq!(
            ids,
            ["Key", "LogsBucket", "ArtifactsBucket", "TemplatesBucket", "Zone"]
        );
        assert!(part.resources.iter().all(|own| destroy::KEPT.contains(&own.kind)));
        let body = part.body();
        for other in ["Outputs", "Parameters", "Conditions"] {
            assert!(body.get(other).is_none(), "{other}");
        }
        assert!(import(&Template::new("nothing")).is_none());
    }
}
