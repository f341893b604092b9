//! What a plan says of the sections `host.traffic` and `access`.

use model::{
    route::{Access, Ejection, Network, Stickiness},
    spec::{Traffic, written},
};
use serde::Serialize;

/// A value that serde writes as a word.
pub fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value
        .as_ref()
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Every key with its value; those that are nothing by default only where they are something.
pub fn told(traffic: &Traffic) -> Vec<(&'static str, String)> {
    let Traffic {
        protocol,
        algorithm,
        slow_start,
        stickiness,
        ejection,
    } = traffic;
    let mut told = vec![
        ("host.traffic.protocol", word(protocol)),
        ("host.traffic.algorithm", word(algorithm)),
    ];
    if !slow_start.is_zero() {
        told.push(("host.traffic.slow_start", written(*slow_start)));
    }
    match stickiness {
        None => {}
        Some(Stickiness::Duration(time)) => told.push(("host.traffic.stickiness", written(*time))),
        Some(Stickiness::Application { cookie, duration }) => {
            let text = format!("as the cookie {cookie}, {} at most", written(*duration));
            told.push(("host.traffic.stickiness", text));
        }
    }
    if let Some(Ejection { failures, time }) = ejection {
        let text = format!("after {failures} failures, for {}", written(*time));
        told.push(("host.traffic.ejection", text));
    }
    told
}

/// Who may ask.
pub fn let_in(access: &Access) -> Vec<(&'static str, String)> {
    let Access { allow, deny } = access;
    let text = |networks: &[Network]| {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        networks.join(", ")
    };
    let lists = [("access.allow", text(allow)), ("access.deny", text(deny))];
    lists.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}
