//! New hosts on which a release fails, each in another stage: they count together.

use serde_json::Value;

use crate::{
    abort::inside,
    middle::MINUTE,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage},
};

const HOSTS: usize = 4;

/// Waits for what is to become of its host, and fails where that says so.
const VALIDATE: &str = "#!/bin/sh
until [ -e /run/fate ]; do sleep 0.1; done
case $(cat /run/fate) in
hook) echo this one fails; exit 1 ;;
health) kill $(cat /run/shop.pid) ;;
check) touch /run/wrong ;;
esac
";
const CHECKS: &str = "file: { /run/wrong: { exists: false } }\n";

impl Stage<'_> {
    /// Pushes, and gives each of its new hosts its fate.
    fn fated(&self, app: &App, text: &str, release: u64, fates: [&str; HOSTS]) -> u64 {
        app.says(text);
        let number = self.platform.push(&app.copy, &self.app, "dev");
        eventually("there is an environment", MINUTE, || {
            let shown = self.platform.try_vend(&["environments", "show", &self.dev]);
            shown.status.success().then_some(())
        });
        let hosts = eventually("all run", 2 * MINUTE, || {
            let hosts = self.of(release);
            (hosts.len() == HOSTS).then_some(hosts)
        });
        for (host, fate) in hosts.iter().zip(fates) {
            is_fated(host, fate);
        }
        number
    }

    /// Hosts of a release that run, and to which it comes just now.
    fn of(&self, release: u64) -> Vec<String> {
        let own = |host: &Value| {
            host["release"] == release && host["seen"] == "running" && host["wanted"] == "starting"
        };
        let hosts = self.hosts().into_iter().filter(own);
        hosts
            .map(|host| host["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Those that are missing come, and nothing happens to them.
    fn is_whole_again(&self, release: u64) {
        eventually("it has its hosts again", 3 * MINUTE, || {
            for host in self.of(release) {
                if !inside(&host).join("run/fate").exists() {
                    is_fated(&host, "none");
                }
            }
            (self.count(release, "serving") == HOSTS).then_some(())
        });
    }
}

fn is_fated(host: &str, fate: &str) {
    let run = inside(host).join("run");
    std::fs::write(run.join("fate.new"), fate).unwrap();
    std::fs::rename(run.join("fate.new"), run.join("fate")).unwrap();
}

#[test]
fn hosts_on_which_a_release_fails_count_together_over_all_stages() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "fates");
    let app = App::new("strategy: blue-green, minimum_healthy: 50%", HOSTS as u32);
    app.copy
        .write("vend.yaml", format!("{}checks: checks.yml\n", app.vend_yaml));
    app.copy.write("checks.yml", CHECKS);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let more =
        "  BeforeAllowTraffic: [{ location: before.sh }]\n  AfterAllowTraffic: [{ location: after.sh }]\n";
    let appspec = appspec.replace("validate.sh, timeout: 20", "validate.sh, timeout: 300");
    app.copy.write("appspec.yml", format!("{appspec}{more}"));
    app.copy.write("validate.sh", VALIDATE);
    for event in ["before", "after"] {
        let script = format!("#!/bin/sh\n[ $(cat /run/fate) != {event} ]\n");
        app.copy.write(&format!("{event}.sh"), script);
    }
    let first = stage.fated(&app, "one", 1, ["none"; HOSTS]);
    assert_eq!(platform.ended(&stage.app, first)["state"], "done");

    // Two of four are enough, and a third fails in the next stage.
    let number = stage.fated(&app, "two", 2, ["hook", "hook", "health", "none"]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    assert!(
        push["reason"].as_str().unwrap().contains("is not healthy"),
        "{push:#}"
    );
    assert_eq!(stage.deployment()["code"], "HEALTH_CONSTRAINTS");
    stage.serves("one");

    for (number, (text, fates)) in [
        ("three", ["check", "before", "none", "none"]),
        ("four", ["after", "health", "none", "none"]),
    ]
    .into_iter()
    .enumerate()
    {
        let release = number as u64 + 3;
        let number = stage.fated(&app, text, release, fates);
        let push = platform.ended(&stage.app, number);
        assert_eq!(push["state"], "done", "{push:#}");
        stage.serves(text);
        stage.is_whole_again(release);
    }

    // One fails when it has the traffic already, and is one too many.
    let number = stage.fated(&app, "five", 5, ["check", "before", "after", "none"]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    assert!(
        push["reason"]
            .as_str()
            .unwrap()
            .contains("AfterAllowTraffic failed"),
        "{push:#}"
    );
    stage.serves("four");
    stage.end();
}
