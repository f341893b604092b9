//! Builds on a second machine that builds: it joins, gets what asks for its labels, falls silent, and is removed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    machine::for_machines,
    platform::{Copy, Platform, can_run, eventually},
};

const SECRET: &str = "correct-horse-battery";

const VEND_YAML: &str = "app: shop
build: { batch: true, combine_artifacts: true, image: debian-12 }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";
const BUILDSPEC: &str = "version: 0.2
phases: { build: { commands: ['sed -i s/BUILT/$CODEBUILD_BATCH_BUILD_IDENTIFIER/ server.pl'] } }
artifacts: { files: [server.pl] }
batch:
  build-graph:
    - { identifier: code }
    - { identifier: rest, buildspec: rest.yml, depend-on: [code], env: { labels: { fleet: big } } }
";
/// Its log has the token, and it takes its time.
const REST: &str = "version: 0.2
env: { parameter-store: { TOKEN: token }, exported-variables: [MADE] }
phases:
  build:
    commands:
      - echo \"begun with $TOKEN\"
      - sleep 6
      - export MADE=there
      - echo '<testsuite name=\"t\"><testcase name=\"works\" time=\"0.1\"/></testsuite>' >report.xml
reports: { unit: { files: [report.xml] } }
artifacts: { files: [Procfile] }
";

/// A machine that builds: here another data directory and another process.
struct Builder {
    state: PathBuf,
    agent: Option<Child>,
}

impl Builder {
    /// It has the bases that the platform has: they take a minute to make.
    fn new(platform: &Platform) -> Self {
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builder");
        let node = state.join("node");
        if !node.join("bases").exists() {
            std::fs::create_dir_all(&node).unwrap();
            for name in ["bases", "layers", "images"] {
                let copied = Command::new("cp")
                    .args(["-a", "--reflink=auto"])
                    .arg(platform.data().join("node").join(name))
                    .arg(&node)
                    .status();
                assert!(copied.unwrap().success());
            }
        }
        let builder = Self { state, agent: None };
        for identity in ["identity.json", "identity.removed"] {
            let _ = std::fs::remove_file(builder.state.join(identity));
        }
        builder
    }

    fn run(&mut self, arguments: &[&str]) {
        self.agent = Some(self.command(arguments).spawn().unwrap());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.state.join("log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command
            .args(["agent", "--builder", "--name", "second", "--state"])
            .arg(&self.state)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        command
    }

    fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(self.state.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.kill();
        let down = Command::new(env!("CARGO_BIN_EXE_vend"))
            .args(["down", "--data"])
            .arg(&self.state)
            .output()
            .unwrap();
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
            let said = String::from_utf8_lossy(&down.stdout) + String::from_utf8_lossy(&down.stderr);
            // One that heard of its removal must be invited again.
            let goes_on = ["vend builders invite", "vend agent --builder"]
                .iter()
                .any(|next| said.contains(next));
            assert!(goes_on && !said.contains("vend up"), "{said}");
        }
    }
}

/// The builder, once it is in this state.
fn builder(platform: &Platform, state: &str, on: &Builder) -> Value {
    eventually(
        &format!("{state}: {}", on.said()),
        Duration::from_secs(40),
        || {
            let builders = platform.json(&["builders", "list"]);
            let second = builders["items"]
                .as_array()?
                .iter()
                .find(|one| one["name"] == "second")?;
            (second["state"] == state).then(|| second.clone())
        },
    )
}

/// Removes all builders, also those of a test that failed.
fn remove_all(platform: &Platform) {
    eventually("there are no builders", Duration::from_secs(60), || {
        let builders = platform.json(&["builders", "list"]);
        let others = builders["items"].as_array()?.iter();
        let ids: Vec<&str> = others.filter_map(|builder| builder["id"].as_str()).collect();
        for id in &ids {
            platform.try_vend(&["builders", "remove", id]);
        }
        ids.is_empty().then_some(())
    });
}

fn invite(platform: &Platform, arguments: &[&str]) -> (String, String) {
    let invited = platform.json(&[&["builders", "invite"], arguments].concat());
    let [url, token] = ["url", "token"].map(|key| invited[key].as_str().unwrap().to_owned());
    (url, token)
}

/// What a push has begun.
fn execution(platform: &Platform, app: &str, number: u64) -> Option<Value> {
    let pushes = platform.json(&["pushes", "list", app]);
    let mut pushes = pushes["items"].as_array()?.iter();
    let push = pushes.find(|push| push["number"] == number)?;
    Some(platform.json(&["executions", "show", push["execution"].as_str()?]))
}

/// The log of the build that the builder has, once it says this.
fn says(platform: &Platform, app: &str, number: u64, text: &str, on: &Builder) -> String {
    eventually(
        &format!("{text}: {}", on.said()),
        Duration::from_secs(120),
        || {
            let shown = execution(platform, app, number)?;
            let builds = shown["builds"].as_array()?;
            let mut logs = builds.iter().filter_map(|build| build["log"].as_str());
            let log = logs.rfind(|log| log.ends_with(".rest"))?.to_owned();
            let output = platform.try_vend(&["logs", &log]);
            String::from_utf8_lossy(&output.stdout)
                .contains(text)
                .then_some(log)
        },
    )
}

#[test]
fn a_build_runs_where_its_labels_are_and_its_builder_may_fall_silent() {
    if !can_run() {
        return;
    }
    let platform = for_machines("[builds]\nsilent_s = 15\n");
    remove_all(&platform);
    let (tenant, app) = platform.tenant_with_app("builders");
    platform.set_secret(&app, "token", SECRET);
    let copy = Copy::new("made by BUILT", VEND_YAML);
    copy.write("buildspec.yml", BUILDSPEC);
    copy.write("rest.yml", REST);
    copy.commit("a batch");

    // Nobody has it: nothing of the batch runs.
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains(
            "the build rest of the batch: no builder has the label `fleet: big`: the only one is this machine"
        ),
        "{push:#}"
    );
    let shown = execution(&platform, &app, number).unwrap();
    assert!(shown["builds"].as_array().is_none_or(Vec::is_empty), "{shown:#}");

    // One that is another tenant's changes nothing.
    let (other, _) = platform.tenant_with_app("others");
    let mut second = Builder::new(&platform);
    let (url, token) = invite(&platform, &["--label", "fleet=big", "--tenant", &other]);
    second.run(&["--join", &url, "--token", &token]);
    let joined = builder(&platform, "connected", &second);
    assert_eq!(joined["labels"]["os"], "linux", "{joined:#}");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    assert!(
        push["reason"]
            .as_str()
            .unwrap()
            .contains("no builder has the label"),
        "{push:#}"
    );
    platform.vend(&["builders", "remove", joined["id"].as_str().unwrap()]);
    eventually("it ends", Duration::from_secs(60), || {
        second.agent.as_mut()?.try_wait().unwrap()
    });
    assert!(
        second.said().contains("was removed from its platform"),
        "{}",
        second.said()
    );

    let (url, token) = invite(&platform, &["--label", "fleet=big"]);
    second.run(&["--join", &url, "--token", &token]);
    builder(&platform, "connected", &second);
    let number = platform.push(&copy, &app, "dev");
    // Its words arrive while it goes on, and it is killed and comes back: the build is begun again there.
    says(&platform, &app, number, "begun with", &second);
    let busy = builder(&platform, "connected", &second);
    assert_eq!(busy["builds"].as_array().unwrap().len(), 1, "{busy:#}");
    let shown = execution(&platform, &app, number).unwrap();
    let told = |build: &Value| [&build["identifier"], &build["builder"]].map(Value::to_string);
    assert_eq!(
        told(&shown["builds"][0]),
        [r#""code""#, r#""this machine""#],
        "{shown:#}"
    );
    assert_eq!(
        told(&shown["builds"][1]),
        [r#""rest""#, r#""second""#],
        "{shown:#}"
    );
    // Who comes second is told who has the directory, and changes nothing in it.
    let pid = second.agent.as_ref().unwrap().id();
    let twin = second
        .command(&["--join", &url])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&twin.stderr);
    assert!(
        !twin.status.success() && said.contains(&format!("kill {pid}")),
        "{said}"
    );
    let down = Command::new(env!("CARGO_BIN_EXE_vend"))
        .args(["down", "--data"])
        .arg(&second.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&down.stderr);
    assert!(
        !down.status.success() && said.contains(&format!("kill {pid}")),
        "{said}"
    );
    second.kill();
    second.run(&["--join", &url]);
    let push = platform.ended(&app, number);
    assert_eq!(
        push["state"],
        "done",
        "{push:#}\n{}\n{}",
        second.said(),
        platform.log()
    );
    assert_eq!(
        platform.get(&format!("dev.shop.{tenant}.localhost"), "/"),
        (200, "made by code\n".to_owned())
    );
    let log = says(&platform, &app, number, "The build succeeded", &second);
    let text = platform.vend(&["logs", &log]);
    assert!(text.contains("The build runs on the builder second"), "{text}");
    assert!(!text.contains(SECRET) && text.contains("begun with *"), "{text}");
    let times = platform.vend(&["logs", "--times", &log]);
    assert!(times.contains("BUILD            begun with ***"), "{times}");
    let shown = execution(&platform, &app, number).unwrap();
    let rest = &shown["builds"][1];
    assert_eq!(rest["exported"]["MADE"], "there", "{shown:#}");
    assert!(shown.to_string().contains("UPLOAD_ARTIFACTS"), "{shown:#}");
    let text = platform.vend(&["logs", shown["builds"][0]["log"].as_str().unwrap()]);
    assert!(!text.contains("runs on the builder"), "{text}");
    // Nothing of the secret is on its disk.
    let found = Command::new("grep")
        .args(["-rlF", SECRET])
        .args(
            ["tickets", "builds", "logs", "objects", "cache"]
                .map(|name| second.state.join("node").join(name)),
        )
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    // It is killed and stays away: the build is given up in one sentence.
    copy.says("another BUILT");
    copy.commit("again");
    let number = platform.push(&copy, &app, "dev");
    let log = says(&platform, &app, number, "begun with", &second);
    second.kill();
    let mut said = Vec::new();
    eventually("it says why it waits", Duration::from_secs(60), || {
        let shown = execution(&platform, &app, number)?;
        let why = shown["builds"][1]["waiting"].as_str()?.to_owned();
        assert!(shown["waiting"].as_str()?.contains(&why), "{shown:#}");
        if said.last() != Some(&why) {
            said.push(why);
        }
        if said.len() < 2 {
            return None;
        }
        let builders = platform.json(&["builders", "list"]);
        assert_eq!(
            builders["items"][0]["builds"],
            serde_json::json!([]),
            "{builders:#}"
        );
        Some(())
    });
    assert_eq!(
        said,
        [
            "the builder second to come back",
            "a builder that has its labels to connect: second"
        ]
    );
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("no builder that has what the build asks for is connected: second"),
        "{push:#}"
    );
    let text = platform.vend(&["logs", &log]);
    assert!(
        text.contains("the builder second has said nothing for 15 seconds while it had the build"),
        "{text}"
    );
    assert_eq!(
        platform.get(&format!("dev.shop.{tenant}.localhost"), "/"),
        (200, "made by code\n".to_owned())
    );

    // One that is cancelled ends there, too.
    second.run(&["--join", &url]);
    builder(&platform, "connected", &second);
    copy.says("a third BUILT");
    copy.commit("cancelled");
    let number = platform.push(&copy, &app, "dev");
    let log = says(&platform, &app, number, "begun with", &second);
    let id = execution(&platform, &app, number).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    platform.vend(&["executions", "cancel", &id]);
    platform.ended(&app, number);
    eventually("it has nothing to do", Duration::from_secs(30), || {
        let second = builder(&platform, "connected", &second);
        second["builds"].as_array()?.is_empty().then_some(())
    });
    assert!(platform.vend(&["logs", &log]).contains("the build was stopped"));
    remove_all(&platform);
    for name in [&tenant, &other] {
        platform.vend(&["tenants", "delete", name, "--yes"]);
    }
}
