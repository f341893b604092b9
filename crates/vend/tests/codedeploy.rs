//! `vend codedeploy-local` with the sample bundles of AWS's agent: what its own acceptance tests ask of
//! `codedeploy-local`, in every format.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "codedeploy/told.rs"]
mod told;
#[path = "codedeploy/world.rs"]
mod world;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use world::{World, pack, packed};

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
        let location = packed(&world, &bundle, kind, line);
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

/// Locks and pipes of whoever called would be held by what a hook leaves running.
#[test]
fn a_hook_gets_no_file_of_who_called() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: see.sh\n";
    let bundle = world.bundle("bundle", appspec);
    let seen = world.path("seen");
    let see = format!("#!/bin/sh\nls /proc/$$/fd >{}\n", seen.display());
    fs::write(bundle.join("see.sh"), see).unwrap();
    let status = Command::new("sh")
        .args([
            "-c",
            "exec 9</dev/null; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_vend"),
        ])
        .args([
            "codedeploy-local",
            "--deployment-group",
            "test-group",
            "--bundle-location",
        ])
        .arg(&bundle)
        .args(["--type", "directory", "--agent-configuration-file"])
        .arg(world.path("conf.yml"))
        .status();
    assert!(status.unwrap().success());
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("1\n") && !seen.contains("9\n"), "{seen}");
}

/// The two commands of the guide, one after the other, in the directory of an app.
#[test]
fn the_guides_commands_get_on_with_each_other() {
    let world = World::new();
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/deploy.md");
    let guide = fs::read_to_string(guide).unwrap();
    let commands: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("vend codedeploy-local "))
        .map(|line| line.split('#').next().unwrap())
        .collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  ApplicationStart:\n    - location: start.sh\n",
        world.path("target").display()
    );
    let bundle = world.bundle("bundle", &appspec);
    fs::write(bundle.join("page"), "new").unwrap();
    let archive = packed(
        &world,
        &bundle,
        "zip",
        "python3 -m zipfile -c ../app.zip appspec.yml start.sh page",
    );
    fs::copy(archive, bundle.join("app.zip")).unwrap();
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_vend"))
            .arg("codedeploy-local")
            .args(command.split_whitespace())
            .arg("--agent-configuration-file")
            .arg(world.path("conf.yml"))
            .current_dir(&bundle)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command}: {said}");
        let started = said
            .lines()
            .find(|line| line.contains("ApplicationStart"))
            .unwrap();
        let words: Vec<&str> = started.split_whitespace().collect();
        assert!(words[0].parse::<jiff::civil::Time>().is_ok(), "{started}");
        assert_eq!(words[1..3], ["ApplicationStart", "succeeded"], "{said}");
        assert!(["ms", "s"].contains(&words[4]), "{started}");
    }
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
                assert!(why.contains("--file-exists-behavior OVERWRITE"), "{why}");
                let told = world.fails(&bundle, "directory", &["--json", "-g", "another"]);
                let reported: serde_json::Value = serde_json::from_str(&told).unwrap();
                let next = reported["next"].as_str().unwrap();
                assert!(next.contains("--file-exists-behavior OVERWRITE"), "{reported}");
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
fn a_bundle_of_another_kind_is_told_by_its_kind() {
    let world = World::new();
    let bundle = world.bundle("bundle", "version: 0.0\nos: linux\n");
    pack(&bundle, "tar cf ../app.tar . && tar czf ../app.tgz .");
    for (location, kind, next) in [
        (
            "app.tar",
            "tgz",
            "app.tar is a tar that is not compressed: the same with --type tar",
        ),
        (
            "app.tgz",
            "zip",
            "app.tgz is compressed by gzip: the same with --type tgz",
        ),
        (
            "app.tgz",
            "directory",
            "app.tgz is compressed by gzip: the same with --type tgz",
        ),
        (
            "bundle",
            "zip",
            "bundle is a directory: the same with --type directory",
        ),
    ] {
        let said = world.fails(Path::new(location), kind, &[]);
        assert!(said.ends_with(&format!("\nnext: {next}\n")), "{said}");
    }
    let said = world.fails(Path::new("bundle/appspec.yml"), "tar", &[]);
    assert!(!said.contains("next: "), "{said}");
}

/// What `vend check` would have said, whether it went well or not.
#[test]
fn what_an_appspec_seems_to_say_is_warned_of() {
    let world = World::new();
    let target = world.path("target");
    let appspec = |mode: &str| {
        format!(
            "version: 0.0\nos: linux\nfiles: [{{ source: appspec.yml, destination: {0} }}]\n\
             permissions: [{{ object: {0}, mode: {mode} }}]\n\
             hooks: {{ AfterInstall: [{{ location: fail.sh, timeuot: 3 }}] }}\n",
            target.display()
        )
    };
    for (mode, parts) in [
        (
            "0644",
            &["`mode: 0644` gives the mode", "`timeuot` is not a known key"][..],
        ),
        // 493 in decimal is no mode at all: the deployment fails in the agent's words, which do not say why.
        ("0755", &["write `mode: \"0755\"`"]),
    ] {
        let bundle = world.bundle("bundle", &appspec(mode));
        for json in [&[][..], &["--json"]] {
            let output = world.deploy(&bundle, "directory", json);
            let said = match json {
                [] => [output.stderr, output.stdout]
                    .map(|text| String::from_utf8(text).unwrap())
                    .concat(),
                _ => {
                    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                    let warnings = report["warnings"].as_array().into_iter().flatten();
                    let messages = warnings.map(|warning| &warning["message"]);
                    let all = messages.chain([&report["next"]]).filter_map(|text| text.as_str());
                    all.collect::<Vec<_>>().join("\n")
                }
            };
            for part in parts {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
    }
}

/// Each flag, seen by what a script finds.
#[test]
fn scripts_see_what_the_flags_say() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: s.sh\n";
    let bundle = world.bundle("bundle", appspec);
    let script = format!(
        "#!/bin/sh\n{{ echo $APPLICATION_NAME; echo $DEPLOYMENT_GROUP_NAME; echo $DEPLOYMENT_GROUP_ID; echo $LIFECYCLE_EVENT\n\
         echo $DEPLOYMENT_ID | grep -cE '^d-[A-Z0-9]{{9}}-local$'; echo $OWN; env | grep -c ^BUNDLE_; pwd; }} >{0}\necho said; echo warned >&2\n",
        world.path("seen").display()
    );
    fs::write(bundle.join("s.sh"), script).unwrap();
    let here = world.directory.path().canonicalize().unwrap();
    let (location, here) = (bundle.to_str().unwrap(), here.to_str().unwrap());
    for (more, expected) in [
        (&[][..], [location, "LocalFleet", "test-group"]),
        (
            &["-a", "shop", "-d", "fleet", "-g", "group"],
            ["shop", "fleet", "group"],
        ),
        (
            &["--application-name", "shop", "--deployment-group-name", "fleet"],
            ["shop", "fleet", "test-group"],
        ),
    ] {
        world.succeeds(&bundle, "directory", more);
        let seen = fs::read_to_string(world.path("seen")).unwrap();
        let all = [&expected[..], &["AfterInstall", "1", "inherited", "0", here]].concat();
        assert_eq!(seen.lines().collect::<Vec<_>>(), all);
        assert!(world.path("deployment-root").join(expected[2]).is_dir());
    }
    let log = world.path("deployment-root/deployment-logs/codedeploy-agent-deployments.log");
    let log = fs::read_to_string(log).unwrap();
    for line in [
        "]LifecycleEvent - AfterInstall\n",
        "]Script - s.sh\n",
        "][stdout]said\n",
        "][stderr]warned\n",
    ] {
        assert_eq!(log.matches(line).count(), 3, "{line} in {log}");
    }
    // The configuration's number of revisions counts, too.
    let configuration = format!(
        ":root_dir: '{}'\n:max_revisions: 2\n",
        world.path("deployment-root").display()
    );
    fs::write(world.path("conf.yml"), configuration).unwrap();
    world.succeeds(&bundle, "directory", &[]);
    assert_eq!(
        fs::read_dir(world.path("deployment-root/test-group"))
            .unwrap()
            .count(),
        2
    );
}

/// Install finds `appspec.yaml`, and hooks do not: with `--appspec-filename` both find what is named.
#[test]
fn an_appspec_of_another_name_must_be_named() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: scripts/s.sh\n";
    let bundle = world.bundle("bundle", appspec);
    for name in ["appspec.yaml", "other.yml"] {
        fs::rename(bundle.join("appspec.yml"), bundle.join(name)).unwrap();
        let more: &[&str] = if name == "other.yml" { &["-A", name] } else { &[] };
        if more.is_empty() {
            let said = world.fails(&bundle, "directory", more);
            assert!(said.contains("revision-relative path \"appspec.yml\""), "{said}");
            world.succeeds(&bundle, "directory", &["--events", "Install", "-g", "fresh"]);
        } else {
            let archive = world.path("other.tgz");
            pack(&bundle, "tar czf ../other.tgz .");
            world.succeeds(&archive, "tgz", more);
            assert_eq!(world.proof(), ["AfterInstall"]);
        }
        fs::rename(bundle.join(name), bundle.join("appspec.yml")).unwrap();
    }
}

/// What archives hold beside plain files comes to its place as it was packed.
#[test]
fn odd_members_of_archives_are_installed_as_they_are() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    for (kind, line) in [
        ("directory", ""),
        ("tar", "tar cf ../app.tar ."),
        ("tar", "tar --format=pax -cf ../app.tar ."),
        (
            "tar",
            "tar --format=v7 -cf ../app.tar appspec.yml odd/run odd/link odd/empty",
        ),
        ("tgz", "tar czf ../app.tgz appspec.yml odd"),
        (
            "tgz",
            "tar cf - . | gzip -1 >../app.tgz; head -c 0 /dev/zero >>../app.tgz",
        ),
        ("zip", "python3 -m zipfile -c ../app.zip appspec.yml odd"),
    ] {
        let world = World::new();
        let target = world.path("target");
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: odd\n    destination: {}\n",
            target.display()
        );
        let bundle = world.bundle("bundle", &appspec);
        for directory in ["odd/empty", &format!("odd/{}", "d".repeat(120))] {
            fs::create_dir_all(bundle.join(directory)).unwrap();
        }
        let odd = bundle.join("odd");
        for (name, text) in [
            ("run", "#!/bin/sh\n"),
            ("ünï cödé", "u"),
            ("-dash", "d"),
            (&long, "long"),
        ] {
            fs::write(odd.join(name), text).unwrap();
        }
        fs::set_permissions(odd.join("run"), fs::Permissions::from_mode(0o751)).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
        fs::File::options()
            .write(true)
            .open(odd.join("run"))
            .unwrap()
            .set_modified(at)
            .unwrap();
        let (is_zip, is_old) = (kind == "zip", line.contains("v7"));
        if !is_zip {
            std::os::unix::fs::symlink("run", odd.join("link")).unwrap();
        }
        let location = packed(&world, &bundle, kind, line);
        world.succeeds(&location, kind, &[]);
        let run = fs::metadata(target.join("run")).unwrap();
        assert_eq!(
            (run.permissions().mode() & 0o7777, target.join("empty").is_dir()),
            (0o751, true),
            "{line}"
        );
        if !is_zip {
            assert_eq!(
                fs::read_link(target.join("link")).unwrap(),
                Path::new("run"),
                "{line}"
            );
            if kind != "directory" {
                assert_eq!(run.modified().unwrap(), at, "{line}");
            }
        }
        for (name, text) in [("ünï cödé", "u"), ("-dash", "d"), (&long, "long")] {
            let found = fs::read_to_string(target.join(name)).ok();
            assert_eq!(found.as_deref(), (!is_old).then_some(text), "{line}: {name}");
        }
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
