//! Cookies keep a client where it is.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use model::route::{Action, Stickiness, TargetState};

use crate::world::{Edge, Origin, body, forward, group, rule, shop, status, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_with_their_group_and_their_target() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &'static str| {
        Origin::answering(move |_| {
            let length = name.len();
            format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: {length}\r\n\r\n{name}"
            )
        })
    };
    let origins = [
        named("a1").await,
        named("a2").await,
        named("b1").await,
        named("b2").await,
    ];
    let edge = Edge::start(&folder);
    let of =
        |range: std::ops::Range<usize>| group(&origins[range].iter().map(|o| o.address).collect::<Vec<_>>());
    let hour = SignedDuration::from_hours(1);
    let mut table = shop(1, &[]);
    let (mut a, mut b) = (of(0..2), of(2..4));
    a.stickiness = Some(Stickiness::Duration(hour));
    b.stickiness = Some(Stickiness::Application {
        cookie: "session".into(),
        duration: hour,
    });
    table.target_groups = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let Action::Forward { groups, .. } = forward(&[("a", 1), ("b", 1)]) else {
        unreachable!()
    };
    table.rules = vec![rule(
        1,
        "shop.test",
        Action::Forward {
            groups,
            stickiness: Some(hour),
        },
    )];
    edge.apply(&table).await;
    until("all are healthy", || async {
        edge.client
            .health()
            .await
            .unwrap()
            .iter()
            .all(|target| target.state == TargetState::Healthy)
    })
    .await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let first = edge.get("shop.test", "/").await;
        let cookies: Vec<&str> = first
            .lines()
            .filter_map(|line| line.strip_prefix("Set-Cookie: ")?.split(';').next())
            .collect();
        let wanted = if body(&first).starts_with('a') {
            "AWSALB="
        } else {
            "AWSALBAPP-0="
        };
        for name in ["session=", "AWSALBTG=", wanted] {
            assert!(
                cookies.iter().any(|cookie| cookie.starts_with(name)),
                "{name} in {first}"
            );
        }
        for _ in 0..4 {
            let again = edge
                .raw(format!(
                    "GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: {}\r\nConnection: close\r\n\r\n",
                    cookies.join("; ")
                ))
                .await;
            assert_eq!(body(&again), body(&first));
        }
        seen.insert(body(&first).to_owned());
    }
    assert_eq!(seen.len(), 4, "without a cookie all are served: {seen:?}");
    // A page of another origin, of whose cookies a browser sends those that may cross sites.
    let across = edge
        .raw("GET / HTTP/1.1\r\nHost: shop.test\r\nOrigin: https://else.test\r\nConnection: close\r\n\r\n")
        .await;
    let (crossing, others): (Vec<&str>, Vec<&str>) = across
        .lines()
        .filter_map(|line| line.strip_prefix("Set-Cookie: "))
        .partition(|line| line.ends_with("; Secure; SameSite=None"));
    let by_time = body(&across).starts_with('a');
    let names: &[&str] = if by_time {
        &["AWSALBTGCORS=", "AWSALBCORS="]
    } else {
        &["AWSALBTGCORS="]
    };
    assert_eq!(crossing.len(), names.len(), "{across}");
    for name in names {
        assert!(
            crossing.iter().any(|line| line.starts_with(name)),
            "{name} in {across}"
        );
    }
    assert!(
        others.iter().any(|line| line.starts_with("AWSALBTG=")),
        "{across}"
    );
    let kept: Vec<&str> = crossing
        .iter()
        .map(|line| line.split(';').next().unwrap())
        .collect();
    for _ in 0..8 {
        let again = format!(
            "GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: {}\r\nConnection: close\r\n\r\n",
            kept.join("; ")
        );
        let again = edge.raw(again).await;
        let same = if by_time { body(&across) } else { "b" };
        assert!(body(&again).starts_with(same), "{again}");
    }
    // A cookie that somebody made up means nothing.
    let odd = "GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: AWSALBTG=x; AWSALB=ffffffffffffffff\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&edge.raw(odd).await), 200);
    edge.stop().await;
}
