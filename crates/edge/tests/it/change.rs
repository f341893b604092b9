//! Changes of the table: one line on disk, one swap in memory, all or nothing.

use std::collections::BTreeMap;

use edge::ClientError;
use model::route::{
    Action, Delta, HeaderCondition, Invalid, Protocol, Redirect, Rewrite, Rule, Table, TargetGroup,
    TargetState,
};

use crate::world::{Edge, Origin, body, forward, group, rule, shop, status, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_leaves_the_rest_as_it_is_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[old.address])).await;
    until("the target is healthy", || async {
        edge.client.health().await.unwrap()[0].state == TargetState::Healthy
    })
    .await;
    let other = Delta {
        from: Some(1),
        version: 2,
        rules: vec![rule(2, "other.test", forward(&[("other", 1)]))],
        target_groups: BTreeMap::from([("other".into(), group(&[new.address]))]),
        ..Delta::default()
    };
    assert_eq!(edge.client.change(&other).await.unwrap(), 2);
    assert_eq!(body(&edge.get("other.test", "/").await), "new");
    assert_eq!(body(&edge.get("shop.test", "/").await), "old");
    let health = edge.client.health().await.unwrap();
    let kept = health.iter().find(|h| h.group == "shop").unwrap();
    assert_eq!(
        (kept.state, kept.requests),
        (TargetState::Healthy, 1),
        "it is not probed anew"
    );

    // A group changes: the rule that names it follows, without being sent.
    let moved = Delta {
        from: Some(2),
        version: 3,
        target_groups: BTreeMap::from([("shop".into(), group(&[new.address]))]),
        ..Delta::default()
    };
    edge.client.change(&moved).await.unwrap();
    assert_eq!(body(&edge.get("shop.test", "/").await), "new");
    let gone = Delta {
        from: Some(3),
        version: 4,
        without_rules: vec![2],
        without_groups: vec!["other".into()],
        ..Delta::default()
    };
    edge.client.change(&gone).await.unwrap();
    assert_eq!(body(&edge.get("other.test", "/").await), "host not found");
    let table = edge.client.table().await.unwrap();
    assert_eq!(table, shop(4, &[new.address]));
    edge.stop().await;

    let edge = Edge::start(&folder);
    until("it serves from its snapshot", || async {
        body(&edge.get("shop.test", "/").await) == "new"
    })
    .await;
    assert_eq!(edge.client.table().await.unwrap(), table);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_change_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = Edge::start(&folder);
    let before = shop(5, &[origin.address]);
    edge.apply(&before).await;
    let redirect = || {
        rule(
            9,
            "new.test",
            Action::Redirect(Redirect {
                host: "x.test".into(),
                ..Redirect::default()
            }),
        )
    };
    let next = || Delta {
        from: Some(5),
        version: 6,
        rules: vec![redirect()],
        ..Delta::default()
    };
    let bad = [
        Delta {
            from: Some(4),
            ..next()
        },
        Delta { version: 4, ..next() },
        Delta { version: 5, ..next() },
        Delta {
            rules: vec![redirect(), redirect()],
            ..next()
        },
        Delta {
            rules: vec![redirect(), rule(10, "y.test", forward(&[("none", 1)]))],
            ..next()
        },
        Delta {
            without_groups: vec!["shop".into()],
            ..next()
        },
    ];
    for (index, delta) in bad.into_iter().enumerate() {
        let error = edge.client.change(&delta).await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid(_)), "{index}: {error}");
        assert_eq!(edge.client.table().await.unwrap(), before, "{index}");
        assert_eq!(status(&edge.get("new.test", "/").await), 503);
    }
    let stale = edge
        .client
        .change(&Delta {
            from: Some(1),
            ..next()
        })
        .await
        .unwrap_err();
    assert!(matches!(
        stale,
        ClientError::Invalid(Invalid::Stale { got: 6, have: 5 })
    ));
    edge.client.change(&next()).await.unwrap();
    assert_eq!(status(&edge.get("new.test", "/").await), 302);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_are_written_anew_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[])).await;
    let log = edge.folder.join("edge/table.log");
    let page = |version: u64| Action::FixedResponse {
        status: 200,
        content_type: "text/plain".into(),
        body: format!("{version} ").repeat(5_000),
    };
    let (mut version, mut longest) = (1, 0);
    // Each is some 30 kB: the log is over its bound after about forty.
    soon_shorter(&log, &mut longest, || {
        version += 1;
        let delta = Delta {
            from: Some(version - 1),
            version,
            rules: vec![rule(7, "page.test", page(version))],
            ..Delta::default()
        };
        let client = edge.client.clone();
        async move { client.change(&delta).await.unwrap() }
    })
    .await;
    let table: Table = edge.client.table().await.unwrap();
    assert_eq!(table.version, version);
    edge.stop().await;
    let edge = Edge::start(&folder);
    until("it reads what is left", || async {
        body(&edge.get("page.test", "/").await).starts_with(&format!("{version} "))
    })
    .await;
    assert_eq!(edge.client.table().await.unwrap(), table);
    edge.stop().await;
}

/// Goes on until the file has become shorter than it was.
async fn soon_shorter<F: Future<Output = u64>>(
    path: &camino::Utf8Path,
    longest: &mut u64,
    mut more: impl FnMut() -> F,
) {
    for _ in 0..500 {
        more().await;
        let length = std::fs::metadata(path).unwrap().len();
        if length < *longest {
            return;
        }
        *longest = length;
    }
    panic!("the log has grown to {longest} bytes");
}

/// Rules for `said.test` by what the edge writes into requests itself, and for others that no target answers.
fn by_what_the_edge_says() -> Vec<Rule> {
    let by = |priority, name: &str, value: &str, action| {
        let mut rule = rule(priority, "said.test", action);
        rule.conditions.headers = vec![HeaderCondition {
            name: name.into(),
            values: vec![value.into()],
            ..HeaderCondition::default()
        }];
        rule
    };
    let https = Redirect {
        protocol: "HTTPS".into(),
        status: 301,
        ..Redirect::default()
    };
    let shop = || forward(&[("shop", 1)]);
    let mut changed = rule(34, "changed.test", shop());
    changed.transforms.url = Some(Rewrite {
        regex: "^/".into(),
        replace: "nowhere".into(),
    });
    vec![
        by(30, "X-Forwarded-Proto", "http", Action::Redirect(https)),
        by(31, "X-Forwarded-Port", "8443", shop()),
        by(32, "X-Forwarded-For", "192.0.2.7", shop()),
        rule(33, "said.test", shop()),
        changed,
        rule(35, "second.test", forward(&[("second", 1)])),
        rule(36, "grpc.test", forward(&[("grpc", 1)])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_explained_without_being_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, other) = (Origin::named("origin").await, Origin::named("other").await);
    let edge = Edge::start(&folder);
    let mut table = shop(1, &[origin.address]);
    table.rules[0].priority = 10;
    let mut api = rule(5, "shop.test", forward(&[("shop", 1)]));
    api.paths = vec!["/api/*".into()];
    let away = Redirect {
        host: "new.test".into(),
        ..Redirect::default()
    };
    table.rules.extend([
        api,
        rule(20, "old.test", Action::Redirect(away)),
        rule(1, "other.test", forward(&[("shop", 1)])),
        rule(21, "empty.test", forward(&[("empty", 1)])),
        rule(22, "asleep.test", forward(&[("asleep", 1)])),
    ]);
    table.rules.extend(by_what_the_edge_says());
    let group = |waking| TargetGroup { waking, ..group(&[]) };
    for (name, protocol) in [("second", Protocol::Http2), ("grpc", Protocol::Grpc)] {
        // Not where the requests are counted: their health is asked for in HTTP/2.
        let targets = shop(1, &[other.address]).target_groups["shop"].clone();
        let spoken = TargetGroup { protocol, ..targets };
        table.target_groups.insert(name.into(), spoken);
    }
    table.target_groups.insert("empty".into(), group(false));
    table.target_groups.insert("asleep".into(), group(true));
    edge.apply(&table).await;
    let with = |url: &str, headers: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let question = edge::Question {
            method: "GET".into(),
            url: url.into(),
            source: None,
            headers: headers.iter().map(own).collect(),
        };
        let client = edge.client.clone();
        async move { client.explain(&question).await }
    };
    let ask = |url: &str| with(url, &[]);
    let shop = ask("https://shop.test/cart?x=1").await.unwrap();
    assert_eq!(shop.rule.map(|rule| rule.priority), Some(10));
    assert_eq!(shop.passed_over, [(5, "path".to_owned())]);
    assert_eq!(shop.groups, [("shop".to_owned(), 100.0)]);
    assert_eq!(shop.targets[0].target.address, origin.address);
    let old = ask("old.test/a?b=c").await.unwrap();
    assert_eq!(old.answer.as_deref(), Some("302 http://new.test/a?b=c"));
    assert_eq!(
        ask("none.test").await.unwrap().answer.as_deref(),
        Some("503 host not found")
    );
    for (url, answer) in [
        (
            "shop.test/a/..;/b",
            "400 the path means another one to whoever resolves it",
        ),
        ("empty.test", "503 no targets are registered: empty"),
        ("asleep.test", "asleep: a request wakes asleep, and waits for it"),
        (
            "changed.test",
            "500 the request cannot be transformed as its rule says: shop",
        ),
        (
            "second.test",
            "464 the targets speak another version of HTTP than the request, for whoever does not speak HTTP/2: second",
        ),
        (
            "grpc.test",
            "464 the targets speak another version of HTTP than the request, for whatever is not gRPC: grpc",
        ),
    ] {
        assert_eq!(ask(url).await.unwrap().answer.as_deref(), Some(answer), "{url}");
    }
    // Conditions on what the edge itself says see its word, and not that of a client, in an answer as in an explanation.
    let claims = [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.7")];
    for (url, headers, rule) in [
        ("http://said.test/", &[][..], 30),
        ("http://said.test/", &claims[..1], 30),
        ("https://said.test/", &[], 33),
        ("https://said.test/", &[("X-Forwarded-Proto", "http")], 33),
        ("https://said.test:8443/", &[], 31),
        ("https://said.test/", &claims[1..], 32),
        ("http://127.0.0.1/", &[("Host", "said.test")], 30),
    ] {
        let decides = with(url, headers).await.unwrap().rule.unwrap();
        assert_eq!(decides.priority, rule, "{url} {headers:?}");
    }
    assert_eq!(status(&edge.get("said.test", "/").await), 301);
    assert_eq!(status(&edge.get("changed.test", "/").await), 500);
    assert_eq!(status(&edge.get("second.test", "/").await), 464);
    assert_eq!(status(&edge.get("grpc.test", "/").await), 464);
    assert!(matches!(
        ask("ftp://none.test").await,
        Err(ClientError::Refused { status: 400, .. })
    ));
    assert!(origin.requests().is_empty());
    edge.stop().await;
}

/// More than is in one piece of a table, and enough for a new file.
fn large(version: u64, body: &str, rules: u32) -> Table {
    let page = |n: u32| Action::FixedResponse {
        status: 200,
        content_type: "text/plain".into(),
        body: format!("{body} {n}"),
    };
    let mut table = shop(version, &[]);
    table
        .rules
        .extend((2..rules).map(|n| rule(n, &format!("h{n}.test"), page(n))));
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table_is_one_step_and_a_bad_one_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = Edge::start(&folder);
    let first = large(1, "first", 3_000);
    edge.apply(&first).await;
    assert_eq!(body(&edge.get("h2999.test", "/").await), "first 2999");
    let log = edge.folder.join("edge/table.log");
    let written = std::fs::read(&log).unwrap();
    // Each is good for thousands of rules, and wrong in the last.
    let twice = rule(5, "twice.test", forward(&[("shop", 1)]));
    let nowhere = rule(9_000, "nowhere.test", forward(&[("none", 1)]));
    for last in [twice, nowhere] {
        let mut bad = large(2, "bad", 4_000);
        bad.rules.push(last);
        let error = edge.client.apply(&bad).await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    }
    assert!(matches!(
        edge.client.apply(&large(0, "old", 4_000)).await.unwrap_err(),
        ClientError::Invalid(Invalid::Stale { got: 0, have: 1 })
    ));
    assert!(matches!(
        edge.client.apply(&large(1, "other", 4_000)).await.unwrap_err(),
        ClientError::Invalid(Invalid::Stale { got: 1, have: 1 })
    ));
    assert_eq!(edge.client.table().await.unwrap(), first);
    assert_eq!(body(&edge.get("h2999.test", "/").await), "first 2999");
    assert_eq!(std::fs::read(&log).unwrap(), written, "nothing of it is on disk");

    // All others go, one group changes, and what is written is the table and not the way to it.
    let mut second = large(2, "second", 2_500);
    second.target_groups = shop(2, &[origin.address]).target_groups;
    edge.client.apply(&second).await.unwrap();
    assert_eq!(body(&edge.get("h2.test", "/").await), "second 2");
    assert_eq!(body(&edge.get("shop.test", "/").await), "origin");
    assert_eq!(status(&edge.get("h2999.test", "/").await), 503);
    assert_eq!(edge.client.table().await.unwrap(), second);
    assert!(std::fs::metadata(&log).unwrap().len() < written.len() as u64);
    // A little of it is a line.
    second.version = 3;
    second.rules.pop();
    edge.client.apply(&second).await.unwrap();
    assert_eq!(
        edge.client.apply(&second).await.unwrap(),
        3,
        "it may be sent again"
    );
    edge.stop().await;
    let text = std::fs::read_to_string(&log).unwrap();
    let last = text.lines().next_back().unwrap();
    assert!(
        last.contains("\"without_rules\":[2499]") && last.len() < 100,
        "{last}"
    );

    let edge = Edge::start(&folder);
    until("it serves from its snapshot", || async {
        body(&edge.get("h2.test", "/").await) == "second 2"
    })
    .await;
    assert_eq!(edge.client.table().await.unwrap(), second);
    edge.stop().await;
}

/// As a serve of before does, and whoever has no more than curl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_may_be_one_value_too() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[])).await;
    let socket = edge.folder.join("run/edge.sock");
    let curl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command
            .args(["-sS", "-w", "|%{http_code}", "--unix-socket", socket.as_str()])
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        async move { String::from_utf8(output.await.unwrap().unwrap().stdout).unwrap() }
    };
    let put = |table: &Table| {
        let value = serde_json::to_string(table).unwrap();
        curl(&["-X", "PUT", "--data-binary", &value, "http://edge/v1/table"])
    };
    let next = large(2, "value", 300);
    let said = put(&next).await;
    assert!(
        said.starts_with("{\"version\":2") && said.ends_with("|200"),
        "{said}"
    );
    assert_eq!(edge.client.table().await.unwrap(), next);
    let said = curl(&["http://edge/v1/routes"]).await;
    assert_eq!(
        serde_json::from_str::<Table>(said.trim_end_matches("|200")).unwrap(),
        next
    );
    let mut bad = large(3, "bad", 300);
    bad.rules.push(rule(9, "nowhere.test", forward(&[("none", 1)])));
    assert!(put(&bad).await.ends_with("|422"));
    for (lines, code) in [("", 400), ("x\n", 400), ("{\"version\":4,\"lines\":0}\n", 400)] {
        let said = curl(&["-X", "PUT", "--data-binary", lines, "http://edge/v1/lines"]).await;
        assert!(said.ends_with(&format!("|{code}")), "{lines}: {said}");
    }
    assert_eq!(edge.client.table().await.unwrap(), next);
    edge.stop().await;
}
