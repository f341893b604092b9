//! The rules of a listener that are there, by their priorities.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    call,
    client::{Client, Error, Form, Node},
};

/// Pages of a hundred rules; a listener of today has a hundred, and by request some hundreds more.
const PAGES: usize = 100;

/// Priority, and the hosts that the rule asks for.
pub type Rules = BTreeMap<u32, Vec<String>>;

/// Empty: there is no such listener yet.
pub async fn given(client: &Client, listener: &str) -> Result<Rules, Error> {
    let mut rules = Rules::new();
    each(client, listener, |rule| {
        // The default rule has a word there.
        let Ok(priority) = rule.text("Priority").parse() else {
            return;
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
    })
    .await?;
    Ok(rules)
}

/// The target groups to which its rules lead.
pub async fn groups(client: &Client, listener: &str) -> Result<BTreeSet<String>, Error> {
    let mut groups = BTreeSet::new();
    each(client, listener, |rule| groups.extend(led(rule))).await?;
    Ok(groups)
}

fn led(rule: &Node) -> impl Iterator<Item = String> {
    let configs = rule
        .list("Actions")
        .filter_map(|action| action.get("ForwardConfig"));
    let groups = configs.flat_map(|own| own.list("TargetGroups"));
    groups.map(|own| own.text("TargetGroupArn").to_owned())
}

/// Page by page. Where there is no such listener there is none.
async fn each(client: &Client, listener: &str, mut on: impl FnMut(&Node)) -> Result<(), Error> {
    let mut next: Option<String> = None;
    for _ in 0..PAGES {
        let mut form = Form::default();
        form.add("ListenerArn", listener).maybe("Marker", next.as_deref());
        let page = match client.query(&call::RULES, form).await {
            Err(error) if error.code() == "ListenerNotFound" => return Ok(()),
            other => other?,
        };
        page.list("Rules").for_each(&mut on);
        next = page.maybe("NextMarker");
        if next.is_none() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of DescribeRules' answer.
    #[test]
    fn a_rule_leads_to_both_halves() {
        let rule = Node::parse(
            b"<R><Actions><member><Type>authenticate-oidc</Type></member><member><Type>forward</Type><ForwardConfig><TargetGroups>\
              <member><TargetGroupArn>blue</TargetGroupArn><Weight>100</Weight></member>\
              <member><TargetGroupArn>green</TargetGroupArn><Weight>0</Weight></member></TargetGroups></ForwardConfig></member></Actions></R>",
        );
        assert_eq!(led(&rule.unwrap()).collect::<Vec<_>>(), ["blue", "green"]);
    }
}
