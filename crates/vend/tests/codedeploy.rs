//! `vend codedeploy-local` with the sample bundles of AWS's agent: what its own acceptance tests ask of
//! `codedeploy-local`, in every format.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const REPOS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/conformance/appspec/repos"
);

/// The events of a first deployment that run scripts of the new revision.
const NEW: [&str; 6] = [
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// Of a second one, before those: scripts of the revision before.
const OLD: [&str; 3] = ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"];

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("deployment-root");
        let configuration = format!("---\n:root_dir: '{}'\n:max_revisions: 5\n", root.display());
        fs::write(directory.path().join("conf.yml"), configuration).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A bundle with this appspec, and for each of its scripts one that writes down that it ran. The samples' scripts
    /// find the place in the same way: five directories above themselves.
    fn bundle(&self, name: &str, appspec: &str) -> PathBuf {
        let bundle = self.path(name);
        fs::create_dir_all(&bundle).unwrap();
        for line in appspec.lines() {
            if let Some((_, script)) = line.split_once("location: ") {
                let path = bundle.join(script.trim());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let text = "#!/bin/bash\nHERE=\"$(cd \"$(dirname \"${BASH_SOURCE[0]}\")\" && pwd)\"\n\
                            echo $LIFECYCLE_EVENT >> $HERE/../../../../../proof\n";
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        fs::write(bundle.join("appspec.yml"), appspec).unwrap();
        bundle
    }

    fn deploy(&self, location: &Path, kind: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command.args(["codedeploy-local", "--type", kind, "--bundle-location"]);
        command.arg(location).args(more);
        if !more.contains(&"-g") {
            command.args(["--deployment-group", "test-group"]);
        }
        if !more.contains(&"-c") {
            command
                .arg("--agent-configuration-file")
                .arg(self.path("conf.yml"));
        }
        command.current_dir(self.directory.path()).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, location: &Path, kind: &str, more: &[&str]) {
        let output = self.deploy(location, kind, more);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.ends_with("AppSpec file valid. Local deployment successful\n"),
            "{said}"
        );
    }

    /// Says why it failed.
    #[track_caller]
    fn fails(&self, location: &Path, kind: &str, more: &[&str]) -> String {
        let output = self.deploy(location, kind, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn proof(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("proof")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// An appspec of AWS's own bundles, as it is; `None` where the cases are not.
fn sample(name: &str) -> Option<String> {
    let Ok(entries) = fs::read_dir(REPOS) else {
        println!("skipped: no conformance cases at {REPOS}");
        return None;
    };
    let ends = format!("_{name}_appspec.yml");
    let found = entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().ends_with(&ends));
    Some(fs::read_to_string(found.expect("the sample is there")).unwrap())
}

fn pack(bundle: &Path, line: &str) {
    let done = Command::new("sh")
        .args(["-c", line])
        .current_dir(bundle)
        .status()
        .unwrap();
    assert!(done.success(), "{line}");
}

#[test]
fn the_agents_sample_bundle_deploys_in_every_format() {
    let Some(appspec) = sample("bundle") else { return };
    for (kind, line) in [
        ("directory", ""),
        ("tar", "tar cf ../app.tar ."),
        ("tgz", "tar czf ../app.tgz ."),
        ("zip", "python3 -m zipfile -c ../app.zip appspec.yml scripts"),
        ("tgz", "cd .. && tar czf app.tgz bundle"),
    ] {
        let world = World::new();
        let bundle = world.bundle("bundle", &appspec);
        let location = match line {
            "" => bundle.clone(),
            line => {
                pack(&bundle, line);
                world.path(&format!("app.{kind}"))
            }
        };
        world.succeeds(&location, kind, &[]);
        assert_eq!(world.proof(), NEW, "{kind}");
        world.succeeds(&location, kind, &[]);
        assert_eq!(world.proof()[NEW.len()..], [&OLD[..], &NEW].concat(), "{kind}");
        let deployments = fs::read_dir(world.path("deployment-root/test-group")).unwrap();
        assert_eq!(deployments.count(), 2);
    }
}

#[test]
fn events_are_chosen_and_named_freely() {
    let Some(appspec) = sample("custom_event_app_bundle_linux") else {
        return;
    };
    let world = World::new();
    let bundle = world.bundle("bundle", &appspec);
    let why = world.fails(&bundle, "directory", &[]);
    let unknown = "appspec.yml file contains unknown lifecycle events: [\"CustomEvent\"]";
    assert!(why.contains(unknown), "{why}");
    fs::remove_file(world.path("proof")).unwrap();
    world.succeeds(
        &bundle,
        "directory",
        &["--events", "ApplicationStart,CustomEvent"],
    );
    assert_eq!(world.proof(), ["ApplicationStart", "CustomEvent"]);
    let plain = world.bundle("plain", "version: 0.0\nos: linux\n");
    let why = world.fails(&plain, "directory", &["--events", "Other"]);
    assert!(
        why.contains("doesn't exist in your appspec.yml file: Other"),
        "{why}"
    );
}

#[test]
fn a_file_that_is_there_is_refused_replaced_or_retained() {
    let world = World::new();
    let target = world.path("target");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\n",
        target.display()
    );
    let bundle = world.bundle("bundle", &appspec);
    fs::write(bundle.join("page"), "new").unwrap();
    fs::create_dir(&target).unwrap();
    let page = target.join("page");
    for (behaviour, expected) in [
        ("DISALLOW", None),
        ("RETAIN", Some("old")),
        ("OVERWRITE", Some("new")),
    ] {
        fs::write(&page, "old").unwrap();
        let more = ["--file-exists-behavior", behaviour, "-g", behaviour];
        match expected {
            Some(expected) => {
                world.succeeds(&bundle, "directory", &more);
                assert_eq!(fs::read_to_string(&page).unwrap(), expected);
            }
            None => {
                let why = world.fails(&bundle, "directory", &more);
                assert!(why.contains("already exists at this location"), "{why}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said_in_the_agents_words() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: scripts/fail.sh\n";
    let bundle = world.bundle("bundle", appspec);
    fs::write(
        bundle.join("scripts/fail.sh"),
        "#!/bin/sh\necho no such luck >&2\nexit 7\n",
    )
    .unwrap();
    let said = world.fails(&bundle, "directory", &[]);
    for part in [
        "Starting to execute deployment from within folder ",
        "Your local deployment failed while trying to execute your script at ",
        "deployment-archive/scripts/fail.sh\n",
        "[stderr]no such luck\n",
        "logs/scripts.log for more details\n",
        "Script at specified location: scripts/fail.sh failed with exit code 7\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let file = bundle.join("appspec.yml");
    for (location, kind, more, part) in [
        (
            file.as_path(),
            "directory",
            &[][..],
            "is specified with type directory but it is a file",
        ),
        (
            &bundle,
            "zip",
            &[],
            "is specified as a compressed local file but it is a directory",
        ),
        (
            Path::new("nothing"),
            "tar",
            &[],
            "is specified as a file or directory which does not exist",
        ),
        (Path::new("http://x/y"), "tar", &[], "cannot be http"),
        (Path::new("s3://x/y"), "tar", &[], "is elsewhere"),
        (
            &file,
            "tgz",
            &[],
            "DownloadBundle: the revision cannot be unpacked",
        ),
        (
            &bundle,
            "directory",
            &["-A", "other.yml"],
            "Expecting appspec file at location",
        ),
        (
            &bundle,
            "directory",
            &["-c", "none.yml"],
            "configuration file none.yml does not exist or is not readable",
        ),
        (
            &bundle,
            "directory",
            &["-e", "AfterInstall,Install"],
            "events that can be specified before Install",
        ),
        (
            world.directory.path(),
            "directory",
            &["-A", "bundle/appspec.yml", "-g", "fresh"],
            "to itself",
        ),
    ] {
        let said = world.fails(location, kind, more);
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let bundle = World::new();
    for arguments in [["completions", "bash"], ["doctor", "--json"]] {
        let ended = Command::new(env!("CARGO_BIN_EXE_vend"))
            .args(arguments)
            .stdout(writer.try_clone().unwrap())
            .current_dir(bundle.directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}
