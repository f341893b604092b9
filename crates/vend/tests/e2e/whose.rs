//! A domain and a port that two tenants ask for: who had them first keeps them, and the other is told, until they are free.

use std::{net::TcpListener, time::Duration};

use serde_json::Value;

use crate::{
    platform::{Copy, Platform, can_run, eventually, get, tenant},
    vaulted::{certificate, visit},
};

const SOON: Duration = Duration::from_secs(60);

/// An app, with a certificate of its own for the domain in its vault.
struct Shop<'p> {
    platform: &'p Platform,
    tenant: String,
    app: String,
    copy: Copy,
    folder: tempfile::TempDir,
}

impl<'p> Shop<'p> {
    fn new(platform: &'p Platform, tenant: String, domain: &str) -> Self {
        let app = format!("{tenant}/shop");
        platform.vend(&["tenants", "create", &tenant]);
        platform.vend(&["apps", "create", &app]);
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = certificate(folder.path(), domain);
        platform.set_secret(&app, "chain", &chain);
        platform.set_secret(&app, "key", &key);
        Self {
            platform,
            copy: Copy::new(&tenant, "app: shop\n"),
            tenant,
            app,
            folder,
        }
    }

    /// A release that asks for these keys more becomes live.
    fn releases(&self, more: &str) {
        let health = "{ path: /, interval: 1s, timeout: 1s }";
        let yaml = format!("app: shop\nhost: {{ health: {health} }}\n{more}");
        self.copy.write("vend.yaml", yaml);
        self.copy.commit("It asks");
        self.platform.release(&self.copy, &self.app, "main");
    }

    /// Visitors of the domain and of the port get this app, and the domain's certificate is its own.
    fn has(&self, domain: &str, port: u16) -> Option<()> {
        let https = self.platform.endpoints()["https"].as_str()?.to_owned();
        let page = visit(&https, domain, &self.folder.path().join("chain.pem"))?;
        let (status, body) = get(&format!("127.0.0.1:{port}"), "any", "/").ok()?;
        let own = format!("{}\n", self.tenant);
        (page.ends_with(&format!("\r\n\r\n{own}")) && (status, &body) == (200, &own)).then_some(())
    }

    fn place(&self) -> String {
        format!("{}/production", self.app)
    }

    /// What its own people are told of what it asks for.
    fn sockets(&self, token: &str) -> Vec<Value> {
        let text = self.platform.vend_as(token, &["edge", "sockets", "--json"]);
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_domain_and_a_port_are_whose_they_were_first_until_they_are_given_up() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[listen]\nhttps = '127.0.0.1:0'\n");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let domain = format!("bank.{}.example", tenant("whose"));
    // The second is before the first by its name, and by the number that its first release gave it.
    let second = Shop::new(&platform, tenant("aa"), &domain);
    let first = Shop::new(&platform, tenant("zz"), &domain);
    let both = format!(
        "domains: [{{ host: {domain}, certificate: {{ chain: '{{{{secret:chain}}}}', key: '{{{{secret:key}}}}' }} }}]
listeners: [{{ protocol: tcp, port: {port}, host_port: 8080 }}]
"
    );
    second.releases("");
    first.releases(&both);
    let has = |shop: &Shop<'_>| eventually(&shop.tenant, SOON, || shop.has(&domain, port));
    has(&first);

    // The second is released without them, and is told so without being told of the first.
    second.releases(&both);
    platform.restart("serve");
    platform.wait_until_ready();
    for _ in 0..20 {
        assert_eq!(first.has(&domain, port), Some(()), "{}", platform.log());
    }
    let why = platform.vend(&["why", &second.place()]);
    let token = platform.token("late", "developer", &second.tenant);
    let executions = platform.json(&["executions", "list", &second.app]);
    let plan = platform.vend_as(
        &token,
        &["plan", "show", executions["items"][0]["id"].as_str().unwrap()],
    );
    for told in [&why, &plan] {
        for name in [domain.clone(), format!("tcp-{port}")] {
            let is_told = |rest: &str| {
                rest.trim_start()
                    .starts_with("does not lead here: another environment")
            };
            assert!(told.split(&name).skip(1).any(is_told), "{name}: {told}");
        }
        assert!(!told.contains(&first.tenant), "{told}");
    }
    let waits = second.sockets(&token);
    assert!(
        waits.len() == 1
            && waits[0]["address"] == format!("127.0.0.1:{port}")
            && waits[0]["place"] == second.place()
            && waits[0]["problem"]
                .as_str()
                .unwrap()
                .contains("another environment"),
        "{waits:#?}"
    );
    // The operator sees who waits behind whom.
    let sockets = platform.vend(&["edge", "sockets"]);
    let at = |place: String| {
        sockets
            .find(&place)
            .unwrap_or_else(|| panic!("{place}: {sockets}"))
    };
    assert!(at(first.place()) < at(second.place()), "{sockets}");
    let explained = platform.vend(&["edge", "explain", &format!("https://{domain}/")]);
    assert!(
        explained.contains(&format!("of {} decides", first.place()))
            && explained.contains(&format!("{} asks for {domain} too", second.place())),
        "{explained}"
    );
    let routes = platform.json(&["edge", "routes"]);
    let waiting = routes["waiting"].as_array().unwrap();
    let own = |name: &&Value| name["place"]["tenant"] == second.tenant;
    assert_eq!(waiting.iter().filter(own).count(), 2, "{waiting:#?}");

    // They go to it by themselves with the first release of the other that asks for them no more, and back when it is gone.
    first.releases("");
    has(&second);
    assert!(second.sockets(&token)[0]["problem"].is_null());
    assert!(
        !platform
            .vend(&["why", &second.place()])
            .contains("does not lead here")
    );
    first.releases(&both);
    assert_eq!(second.has(&domain, port), Some(()), "{}", platform.log());
    assert!(
        platform
            .vend(&["why", &first.place()])
            .contains("does not lead here")
    );
    platform.succeeds(&["environments", "destroy", &second.place(), "--yes"]);
    has(&first);
    for shop in [first, second] {
        platform.vend(&["tenants", "delete", &shop.tenant, "--yes"]);
    }
}
