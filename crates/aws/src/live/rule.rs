//! The rules of a listener that are there, by their priorities.

use std::collections::BTreeMap;

use crate::{
    call,
    client::{Client, Error, Form},
};

/// Pages of a hundred rules; a listener of today has a hundred, and by request some hundreds more.
const PAGES: usize = 100;

/// Priority, and the hosts that the rule asks for.
pub type Rules = BTreeMap<u32, Vec<String>>;

/// Empty: there is no such listener yet.
pub async fn given(client: &Client, listener: &str) -> Result<Rules, Error> {
    let mut rules = Rules::new();
    let mut next: Option<String> = None;
    for _ in 0..PAGES {
        let mut form = Form::default();
        form.add("ListenerArn", listener).maybe("Marker", next.as_deref());
        let page = match client.query(&call::RULES, form).await {
            Err(error) if error.code() == "ListenerNotFound" => return Ok(rules),
            other => other?,
        };
        for rule in page.list("Rules") {
            // The default rule has a word there.
            let Ok(priority) = rule.text("Priority").parse() else {
                continue;
            };
            let conditions = rule
                .list("Conditions")
                .filter(|own| own.text("Field") == "host-header");
            // The same hosts stand in two places, of which the older may be empty.
            let lists = conditions.flat_map(|own| [Some(own), own.get("HostHeaderConfig")]);
            let hosts = lists.flatten().flat_map(|own| own.list("Values"));
            let mut hosts: Vec<String> = hosts.map(|own| own.text.trim().to_owned()).collect();
            hosts.sort();
            hosts.dedup();
            rules.insert(priority, hosts);
        }
        next = page.maybe("NextMarker");
        if next.is_none() {
            break;
        }
    }
    Ok(rules)
}
