//! What is there when all stacks are gone: images that bakes made, the last snapshots of databases, the backups and logs that RDS
//! keeps of them, secrets that people set. No stack holds them, and nobody sweeps them: each is told, with the command that ends
//! it, because each costs something.

use serde::Serialize;
use serde_json::json;

use crate::{
    call::{self, Call},
    client::{Client, Error, Form, Node},
    live,
};

/// One that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remain {
    /// `image`, `snapshot`, `backup`, `log-group`, `secret`
    pub kind: &'static str,
    pub id: String,
    /// Ends it, with AWS's command line.
    pub command: String,
}

/// Whose remains are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub platform: &'a str,
    pub foundation: &'a str,
    pub app: &'a str,
    /// The stacks of its environments here.
    pub stacks: &'a [&'a str],
}

/// What an app has left at one place, by kinds.
pub async fn remains(client: &Client, owner: Owner<'_>) -> Result<Vec<Remain>, Error> {
    let mut all = images(client, owner).await?;
    let snapshots = snapshots(client, owner.stacks).await?;
    all.extend(snapshots.into_iter().map(|(_, own)| own));
    all.extend(backups(client, owner.stacks).await?);
    all.extend(logs(client, owner.stacks).await?);
    all.extend(secrets(client, owner).await?);
    Ok(all)
}

/// Images by their tags, which copies of another account have too.
async fn images(client: &Client, owner: Owner<'_>) -> Result<Vec<Remain>, Error> {
    let mut form = Form::default();
    form.add("Owner.1", "self");
    for (n, (tag, value)) in [("platform", owner.platform), ("app", owner.app)]
        .into_iter()
        .enumerate()
    {
        let filter = format!("Filter.{}", n + 1);
        form.add(&format!("{filter}.Name"), &format!("tag:vend:{tag}"));
        form.add(&format!("{filter}.Value.1"), value);
    }
    let answer = client.query(&call::IMAGES, form).await?;
    let region = client.region();
    let one = |image: &Node| {
        let id = image.text("imageId").to_owned();
        let command = format!(
            "aws ec2 deregister-image --delete-associated-snapshots --region {region} --image-id {id}"
        );
        Remain {
            kind: "image",
            id,
            command,
        }
    };
    Ok(answer.list("imagesSet").map(one).collect())
}

/// Is this the last snapshot that CloudFormation made of a database of this stack? It names them
/// `STACK-Snapshot-ID-RANDOM`, with the id in the template and letters and digits, and RDS writes names in lower case. Others'
/// names go on from a stack's, too: those of another stack of a longer name, and of snapshots that people made.
fn is_last(id: &str, stack: &str) -> bool {
    let stack = stack.to_lowercase();
    let rest = id.strip_prefix(&stack);
    rest.and_then(|rest| rest.strip_prefix("-snapshot-"))
        .is_some_and(is_made)
}

/// Was this the database, or the cluster of databases, of this stack? CloudFormation names it `STACK-ID-RANDOM`, and cuts the
/// names of long stacks: those are not known again.
fn is_of(id: &str, stack: &str) -> bool {
    let stack = stack.to_lowercase();
    let rest = id.strip_prefix(&stack);
    rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(is_made)
}

/// How CloudFormation ends the names that it gives: with an id and letters and digits.
fn is_made(rest: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    rest.split_once('-')
        .is_some_and(|(resource, random)| is_word(resource) && is_word(random))
}

/// As many groups of logs as are looked at for one stack; it has a few.
const MOST: usize = 1_000;

/// A kind of snapshot: how it is asked for, its list and its id in the answer, what deletes it, by which id.
type Kind = (&'static Call, [&'static str; 4]);

const KINDS: [Kind; 2] = [
    (
        &call::SNAPSHOTS,
        [
            "DBSnapshots",
            "DBSnapshotIdentifier",
            "delete-db-snapshot",
            "--db-snapshot-identifier",
        ],
    ),
    (
        &call::CLUSTER_SNAPSHOTS,
        [
            "DBClusterSnapshots",
            "DBClusterSnapshotIdentifier",
            "delete-db-cluster-snapshot",
            "--db-cluster-snapshot-identifier",
        ],
    ),
];

/// The last snapshots of these stacks, each with its stack's name.
async fn snapshots(client: &Client, stacks: &[&str]) -> Result<Vec<(String, Remain)>, Error> {
    let region = client.region();
    let mut all = Vec::new();
    for (call, [list, name, deletes, flag]) in KINDS {
        for id in ids(client, call, [list, name]).await? {
            if let Some(stack) = stacks.iter().find(|stack| is_last(&id, stack)) {
                let own = Remain {
                    kind: "snapshot",
                    command: format!("aws rds {deletes} --region {region} {flag} {id}"),
                    id,
                };
                all.push(((*stack).to_owned(), own));
            }
        }
    }
    Ok(all)
}

/// Ids of all snapshots of a kind that no schedule of RDS's made.
async fn ids(client: &Client, call: &Call, [list, name]: [&str; 2]) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let mut form = Form::default();
        form.add("SnapshotType", "manual")
            .maybe("Marker", marker.as_deref());
        let page = client.query(call, form).await?;
        all.extend(page.list(list).map(|own| own.text(name).to_owned()));
        marker = page.maybe("Marker");
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// Ids of the last snapshots of these stacks, of machines and of clusters, each with its stack's name.
pub async fn last_snapshots(client: &Client, stacks: &[&str]) -> Result<Vec<(String, String)>, Error> {
    let all = snapshots(client, stacks).await?;
    Ok(all.into_iter().map(|(stack, own)| (stack, own.id)).collect())
}

/// Backups that RDS made by a schedule of databases that are gone, and keeps for as long as it was told.
async fn backups(client: &Client, stacks: &[&str]) -> Result<Vec<Remain>, Error> {
    let region = client.region();
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let mut form = Form::default();
        form.add("Filters.Filter.1.Name", "status")
            .add("Filters.Filter.1.Values.Value.1", "retained")
            .maybe("Marker", marker.as_deref());
        let page = client.query(&call::AUTOMATED_BACKUPS, form).await?;
        for own in page.list("DBInstanceAutomatedBackups") {
            let id = own.text("DBInstanceIdentifier");
            // Not everybody who speaks the protocol knows the filter.
            let is_kept = own.text("Status") == "retained";
            if is_kept && stacks.iter().any(|stack| is_of(id, stack)) {
                let resource = own.text("DbiResourceId");
                all.push(Remain {
                    kind: "backup",
                    id: id.to_owned(),
                    command: format!(
                        "aws rds delete-db-instance-automated-backup --region {region} --dbi-resource-id {resource}"
                    ),
                });
            }
        }
        marker = page.maybe("Marker");
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// Groups of logs that RDS makes by itself, of databases and of clusters.
async fn logs(client: &Client, stacks: &[&str]) -> Result<Vec<Remain>, Error> {
    let region = client.region();
    let mut all = Vec::new();
    for (stack, kind) in stacks
        .iter()
        .flat_map(|stack| [(*stack, "instance"), (*stack, "cluster")])
    {
        let place = format!("/aws/rds/{kind}/");
        let ask = json!({ "logGroupNamePrefix": format!("{place}{}-", stack.to_lowercase()) });
        let found = live::pages(client, &call::LOG_GROUPS, &ask, "logGroups", MOST, "nextToken").await?;
        let names = found.iter().filter_map(|own| own["logGroupName"].as_str());
        let is_own = |name: &&str| {
            let id = name.strip_prefix(&place).and_then(|rest| rest.split('/').next());
            id.is_some_and(|id| is_of(id, stack))
        };
        all.extend(names.filter(is_own).map(|name| Remain {
            kind: "log-group",
            id: name.to_owned(),
            command: format!("aws logs delete-log-group --region {region} --log-group-name {name}"),
        }));
    }
    Ok(all)
}

/// Secrets by the beginning of their names, each with what is the app's own.
async fn secrets(client: &Client, owner: Owner<'_>) -> Result<Vec<Remain>, Error> {
    let prefix = format!("{}/{}/{}/", owner.platform, owner.foundation, owner.app);
    let shelf = live::vault::Shelf {
        prefix: &prefix,
        key: "",
    };
    let region = client.region();
    let named = live::vault::list(client, shelf).await?;
    let one = |name: &String| {
        let id = format!("{prefix}{name}");
        let command = format!("aws secretsmanager delete-secret --region {region} --secret-id {id}");
        Remain {
            kind: "secret",
            id,
            command,
        }
    };
    Ok(named.keys().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::{is_last, is_of};

    #[test]
    fn a_last_snapshot_is_of_one_stack() {
        let check = |id: &str, stack: &str, expected: bool| {
            assert_eq!(is_last(id, stack), expected, "{id} of {stack}");
        };
        let own = "vend-production-shop-live-snapshot-database-1k3jx0q2mz7a";
        check(own, "vend-production-shop-live", true);
        check(own, "vend-Production-shop-live", true);
        // Others', whose names go on or begin alike.
        let longer = "vend-production-shop-live-eu-snapshot-database-1k3jx0q2mz7a";
        check(longer, "vend-production-shop-live", false);
        check(longer, "vend-production-shop-live-eu", true);
        check(own, "vend-production-shop", false);
        let named = "vend-production-shop-live-snapshot-snapshot-database-1k3jx0q2mz7a";
        check(named, "vend-production-shop-live", false);
        check(named, "vend-production-shop-live-snapshot", true);
        // People's own.
        for rest in [
            "",
            "-before-v7",
            "-snapshot-",
            "-snapshot-database",
            "-snapshot-database-",
        ] {
            check(
                &format!("vend-production-shop-live{rest}"),
                "vend-production-shop-live",
                false,
            );
        }
    }

    #[test]
    fn a_database_is_of_one_stack() {
        let own = "vend-production-shop-live-database-1k3jx0q2mz7a";
        assert!(is_of(own, "vend-production-shop-live") && is_of(own, "vend-Production-shop-live"));
        for stack in [
            "vend-production-shop",
            "vend-production-shop-live-eu",
            "vend-production",
        ] {
            assert!(!is_of(own, stack), "{stack}");
        }
        for rest in ["", "-", "-database", "-database-", "-eu-database-1k3jx0q2mz7a"] {
            let id = format!("vend-production-shop-live{rest}");
            assert!(!is_of(&id, "vend-production-shop-live"), "{id}");
        }
    }
}
