//! An app whose repository is elsewhere: what a git host delivers becomes a release, once.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::platform::{Copy, Platform, can_run, eventually, tenant};

const VEND_YAML: &str = "app: shop
build: { image: debian-12 }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";
const BUILDSPEC: &str = "version: 0.2
phases:
  build:
    commands:
      - echo \"told $CODEBUILD_WEBHOOK_EVENT $CODEBUILD_WEBHOOK_TRIGGER by <$CODEBUILD_WEBHOOK_ACTOR_ACCOUNT_ID>\"
      - echo \"after <$CODEBUILD_WEBHOOK_PREV_COMMIT> on <$CODEBUILD_WEBHOOK_BASE_REF>\"
";
const GITHUB: &str = "what github and vend both know";
const GITLAB: &str = "what gitlab and vend both know";

#[test]
fn webhooks_of_a_repository_elsewhere_become_releases_once() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let customer = tenant("hooks");
    let app = format!("{customer}/shop");
    let host = format!("dev.shop.{customer}.localhost");
    let elsewhere = Elsewhere::start();
    platform.vend(&["tenants", "create", &customer]);
    platform.vend(&["apps", "create", &app, "--repository", &elsewhere.url]);
    set_secret(&platform, &app, "github", GITHUB);
    set_secret(&platform, &app, "gitlab", GITLAB);
    let door = Door {
        address: platform.endpoints()["api"].as_str().unwrap().to_owned(),
        app: app.clone(),
    };

    let copy = Copy::new("one", VEND_YAML);
    copy.write("buildspec.yml", BUILDSPEC);
    copy.commit("a build");
    let body = elsewhere.github_push(&copy);
    let first = door.github(&body, GITHUB, "delivery-1");
    assert_eq!(
        (first.0, &first.1["status"]),
        (202, &json!("accepted")),
        "{first:?}"
    );
    let delivery = first.1["delivery"].as_str().unwrap();
    let number = push_of(&platform, delivery, None);
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));
    let log = built(&platform, &push);
    has(&log, "told PUSH branch/dev by <88621008>");
    has(&log, &format!("after <{}> on <>", "0".repeat(40)));

    let again = door.github(&body, GITHUB, "delivery-1");
    assert_eq!(
        (again.0, &again.1["status"]),
        (200, &json!("duplicate")),
        "{again:?}"
    );
    assert_eq!(again.1["delivery"], delivery);

    forgeries_are_refused_without_a_word(&platform, &door, &body);
    assert_eq!(newest_release(&platform, &app), 1, "neither made a release");

    copy.says("two");
    let body = elsewhere.gitlab_push(&copy);
    let wrong = door.gitlab(&body, "another token");
    assert_eq!(wrong, (403, json!({ "status": "refused" })));
    let second = door.gitlab(&body, GITLAB);
    assert_eq!(
        (second.0, &second.1["status"]),
        (202, &json!("accepted")),
        "{second:?}"
    );
    let number = push_of(&platform, second.1["delivery"].as_str().unwrap(), None);
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));
    let log = built(&platform, &push);
    has(&log, "told PUSH branch/dev by <>");
    has(&log, &format!("after <{}> on <>", "1".repeat(40)));

    // A person has the first one handled again, as if it had just come.
    let before = push_of(&platform, delivery, None);
    let replayed = platform.json(&["webhooks", "replay", delivery]);
    assert_eq!(replayed["verdict"], "accepted", "{replayed:#}");
    assert_eq!(replayed["replays"], 1, "{replayed:#}");
    let number = push_of(&platform, delivery, Some(before));
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));
    assert_eq!(newest_release(&platform, &app), 3);
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}

/// Who forges learns nothing, not even whether there is such an app; who owns the app learns why.
fn forgeries_are_refused_without_a_word(platform: &Platform, door: &Door, body: &str) {
    let forged = door.github(body, "a secret that was guessed", "delivery-2");
    assert_eq!(forged, (403, json!({ "status": "refused" })));
    let nobody = Door {
        address: door.address.clone(),
        app: "nobody/nothing".into(),
    };
    assert_eq!(nobody.github(body, GITHUB, "delivery-3"), forged);
    let all = platform.json(&["webhooks", "list", &door.app]);
    let newest = &all["items"][0];
    assert_eq!(newest["verdict"], "refused", "{all:#}");
    let reason = newest["reason"].as_str().unwrap();
    assert!(reason.to_lowercase().contains("x-hub-signature-256"), "{reason}");
    assert!(
        platform
            .vend(&["webhooks", "list", &door.app])
            .contains("refused")
    );
}

/// The log of the one build of a push, whose record is whole.
fn built(platform: &Platform, push: &Value) -> String {
    let execution = push["execution"].as_str().unwrap();
    let shown = platform.json(&["executions", "show", execution]);
    let build = &shown["builds"][0];
    let phases = build["phases"].as_array().unwrap();
    assert_eq!(phases[0]["name"], "SUBMITTED", "{build:#}");
    assert_eq!(phases.last().unwrap()["name"], "COMPLETED", "{build:#}");
    let text = platform.vend(&["executions", "show", execution]);
    has(&text, "  COMPLETED");
    platform.vend(&["logs", build["log"].as_str().unwrap()])
}

#[track_caller]
fn has(text: &str, part: &str) {
    assert!(text.contains(part), "no `{part}` in:\n{text}");
}

/// The number of the push that a delivery became, once it is another than `not`.
fn push_of(platform: &Platform, delivery: &str, not: Option<u64>) -> u64 {
    eventually("the delivery is a push", Duration::from_secs(30), || {
        let detail = platform.json(&["webhooks", "show", delivery]);
        detail["push"].as_u64().filter(|number| Some(*number) != not)
    })
}

fn newest_release(platform: &Platform, app: &str) -> u64 {
    let all = platform.json(&["releases", "list", &format!("{app}/dev")]);
    all["items"][0]["number"].as_u64().unwrap()
}

fn set_secret(platform: &Platform, app: &str, provider: &str, value: &str) {
    let mut child = platform
        .command(&["webhooks", "secret", app, "--provider", provider])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The platform's door for webhooks, on its TCP port.
struct Door {
    address: String,
    app: String,
}

impl Door {
    fn github(&self, body: &str, secret: &str, delivery: &str) -> (u16, Value) {
        let signature = hex::encode(hmac(secret.as_bytes(), body.as_bytes()));
        let headers = [
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", delivery),
            ("X-Hub-Signature-256", &format!("sha256={signature}")),
        ];
        self.post("github", &headers, body)
    }

    fn gitlab(&self, body: &str, token: &str) -> (u16, Value) {
        let headers = [("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", token)];
        self.post("gitlab", &headers, body)
    }

    fn post(&self, provider: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = format!(
            "POST /hooks/{provider}/{} HTTP/1.1\r\nHost: vend\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n",
            self.app,
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, answer) = text.split_once("\r\n\r\n").unwrap();
        let answer = serde_json::from_str(answer).unwrap_or_else(|_| panic!("{text}"));
        (status, answer)
    }
}

/// RFC 2104, with SHA-256.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// A git host: a bare repository behind a web server that knows nothing of git (the "dumb" protocol).
struct Elsewhere {
    directory: tempfile::TempDir,
    url: String,
}

impl Elsewhere {
    /// Serves until the test's process ends.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/acme/shop.git", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let root = root.clone();
                // A client that goes away is its own business.
                std::thread::spawn(move || drop(give(&stream, &root)));
            }
        });
        let elsewhere = Self { directory, url };
        let made = std::process::Command::new("git")
            .args(["init", "-q", "--bare"])
            .arg(elsewhere.repository())
            .status();
        assert!(made.unwrap().success());
        elsewhere
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("acme/shop.git")
    }

    /// Pushes the working copy's head to the branch `dev` and gives its id.
    fn push(&self, copy: &Copy) -> String {
        let repository = self.repository();
        copy.git(&["push", "-q", repository.to_str().unwrap(), "HEAD:refs/heads/dev"]);
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("git")
                .arg("--git-dir")
                .arg(&repository)
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "git {arguments:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["update-server-info"]);
        run(&["rev-parse", "refs/heads/dev"]).trim().to_owned()
    }

    fn github_push(&self, copy: &Copy) -> String {
        let id = self.push(copy);
        let body = json!({
            "ref": "refs/heads/dev", "before": "0".repeat(40), "after": id,
            "repository": { "full_name": "acme/shop", "clone_url": self.url },
            "sender": { "login": "ada", "id": 88_621_008 },
            "head_commit": commit(&id),
            "commits": [commit(&id)],
        });
        body.to_string()
    }

    fn gitlab_push(&self, copy: &Copy) -> String {
        let id = self.push(copy);
        let body = json!({
            "object_kind": "push", "ref": "refs/heads/dev", "before": "1".repeat(40), "after": id, "checkout_sha": id,
            "user_username": "ada",
            "project": { "path_with_namespace": "acme/shop", "git_http_url": self.url },
            "commits": [commit(&id)],
        });
        body.to_string()
    }
}

fn commit(id: &str) -> Value {
    let author = json!({ "name": "Ada", "email": "ada@acme.example" });
    json!({ "id": id, "message": "A change", "timestamp": "2026-01-02T03:04:05Z", "author": author })
}

/// One request for a file.
fn give(mut stream: &TcpStream, root: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let path = Path::new(path.split('?').next().unwrap_or_default().trim_start_matches('/'));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let bytes = std::fs::read(root.join(path)).ok().filter(|_| is_plain);
    let status = if bytes.is_some() {
        "200 OK"
    } else {
        "404 Not Found"
    };
    let bytes = bytes.unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    )?;
    stream.write_all(&bytes)
}
