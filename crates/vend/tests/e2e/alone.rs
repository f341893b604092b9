//! The load balancer alone, as a file says: what it serves, and what its commands say of it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;

use crate::platform::{eventually, get};

pub struct Alone {
    pub child: Child,
    pub folder: tempfile::TempDir,
    pub address: String,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers every request, `/bad` with a 500, and ends the connection.
pub fn origin() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap_or(0);
                let status = match head[..length].starts_with(b"GET /bad ") {
                    true => "500 Bad",
                    false => "200 OK",
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes");
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}

impl Alone {
    /// With a group `NAME` behind each host `NAME.test`.
    pub fn start(origin: std::net::SocketAddr, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        let rules: String = names
            .iter()
            .map(|name| format!("  - hosts: [{name}.test]\n    forward: {{ {name}: 1 }}\n"))
            .collect();
        let group = |name: &&str| {
            format!(
                "  {name}:
    targets: ['{origin}']
    health: {{ path: /, interval: 5s, timeout: 2s, healthy: 2, unhealthy: 2, codes: [[200, 399]] }}\n"
            )
        };
        let groups: String = names.iter().map(group).collect();
        let text = format!(
            "listeners:
  - {{ address: '127.0.0.1:0', speaks: http }}
rules:
{rules}target_groups:
{groups}access_log: {{ path: {}, rotate: {{ size_mib: 1, age_h: 0, keep_mib: 2 }} }}
",
            folder.path().join("access.log").display()
        );
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vend"))
            .args(["edge", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("said")).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let address = said.trim().strip_prefix("listening at ").unwrap().to_owned();
        Self {
            child,
            folder,
            address,
        }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_vend"))
            .arg("edge")
            .args(arguments)
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_load_balancer_alone_serves_and_says_what_it_does() {
    let alone = Alone::start(origin(), &["shop"]);
    eventually("it serves", Duration::from_secs(20), || {
        let answer = get(&alone.address, "shop.test", "/").ok()?;
        (answer == (200, "yes".into())).then_some(())
    });
    assert_eq!(get(&alone.address, "other.test", "/").unwrap().0, 503);
    assert!(alone.ask(&["routes"]).contains("shop.test"));
    let explained = alone.ask(&["explain", "http://shop.test/x"]);
    assert!(explained.contains("100.0 % go to the group shop"), "{explained}");

    let enough = Arc::new(AtomicBool::new(false));
    let (over, address) = (Arc::clone(&enough), alone.address.clone());
    let load = std::thread::spawn(move || {
        while !over.load(Relaxed) {
            let _ = get(&address, "shop.test", "/");
            let _ = get(&address, "shop.test", "/bad");
        }
    });
    let seen: Value = serde_json::from_str(&alone.ask(&["top", "--once", "--json"])).unwrap();
    let shown = alone.ask(&["top", "--once"]);
    let rules = alone.ask(&["top", "--once", "--rules"]);
    enough.store(true, Relaxed);
    load.join().unwrap();
    let group = &seen["groups"][0];
    assert_eq!(
        (&group["group"], &group["targets"], &group["healthy"]),
        (&"shop".into(), &1.into(), &1.into())
    );
    let rate = |value: &Value| value.as_f64().unwrap();
    assert!(
        rate(&group["requests"]) > 0.0 && rate(&group["p50_ms"]) > 0.0,
        "{seen}"
    );
    assert!(
        rate(&group["classes"][1]) > 0.0 && rate(&group["classes"][4]) > 0.0,
        "{seen}"
    );
    assert!(
        rate(&group["bytes"]) > 0.0 && rate(&seen["connections"]) > 0.0,
        "{seen}"
    );
    assert!(shown.contains("REQ/S▾") && shown.contains("\nshop "), "{shown}");
    assert!(rules.contains("shop.test"), "{rules}");
    println!("{shown}\n{rules}");
}

#[test]
fn a_file_that_changes_is_followed_and_a_wrong_one_is_not() {
    let alone = Alone::start(origin(), &["shop"]);
    let file = alone.folder.path().join("edge.yaml");
    let first = std::fs::read_to_string(&file).unwrap();
    let answering = |body: &str| {
        let answer = format!("    answer: {{ status: 200, body: {body} }}\n");
        first.replace("    forward: { shop: 1 }\n", &answer)
    };
    let serves = |body: &str| {
        eventually(&format!("it serves `{body}`"), Duration::from_secs(20), || {
            let answer = get(&alone.address, "shop.test", "/").ok()?;
            (answer == (200, body.to_owned())).then_some(())
        });
    };
    serves("yes");
    std::fs::write(&file, answering("changed")).unwrap();
    serves("changed");
    // What is wrong is named, and nothing of it is in force.
    std::fs::write(&file, answering("wrong") + "rulez: []\n").unwrap();
    eventually("it is said what is wrong", Duration::from_secs(20), || {
        let said = std::fs::read_to_string(alone.folder.path().join("said")).ok()?;
        (said.contains("the old file stays in force") && said.contains("rulez")).then_some(())
    });
    serves("changed");
    let routes = alone.ask(&["routes"]);
    assert!(
        routes.contains("shop.test") && !routes.contains("wrong"),
        "{routes}"
    );
    std::fs::write(&file, answering("again")).unwrap();
    serves("again");
}
