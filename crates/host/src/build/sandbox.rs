//! The container of one build: what it stands on, what it sees, what its commands find in their environment.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, Ticket,
    port::{BuildOrder, GIT_CREDENTIALS, Resources},
};

use super::{Error, protocol::Job};
use crate::{
    base::network_environment,
    container::{Bind, Net, Output, Preset, Rootfs, Spec},
    layer::io_error,
    objects, tree,
};

/// Where the node's own program is in a container, as in a host.
const PROGRAM: &str = "/usr/lib/vend/vend";
/// Downloads that all builds of a tenant share.
pub(super) const DOWNLOADS: [&str; 3] = ["root/.cache/pip", "root/.npm", "var/cache/apt/archives"];

/// Where the source tree of an app is in its builds: always the same place, because tools write it into what they keep.
pub(super) fn source_directory(order: &BuildOrder) -> String {
    format!("/codebuild/output/src/{}", order.place.app)
}

/// Unpacks the source tree as a layer of its own: on top of the image, below what the build writes.
pub(super) fn unpack(
    objects: &objects::Directory,
    order: &BuildOrder,
    layer: &Utf8Path,
) -> Result<(), Error> {
    let directory = layer.join(source_directory(order).trim_start_matches('/'));
    fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
    let above = directory.ancestors().take_while(|path| path.starts_with(layer));
    for path in above {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io_error("change", path))?;
    }
    let mut object = objects.open_object(&order.source)?;
    tree::unpack(&mut object, &directory, &tree::Limits::SOURCE)?;
    Ok(object.finish()?)
}

/// What a container is made of.
pub(super) struct Parts<'a> {
    pub id: &'a str,
    pub order: &'a BuildOrder,
    /// Top first.
    pub lowers: Vec<Utf8PathBuf>,
    pub scratch: Utf8PathBuf,
    pub uid_base: u32,
    pub program: Utf8PathBuf,
    pub stdin: OwnedFd,
    pub output: OwnedFd,
}

pub(super) fn spec(parts: Parts<'_>) -> Spec {
    let limits = &parts.order.limits;
    Spec {
        id: parts.id.to_owned(),
        hostname: "build".to_owned(),
        rootfs: Rootfs {
            lowers: parts.lowers,
            scratch: parts.scratch,
            disk_mib: Some(limits.disk_mib),
        },
        uid_base: parts.uid_base,
        args: [PROGRAM, "build-runner"].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        cwd: "/".to_owned(),
        binds: vec![Bind {
            source: parts.program,
            target: PROGRAM.into(),
            read_only: true,
            id_mapped: true,
        }],
        resources: Resources {
            cpu: limits.cpu,
            memory_mib: limits.memory_mib,
            disk_mib: limits.disk_mib,
            pids: limits.pids,
        },
        network: Some(Net::Outside),
        preset: Preset::Build,
        stdin: Some(parts.stdin),
        output: Output::Fd(parts.output),
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the runner is told.
pub(super) fn job(ticket: &Ticket, order: &BuildOrder, image: Digest, retried: u32) -> Job {
    Job {
        buildspec: order.buildspec.clone(),
        variables: variables(ticket, order, image),
        secrets: order.secrets.clone(),
        source_directory: source_directory(order),
        project: order.place.app.to_string(),
        retried,
        mtime: u64::try_from(order.commit.committed_at.as_second()).unwrap_or(0),
    }
}

/// CodeBuild's variables, then the buildspec's, then the order's: the later wins, but for the reserved `CODEBUILD_`.
pub(super) fn variables(ticket: &Ticket, order: &BuildOrder, image: Digest) -> BTreeMap<String, String> {
    let mut all = network_environment();
    for (name, value) in [
        ("PATH", PATH),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LANG", "C.UTF-8"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.extend(order.buildspec.env.variables.clone());
    all.extend(order.task.iter().flat_map(|task| task.variables.clone()));
    all.extend(order.variables.clone());
    all.extend(git(order));
    all.extend(batch(order));
    all.extend(codebuild(ticket, order, image).map(|(name, value)| (name.to_owned(), value)));
    all
}

/// Git's own way to be configured by the environment: its helper answers for the repository's host, and no other.
fn git(order: &BuildOrder) -> Vec<(String, String)> {
    let host = order
        .commit
        .repository
        .split_once("://")
        .and_then(|(scheme, rest)| {
            let host = rest.split('/').next()?.rsplit('@').next()?;
            (!host.is_empty()).then(|| format!("{scheme}://{host}"))
        });
    let (true, Some(host)) = (order.secrets.contains_key(GIT_CREDENTIALS), host) else {
        return Vec::new();
    };
    let helper = format!(
        "!f() {{ test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \"${{{GIT_CREDENTIALS}%%:*}}\" \"${{{GIT_CREDENTIALS}#*:}}\"; }}; f"
    );
    [
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", format!("credential.{host}.helper")),
        ("GIT_CONFIG_VALUE_0", helper),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Which build of a batch this is.
fn batch(order: &BuildOrder) -> Vec<(String, String)> {
    let Some(task) = &order.task else {
        return Vec::new();
    };
    let mut all = vec![("CODEBUILD_BATCH_BUILD_IDENTIFIER", task.identifier.clone())];
    if let Some((shard, of)) = task.shard {
        all.push(("CODEBUILD_CURRENT_SHARD", shard.to_string()));
        all.push(("CODEBUILD_TOTAL_SHARDS", of.to_string()));
    }
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn codebuild(ticket: &Ticket, order: &BuildOrder, image: Digest) -> [(&'static str, String); 20] {
    // There is no region here; tools that insist on one get a name that reaches nothing.
    const REGION: &str = "local";
    let (commit, source) = (&order.commit, source_directory(order));
    let id = format!("{}-{}:{ticket}", order.place.tenant, order.place.app);
    [
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("CI", "true".to_owned()),
        (
            "CODEBUILD_BUILD_ARN",
            format!("arn:aws:codebuild:{REGION}:000000000000:build/{id}"),
        ),
        ("CODEBUILD_BUILD_ID", id),
        (
            "CODEBUILD_BUILD_IMAGE",
            format!("vend/standard:{}", image.short()),
        ),
        ("CODEBUILD_BUILD_NUMBER", order.number.to_string()),
        ("CODEBUILD_BUILD_SUCCEEDING", "1".to_owned()),
        ("CODEBUILD_INITIATOR", "vend".to_owned()),
        // The platform's own key keeps what it keeps; this is what scripts that print it get.
        ("CODEBUILD_KMS_KEY_ID", "alias/vend".to_owned()),
        ("CODEBUILD_LOG_PATH", format!("build/{ticket}")),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", commit.id.clone()),
        ("CODEBUILD_SOURCE_REPO_URL", commit.repository.clone()),
        ("CODEBUILD_SOURCE_VERSION", commit.id.clone()),
        ("CODEBUILD_SRC_DIR", source.clone()),
        ("CODEBUILD_START_TIME", crate::now().as_millisecond().to_string()),
        ("CODEBUILD_WEBHOOK_EVENT", "PUSH".to_owned()),
        (
            "CODEBUILD_WEBHOOK_HEAD_REF",
            format!("refs/heads/{}", commit.branch),
        ),
        ("CODEBUILD_WEBHOOK_TRIGGER", format!("branch/{}", commit.branch)),
        ("PWD", source),
    ]
}

/// The name of the downloads that all builds of a tenant share.
pub(super) fn downloads_name(order: &BuildOrder) -> String {
    format!("{}/builds", order.place.tenant)
}

/// The directories that a buildspec keeps between builds, relative to the container's root: the part of each path before
/// its first glob.
pub(super) fn kept(order: &BuildOrder) -> Vec<String> {
    let paths = order.buildspec.cache.paths.iter();
    let directories = paths.filter_map(|path| {
        let plain: Vec<&str> = path
            .split('/')
            .take_while(|part| !part.contains(['*', '?', '[', '{']))
            .collect();
        let plain = plain.join("/");
        let absolute = match plain.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{}/{plain}", source_directory(order).trim_start_matches('/')),
        };
        let parts: Vec<&str> = absolute
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        // Neither the whole disk nor the source tree itself is a cache.
        let is_source = parts.join("/") == source_directory(order).trim_start_matches('/');
        let honest = !parts.is_empty() && !parts.contains(&"..") && !is_source;
        honest.then(|| parts.join("/"))
    });
    directories.collect()
}

/// Where what a buildspec keeps is looked for and put.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CacheNames {
    /// In the order in which they are tried.
    pub restore: Vec<String>,
    pub save: Option<String>,
    /// What is under the name to save never changes.
    pub fixed: bool,
}

/// The branches whose caches a build may stand on: its own first, and the usual names of the one that all others come
/// from. What another branch left is never trusted.
fn branches(order: &BuildOrder) -> Vec<&str> {
    let own = order.commit.branch.as_str();
    let mut all = vec![own];
    all.extend(["main", "master"].into_iter().filter(|branch| *branch != own));
    all
}

/// The name of an app's own cache: one for each branch, so that a branch cannot put anything into another's builds.
pub(super) fn cache_name(order: &BuildOrder, branch: &str) -> String {
    let branch = Digest::of(branch).short();
    format!("{}/app-{}/{branch}", order.place.tenant, order.place.app)
}

/// Where a branch's caches with keys are.
pub(super) fn keyed(order: &BuildOrder, branch: &str) -> String {
    format!("{}-keys", cache_name(order, branch))
}

/// A buildspec's key and the beginnings that will do, expanded.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub key: String,
    pub fallback: Vec<String>,
}

/// `inner` tells which caches are below a name, the newest first.
pub(super) fn cache_names(
    order: &BuildOrder,
    keys: Option<&Keys>,
    inner: &dyn Fn(&str) -> Vec<String>,
) -> CacheNames {
    let cache = &order.buildspec.cache;
    let mut names = CacheNames::default();
    if cache.paths.is_empty() {
        return names;
    }
    let own = cache_name(order, &order.commit.branch);
    let Some(Keys { key, fallback }) = keys else {
        let all = branches(order)
            .into_iter()
            .map(|branch| cache_name(order, branch));
        names.restore = all.filter(|_| cache.restore).collect();
        names.save = cache.save.then_some(own);
        return names;
    };
    let exact = |branch: &str| format!("{}/{}", keyed(order, branch), hex::encode(key));
    let wanted: Vec<String> = fallback.iter().map(hex::encode).collect();
    for branch in branches(order).into_iter().filter(|_| cache.restore) {
        names.restore.push(exact(branch));
    }
    for branch in branches(order).into_iter().filter(|_| cache.restore) {
        let keyed = keyed(order, branch);
        let there = inner(&keyed);
        for wanted in &wanted {
            let alike = there.iter().filter(|name| name.starts_with(wanted.as_str()));
            names.restore.extend(alike.map(|name| format!("{keyed}/{name}")));
        }
    }
    names.save = cache.save.then(|| exact(&order.commit.branch));
    names.fixed = true;
    names
}
