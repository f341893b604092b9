//! Two tenants on one machine: neither reaches the other's addresses, files, secrets, logs or API objects.

use base64::Engine as _;
use serde_json::Value;

use crate::platform::{Copy, Platform, can_run};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s }, env: { API_KEY: \"{{secret:api-key}}\" } }
environments:
  dev: { branch: dev }
";

struct Customer {
    tenant: String,
    app: String,
    token: String,
}

fn customer(platform: &Platform, prefix: &str) -> Customer {
    let (tenant, app) = platform.tenant_with_app(prefix);
    platform.set_secret(&app, "api-key", &format!("value-of-{prefix}"));
    let copy = Copy::new(prefix, VEND_YAML);
    platform.release(&copy, &app, "dev");
    let token = platform.token("ci", "operator", &tenant);
    Customer { tenant, app, token }
}

fn hosts(platform: &Platform, app: &str) -> Vec<Value> {
    let all = platform.json(&["hosts", "list", &format!("{app}/dev")]);
    all["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|host| host["wanted"] == "serving")
        .cloned()
        .collect()
}

#[test]
fn tenants_cannot_see_each_other() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (red, blue) = (customer(&platform, "red"), customer(&platform, "blue"));

    // Each has its own secret, and the vault's file holds neither.
    for (own, prefix) in [(&red, "red"), (&blue, "blue")] {
        let host = format!("dev.shop.{}.localhost", own.tenant);
        assert_eq!(
            platform.get(&host, "/secret"),
            (200, format!("value-of-{prefix}\n"))
        );
    }
    assert_nowhere_on_disk(&platform, "value-of-red");

    // Addresses: a connection from one host to the other's app is dropped, to its own it is not.
    let (from, to) = (
        hosts(&platform, &red.app).remove(0),
        hosts(&platform, &blue.app).remove(0),
    );
    let own_address = from["address"].as_str().unwrap();
    let other_address = to["address"].as_str().unwrap();
    assert!(connects(&from, own_address, 8080), "a host reaches itself");
    assert!(
        !connects(&from, other_address, 8080),
        "another tenant's host must not be reached"
    );
    let api = platform.endpoints()["api"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let gateway = own_address
        .rsplit_once('.')
        .map(|(net, _)| format!("{net}.1"))
        .unwrap();
    assert!(
        !connects(&from, &gateway, api),
        "the platform's API must not be reached"
    );

    // Files: user ids do not meet.
    assert_ne!(uid_base(&from), uid_base(&to));

    // API objects: another tenant's do not exist.
    let url = format!("http://{}", platform.endpoints()["api"].as_str().unwrap());
    let as_red = |path: &str| api_status(&url, &red.token, path);
    assert_eq!(as_red(&format!("/v1/tenants/{}", red.tenant)), 200);
    for path in [
        format!("/v1/tenants/{}", blue.tenant),
        format!("/v1/tenants/{}/apps/shop", blue.tenant),
        format!("/v1/tenants/{}/apps/shop/environments/dev", blue.tenant),
        format!("/v1/tenants/{}/apps/shop/environments/dev/releases", blue.tenant),
        format!("/v1/tenants/{}/apps/shop/secrets", blue.tenant),
        format!("/v1/tenants/{}/apps/shop/pushes", blue.tenant),
    ] {
        assert_eq!(as_red(&path), 404, "{path}");
    }
    let blue_log = format!("host/{}/console", to["id"].as_str().unwrap());
    assert_eq!(
        as_red(&format!("/v1/logs/{blue_log}")),
        404,
        "another tenant's log"
    );
    platform.vend(&["tenants", "delete", &red.tenant, "--yes"]);
    platform.vend(&["tenants", "delete", &blue.tenant, "--yes"]);
}

const BAKED: &str = "app: shop
image: { scripts: [OWN/install.sh] }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

/// The same files by other scripts are one image. Who made them elsewhere is told nobody.
#[test]
fn an_image_of_two_tenants_is_known_to_each_by_its_own_names() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let work = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    let customers = ["red", "blue"].map(|prefix| {
        let (tenant, app) = platform.tenant_with_app(prefix);
        let copy = Copy::new(prefix, &BAKED.replace("OWN", prefix));
        let script = format!("#!/bin/sh\n# as {prefix} does\necho the same > /etc/motd\n");
        copy.write(&format!("{prefix}/install.sh"), script);
        copy.commit(&format!("The plan of {prefix}"));
        platform.release(&copy, &app, "dev");
        let listed = platform.json(&["images", "list", &app]);
        images.push(listed["items"][0]["digest"].as_str().unwrap().to_owned());
        let token = platform.token("ci", "operator", &tenant);
        Customer { tenant, app, token }
    });
    assert_eq!(images[0], images[1], "the same files");
    let image = images[0].as_str();
    for (own, other, customer) in [("red", "blue", &customers[0]), ("blue", "red", &customers[1])] {
        let as_own = |arguments: &[&str]| platform.vend_as(&customer.token, arguments);
        let shown: Value = serde_json::from_str(&as_own(&["images", "show", image, "--json"])).unwrap();
        let mut told = vec![shown.to_string(), as_own(&["images", "show", image])];
        let signed = shown["attestations"].as_array().unwrap();
        assert!(signed.len() >= 2, "{shown:#}");
        told.extend(signed.iter().map(|envelope| {
            let payload =
                base64::engine::general_purpose::STANDARD.decode(envelope["payload"].as_str().unwrap());
            String::from_utf8(payload.unwrap()).unwrap()
        }));
        let file = work.path().join(format!("{own}.tar"));
        as_own(&["images", "export", image, file.to_str().unwrap()]);
        told.push(String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned());
        let all = told.join("\n");
        for own in [format!("The plan of {own}"), format!("{own}/install.sh")] {
            assert!(all.contains(&own), "no {own}:\n{shown:#}");
        }
        for foreign in [
            format!("plan of {other}"),
            format!("{other}/install.sh"),
            customers[usize::from(other == "blue")].tenant.clone(),
        ] {
            let found = told.iter().find(|text| text.contains(&foreign));
            assert!(found.is_none(), "{foreign} in {:.2000}", found.unwrap());
        }
    }
    // Who runs the platform sees both.
    let shown = platform.json(&["images", "show", image]);
    let mut apps: Vec<String> = shown["apps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| {
            format!(
                "{}/{}",
                own["tenant"].as_str().unwrap(),
                own["app"].as_str().unwrap()
            )
        })
        .collect();
    apps.sort();
    let mut expected = customers.each_ref().map(|customer| customer.app.clone());
    expected.sort();
    assert_eq!(apps, expected);
    for customer in &customers {
        platform.vend(&["tenants", "delete", &customer.tenant, "--yes"]);
    }
}

/// The first process of a host, as the machine sees it.
fn pid(host: &Value) -> String {
    let id = host["id"].as_str().unwrap();
    let found = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .find(|entry| {
            let root = entry.path();
            let is_agent = std::fs::read(root.join("cmdline"))
                .is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(b"agent"));
            is_agent && std::fs::read_to_string(root.join("cgroup")).is_ok_and(|text| text.contains(id))
        });
    found
        .unwrap_or_else(|| panic!("host {id} has no process"))
        .file_name()
        .into_string()
        .unwrap()
}

fn uid_base(host: &Value) -> String {
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", pid(host))).unwrap();
    map.split_whitespace().nth(1).unwrap().to_owned()
}

/// Does a TCP connection from inside the host's network reach this address within two seconds?
fn connects(host: &Value, address: &str, port: u16) -> bool {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    let status = std::process::Command::new("nsenter")
        .args([
            "--target",
            &pid(host),
            "--net",
            "timeout",
            "2",
            "bash",
            "-c",
            &script,
        ])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    status.success()
}

fn api_status(url: &str, token: &str, path: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Searches what serve, node and the logs keep for a text that must not be there in clear.
fn assert_nowhere_on_disk(platform: &Platform, text: &str) {
    for directory in ["serve", "edge", "run", "node/hosts", "node/logs", "node/tickets"] {
        let path = platform.data().join(directory);
        if !path.exists() {
            continue;
        }
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "-a", "-F", text])
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            found.stdout.is_empty(),
            "in clear in {}",
            String::from_utf8_lossy(&found.stdout)
        );
    }
}
