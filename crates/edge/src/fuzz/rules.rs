//! Rules and what they decide: the index of the table against a walk over all of it.

use std::{collections::BTreeMap, sync::Arc};

use model::route;

use super::{dice::Dice, ends, find};
use crate::{
    balance::Group,
    head::Ask,
    http1::parse,
    table::{Action, Rule, Rules},
};

/// Makes a few rules and requests of any bytes: each request must be decided as a walk over all rules decides it, before
/// and after some of the rules have gone again.
///
/// # Panics
/// When it is not so.
pub fn rules(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let specs: BTreeMap<u32, route::Rule> = (0..dice.up_to(12))
        .map(|_| dice.rule())
        .map(|rule| (rule.priority, rule))
        .collect();
    let mut all: Vec<Rule> = Vec::new();
    for spec in specs.values() {
        // Rules that are refused never come to be asked.
        if spec.check(|_| true).is_ok() {
            all.push(Rule::new(spec, |name| {
                Some(Group::new(name, Vec::new(), Arc::default(), None))
            }));
        }
    }
    let mut rules = Rules::default();
    rules.change(&[], &all);
    for _ in 0..2 {
        for _ in 0..8 {
            let Some(ask) = dice.ask() else { continue };
            let walked = all.iter().find(|rule| rule.is_for(&ask.host) && rule.fits(&ask));
            let (found, walked) = (rules.find(&ask), walked.map(|rule| rule.priority));
            let asked = || format!("{}{}", ask.host, ask.target());
            assert_eq!(found.map(|rule| rule.priority), walked, "{}", asked());
            if let Some(rule) = found {
                decided(rule, ask);
            }
        }
        let half = all.len() / 2;
        let gone: Vec<Rule> = all.drain(..half).collect();
        rules.change(&gone, &[]);
    }
}

/// What a rule does with a request that is its: what is sent is one head still, and a group that is picked has a weight.
fn decided(rule: &Rule, mut ask: Ask) {
    if let Action::Forward(weights) = &rule.action {
        let picked = weights.pick().map(|group| group.name());
        let weighs = |name| {
            weights
                .weighted()
                .any(|(weight, group)| weight > 0 && group.name() == name)
        };
        assert!(picked.is_none_or(weighs), "it has no weight");
    }
    let Some(rest) = rule.rest().filter(|rest| rest.transforms()) else {
        return;
    };
    let (Ok(url), Ok(host)) = (rest.url(&ask), rest.host(&ask)) else {
        return;
    };
    ask.transform(url.as_deref(), host.as_deref(), "");
    assert_eq!(find(&ask.wire), Some(ask.wire.len()), "it writes one head");
    let mut again = Ask::default();
    let read = parse::request(&ask.wire, &ends(), (7, 11), &mut again);
    assert!(read.is_ok(), "what is written cannot be read");
    assert_eq!(again.method_name(), ask.method_name());
    assert_eq!(again.target(), url.as_deref().unwrap_or(ask.target()));
    // What is read loses one dot at its end, and the host of the request has lost its own.
    let host = match &host {
        Some(host) => host.strip_suffix('.').unwrap_or(host),
        None => &ask.host,
    };
    assert!(
        again.host.eq_ignore_ascii_case(host),
        "{:?} became {host:?}, read as {:?}",
        ask.host,
        again.host
    );
}
