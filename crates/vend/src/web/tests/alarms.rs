//! What Alertmanager posts, and what whoever tells gets to see.

use axum::http::{Method, StatusCode};
use model::policy::Role;
use serde_json::{Value, json};

use super::world::{Who, World};

const ALARMS: &str = "/v1/tenants/acme/alarms";

fn post(group: &str, status: &str, names: &[&str]) -> Value {
    let alert = |name: &&str| json!({ "status": status, "labels": { "alertname": name }, "annotations": {} });
    let alerts: Vec<Value> = names.iter().map(alert).collect();
    json!({ "version": "4", "groupKey": group, "truncatedAlerts": 0, "status": status, "alerts": alerts })
}

fn state<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let items = answer["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["name"] == name);
    &found.unwrap_or_else(|| panic!("{answer:#}"))["state"]
}

#[tokio::test]
async fn a_large_post_is_taken_and_what_is_odd_in_it_is_said() {
    let world = World::new().await;
    let monitor = world.bearer(Role::Monitor, Some("acme")).await;
    let mut large = post("a", "firing", &["errors", "-odd"]);
    large["alerts"][0]["annotations"]["runbook"] = "x".repeat(1 << 20).into();
    let (status, answer) = world
        .ask(&monitor, Method::POST, ALARMS, Some(large.clone()))
        .await;
    assert_eq!(
        (status, state(&answer, "errors")),
        (StatusCode::OK, &json!("alarm")),
        "{answer:#}"
    );
    let passed_over = answer["passed_over"][0].as_str().unwrap();
    assert!(
        passed_over.contains("`-odd` is not the name of an alarm"),
        "{passed_over}"
    );

    let odd = post("a", "firing", &["-odd"]);
    let (status, answer) = world.ask(&monitor, Method::POST, ALARMS, Some(odd)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer:#}");
    large["alerts"][0]["annotations"]["runbook"] = "x".repeat(4 << 20).into();
    let (status, answer) = world.ask(&monitor, Method::POST, ALARMS, Some(large)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:#}");
}

#[tokio::test]
async fn one_group_that_is_well_does_not_silence_another() {
    let world = World::new().await;
    let monitor = world.bearer(Role::Monitor, Some("acme")).await;
    for (group, told, expected) in [
        ("east", "firing", "alarm"),
        ("west", "firing", "alarm"),
        ("west", "resolved", "alarm"),
        ("east", "resolved", "ok"),
    ] {
        let body = post(group, told, &["errors"]);
        let (status, answer) = world.ask(&monitor, Method::POST, ALARMS, Some(body)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(state(&answer, "errors"), expected, "{group} {told}: {answer:#}");
    }
}

#[tokio::test]
async fn whoever_only_tells_is_not_told_who_ignores() {
    let world = World::new().await;
    let [monitor, developer] = [Role::Monitor, Role::Developer].map(|role| world.bearer(role, Some("acme")));
    let (monitor, developer) = (monitor.await, developer.await);
    let one = format!("{ALARMS}/errors");
    let ignoring = json!({ "for_s": 600, "reason": "the fix" });
    let (status, _) = world
        .ask(&developer, Method::POST, &format!("{one}/ignore"), Some(ignoring))
        .await;
    assert_eq!(status, StatusCode::OK);
    let set = json!({ "state": "alarm" });
    for (who, sees) in [(&monitor, false), (&developer, true)] {
        let (_, told) = world.ask(who, Method::PUT, &one, Some(set.clone())).await;
        let (_, posted) = world
            .ask(who, Method::POST, ALARMS, Some(post("a", "firing", &["errors"])))
            .await;
        for alarm in [&told, &posted["items"][0]] {
            assert_eq!(alarm["state"], "alarm", "{alarm:#}");
            let seen = ["ignored_by", "ignored_until"].map(|key| alarm.get(key).is_some());
            assert_eq!(seen, [sees; 2], "{alarm:#}");
        }
    }
}

#[tokio::test]
async fn a_monitor_that_tells_all_the_time_is_told_to_wait() {
    let world = World::new().await;
    let monitor = world.bearer(Role::Monitor, Some("acme")).await;
    let names: Vec<String> = (0..400).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Each change counts, because it is on record.
    for (told, expected) in [
        ("firing", StatusCode::OK),
        ("resolved", StatusCode::OK),
        ("firing", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let body = post("a", told, &names);
        let (status, answer) = world.ask(&monitor, Method::POST, ALARMS, Some(body)).await;
        assert_eq!(status, expected, "{told}: {answer:#}");
        if !status.is_success() {
            assert_eq!(answer["type"], "urn:vend:problem:busy", "{answer:#}");
        }
    }
    let one = json!({ "state": "ok" });
    let (status, _) = world
        .ask(&monitor, Method::PUT, &format!("{ALARMS}/errors"), Some(one))
        .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let lines = world
        .state
        .store
        .read(|db| db.ledger_from(1, 10_000))
        .await
        .unwrap();
    let by_monitor =
        |line: &&model::ledger::Line| line.action == "alarm.set" && line.actor.contains("monitor");
    assert_eq!(lines.iter().filter(by_monitor).count(), 800);
}

#[tokio::test]
async fn a_monitor_is_of_one_tenant() {
    let world = World::new().await;
    let new = |tenant: Option<&str>| json!({ "name": "prometheus", "role": "monitor", "tenant": tenant });
    let root = Who::User(0);
    let (status, answer) = world
        .ask(&root, Method::POST, "/v1/tokens", Some(new(None)))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let next = answer["next"].as_str().unwrap();
    assert!(next.contains("--role monitor --tenant TENANT"), "{answer:#}");
    let (status, _) = world
        .ask(&root, Method::POST, "/v1/tokens", Some(new(Some("acme"))))
        .await;
    assert_eq!(status, StatusCode::CREATED);
}
