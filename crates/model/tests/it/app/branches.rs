//! Environments that come and go with their branches: which branch has which.

use std::collections::BTreeMap;

use model::spec::{Preview, preview_name};
use proptest::prelude::*;

use super::*;

const WHOLE: &str = "app: a
host: { size: medium }
environments:
  production: {}
  staging: { branch: release/next }
  hotfix: { branches: [\"hotfix/*\", \"release/**\"], expires: 30d, limit: 2, host: { size: large } }
  preview: { branches: \"feature/*\", sleep_after: 15m }
";

fn following(app: &App, branch: &str) -> Vec<String> {
    let following = app.following(branch).unwrap().into_iter();
    following
        .map(|own| {
            format!(
                "{} of {} on {}",
                own.name,
                own.preview.map_or("itself".into(), |own| own.of.to_string()),
                own.branch
            )
        })
        .collect()
}

#[test]
fn a_branch_has_the_environment_of_the_first_pattern_that_it_fits() {
    let app = good(WHOLE);
    assert_eq!(app.environments.len(), 2);
    for (branch, expected) in [
        ("main", &["production of itself on main"][..]),
        // Who follows a branch by name goes before every pattern.
        ("release/next", &["staging of itself on release/next"]),
        ("release/1/2", &["release-1-2-f6e5f5 of hotfix on release/1/2"]),
        ("hotfix/login", &["hotfix-login-e015cd of hotfix on hotfix/login"]),
        (
            "feature/login",
            &["feature-login-df7c7a of preview on feature/login"],
        ),
        // One star does not go beyond a slash.
        ("feature/a/b", &[]),
        ("other", &[]),
    ] {
        assert_eq!(following(&app, branch), expected, "{branch}");
    }
    let [made] = &app.following("hotfix/a").unwrap()[..] else {
        panic!()
    };
    assert_eq!((made.host.size.as_str(), made.sleep_after), ("large", None));
    let hotfix = Preview {
        of: "hotfix".parse().unwrap(),
        expires: SignedDuration::from_hours(720),
        limit: 2,
    };
    assert_eq!(made.preview, Some(hotfix));
    let [made] = &app.following("feature/a").unwrap()[..] else {
        panic!()
    };
    assert_eq!(
        (made.host.size.as_str(), made.sleep_after),
        ("medium", Some(SignedDuration::from_mins(15)))
    );
    let usual = Preview {
        of: "preview".parse().unwrap(),
        expires: Preview::EXPIRES,
        limit: Preview::LIMIT,
    };
    assert_eq!(made.preview, Some(usual));
}

#[test]
fn an_environment_of_a_branch_takes_no_other_ones_name() {
    let app = good(
        "app: a\nenvironments: { production: {}, x1: { branch: y }, preview: { branches: ['x*', 'p*'] } }",
    );
    for branch in ["x1", "preview"] {
        let clash = app.following(branch).unwrap_err().to_string();
        assert_eq!(
            clash,
            format!(
                "branch {branch} would have the environment `{branch}`, and vend.yaml has one of that name"
            )
        );
    }
    assert_eq!(
        following(&app, "production"),
        ["production-ab8e18 of preview on production"]
    );
    assert_eq!(following(&app, "x2"), ["x2 of preview on x2"]);
}

#[test]
fn what_only_one_can_have_does_not_stand_beside_branches() {
    let cases = [
        (
            "production: { branches: 'f/*' }",
            "`production` does not come and go with a branch (give the environments of branches another name, such as `preview`)",
        ),
        (
            "p: { branches: 'f/*', branch: x }",
            "`branch` cannot stand beside `branches`: each environment follows a branch of its own (write `branch: null` here if it stands above)",
        ),
        (
            "p: { branches: 'f/*', listeners: [{ protocol: udp, port: 5514 }] }",
            "`listeners` cannot stand beside `branches`: a port is one environment's (write `listeners: null` here if it stands above)",
        ),
        (
            "p: { branches: 'f/*', limit: 51 }",
            "`limit` must be a number from 1 to 50, not `51`",
        ),
        (
            "p: { branches: 'f/*', expires: 9s }",
            "`expires` must be from 10s to 90d, not `9s`",
        ),
        (
            "p: { limit: 1 }",
            "`limit` is of environments that come and go with their branches (write `branches: \"feature/*\"`, or leave it out)",
        ),
        (
            "p: { branches: [] }",
            "`branches` names no branch (write `branches: \"feature/*\"`)",
        ),
        (
            "p: { branches: '-*' }",
            "`-*` is not a pattern of branches (write the names of branches, with `*` for any characters but `/` and `**` for all)",
        ),
        (
            "p: { branches: '{a,b}' }",
            "`{a,b}` is not a pattern of branches (write the names of branches, with `*` for any characters but `/` and `**` for all)",
        ),
        (
            "p: { branches: 'a?' }",
            "`a?` is not a pattern of branches (write the names of branches, with `*` for any characters but `/` and `**` for all)",
        ),
    ];
    for (text, said) in cases {
        let problems = read(&format!("app: a\nenvironments: {{ {text} }}")).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        // After the file, the line and the column.
        assert_eq!(
            told[0].splitn(4, ':').nth(3).unwrap().trim(),
            said,
            "{text}: {told:#?}"
        );
    }
    let domains =
        "app: a\ndomains: [{ host: a.example }]\nenvironments:\n  production: {}\n  p: { branches: 'f/*' }";
    assert!(
        read(domains).unwrap_err()[0]
            .message
            .starts_with("`domains` cannot stand beside")
    );
    good(&domains.replace("'f/*'", "'f/*', domains: ~"));
}

#[test]
fn names_say_which_branch_they_are_of() {
    for (branch, expected) in [
        ("login", "login"),
        ("fix-a", "fix-a"),
        ("fix/a", "fix-a-bd4be5"),
        ("Login", "login-9d6322"),
        ("fix-decade", "fix-decade-4eefaa"),
        ("123", "b-123-a665a4"),
        ("ünïcödé", "n-c-d-b09ad3"),
        ("日本", "b-cf2abf"),
        ("production", "production-ab8e18"),
        (&"a".repeat(40), &"a".repeat(40)),
        (&"a".repeat(41), &format!("{}-{}", "a".repeat(33), "c0f8bd")),
    ] {
        assert_eq!(preview_name(branch).as_str(), expected, "{branch}");
    }
}

proptest! {
    /// Every branch has a name that fits, no two have the same, and it never is production.
    #[test]
    fn every_branch_has_a_name_of_its_own(branches in prop::collection::btree_set(
        prop_oneof!["[a-zA-Z0-9/._-]{1,60}", "[a-c/-]{1,6}", "[a-c-]{1,3}-[0-9a-f]{6}", "\\PC{1,80}", Just("production".to_owned())], 1..60,
    )) {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for branch in &branches {
            let name = preview_name(branch).to_string();
            prop_assert!(name.parse::<model::EnvironmentName>().is_ok(), "{name}");
            prop_assert_ne!(&name, "production");
            prop_assert_eq!(&name, &preview_name(branch).to_string());
            if let Some(other) = seen.insert(name.clone(), branch) {
                prop_assert!(false, "{} and {} are both {}", other, branch, name);
            }
        }
    }
}
