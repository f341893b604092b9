//! Why a request goes where it goes: the rule that decides, the rules before it that do not, and the targets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use model::route::{self, TargetHealth};
use serde::{Deserialize, Serialize};

use crate::{
    answer::Answer,
    head::{Ask, CONFUSING, Method, is_confusing},
    live::Shared,
    table::Action,
    worker::Ends,
};

/// A request that is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub method: String,
    /// `https://shop.example.com/cart?id=7`; without a scheme it is `http`.
    pub url: String,
    pub source: Option<IpAddr>,
    pub headers: Vec<(String, String)>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The rule that decides.
    pub rule: Option<route::Rule>,
    /// Rules before it that are for this host, by priority, with the condition that does not hold.
    pub passed_over: Vec<(u32, String)>,
    /// What the client gets when it is not a target's answer.
    pub answer: Option<String>,
    /// Groups with their share of requests, in percent.
    pub groups: Vec<(String, f64)>,
    pub targets: Vec<TargetHealth>,
}

/// Rules that are named as passed over, at most.
const PASSED: usize = 20;

/// Explains; an error says what is wrong with the question.
pub fn explain(shared: &Shared, question: &Question) -> Result<Explanation, String> {
    let ask = asked(question)?;
    let live = shared.live.load_full();
    let decides = live.rules.find(&ask);
    let last = decides.map_or(u32::MAX, |rule| rule.priority);
    let rules = shared.book().rules();
    let before = rules
        .iter()
        .take_while(|rule| rule.priority < last)
        .filter(|rule| rule.is_for(&ask.host));
    let passed_over = before.filter_map(|rule| Some((rule.priority, rule.fails(&ask)?.to_owned())));
    let mut explanation = Explanation {
        rule: decides.map(|rule| rule.source()),
        passed_over: passed_over.take(PASSED).collect(),
        answer: None,
        groups: Vec::new(),
        targets: Vec::new(),
    };
    if let Some(answer) = refused(&ask) {
        explanation.answer = Some(said(&answer));
        (explanation.rule, explanation.passed_over) = (None, Vec::new());
        return Ok(explanation);
    }
    let Some(rule) = decides else {
        let answer = Answer::unmatched(&ask, shared.secure());
        let what = answer.location.unwrap_or_else(|| "host not found".into());
        explanation.answer = Some(format!("{} {what}", answer.status));
        return Ok(explanation);
    };
    if !rule.lets_in(ask.peer) {
        explanation.answer = Some(said(&Answer::not_let_in()));
        return Ok(explanation);
    }
    if rule.login().is_some() && !ask.tls {
        explanation.answer = Some(said(&Answer::insecure()));
        return Ok(explanation);
    }
    match &rule.action {
        Action::Fixed(fixed) => explanation.answer = Some(fixed.status.to_string()),
        Action::Redirect(redirect) => {
            let answer = Answer::redirect(redirect, &ask);
            explanation.answer = Some(format!(
                "{} {}",
                answer.status,
                answer.location.unwrap_or_default()
            ));
        }
        Action::Forward(weights) => {
            let route::Action::Forward { groups, .. } = weights.source() else {
                return Ok(explanation);
            };
            let total: u32 = groups.iter().map(|group| group.weight).sum();
            for (group, held) in groups.iter().zip(weights.groups()) {
                let share = f64::from(group.weight) * 100.0 / f64::from(total.max(1));
                explanation.groups.push((group.group.clone(), share));
                explanation
                    .targets
                    .extend(held.targets().iter().map(|target| target.seen(held.name())));
                if group.weight == 0 {
                    continue;
                }
                if held.policy.waking && !held.has_healthy() {
                    let wakes = format!("asleep: a request wakes {}, and waits for it", held.name());
                    explanation.answer = Some(wakes);
                } else if held.targets().is_empty() {
                    explanation.answer = Some(format!("{}: {}", said(&Answer::no_targets()), held.name()));
                }
            }
        }
    }
    Ok(explanation)
}

/// What is answered before any rule is asked.
fn refused(ask: &Ask) -> Option<Answer> {
    match (ask.method == Method::Refused, is_confusing(ask.path())) {
        (true, _) => Some(Answer::not_allowed()),
        (_, true) => Some(Answer::bad_request(CONFUSING)),
        _ => None,
    }
}

/// Somewhere else than this machine, unless its own name is asked.
fn local(authority: &str) -> IpAddr {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    match host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" {
        true => Ipv4Addr::LOCALHOST.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Its number and its words.
fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.body)
}

fn asked(question: &Question) -> Result<Ask, String> {
    let url = &question.url;
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(format!("`{scheme}` is not http or https")),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = match target.split('#').next() {
        Some("") | None => "/".to_owned(),
        Some(target) if target.starts_with('?') => format!("/{target}"),
        Some(target) => target.to_owned(),
    };
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    let ends = Ends {
        peer: SocketAddr::new(question.source.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0),
        local: SocketAddr::new(local(authority), port),
        tls,
        identity: None,
        connection: None,
        only: None,
    };
    let mut ask = Ask::default();
    ask.start(&question.method, &target, &ends);
    if authority.is_empty() || !ask.name_host(authority) {
        return Err(format!("`{authority}` is not a host"));
    }
    for (name, value) in &question.headers {
        if (name.clone() + value).contains(['\r', '\n']) {
            return Err(format!("the header `{name}` has more than one line"));
        }
        // A list of proxies ends with the client, as it does on its way to a target.
        let value = if name.eq_ignore_ascii_case("x-forwarded-for") {
            format!("{value}, -")
        } else {
            value.clone()
        };
        ask.header(name.as_bytes(), value.as_bytes());
    }
    ask.end();
    Ok(ask)
}
