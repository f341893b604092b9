//! Ports and names of an app.

use super::*;

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
