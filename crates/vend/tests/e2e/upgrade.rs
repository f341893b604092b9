//! Another version of the platform: the agents of hosts are replaced under what they run.

use std::{io::Write as _, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    load::Load,
    platform::{Copy, Platform, can_run, eventually},
};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

/// The app's own process: the first of the host that ran the server. Numbers begin anew, so that they say nothing of age.
fn server_of(host: &str) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = processes.filter_map(|process| {
        let root = process.path();
        let own = std::fs::read_to_string(root.join("cgroup")).is_ok_and(|text| text.contains(host));
        let line = std::fs::read(root.join("cmdline")).unwrap_or_default();
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(root.join("stat")).ok()?;
        // The 22nd field, of those that follow the name in its brackets.
        let begun: u64 = stat
            .rsplit(')')
            .next()?
            .split_whitespace()
            .nth(19)?
            .parse()
            .ok()?;
        (own && line == b"perl\0server.pl\0").then_some((begun, pid))
    });
    found.min().map(|(_, pid)| pid)
}

#[test]
fn a_new_version_takes_over_the_agents_and_no_app_is_restarted() {
    if !can_run() {
        return;
    }
    let mut platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("upgrade");
    let (dev, name) = (format!("{app}/dev"), format!("dev.shop.{tenant}.localhost"));
    let copy = Copy::new("one", VEND_YAML);
    let web = "web: (while :; do echo tick; sleep 0.2; done) & exec perl server.pl\n";
    copy.write("Procfile", web);
    copy.commit("It says something");
    platform.release(&copy, &app, "dev");
    let hosts = platform.json(&["hosts", "list", &dev]);
    let host = hosts["items"][0]["id"].as_str().unwrap().to_owned();
    let noted = platform.data().join("node/hosts").join(&host).join("program");
    let (before, server) = (
        std::fs::read_to_string(&noted).unwrap(),
        server_of(&host).unwrap(),
    );

    let directory = tempfile::tempdir().unwrap();
    let another = directory.path().join("vend");
    std::fs::copy(env!("CARGO_BIN_EXE_vend"), &another).unwrap();
    // The same program with another digest: what is behind its sections does nothing.
    let mut file = std::fs::OpenOptions::new().append(true).open(&another).unwrap();
    file.write_all(b"another version").unwrap();
    drop(file);
    let load = Load::on(&platform.http(), &name);
    platform.upgrade(&another);
    eventually(
        "the agent is of the new version",
        Duration::from_secs(180),
        || (std::fs::read_to_string(&noted).ok()? != before).then_some(()),
    );
    assert_eq!(server_of(&host), Some(server), "the app goes on");

    // What it says is still read, and what ends is still started again.
    let log = format!("host/{host}/web");
    let said = || platform.vend(&["logs", &log]).matches("tick").count();
    let then = said();
    eventually("it is heard", Duration::from_secs(30), || {
        (said() > then + 5).then_some(())
    });
    std::thread::sleep(Duration::from_secs(4));
    let (good, bad) = load.end();
    assert!(good > 100 && bad.is_empty(), "{good} good, and {bad:?}");
    let hosts = platform.json(&["hosts", "list", &dev]);
    assert_eq!(
        hosts["items"][0]["id"],
        host.as_str(),
        "no host was replaced: {hosts:#}"
    );
    kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
    eventually("it is started again", Duration::from_secs(30), || {
        server_of(&host).filter(|pid| *pid != server)
    });

    // And it is deployed to and taken down as ever.
    copy.says("two");
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&name, "/"), (200, "two\n".into()));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
