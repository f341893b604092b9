//! `vend.yaml`: what is understood, and what is said about the rest.

use camino::Utf8Path;
use jiff::SignedDuration;
use model::{
    Problem,
    spec::{App, MinimumHealthy, Refresh, Variable, is_later, schema},
};
use serde_json::Value;

mod access;
mod branches;
mod deploy;
mod ports;
mod traffic;

/// A tree that has everything but what is called `missing…`.
fn tree(path: &Utf8Path) -> bool {
    !path.as_str().contains("missing")
}

fn read(text: &str) -> Result<(App, Vec<Problem>), Vec<Problem>> {
    App::parse(text, "vend.yaml", &tree)
}

fn good(text: &str) -> App {
    let (app, warnings) = read(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    assert_eq!(warnings, [], "{text}");
    app
}

/// Every problem of a file, one a line, as a person sees them.
fn check(text: &str, expected: &[&str]) {
    let problems = match read(text) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_name_is_enough() {
    let app = good("app: shop");
    let [production] = app.environments.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(
        (production.name.as_str(), production.branch.as_str()),
        ("production", "main")
    );
    assert_eq!(production.image.base, "debian-12");
    assert_eq!(
        production.build.buildspec.as_deref(),
        Some(Utf8Path::new("buildspec.yml"))
    );
    assert_eq!(
        production.deploy.appspec.as_deref(),
        Some(Utf8Path::new("appspec.yml"))
    );
    assert_eq!(production.deploy.keep_old, SignedDuration::from_mins(10));
    assert_eq!(
        (production.host.size.as_str(), production.host.port),
        ("small", 8080)
    );
    assert_eq!(production.host.health.codes, [(200, 399)]);
    assert_eq!((production.scaling.min, production.scaling.max), (1, 1));
    assert_eq!(
        (production.approval.as_ref(), production.database.as_ref()),
        (None, None)
    );
}

#[test]
fn an_environment_overrides_what_stands_above_it() {
    let app = good(
        r#"
app: shop
host: { size: small, port: 9000, env: { A: "1", B: two, KEY: "{{secret:api-key}}", V: 3.10, YES: yes } }
approval: { required: 1 }
database: { engine: mariadb }
environments:
  dev: { approval: ~, database: }
  staging: { branch: release/1, host: { size: medium, env: { B: three } } }
  production: { approval: { by: [a@x, b@x], required: 2, expires: 1h30m }, scaling: { min: 2, max: 8 }, deploy: { minimum_healthy: 75% } }
"#,
    );
    let [dev, staging, production] = app.environments.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(
        (dev.branch.as_str(), &dev.approval, &dev.database),
        ("dev", &None, &None)
    );
    assert_eq!(dev.host.env["KEY"], Variable::Secret("api-key".to_owned()));
    assert_eq!(dev.host.env["V"], Variable::Plain("3.10".to_owned()));
    assert_eq!(dev.host.env["YES"], Variable::Plain("yes".to_owned()));
    assert_eq!(
        (
            staging.branch.as_str(),
            staging.host.size.as_str(),
            staging.host.port
        ),
        ("release/1", "medium", 9000)
    );
    assert_eq!(staging.host.env["A"], Variable::Plain("1".to_owned()));
    assert_eq!(staging.host.env["B"], Variable::Plain("three".to_owned()));
    let approval = production.approval.as_ref().unwrap();
    assert_eq!(
        (approval.required, approval.expires),
        (2, SignedDuration::from_mins(90))
    );
    assert!(!approval.author_may_approve);
    assert_eq!((production.scaling.min, production.scaling.max), (2, 8));
    assert_eq!(production.deploy.minimum_healthy, MinimumHealthy::Percent(75));
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    check(
        "app: Shop\nhots: { port: 80 }\nhost:\n  port: 99999\n  helth: 1\n  health: { interval: 5, codes: \"200-99\" }\n",
        &[
            "vend.yaml:1:6: `Shop` is not a name: use 1 to 40 lower-case letters, digits and single hyphens, starting with a letter",
            "vend.yaml:2:1: `hots` is not a known key (did you mean `host`?)",
            "vend.yaml:4:9: `host.port` must be a number from 1 to 65535, not `99999`",
            "vend.yaml:5:3: `helth` is not a known key of `host` (did you mean `health`?)",
            "vend.yaml:6:23: `host.health.interval` must be a time with its unit, such as `10m`, not `5` (write `5s` for seconds)",
            "vend.yaml:6:33: `host.health.codes` must be status codes such as `200` or `200-399`, not `200-99`",
        ],
    );
}

#[test]
fn messages() {
    for (text, expected) in [
        ("", "vend.yaml: the file is empty (write at least `app: NAME`)"),
        (
            "# nothing\n",
            "vend.yaml: the file is empty (write at least `app: NAME`)",
        ),
        (
            "- a",
            "vend.yaml:1:1: the file must be a mapping, not a list (write at least `app: NAME`)",
        ),
        ("host: {}", "vend.yaml:1:1: `app` is missing (write `app: NAME`)"),
        (
            "app: a\napp: b",
            "vend.yaml:2:1: `app` stands twice in the same mapping",
        ),
        (
            "app: a\nhost:\n\tport: 1",
            "vend.yaml:3:1: a tab stands in the indentation: YAML is indented with spaces (replace the tab by spaces)",
        ),
        (
            "app: &a x\nhost: *a",
            "vend.yaml:2:7: an alias (`*name`) is not allowed (write the value out where it is used)",
        ),
        (
            "app: a\n---\napp: b",
            "vend.yaml:2:1: a second document starts here, and only one is read",
        ),
        (
            "app: a\ndeploy: { strategy: blue-gren }",
            "vend.yaml:2:21: `strategy` must be `blue-green` or `in-place` or `canary` or `linear`, not `blue-gren` (did you mean `blue-green`?)",
        ),
        (
            "app: a\ndeploy: { interval: 5m }",
            "vend.yaml:2:21: `deploy.interval` is of the strategy canary or linear only",
        ),
        (
            "app: a\ndeploy: { strategy: canary, steps: 4 }",
            "vend.yaml:2:36: `deploy.steps` is of the strategy linear only",
        ),
        (
            "app: a\ndeploy: { zones: { monitor: 5m } }",
            "vend.yaml:2:18: `deploy.zones` is of the strategy in-place only (new hosts serve nobody before all of them are healthy)",
        ),
        (
            "app: a\nscaling: { min: 2 }\ndeploy: { strategy: in-place, zones: { minimum_healthy: 2 } }",
            "vend.yaml:3:57: no host could ever be taken out: 2 of 2 must stay healthy (ask for fewer healthy hosts, or have more of them)",
        ),
        (
            "app: a\nplacement: { registered: { role: web } }\ndeploy: { strategy: in-place, minimum_healthy: 100% }",
            "vend.yaml:3:48: no host could ever be taken out: all of them must stay healthy",
        ),
        (
            "app: a\nplacement: { registered: { role: web } }\ndeploy: { zones: { minimum_healthy: 100% } }",
            "vend.yaml:3:37: no host could ever be taken out: all of every zone must stay healthy",
        ),
        (
            "app: a\nplacement: { registered: { role: web } }\ndeploy: { zones: { minimum_healthy: half-at-a-time } }",
            "vend.yaml:3:37: `deploy.zones.minimum_healthy` must be a percentage such as `75%` or a number of hosts, not `half-at-a-time`",
        ),
        (
            "app: a\ndeploy: { strategy: linear, steps: 4, percent: 25% }",
            "vend.yaml:2:36: `deploy.percent` and `deploy.steps` say the same: keep one of them",
        ),
        (
            "app: a\ndeploy: { strategy: canary, percent: 0.5% }",
            "vend.yaml:2:38: `deploy.percent` must be a whole percentage from 1 to 99, not `0.5%`",
        ),
        (
            "app: a\ndeploy: { strategy: canary, analysis: { slower: fast } }",
            "vend.yaml:2:49: `deploy.analysis.slower` must be a percentage such as `50%`, not `fast`",
        ),
        (
            "app: a\nscaling: { min: 10 }\ndeploy: { strategy: in-place, minimum_healthy: 95% }",
            "vend.yaml:3:48: no host could ever be taken out: 10 of 10 must stay healthy (ask for fewer healthy hosts, or have more of them)",
        ),
        (
            "app: a\nimage: { base: \"oci:X\" }",
            "vend.yaml:2:16: `oci:X` is not a base: its name must be lower-case letters, digits and `._-` between slashes",
        ),
        (
            "app: a\nimage: { base: debian-21 }",
            "vend.yaml:2:16: `debian-21` is not a base: there is debian-12, debian-13, ubuntu-24.04, `oci:REGISTRY/NAME:TAG`, `layout:PATH` and `tar:PATH` (did you mean `debian-12`?)",
        ),
        (
            "app: a\nimage: { base: \"tar:missing.tar\" }",
            "vend.yaml:2:16: `missing.tar` is not in the repository",
        ),
        (
            "app: a\nimage: { login: hunter2 }",
            "vend.yaml:2:17: `image.login` must be the name of a secret (write `\"{{secret:NAME}}\"`)",
        ),
        (
            "app: a\nimage: { scripts: [../x] }",
            "vend.yaml:2:20: `../x` is not a path inside the repository (write it from the root of the repository, without `..`)",
        ),
        (
            "app: a\nimage: { scripts: [missing.sh] }",
            "vend.yaml:2:20: `missing.sh` is not in the repository",
        ),
        (
            "app: a\nbuild: { buildspec: missing.yml }",
            "vend.yaml:2:21: `missing.yml` is not in the repository",
        ),
        (
            "app: a\nbuild: { pass_rate: 101% }",
            "vend.yaml:2:21: `build.pass_rate` must be a percentage from 0 to 100, not `101%`",
        ),
        (
            "app: a\nbuild: { image: \"tar:base.tar\" }",
            "vend.yaml:2:17: `tar:base.tar` is no image that builds run in: builds run in a base of the platform or an image of a registry (write `image: standard`, or leave it out)",
        ),
        (
            "app: a\nbuild: { image: debian-12, login: \"{{secret:ci}}\" }",
            "vend.yaml:2:35: `build.login` is for the registry of `build.image`, which names no registry (write `image: oci:REGISTRY/NAME:TAG`)",
        ),
        (
            "app: a\nbuild: { image: \"registry.example/ci:1\", login: ada }",
            "vend.yaml:2:49: `build.login` must be the name of a secret (write `\"{{secret:NAME}}\"`)",
        ),
        (
            "app: a\nbuild: { batch_timeout: 2h }",
            "vend.yaml:2:10: `build.batch_timeout` is of a batch: `build.batch` must be true",
        ),
        (
            "app: a\nbuild: { combine_artifacts: true }",
            "vend.yaml:2:10: `build.combine_artifacts` is of a batch: `build.batch` must be true",
        ),
        (
            "app: a\nbuild: { batch: true, batch_timeout: 37h }",
            "vend.yaml:2:38: `build.batch_timeout` must be from 1s to 36h, not `37h`",
        ),
        ("app: a\nengine: aws", "vend.yaml:2:9: `aws` is not available yet"),
        (
            "app: a\ndatabase: { engine: postgres }",
            "vend.yaml:2:21: `postgres` is not available yet",
        ),
        (
            "app: a\ndatabase: {}",
            "vend.yaml:2:11: `database.engine` is missing (write `engine: mariadb`)",
        ),
        (
            "app: a\ndatabase: mariadb",
            "vend.yaml:2:11: `database` must be a mapping, not text",
        ),
        (
            "app: a\ndatabase: { engine: mariadb, multi_az: true }",
            "vend.yaml:2:30: `database.multi_az` is not available yet",
        ),
        (
            "app: a\nscaling: { min: 2, cpu: 60% }",
            "vend.yaml:2:20: `scaling.cpu` is not available yet",
        ),
        (
            "app: a\nscaling: { min: 3, max: 2 }",
            "vend.yaml:2:25: `scaling.max` (2) is less than `scaling.min` (3)",
        ),
        (
            "app: a\nnotify: { mail: [x] }",
            "vend.yaml:2:1: `notify` is not available yet",
        ),
        (
            "app: a\ninclude: [x]",
            "vend.yaml:2:1: `include` is not available yet",
        ),
        (
            "app: a\ndeploy: { migrate: { timeout: 5m } }",
            "vend.yaml:2:20: `deploy.migrate.script` is missing (write `script: PATH`, a script of the repository)",
        ),
        (
            "app: a\ndeploy: { migrate: { script: Procfile, timeout: 5h } }",
            "vend.yaml:2:49: `deploy.migrate.timeout` must be from 1s to 4h, not `5h`",
        ),
        (
            "app: a\ndeploy: { migrate: { script: Procfile, runas: \"-x\" } }",
            "vend.yaml:2:47: `-x` is not the name of a user",
        ),
        (
            "app: a\ndeploy: { migrate: { script: ../up.sh } }",
            "vend.yaml:2:30: `../up.sh` is not a path inside the repository (write it from the root of the repository, without `..`)",
        ),
        (
            "app: a\nplacement: { registered: {} }",
            "vend.yaml:2:26: `placement.registered` names no label (write the labels of the machines, such as `{ role: web }`)",
        ),
        (
            "app: a\nplacement: { registered: { role: \"a b\" } }",
            "vend.yaml:2:34: `role` is not a label",
        ),
        (
            "app: a\nplacement: { registered: { role: web } }\ndatabase: { engine: mariadb }",
            "vend.yaml:3:11: `database beside placement.registered` is not available yet",
        ),
        ("app: a\ntests: []", "vend.yaml:2:1: `tests` is not available yet"),
        (
            "app: a\nenvironments: { p: { expires: 7d } }",
            "vend.yaml:2:31: `expires` is of environments that come and go with their branches (write `branches: \"feature/*\"`, or leave it out)",
        ),
        (
            "app: a\nenvironments: { p: { branch: \"f/*\" } }",
            "vend.yaml:2:30: `f/*` is a pattern, and an environment follows one branch (write `branches` for one environment for each branch)",
        ),
        (
            "app: a\nenvironments: { p: { branch: -x } }",
            "vend.yaml:2:30: `-x` is not the name of a branch",
        ),
        (
            "app: a\nenvironments: { P: {} }",
            "vend.yaml:2:17: `P` is not a name: use 1 to 40 lower-case letters, digits and single hyphens, starting with a letter",
        ),
        (
            "app: a\nenvironments: [p]",
            "vend.yaml:2:15: `environments` must be a mapping, not a list",
        ),
        (
            "app: a\nhost: { env: { K: \"x {{secret:a}}\" } }",
            "vend.yaml:2:19: `host.env.K`: a secret must be the whole value, not a part of it (put the whole text into the secret, or put it together in the app)",
        ),
        (
            "app: a\nhost: { env: { K: \"{{secret:a b}}\" } }",
            "vend.yaml:2:19: `a b` is not the name of a secret (use letters, digits, `-`, `_` and `.`, at most 64)",
        ),
        (
            "app: a\nbuild: { env: { CODEBUILD_X: 1 } }",
            "vend.yaml:2:17: `CODEBUILD_X` is no variable of yours: `CODEBUILD_` is reserved",
        ),
        (
            "app: a\nbuild: { env: { K: \"x {{secret:a}}\" } }",
            "vend.yaml:2:20: `build.env.K`: a secret must be the whole value, not a part of it (put the whole text into the secret, or put it together in the app)",
        ),
        (
            "app: a\nhost: { env: { PORT: 1 } }",
            "vend.yaml:2:16: `PORT` is set by the platform, from `host.port`",
        ),
        (
            "app: a\nhost: { env: { A-B: 1 } }",
            "vend.yaml:2:16: `A-B` is not the name of an environment variable (use letters, digits and underscores, not starting with a digit)",
        ),
        (
            "app: a\nhost: { health: { interval: 150s, timeout: 121s } }",
            "vend.yaml:2:44: `host.health.timeout` must be from 100ms to 2m, not `121s`",
        ),
        (
            "app: a\nhost: { health: { timeout: 9s } }",
            "vend.yaml:2:28: `host.health.timeout` (9s) must not be more than the interval (5s)",
        ),
        (
            "app: a\napproval: { by: [x], required: 2 }",
            "vend.yaml:2:32: 2 approvals are required, and `approval.by` names 1 who may give one",
        ),
        (
            "app: a\napproval: { author_may_approve: yes }",
            "vend.yaml:2:33: `approval.author_may_approve` must be true or false, not `yes`",
        ),
        (
            "app: a\ndeploy: { keep_old: 10 }",
            "vend.yaml:2:21: `deploy.keep_old` must be a time with its unit, such as `10m`, not `10` (write `10s` for seconds)",
        ),
        (
            "app: a\ndeploy: { keep_old: 99d }",
            "vend.yaml:2:21: `deploy.keep_old` must be from 0s to 30d, not `99d`",
        ),
        (
            "app: a\nenvironments: { p: { approval: } }",
            "vend.yaml:2:30: `approval` is empty: nobody is asked (write `approval: {}` to ask anybody with the approver's role)",
        ),
        (
            "app: a\nhost: { port: [1] }",
            "vend.yaml:2:15: `host.port` must be a number from 1 to 65535, not a list",
        ),
        (
            "{",
            "vend.yaml:1:2: not YAML: while parsing a node, did not find expected node content",
        ),
    ] {
        check(text, &[expected]);
    }
}

#[test]
fn a_repository_must_say_how_to_start_the_app() {
    let none = |_: &Utf8Path| false;
    let problems = App::parse("app: a", "vend.yaml", &none).unwrap_err();
    assert!(problems[0].message.contains("nor a `Procfile`"), "{problems:?}");
    let procfile = |path: &Utf8Path| path == "Procfile";
    let (app, _) = App::parse("app: a", "vend.yaml", &procfile).unwrap();
    assert_eq!(
        (
            &app.environments[0].deploy.appspec,
            &app.environments[0].build.buildspec
        ),
        (&None, &None)
    );
}

/// The sample of the design: everything in it is known, whether it is built or not.
#[test]
fn the_whole_grammar_is_known() {
    let text = r#"
app: shop
image:
  base: debian-12
  scripts: [infra/preInstall.sh, infra/install.sh]
  inputs: [infra/**]
build:
  buildspec: buildspec.yml
deploy:
  appspec: appspec.yml
  strategy: blue-green
  minimum_healthy: one-at-a-time
  keep_old: 10m
host:
  size: small
  port: 8080
  health: { path: /health, interval: 5s, timeout: 2s, healthy: 2, unhealthy: 3, codes: "200-399" }
  env: { LOG_LEVEL: info, API_KEY: "{{secret:api-key}}" }
database:
  engine: mariadb
checks: checks.yml
tests:
  - { name: api, repository: ../shop-tests, buildspec: buildspec.yml, pass_rate: 100% }
environments:
  dev:        { branch: dev }
  staging:    { branch: staging, host: { size: medium } }
  production:
    branch: main
    approval: { by: [ops@acme.example], required: 1, author_may_approve: false, expires: 24h }
    scaling: { min: 2, max: 8, cpu: 60%, schedule: [{ cron: "0 20 * * 1-5", min: 1 }] }
    database: { multi_az: true }
    domains: [{ host: shop.example.com, certificate: acme, dedicated_balancer: true }]
  preview:    { branches: "feature/*", expires: 7d, sleep_after: 15m }
notify: { mail: [team@acme.example], slack: "{{secret:slack-hook}}" }
"#;
    let problems = read(text).unwrap_err();
    assert!(problems.iter().all(is_later), "{problems:#?}");
    let later: Vec<&str> = problems
        .iter()
        .map(|problem| problem.message.split('`').nth(1).unwrap())
        .collect();
    let expected = [
        "tests",
        "scaling.cpu",
        "scaling.schedule",
        "database.multi_az",
        "notify",
    ];
    assert_eq!(later, expected);
}

#[test]
fn an_environment_sleeps_only_where_it_says_so() {
    let app = good("app: a\nenvironments: { production: {}, dev: { sleep_after: 15m } }");
    let [production, dev] = app.environments.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(production.sleep_after, None);
    assert_eq!(dev.sleep_after, Some(SignedDuration::from_mins(15)));
    let above = read("app: a\nsleep_after: 15m").unwrap_err();
    assert!(
        above[0].message.starts_with("`sleep_after` is not a known key"),
        "{above:?}"
    );
    check(
        "app: a\nenvironments:\n  dev: { sleep_after: 9s }",
        &["vend.yaml:3:23: `sleep_after` must be from 10s to 30d, not `9s`"],
    );
    let port = "listeners: [{ protocol: udp, port: 5514, name: hosts }]";
    check(
        &format!("app: a\nenvironments:\n  dev:\n    {port}\n    sleep_after: 1m"),
        &[
            "vend.yaml:5:18: `sleep_after` cannot be followed beside a port whose name leads to the hosts: who uses it is \
           not seen, and wakes nobody (leave out `name: hosts` of the port)",
        ],
    );
    check(
        "app: a\nplacement: { registered: { a: b } }\nenvironments:\n  dev: { sleep_after: 1m }",
        &["vend.yaml:4:23: `sleep_after beside placement.registered` is not available yet"],
    );
}

const LOGIN: &str = "
  issuer: https://id.test
  authorization_endpoint: https://id.test/auth
  token_endpoint: https://id.test/token
  user_info_endpoint: https://id.test/me
  client_id: shop";

/// Key names are known to the schema exactly where the parser knows them.
#[test]
fn the_schema_knows_the_same_keys() {
    fn walk(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, bool)>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            path.push(name.clone());
            found.push((path.clone(), inner.get("not").is_none()));
            walk(inner, path, found);
            if name == "environments" {
                path.push("dev".to_owned());
                walk(&inner["additionalProperties"], path, found);
                path.pop();
            }
            path.pop();
        }
    }
    let mut keys = Vec::new();
    walk(&schema(), &mut Vec::new(), &mut keys);
    assert!(keys.len() > 80, "{}", keys.len());
    for (path, built) in keys {
        // `a: {b: {c: ~}}`, and the same with a letter more.
        let file = |path: &[String]| {
            let head = if path[0] == "app" { "" } else { "app: x\n" };
            let opened: String = path.iter().map(|name| format!("{{{name}: ")).collect();
            format!("{head}{}~{}", &opened[1..], "}".repeat(path.len() - 1))
        };
        let says = |text: &str, what: &str| {
            read(text)
                .err()
                .is_some_and(|problems| problems.iter().any(|problem| problem.message.contains(what)))
        };
        let text = file(&path);
        assert!(!says(&text, "not a known key"), "{text}");
        assert_eq!(says(&text, "is not available yet"), !built, "{text}");
        let mut wrong = path.clone();
        wrong.last_mut().unwrap().push_str("zzzz");
        let free = path.len() > 1 && (path[path.len() - 2] == "env");
        assert!(free || says(&file(&wrong), "not a known key"), "{}", file(&wrong));
    }
}
