//! The container of one build: what it stands on, what it sees, what its commands find in their environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, Ticket,
    port::{BuildOrder, GIT_CREDENTIALS, Resources},
};

use super::{Error, choice, protocol::Job};
use crate::{
    base::network_environment,
    container::{Bind, Net, Output, Preset, Rootfs, Spec},
    layer::io_error,
    objects, tree,
};

/// Where the node's own program is in a container, as in a host.
const PROGRAM: &str = "/usr/lib/vend/vend";

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

/// The files in the root of an order's source that tell its runtime. One that cannot be read is told of when it is unpacked.
pub(super) fn telling(objects: &objects::Directory, order: &BuildOrder) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    if let Ok(object) = objects.open_object(&order.source) {
        let _ = tree::visit(object, &tree::Limits::SOURCE, |member, _| {
            let told = member.path.to_str().filter(|path| choice::tells(path));
            files.extend(told.map(str::to_owned));
            Ok(())
        });
    }
    files
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
    pub network: Option<Net>,
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
        network: parts.network,
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
        keys: Vec::new(),
        project: order.place.app.to_string(),
        retried,
        mtime: u64::try_from(order.commit.committed_at.as_second()).unwrap_or(0),
    }
}

/// There is no region here; tools that insist on one get a name that reaches nothing.
const REGION: &str = "local";

/// What a build finds anyway, then the buildspec's variables, then the order's: the later wins, but for `CODEBUILD_`,
/// which is reserved.
pub(super) fn variables(ticket: &Ticket, order: &BuildOrder, image: Digest) -> BTreeMap<String, String> {
    let mut all = network_environment();
    for (name, value) in [
        ("PATH", PATH),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("LANG", "C.UTF-8"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_REGION", REGION),
        ("CI", "true"),
        ("PWD", source_directory(order).as_str()),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.extend(order.buildspec.env.variables.clone());
    all.extend(order.task.iter().flat_map(|task| task.variables.clone()));
    all.extend(order.variables.clone());
    all.extend(git(order));
    all.extend(batch(order));
    all.extend(codebuild(ticket, order, image).map(|(name, value)| (name.to_owned(), value)));
    all.extend(webhook(order).map(|(name, value)| (name.to_owned(), value)));
    all
}

/// For the log, where git's helper is asked for and nobody has told what it should answer.
pub(super) fn git_lacks(order: &BuildOrder) -> Option<&'static str> {
    let is_asked = order.buildspec.env.git_credential_helper;
    let lacks = is_asked && !order.secrets.contains_key(GIT_CREDENTIALS);
    lacks.then_some("git has no credentials: set the secret `git-credentials`")
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

fn codebuild(ticket: &Ticket, order: &BuildOrder, image: Digest) -> [(&'static str, String); 13] {
    let (commit, source) = (&order.commit, source_directory(order));
    let id = format!("{}-{}:{ticket}", order.place.tenant, order.place.app);
    [
        (
            "CODEBUILD_BUILD_ARN",
            format!("arn:aws:codebuild:{REGION}:000000000000:build/{id}"),
        ),
        ("CODEBUILD_BUILD_ID", id),
        ("CODEBUILD_BUILD_IMAGE", choice::called_image(order, &image)),
        ("CODEBUILD_BUILD_NUMBER", order.number.to_string()),
        ("CODEBUILD_BUILD_SUCCEEDING", "1".to_owned()),
        ("CODEBUILD_INITIATOR", "vend".to_owned()),
        // The platform's own key keeps what it keeps; this is what scripts that print it get.
        ("CODEBUILD_KMS_KEY_ID", "alias/vend".to_owned()),
        ("CODEBUILD_LOG_PATH", format!("build/{ticket}")),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", commit.id.clone()),
        ("CODEBUILD_SOURCE_REPO_URL", commit.repository.clone()),
        ("CODEBUILD_SOURCE_VERSION", commit.id.clone()),
        ("CODEBUILD_SRC_DIR", source),
        ("CODEBUILD_START_TIME", crate::now().as_millisecond().to_string()),
    ]
}

/// What the push that began the build says of itself. `CODEBUILD_WEBHOOK_BASE_REF` is of pull requests and
/// `CODEBUILD_WEBHOOK_MERGE_COMMIT` of Bitbucket's, which begin no build here: they are not there.
fn webhook(order: &BuildOrder) -> impl Iterator<Item = (&'static str, String)> {
    let branch = &order.commit.branch;
    let told = order.push.as_ref().map(|push| {
        [
            ("CODEBUILD_WEBHOOK_EVENT", Some("PUSH".to_owned())),
            ("CODEBUILD_WEBHOOK_HEAD_REF", Some(format!("refs/heads/{branch}"))),
            ("CODEBUILD_WEBHOOK_TRIGGER", Some(format!("branch/{branch}"))),
            ("CODEBUILD_WEBHOOK_PREV_COMMIT", push.before.clone()),
            ("CODEBUILD_WEBHOOK_ACTOR_ACCOUNT_ID", push.account.clone()),
        ]
    });
    let told = told.into_iter().flatten();
    told.filter_map(|(name, value)| Some((name, value?)))
}

#[cfg(test)]
mod tests {
    use model::{
        port::PushEvent,
        spec::{Buildspec, build::Task},
    };

    use super::*;
    use crate::build::choice::tests::order;

    #[test]
    fn codebuild_s_variables_are_there_and_nobody_else_s() {
        let text = "version: 0.2\nenv: { variables: { A: buildspec, B: buildspec, C: buildspec, CI: 'false' } }\n\
                    phases: { build: { commands: ['true'] } }\n";
        let mut order = order(Buildspec::parse(text, "b").unwrap().0);
        order.commit.id = "c0ffee".to_owned();
        order.commit.branch = "feature/x".to_owned();
        order.commit.repository = "https://git.example/acme/shop.git".to_owned();
        order.number = 7;
        let of_task = |name: &str| (name.to_owned(), "task".to_owned());
        order.task = Some(Task {
            identifier: "shard2".to_owned(),
            variables: ["B", "C", "CODEBUILD_SRC_DIR"].map(of_task).into(),
            shard: Some((1, 2)),
            ..Task::default()
        });
        let of_order = |name: &str| (name.to_owned(), "order".to_owned());
        order.variables = ["C", "AWS_REGION", "CODEBUILD_BUILD_NUMBER"].map(of_order).into();
        order.push = Some(PushEvent {
            before: Some("decade".to_owned()),
            account: Some("88621008".to_owned()),
        });
        let all = variables(&"t-1".parse().unwrap(), &order, Digest::of("image"));
        let own = all.iter().filter(|(name, _)| name.starts_with("CODEBUILD_"));
        let start: u64 = all["CODEBUILD_START_TIME"].parse().unwrap();
        assert!(start > 1_700_000_000_000, "in milliseconds");
        let image = format!("vend/standard:{}", Digest::of("image").short());
        let own: Vec<(&str, &str)> = own
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| *name != "CODEBUILD_START_TIME")
            .collect();
        assert_eq!(
            own,
            [
                ("CODEBUILD_BATCH_BUILD_IDENTIFIER", "shard2"),
                (
                    "CODEBUILD_BUILD_ARN",
                    "arn:aws:codebuild:local:000000000000:build/acme-shop:t-1"
                ),
                ("CODEBUILD_BUILD_ID", "acme-shop:t-1"),
                ("CODEBUILD_BUILD_IMAGE", &image),
                ("CODEBUILD_BUILD_NUMBER", "7"),
                ("CODEBUILD_BUILD_SUCCEEDING", "1"),
                ("CODEBUILD_CURRENT_SHARD", "1"),
                ("CODEBUILD_INITIATOR", "vend"),
                ("CODEBUILD_KMS_KEY_ID", "alias/vend"),
                ("CODEBUILD_LOG_PATH", "build/t-1"),
                ("CODEBUILD_RESOLVED_SOURCE_VERSION", "c0ffee"),
                ("CODEBUILD_SOURCE_REPO_URL", "https://git.example/acme/shop.git"),
                ("CODEBUILD_SOURCE_VERSION", "c0ffee"),
                ("CODEBUILD_SRC_DIR", "/codebuild/output/src/shop"),
                ("CODEBUILD_TOTAL_SHARDS", "2"),
                ("CODEBUILD_WEBHOOK_ACTOR_ACCOUNT_ID", "88621008"),
                ("CODEBUILD_WEBHOOK_EVENT", "PUSH"),
                ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/feature/x"),
                ("CODEBUILD_WEBHOOK_PREV_COMMIT", "decade"),
                ("CODEBUILD_WEBHOOK_TRIGGER", "branch/feature/x"),
            ]
        );
        let whose = ["A", "B", "C"].map(|name| all[name].as_str());
        assert_eq!(whose, ["buildspec", "task", "order"], "the later wins");
        let whose = ["HOME", "CI", "AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| all[name].as_str());
        assert_eq!(whose, ["/root", "false", "order", "local"]);
        assert!(!all.contains_key("VEND_GIT_CREDENTIALS"));
    }

    #[test]
    fn files_in_the_root_of_a_source_tell_its_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let objects = objects::Directory::open(&directory.join("objects"), 1 << 20).unwrap();
        let file = directory.join("file");
        fs::write(&file, "x").unwrap();
        let mut packer = tree::Packer::new(Vec::new(), 7);
        for path in ["app/pom.xml", "go.mod", "main.go"] {
            packer.file(path.as_ref(), file.as_std_path()).unwrap();
        }
        let tar = packer.finish().unwrap().0;
        let text = "version: 0.2\nphases: { build: { commands: [make] } }\n";
        let mut order = order(Buildspec::parse(text, "b").unwrap().0);
        assert!(telling(&objects, &order).is_empty(), "it is not there");
        order.source = objects.keep(&tar[..], Utf8Path::new("tar")).unwrap();
        assert_eq!(telling(&objects, &order), BTreeSet::from(["go.mod".to_owned()]));
    }

    #[test]
    fn git_without_credentials_is_told_and_not_configured() {
        let text = |asked: &str| {
            format!(
                "version: 0.2\nenv: {{ git-credential-helper: {asked} }}\nphases: {{ build: {{ commands: ['true'] }} }}\n"
            )
        };
        let said = "git has no credentials: set the secret `git-credentials`";
        for (asked, given, told) in [
            ("yes", false, Some(said)),
            ("yes", true, None),
            ("no", false, None),
        ] {
            let mut order = order(Buildspec::parse(&text(asked), "b").unwrap().0);
            order.commit.repository = "https://git.example/acme/shop.git".to_owned();
            if given {
                let value = model::Secret::new("ada:tigers".to_owned());
                order.secrets.insert(GIT_CREDENTIALS.to_owned(), value);
            }
            assert_eq!(git_lacks(&order), told, "{asked} {given}");
            let all = variables(&"t-1".parse().unwrap(), &order, Digest::of("image"));
            assert_eq!(all.contains_key("GIT_CONFIG_COUNT"), given, "{asked} {given}");
        }
    }

    #[test]
    fn a_webhook_s_variables_are_what_it_said() {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        let mut order = order(Buildspec::parse(text, "b").unwrap().0);
        let told = |order: &BuildOrder| {
            let all = variables(&"t-1".parse().unwrap(), order, Digest::of("image"));
            let own = all.into_keys().filter_map(|name| {
                let name = name.strip_prefix("CODEBUILD_WEBHOOK_")?;
                Some(name.to_owned())
            });
            own.collect::<Vec<_>>()
        };
        assert!(told(&order).is_empty(), "no push began it");
        order.push = Some(PushEvent::default());
        assert_eq!(told(&order), ["EVENT", "HEAD_REF", "TRIGGER"]);
    }

    #[test]
    fn an_image_of_a_registry_is_called_as_it_was_asked_for() {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        let mut order = order(Buildspec::parse(text, "b").unwrap().0);
        let mut called = |image: &str| {
            order.image = Some(image.to_owned());
            choice::called_image(&order, &Digest::of("image"))
        };
        let standard = format!("vend/standard:{}", Digest::of("image").short());
        for (image, name) in [
            ("oci:registry.example/acme/ci:7", "registry.example/acme/ci:7"),
            ("registry.example/acme/ci:7", "registry.example/acme/ci:7"),
            ("debian-13", "debian-13"),
            ("aws/codebuild/standard:7.0", &standard),
        ] {
            assert_eq!(called(image), name);
        }
    }
}
