//! What is there when all stacks are gone: images that bakes made, the last snapshots of databases, secrets that people set. No
//! stack holds them, and nobody sweeps them: each is told, with the command that ends it, because each costs something.

use serde::Serialize;

use crate::{
    call::{self, Call},
    client::{Client, Error, Form, Node},
    live,
};

/// One that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remain {
    /// `image`, `snapshot`, `secret`
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
    let rest = id
        .strip_prefix(&stack)
        .and_then(|rest| rest.strip_prefix("-snapshot-"));
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    rest.and_then(|rest| rest.split_once('-'))
        .is_some_and(|(resource, random)| is_word(resource) && is_word(random))
}

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
    use super::is_last;

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
}
