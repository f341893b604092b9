//! Webhooks, from the door to the inbox.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::world::{self, HOOK_SECRET, Who, World};

/// HMAC-SHA-256 (RFC 2104).
fn sign(body: &str) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block
            .iter_mut()
            .zip(HOOK_SECRET.bytes())
            .for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(body)
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    format!("sha256={}", hex::encode(outer))
}

fn push() -> String {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    json!({
        "ref": "refs/heads/dev", "before": "0".repeat(40), "after": commit, "deleted": false,
        "repository": { "full_name": "acme/shop", "clone_url": "https://github.com/acme/shop.git" },
        "pusher": { "name": "ann" }, "sender": { "login": "ann" },
        "head_commit": {
            "id": commit, "message": "A change", "timestamp": "2026-01-01T00:00:00Z",
            "author": { "name": "Ann", "email": "ann@acme.example" }
        },
        "commits": []
    })
    .to_string()
}

fn deliver(uri: &str, delivery: &str, signature: &str, body: &str) -> Request<Body> {
    Request::post(uri)
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", signature)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

const DOOR: &str = "/hooks/github/acme/shop";

async fn send(world: &World, request: Request<Body>) -> (StatusCode, Value) {
    use axum::{Extension, body::to_bytes};
    use hyper::service::Service as _;
    let peer = crate::web::listen::Peer::Remote(([127, 0, 0, 1], 9).into());
    let router = crate::web::router(world.state.clone()).layer(Extension(peer));
    let service = hyper_util::service::TowerToHyperService::new(router);
    let response = service.call(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn inbox(world: &World) -> Vec<Value> {
    let (_, page) = world
        .ask(&Who::User(0), Method::GET, "/v1/webhooks?tenant=acme", None)
        .await;
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_genuine_push_is_stored_and_handed_over_once() {
    let world = World::new().await;
    let body = push();
    let (status, answer) = send(&world, deliver(DOOR, "d1", &sign(&body), &body)).await;
    assert_eq!(
        (status, &answer["status"]),
        (StatusCode::ACCEPTED, &json!("accepted"))
    );
    let (status, again) = send(&world, deliver(DOOR, "d1", &sign(&body), &body)).await;
    assert_eq!((status, &again["status"]), (StatusCode::OK, &json!("duplicate")));
    assert_eq!(again["delivery"], answer["delivery"]);
    {
        let pushes = world.recorder.pushes.lock().unwrap();
        assert_eq!(pushes.len(), 1);
        assert_eq!(
            (pushes[0].branch.as_str(), pushes[0].pusher.as_str()),
            ("dev", "github:ann")
        );
        assert_eq!(pushes[0].origin, answer["delivery"].as_str().unwrap());
        assert_eq!(pushes[0].before, None);
    }
    assert_eq!(inbox(&world).await[0]["verdict"], "accepted");
    let uri = format!("/v1/webhooks/{}/replay", answer["delivery"].as_str().unwrap());
    let (status, replayed) = world.ask(&Who::User(0), Method::POST, &uri, None).await;
    assert_eq!((status, &replayed["replays"]), (StatusCode::OK, &json!(1)));
    assert_eq!(world.recorder.pushes.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_says_why_in_the_inbox_and_nothing_in_the_answer() {
    let world = World::new().await;
    let body = push();
    let mut answers = Vec::new();
    for (uri, signature) in [
        (DOOR, "sha256=00"),
        (DOOR, &*sign("another body")),
        ("/hooks/gitlab/acme/shop", "sha256=00"),
        ("/hooks/github/acme/nothing", "sha256=00"),
        ("/hooks/github/nobody/shop", "sha256=00"),
        ("/hooks/nobody/acme/shop", "sha256=00"),
        ("/hooks/github/..%2F..%2Fetc/shop", "sha256=00"),
    ] {
        answers.push(send(&world, deliver(uri, "d2", signature, &body)).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(
        answers[0],
        (StatusCode::FORBIDDEN, json!({ "status": "refused" }))
    );
    assert!(world.recorder.pushes.lock().unwrap().is_empty());
    let inbox = inbox(&world).await;
    let refused: Vec<&Value> = inbox
        .iter()
        .filter(|delivery| delivery["verdict"] == "refused")
        .collect();
    assert_eq!(refused.len(), 3);
    assert!(
        refused[0]["reason"]
            .as_str()
            .unwrap()
            .contains("no gitlab secret"),
        "{:?}",
        refused[0]
    );
    assert!(
        refused[1]["reason"].as_str().unwrap().contains("does not fit"),
        "{:?}",
        refused[1]
    );
    // A refused delivery does not take the id of the genuine one.
    let (status, _) = send(&world, deliver(DOOR, "d2", &sign(&body), &body)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let world = World::new().await;
    let body = "x".repeat(model::webhook::MAX_BODY_BYTES + 1);
    let (status, _) = send(&world, deliver(DOOR, "d3", &sign(&body), &body)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let reason = inbox(&world).await[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("more than"), "{reason}");
}

#[tokio::test]
async fn what_a_killed_platform_had_stored_is_handed_over() {
    let world = World::new().await;
    let body = push();
    send(&world, deliver(DOOR, "d4", &sign(&body), &body)).await;
    // The recorder keeps no push, so that the delivery looks like one that was not handed over.
    crate::web::resume(&world.state).await.unwrap();
    assert_eq!(world.recorder.pushes.lock().unwrap().len(), 2);
}

/// The branch of the environment that comes and goes with it.
const PREVIEWED: &str = "feature/a";

async fn preview(world: &World) -> model::Place {
    let text = "app: shop\nenvironments: { preview: { branches: 'feature/*' } }";
    let (app, _) = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap();
    let spec = app.following(PREVIEWED).unwrap().remove(0);
    let place = model::Place {
        environment: spec.name.clone(),
        ..world::place()
    };
    let (own, by) = (place.clone(), store::By::platform(world.state.now()));
    let made = world
        .state
        .store
        .write(move |tx| tx.ensure_preview(&own, &spec, 9, &by))
        .await;
    assert!(made.unwrap().is_some());
    place
}

fn deletion(delivery: &str, kind: &str, body: &Value) -> Request<Body> {
    let body = body.to_string();
    let mut request = deliver(DOOR, delivery, &sign(&body), &body);
    request
        .headers_mut()
        .insert("x-github-event", kind.parse().unwrap());
    request
}

#[tokio::test]
async fn what_came_with_a_branch_goes_with_it() {
    let world = World::new().await;
    let own = preview(&world).await;
    let ending = || async {
        let found = world.state.store.read(|db| db.ending()).await.unwrap();
        found
            .into_iter()
            .map(|(place, reason, _)| (place, reason))
            .collect::<Vec<_>>()
    };
    let repository = json!({ "full_name": "acme/shop" });
    let deleted = |name: &str, kind: &str| json!({ "ref": name, "ref_type": kind, "repository": repository });
    // A tag of the same name, another branch, and one that the file names.
    for (delivery, body, status) in [
        ("t", deleted(PREVIEWED, "tag"), StatusCode::OK),
        ("o", deleted("feature/b", "branch"), StatusCode::ACCEPTED),
        ("d", deleted("dev", "branch"), StatusCode::ACCEPTED),
    ] {
        let (found, answer) = send(&world, deletion(delivery, "delete", &body)).await;
        assert_eq!(found, status, "{answer}");
        assert_eq!(ending().await, [], "{body}");
    }
    let body = deleted(PREVIEWED, "branch");
    let forged = deliver(DOOR, "g1", "sha256=00", &body.to_string());
    assert_eq!(send(&world, forged).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ending().await, []);
    let (status, answer) = send(&world, deletion("g1", "delete", &body)).await;
    assert_eq!(
        (status, &answer["status"]),
        (StatusCode::ACCEPTED, &json!("accepted"))
    );
    let expected = [(own.clone(), format!("its branch {PREVIEWED} is gone"))];
    assert_eq!(ending().await, expected);

    let anew = async || {
        let (place, by) = (own.clone(), store::By::platform(world.state.now()));
        let deletion = world
            .state
            .store
            .write(move |tx| tx.delete_environment(&place, &by));
        deletion.await.unwrap();
        preview(&world).await;
    };
    // It comes again; the same delivery, and a start of the platform, do not end it.
    anew().await;
    assert_eq!(
        send(&world, deletion("g1", "delete", &body)).await.1["status"],
        "duplicate"
    );
    crate::web::resume(&world.state).await.unwrap();
    assert_eq!(ending().await, []);
    // The push that says so is as good; a person may have a delivery handled again.
    let push = json!({
        "ref": format!("refs/heads/{PREVIEWED}"), "before": "1".repeat(40), "after": "0".repeat(40), "deleted": true,
        "repository": repository, "sender": { "login": "ann" }, "head_commit": null, "commits": [],
    });
    send(&world, deletion("g2", "push", &push)).await;
    assert_eq!(ending().await, expected);
    anew().await;
    let uri = format!("/v1/webhooks/{}/replay", answer["delivery"].as_str().unwrap());
    assert_eq!(
        world.ask(&Who::User(0), Method::POST, &uri, None).await.0,
        StatusCode::OK
    );
    assert_eq!(ending().await, expected);
}
