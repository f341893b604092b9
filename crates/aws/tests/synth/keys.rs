//! Each key that `vend.yaml` can have is done on AWS, or said to be done otherwise, or refused by its name. The keys are read
//! off the schema, so that a new one fails here until it is known what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use aws::synth::{Config, Priorities, all};
use model::spec;
use serde_json::Value;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Something that is made differs with it.
    Done,
    /// A note names it.
    Noted,
    /// There is no template, and the reason names it.
    Refused,
    /// Templates are not where it is read, for this reason.
    Elsewhere(&'static str),
}

use Fate::{Done, Elsewhere, Noted, Refused};

/// A key as the schema has it, an app without it, the same with it, and what becomes of it. Without `environments` the app has
/// one, `live`.
type Case = (&'static str, &'static str, &'static str, Fate);

pub const LOGIN: &str = "authenticate: { issuer: 'https://id.test', authorization_endpoint: 'https://id.test/a', token_endpoint: \
    'https://id.test/t', user_info_endpoint: 'https://id.test/u', client_id: shop, client_secret: '{{secret:oidc}}' }";
const MANY: &str = "environments: { live: {}, preview: { branches: 'x/*' } }";
const PORT: &str = "listeners: [{ protocol: udp, port: 5000 }]";

const CASES: &[Case] = &[
    ("app", "", "app: other", Done),
    (
        "engine",
        "",
        "engine: embedded",
        Elsewhere("it says where a platform runs it, and these commands are another way"),
    ),
    ("image.base", "", "image: { base: debian-13 }", Refused),
    ("image.login", "", "image: { login: '{{secret:a}}' }", Noted),
    ("image.refresh", "", "image: { refresh: automatic }", Noted),
    ("image.scripts", "", "image: { scripts: [a.sh] }", Done),
    ("image.inputs", "", "image: { inputs: [a] }", Done),
    ("build.buildspec", "", "build: { buildspec: b.yml }", Done),
    ("build.timeout", "", "build: { timeout: 9m }", Done),
    ("build.env", "", "build: { env: { A: b } }", Done),
    ("build.pass_rate", "", "build: { pass_rate: 50 }", Noted),
    ("build.coverage", "", "build: { coverage: 50 }", Noted),
    (
        "build.image",
        "",
        "build: { image: 'oci:docker.io/library/rust:1' }",
        Refused,
    ),
    (
        "build.login",
        "",
        "build: { image: 'oci:docker.io/library/rust:1', login: '{{secret:a}}' }",
        Elsewhere("it goes with an image of a registry, which is refused"),
    ),
    ("access.allow", "", "access: { allow: 192.0.2.7 }", Refused),
    ("access.deny", "", "access: { deny: 192.0.2.7 }", Refused),
    (
        "host.health.protocol",
        "",
        "host: { health: { protocol: tcp } }",
        Refused,
    ),
    (
        "host.traffic.protocol",
        "",
        "host: { traffic: { protocol: http2 } }",
        Done,
    ),
    (
        "host.traffic.algorithm",
        "",
        "host: { traffic: { algorithm: least-outstanding } }",
        Done,
    ),
    (
        "host.traffic.slow_start",
        "",
        "host: { traffic: { slow_start: 1m } }",
        Done,
    ),
    (
        "host.traffic.stickiness.duration",
        "host: { traffic: { stickiness: { duration: 1h } } }",
        "host: { traffic: { stickiness: { duration: 2h } } }",
        Done,
    ),
    (
        "host.traffic.stickiness.cookie",
        "host: { traffic: { stickiness: { duration: 1h } } }",
        "host: { traffic: { stickiness: { duration: 1h, cookie: id } } }",
        Done,
    ),
    (
        "host.traffic.ejection.failures",
        "",
        "host: { traffic: { ejection: { failures: 3 } } }",
        Refused,
    ),
    (
        "host.traffic.ejection.time",
        "",
        "host: { traffic: { ejection: { time: 1m } } }",
        Refused,
    ),
    ("build.batch", "", "build: { batch: true }", Refused),
    (
        "build.combine_artifacts",
        "",
        "build: { batch: true, combine_artifacts: true }",
        Elsewhere("it is of a batch, which is refused"),
    ),
    (
        "build.batch_timeout",
        "",
        "build: { batch: true, batch_timeout: 1h }",
        Elsewhere("it is of a batch, which is refused"),
    ),
    (
        "deploy.appspec",
        "",
        "deploy: { appspec: x/appspec.yml }",
        Refused,
    ),
    ("deploy.strategy", "", "deploy: { strategy: canary }", Done),
    (
        "deploy.minimum_healthy",
        "",
        "deploy: { minimum_healthy: all-at-once }",
        Done,
    ),
    (
        "deploy.ignore_stop_failures",
        "",
        "deploy: { ignore_stop_failures: true }",
        Done,
    ),
    (
        "deploy.alarms.names",
        "",
        "deploy: { alarms: { names: a } }",
        Done,
    ),
    (
        "deploy.alarms.ignore_unknown",
        "deploy: { alarms: { names: [errors] } }",
        "deploy: { alarms: { names: [errors], ignore_unknown: true } }",
        Done,
    ),
    (
        "deploy.alarms.stale_after",
        "deploy: { alarms: { names: [errors] } }",
        "deploy: { alarms: { names: [errors], stale_after: 5m } }",
        Noted,
    ),
    ("deploy.keep_old", "", "deploy: { keep_old: 3m }", Done),
    ("deploy.drain", "", "deploy: { drain: 3m }", Done),
    (
        "deploy.percent",
        "deploy: { strategy: canary }",
        "deploy: { strategy: canary, percent: 20 }",
        Done,
    ),
    (
        "deploy.steps",
        "deploy: { strategy: linear }",
        "deploy: { strategy: linear, steps: 5 }",
        Done,
    ),
    (
        "deploy.interval",
        "deploy: { strategy: canary }",
        "deploy: { strategy: canary, interval: 3m }",
        Done,
    ),
    (
        "deploy.analysis.errors",
        "deploy: { strategy: canary }",
        "deploy: { strategy: canary, analysis: { errors: 2 } }",
        Noted,
    ),
    (
        "deploy.analysis.slower",
        "deploy: { strategy: canary }",
        "deploy: { strategy: canary, analysis: { slower: 2 } }",
        Noted,
    ),
    (
        "deploy.analysis.sample",
        "deploy: { strategy: canary }",
        "deploy: { strategy: canary, analysis: { sample: 2 } }",
        Noted,
    ),
    (
        "deploy.zones.minimum_healthy",
        "deploy: { strategy: in-place, zones: { monitor: 1m } }\nscaling: { min: 2 }",
        "deploy: { strategy: in-place, zones: { monitor: 1m, minimum_healthy: 50% } }\nscaling: { min: 2 }",
        Done,
    ),
    (
        "deploy.zones.monitor",
        "deploy: { strategy: in-place, zones: { first_monitor: 1m } }\nscaling: { min: 2 }",
        "deploy: { strategy: in-place, zones: { first_monitor: 1m, monitor: 2m } }\nscaling: { min: 2 }",
        Done,
    ),
    (
        "deploy.zones.first_monitor",
        "deploy: { strategy: in-place, zones: { monitor: 1m } }\nscaling: { min: 2 }",
        "deploy: { strategy: in-place, zones: { monitor: 1m, first_monitor: 2m } }\nscaling: { min: 2 }",
        Done,
    ),
    (
        "deploy.migrate.script",
        "",
        "deploy: { migrate: { script: a.sh } }",
        Done,
    ),
    (
        "deploy.migrate.timeout",
        "deploy: { migrate: { script: a.sh } }",
        "deploy: { migrate: { script: a.sh, timeout: 3m } }",
        Done,
    ),
    (
        "deploy.migrate.runas",
        "deploy: { migrate: { script: a.sh } }",
        "deploy: { migrate: { script: a.sh, runas: app } }",
        Done,
    ),
    (
        "deploy.migrate.irreversible",
        "deploy: { migrate: { script: a.sh } }",
        "deploy: { migrate: { script: a.sh, irreversible: true } }",
        Elsewhere("`vend aws rollback` reads it where it goes back"),
    ),
    ("host.size", "", "host: { size: large }", Done),
    ("host.port", "", "host: { port: 9000 }", Done),
    ("host.health.path", "", "host: { health: { path: /up } }", Done),
    (
        "host.health.interval",
        "",
        "host: { health: { interval: 20s } }",
        Done,
    ),
    (
        "host.health.timeout",
        "host: { health: { interval: 20s } }",
        "host: { health: { interval: 20s, timeout: 9s } }",
        Done,
    ),
    (
        "host.health.healthy",
        "",
        "host: { health: { healthy: 5 } }",
        Done,
    ),
    (
        "host.health.unhealthy",
        "",
        "host: { health: { unhealthy: 5 } }",
        Done,
    ),
    ("host.health.within", "", "host: { health: { within: 5m } }", Done),
    (
        "host.health.codes",
        "",
        "host: { health: { codes: '204' } }",
        Done,
    ),
    ("host.env", "", "host: { env: { A: b } }", Done),
    ("database.engine", "", "database: { engine: mariadb }", Done),
    ("checks", "", "checks: goss.yml", Noted),
    ("approval.by", "", "approval: { by: [a@b.test] }", Noted),
    (
        "approval.required",
        "approval: { required: 1 }",
        "approval: { required: 2 }",
        Done,
    ),
    (
        "approval.author_may_approve",
        "",
        "approval: { author_may_approve: true }",
        Noted,
    ),
    (
        "approval.expires",
        "approval: { required: 1 }",
        "approval: { required: 1, expires: 3h }",
        Done,
    ),
    (
        "scaling.min",
        "scaling: { max: 3 }",
        "scaling: { min: 2, max: 3 }",
        Done,
    ),
    ("scaling.max", "", "scaling: { max: 3 }", Done),
    (
        "listeners[].protocol",
        PORT,
        "listeners: [{ protocol: tcp, port: 5000 }]",
        Done,
    ),
    ("listeners[].port", "", PORT, Done),
    (
        "listeners[].host_port",
        PORT,
        "listeners: [{ protocol: udp, port: 5000, host_port: 50 }]",
        Done,
    ),
    (
        "listeners[].idle",
        PORT,
        "listeners: [{ protocol: udp, port: 5000, idle: 9s }]",
        Noted,
    ),
    (
        "listeners[].name",
        PORT,
        "listeners: [{ protocol: udp, port: 5000, name: hosts }]",
        Noted,
    ),
    (
        "listeners[].ttl",
        PORT,
        "listeners: [{ protocol: udp, port: 5000, name: hosts, ttl: 9s }]",
        Noted,
    ),
    ("domains[].host", "", "domains: [{ host: a.test }]", Noted),
    (
        "domains[].certificate",
        "",
        "domains: [{ host: a.test, certificate: acme }]",
        Noted,
    ),
    (
        "domains[].certificate.chain",
        "",
        "domains: [{ host: a.test, certificate: { chain: '{{secret:a}}', key: '{{secret:b}}' } }]",
        Noted,
    ),
    (
        "domains[].certificate.key",
        "",
        "domains: [{ host: a.test, certificate: { chain: '{{secret:a}}', key: '{{secret:b}}' } }]",
        Noted,
    ),
    (
        "domains[].dedicated_balancer",
        "",
        "domains: [{ host: a.test, dedicated_balancer: true }]",
        Noted,
    ),
    (
        "authenticate.issuer",
        LOGIN,
        "https://id.test'=https://other.test'",
        Done,
    ),
    (
        "authenticate.authorization_endpoint",
        LOGIN,
        "https://id.test/a=https://id.test/b",
        Done,
    ),
    (
        "authenticate.token_endpoint",
        LOGIN,
        "https://id.test/t=https://id.test/b",
        Done,
    ),
    (
        "authenticate.user_info_endpoint",
        LOGIN,
        "https://id.test/u=https://id.test/b",
        Done,
    ),
    (
        "authenticate.client_id",
        LOGIN,
        "client_id: shop=client_id: other",
        Done,
    ),
    (
        "authenticate.client_secret",
        LOGIN,
        "secret:oidc=secret:other",
        Done,
    ),
    ("authenticate.scope", LOGIN, " }=, scope: openid email }", Done),
    (
        "authenticate.session_cookie",
        LOGIN,
        " }=, session_cookie: own }",
        Done,
    ),
    (
        "authenticate.session_timeout",
        LOGIN,
        " }=, session_timeout: 1h }",
        Done,
    ),
    (
        "authenticate.extra_parameters",
        LOGIN,
        " }=, extra_parameters: { prompt: login } }",
        Done,
    ),
    (
        "authenticate.on_unauthenticated",
        LOGIN,
        " }=, on_unauthenticated: deny }",
        Done,
    ),
    (
        "placement.registered",
        "",
        "placement: { registered: { role: web } }",
        Refused,
    ),
    (
        "environments.branch",
        "",
        "environments: { live: { branch: main } }",
        Done,
    ),
    ("environments.branches", "", MANY, Done),
    (
        "environments.expires",
        MANY,
        "environments: { live: {}, preview: { branches: 'x/*', expires: 3d } }",
        Done,
    ),
    (
        "environments.limit",
        MANY,
        "environments: { live: {}, preview: { branches: 'x/*', limit: 3 } }",
        Elsewhere("`vend aws apply --branch` counts what is there when it makes one more"),
    ),
    (
        "environments.sleep_after",
        "",
        "environments: { live: { sleep_after: 1h } }",
        Noted,
    ),
];

/// The keys of a part of the schema that are no section themselves.
fn keys(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let Some(own) = schema["properties"].as_object() else {
        if let Some(items) = schema
            .get("items")
            .filter(|items| items["properties"].is_object())
        {
            return keys(items, &format!("{at}[]"), found);
        }
        let choices = schema["anyOf"].as_array().into_iter().flatten();
        for choice in choices.filter(|choice| choice["properties"].is_object()) {
            keys(choice, at, found);
        }
        found.insert(at.to_owned());
        return;
    };
    for (name, key) in own {
        // Known, and refused by the parser.
        if key["not"].is_object() {
            continue;
        }
        if name == "environments" {
            let top: Vec<&String> = own.keys().collect();
            let each = key["additionalProperties"]["properties"].as_object().unwrap();
            for (name, key) in each.iter().filter(|(name, _)| !top.contains(name)) {
                keys(key, &format!("environments.{name}"), found);
            }
            continue;
        }
        let path = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        keys(key, &path, found);
    }
}

/// What is made: files by name, and the notes.
pub fn made(text: &str) -> Result<(BTreeMap<String, String>, Vec<String>), String> {
    let config: Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let app = if text.contains("app: ") { "" } else { "app: shop\n" };
    let environments = if text.contains("environments: ") {
        ""
    } else {
        "environments: { live: {} }\n"
    };
    let yaml = format!("{app}{text}\n{environments}");
    let (app, _) =
        spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap_or_else(|all| panic!("{yaml}: {all:?}"));
    let output = all(&config, &app, &mut Priorities::default()).map_err(|error| error.to_string())?;
    let notes = output
        .stacks
        .iter()
        .flat_map(|stack| stack.notes.clone())
        .collect();
    let stacks = output.stacks.iter();
    let stacks = stacks.map(|stack| (stack.name.clone(), stack.template.json()));
    let files = output
        .files
        .iter()
        .map(|file| (file.path.clone(), file.text.clone()));
    Ok((stacks.chain(files).collect(), notes))
}

#[test]
fn every_key_is_known_to_be_done_said_or_refused() {
    let mut found = BTreeSet::new();
    keys(&spec::schema(), "", &mut found);
    let known: BTreeSet<String> = CASES.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(found, known);
    assert_eq!(known.len(), CASES.len());
}

#[test]
fn nothing_that_a_file_says_is_passed_over() {
    for (key, before, after, fate) in CASES {
        // A change of the one before, in short.
        let after = match after
            .split_once('=')
            .filter(|_| !before.is_empty() && before.contains("issuer"))
        {
            Some((from, to)) => before.replacen(from, to, 1),
            None => (*after).to_owned(),
        };
        let last = key.rsplit('.').next().unwrap();
        match fate {
            Done => assert!(
                made(before).unwrap().0 != made(&after).unwrap().0,
                "{key} changes nothing"
            ),
            Noted => {
                let (_, notes) = made(&after).unwrap();
                let parts: Vec<&str> = key.split(['.', '[']).collect();
                let names = |note: &&String| parts.iter().any(|part| note.contains(&format!("`{part}")));
                assert!(notes.iter().any(|note| names(&note)), "{key}: {notes:?}");
            }
            Refused => {
                let why = made(&after).unwrap_err();
                let section = key.split('[').next().unwrap();
                assert!(why.contains(section) || why.contains(last), "{key}: {why}");
            }
            Elsewhere(why) => assert!(why.len() > 20, "{key}"),
        }
    }
}
