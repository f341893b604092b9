//! What a plan says of the section `host.health`.

use model::spec::{Health, written};

/// Every key with its value.
pub fn told(health: &Health) -> [(&'static str, String); 7] {
    let Health {
        path,
        interval,
        timeout,
        healthy,
        unhealthy,
        codes,
        within,
    } = health;
    let range = |(low, high): &(u16, u16)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    let codes: Vec<String> = codes.iter().map(range).collect();
    [
        ("host.health.path", path.clone()),
        ("host.health.interval", written(*interval)),
        ("host.health.timeout", written(*timeout)),
        ("host.health.healthy", healthy.to_string()),
        ("host.health.unhealthy", unhealthy.to_string()),
        ("host.health.codes", codes.join(",")),
        ("host.health.within", written(*within)),
    ]
}
