//! What it is told, and what it tells: paths, names, versions, and diagnostics of scripts.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use super::world::{World, packed};

/// As AWS's tool expands them: from where it is called.
#[test]
fn a_destination_that_is_not_absolute_begins_where_the_tool_is_called() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: out/../site\n\
                   permissions:\n  - object: site/page\n    mode: \"0640\"\n";
    let bundle = world.bundle("bundle", appspec);
    fs::write(bundle.join("page"), "hello").unwrap();
    world.succeeds(&bundle, "directory", &[]);
    let page = world.path("site/page");
    let mode = fs::metadata(&page).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (fs::read_to_string(&page).unwrap().as_str(), mode),
        ("hello", 0o640)
    );
    assert!(!Path::new("/site").exists() && !world.path("out").exists());
    // What it brought it finds again.
    world.succeeds(&bundle, "directory", &[]);
}

/// No behaviour towards files helps: none is offered.
#[test]
fn a_file_in_the_place_of_a_directory_is_no_matter_of_overwriting() {
    let world = World::new();
    let target = world.path("target");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: s\n    destination: {}\n",
        target.display()
    );
    let bundle = world.bundle("bundle", &appspec);
    fs::create_dir_all(bundle.join("s/d")).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(target.join("d"), "own").unwrap();
    let why = world.fails(&bundle, "directory", &[]);
    let told = format!(
        "ERROR: Install: File exists @ dir_s_mkdir - {}/d\n",
        target.display()
    );
    assert!(why.ends_with(&told), "{why}");
}

/// In the file's order and by the file's own name; what runs them is that they are asked for.
#[test]
fn hooks_of_no_event_are_refused_or_run_when_they_are_asked_for() {
    let world = World::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  Zoo:\n    - location: scripts/a.sh\n  BlockTraffic:\n    - location: scripts/a.sh\n  \
                   AfterInstal:\n    - location: scripts/a.sh\n  Install:\n    - location: scripts/a.sh\n";
    let bundle = world.bundle("bundle", appspec);
    fs::rename(bundle.join("appspec.yml"), bundle.join("scripts.yml")).unwrap();
    let named = ["-A", "scripts.yml"];
    let output = world.deploy(&bundle, "directory", &named);
    let [said, warned] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let told = "ERROR: Install: scripts.yml file contains unknown lifecycle events: [\"Zoo\", \"BlockTraffic\", \
                \"AfterInstal\"]\nnext: did you mean `AfterInstall`?\n";
    assert!(said.ends_with(told), "{said}");
    assert!(
        !warned.contains("never runs its scripts") && !warned.contains("`BlockTraffic`"),
        "{warned}"
    );
    assert!(warned.contains("`Install` is the agent's own event"), "{warned}");
    assert!(world.proof().is_empty());

    let events = "Zoo,BlockTraffic,AfterInstal";
    world.succeeds(&bundle, "directory", &[&named[..], &["-e", events]].concat());
    assert_eq!(world.proof(), ["Zoo", "BlockTraffic", "AfterInstal"]);
    let events = format!("{events},Yard,AllowTraffic,Ask,Yard");
    let why = world.fails(&bundle, "directory", &[&named[..], &["-e", &events]].concat());
    let told =
        "which is not a default one and doesn't exist in your scripts.yml file: Yard,AllowTraffic,Ask\n";
    assert!(why.ends_with(told), "{why}");
}

/// One rule for every format: a link may be absolute, and none leads out of the bundle.
#[test]
fn a_link_out_of_the_bundle_is_refused_in_every_format() {
    const ZIP: &str = "python3 - <<'EOF'\nimport os, zipfile\nz = zipfile.ZipFile('../app.zip', 'w')\n\
                       z.write('appspec.yml')\nlink = zipfile.ZipInfo('d/h')\nlink.create_system = 3\n\
                       link.external_attr = 0o120777 << 16\nz.writestr(link, os.readlink('d/h'))\nz.close()\nEOF\n";
    let formats = [
        ("directory", ""),
        ("tar", "tar cf ../app.tar ."),
        ("tgz", "tar czf ../app.tgz ."),
        // A directory around everything is no part of the bundle.
        ("tgz", "cd .. && tar czf app.tgz bundle"),
        ("zip", ZIP),
    ];
    for (target, out) in [
        ("../../x", true),
        ("../e/../../x", true),
        ("../x", false),
        ("/nothing/x", false),
    ] {
        for (kind, line) in formats {
            let world = World::new();
            let place = world.path("place");
            let appspec = format!(
                "version: 0.0\nos: linux\nfiles: [{{ source: d, destination: {} }}]\n",
                place.display()
            );
            let bundle = world.bundle("bundle", &appspec);
            fs::create_dir(bundle.join("d")).unwrap();
            std::os::unix::fs::symlink(target, bundle.join("d/h")).unwrap();
            let location = packed(&world, &bundle, kind, line);
            if out {
                let why = world.fails(&location, kind, &[]);
                let told = "d/h` that is refused: it is a link out of the tree\n";
                assert!(why.contains("ERROR: DownloadBundle: "), "{target} {line}: {why}");
                assert!(why.ends_with(told), "{target} {line}: {why}");
            } else {
                world.succeeds(&location, kind, &[]);
                assert_eq!(
                    fs::read_link(place.join("h")).unwrap(),
                    Path::new(target),
                    "{line}"
                );
            }
        }
    }
}

#[test]
fn the_version_is_told_as_the_tool_tells_it() {
    for flag in ["-v", "--version"] {
        let output = Command::new(env!("CARGO_BIN_EXE_vend"))
            .args(["codedeploy-local", flag])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.trim_end().ends_with(env!("CARGO_PKG_VERSION")), "{said}");
    }
}

/// JSON is YAML: every part of an appspec, under the name that is said.
#[test]
fn an_appspec_in_json_deploys_as_one_in_yaml() {
    let world = World::new();
    let bundle = world.bundle("bundle", "hooks:\n  - location: scripts/run.sh\n");
    fs::remove_file(bundle.join("appspec.yml")).unwrap();
    fs::write(bundle.join("page"), "hello").unwrap();
    let site = world.path("site");
    let appspec = serde_json::json!({
        "version": 0.0,
        "os": "linux",
        "files": [{ "source": "/page", "destination": site }],
        "permissions": [{ "object": site, "pattern": "**", "mode": "0600", "type": ["file"] }],
        "hooks": { "AfterInstall": [{ "location": "scripts/run.sh", "timeout": 20 }] }
    });
    fs::write(bundle.join("appspec.json"), appspec.to_string()).unwrap();
    for (kind, line) in [("directory", ""), ("tgz", "tar czf ../app.tgz .")] {
        let location = packed(&world, &bundle, kind, line);
        world.succeeds(&location, kind, &["--appspec-filename", "appspec.json"]);
        let page = site.join("page");
        let mode = fs::metadata(&page).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (fs::read_to_string(&page).unwrap().as_str(), mode),
            ("hello", 0o600)
        );
    }
    assert_eq!(world.proof(), ["AfterInstall"; 2]);
}

/// Codes 0 to 4 and 6, with the event and the lines that tell of them.
#[test]
fn diagnostics_have_the_agents_codes() {
    let world = World::new();
    let appspec =
        "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: s.sh\n      timeout: 1\n";
    let bundle = world.bundle("bundle", appspec);
    for (script, code, message) in [
        ("#!/bin/sh\nexit 0\n", "", ""),
        (
            "",
            "ScriptMissing",
            "Script does not exist at specified location: ",
        ),
        (
            "#!/bin/sh\necho out; sleep 100\n",
            "ScriptTimedOut",
            "failed to complete in 1 seconds",
        ),
        (
            "#!/bin/sh\necho out; exit 9\n",
            "ScriptFailed",
            "failed with exit code 9",
        ),
        (
            "#!/bin/sh\necho out; kill -9 $$\n",
            "ScriptFailed",
            "failed with exit code ",
        ),
        (
            "#!/no/such/program\n",
            "ScriptFailed",
            "failed with error Errno::ENOENT with message No such file or directory",
        ),
        (
            "#!/bin/sh\necho out; sleep 100 &\n",
            "OutputsLeftOpen",
            "failed to close STDOUT",
        ),
    ] {
        match script {
            "" => fs::remove_file(bundle.join("s.sh")).unwrap(),
            script => fs::write(bundle.join("s.sh"), script).unwrap(),
        }
        let output = world.deploy(&bundle, "directory", &["--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], code.is_empty(), "{report:#}");
        let last = report["events"].as_array().unwrap().last().unwrap();
        if code.is_empty() {
            assert_eq!(
                (&report["failure"], &last["status"]),
                (&serde_json::Value::Null, &"skipped".into())
            );
            continue;
        }
        let failure = &report["failure"];
        assert_eq!(
            (&failure["code"], &failure["script"]),
            (&code.into(), &"s.sh".into()),
            "{report:#}"
        );
        let told = failure["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
        if code == "OutputsLeftOpen" {
            // The sentence is the agent's to the letter; who it was stands beside it, and is told to people.
            assert_eq!(told, format!("Script at specified location: s.sh {message}"));
            let holder = failure["holders"][0].as_str().unwrap();
            assert!(holder.ends_with(" (sleep 100)"), "{holder}");
            let said = world.fails(&bundle, "directory", &[]);
            assert!(said.contains(&format!("{message}, which pid ")), "{said}");
        }
        assert_eq!(
            (&last["event"], &last["status"]),
            (&"BeforeInstall".into(), &"failed".into())
        );
        let log = failure["log"].as_str().unwrap();
        assert_eq!(log.contains("Script - s.sh\n"), code != "ScriptMissing", "{log}");
        assert_eq!(
            log.contains("[stdout]out\n"),
            script.contains("echo out"),
            "{log}"
        );
    }
}
