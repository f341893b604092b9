//! The sample app as a customer has it: a real build with tests, an image, a database, checks.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::platform::{Copy, Platform, can_run};

const BROKEN_TEST: &str = "


class Broken(unittest.TestCase):
    def test_that_two_is_three(self):
        self.assertEqual(2, 3)
";

#[test]
fn the_guestbook_is_built_released_changed_and_rolled_back_with_its_entries() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let Guestbook {
        customer,
        app,
        dev,
        site,
        copy,
    } = Guestbook::new(&platform, "guests");
    platform.release(&copy, &app, "dev");
    assert_eq!(site.version(), "1.0");
    tests_were_counted(&platform, &copy, &app);
    checks_passed(&platform, &dev);
    site.sign("Ada", "Hello, world!");
    assert!(site.entries().contains("Hello, world!"));

    // A test fails, and not so many may that it matters.
    let (version, tests) = ("guestbook/version.py", "tests/test_app.py");
    let (buildspec, settings) = ("buildspec.yml", "vend.yaml");
    copy.write(version, read(&copy, version).replace("\"1.0\"", "\"1.1\""));
    copy.write(tests, read(&copy, tests) + BROKEN_TEST);
    copy.write(
        buildspec,
        read(&copy, buildspec).replace("unit.xml tests", "unit.xml tests || true"),
    );
    copy.write(
        settings,
        read(&copy, settings).replace("pass_rate: 100%", "pass_rate: 50%"),
    );
    copy.commit("One line, and a test that may fail");
    platform.release(&copy, &app, "dev");
    assert_eq!(site.version(), "1.1");
    assert!(
        site.entries().contains("Hello, world!"),
        "the entry is still there"
    );
    image_was_used_again(&platform, &dev);
    plan_compared_the_tests(&platform, &app);

    copy.write(
        settings,
        read(&copy, settings).replace("pass_rate: 50%", "pass_rate: 100%"),
    );
    copy.commit("A test that fails");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert_eq!(push["state"], "failed", "{push:#}");
    assert!(reason.contains("test_that_two_is_three"), "{push:#}");
    assert_eq!(site.version(), "1.1", "the release goes on serving");

    platform.succeeds(&["rollback", &dev]);
    assert_eq!(site.version(), "1.0");
    assert!(
        site.entries().contains("Hello, world!"),
        "going back does not touch data"
    );

    password_is_nowhere(&platform, &app);
    let cache = platform.data().join("node/cache").join(&customer);
    assert!(cache.exists(), "the bake has downloaded packages");
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
    crate::platform::eventually("its caches are gone", Duration::from_secs(90), || {
        (!cache.exists()).then_some(())
    });
}

/// The example of this repository, of a customer of its own.
pub struct Guestbook {
    pub customer: String,
    pub app: String,
    pub dev: String,
    pub site: Site,
    pub copy: Copy,
}

impl Guestbook {
    pub fn new(platform: &Platform, prefix: &str) -> Self {
        let (customer, app) = platform.tenant_with(prefix, "guestbook");
        Self {
            dev: format!("{app}/dev"),
            site: Site {
                address: platform.http(),
                host: format!("dev.guestbook.{customer}.localhost"),
            },
            copy: working_copy(&customer),
            customer,
            app,
        }
    }
}

/// As the working copy of a customer who has an image of his own.
fn working_copy(customer: &str) -> Copy {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook/.");
    let copy = Copy {
        directory: tempfile::tempdir().unwrap(),
    };
    let copied = std::process::Command::new("cp")
        .arg("--recursive")
        .arg(example)
        .arg(copy.directory.path())
        .status();
    assert!(copied.unwrap().success());
    let script = "infra/install.sh";
    copy.write(script, read(&copy, script) + "\n# " + customer + "\n");
    copy.git(&["init", "-q", "-b", "main"]);
    copy.commit("The guestbook");
    copy
}

fn read(copy: &Copy, path: &str) -> String {
    std::fs::read_to_string(copy.directory.path().join(path)).unwrap()
}

/// A visitor of the app, through the edge.
pub struct Site {
    address: String,
    host: String,
}

impl Site {
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    fn version(&self) -> String {
        let (status, body) = self.ask("GET", "/health", "");
        assert_eq!(status, 200, "{body}");
        let health: Value = serde_json::from_str(&body).unwrap();
        health["version"].as_str().unwrap().to_owned()
    }

    pub fn sign(&self, name: &str, message: &str) {
        let entry = serde_json::json!({ "name": name, "message": message });
        let (status, body) = self.ask("POST", "/api/entries", &entry.to_string());
        assert_eq!(status, 201, "{body}");
    }

    pub fn entries(&self) -> String {
        let (status, body) = self.ask("GET", "/api/entries", "");
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// The logs of the newest execution of an app, by kind.
fn logs(platform: &Platform, app: &str, kind: &str) -> Vec<String> {
    let all = platform.json(&["executions", "list", app]);
    let newest = all["items"][0]["id"].as_str().unwrap();
    let detail = platform.json(&["executions", "show", newest]);
    let logs = detail["logs"].as_array().unwrap().iter();
    let logs = logs.map(|log| log.as_str().unwrap().to_owned());
    logs.filter(|log| log.starts_with(kind)).collect()
}

/// Every test of the working copy is in the JUnit report that the build read.
fn tests_were_counted(platform: &Platform, copy: &Copy, app: &str) {
    let written = ["tests/test_app.py", "tests/test_store.py"]
        .map(|path| read(copy, path).matches("\n    def test_").count())
        .iter()
        .sum::<usize>();
    let log = platform.vend(&["logs", &logs(platform, app, "build/")[0]]);
    // One of them needs a database, and is skipped where there is none.
    let skipped = 1;
    let passed = written - skipped;
    let line =
        format!("Report guestbook-unit: {written} tests, {passed} passed, 0 failed, {skipped} skipped");
    assert!(log.contains(&line), "expected {line:?} in\n{log}");
}

/// The plan of the newest execution says how its tests did beside those of the release that was live.
fn plan_compared_the_tests(platform: &Platform, app: &str) {
    let all = platform.json(&["executions", "list", app]);
    let newest = all["items"][0]["id"].as_str().unwrap();
    let plan = platform.json(&["plan", "show", newest]);
    let mut changes = plan["plan"]["changes"].as_array().unwrap().iter();
    let tests = changes
        .find(|change| change["name"] == "guestbook-unit")
        .unwrap_or_else(|| panic!("no tests in {plan:#}"));
    let said = |side: &str| tests[side].as_str().unwrap().to_owned();
    assert!(!said("before").contains("failure"), "{tests:#}");
    assert!(said("after").contains("(1 new failure"), "{tests:#}");
}

fn checks_passed(platform: &Platform, dev: &str) {
    let all = platform.json(&["deployments", "list", dev]);
    let newest = all["items"][0]["id"].as_str().unwrap();
    let detail = platform.json(&["deployments", "show", newest]);
    let results = detail["hosts"][0]["verdict"]["results"].as_array().unwrap();
    let kinds: Vec<&str> = results
        .iter()
        .filter_map(|result| result["kind"].as_str())
        .collect();
    assert!(
        kinds.contains(&"http") && kinds.contains(&"package"),
        "{detail:#}"
    );
    assert!(
        results.iter().all(|result| result["passed"] == true),
        "{detail:#}"
    );
}

/// One image stands under both releases, and its second bake says that it had nothing to do.
fn image_was_used_again(platform: &Platform, dev: &str) {
    let images = platform.json(&["images", "list", dev]);
    assert_eq!(images["items"].as_array().unwrap().len(), 1, "{images:#}");
    assert_eq!(
        images["items"][0]["releases"],
        serde_json::json!([2, 1]),
        "{images:#}"
    );
    let app = dev.strip_suffix("/dev").unwrap();
    let log = logs(platform, app, "bake/").remove(0);
    let ticket = log.strip_prefix("bake/").unwrap();
    let answer = platform.data().join("node/tickets").join(ticket);
    let answer: Value = serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap();
    assert_eq!(answer["outcome"]["Ok"]["reused"], true, "{answer:#}");
}

/// The app has it in its memory. Nobody else keeps it in clear, or says it.
fn password_is_nowhere(platform: &Platform, app: &str) {
    let hosts = platform.json(&["hosts", "list", &format!("{app}/dev")]);
    let hosts = hosts["items"].as_array().unwrap().iter();
    let id = hosts
        .filter(|host| host["wanted"] == "serving" && host["role"] == "app")
        .find_map(|host| host["id"].as_str())
        .unwrap();
    let password = password_of(id);
    assert!(password.len() >= 16, "it is generated");
    for directory in ["serve", "edge", "run", "node/logs", "node/tickets"] {
        let found = std::process::Command::new("grep")
            .args([
                "--recursive",
                "--files-with-matches",
                "--text",
                "--fixed-strings",
                &password,
            ])
            .arg(platform.data().join(directory))
            .output()
            .unwrap();
        let files = String::from_utf8_lossy(&found.stdout);
        assert!(files.is_empty(), "in clear in {files}");
    }
    let all = platform.json(&["executions", "list", app]);
    for execution in all["items"].as_array().unwrap() {
        let id = execution["id"].as_str().unwrap();
        for arguments in [
            &["executions", "show", id][..],
            &["executions", "show", id, "--json"],
        ] {
            assert!(
                !platform.vend(arguments).contains(&password),
                "vend {arguments:?} says it"
            );
        }
    }
}

/// From the environment of the app's process.
fn password_of(host: &str) -> String {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = processes.filter_map(|process| {
        let root = process.path();
        let is_of_host = std::fs::read_to_string(root.join("cgroup")).is_ok_and(|text| text.contains(host));
        let environment = std::fs::read(root.join("environ")).ok().filter(|_| is_of_host)?;
        let variables = environment.split(|byte| *byte == 0);
        let mut values = variables.filter_map(|variable| variable.strip_prefix(b"DATABASE_PASSWORD="));
        values
            .next()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    });
    found
        .into_iter()
        .next()
        .expect("a process of the host has the password")
}
