//! Changes of the table: one line on disk, one swap in memory, all or nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod world;

use std::collections::BTreeMap;

use edge::ClientError;
use model::route::{Action, Delta, Invalid, Redirect, Table, TargetState};
use world::{Edge, Origin, body, forward, group, rule, shop, status, until};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_explained_without_being_sent() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
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
    ]);
    edge.apply(&table).await;
    let ask = |url: &str| {
        let question = edge::Question {
            method: "GET".into(),
            url: url.into(),
            source: None,
            headers: Vec::new(),
        };
        let client = edge.client.clone();
        async move { client.explain(&question).await }
    };
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
    assert!(matches!(
        ask("ftp://none.test").await,
        Err(ClientError::Refused { status: 400, .. })
    ));
    assert!(origin.requests().is_empty());
    edge.stop().await;
}
