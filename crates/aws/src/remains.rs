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
    all.extend(
        snapshots(
            client,
            owner,
            &call::SNAPSHOTS,
            ["DBSnapshots", "DBSnapshotIdentifier"],
        )
        .await?,
    );
    let clusters = ["DBClusterSnapshots", "DBClusterSnapshotIdentifier"];
    all.extend(snapshots(client, owner, &call::CLUSTER_SNAPSHOTS, clusters).await?);
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

/// CloudFormation calls a last snapshot after its stack.
async fn snapshots(
    client: &Client,
    owner: Owner<'_>,
    call: &Call,
    [list, name]: [&str; 2],
) -> Result<Vec<Remain>, Error> {
    let (what, flag) = match list {
        "DBSnapshots" => ("delete-db-snapshot", "--db-snapshot-identifier"),
        _ => ("delete-db-cluster-snapshot", "--db-cluster-snapshot-identifier"),
    };
    let region = client.region();
    let is_own = |id: &str| {
        let mut stacks = owner.stacks.iter();
        stacks.any(|stack| id.strip_prefix(stack).is_some_and(|rest| rest.starts_with('-')))
    };
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let mut form = Form::default();
        form.add("SnapshotType", "manual")
            .maybe("Marker", marker.as_deref());
        let page = client.query(call, form).await?;
        let ids = page.list(list).map(|own| own.text(name).to_owned());
        all.extend(ids.filter(|id| is_own(id)).map(|id| Remain {
            kind: "snapshot",
            command: format!("aws rds {what} --region {region} {flag} {id}"),
            id,
        }));
        marker = page.maybe("Marker");
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// Ids of the last snapshots of these stacks, of machines and of clusters.
pub async fn last_snapshots(client: &Client, stacks: &[&str]) -> Result<Vec<String>, Error> {
    let owner = Owner {
        platform: "",
        foundation: "",
        app: "",
        stacks,
    };
    let clusters = ["DBClusterSnapshots", "DBClusterSnapshotIdentifier"];
    let machines = ["DBSnapshots", "DBSnapshotIdentifier"];
    let mut all = snapshots(client, owner, &call::SNAPSHOTS, machines).await?;
    all.extend(snapshots(client, owner, &call::CLUSTER_SNAPSHOTS, clusters).await?);
    Ok(all.into_iter().map(|own| own.id).collect())
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
