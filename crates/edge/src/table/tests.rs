use model::route::{Conditions, HeaderCondition, Own, Pair, Rewrite, Transforms};

use super::*;
use crate::{http1::parse, worker::Ends};

pub fn rule(priority: u32, hosts: &[&str], paths: &[&str]) -> route::Rule {
    route::Rule {
        priority,
        place: "acme/shop/dev".parse().unwrap(),
        hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        access: Vec::new(),
        own: Own::default(),
        authenticate: None,
        action: route::Action::FixedResponse {
            status: 200,
            content_type: "text/plain".into(),
            body: priority.to_string(),
        },
    }
}

fn compiled(rules: &[route::Rule]) -> Rules {
    let new: Vec<_> = rules.iter().map(|rule| Rule::new(rule, |_| None)).collect();
    let mut rules = Rules::default();
    rules.change(&[], &new);
    rules
}

/// A rule with one free pattern among thousands of names is looked up by these, and tried by that alone.
#[test]
fn of_a_mixed_rule_only_the_free_pattern_is_tried() {
    let names = (0..3_000).flat_map(|n| [format!("h{n}.test"), format!("*.s{n}.test")]);
    let mut hosts: Vec<String> = names.collect();
    hosts.insert(1_500, "x*y.test".into());
    let mixed = route::Rule {
        hosts,
        ..rule(5, &[], &[])
    };
    let mut rules = compiled(&[mixed.clone(), rule(9, &["x*.test"], &[])]);
    let (held, tried) = &rules.free[0];
    assert_eq!((held.priority, tried.len()), (5, 1));
    assert_eq!(held.host_at(tried[0]), "x*y.test");
    for (host, expected) in [
        ("h0.test", Some(5)),
        ("h2999.test", Some(5)),
        ("a.s7.test", Some(5)),
        ("s7.test", None),
        ("xzy.test", Some(5)),
        ("xz.test", Some(9)),
        ("h3000.test", None),
    ] {
        assert_eq!(found(&rules, &ask(host, "/")), expected, "{host}");
    }
    let gone = [held.clone()];
    rules.change(&gone, &[]);
    assert_eq!(rules.free.len(), 1);
    assert_eq!(found(&rules, &ask("xzy.test", "/")), Some(9));
}

/// A request: method, host, path with query, source, header lines.
pub struct Asked<'a>(
    pub &'a str,
    pub &'a str,
    pub &'a str,
    pub &'a str,
    pub &'a [(&'a str, &'a str)],
);

fn ends(source: &str) -> Ends {
    Ends {
        peer: std::net::SocketAddr::new(source.parse().unwrap(), 4_000),
        local: "127.0.0.1:80".parse().unwrap(),
        tls: false,
        identity: None,
        connection: None,
        only: None,
    }
}

impl Asked<'_> {
    pub fn ask(&self) -> Ask {
        let Self(method, host, target, source, headers) = self;
        let mut ask = Ask::default();
        ask.start(method, target, &ends(source));
        assert!(ask.name_host(host));
        let via = |name: &str| name.eq_ignore_ascii_case("x-forwarded-for");
        for (name, value) in headers.iter().filter(|(name, _)| !via(name)) {
            ask.header(name.as_bytes(), value.as_bytes());
        }
        ask.forwarded(
            headers
                .iter()
                .filter(|(name, _)| via(name))
                .map(|(_, value)| value.as_bytes()),
            &ends(source),
        )
        .unwrap();
        ask.end();
        ask
    }
}

fn ask(host: &str, path: &str) -> Ask {
    Asked("GET", host, path, "192.0.2.1", &[]).ask()
}

fn found(rules: &Rules, ask: &Ask) -> Option<u32> {
    rules.find(ask).map(|rule| rule.priority)
}

#[test]
fn the_first_rule_by_priority_decides() {
    let rules = compiled(&[
        rule(50, &[], &["/status"]),
        rule(30, &["shop.example.com"], &[]),
        rule(20, &["shop.example.com", "*.example.com"], &["/api/*", "/v?"]),
        rule(40, &["*.example.com"], &[]),
        rule(35, &["s*p.example.com"], &[]),
        rule(10, &["*"], &["/first/*"]),
        rule(60, &["x.org", "*.x.org"], &[]),
    ]);
    for (host, path, expected) in [
        ("shop.example.com", "/", Some(30)),
        ("shop.example.com", "/api/x", Some(20)),
        ("shop.example.com", "/v1", Some(20)),
        ("shop.example.com", "/v12", Some(30)),
        ("shop.example.com", "/first/", Some(10)),
        ("SHOP.Example.com", "/", Some(30)),
        ("a.b.example.com", "/", Some(40)),
        ("step.example.com", "/", Some(35)),
        ("example.com", "/", None),
        ("other.org", "/status", Some(50)),
        ("other.org", "/Status", None),
        ("x.org", "/", Some(60)),
        ("www.x.org", "/", Some(60)),
    ] {
        assert_eq!(found(&rules, &ask(host, path)), expected, "{host}{path}");
    }
}

fn only(edit: impl FnOnce(&mut route::Rule)) -> Rules {
    let mut only = rule(1, &[], &[]);
    edit(&mut only);
    only.check(|_| false).unwrap();
    compiled(&[only])
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn header(name: &str, values: &[&str]) -> HeaderCondition {
    HeaderCondition {
        name: name.into(),
        values: strings(values),
        regexes: Vec::new(),
    }
}

fn pair(key: Option<&str>, value: &str) -> Pair {
    Pair {
        key: key.map(str::to_owned),
        value: value.into(),
    }
}

/// The examples of AWS's page on the condition types of rules, each with what it says of them.
#[test]
fn albs_documented_conditions_hold() {
    let check = |name: &str, rules: Rules, asked: &[(Asked<'_>, bool)]| {
        for (asked, expected) in asked {
            let got = rules.find(&asked.ask()).is_some();
            assert_eq!(
                got, *expected,
                "{name}: {} {} {} {} {:?}",
                asked.0, asked.1, asked.2, asked.3, asked.4
            );
        }
    };
    let from = "192.0.2.1";
    let host = |name| Asked("GET", name, "/", from, &[]);
    let hosts = only(|r| r.hosts = strings(&["*.example.com"]));
    check(
        "host-header",
        hosts,
        &[
            (host("test.example.com"), true),
            (host("TEST.EXAMPLE.COM"), true),
            (host("a.test.example.com"), true),
            (host("example.com"), false),
        ],
    );
    let regex = only(|r| r.conditions.host_regexes = strings(&["^(.+)\\.example\\.com$"]));
    check(
        "host-header regex",
        regex,
        &[(host("a.example.com"), true), (host("example.com"), false)],
    );

    let path = |path| Asked("GET", "any.test", path, from, &[]);
    let paths = only(|r| r.paths = strings(&["/img/*"]));
    check(
        "path-pattern",
        paths,
        &[
            (path("/img/picture.jpg"), true),
            (path("/img/"), true),
            (path("/img/a/b?c=/d"), true),
            (path("/IMG/picture.jpg"), false),
            (path("/image"), false),
            (path("/js/?/img/"), false),
        ],
    );
    let paths = only(|r| r.paths = strings(&["/img/*/pics"]));
    check(
        "path-pattern",
        paths,
        &[(path("/img/a/pics"), true), (path("/img/a/pics2"), false)],
    );

    let regex = only(|r| r.conditions.path_regexes = strings(&["^\\/api\\/(.*)$"]));
    check(
        "path-pattern regex",
        regex,
        &[
            (path("/api/users"), true),
            (path("/api/?a"), true),
            (path("/API/users"), false),
            (path("/v1/api/users"), false),
            (path("/v1?/api/users"), false),
        ],
    );
    let either = only(|r| {
        (r.paths, r.conditions.path_regexes) = (strings(&["/img/*"]), strings(&["^/[0-9]+$"]));
    });
    check(
        "path-pattern of both kinds",
        either,
        &[(path("/img/a"), true), (path("/42"), true), (path("/a42"), false)],
    );

    let method = |method| Asked(method, "any.test", "/", from, &[]);
    let methods = only(|r| r.conditions.methods = strings(&["CUSTOM-METHOD"]));
    check(
        "http-request-method",
        methods,
        &[
            (method("CUSTOM-METHOD"), true),
            (method("custom-method"), false),
            (method("GET"), false),
        ],
    );

    let agents = || only(|r| r.conditions.headers = vec![header("User-Agent", &["*Chrome*", "*Safari*"])]);
    check(
        "http-header",
        agents(),
        &[
            (
                Asked(
                    "GET",
                    "a.test",
                    "/",
                    from,
                    &[("user-agent", "Mozilla/5.0 Chrome/79")],
                ),
                true,
            ),
            (
                Asked(
                    "GET",
                    "a.test",
                    "/",
                    from,
                    &[("User-Agent", "x"), ("User-Agent", "SAFARI")],
                ),
                true,
            ),
            (
                Asked("GET", "a.test", "/", from, &[("User-Agent", "Firefox")]),
                false,
            ),
            (
                Asked("GET", "a.test", "/", from, &[("X-User-Agent", "Chrome")]),
                false,
            ),
            (Asked("GET", "a.test", "/", from, &[]), false),
        ],
    );
    let languages = only(|r| {
        r.conditions.headers = vec![HeaderCondition {
            regexes: strings(&["^(de|fr)-CH"]),
            ..header("Accept-Language", &["rm*"])
        }];
    });
    let speaks = |language| Asked("GET", "a.test", "/", from, language);
    check(
        "http-header regex",
        languages,
        &[
            (speaks(&[("accept-language", "de-CH, en")]), true),
            (
                speaks(&[("Accept-Language", "en"), ("Accept-Language", "fr-CH")]),
                true,
            ),
            (speaks(&[("Accept-Language", "RM")]), true),
            (speaks(&[("Accept-Language", "DE-CH")]), false),
            (speaks(&[("Accept-Language", "en, de-CH")]), false),
            (speaks(&[("X-Language", "de-CH")]), false),
        ],
    );
    let via = || only(|r| r.conditions.headers = vec![header("X-Forwarded-For", &["203.0.113.*"])]);
    check(
        "http-header of proxies",
        via(),
        &[
            (
                Asked("GET", "a.test", "/", from, &[("X-Forwarded-For", "203.0.113.9")]),
                true,
            ),
            (Asked("GET", "a.test", "/", "203.0.113.9", &[]), false),
        ],
    );
    let both = only(|r| {
        r.conditions.headers = vec![header("a", &["1"]), header("a", &["2"])];
    });
    check(
        "two http-header conditions",
        both,
        &[
            (Asked("GET", "a.test", "/", from, &[("A", "1"), ("a", "2")]), true),
            (Asked("GET", "a.test", "/", from, &[("a", "1")]), false),
        ],
    );

    let queries =
        only(|r| r.conditions.queries = vec![vec![pair(Some("version"), "v1"), pair(None, "*example*")]]);
    check(
        "query-string",
        queries,
        &[
            (path("/?version=v1"), true),
            (path("/?a=b&VERSION=V1"), true),
            (path("/?version=v2"), false),
            (path("/?any=an-Example-value"), true),
            (path("/?example"), true),
            (path("/version=v1"), false),
            (path("/?version"), false),
        ],
    );
    let escaped = only(|r| r.conditions.queries = vec![vec![pair(Some("q"), r"\*x\?")]]);
    check(
        "query-string escapes",
        escaped,
        &[(path("/?q=*x?"), true), (path("/?q=axb"), false)],
    );

    let sources = only(|r| {
        r.conditions.sources = vec![
            "192.0.2.0/24".parse().unwrap(),
            "198.51.100.10/32".parse().unwrap(),
        ];
    });
    let source = |source| {
        Asked(
            "GET",
            "any.test",
            "/",
            source,
            &[("X-Forwarded-For", "192.0.2.7")],
        )
    };
    check(
        "source-ip",
        sources,
        &[
            (source("192.0.2.200"), true),
            (source("198.51.100.10"), true),
            (source("198.51.100.11"), false),
            (source("::ffff:192.0.2.1"), true),
            (source("2001:db8::1"), false),
        ],
    );
}

/// The examples of AWS's page on transforms.
#[test]
fn albs_documented_transforms_hold() {
    let rewrite = |regex: &str, replace: &str| {
        Some(Rewrite {
            regex: regex.into(),
            replace: replace.into(),
        })
    };
    let top = |transforms: Transforms, host: &str, target: &str| {
        let rules = only(|r| r.transforms = transforms);
        let mut ask = ask(host, target);
        let rest = rules.find(&ask).unwrap().rest().unwrap();
        let (Ok(url), Ok(host)) = (rest.url(&ask), rest.host(&ask)) else {
            return "untransformed".to_owned();
        };
        ask.transform(url.as_deref(), host.as_deref(), "");
        // A second attempt writes the same.
        ask.transform(url.as_deref(), host.as_deref(), "");
        let wire = String::from_utf8(ask.wire).unwrap();
        wire.lines().take(2).collect::<Vec<_>>().join(" | ")
    };
    let host = |regex, replace| Transforms {
        host: rewrite(regex, replace),
        url: None,
    };
    let url = |regex, replace| Transforms {
        host: None,
        url: rewrite(regex, replace),
    };
    for (transforms, from, target, expected) in [
        (
            host("^mywebsite-(.+).com$", "internal.dev.$1.myweb.com"),
            "mywebsite-example.com",
            "/project-a",
            "GET /project-a HTTP/1.1 | Host: internal.dev.example.myweb.com",
        ),
        (
            url("^/dp/([A-Za-z0-9]+)/?$", "/product.php?id=$1"),
            "a.test",
            "/dp/B09G3HRMW",
            "GET /product.php?id=B09G3HRMW HTTP/1.1 | Host: a.test",
        ),
        (
            url("^/v1/", "/"),
            "a.test:81",
            "/v1/x?y=z",
            "GET /x?y=z HTTP/1.1 | Host: a.test:81",
        ),
        (
            url("^/none", "/"),
            "a.test",
            "/x",
            "GET /x HTTP/1.1 | Host: a.test",
        ),
        (
            url("x", "$10$a$"),
            "a.test",
            "/x",
            "GET /0$a$ HTTP/1.1 | Host: a.test",
        ),
        (url("^/", ""), "a.test", "/x", "untransformed"),
        (host("^a", "a b"), "a.test", "/x", "untransformed"),
        // A path that means another is not made of one that does not.
        (url("^/api", "/static/"), "a.test", "/api../x", "untransformed"),
        (url("b", "%2e"), "a.test", "/a/.b/x", "untransformed"),
        (
            url("^/api", "/static"),
            "a.test",
            "/api../x?y=/../z",
            "GET /static../x?y=/../z HTTP/1.1 | Host: a.test",
        ),
        (
            Transforms {
                host: rewrite("a", "b"),
                url: rewrite("a", "b"),
            },
            "a.test",
            "/a/a",
            "GET /b/a HTTP/1.1 | Host: b.test",
        ),
    ] {
        assert_eq!(top(transforms, from, target), expected);
    }
    // Also where the client names no host, as it may in HTTP/1.0.
    let mut ask = Ask::default();
    let read = parse::request(
        b"GET /v1/x HTTP/1.0\r\n\r\n",
        &ends("192.0.2.1"),
        (7, 11),
        &mut ask,
    );
    assert!(read.is_ok());
    ask.transform(Some("/x"), None, "");
    assert!(ask.wire.starts_with(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
}
