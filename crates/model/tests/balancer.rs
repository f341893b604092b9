//! `vend.yaml`: what it says of the load balancer.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use jiff::SignedDuration;
use model::{Problem, spec::App};

fn read(text: &str) -> Result<(App, Vec<Problem>), Vec<Problem>> {
    App::parse(text, "vend.yaml", &|_| true)
}

fn good(text: &str) -> App {
    let (app, warnings) = read(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    assert_eq!(warnings, [], "{text}");
    app
}

/// Every problem of a file, one a line, as a person sees them.
fn check(text: &str, expected: &[&str]) {
    let problems = read(text).expect_err(text);
    let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(found, expected, "{text}");
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

#[test]
fn people_sign_in_and_certificates_come_from_the_vault() {
    let whole = format!(
        "app: a\nauthenticate:{LOGIN}\n  client_secret: '{{{{secret:oidc}}}}'\n  on_unauthenticated: deny
  session_timeout: 8h\n  extra_parameters: {{ prompt: login }}
domains: [{{ host: shop.example.com, certificate: {{ chain: '{{{{secret:c}}}}', key: '{{{{secret:k}}}}' }} }}]
environments: {{ dev: {{ authenticate: ~ }}, production: {{}} }}"
    );
    let app = good(&whole);
    let [dev, production] = app.environments.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(dev.authenticate, None);
    let login = production.authenticate.as_ref().unwrap();
    assert_eq!(login.client_secret, "oidc");
    assert_eq!(
        (login.scope.as_str(), login.session_timeout),
        ("openid", SignedDuration::from_hours(8))
    );
    assert_eq!(login.on_unauthenticated, model::route::Unauthenticated::Deny);
    assert_eq!(login.extra_parameters["prompt"], "login");
    assert_eq!(
        production.secrets_of_the_edge().collect::<Vec<_>>(),
        ["oidc", "c", "k"]
    );
    assert_eq!(dev.secrets_of_the_edge().collect::<Vec<_>>(), ["c", "k"]);
}

#[test]
fn what_is_wrong_with_sign_in_and_certificates_is_said() {
    let login = |rest: &str| format!("app: a\nauthenticate:{LOGIN}\n{rest}");
    let domain =
        |certificate: &str| format!("app: a\ndomains: [{{ host: a.b, certificate: {certificate} }}]");
    for (text, said) in [
        (login(""), "`authenticate` needs `client_secret`"),
        (
            login("  client_secret: abc"),
            "`authenticate.client_secret` must be the name of a secret",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  scope: email"),
            "`authenticate` cannot be used: the scope",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  session_timeout: 8d"),
            "`authenticate.session_timeout`",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  on_unauthenticated: maybe"),
            "`on_unauthenticated`",
        ),
        (
            login("  secret: x"),
            "`secret` is not a known key of `authenticate`",
        ),
        (
            "app: a\nauthenticate: { client_id: a }".to_owned(),
            "`authenticate` needs `issuer`",
        ),
        (domain("vault"), "`certificate`"),
        (
            domain("{ chain: '{{secret:c}}' }"),
            "a certificate of the vault needs `key`",
        ),
        (
            domain("{ chain: x, key: '{{secret:k}}' }"),
            "`certificate.chain` must be the name of a secret",
        ),
        (
            domain("{ pem: x }"),
            "`pem` is not a known key of `domains.certificate`",
        ),
    ] {
        let problems = read(&text).expect_err(&text);
        assert!(
            problems.iter().any(|problem| problem.message.contains(said)),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn ports_and_domains_are_read_with_their_defaults() {
    let text = "app: shop
listeners:
  - { protocol: udp, port: 5514 }
  - { protocol: tcp, port: 15432, host_port: 5432, name: hosts, ttl: 5s }
environments:
  production:
    domains: [{ host: Shop.Example.com., certificate: acme, dedicated_balancer: true }, { host: www.shop.example }]
  dev: { listeners: [] }
";
    let (app, _) = read(text).unwrap();
    let [production, dev] = &app.environments[..] else {
        panic!("{app:?}")
    };
    let second = SignedDuration::from_secs(1);
    let udp = model::spec::Port {
        protocol: model::spec::Transport::Udp,
        port: 5514,
        host_port: 5514,
        idle: second * 120,
        leads: model::spec::Leads::Balancer,
    };
    assert_eq!(production.listeners[0], udp);
    let tcp = &production.listeners[1];
    assert_eq!((tcp.port, tcp.host_port), (15432, 5432));
    assert_eq!(tcp.leads, model::spec::Leads::Hosts { ttl: second * 5 });
    let domain = &production.domains[0];
    assert_eq!(domain.host, "shop.example.com");
    assert_eq!(
        (domain.certificate.clone(), domain.dedicated_balancer),
        (model::spec::Certificate::Acme, true)
    );
    assert_eq!(production.domains[1].certificate, model::spec::Certificate::File);
    assert!(
        dev.listeners.is_empty() && dev.domains.is_empty(),
        "an environment overrides"
    );
}

#[test]
fn what_is_wrong_with_ports_and_domains_is_said() {
    for (keys, expected) in [
        ("listeners: [{ port: 5000 }]", "a listener needs a `protocol`"),
        ("listeners: [{ protocol: udp }]", "a listener needs a `port`"),
        ("listeners: [{ protocol: sctp, port: 5000 }]", "`protocol`"),
        ("listeners: [{ protocol: udp, port: 53 }]", "from 1024 to 65535"),
        (
            "listeners: [{ protocol: tcp, port: 5000, idle: 5s }]",
            "`idle` is for `udp`",
        ),
        (
            "listeners: [{ protocol: udp, port: 5000 }, { protocol: udp, port: 5000 }]",
            "has the udp port 5000 twice",
        ),
        (
            "listeners: [{ protocol: udp, prot: 5000 }]",
            "is not a known key of `listeners`",
        ),
        ("listeners: [5000]", "must be a mapping"),
        ("listeners: 5000", "must be a list"),
        ("domains: [{ certificate: acme }]", "a domain needs a `host`"),
        ("domains: [{ host: shop }]", "`shop` is not a domain"),
        ("domains: [{ host: \"*.example.com\" }]", "is not a domain"),
        ("domains: [{ host: a.b }, { host: A.b }]", "has `a.b` twice"),
        ("domains: [{ host: a.b, certificate: vault }]", "`certificate`"),
    ] {
        let problems = read(&format!("app: shop\n{keys}\n")).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.message.contains(expected)),
            "{keys}: {problems:#?}"
        );
    }
}
