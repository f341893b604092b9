use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

#[test]
fn patterns_match_as_in_alb() {
    for (pattern, text, expected) in [
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "example.com", false),
        ("/img/*", "/img/", true),
        ("/img/*", "/image", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*b", "xxaxxb", true),
        ("", "", true),
        ("*", "", true),
        ("A", "a", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
    }
}

#[test]
fn folded_patterns_know_escapes_and_no_case() {
    for (pattern, text, expected) in [
        ("*chrome*", "Mozilla Chrome 1", true),
        ("V1", "v1", true),
        (r"a\*", "a*", true),
        (r"a\*", "ab", false),
        (r"a\?*", "a?b", true),
        (r"a\b", r"a\b", true),
        (r"a\", r"a\", true),
        (r"*\*", "xx*", true),
    ] {
        assert_eq!(folds(pattern, text, true), expected, "{pattern} on {text}");
    }
    assert!(!folds(r"a\*", "a*", false) && folds(r"a\*", r"a\b", false));
}

pub fn rule(priority: u32) -> Rule {
    Rule {
        priority,
        place: "acme/shop/dev".parse().unwrap(),
        hosts: vec!["shop.example.com".into()],
        paths: vec!["/*".into()],
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        access: Vec::new(),
        own: Own::default(),
        authenticate: None,
        action: Action::Forward {
            groups: vec![Weighted {
                group: "a".into(),
                weight: 1,
            }],
            stickiness: None,
        },
    }
}

fn table(edit: impl FnOnce(&mut Table)) -> Result<(), Invalid> {
    let mut table = Table {
        version: 1,
        rules: vec![rule(1)],
        target_groups: BTreeMap::from([("a".into(), TargetGroup::default())]),
    };
    edit(&mut table);
    table.check()
}

fn group(t: &mut Table) -> &mut TargetGroup {
    t.target_groups.get_mut("a").unwrap()
}

#[test]
fn a_table_is_checked_whole() {
    assert_eq!(table(|_| ()), Ok(()));
    let refused: [fn(&mut Table); 15] = [
        |t| t.rules.push(t.rules[0].clone()),
        |t| t.target_groups.clear(),
        |t| t.rules[0].hosts.push("UPPER".into()),
        |t| t.rules[0].paths.push("x".into()),
        |t| group(t).health.path = "/ HTTP/1.1\r\nX: y".into(),
        |t| group(t).health.codes.clear(),
        |t| group(t).slow_start = SignedDuration::from_secs(29),
        |t| group(t).stickiness = Some(Stickiness::Duration(SignedDuration::ZERO)),
        |t| {
            group(t).stickiness = Some(Stickiness::Application {
                cookie: "AWSALB".into(),
                duration: SignedDuration::from_secs(1),
            });
        },
        |t| redirect(t, |r| r.path = "/\r\nSet-Cookie: x".into()),
        |t| redirect(t, |r| r.path = "//evil.test".into()),
        |t| redirect(t, |_| ()),
        |t| redirect(t, |r| r.query = "only".into()),
        |t| {
            t.rules[0].action = Action::Forward {
                groups: vec![Weighted {
                    group: "a".into(),
                    weight: 1000,
                }],
                stickiness: None,
            };
        },
        |t| redirect(t, |r| r.path = "/".to_owned() + &"a".repeat(128)),
    ];
    for (index, edit) in refused.into_iter().enumerate() {
        assert!(table(edit).is_err(), "{index}");
    }
    assert_eq!(table(|t| redirect(t, |r| r.protocol = "HTTPS".into())), Ok(()));
}

fn redirect(t: &mut Table, edit: impl FnOnce(&mut Redirect)) {
    let mut redirect = Redirect::default();
    edit(&mut redirect);
    t.rules[0].action = Action::Redirect(redirect);
}

#[test]
fn a_rule_has_albs_limits() {
    let conditions = |edit: fn(&mut Rule)| table(|t| edit(&mut t.rules[0]));
    let good: [fn(&mut Rule); 4] = [
        |r| r.conditions.methods = vec!["GET".into(), "CUSTOM-X_Y".into()],
        |r| r.conditions.sources = vec!["192.0.2.0/24".parse().unwrap(), "::/0".parse().unwrap()],
        |r| r.conditions.path_regexes = vec!["^/v[0-9]+/".into()],
        |r| r.hosts = vec!["a".repeat(253)],
    ];
    for (index, edit) in good.into_iter().enumerate() {
        assert_eq!(conditions(edit), Ok(()), "{index}");
    }
    let refused: [fn(&mut Rule); 21] = [
        |r| r.hosts = vec!["a".into(); 4],
        |r| r.conditions.methods = vec!["GET".into(); 4],
        |r| r.conditions.sources = vec!["192.0.2.0/24".parse().unwrap(); 4],
        |r| r.conditions.headers = vec![given("a", &["x"; 4])],
        |r| r.conditions.queries = vec![vec![pair("k", "v"); 4]],
        |r| r.conditions.headers = vec![given("a", &["x"; 3]), given("b", &["x"; 3])],
        |r| r.conditions.queries = vec![vec![pair("k", "v"); 3], vec![pair("l", "v"); 3]],
        |r| r.paths = vec!["/*/*/*/*/*/*".into()],
        |r| r.conditions.headers = vec![named("a", "******")],
        |r| r.conditions.queries = vec![vec![pair("***", "****")]],
        |r| (r.hosts, r.paths) = (vec!["a".into(); 3], vec!["/a".into(); 3]),
        |r| r.hosts = vec!["*.*.*.*.*.a".into()],
        |r| r.conditions.methods = vec!["get".into()],
        |r| r.conditions.methods = vec!["G".repeat(41)],
        |r| r.conditions.headers = vec![named("Host", "x")],
        |r| r.conditions.headers = vec![named("a b", "x")],
        |r| r.conditions.headers = vec![named("a", "")],
        |r| r.conditions.headers = vec![named("a", &"x".repeat(129))],
        |r| r.conditions.queries = vec![Vec::new()],
        |r| r.conditions.path_regexes = vec!["(?=x)".into()],
        |r| r.conditions.path_regexes = vec!["((((a{99}){99}){99}){99})".into()],
    ];
    for (index, edit) in refused.into_iter().enumerate() {
        assert!(
            matches!(conditions(edit), Err(Invalid::Condition { rule: 1, .. })),
            "{index}"
        );
    }
}

fn named(name: &str, value: &str) -> HeaderCondition {
    given(name, &[value])
}

fn given(name: &str, values: &[&str]) -> HeaderCondition {
    HeaderCondition {
        name: name.into(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        regexes: Vec::new(),
    }
}

fn pair(key: &str, value: &str) -> Pair {
    Pair {
        key: Some(key.into()),
        value: value.into(),
    }
}

fn any_table(version: u64) -> impl Strategy<Value = Table> {
    let rules = prop::collection::btree_map(1..8u32, 0..3usize, 0..6);
    let groups = prop::collection::btree_map("[a-c]", 0..3i64, 0..3);
    (rules, groups).prop_map(move |(rules, groups)| Table {
        version,
        rules: rules
            .into_iter()
            .map(|(priority, n)| Rule {
                hosts: vec![format!("h{n}.test")],
                ..rule(priority)
            })
            .collect(),
        target_groups: groups
            .into_iter()
            .map(|(name, delay)| {
                let deregistration_delay = SignedDuration::from_secs(delay);
                (
                    name,
                    TargetGroup {
                        deregistration_delay,
                        ..TargetGroup::default()
                    },
                )
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn a_delta_leads_from_one_table_to_the_other(from in any_table(3), to in any_table(4)) {
        let delta = from.delta(&to);
        let mut there = from.clone();
        there.change(serde_json::from_str(&serde_json::to_string(&delta).unwrap()).unwrap());
        prop_assert_eq!(&there, &to);
        let none = to.delta(&Table { version: 5, ..to.clone() });
        prop_assert_eq!(none, Delta { from: Some(4), version: 5, ..Delta::default() });
        there.change(from.clone().into());
        prop_assert_eq!(there, from);
    }
}
