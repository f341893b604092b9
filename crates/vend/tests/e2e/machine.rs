//! A machine of a customer's own: it joins, is deployed to, gets new certificates, and is removed.

mod abort;
mod anywhere;
mod apart;
mod back;
mod held;
mod killed;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::platform::{Copy, Platform, can_run, eventually};

const VEND_YAML: &str = "app: shop
placement: { registered: { role: web } }
host: { env: { GREETING: hello } }
environments:
  dev: { branch: dev }
";

const APPSPEC: &str = "version: 0.0
os: linux
file_exists_behavior: OVERWRITE
files: [{ source: server.pl, destination: /srv/shop }]
hooks:
  ApplicationStop: [{ location: stop.sh, timeout: 20 }]
  ApplicationStart: [{ location: start.sh, timeout: 20 }]
";

/// A platform that machines may dial. `more` is of the same section of its configuration.
pub fn for_machines(more: &str) -> Platform {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    Platform::with(&format!("[machines]\nlisten = \"127.0.0.1:{port}\"\n{more}"))
}

/// Another root, other processes, another name: what it writes is in `upper`.
pub struct Machine {
    directory: tempfile::TempDir,
    agent: Option<Child>,
    /// What its own system is, below what it writes.
    system: PathBuf,
    /// Its agent is started again whenever it ends, as a service of the machine's own init.
    is_service: bool,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["disk", "root"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self {
            directory,
            agent: None,
            system: "/".into(),
            is_service: false,
        }
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("disk/upper").join(path)
    }

    /// A new one that was invited with these labels, and its invitation: where to, and with what.
    pub fn joins(platform: &Platform, owner: &str, labels: &[&str]) -> (Self, String, String) {
        Self::joins_after(platform, owner, labels, |_| {})
    }

    fn joins_after(
        platform: &Platform,
        owner: &str,
        labels: &[&str],
        prepare: impl FnOnce(&mut Self),
    ) -> (Self, String, String) {
        let mut invite = vec!["hosts", "invite", owner];
        invite.extend(labels.iter().flat_map(|label| ["--label", label]));
        let invited = platform.json(&invite);
        let [url, token] = ["url", "token"].map(|key| invited[key].as_str().unwrap().to_owned());
        let mut on = Self::new();
        prepare(&mut on);
        on.run(&["--join", &url, "--token", &token]);
        (on, url, token)
    }

    /// One on which what looks for `/srv/broken` finds it.
    fn broken(platform: &Platform, owner: &str) -> (Self, String, String) {
        Self::joins_after(platform, owner, &["role=web"], |on| {
            std::fs::create_dir_all(on.file("srv")).unwrap();
            std::fs::write(on.file("srv/broken"), "").unwrap();
        })
    }

    /// Runs `vend agent` there.
    fn run(&mut self, arguments: &[&str]) {
        self.agent = Some(self.command(arguments).spawn().unwrap());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let script = "set -e
            mkdir -p \"$1/disk/upper\" \"$1/disk/work\"
            mount -t overlay overlay -o lowerdir=\"$3\",upperdir=\"$1/disk/upper\",workdir=\"$1/disk/work\" \"$1/root\"
            mount -t proc proc \"$1/root/proc\"
            mount -t tmpfs tmpfs \"$1/root/run\"
            mount --rbind /dev \"$1/root/dev\"
            hostname box
            root=$1/root program=$2 service=$4; shift 4
            while [ $service = true ]; do chroot \"$root\" \"$program\" agent \"$@\" || sleep 1; done
            exec chroot \"$root\" \"$program\" agent \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--uts",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                script,
                "machine",
            ])
            .arg(self.directory.path())
            .arg(env!("CARGO_BIN_EXE_vend"))
            .arg(&self.system)
            .arg(self.is_service.to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.log())
                    .unwrap(),
            );
        command
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The agent, as this machine knows it, or what starts it again: the only child of what made its namespaces.
    fn pid(&self) -> Pid {
        let parent = self.agent.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }

    /// Processes there whose command line holds this, as this machine knows them.
    fn processes(&self, what: &str) -> Vec<i32> {
        let space = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = space(&self.pid().as_raw_nonzero().to_string());
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let names = all.filter_map(|entry| entry.file_name().into_string().ok());
        let inside = names.filter(|name| name.parse::<i32>().is_ok() && space(name) == own);
        let said = |name: &String| {
            let line = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(what)
        };
        inside.filter(said).filter_map(|name| name.parse().ok()).collect()
    }

    /// A file as what runs there sees it, to be changed under its eyes.
    pub fn inside(&self, path: &str) -> PathBuf {
        let pid = self.pid().as_raw_nonzero();
        // What starts the agent again is outside of the root that it is given.
        let root = match self.is_service {
            true => format!("{}/root", self.directory.path().display()),
            false => String::new(),
        };
        format!("/proc/{pid}/root{root}/{path}").into()
    }

    fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The tenant's only machine, once it is in this state.
fn machine(platform: &Platform, tenant: &str, state: &str, on: &Machine) -> Value {
    eventually(
        &format!("{state}: {}", on.said()),
        Duration::from_secs(40),
        || {
            let hosts = platform.json(&["hosts", "list", tenant]);
            let machine = hosts["machines"].get(0)?.clone();
            (machine["state"] == state).then_some(machine)
        },
    )
}

/// A tenant's machines, once so many are connected.
pub fn machines(platform: &Platform, tenant: &str, count: usize) -> Vec<Value> {
    eventually("machines are connected", Duration::from_secs(40), || {
        let hosts = platform.json(&["hosts", "list", tenant]);
        let machines = hosts["machines"].as_array()?.clone();
        let connected = machines.iter().filter(|machine| machine["state"] == "connected");
        (connected.count() == count).then_some(machines)
    })
}

fn ledger(platform: &Platform, action: &str) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.ndjson");
    platform.vend(&["audit", "export", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(file).unwrap();
    text.matches(&format!("\"{action}\"")).count()
}

fn copy() -> Copy {
    let copy = Copy::new("one", VEND_YAML);
    copy.write("appspec.yml", APPSPEC);
    copy.write(
        "start.sh",
        "#!/bin/sh\necho \"$GREETING from $(hostname)\"\necho \"$GREETING\" >/srv/shop/started\n",
    );
    copy.write("stop.sh", "#!/bin/sh\necho stopped >>/srv/shop/stopped\n");
    copy.commit("An appspec");
    copy
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_machine_joins_is_deployed_to_changes_its_key_and_is_removed() {
    if !can_run() {
        return;
    }
    let platform = for_machines("certificate_s = 15\n");
    let (owner, app) = platform.tenant_with_app("machines");
    let (_, other) = platform.tenant_with_app("others");
    let dev = format!("{app}/dev");
    let renewals = ledger(&platform, "machine.renew");

    let (mut on, url, token) = Machine::joins(&platform, &owner, &["role=web"]);
    let (url, token) = (url.as_str(), token.as_str());
    let joined = machine(&platform, &owner, "connected", &on);
    assert_eq!(
        (&joined["name"], &joined["labels"]["role"]),
        (&"box".into(), &"web".into())
    );
    let id = joined["id"].as_str().unwrap().to_owned();

    // An invitation lets one machine in, and a changed one none.
    let strange = token.replacen("vendjoin_", "vendjoin_0", 1);
    let cut = &strange[..strange.len() - 1];
    for wrong in [token, cut, &token.replace(&token[80..84], "0000")] {
        let thief = Machine::new();
        let ended = thief
            .command(&["--join", url, "--token", wrong])
            .status()
            .unwrap();
        assert!(!ended.success(), "{}", thief.said());
        assert!(!thief.file("var/lib/vend-machine/identity.json").exists());
    }

    let work = copy();
    platform.release(&work, &app, "dev");
    for command in ["why", "status"] {
        let unknown = platform.try_vend(&[command, &format!("{app}/none")]);
        assert!(!unknown.status.success());
        let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
        assert!(said.contains(&format!("{app}/none")), "{said}");
    }
    assert!(
        text(&on.file("srv/shop/server.pl")).contains("one"),
        "{}",
        on.said()
    );
    assert_eq!(text(&on.file("srv/shop/started")), "hello\n");
    assert!(
        !Path::new("/srv/shop").exists(),
        "it is on the machine and not here"
    );
    let deployments = platform.json(&["deployments", "list", &dev]);
    let deployment = deployments["items"][0]["id"].as_str().unwrap();
    let shown = platform.json(&["deployments", "show", deployment]);
    assert_eq!(shown["hosts"][0]["host"], id.as_str(), "{shown:#}");
    // What its scripts said is read although all went well.
    let said = platform.vend(&["logs", &dev, "--kind", "deploy"]);
    assert!(said.contains("hello from box"), "{said}");
    let started = shown["hosts"][0]["events"].as_array().unwrap().iter();
    let started = started.filter(|event| event["event"] == "ApplicationStart");
    let logs: Vec<&str> = started.filter_map(|event| event["log"].as_str()).collect();
    assert!(logs[0].starts_with(&format!("machine/{id}/deploy-")), "{shown:#}");

    // Another tenant gets no machine by naming its labels, and does not see it.
    let theirs = platform.push(&copy(), &other, "dev");
    let theirs = platform.ended(&other, theirs);
    assert_eq!(theirs["state"], "failed", "{theirs:#}");
    assert!(
        theirs["reason"]
            .as_str()
            .unwrap()
            .contains("no registered machine"),
        "{theirs:#}"
    );
    let hosts = platform.json(&["hosts", "list", other.split('/').next().unwrap()]);
    assert_eq!(hosts["machines"], serde_json::json!([]));

    // A new key, while it stays; and after its agent ended, with what it has.
    eventually("it has another key", Duration::from_secs(40), || {
        (ledger(&platform, "machine.renew") > renewals).then_some(())
    });
    on.stop();
    machine(&platform, &owner, "away", &on);
    on.run(&["--join", url]);
    machine(&platform, &owner, "connected", &on);
    work.says("two");
    work.write("server.pl", "two");
    work.commit("two");
    platform.release(&work, &app, "dev");
    assert_eq!(text(&on.file("srv/shop/server.pl")), "two", "{}", on.said());

    // A script that fails says so, and its whole log is read from the machine.
    work.write("start.sh", "#!/bin/sh\necho no configuration\nexit 4\n");
    work.commit("broken");
    let number = platform.push(&work, &app, "dev");
    let failed = platform.ended(&app, number);
    let reason = failed["reason"].as_str().unwrap();
    assert!(
        reason.contains("ApplicationStart failed") && reason.contains("no configuration"),
        "{reason}"
    );
    let executions = platform.json(&["executions", "list", &app]);
    let execution = executions["items"][0]["id"].as_str().unwrap();
    let detail = platform.json(&["executions", "show", execution]);
    let own = format!("machine/{id}/");
    let mut logs = detail["logs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str);
    let log = platform.vend(&["logs", logs.find(|log| log.starts_with(&own)).unwrap()]);
    assert!(log.contains("no configuration"), "{log}");

    // What was there before comes back by itself, and why is on record.
    let undo = gone_back(&platform, &dev);
    let list = platform.json(&["deployments", "list", &dev]);
    let failed = list["items"][1]["id"].as_str().unwrap();
    assert_eq!(
        (&undo["release"], &undo["cause"], &undo["strategy"]),
        (
            &2.into(),
            &format!("rolls back {failed}").into(),
            &"in-place".into()
        ),
        "{list:#}"
    );
    assert_eq!(text(&on.file("srv/shop/server.pl")), "two");
    assert_eq!(of_kind(&platform, &app, "auto-rollback")[0]["state"], "succeeded");
    let environment = platform.json(&["environments", "show", &dev]);
    assert_eq!(
        (&environment["hosts"], &environment["urls"]),
        (&1.into(), &serde_json::json!([]))
    );
    let why = platform.json(&["why", &dev]);
    assert!(
        !why["environments"][0]["sentence"]
            .as_str()
            .unwrap()
            .contains("machine"),
        "{why:#}"
    );
    platform.succeeds(&["rollback", &dev, "--to", "v1"]);
    assert!(text(&on.file("srv/shop/server.pl")).contains("one"));

    // It goes after its app, and its key opens nothing any more.
    let stops = text(&on.file("srv/shop/stopped")).lines().count();
    platform.vend(&["hosts", "remove", &id]);
    eventually("it is removed", Duration::from_secs(40), || {
        let hosts = platform.json(&["hosts", "list", &owner]);
        (hosts["machines"] == serde_json::json!([])).then_some(())
    });
    assert_eq!(text(&on.file("srv/shop/stopped")).lines().count(), stops + 1);
    eventually("it is refused", Duration::from_secs(40), || {
        platform
            .log()
            .contains("of a machine that was removed")
            .then_some(())
    });
    let hosts = platform.json(&["hosts", "list", &owner]);
    assert_eq!(hosts["machines"], serde_json::json!([]));
    eventually("its agent ends", Duration::from_secs(40), || {
        on.agent.as_mut()?.try_wait().unwrap()
    });
    assert!(
        on.said().contains("was removed from its platform"),
        "{}",
        on.said()
    );
    assert!(!on.file("var/lib/vend-machine/identity.json").exists());
    on.stop();
    for name in [&owner, other.split('/').next().unwrap()] {
        platform.vend(&["tenants", "delete", name, "--yes"]);
    }
}

/// The newest deployment, once it has undone another.
fn gone_back(platform: &Platform, dev: &str) -> Value {
    eventually("it goes back", Duration::from_secs(120), || {
        let newest = platform.json(&["deployments", "list", dev])["items"][0].clone();
        let undoes = newest["cause"].as_str()?.starts_with("rolls back d-");
        (undoes && newest["state"] == "Succeeded").then_some(newest)
    })
}

/// The executions of a kind, newest first.
fn of_kind(platform: &Platform, app: &str, kind: &str) -> Vec<Value> {
    let executions = platform.json(&["executions", "list", app]);
    let all = executions["items"].as_array().unwrap().iter();
    all.filter(|one| one["kind"] == kind).cloned().collect()
}

#[test]
fn a_machine_that_joins_later_gets_the_live_release_and_what_fails_there_is_its_own() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("late");
    let dev = format!("{app}/dev");
    let (first, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    machines(&platform, &owner, 1);
    let work = copy();
    // It fails where the test says so.
    work.write(
        "start.sh",
        "#!/bin/sh\n[ ! -e /srv/broken ] || { echo no disk; exit 4; }\necho \"$GREETING\" >>/srv/started\n",
    );
    work.commit("Only where nothing is broken");
    platform.release(&work, &app, "dev");
    assert_eq!(text(&first.file("srv/started")), "hello\n", "{}", first.said());

    let (second, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    eventually("it has caught up", Duration::from_secs(120), || {
        (text(&second.file("srv/started")) == "hello\n").then_some(())
    });
    let joined = eventually("its deployment ends", Duration::from_secs(60), || {
        let deployments = platform.json(&["deployments", "list", &dev]);
        let newest = deployments["items"][0].clone();
        newest["ended_at"].is_string().then_some(newest)
    });
    assert_eq!(
        (&joined["cause"], &joined["state"], &joined["release"]),
        (&"joined late".into(), &"Succeeded".into(), &1.into()),
        "{joined:#}"
    );
    let shown = platform.json(&["deployments", "show", joined["id"].as_str().unwrap()]);
    assert_eq!(shown["hosts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(
        text(&first.file("srv/started")),
        "hello\n",
        "the first was left alone"
    );
    let execution = of_kind(&platform, &app, "join").remove(0);
    assert_eq!(execution["state"], "succeeded", "{execution:#}");

    // What fails on a third one touches neither of them, and is said with what is done about it.
    let (third, ..) = Machine::broken(&platform, &owner);
    let why = eventually("it has failed there", Duration::from_secs(120), || {
        let why = platform.json(&["why", &dev])["environments"][0].clone();
        let sentence = why["sentence"].as_str()?.to_owned();
        sentence
            .contains("failed once, it is tried again at")
            .then_some(why)
    });
    let sentence = why["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("1 of 3 machines has v1, which failed there"),
        "{sentence}"
    );
    assert!(why["error"].as_str().unwrap().contains("no disk"), "{why:#}");
    assert!(
        why["next"]
            .as_str()
            .unwrap()
            .starts_with("vend deployments show d-"),
        "{why:#}"
    );
    let all = platform.json(&["hosts", "list", &owner]);
    let mut failing = all["machines"].as_array().unwrap().iter();
    let failing = failing.find(|machine| machine["failure"].is_string()).unwrap();
    assert_eq!(failing["tries"], 1, "{failing:#}");
    assert!(failing["next_try"].is_string(), "{failing:#}");
    let environment = platform.json(&["environments", "show", &dev]);
    assert_eq!(environment["live"], 1);
    assert_eq!(text(&first.file("srv/started")), "hello\n");
    assert_eq!(text(&second.file("srv/started")), "hello\n");

    // Mended, it needs nobody: it is tried again.
    std::fs::remove_file(third.inside("srv/broken")).unwrap();
    eventually("it is tried again", Duration::from_secs(180), || {
        (text(&third.file("srv/started")) == "hello\n").then_some(())
    });
    eventually("all is well", Duration::from_secs(60), || {
        let why = platform.json(&["why", &dev])["environments"][0].clone();
        (why["up_to_date"] == true).then_some(())
    });
    assert_eq!(
        text(&first.file("srv/started")),
        "hello\n",
        "the first was left alone"
    );
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
