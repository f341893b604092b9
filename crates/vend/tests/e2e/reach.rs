//! Going back as far as it is promised brings back all that a release was, and says so before.

use std::time::Duration;

use serde_json::Value;

use crate::platform::{Copy, Platform, can_run, eventually};

/// What a release has for a key, by its number.
type Of = fn(u64) -> String;

fn algorithm(n: u64) -> &'static str {
    ["round-robin", "least-outstanding"][n as usize % 2]
}

/// An app of which each release is another one in all that a release is.
struct Shop<'p> {
    platform: &'p Platform,
    tenant: String,
    app: String,
    dev: String,
    copy: Copy,
}

impl<'p> Shop<'p> {
    fn new(platform: &'p Platform) -> Self {
        let (tenant, app) = platform.tenant_with_app("reach");
        Self {
            platform,
            dev: format!("{app}/dev"),
            tenant,
            app,
            copy: Copy::new("0", "app: shop\n"),
        }
    }

    /// Image, code, variables, a secret, port, target group and rules of the `n`th release. The last one has no secret.
    fn write(&self, n: u64) {
        let tenant = &self.tenant;
        let install = format!("#!/bin/sh\n# {tenant}\necho {n} > /etc/motd\n");
        self.copy.write("infra/install.sh", install);
        let key = if n < LAST {
            ", API_KEY: \"{{secret:key}}\""
        } else {
            ""
        };
        let algorithm = algorithm(n);
        let yaml = format!(
            "app: shop
image: {{ scripts: [infra/install.sh] }}
host:
  port: 808{n}
  env: {{ LEVEL: level-{n}{key} }}
  health: {{ path: /health/{n}, interval: 1s, timeout: 1s }}
  traffic: {{ algorithm: {algorithm} }}
deploy: {{ keep_old: 1s, drain: {n}s }}
access: {{ deny: [192.0.2.{n}] }}
domains: [{{ host: {} }}]
environments:
  dev: {{ branch: dev }}
",
            self.domain(n)
        );
        self.copy.write("vend.yaml", yaml);
        self.platform.set_secret(&self.app, "key", &format!("secret-{n}"));
        self.copy
            .says(&format!("{n} $ENV{{LEVEL}} $ENV{{PORT}} @{{[`cat /etc/motd`]}}"));
    }

    fn domain(&self, n: u64) -> String {
        format!("v{n}.{}.example", self.tenant)
    }

    /// Visitors meet all of the `n`th release, at its own names and no other's.
    fn serves(&self, n: u64) {
        let host = format!("dev.shop.{}.localhost", self.tenant);
        let text = format!("{n} level-{n} 808{n} {n}\n\n");
        for name in [&host, &self.domain(n)] {
            assert_eq!(self.platform.get(name, "/"), (200, text.clone()), "{name}");
        }
        let secret = if n < LAST {
            format!("secret-{n}\n")
        } else {
            "none\n".into()
        };
        assert_eq!(self.platform.get(&host, "/secret"), (200, secret));
        for other in (1..=LAST).filter(|other| *other != n) {
            assert_eq!(
                self.platform.get(&self.domain(other), "/").0,
                503,
                "v{other} of v{n}"
            );
        }
    }

    /// The target group of a release and the rules that lead to it, once they lead nowhere else. Which hosts there are is
    /// no part of a release.
    fn routes(&self, n: u64) -> (Value, Vec<Value>) {
        let group = format!("{}/v{n}", self.dev);
        eventually("it is alone", Duration::from_secs(60), || {
            let table = self.platform.json(&["edge", "routes"]);
            let mut own = table["target_groups"][&group].clone();
            own.as_object_mut()?.remove("targets")?;
            let rules = table["rules"].as_array()?.iter();
            let rules = rules.filter(|rule| rule["place"]["tenant"] == *self.tenant);
            let rules: Vec<Value> = rules.cloned().collect();
            let alone = |rule: &Value| {
                let groups = rule["action"]["forward"]["groups"].as_array();
                groups.is_some_and(|groups| groups.len() == 1 && groups[0]["group"] == *group)
            };
            // Of its own names and of its domain.
            (rules.len() == 2 && rules.iter().all(alone)).then_some((own, rules))
        })
    }

    /// What going back from the last release to the `n`th would change, before it does.
    fn plan(&self, n: u64) {
        let plan = self
            .platform
            .json(&["rollback", &self.dev, "--to", &format!("v{n}"), "--plan"]);
        let changes = plan["plan"]["changes"].as_array().unwrap();
        let side = |change: &Value, side: &str| change[side].as_str().map(str::to_owned);
        let change = |subject: &str, name: &str| {
            let own = |change: &&Value| change["subject"] == subject && change["name"] == name;
            let own = changes.iter().find(own);
            let own = own.unwrap_or_else(|| panic!("no {subject} {name} in {plan:#}"));
            (side(own, "before"), side(own, "after"))
        };
        for name in ["image", "revision"] {
            let (before, after) = change(name, name);
            assert!(before.is_some() && after.is_some() && before != after, "{plan:#}");
        }
        let told: [(&str, Of); 6] = [
            ("env.LEVEL", |n| format!("level-{n}")),
            ("host.port", |n| format!("808{n}")),
            ("host.health.path", |n| format!("/health/{n}")),
            ("host.traffic.algorithm", |n| algorithm(n).into()),
            ("deploy.drain", |n| format!("{n}s")),
            ("access.deny", |n| format!("192.0.2.{n}/32")),
        ];
        for (name, of) in told {
            assert_eq!(
                change("configuration", name),
                (Some(of(LAST)), Some(of(n))),
                "{name}"
            );
        }
        let there = || Some("certificate from a file".to_owned());
        let domain = |n| change("configuration", &format!("domains.{}", self.domain(n)));
        assert_eq!((domain(LAST), domain(n)), ((there(), None), (None, there())));
        assert_eq!(change("secret", "key"), (None, Some(format!("version {n}"))));
        for file in ["infra/install.sh", "server.pl", "vend.yaml"] {
            change("file", file);
        }
    }
}

/// The release that is live in the end; the fifth before it is the last within reach.
const LAST: u64 = 6;
const FIFTH: u64 = LAST - 5;

#[test]
fn the_fifth_release_before_comes_back_with_all_that_it_was() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let shop = Shop::new(&platform);
    let mut was = None;
    for n in FIFTH..=LAST {
        shop.write(n);
        platform.release(&shop.copy, &shop.app, "dev");
        if n == FIFTH {
            shop.serves(n);
            was = Some(shop.routes(n));
        }
    }
    // Nobody needs its secret but what can be gone back to.
    platform.vend(&["secrets", "unset", &shop.app, "key"]);
    shop.plan(FIFTH);
    shop.serves(LAST);
    platform.succeeds(&["rollback", &shop.dev, "--to", &format!("v{FIFTH}")]);
    shop.serves(FIFTH);
    assert_eq!(Some(shop.routes(FIFTH)), was);
    let image = |of: &str| platform.json(&["releases", "show", &shop.dev, of])["image"].clone();
    let hosts = platform.json(&["hosts", "list", &shop.dev]);
    let mut serving = hosts["items"].as_array().unwrap().iter();
    let host = serving.find(|host| host["wanted"] == "serving").unwrap();
    assert_eq!(
        (&host["release"], &host["image"]),
        (&FIFTH.into(), &image(&FIFTH.to_string())),
        "{hosts:#}"
    );
    platform.vend(&["tenants", "delete", &shop.tenant, "--yes"]);
}
