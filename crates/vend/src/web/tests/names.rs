//! Who sees which domains and ports, and what is said of those that are another's.

use axum::http::{Method, StatusCode};
use model::{Digest, Place, policy::Role, spec};
use serde_json::{Value, json};
use store::{By, NewRelease, Owner};

use super::world::{Who, World, now};
use crate::fixtures;

const KEYS: &str = "app: shop
domains: [{ host: bank.example.com }]
listeners: [{ protocol: tcp, port: 15432 }]
";

/// Both tenants ask for one domain and one port; acme has them.
async fn world() -> World {
    let world = World::new().await;
    let written = world.state.store.write(|tx| {
        let by = By::platform(now());
        let app = spec::App::parse(KEYS, "vend.yaml", &|_| true).unwrap().0;
        for text in ["acme/bank/production", "other/bank/production"] {
            let place: Place = text.parse().unwrap();
            tx.create_app(&place.tenant, &place.app, None, &by)?;
            tx.ensure_environment(&place, "main", &by)?;
            let new = NewRelease {
                commit: fixtures::commit("main", by.at),
                source: Digest::of("source"),
                image: Digest::of("image"),
                revision: Digest::of("revision"),
                spec: app.environments[0].clone(),
                secrets: Default::default(),
                execution: None,
            };
            let number = tx.create_release(&place, &new, &by)?.content.number;
            tx.set_live(&place, number, by.at, &by)?;
        }
        let first = || Owner {
            place: "acme/bank/production".parse().unwrap(),
            since: now(),
        };
        let names = ["bank.example.com", "tcp-15432"];
        tx.set_owners(&names.map(|name| (name.to_owned(), first())).into())
    });
    written.await.unwrap();
    world
}

async fn seen(world: &World, who: &Who, query: &str) -> Vec<Value> {
    let (status, page) = world
        .ask(who, Method::GET, &format!("/v1/names{query}"), None)
        .await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn who_waits_for_a_name_sees_that_and_not_whose_it_is() {
    let world = world().await;
    let late = seen(&world, &world.bearer(Role::Developer, Some("other")).await, "").await;
    assert_eq!(late.len(), 2, "{late:?}");
    for (name, said) in late.iter().zip(["bank.example.com", "tcp-15432"]) {
        assert_eq!(
            (&name["name"], &name["place"]["tenant"], &name["since"]),
            (&json!(said), &json!("other"), &Value::Null),
        );
        let problem = name["problem"].as_str().unwrap();
        assert!(problem.contains("another environment"), "{problem}");
        assert!(!name.to_string().contains("acme"), "{name}");
    }
    assert_eq!(
        late[1]["listeners"],
        json!([{ "address": "127.0.0.1:15432", "speaks": "tcp" }])
    );

    let first = seen(&world, &world.bearer(Role::Developer, Some("acme")).await, "").await;
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        first
            .iter()
            .all(|name| name["problem"].is_null() && name["since"] == json!(now().to_string())),
        "{first:?}"
    );
    // The operator sees who waits behind whom.
    assert_eq!(seen(&world, &Who::User(0), "").await.len(), 4);
    let narrow = "?tenant=other&app=bank&environment=production";
    assert_eq!(seen(&world, &Who::User(0), narrow).await, late);
    assert!(
        seen(&world, &Who::User(0), "?tenant=acme&app=shop")
            .await
            .is_empty()
    );
}
