//! Refusals, pages, keys: what every operation has in common.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use model::{policy::Role, wire::ProblemDetails};
use serde_json::{Value, json};

use super::world::{self, Who, World};

#[tokio::test]
async fn every_refusal_is_problem_json() {
    let world = World::new().await;
    let root = Who::User(0);
    let large = json!({ "name": "a".repeat(300 * 1024) });
    for (method, uri, body, status) in [
        (Method::GET, "/v1/nowhere", None, 404),
        (Method::GET, "/", None, 404),
        (Method::PATCH, "/v1/tenants", None, 405),
        (
            Method::POST,
            "/v1/tenants",
            Some(json!({ "name": "Not A Name" })),
            400,
        ),
        (
            Method::POST,
            "/v1/tenants",
            Some(json!({ "name": "a", "extra": 1 })),
            400,
        ),
        (Method::POST, "/v1/tenants", Some(json!([])), 400),
        (Method::POST, "/v1/tenants", Some(large), 413),
        (Method::POST, "/v1/tenants", Some(json!({ "name": "acme" })), 409),
        (Method::GET, "/v1/tenants/NOT%20A%20NAME", None, 404),
        (Method::GET, "/v1/tenants?limit=x", None, 400),
        (Method::GET, "/v1/tenants?unknown=1", None, 400),
        (Method::GET, "/v1/executions?app=shop", None, 400),
        (Method::GET, "/v1/executions?cursor=x", None, 400),
        (Method::GET, "/v1/executions/nothing", None, 404),
        (Method::GET, "/v1/logs/../../etc/passwd", None, 404),
        (Method::GET, "/v1/logs/host%2F..%2Fx", None, 404),
        (Method::DELETE, "/v1/tokens/99", None, 404),
    ] {
        let (found, answer) = world.ask(&root, method.clone(), uri, body).await;
        assert_eq!(found.as_u16(), status, "{method} {uri}: {answer}");
        let problem: ProblemDetails = serde_json::from_value(answer).unwrap();
        assert_eq!(problem.status, status);
        assert!(problem.r#type.starts_with("urn:vend:problem:"), "{problem:?}");
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
        assert!(problem.request.unwrap().starts_with("r-"));
    }
}

#[tokio::test]
async fn a_wrong_secret_is_not_repeated() {
    let world = World::new().await;
    let uri = "/v1/tenants/acme/apps/shop/secrets/x";
    for body in [
        json!("hunter2"),
        json!({ "value": ["hunter2"] }),
        json!({ "hunter2": 1 }),
    ] {
        let (status, answer) = world
            .ask(&Who::User(0), Method::PUT, uri, Some(body.clone()))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let named = body.get("hunter2").is_some();
        assert!(named || !answer.to_string().contains("hunter2"), "{answer}");
    }
}

#[tokio::test]
async fn values_of_secrets_never_come_out() {
    let world = World::new().await;
    for uri in [
        "/v1/tenants/acme/apps/shop/secrets",
        "/v1/audit?tenant=acme&limit=500",
        "/v1/audit/export",
    ] {
        let (status, answer) = world.ask(&Who::User(0), Method::GET, uri, None).await;
        assert_eq!(status, StatusCode::OK);
        let text = answer.to_string();
        assert!(
            !text.contains("hidden") && !text.contains(world::HOOK_SECRET),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn lists_have_pages() {
    let world = World::new().await;
    let root = Who::User(0);
    for name in ["a", "b", "c"] {
        world
            .ask(&root, Method::POST, "/v1/tenants", Some(json!({ "name": name })))
            .await;
    }
    let (mut names, mut uri) = (Vec::new(), "/v1/tenants?limit=2".to_owned());
    loop {
        let (_, page) = world.ask(&root, Method::GET, &uri, None).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => uri = format!("/v1/tenants?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "acme", "b", "c", "other"]);
}

#[tokio::test]
async fn a_tenant_does_not_read_what_one_of_its_name_did() {
    let world = World::new().await;
    let by = |second: i64| {
        store::By::new(
            "person:root".to_owned(),
            world::now() + jiff::SignedDuration::from_secs(second),
        )
    };
    let (first, gone, second) = (by(0), by(1), by(2));
    let made = world.state.store.write(move |tx| {
        let name = "again".parse().unwrap();
        tx.create_tenant(&name, &first)?;
        tx.create_app(&name, &"shop".parse().unwrap(), None, &first)?;
        tx.delete_app(&name, &"shop".parse().unwrap(), &gone)?;
        tx.delete_tenant(&name, &gone)?;
        tx.create_tenant(&name, &second).map(drop)
    });
    made.await.unwrap();
    let own = world.bearer(Role::Auditor, Some("again")).await;
    let actions = async |who: &Who, uri: &str| {
        let (_, page) = world.ask(who, Method::GET, uri, None).await;
        let items = page["items"].as_array().unwrap();
        let actions: Vec<String> = items
            .iter()
            .map(|item| item["action"].as_str().unwrap().to_owned())
            .collect();
        actions
    };
    assert_eq!(
        actions(&own, "/v1/audit").await,
        ["token.create", "tenant.create"]
    );
    let none: [&str; 0] = [];
    assert_eq!(actions(&own, "/v1/audit?tenant=again&app=shop").await, none);
    // Whoever audits the platform reads on.
    let all = actions(&Who::User(0), "/v1/audit?tenant=again").await;
    assert_eq!(all.len(), 6, "{all:?}");
}

fn keyed(uri: &str, key: &str, body: Value) -> Request<Body> {
    Request::post(uri)
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()))
        .unwrap()
}

#[tokio::test]
async fn a_post_with_a_key_is_done_once() {
    let world = World::new().await;
    let root = Who::User(0);
    let create = || keyed("/v1/tenants", "k1", json!({ "name": "new" }));
    let (first, one) = world.send(&root, create()).await;
    let (second, two) = world.send(&root, create()).await;
    assert_eq!((first.as_u16(), second.as_u16()), (201, 201));
    assert_eq!(one, two);
    let (status, _) = world
        .send(&root, keyed("/v1/tenants", "k1", json!({ "name": "another" })))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    // A refusal is an answer, too; and a key is its caller's own.
    let again = || keyed("/v1/tenants", "k2", json!({ "name": "new" }));
    assert_eq!(world.send(&root, again()).await.0, StatusCode::CONFLICT);
    assert_eq!(world.send(&root, again()).await.0, StatusCode::CONFLICT);
    let other = world.bearer(Role::Operator, None).await;
    assert_eq!(world.send(&other, create()).await.0, StatusCode::CONFLICT);
    let scale = || {
        keyed(
            "/v1/tenants/acme/apps/shop/environments/dev/scale",
            "k3",
            json!({ "hosts": 2 }),
        )
    };
    world.send(&root, scale()).await;
    world.send(&root, scale()).await;
    assert_eq!(world.recorder.commands.lock().unwrap().len(), 1);
}

/// What is set in motion is said as it is: begun, and not yet done; and one is one.
#[tokio::test]
async fn what_begins_is_said_to_begin() {
    let world = World::new().await;
    let root = Who::User(0);
    let id = world::deployment();
    let environment = "/v1/tenants/acme/apps/shop/environments/dev";
    for (uri, body, summary) in [
        (
            format!("/v1/deployments/{id}/abort"),
            json!({}),
            format!("{id} is being stopped; what it did is undone: v1 goes"),
        ),
        (
            format!("{environment}/scale"),
            json!({ "hosts": 1 }),
            "acme/shop/dev gets 1 host".to_owned(),
        ),
        (
            format!("{environment}/scale"),
            json!({ "hosts": 2 }),
            "acme/shop/dev gets 2 hosts".to_owned(),
        ),
    ] {
        let (status, started) = world.ask(&root, Method::POST, &uri, Some(body)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{uri}: {started}");
        assert_eq!(started["summary"], summary);
        // How it goes is to be seen: an execution is named.
        assert_eq!(
            started["executions"].as_array().map(Vec::len),
            Some(1),
            "{started}"
        );
    }
}

#[tokio::test]
async fn a_no_says_why_and_a_vote_is_about_one_plan() {
    let world = World::new().await;
    let approver = world.bearer(Role::Approver, Some("acme")).await;
    let uri = |verb: &str| format!("/v1/approvals/{}/{verb}", world::approval());
    let (status, _) = world
        .ask(&approver, Method::POST, &uri("reject"), Some(json!({})))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let wrong = json!({ "plan": model::Digest::of("another plan") });
    let (status, problem) = world
        .ask(&approver, Method::POST, &uri("approve"), Some(wrong))
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    let (_, shown) = world
        .ask(
            &approver,
            Method::GET,
            &format!("/v1/approvals/{}", world::approval()),
            None,
        )
        .await;
    let right = json!({ "plan": shown["plan_digest"] });
    let (status, voted) = world
        .ask(&approver, Method::POST, &uri("approve"), Some(right))
        .await;
    assert_eq!(
        (status.as_u16(), voted["state"].as_str()),
        (200, Some("approved"))
    );
    assert_eq!(
        *world.recorder.commands.lock().unwrap(),
        [format!("voted {}", world::approval())]
    );
}

#[tokio::test]
async fn the_reason_of_a_wait_is_shown() {
    let world = World::new().await;
    let uri = format!("/v1/executions/{}", world::execution());
    let (_, execution) = world.ask(&Who::User(0), Method::GET, &uri, None).await;
    let waiting = execution["waiting"].as_str().unwrap();
    assert!(
        waiting.contains("0 of 1 have approved") && waiting.contains("vend approve a-"),
        "{waiting}"
    );
    let (_, plan) = world
        .ask(&Who::User(0), Method::GET, &format!("{uri}/plan"), None)
        .await;
    assert_eq!(plan["plan"]["place"], "acme/shop/dev");
}

#[tokio::test]
async fn a_protected_environment_is_not_destroyed() {
    let world = World::new().await;
    let uri = "/v1/tenants/acme/apps/shop/environments/dev";
    let root = Who::User(0);
    world
        .ask(&root, Method::POST, &format!("{uri}/protect"), None)
        .await;
    let (status, problem) = world.ask(&root, Method::DELETE, uri, None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["next"], "vend environments unprotect acme/shop/dev");
    world
        .ask(&root, Method::POST, &format!("{uri}/unprotect"), None)
        .await;
    let (status, _) = world.ask(&root, Method::DELETE, uri, None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}
