use model::{
    route::{Action, Algorithm, HealthProtocol, Protocol, Rule, Stickiness, Weighted},
    spec::{App, Leads, Transport},
};

use super::*;

mod names;

/// An environment with these keys, its first release live, on one host.
fn served(place: &str, number: u32, keys: &str) -> Served {
    let text = format!("app: shop\n{keys}\n");
    let there = |path: &camino::Utf8Path| path == "Procfile";
    let (app, _) = App::parse(&text, "vend.yaml", &there).unwrap();
    let environment = app.environments.into_iter().next().unwrap();
    let place: Place = place.parse().unwrap();
    let platform = Platform::default();
    let fleet = |n: u8| Fleet {
        spec: environment.host.clone(),
        ports: environment.listeners.clone(),
        drain: environment.deploy.drain,
        serving: 1,
        hosts: vec![(HostId::from_bits(n.into()), Ipv4Addr::new(10, 64, 0, n))],
    };
    let names: Vec<String> = owners::names(&environment).collect();
    Served {
        owns: names.iter().cloned().collect(),
        steps: rules::steps(&BTreeMap::new(), names),
        access: Some(environment.access.clone())
            .filter(|access| !access.is_empty())
            .into_iter()
            .collect(),
        closed: None,
        hostnames: platform.hostnames(&place),
        domains: environment
            .domains
            .iter()
            .map(|domain| (domain.clone(), Vec::new()))
            .collect(),
        authenticate: environment.authenticate.clone(),
        apps: platform.listen.of_apps(),
        live: Some(2),
        asleep: false,
        arriving: None,
        away: None,
        fleets: BTreeMap::from([(1, fleet(1)), (2, fleet(2))]),
        place,
        number,
        created_at: Timestamp::UNIX_EPOCH,
    }
}

const KEYS: &str = "listeners: [{ protocol: udp, port: 5514, host_port: 514, name: hosts }]
domains: [{ host: first.example.com }, { host: shop.example.com, certificate: acme }]";

#[test]
fn ports_and_domains_have_rules_of_their_own() {
    let table = table(7, &[served("acme/shop/production", 3, KEYS)]);
    table.check().unwrap();
    let hosts: Vec<_> = table.rules.iter().map(|rule| rule.hosts.join(" ")).collect();
    let own = "production.shop.acme.localhost";
    assert_eq!(
        hosts,
        [
            format!("{own} shop.acme.localhost"),
            "first.example.com".into(),
            "shop.example.com".into(),
            format!("udp-5514.{own}")
        ]
    );
    assert!(table.rules[2].own.acme && table.rules[2].action == table.rules[0].action);
    let port = &table.rules[3];
    assert_eq!(port.own.listeners[0].address, "127.0.0.1:5514".parse().unwrap());
    let Action::Forward { groups, .. } = &port.action else {
        panic!("{port:?}")
    };
    let weights: Vec<_> = groups
        .iter()
        .map(|group| (group.group.as_str(), group.weight))
        .collect();
    assert_eq!(
        weights,
        [
            ("acme/shop/production/v1/udp-5514", 0),
            ("acme/shop/production/v2/udp-5514", 100)
        ]
    );
    let group = &table.target_groups["acme/shop/production/v2/udp-5514"];
    assert_eq!(group.targets[0].address, "10.64.0.2:514".parse().unwrap());
    assert_eq!(
        (group.health.port, group.direct),
        (Some(8080), Some(SignedDuration::from_secs(10)))
    );
}

/// The priority of each rule, by the first of its hosts.
fn priorities(served: &Served) -> BTreeMap<String, u32> {
    let table = table(7, std::slice::from_ref(served));
    table.check().unwrap();
    let of = |rule: &Rule| (rule.hosts[0].clone(), rule.priority);
    table.rules.iter().map(of).collect()
}

#[test]
fn a_rule_keeps_its_priority_when_one_before_it_goes_and_a_new_one_gets_the_free_one() {
    let with = |domains: &str| {
        let port = "listeners: [{ protocol: udp, port: 5514 }]";
        served(
            "acme/shop/production",
            3,
            &format!("{port}\ndomains: [{domains}]"),
        )
    };
    let (a, b, c, d) = (
        "{ host: a.example.com }",
        "{ host: b.example.com }",
        "{ host: c.example.com }",
        "{ host: d.example.com }",
    );
    let follow = |before: &Served, domains: &str| {
        let after = with(domains);
        let names = after.steps.keys().cloned().collect();
        Served {
            steps: rules::steps(&before.steps, names),
            ..after
        }
    };
    let three = with(&format!("{a}, {b}, {c}"));
    let before = priorities(&three);
    let two = follow(&three, &format!("{b}, {c}"));
    let mut expected = before.clone();
    let freed = expected.remove("a.example.com").unwrap();
    assert_eq!(priorities(&two), expected, "nobody else moved");
    let again = follow(&two, &format!("{d}, {b}, {c}"));
    expected.insert("d.example.com".into(), freed);
    assert_eq!(priorities(&again), expected);
    assert!(freed > 1 << 24, "behind the own names of all environments");
}

#[test]
fn who_is_told_that_it_is_closed_is_told_at_every_name_and_signs_in_nowhere() {
    let closure = |page: Option<&str>| Closure {
        whole: false,
        page: page.map(str::to_owned),
        at: Timestamp::UNIX_EPOCH,
        by: "person:x".into(),
    };
    let login = "authenticate: { issuer: 'https://id.test', authorization_endpoint: 'https://id.test/a',
  token_endpoint: 'https://id.test/t', user_info_endpoint: 'https://id.test/u', client_id: shop,
  client_secret: '{{secret:oidc}}' }";
    let open = served("acme/shop/production", 3, &format!("{KEYS}\n{login}"));
    for (page, kind, text) in [
        (
            Some("<p>Back at noon"),
            "text/html; charset=utf-8",
            "<p>Back at noon",
        ),
        (None, "text/plain; charset=utf-8", "closed for maintenance\n"),
    ] {
        let closed = Served {
            closed: Some(closure(page)),
            ..open.clone()
        };
        let table = table(7, &[closed]);
        table.check().unwrap();
        assert_eq!(table.rules.len(), 4);
        for rule in &table.rules {
            let Action::FixedResponse {
                status,
                content_type,
                body,
            } = &rule.action
            else {
                panic!("{rule:?}")
            };
            assert_eq!((*status, &**content_type, &**body), (503, kind, text));
            assert_eq!(rule.authenticate, None);
        }
        assert!(table.rules[2].own.acme, "certificates are renewed meanwhile");
    }
}

#[test]
fn who_may_ask_is_said_at_every_name() {
    let access = "access: { allow: [192.0.2.0/24], deny: [192.0.2.7] }";
    let own = served("acme/shop/production", 3, &format!("{KEYS}\n{access}"));
    let table = table(7, &[own]);
    table.check().unwrap();
    assert_eq!(table.rules.len(), 4);
    for rule in &table.rules {
        let [access] = &rule.access[..] else {
            panic!("{rule:?}")
        };
        assert!(access.lets_in("192.0.2.8".parse().unwrap()));
        assert!(!access.lets_in("192.0.2.7".parse().unwrap()));
    }
}

#[test]
fn hosts_are_spoken_to_as_the_release_says() {
    let keys = "host: { traffic: { protocol: grpc, algorithm: weighted-random, slow_start: 30s,
      stickiness: { duration: 1h, cookie: session }, ejection: { failures: 3, time: 10s } } }
listeners: [{ protocol: tcp, port: 5514 }]";
    let own = served("acme/shop/production", 3, keys);
    let table = table(7, &[own]);
    table.check().unwrap();
    let group = &table.target_groups["acme/shop/production/v2"];
    assert_eq!(
        (group.protocol, group.algorithm, group.slow_start),
        (
            Protocol::Grpc,
            Algorithm::WeightedRandom,
            SignedDuration::from_secs(30)
        )
    );
    assert_eq!(group.ejection.unwrap().failures, 3);
    assert!(matches!(&group.stickiness, Some(Stickiness::Application { cookie, .. }) if cookie == "session"));
    assert_eq!(
        (
            group.health.protocol,
            &*group.health.path,
            &group.health.codes[..]
        ),
        (
            HealthProtocol::Grpc,
            "/grpc.health.v1.Health/Check",
            &[(0, 0)][..]
        )
    );
}

#[test]
fn people_sign_in_at_every_name_and_bytes_do_not() {
    let login = "authenticate: { issuer: 'https://id.test', authorization_endpoint: 'https://id.test/a',
  token_endpoint: 'https://id.test/t', user_info_endpoint: 'https://id.test/u', client_id: shop,
  client_secret: '{{secret:oidc}}' }";
    let mut place = served("acme/shop/production", 3, &format!("{KEYS}\n{login}"));
    place.created_at = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
    let table = table(7, &[place]);
    table.check().unwrap();
    let secret = |rule: &Rule| {
        rule.authenticate
            .as_ref()
            .map(|login| login.client_secret.clone())
    };
    // Who has these names later has other sessions.
    let own = Some("acme.shop.production.1790000000000.oidc".to_owned());
    let secrets: Vec<_> = table.rules.iter().map(secret).collect();
    assert_eq!(secrets, [own.clone(), own.clone(), own, None]);
}

fn shared(live: Option<u64>, arriving: Option<(u64, Option<u32>)>, fleets: &[(u64, u32)]) -> Served {
    let deployment = crate::flow::definition::tests::with("canary");
    let fleet = |(release, serving): &(u64, u32)| {
        let fleet = Fleet {
            spec: deployment.host.clone(),
            drain: SignedDuration::from_secs(7),
            serving: *serving,
            ports: Vec::new(),
            hosts: Vec::new(),
        };
        (*release, fleet)
    };
    Served {
        owns: BTreeSet::new(),
        steps: BTreeMap::new(),
        access: Vec::new(),
        closed: None,
        place: "acme/shop/dev".parse().unwrap(),
        number: 1,
        created_at: Timestamp::UNIX_EPOCH,
        hostnames: vec!["dev.shop.acme.localhost".into()],
        domains: Vec::new(),
        authenticate: None,
        apps: Platform::default().listen.of_apps(),
        live,
        asleep: false,
        arriving: arriving.map(|(release, share)| Arriving { release, share }),
        away: None,
        fleets: fleets.iter().map(fleet).collect(),
    }
}

#[test]
fn ports_stay_open_while_the_live_hosts_are_out() {
    let mut served = shared(Some(1), Some((2, None)), &[(2, 0)]);
    for fleet in served.fleets.values_mut() {
        fleet.ports = vec![spec::Port {
            protocol: Transport::Tcp,
            port: 5432,
            host_port: 5432,
            idle: SignedDuration::from_mins(1),
            leads: Leads::Balancer,
        }];
    }
    served.steps = rules::steps(&BTreeMap::new(), vec!["tcp-5432".to_owned()]);
    served.owns = BTreeSet::from(["tcp-5432".to_owned()]);
    let table = table(1, &[served]);
    let port = table.rules.iter().find(|rule| !rule.own.listeners.is_empty());
    let Action::Forward { groups, .. } = &port.expect("its socket stays").action else {
        panic!("nothing waits for the host that comes")
    };
    assert_eq!(groups.iter().map(|group| group.weight).collect::<Vec<_>>(), [1]);
}

fn parts(served: Served) -> Vec<(String, u32, bool)> {
    let table = table(1, &[served]);
    let Action::Forward { groups, .. } = &table.rules[0].action else {
        return Vec::new();
    };
    let part = |weighted: &Weighted| {
        let waking = table.target_groups[&weighted.group].waking;
        (
            weighted.group.rsplit('/').next().unwrap().to_owned(),
            weighted.weight,
            waking,
        )
    };
    groups.iter().map(part).collect()
}

#[test]
fn the_traffic_is_shared_as_the_rows_say() {
    let all = |parts: &[(&str, u32, bool)]| -> Vec<(String, u32, bool)> {
        parts
            .iter()
            .map(|(name, weight, waking)| ((*name).to_owned(), *weight, *waking))
            .collect()
    };
    for (what, given, expected) in [
        ("nothing is live", shared(None, None, &[]), all(&[])),
        (
            "probed before it gets traffic",
            shared(Some(1), None, &[(1, 2), (2, 0)]),
            all(&[("v1", 100, false), ("v2", 0, false)]),
        ),
        (
            "a step",
            shared(Some(1), Some((2, Some(30))), &[(1, 2), (2, 2)]),
            all(&[("v1", 70, false), ("v2", 30, false)]),
        ),
        (
            "in place",
            shared(Some(1), Some((2, None)), &[(1, 3), (2, 1)]),
            all(&[("v1", 3, false), ("v2", 1, false)]),
        ),
        (
            "a kept fleet gets nothing",
            shared(Some(2), Some((3, None)), &[(1, 2), (2, 1), (3, 1)]),
            all(&[("v1", 0, false), ("v2", 1, false), ("v3", 1, false)]),
        ),
        (
            "asleep",
            Served {
                asleep: true,
                ..shared(Some(1), None, &[(1, 0)])
            },
            all(&[("v1", 100, true)]),
        ),
        (
            "another release comes to what sleeps",
            Served {
                asleep: true,
                ..shared(Some(1), None, &[(1, 0), (2, 1)])
            },
            all(&[("v1", 100, true), ("v2", 0, false)]),
        ),
        (
            "every host is out",
            shared(Some(1), Some((2, None)), &[(2, 0)]),
            all(&[("v2", 1, true)]),
        ),
        (
            "every host is out, and the last is looked at",
            shared(Some(1), Some((2, None)), &[(1, 0), (2, 0)]),
            all(&[("v1", 0, false), ("v2", 1, true)]),
        ),
    ] {
        assert_eq!(parts(given), expected, "{what}");
    }
    let table = table(1, &[shared(Some(1), None, &[(1, 1)])]);
    assert!(
        table
            .target_groups
            .values()
            .all(|group| group.deregistration_delay == SignedDuration::from_secs(7))
    );
}

/// What of the requests goes to AWS.
fn moving(share: u32, closed: bool, served: Served) -> Served {
    let away = Away {
        host: "shop.aws.example".into(),
        share,
        closed,
        spec: crate::flow::definition::tests::with("canary").host,
        drain: SignedDuration::from_secs(7),
    };
    Served {
        away: Some(away),
        ..served
    }
}

#[test]
fn a_move_is_a_share_that_goes_elsewhere() {
    let live = || shared(Some(2), None, &[(1, 1), (2, 2)]);
    let shares = |served: Served| -> Vec<(String, u32)> {
        let parts = parts(served).into_iter();
        parts.map(|(group, weight, _)| (group, weight)).collect()
    };
    let expected = |parts: &[(&str, u32)]| -> Vec<(String, u32)> {
        parts
            .iter()
            .map(|(group, weight)| ((*group).to_owned(), *weight))
            .collect()
    };
    let before = shares(moving(0, false, live()));
    assert_eq!(
        before,
        expected(&[("v1", 0), ("v2", 100)]),
        "it is only probed there"
    );
    let part = shares(moving(10, false, live()));
    assert_eq!(part, expected(&[("v1", 0), ("v2", 90), ("aws", 10)]));
    let whole = shares(moving(100, false, live()));
    assert_eq!(whole, expected(&[("v1", 0), ("v2", 0), ("aws", 100)]));
    let asleep = Served {
        asleep: true,
        ..shared(Some(2), None, &[(2, 0)])
    };
    let gone = shares(moving(100, false, asleep));
    assert_eq!(
        gone,
        expected(&[("v2", 0), ("aws", 100)]),
        "nothing runs here any more"
    );
    let nothing = shares(moving(100, false, shared(Some(2), None, &[])));
    assert_eq!(nothing, expected(&[("aws", 100)]));
}

#[test]
fn what_is_elsewhere_is_probed_by_name_before_it_gets_anything() {
    for (share, closed) in [(0, false), (100, false), (0, true)] {
        let table = table(1, &[moving(share, closed, shared(Some(1), None, &[(1, 1)]))]);
        table.check().unwrap();
        let group = &table.target_groups["acme/shop/dev/aws"];
        assert_eq!(group.away.as_deref(), Some("shop.aws.example"));
        assert_eq!(group.targets[0].address.port(), 443);
        assert_eq!(
            group.health.path,
            table.target_groups["acme/shop/dev/v1"].health.path
        );
    }
}

#[test]
fn nobody_is_served_while_data_is_on_the_way() {
    for share in [0, 100] {
        let table = table(1, &[moving(share, true, shared(Some(1), None, &[(1, 1)]))]);
        let Action::FixedResponse { status, .. } = &table.rules[0].action else {
            panic!("{:?}", table.rules[0].action)
        };
        assert_eq!(*status, 503);
    }
}
