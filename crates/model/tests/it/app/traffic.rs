//! The sections `host.traffic` and `access`.

use jiff::SignedDuration;
use model::{
    route::{Algorithm, HealthProtocol, Protocol, Stickiness},
    spec::{App, Environment},
};

fn read(text: &str) -> Result<Environment, String> {
    let there = |path: &camino::Utf8Path| path == "Procfile";
    match App::parse(&format!("app: a\n{text}\n"), "vend.yaml", &there) {
        Ok((app, _)) => Ok(app.environments.into_iter().next().unwrap()),
        Err(problems) => Err(problems.iter().map(|p| format!("{p}\n")).collect()),
    }
}

#[test]
fn traffic_is_as_written_and_usual_where_nothing_is() {
    let usual = read("").unwrap();
    assert!(usual.host.traffic.is_usual() && usual.access.is_empty());
    let text = serde_json::to_string(&usual).unwrap();
    assert!(!text.contains("traffic") && !text.contains("access"), "{text}");
    let own = read(
        "host: { traffic: { protocol: grpc, algorithm: anomaly-mitigation, slow_start: 2m,
           stickiness: { duration: 1d }, ejection: {} } }
access: { allow: [192.0.2.0/24, 2001:db8::/32], deny: 192.0.2.7 }",
    )
    .unwrap();
    let (traffic, health) = (&own.host.traffic, &own.host.health);
    assert_eq!(
        (traffic.protocol, traffic.algorithm),
        (Protocol::Grpc, Algorithm::AnomalyMitigation)
    );
    assert_eq!(traffic.slow_start, SignedDuration::from_mins(2));
    assert_eq!(
        traffic.stickiness,
        Some(Stickiness::Duration(SignedDuration::from_hours(24)))
    );
    assert_eq!(
        traffic.ejection.map(|e| (e.failures, e.time.as_secs())),
        Some((5, 30))
    );
    assert_eq!(
        (health.protocol, &*health.path, &health.codes[..]),
        (
            HealthProtocol::Grpc,
            "/grpc.health.v1.Health/Check",
            &[(0, 0)][..]
        )
    );
    assert_eq!((own.access.allow.len(), own.access.deny.len()), (2, 1));
    // A release of it is read again as it was.
    let again: Environment = serde_json::from_str(&serde_json::to_string(&own).unwrap()).unwrap();
    assert_eq!(again, own);
    let codes = read("host: { health: { protocol: grpc, codes: '0-12,99' } }").unwrap();
    assert_eq!(codes.host.health.codes, [(0, 12), (99, 99)]);
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    for (text, place, said) in [
        (
            "host: { traffic: { protocol: spdy } }",
            "2:30",
            "`protocol` must be `http1`",
        ),
        ("host: { traffic: { slow_start: 5s } }", "2:32", "30s"),
        (
            "host: { traffic: { stickiness: { cookie: a } } }",
            "2:32",
            "needs a `duration`",
        ),
        (
            "host: { traffic: { stickiness: { cookie: AWSALB, duration: 1h } } }",
            "2:42",
            "is not the name of a cookie",
        ),
        ("host: { traffic: { ejection: { failures: 0 } } }", "2:42", "1"),
        (
            "host: { traffic: { sticky: {} } }",
            "2:20",
            "not a known key of `host.traffic`",
        ),
        ("host: { health: { codes: 0 } }", "2:26", "must be status codes"),
        (
            "host: { health: { protocol: grpc, codes: 200 } }",
            "2:42",
            "such as `0`",
        ),
        (
            "access: { deny: [10.1.2.3/24] }",
            "2:18",
            "is not an address or a network",
        ),
        (
            "access: { deni: [] }",
            "2:11",
            "`deni` is not a known key of `access`",
        ),
    ] {
        let problems = read(text).expect_err(text);
        assert!(
            problems.contains(said) && problems.contains(&format!(":{place}")),
            "{text}: {problems}"
        );
    }
    let many: Vec<String> = (0..257)
        .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
        .collect();
    let problems = read(&format!("access: {{ allow: [{}] }}", many.join(", "))).unwrap_err();
    assert!(problems.contains("256 networks"), "{problems}");
}
