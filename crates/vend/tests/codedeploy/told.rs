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
