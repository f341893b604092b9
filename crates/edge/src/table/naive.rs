//! Random tables and requests, decided as the table decides them and as somebody would who reads ALB's rules with a
//! finger on the page. Nothing here is shared with the code that is tested but the words of a rule.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use model::route::{Conditions, HeaderCondition, Pair, Rewrite, Transforms, Weighted};
use proptest::{prelude::*, string::string_regex};

use super::{
    tests::{Asked, rule},
    *,
};

/// Does a pattern stand for this text? Slowly.
fn like(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|n| like(rest, &text[n..])),
        (['?', rest @ ..], [_, text @ ..]) => like(rest, text),
        ([one, rest @ ..], [other, text @ ..]) => one == other && like(rest, text),
        _ => false,
    }
}

fn is_like(pattern: &str, text: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    like(&chars(pattern), &chars(text))
}

fn is_alike(pattern: &str, text: &str) -> bool {
    is_like(&pattern.to_lowercase(), &text.to_lowercase())
}

/// Does the text hold one of these expressions: a word, at its beginning or end where that is said?
fn holds(expressions: &[String], text: &str) -> bool {
    expressions.iter().any(|expression| {
        let (start, word) = match expression.strip_prefix('^') {
            Some(word) => (true, word),
            None => (false, &**expression),
        };
        match (start, word.strip_suffix('$')) {
            (true, Some(word)) => text == word,
            (true, None) => text.starts_with(word),
            (false, Some(word)) => text.ends_with(word),
            (false, None) => text.contains(word),
        }
    })
}

/// A request, in the words of the page.
#[derive(Debug, Clone)]
struct Page {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    source: [u8; 4],
    headers: Vec<(String, String)>,
}

impl Page {
    fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}"));
        self.path.clone() + &query.unwrap_or_default()
    }

    fn ask(&self) -> Ask {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let source = Ipv4Addr::from(self.source).to_string();
        Asked(&self.method, &self.host, &self.target(), &source, &headers).ask()
    }

    fn has_query(&self, pairs: &[Pair]) -> bool {
        let parts = self.query.as_deref().unwrap_or_default().split('&');
        let mut known = parts.map(|part| match part.split_once('=') {
            Some((key, value)) => (Some(key), value),
            None => (None, part),
        });
        known.any(|(key, value)| {
            pairs.iter().any(|pair| {
                let keyed = pair
                    .key
                    .as_ref()
                    .is_none_or(|wanted| key.is_some_and(|key| is_alike(wanted, key)));
                keyed && is_alike(&pair.value, value)
            })
        })
    }

    fn has_header(&self, wanted: &HeaderCondition) -> bool {
        let named = self.headers.iter().filter(|(name, _)| *name == wanted.name);
        let mut values = named.map(|(_, value)| value);
        values.any(|value| {
            holds(&wanted.regexes, value) || wanted.values.iter().any(|pattern| is_alike(pattern, value))
        })
    }

    fn is_from(&self, network: &str) -> bool {
        let (address, bits) = network.split_once('/').unwrap();
        let number = |ip: Ipv4Addr| u64::from(u32::from(ip)) >> (32 - bits.parse::<u32>().unwrap());
        number(address.parse().unwrap()) == number(Ipv4Addr::from(self.source))
    }

    /// The number of the rule that is for it.
    fn decided(&self, rules: &[route::Rule]) -> Option<u32> {
        let any = |patterns: &[String], expressions: &[String], text: &str| {
            let none = patterns.is_empty() && expressions.is_empty();
            none || holds(expressions, text) || patterns.iter().any(|pattern| is_like(pattern, text))
        };
        let fits = |rule: &&route::Rule| {
            let asked = &rule.conditions;
            any(&rule.hosts, &[], &self.host)
                && any(&[], &asked.host_regexes, &self.host)
                && any(&rule.paths, &asked.path_regexes, &self.path)
                && (asked.methods.is_empty() || asked.methods.contains(&self.method))
                && asked.headers.iter().all(|header| self.has_header(header))
                && asked.queries.iter().all(|pairs| self.has_query(pairs))
                && (asked.sources.is_empty() || asked.sources.iter().any(|n| self.is_from(&n.to_string())))
        };
        rules.iter().filter(fits).map(|rule| rule.priority).min()
    }

    /// What a rule makes of its path and query, and of its host.
    fn changed(&self, transforms: &Transforms) -> (Option<String>, Option<String>) {
        let change = |rewrite: &Option<Rewrite>, text: &str| {
            let rewrite = rewrite.as_ref()?;
            // All that is generated here is a word, at the beginning or anywhere, and a word for it.
            let (word, fixed) = match rewrite.regex.strip_prefix('^') {
                Some(word) => (word, true),
                None => (&*rewrite.regex, false),
            };
            let at = text.find(word).filter(|at| !fixed || *at == 0)?;
            Some(text[..at].to_owned() + &rewrite.replace.replace("$0", word) + &text[at + word.len()..])
        };
        (
            change(&transforms.url, &self.target()),
            change(&transforms.host, &self.host),
        )
    }
}

fn text(letters: &'static str) -> impl Strategy<Value = String> {
    string_regex(letters).unwrap()
}

fn any_page() -> impl Strategy<Value = Page> {
    let header = (text("x-[ab]"), text("[abAB]{0,2}"));
    let source = (0..2u8, 0..2u8).prop_map(|(net, host)| [192, 0, net, host]);
    (
        text("GET|PUT"),
        text("[ab]{1,2}(\\.[ab]{1,2}){0,3}"),
        text("/[ab]{0,3}"),
        prop::option::of(text("[abA]{0,2}(=[abA]{0,2})?(&[ab]=[abB]){0,2}")),
        source,
        prop::collection::vec(header, 0..3),
    )
        .prop_map(|(method, host, path, query, source, headers)| Page {
            method,
            host,
            path,
            query,
            source,
            headers,
        })
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let expressions = |word| prop::collection::vec(text(word), 0..2);
    let values = prop::collection::vec(text("[abA*?]{1,2}"), 0..3);
    let header = (text("x-[ab]"), values, expressions("\\^?[abA]{1,2}\\$?"));
    let headers = header.prop_map(|(name, values, regexes)| HeaderCondition {
        name,
        values,
        regexes,
    });
    let pair = (prop::option::of(text("[abA*?]{1,2}")), text("[abA*?]{1,2}"));
    let pair = pair.prop_map(|(key, value)| Pair { key, value });
    let sources = prop::sample::select(vec!["192.0.0.0/24", "192.0.1.1/32", "192.0.0.0/16", "10.0.0.0/8"]);
    (
        prop::collection::vec(text("GET|PUT"), 0..2),
        prop::collection::vec(headers, 0..2),
        prop::collection::vec(prop::collection::vec(pair, 1..3), 0..2),
        prop::collection::vec(sources.prop_map(|network| network.parse().unwrap()), 0..2),
        expressions("\\^?[ab]{1,2}\\$?"),
        expressions("\\^?/?[ab]{1,2}\\$?"),
    )
        .prop_map(
            |(methods, headers, queries, sources, host_regexes, path_regexes)| Conditions {
                methods,
                headers,
                queries,
                sources,
                host_regexes,
                path_regexes,
            },
        )
}

fn any_transforms() -> impl Strategy<Value = Transforms> {
    let rewrite = |words, replace| {
        let both = (text(words), text(replace));
        prop::option::of(both.prop_map(|(regex, replace)| Rewrite { regex, replace }))
    };
    let both = (
        rewrite("\\^?/?[ab]{1,2}", "/?[ab$]0?"),
        rewrite("\\^?[ab]{1,2}", "[ab](\\$0)?"),
    );
    both.prop_map(|(url, host)| Transforms { url, host })
}

/// Groups of one table: `0`, `1` and so on.
fn any_action() -> impl Strategy<Value = route::Action> {
    prop::collection::vec(0..6u32, 1..4).prop_map(|weights| route::Action::Forward {
        groups: (0..)
            .zip(weights)
            .map(|(group, weight): (u32, u32)| Weighted {
                group: group.to_string(),
                weight,
            })
            .collect(),
        stickiness: None,
    })
}

fn any_rules() -> impl Strategy<Value = Vec<route::Rule>> {
    let host = || text("(\\*\\.)?[ab*?]{1,2}(\\.[ab*]{1,2}){0,2}");
    // Few of them, as rules have them that were checked, or more than an index searches.
    let hosts =
        prop_oneof![4 => prop::collection::vec(host(), 0..3), 1 => prop::collection::vec(host(), 9..30)];
    let paths = prop::collection::vec(text("/[ab*?]{0,3}"), 0..3);
    // Most rules ask for little: else hardly any would ever be the one.
    let conditions = prop_oneof![1 => Just(Conditions::default()), 2 => any_conditions()];
    let each = (1..20u32, hosts, paths, conditions, any_transforms(), any_action());
    let each = each.prop_map(|(priority, hosts, paths, conditions, transforms, action)| {
        let made = route::Rule {
            hosts,
            paths,
            conditions,
            transforms,
            action,
            ..rule(priority, &[], &[])
        };
        (priority, made)
    });
    let all = prop::collection::vec(each, 0..12);
    all.prop_map(|rules| {
        rules
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect()
    })
}

fn made(rule: &route::Rule) -> Rule {
    Rule::new(rule, |name| {
        Some(Group::new(name, Vec::new(), Arc::default(), None))
    })
}

/// What becomes of a request, as the table says it: the rule's number, and the first two lines for the target.
fn told(rules: &Rules, page: &Page) -> Option<(u32, Option<String>)> {
    let mut ask = page.ask();
    let rule = rules.find(&ask)?.clone();
    let sent = match rule.rest().map(|rest| (rest.url(&ask), rest.host(&ask))) {
        None => Some((None, None)),
        Some((Ok(url), Ok(host))) => Some((url, host)),
        Some(_) => None,
    };
    let lines = sent.map(|(url, host)| {
        ask.transform(url.as_deref(), host.as_deref(), "");
        let wire = String::from_utf8(ask.wire.clone()).unwrap();
        wire.lines().take(2).collect::<Vec<_>>().join("\n")
    });
    Some((rule.priority, lines))
}

/// The same by the page.
fn expected(table: &[route::Rule], page: &Page) -> Option<(u32, Option<String>)> {
    let priority = page.decided(table)?;
    let rule = table.iter().find(|rule| rule.priority == priority).unwrap();
    let (url, host) = page.changed(&rule.transforms);
    let url = url.unwrap_or_else(|| page.target());
    let host = host.unwrap_or_else(|| page.host.clone());
    let lines = format!("{} {url} HTTP/1.1\nHost: {host}", page.method);
    // What begins otherwise is no path.
    Some((priority, url.starts_with('/').then_some(lines)))
}

/// How often each group is picked in as many turns as there are weights.
fn shares(rule: &Rule) -> Vec<u32> {
    let Action::Forward(weights) = &rule.action else {
        panic!("all of them forward");
    };
    let mut shares: Vec<u32> = weights.groups().map(|_| 0).collect();
    for _ in 0..weights.weighted().map(|(weight, _)| weight).sum() {
        let group = weights.pick().unwrap();
        shares[group.name().parse::<usize>().unwrap()] += 1;
    }
    shares
}

proptest! {
    #[test]
    fn the_table_decides_as_the_page_says_after_every_change(
        tables in prop::collection::vec(any_rules(), 1..5),
        asked in prop::collection::vec(any_page(), 1..20),
    ) {
        let mut rules = Rules::default();
        let mut held: Vec<Rule> = Vec::new();
        for table in &tables {
            // What the next table shares stays the same object; the rest is exchanged.
            let stays = |rule: &Rule| table.contains(&rule.source());
            let gone: Vec<_> = held.iter().filter(|rule| !stays(rule)).cloned().collect();
            held.retain(stays);
            let fresh = table.iter().filter(|rule| !held.iter().any(|h| h.priority == rule.priority));
            let new: Vec<_> = fresh.map(made).collect();
            let before = rules.clone();
            rules.change(&gone, &new);
            held.extend(new);
            let mut again = Rules::default();
            again.change(&[], &table.iter().map(made).collect::<Vec<_>>());
            for page in &asked {
                prop_assert_eq!(told(&rules, page), expected(table, page), "{:?}", page);
                prop_assert_eq!(told(&again, page), expected(table, page));
                let _ = before.find(&page.ask());
            }
            for rule in &held {
                let route::Action::Forward { groups, .. } = rule.source().action else {
                    panic!("all of them forward");
                };
                let weights: Vec<_> = groups.iter().map(|group| group.weight).collect();
                prop_assert_eq!(shares(rule), weights);
            }
        }
    }
}

/// A page is no page when hardly any request finds a rule in it, or hardly any condition is looked at.
#[test]
fn the_pages_meet_all_kinds_of_conditions() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::<&str, u32>::new();
    for _ in 0..1_000 {
        let table = any_rules().new_tree(&mut runner).unwrap().current();
        let page = any_page().new_tree(&mut runner).unwrap().current();
        let Some((priority, lines)) = expected(&table, &page) else {
            continue;
        };
        let rule = table.iter().find(|rule| rule.priority == priority).unwrap();
        let asked = &rule.conditions;
        for (kind, is) in [
            ("host", !rule.hosts.is_empty()),
            ("path", !rule.paths.is_empty()),
            ("method", !asked.methods.is_empty()),
            ("host regex", !asked.host_regexes.is_empty()),
            ("path regex", !asked.path_regexes.is_empty()),
            ("header", !asked.headers.is_empty()),
            (
                "header regex",
                asked.headers.iter().any(|header| !header.regexes.is_empty()),
            ),
            ("query", !asked.queries.is_empty()),
            ("source", !asked.sources.is_empty()),
            (
                "transform",
                lines
                    .as_ref()
                    .is_some_and(|lines| !lines.contains(&page.target())),
            ),
            ("failed transform", lines.is_none()),
        ] {
            *met.entry(kind).or_default() += u32::from(is);
        }
    }
    assert!(met.values().all(|count| *count > 0), "{met:?}");
}
