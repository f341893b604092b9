//! Why a request goes where it goes: the rule that decides, the rules before it that do not, and the targets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use model::route::{self, Protocol, TargetHealth};
use serde::{Deserialize, Serialize};

use crate::{
    answer::Answer,
    balance::{Group, Weights},
    head::{Ask, Method},
    http1::parse,
    http2::forward::is_grpc,
    live::Shared,
    secure::Secure,
    table::{Action, Rule},
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The rule that decides.
    pub rule: Option<route::Rule>,
    /// It comes without TLS, and no rule is asked before it comes with it.
    #[serde(default)]
    pub plain: bool,
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
    let (head, mut ends) = asked(question)?;
    // Nobody from elsewhere comes to where TLS is, so whoever asks is here.
    if shared.secure.get().is_some_and(Secure::is_local) {
        ends.local.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let mut ask = Ask::default();
    // Read as a client's would be: what is dropped of that, and what the edge itself says, decides here too.
    let read = parse::request(head.as_bytes(), &ends, (0, 0), &mut ask);
    let refused = match read {
        Err(bad) => Some(Answer::bad_request(bad.0)),
        Ok(_) => Some(Answer::not_allowed()).filter(|_| ask.method == Method::Refused),
    };
    if let Some(answer) = refused {
        return Ok(Explanation {
            answer: Some(said(&answer)),
            ..Explanation::default()
        });
    }
    if let Some(answer) = shared.first(&ask) {
        return Ok(Explanation {
            answer: Some(sent(answer)),
            plain: true,
            ..Explanation::default()
        });
    }
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
        ..Explanation::default()
    };
    let Some(rule) = decides else {
        explanation.answer = Some(sent(shared.last(&ask)));
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
            explanation.answer = Some(sent(Answer::redirect(redirect, &ask)));
        }
        Action::Forward(weights) => explanation.shared_out(rule, weights, &ask),
    }
    Ok(explanation)
}

impl Explanation {
    /// Adds the groups of a rule, and what the client gets where that is not a target's answer.
    fn shared_out(&mut self, rule: &Rule, weights: &Weights, ask: &Ask) {
        let route::Action::Forward { groups, .. } = weights.source() else {
            return;
        };
        let total: u32 = groups.iter().map(|group| group.weight).sum();
        for (group, held) in groups.iter().zip(weights.groups()) {
            let share = f64::from(group.weight) * 100.0 / f64::from(total.max(1));
            self.groups.push((group.group.clone(), share));
            self.targets
                .extend(held.targets().iter().map(|target| target.seen(held.name())));
            if group.weight > 0
                && let Some(answer) = instead(rule, held, ask)
            {
                self.answer = Some(answer);
            }
        }
    }
}

/// What the client gets in the place of an answer of this group's targets.
fn instead(rule: &Rule, group: &Group, ask: &Ask) -> Option<String> {
    if group.sleeps() {
        return Some(format!(
            "asleep: a request wakes {}, and waits for it",
            group.name()
        ));
    }
    let untransformed = |rest: &crate::condition::Rest| rest.url(ask).is_err() || rest.host(ask).is_err();
    let mismatch = match group.policy.protocol {
        Protocol::Http1 => None,
        Protocol::Grpc if !is_grpc(ask) => Some("whatever is not gRPC"),
        Protocol::Http2 | Protocol::Grpc => Some("whoever does not speak HTTP/2"),
    };
    let (answer, whom) = match mismatch {
        _ if group.targets().is_empty() => (Answer::no_targets(), None),
        _ if rule.rest().is_some_and(untransformed) => (Answer::untransformed(), None),
        Some(whom) => (Answer::incompatible(), Some(whom)),
        None => return None,
    };
    let whom = whom.map_or(String::new(), |whom| format!(", for {whom}"));
    Some(format!("{}{whom}: {}", said(&answer), group.name()))
}

/// Somewhere else than this machine, unless its own name is asked.
fn local(authority: &str) -> IpAddr {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    match host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" {
        true => Ipv4Addr::LOCALHOST.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Its number, and where it leads to or its words.
fn sent(answer: Answer) -> String {
    let words = said(&answer);
    let there = answer.location.map(|to| format!("{} {to}", answer.status));
    there.unwrap_or(words)
}

/// Its number and its words.
fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.body)
}

/// The head of the request in HTTP/1.1, and where it comes from and goes to.
fn asked(question: &Question) -> Result<(String, Ends), String> {
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
    if authority.is_empty() || !Ask::default().name_host(authority) {
        return Err(format!("`{authority}` is not a host"));
    }
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
    let mut head = format!("{} {target} HTTP/1.1\r\n", question.method);
    let fields = &question.headers;
    // As with other tools, a host that is said beside the URL is the one that is asked for.
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {authority}\r\n");
    }
    for (name, value) in fields {
        if (name.clone() + value).contains(['\r', '\n']) {
            return Err(format!("the header `{name}` has more than one line"));
        }
        head += &format!("{name}: {value}\r\n");
    }
    Ok((head + "\r\n", ends))
}
