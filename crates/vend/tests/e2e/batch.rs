//! A release of what several builds leave.

use std::time::Duration;

use crate::platform::{Copy, Platform, can_run, eventually};

const VEND_YAML: &str = "app: shop
build: { batch: true, combine_artifacts: true, image: debian-12 }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";
/// Neither build leaves an app by itself.
const BUILDSPEC: &str = "version: 0.2
phases: { build: { commands: ['sed -i s/BUILT/$CODEBUILD_BATCH_BUILD_IDENTIFIER/ server.pl'] } }
artifacts: { files: [server.pl] }
batch:
  build-graph:
    - { identifier: code }
    - { identifier: rest, buildspec: rest.yml, depend-on: [code] }
";
const REST: &str = "version: 0.2
phases: { build: { commands: ['true'] } }
artifacts: { files: [Procfile] }
";

#[test]
fn what_all_builds_of_a_batch_leave_is_released() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("batch");
    let copy = Copy::new("made by BUILT", VEND_YAML);
    copy.write("buildspec.yml", BUILDSPEC);
    copy.write("rest.yml", REST);
    copy.commit("a batch");
    platform.release(&copy, &app, "dev");
    let host = format!("dev.shop.{tenant}.localhost");
    assert_eq!(platform.get(&host, "/"), (200, "made by code\n".to_owned()));

    // Each is told by its name, and got by it; the revision has what all left.
    let executions = platform.json(&["executions", "list", &app]);
    let id = executions["items"][0]["id"].as_str().unwrap();
    let shown = platform.vend(&["executions", "show", id]);
    assert!(
        shown.contains("build 1 (code) on this machine") && shown.contains("build 2 (rest) on this machine"),
        "{shown}"
    );
    let out = tempfile::tempdir().unwrap();
    let got = |to: &str, arguments: &[&str]| {
        let to = out.path().join(to);
        let command = [&["executions", "artifact", id, to.to_str().unwrap()], arguments].concat();
        let ok = platform.try_vend(&command).status.success();
        let names = |directory| -> Vec<String> {
            let entries = std::fs::read_dir(directory).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        ok.then(|| names(&to)).ok_or(to.exists())
    };
    let owned = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(got("whole", &[]), owned(&["Procfile", "server.pl"]));
    assert_eq!(got("code", &["--build", "code"]), owned(&["server.pl"]));
    assert_eq!(got("second", &["--build", "2"]), owned(&["Procfile"]));
    for odd in [&["--build", "lint"][..], &["--build", "code", "--name", "docs"]] {
        assert_eq!(got("odd", odd), Err(false), "nothing stays of it");
    }

    // What they leave differently is not released, and the reason names the file.
    copy.write(
        "rest.yml",
        REST.replace("'true'", "'echo >> server.pl'")
            .replace("[Procfile]", "[Procfile, server.pl]"),
    );
    copy.commit("a clash");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("the builds `code` and `rest` of the batch both leave `server.pl`"),
        "{push:#}"
    );
    assert_eq!(platform.get(&host, "/"), (200, "made by code\n".to_owned()));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

#[test]
fn a_batch_ends_with_its_own_time() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("slow");
    let copy = Copy::new("never made", VEND_YAML);
    copy.write(
        "vend.yaml",
        VEND_YAML.replace("combine_artifacts: true", "timeout: 1h, batch_timeout: 20s"),
    );
    let spec = BUILDSPEC.replace(
        "- { identifier: rest",
        "- { identifier: idle, buildspec: idle.yml }\n    - { identifier: idle2, buildspec: idle.yml }\n    \
         - { identifier: idle3, buildspec: idle.yml }\n    - { identifier: rest",
    );
    copy.write("buildspec.yml", spec);
    copy.write("rest.yml", REST);
    copy.write("idle.yml", REST.replace("'true'", "sleep 7654322"));
    copy.commit("a slow batch");
    let number = platform.push(&copy, &app, "dev");
    // Two run at a time, and whoever looks meanwhile is told for what another one waits.
    eventually("a build says why it waits", Duration::from_secs(120), || {
        let executions = platform.json(&["executions", "list", &app]);
        let shown = platform.vend(&["executions", "show", executions["items"][0]["id"].as_str()?]);
        shown
            .contains("waits for its turn on this machine, which builds as many as it may at a time")
            .then_some(())
    });
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("the batch did not end within 20s") && reason.contains("build.batch_timeout"),
        "{push:#}"
    );
    // Nothing of it goes on.
    let sleeps = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines
            .filter(|line| line.windows(7).any(|part| part == b"7654322"))
            .count()
    };
    let gone = (0..300).any(|_| {
        sleeps() == 0 || {
            std::thread::sleep(Duration::from_millis(100));
            false
        }
    });
    assert!(gone, "a build of the batch goes on");
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
