//! Numbers for Prometheus: the text as its format wants it, and what it counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::route::{Action, Protocol, Rewrite, Rule, Table, TargetGroup, Transforms};
use tokio::io::AsyncWriteExt as _;

use crate::seen::probe;
use crate::world::{
    self, Edge, Origin, forward, group, in_front_of, message, read_request, rule, shop, soon, status, until,
};

type Labels = BTreeMap<String, String>;

/// What is said of one metric.
struct Family {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name="value",…`, with what the format escapes in values.
fn labels(text: &str) -> Labels {
    let (mut labels, mut rest) = (Labels::new(), text);
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{text}");
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in after.char_indices() {
            match (escaped, c) {
                (false, '\\') => escaped = true,
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (true, c) => {
                    assert!(['\\', '"', 'n'].contains(&c), "{text}");
                    (value, escaped) = (value + c.encode_utf8(&mut [0; 4]), false);
                }
                (false, c) => value.push(c),
            }
        }
        assert_eq!(labels.insert(name.to_owned(), value), None, "{text}");
        rest = &after[end.unwrap() + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) => more,
            None => {
                assert!(rest.is_empty(), "{text}");
                rest
            }
        };
    }
    labels
}

/// Reads the text format of version 0.0.4, and nothing looser: a metric has one HELP and one TYPE, in this order, before
/// all of its samples; these stand together, and no series comes twice.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'));
    let (mut families, mut current, mut help) = (BTreeMap::<String, Family>::new(), String::new(), None);
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            let (name, words) = said.split_once(' ').unwrap();
            assert!(is_name(name) && words.ends_with('.') && words.len() > 9, "{line}");
            assert!(help.replace(name).is_none(), "{line}");
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').unwrap();
            assert_eq!(help.take(), Some(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            current = name.to_owned();
            let family = Family {
                kind: kind.to_owned(),
                samples: Vec::new(),
            };
            assert!(
                families.insert(current.clone(), family).is_none(),
                "{line} comes twice"
            );
        } else {
            let (what, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(what.to_owned()), "{line} comes twice");
            let (name, inside) = match what.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
                None => (what, ""),
            };
            let family = families.get_mut(&current).unwrap();
            let of = match &*family.kind {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end)),
                _ => Some(name),
            };
            assert_eq!(of, Some(&*current), "{line}");
            family
                .samples
                .push((name.to_owned(), labels(inside), value.parse().unwrap()));
        }
    }
    families
}

/// Buckets grow, and the last has all.
fn check_histogram(family: &Family) {
    let mut last: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let group = labels["group"].clone();
        if name.ends_with("_bucket") {
            let bound: f64 = labels["le"].parse().unwrap();
            let before = last.insert(group, (bound, *value)).unwrap_or((0.0, 0.0));
            assert!(bound > before.0 && *value >= before.1, "{labels:?}");
        } else if name.ends_with("_count") {
            assert_eq!(last[&group], (f64::INFINITY, *value), "{labels:?}");
        }
    }
    assert!(!last.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_as_prometheus_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|request| match request.contains("/missing") {
        true => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        false => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
    })
    .await;
    let edge = Edge::start(&folder);
    let fixed = Action::FixedResponse {
        status: 503,
        content_type: "text/plain".into(),
        body: "later".into(),
    };
    let base = shop(1, &[origin.address]);
    let rules = [
        rule(7, "closed.test", fixed),
        rule(8, "empty.test", forward(&[("empty", 1)])),
        Rule {
            hosts: Vec::new(),
            paths: vec!["/never".into()],
            ..rule(9, "x", forward(&[("shop", 1)]))
        },
        rule(10, "streams.test", forward(&[("streams", 1)])),
        Rule {
            transforms: Transforms {
                url: Some(Rewrite {
                    regex: "^/".into(),
                    replace: "no path".into(),
                }),
                host: None,
            },
            ..rule(11, "odd.test", forward(&[("shop", 1)]))
        },
    ];
    let streams = TargetGroup {
        protocol: Protocol::Grpc,
        ..group(&[origin.address])
    };
    let table = Table {
        rules: base.rules.into_iter().chain(rules).collect(),
        target_groups: base
            .target_groups
            .into_iter()
            .chain([
                ("empty".to_owned(), group(&[])),
                ("streams".to_owned(), streams),
                ("odd\"name\\".to_owned(), group(&[])),
            ])
            .collect(),
        ..base
    };
    edge.apply(&table).await;
    for (host, path, code) in [
        ("shop.test", "/", 200),
        ("shop.test", "/", 200),
        ("shop.test", "/missing", 404),
        ("closed.test", "/", 503),
        ("empty.test", "/", 503),
        ("nobody.test", "/", 503),
        ("streams.test", "/", 464),
        ("odd.test", "/", 500),
    ] {
        assert_eq!(status(&edge.get(host, path).await), code, "{host}{path}");
    }
    // Over HTTP/2 it is no call of gRPC all the same.
    let mut h2 = probe::http2(edge.connect().await).await;
    let plain = hyper::Request::get("http://streams.test/");
    let answer = h2.send_request(plain.body(http_body_util::Full::default()).unwrap());
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 464);
    drop(h2);
    let families = read(&edge.client.metrics().await.unwrap());
    check_histogram(&families["vend_edge_latency_seconds"]);
    let value = |name: &str, wanted: &[(&str, &str)]| {
        let samples = families[name].samples.iter();
        let mut found = samples.filter(|(_, labels, _)| {
            wanted
                .iter()
                .all(|(key, value)| labels.get(*key).map(String::as_str) == Some(*value))
        });
        let first = found.next().unwrap_or_else(|| panic!("{name} {wanted:?}")).2;
        assert!(found.next().is_none(), "{name} {wanted:?}");
        first
    };
    let place = ("place", "acme/shop/dev");
    for (name, labels, expected) in [
        (
            "vend_edge_rule_requests_total",
            vec![("rule", "1"), place, ("host", "shop.test")],
            3.0,
        ),
        (
            "vend_edge_rule_requests_total",
            vec![("rule", "9"), place, ("host", "any")],
            0.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "1"), place, ("class", "2xx")],
            2.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "1"), place, ("class", "4xx")],
            1.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "7"), place, ("class", "5xx")],
            1.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "8"), place, ("class", "5xx")],
            1.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "10"), place, ("class", "4xx")],
            2.0,
        ),
        (
            "vend_edge_rule_responses_total",
            vec![("rule", "11"), place, ("class", "5xx")],
            1.0,
        ),
        (
            "vend_edge_rule_sent_bytes_total",
            vec![("rule", "1"), place],
            10.0,
        ),
        ("vend_edge_rule_sent_bytes_total", vec![("rule", "7"), place], 5.0),
        ("vend_edge_requests_total", vec![("group", "shop")], 3.0),
        ("vend_edge_failures_total", vec![("group", "empty")], 1.0),
        ("vend_edge_requests_total", vec![("group", "odd\"name\\")], 0.0),
        ("vend_edge_unmatched_total", vec![], 1.0),
        (
            "vend_edge_handshakes_failed_total",
            vec![("reason", "timeout")],
            0.0,
        ),
    ] {
        assert_eq!(value(name, &labels), expected, "{name} {labels:?}");
    }
    // A change of the group gives the rule a new place in the table, and keeps what it has counted.
    let mut changed = Table { version: 2, ..table };
    changed
        .target_groups
        .insert("shop".into(), group(&[origin.address, world::refusing()]));
    edge.apply(&changed).await;
    let families = read(&edge.client.metrics().await.unwrap());
    let answers = &families["vend_edge_rule_responses_total"].samples;
    let kept = answers
        .iter()
        .find(|(_, labels, _)| labels["rule"] == "1" && labels["class"] == "2xx");
    assert_eq!(kept.unwrap().2, 2.0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_counted_and_its_time_is_its_targets() {
    const HELD: Duration = Duration::from_millis(300);
    let folder = tempfile::tempdir().unwrap();
    let (release, held) = tokio::sync::watch::channel(false);
    let origin = Origin::raw(move |mut stream| {
        let mut held = held.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if request.starts_with("GET /held") {
                    let _ = held.wait_for(|released| *released).await;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
                let _ = stream.write_all(answer).await;
            }
        }
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let seen = async |name: &str, sample: &str, le: Option<&str>| {
        let families = read(&edge.client.metrics().await.unwrap());
        let samples = families[name].samples.iter();
        let own = |labels: &Labels| labels["group"] == "shop" && labels.get("le").map(String::as_str) == le;
        let mut found = samples.filter(|(full, labels, _)| *full == format!("{name}{sample}") && own(labels));
        found.next().map_or(0.0, |(_, _, value)| *value)
    };
    let (active, latency) = ("vend_edge_requests_active", "vend_edge_latency_seconds");
    assert_eq!(seen(active, "", None).await, 0.0);
    let mut stream = edge.connect().await;
    let request = b"GET /held HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    until("it is under way", || async {
        seen(active, "", None).await == 1.0
    })
    .await;
    tokio::time::sleep(HELD).await;
    release.send(true).unwrap();
    assert_eq!(status(&message(&mut stream).await), 200);
    until("it is over", || async { seen(active, "", None).await == 0.0 }).await;
    assert_eq!(seen(latency, "_count", None).await, 1.0);
    assert!(seen(latency, "_sum", None).await >= HELD.as_secs_f64());
    assert_eq!(
        seen(latency, "_bucket", Some("0.262144")).await,
        0.0,
        "it took longer"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_goes_on_counting_when_it_does_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("here").await;
    let edge = Edge::start(&folder);
    let counted = async || {
        let families = read(&edge.client.metrics().await.unwrap());
        let samples = families["vend_edge_rule_requests_total"].samples.iter();
        samples.map(|(_, _, value)| *value).sum::<f64>()
    };
    edge.apply(&shop(1, &[origin.address])).await;
    assert_eq!(status(&edge.get("shop.test", "/").await), 200);
    let mut closed = shop(2, &[origin.address]);
    closed.rules[0].action = Action::FixedResponse {
        status: 503,
        content_type: "text/plain".into(),
        body: "later".into(),
    };
    edge.apply(&closed).await;
    assert_eq!(counted().await, 1.0);
    assert_eq!(status(&edge.get("shop.test", "/").await), 503);
    assert_eq!(counted().await, 2.0);
    // Another's rule in its place begins at nothing.
    closed.version = 3;
    closed.rules[0].place = "rival/shop/dev".parse().unwrap();
    edge.apply(&closed).await;
    assert_eq!(counted().await, 0.0);
    edge.stop().await;
}
