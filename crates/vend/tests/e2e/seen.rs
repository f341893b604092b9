//! What is seen of one request, from the load balancer to the app's own log.

use std::time::Duration;

use crate::platform::{Copy, Platform, can_run, eventually};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

#[test]
fn a_request_is_found_in_its_hosts_log_by_its_id() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("seen");
    let (dev, name) = (format!("{app}/dev"), format!("dev.shop.{tenant}.localhost"));
    let copy = Copy::new("one", VEND_YAML);
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&name, "/seen"), (200, "one\n".into()));
    let id = eventually("the line of the request", Duration::from_secs(30), || {
        let lines = platform.vend(&["logs", &dev, "--access"]);
        let line = lines
            .lines()
            .find(|line| line.contains("/seen HTTP/1.1\" 200 "))?;
        Some(line.rsplit_once(' ')?.1.to_owned())
    });
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    let hosts = platform.json(&["hosts", "list", &dev]);
    let log = format!("host/{}/web", hosts["items"][0]["id"].as_str().unwrap());
    eventually("the same id in the host's log", Duration::from_secs(30), || {
        platform
            .vend(&["logs", &log])
            .contains(&format!("request {id}"))
            .then_some(())
    });
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
