//! Images: what goes out with one is of the app whose names it has; of what came in with one, the signature alone is believed.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use model::{
    Digest, Place,
    policy::Role::{Developer, Operator},
    port::{Baked, ImageTaken},
    spec,
};
use serde_json::{Value, json};
use store::{By, Predicate};

use super::world::{Who, World, commit, now};
use crate::web;

/// The one of the release of acme/shop.
fn image() -> Digest {
    Digest::of("image")
}

/// A release of another app with the same image.
async fn released(world: &World, place: &str) {
    let place: Place = place.parse().unwrap();
    let (app, _) = spec::App::parse("app: site\n", "vend.yaml", &|path| path == "Procfile").unwrap();
    let new = store::NewRelease {
        commit: commit(),
        source: Digest::of("source"),
        image: image(),
        revision: Digest::of("revision"),
        spec: app.environments[0].clone(),
        secrets: Default::default(),
        execution: None,
    };
    let by = By::platform(now());
    let write = world.state.store.write(move |tx| {
        tx.create_app(&place.tenant, &place.app, None, &by)?;
        tx.ensure_environment(&place, "dev", &by)?;
        tx.create_release(&place, &new, &by)
    });
    write.await.unwrap();
}

/// Signs something about an image for an app, which names its place and a number.
async fn sign(world: &World, image: Digest, place: &str, predicate: Predicate, number: u64) {
    let statement = json!({
        "subject": [{ "digest": { "sha256": image.hex() } }],
        "predicateType": "https://example.com/of",
        "of": format!("{place} {number}"),
    });
    let (place, by): (Place, By) = (place.parse().unwrap(), By::platform(now()));
    let signed = world
        .state
        .store
        .write(move |tx| tx.attest(&place, &image, predicate, &statement, &by));
    signed.await.unwrap();
}

/// Whose statements go with an export, and their numbers.
async fn told(world: &World, who: &Who, query: &str) -> Option<Vec<String>> {
    told_of(image(), world, who, query).await
}

async fn told_of(image: Digest, world: &World, who: &Who, query: &str) -> Option<Vec<String>> {
    let uri = format!("/v1/images/{image}/export{query}");
    let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
    let (status, headers, how) = world.answer(who, request).await;
    assert_eq!(status, StatusCode::OK, "{how}");
    let told = how["told"].as_array();
    assert_eq!(
        headers[web::STATEMENTS],
        told.map_or(0, Vec::len).to_string(),
        "what goes is counted"
    );
    let of = |envelope: &Value| {
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let statement: Value = serde_json::from_slice(&payload).unwrap();
        statement["of"].as_str().unwrap().to_owned()
    };
    Some(told?.iter().map(of).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_what_was_signed_for_the_app_whose_names_it_has() {
    let world = World::new().await;
    released(&world, "other/site/dev").await;
    for place in ["other/site/dev", "acme/shop/dev"] {
        sign(&world, image(), place, Predicate::Provenance, 1).await;
    }
    for (who, expected) in [
        (Who::User(0), "acme/shop/dev 1"),
        (world.bearer(Operator, Some("acme")).await, "acme/shop/dev 1"),
        (world.bearer(Operator, Some("other")).await, "other/site/dev 1"),
    ] {
        assert_eq!(told(&world, &who, "").await.unwrap(), [expected], "{who:?}");
        assert_eq!(told(&world, &who, "?alone=true").await, None, "{who:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_before_the_first_release_has_what_was_signed_at_the_bake() {
    let world = World::new().await;
    let image = Digest::of("just made");
    let baked = Baked {
        image,
        layers: Vec::new(),
        reused: false,
        duration_ms: 1,
        log: None,
    };
    // The other one made the same before, and neither has released it.
    let write = world.state.store.write(move |tx| {
        let by = By::platform(now());
        tx.create_app(&"other".parse().unwrap(), &"site".parse().unwrap(), None, &by)?;
        for (second, place) in ["other/site/dev", "acme/shop/dev"].into_iter().enumerate() {
            let by = By::platform(now() + SignedDuration::from_secs(second as i64));
            let new = store::NewBake {
                ticket: format!("t-{second}").parse().unwrap(),
                place: place.parse().unwrap(),
                execution: None,
                commit: commit(),
                base: "debian-12".to_owned(),
                log: None,
            };
            tx.begin_bake(&new, &by)?;
            tx.finish_bake(&new.ticket, Ok(&baked), &by)?;
        }
        Ok::<_, store::Error>(())
    });
    write.await.unwrap();
    for place in ["acme/shop/dev", "other/site/dev"] {
        sign(&world, image, place, Predicate::Provenance, 1).await;
    }
    for (who, expected) in [
        (Who::User(0), "other/site/dev 1"),
        (world.bearer(Developer, Some("acme")).await, "acme/shop/dev 1"),
        (world.bearer(Developer, Some("other")).await, "other/site/dev 1"),
    ] {
        assert_eq!(
            told_of(image, &world, &who, "").await.unwrap(),
            [expected],
            "{who:?}"
        );
    }
    // Whose names it has is shown.
    let (_, shown) = world
        .ask(&Who::User(0), Method::GET, &format!("/v1/images/{image}"), None)
        .await;
    assert_eq!(shown["apps"][0]["tenant"], "other", "{shown:#}");
    // One that was taken in is nobody's.
    let foreign = Digest::of("taken in");
    let told = told_of(foreign, &world, &Who::User(0), "").await.unwrap();
    assert_eq!(told, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_verdicts_the_newest_go_and_leave_room_for_the_rest() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    sign(&world, image(), "acme/shop/dev", Predicate::Provenance, 0).await;
    for number in 1..=80 {
        sign(&world, image(), "acme/shop/dev", Predicate::Verdict, number).await;
    }
    let told = told(&world, &who, "").await.unwrap();
    assert_eq!(told.first().unwrap(), "acme/shop/dev 0");
    assert_eq!(told.last().unwrap(), "acme/shop/dev 80");
    assert!(told.len() < host::oci::attached::MOST, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_signed_here_about_the_image_is_its_own() {
    let (world, stranger) = (World::new().await, World::new().await);
    for of in [&world, &stranger] {
        sign(of, image(), "acme/shop/dev", Predicate::Checks, 1).await;
    }
    sign(
        &world,
        Digest::of("another"),
        "acme/shop/dev",
        Predicate::Checks,
        2,
    )
    .await;
    let signed = async |of: &World, image: Digest| {
        let read = of.state.store.read(move |db| db.attestations(&image, None));
        read.await.unwrap().remove(0).envelope
    };
    let own = signed(&world, image()).await;
    let mut changed = own.clone();
    let foreign = signed(&stranger, image()).await;
    changed["signatures"] = foreign["signatures"].clone();
    let taken = ImageTaken {
        image: image(),
        bill: Some(false),
        told: vec![
            own,
            foreign,
            signed(&world, Digest::of("another")).await,
            changed,
            Value::Null,
        ],
        warning: Some("one cannot be read".to_owned()),
    };
    let body = serde_json::to_value(&taken).unwrap();
    let (status, imported) = world
        .ask(&Who::User(0), Method::PUT, "/v1/images", Some(body))
        .await;
    assert_eq!(status, StatusCode::OK, "{imported}");
    let statements = imported["statements"].as_array().unwrap();
    let own: Vec<bool> = statements
        .iter()
        .map(|one| one["own"].as_bool().unwrap())
        .collect();
    assert_eq!(own, [true, false, false, false, false], "{imported}");
    assert_eq!(statements[1]["about"], "https://example.com/of");
    assert_eq!(
        (&imported["bill"], &imported["warning"]),
        (&json!(false), &json!("one cannot be read"))
    );
    let (_, ledger) = world.ask(&Who::User(0), Method::GET, "/v1/audit", None).await;
    assert!(ledger.to_string().contains("image.import"), "{ledger}");
}
