//! The conditions of a rule beside its host patterns, ready to be asked, its transforms, and who must sign in. With ALB's meaning:
//! paths and methods know case, header values and queries do not, a query is looked at as it was sent, and the source
//! is the address of the connection.

use model::route::{self, Conditions, HeaderCondition, Pair, Transforms, folds, matches};
use regex::Regex;

use crate::{
    head::{Ask, is_confusing, is_host},
    login::Login,
};

/// What most rules do not have.
pub struct Rest {
    paths: Vec<String>,
    conditions: Conditions,
    transforms: Transforms,
    host: Vec<Regex>,
    path: Vec<Regex>,
    /// For each of `conditions.headers`.
    headers: Vec<Vec<Regex>>,
    rewrite_host: Option<Regex>,
    rewrite_url: Option<Regex>,
    pub login: Option<Login>,
    /// Each must let a source in.
    pub access: Vec<route::Access>,
}

/// A transform found its pattern, and what came of it cannot be sent.
pub struct Untransformed;

impl Rest {
    /// None when there is nothing to ask or to change. The rule was found good.
    pub fn new(rule: &route::Rule) -> Option<Self> {
        let (asked, transforms) = (&rule.conditions, &rule.transforms);
        let login = rule.authenticate.as_ref();
        let conditions = rule.paths.is_empty() && asked.is_empty();
        if conditions && transforms.is_empty() && login.is_none() && rule.access.is_empty() {
            return None;
        }
        let all = |texts: &[String]| texts.iter().filter_map(|text| route::regex(text).ok()).collect();
        let one = |rewrite: &Option<route::Rewrite>| route::regex(&rewrite.as_ref()?.regex).ok();
        Some(Self {
            host: all(&asked.host_regexes),
            path: all(&asked.path_regexes),
            headers: asked.headers.iter().map(|header| all(&header.regexes)).collect(),
            rewrite_host: one(&transforms.host),
            rewrite_url: one(&transforms.url),
            login: login.map(|spec| Login::new(spec, &rule.place.to_string())),
            paths: rule.paths.clone(),
            conditions: asked.clone(),
            transforms: transforms.clone(),
            access: rule.access.clone(),
        })
    }

    pub fn source(&self) -> (Vec<String>, Conditions, Transforms) {
        (
            self.paths.clone(),
            self.conditions.clone(),
            self.transforms.clone(),
        )
    }

    pub fn fits(&self, ask: &Ask) -> bool {
        self.fails(ask).is_none()
    }

    /// The first condition that does not hold.
    pub fn fails(&self, ask: &Ask) -> Option<&'static str> {
        let asked = &self.conditions;
        let path = ask.path();
        let none = self.paths.is_empty() && self.path.is_empty();
        if !none
            && !self.paths.iter().any(|p| matches(p, path))
            && !self.path.iter().any(|r| r.is_match(path))
        {
            Some("path")
        } else if !asked.methods.is_empty() && !asked.methods.iter().any(|m| m == ask.method_name()) {
            Some("method")
        } else if !self.host.is_empty() && !self.host.iter().any(|r| r.is_match(&ask.host)) {
            Some("host")
        } else if !asked.sources.is_empty()
            && !ask
                .peer
                .is_some_and(|peer| asked.sources.iter().any(|network| network.contains(peer)))
        {
            Some("source")
        } else if !asked.queries.iter().all(|pairs| has_query(pairs, ask.query())) {
            Some("query")
        } else if !asked
            .headers
            .iter()
            .zip(&self.headers)
            .all(|(header, regexes)| has_header(header, regexes, ask))
        {
            Some("header")
        } else {
            None
        }
    }

    pub fn transforms(&self) -> bool {
        !self.transforms.is_empty()
    }

    /// Path and query as the target is to get them; none when they stay. What is put in the place of a good path may not make
    /// one that means another.
    pub fn url(&self, ask: &Ask) -> Result<Option<String>, Untransformed> {
        let url = replaced(&self.rewrite_url, &self.transforms.url, ask.target());
        match url {
            Some(url) if !is_sendable(&url) => Err(Untransformed),
            url => Ok(url),
        }
    }

    /// The host as the target is to get it.
    pub fn host(&self, ask: &Ask) -> Result<Option<String>, Untransformed> {
        match replaced(&self.rewrite_host, &self.transforms.host, &ask.host) {
            Some(host) if host.is_empty() || !is_host(&host) => Err(Untransformed),
            host => Ok(host),
        }
    }
}

/// No path grows beyond what a head may hold.
const LONGEST: usize = 16 * 1024;

fn is_sendable(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    let visible = url.len() <= LONGEST && url.bytes().all(|b| b.is_ascii_graphic());
    visible && url.starts_with('/') && !url.contains('#') && !is_confusing(path)
}

fn replaced(regex: &Option<Regex>, rewrite: &Option<route::Rewrite>, text: &str) -> Option<String> {
    let (regex, rewrite) = (regex.as_ref()?, rewrite.as_ref()?);
    let found = regex.captures(text)?;
    let whole = found.get(0)?;
    let mut out = text[..whole.start()].to_owned();
    let mut rest = rewrite.replace.as_str();
    // A group is one digit: `$10` is the first group and a zero.
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        match rest.bytes().next() {
            Some(digit @ b'0'..=b'9') => {
                out.push_str(
                    found
                        .get(usize::from(digit - b'0'))
                        .map_or("", |group| group.as_str()),
                );
                rest = &rest[1..];
            }
            _ => out.push('$'),
        }
        if out.len() > LONGEST {
            break;
        }
    }
    out.push_str(rest);
    out.push_str(&text[whole.end()..]);
    Some(out)
}

fn has_header(header: &HeaderCondition, regexes: &[Regex], ask: &Ask) -> bool {
    ask.fields(&header.name)
        .filter_map(|value| str::from_utf8(value).ok())
        .any(|value| {
            header.values.iter().any(|pattern| folds(pattern, value, false))
                || regexes.iter().any(|r| r.is_match(value))
        })
}

/// A value without a key may stand anywhere: as the value of any key, or alone.
fn has_query(pairs: &[Pair], query: &str) -> bool {
    query.split('&').any(|part| {
        let (key, value) = part.split_once('=').unwrap_or(("", part));
        pairs.iter().any(|pair| match &pair.key {
            Some(wanted) => part.contains('=') && folds(wanted, key, true) && folds(&pair.value, value, true),
            None => folds(&pair.value, value, true),
        })
    })
}
