//! Whether a table, or a change of one, can be served. Limits of one rule are ALB's, so that it means the same there;
//! how many rules, groups and targets there may be is not limited.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::{
    Action, HealthProtocol, Protocol, Redirect, Rewrite, Rule, Stickiness, Table, TargetGroup, Weighted,
};

/// Values of one condition.
pub const VALUES: usize = 3;
/// Values of all conditions of one rule.
pub const VALUES_PER_RULE: usize = 5;
/// `*` and `?` in all conditions of one rule.
pub const WILDCARDS: usize = 5;
/// Characters of one value.
const VALUE: usize = 128;
/// Characters of a method, or of a header's name.
const NAME: usize = 40;
/// Characters of each side of a rewrite.
const REWRITE: usize = 1024;
/// Bytes that a compiled regular expression may take: it must not be a way to fill the memory.
const COMPILED: usize = 256 * 1024;
/// Bytes of a fixed answer. ALB has 1 KiB; a page for maintenance needs more.
const BODY: usize = 64 * 1024;

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Invalid {
    #[error("two rules have the priority {0}")]
    Priority(u32),
    #[error("the rule with the priority {rule} forwards to `{group}`, which is not in the table")]
    Group { rule: u32, group: String },
    #[error("the rule with the priority {0} forwards to nothing: every weight is 0 or there is no group")]
    Weightless(u32),
    #[error("the rule with the priority {rule} gives a group the weight {weight}: 0 to 999 are allowed")]
    Weight { rule: u32, weight: u32 },
    #[error("the answer of the rule with the priority {rule} cannot be sent: {why}")]
    Answer { rule: u32, why: String },
    #[error("a condition of the rule with the priority {rule} cannot be used: {why}")]
    Condition { rule: u32, why: String },
    #[error("the rule with the priority {rule} cannot have what it wants for itself: {why}")]
    Own { rule: u32, why: String },
    #[error("the rule with the priority {rule} cannot let anybody sign in: {why}")]
    Authenticate { rule: u32, why: String },
    #[error("the target group `{group}` cannot be used: {why}")]
    TargetGroup { group: String, why: String },
    #[error("`{0}` is not a host name or pattern")]
    Host(String),
    #[error("`{0}` is not a path or pattern: it must start with `/` or `*`")]
    Path(String),
    #[error("the table is version {got}, the one in force is {have}")]
    Stale { got: u64, have: u64 },
}

impl Table {
    /// Checks everything that can be checked without a network.
    pub fn check(&self) -> Result<(), Invalid> {
        for (name, group) in &self.target_groups {
            group.check(name)?;
        }
        let mut priorities = BTreeSet::new();
        for rule in &self.rules {
            if !priorities.insert(rule.priority) {
                return Err(Invalid::Priority(rule.priority));
            }
            rule.check(|group| self.target_groups.contains_key(group))?;
        }
        Ok(())
    }
}

impl Rule {
    /// Checks the rule among groups that `is_group` knows.
    pub fn check(&self, is_group: impl Fn(&str) -> bool) -> Result<(), Invalid> {
        if let Some(host) = self.hosts.iter().find(|host| !is_host_pattern(host)) {
            return Err(Invalid::Host(host.clone()));
        }
        if let Some(path) = self.paths.iter().find(|path| !path.starts_with(['/', '*'])) {
            return Err(Invalid::Path(path.clone()));
        }
        let rule = self.priority;
        self.check_conditions()
            .map_err(|why| Invalid::Condition { rule, why })?;
        let rewrites = [&self.transforms.host, &self.transforms.url];
        for rewrite in rewrites.into_iter().flatten() {
            rewrite.check().map_err(|why| Invalid::Condition { rule, why })?;
        }
        self.check_own().map_err(|why| Invalid::Own { rule, why })?;
        self.check_access()
            .map_err(|why| Invalid::Condition { rule, why })?;
        if let Some(why) = self.authenticate.as_ref().and_then(|login| login.wrong()) {
            let why = why.to_owned();
            return Err(Invalid::Authenticate { rule, why });
        }
        self.check_action(is_group)
    }

    fn check_conditions(&self) -> Result<(), String> {
        let asked = &self.conditions;
        let mut count = Count::default();
        count.condition("host", &[&self.hosts, &asked.host_regexes])?;
        count.condition("path", &[&self.paths, &asked.path_regexes])?;
        count.condition("method", &[&asked.methods])?;
        count.sized("source", asked.sources.len())?;
        count.wildcards(self.hosts.iter().chain(&self.paths))?;
        for header in &asked.headers {
            let name = &header.name;
            if name.is_empty() || name.len() > NAME || !name.bytes().all(is_token) {
                return Err(format!(
                    "`{name}` is not the name of a header, or longer than {NAME}"
                ));
            }
            if name.eq_ignore_ascii_case("host") {
                return Err("hosts have conditions of their own".into());
            }
            count.condition(name, &[&header.values, &header.regexes])?;
            count.wildcards(header.values.iter())?;
            if header.values.len() + header.regexes.len() == 0 {
                return Err(format!("the header `{name}` is given no value"));
            }
            check_regexes(&header.regexes)?;
        }
        for pairs in &asked.queries {
            if pairs.is_empty() {
                return Err("a query condition has no value".into());
            }
            let keys: Vec<String> = pairs.iter().filter_map(|pair| pair.key.clone()).collect();
            let values: Vec<String> = pairs.iter().map(|pair| pair.value.clone()).collect();
            count.condition("query", &[&values])?;
            count.wildcards(keys.iter().chain(&values))?;
            check_values("query", &keys)?;
        }
        let method =
            |m: &String| m.len() <= NAME && m.bytes().all(|b| b.is_ascii_uppercase() || b"-_".contains(&b));
        if let Some(method) = asked.methods.iter().find(|m| !method(m)) {
            return Err(format!(
                "`{method}` is not a method: A to Z, `-` and `_`, {NAME} at most"
            ));
        }
        check_regexes(&asked.host_regexes)?;
        check_regexes(&asked.path_regexes)
    }

    fn check_action(&self, is_group: impl Fn(&str) -> bool) -> Result<(), Invalid> {
        let rule = self.priority;
        let answer = |why: Option<&str>| match why {
            None => Ok(()),
            Some(why) => Err(Invalid::Answer {
                rule,
                why: why.to_owned(),
            }),
        };
        match &self.action {
            Action::Forward { groups, stickiness } => {
                check_weights(rule, groups, is_group)?;
                answer(stickiness.and_then(wrong_stickiness))
            }
            // The ranges are ALB's.
            Action::FixedResponse {
                status,
                content_type,
                body,
            } => answer(match status {
                _ if !is_header_value(content_type) => Some("its content type is not one line of text"),
                _ if body.len() > BODY => Some("its body is larger than 64 KiB"),
                200..=299 | 400..=599 => None,
                _ => Some("its status must be 2xx, 4xx or 5xx"),
            }),
            Action::Redirect(redirect) => answer(redirect.wrong()),
        }
    }
}

impl Redirect {
    fn wrong(&self) -> Option<&'static str> {
        let parts = [&self.host, &self.port, &self.path, &self.query];
        let port = |port: &str| port == "#{port}" || port.parse::<u16>().is_ok_and(|port| port > 0);
        if !parts
            .into_iter()
            .all(|part| part.len() <= VALUE && is_header_value(part) && !part.contains(' '))
        {
            Some("a part of its location is longer than 128, or not visible text")
        } else if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            Some("its status must be 301, 302, 303, 307 or 308")
        } else if !["HTTP", "HTTPS", "#{protocol}"].contains(&&*self.protocol) {
            Some("its protocol must be HTTP, HTTPS or #{protocol}")
        } else if self.host.is_empty() || self.host.contains(['/', '?', '@', '\\']) {
            Some("its host is not a host")
        } else if !port(&self.port) {
            Some("its port is not a port")
        } else if !self.path.starts_with('/') || self.path.starts_with("//") {
            Some("its path must start with one slash")
        } else if self.leads_back() {
            Some("it leads back to where it came from: protocol, host, port or path must differ")
        } else {
            None
        }
    }

    fn leads_back(&self) -> bool {
        let other = Self {
            status: self.status,
            query: self.query.clone(),
            ..Self::default()
        };
        *self == other
    }
}

impl Rewrite {
    fn check(&self) -> Result<(), String> {
        if self.regex.len() > REWRITE || self.replace.len() > REWRITE {
            return Err(format!("a side of a rewrite is longer than {REWRITE}"));
        }
        regex(&self.regex).map(|_| ())
    }
}

/// Compiles a regular expression of a rule, within bounds. Its language has no look-around and no back-references, as
/// ALB's has none, so that its time is linear.
pub fn regex(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(COMPILED)
        .dfa_size_limit(COMPILED)
        .build()
        .map_err(|error| format!("`{text}` is no regular expression: {error}"))
}

/// Counts what the conditions of one rule have together.
#[derive(Default)]
struct Count {
    values: usize,
    wildcards: usize,
}

impl Count {
    fn condition(&mut self, name: &str, lists: &[&Vec<String>]) -> Result<(), String> {
        for list in lists {
            check_values(name, list)?;
        }
        self.sized(name, lists.iter().map(|list| list.len()).sum())
    }

    fn sized(&mut self, name: &str, count: usize) -> Result<(), String> {
        self.values += count;
        if count > VALUES {
            return Err(format!("{name} is given {count} values: {VALUES} are allowed"));
        }
        match self.values {
            ..=VALUES_PER_RULE => Ok(()),
            _ => Err(format!("the rule has more than {VALUES_PER_RULE} values")),
        }
    }

    fn wildcards<'a>(&mut self, values: impl Iterator<Item = &'a String>) -> Result<(), String> {
        self.wildcards += values
            .map(|value| value.matches(['*', '?']).count())
            .sum::<usize>();
        match self.wildcards {
            ..=WILDCARDS => Ok(()),
            _ => Err(format!("the rule has more than {WILDCARDS} wildcards")),
        }
    }
}

/// Hosts may be as long as names are; ALB ends at 128.
fn check_values(name: &str, values: &[String]) -> Result<(), String> {
    let longest = if name == "host" { 253 } else { VALUE };
    let good = |value: &String| (1..=longest).contains(&value.len()) && is_header_value(value);
    match values.iter().find(|value| !good(value)) {
        Some(_) => Err(format!(
            "a value of {name} is empty, longer than {longest} or not visible text"
        )),
        None => Ok(()),
    }
}

fn check_regexes(regexes: &[String]) -> Result<(), String> {
    regexes.iter().try_for_each(|text| regex(text).map(|_| ()))
}

fn check_weights(rule: u32, groups: &[Weighted], is_group: impl Fn(&str) -> bool) -> Result<(), Invalid> {
    if let Some(group) = groups.iter().find(|group| group.weight > 999) {
        return Err(Invalid::Weight {
            rule,
            weight: group.weight,
        });
    }
    if groups.iter().all(|group| group.weight == 0) {
        return Err(Invalid::Weightless(rule));
    }
    match groups.iter().find(|group| !is_group(&group.group)) {
        Some(missing) => Err(Invalid::Group {
            rule,
            group: missing.group.clone(),
        }),
        None => Ok(()),
    }
}

fn wrong_stickiness(time: SignedDuration) -> Option<&'static str> {
    let range = SignedDuration::from_secs(1)..=SignedDuration::from_hours(7 * 24);
    (!range.contains(&time)).then_some("stickiness lasts 1 s to 7 days")
}

impl TargetGroup {
    /// Checks the group under its name.
    pub fn check(&self, name: &str) -> Result<(), Invalid> {
        let why = self
            .wrong()
            .or_else(|| self.wrong_health())
            .or_else(|| self.wrong_sharing());
        match why {
            None if !name.is_empty() && is_header_value(name) => Ok(()),
            why => Err(Invalid::TargetGroup {
                group: name.to_owned(),
                why: why.unwrap_or("its name is not one line of text").to_owned(),
            }),
        }
    }

    fn wrong(&self) -> Option<&'static str> {
        let mut targets = BTreeSet::new();
        if self.deregistration_delay.is_negative() {
            Some("its deregistration delay is negative")
        } else if !self
            .targets
            .iter()
            .all(|target| targets.insert((&target.id, target.address)))
        {
            Some("a target is in it twice")
        } else if self.away.as_deref().is_some_and(|name| !is_host(name)) {
            Some("where it is elsewhere is not the name of a host")
        } else if self.away.is_some() && (self.protocol != Protocol::Http1 || self.proxy.is_some()) {
            Some("what is elsewhere is spoken to in HTTP/1.1")
        } else {
            None
        }
    }

    fn wrong_health(&self) -> Option<&'static str> {
        let health = &self.health;
        let visible = health.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let path = visible && health.path.len() <= 1024 && health.path.starts_with('/');
        let (low, high) = match health.protocol {
            HealthProtocol::Grpc => (0, 99),
            _ => (100, 599),
        };
        let codes = |(from, to): &(u16, u16)| *from >= low && from <= to && *to <= high;
        if !path && health.protocol != HealthProtocol::Tcp {
            Some("the path of its health check is not a path")
        } else if health.interval <= SignedDuration::ZERO || health.timeout <= SignedDuration::ZERO {
            Some("the interval and the time-out of its health check must be more than nothing")
        } else if !(2..=10).contains(&health.healthy) || !(2..=10).contains(&health.unhealthy) {
            Some("the thresholds of its health check must be 2 to 10")
        } else if health.codes.is_empty() || !health.codes.iter().all(codes) {
            Some("the codes of its health check must be ranges within 100 to 599, or 0 to 99 for gRPC")
        } else {
            None
        }
    }

    fn wrong_sharing(&self) -> Option<&'static str> {
        let seconds = self.slow_start.as_secs();
        if seconds != 0 && !(30..=900).contains(&seconds) || self.slow_start.is_negative() {
            return Some("its slow start must be 30 to 900 s, or nothing");
        }
        if let Some(ejection) = &self.ejection
            && (ejection.failures == 0 || ejection.time <= SignedDuration::ZERO)
        {
            return Some("an ejection needs failures and a time");
        }
        match &self.stickiness {
            None => None,
            Some(Stickiness::Duration(time)) => wrong_stickiness(*time),
            Some(Stickiness::Application { cookie, duration }) => match is_cookie(cookie) {
                true => wrong_stickiness(*duration),
                false => Some("the name of its cookie is not the name of a cookie, or the balancer's own"),
            },
        }
    }
}

/// Is it the name of a cookie that an app may have? (RFC 6265, section 4.1.1.)
pub fn is_cookie(name: &str) -> bool {
    !name.is_empty() && name.len() <= VALUE && name.bytes().all(is_token) && !name.starts_with("AWSALB")
}

/// No line break and nothing else that could end a header early.
fn is_header_value(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Without wildcards.
fn is_host(host: &str) -> bool {
    is_host_pattern(host) && !host.contains(['*', '?'])
}

fn is_host_pattern(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.*?_".contains(&b))
}
