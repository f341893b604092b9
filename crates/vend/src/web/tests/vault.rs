//! The contract of what keeps customers' secrets, on both that do: a platform's own vault, by the interface, and Secrets
//! Manager, by moto's server.

use aws::{
    Client, call,
    live::vault::{self, Shelf},
};
use axum::http::{Method, StatusCode};
use model::{Place, Secret};
use serde_json::json;

use super::{
    moto::Moto,
    world::{Who, World},
};

const SHELF: Shelf<'static> = Shelf {
    prefix: "vend/production/shop/dev/",
    key: "alias/vend-production",
};

/// What keeps the secrets of `dev` of `acme/shop`.
trait Vault {
    async fn set(&self, name: &str, value: &str);
    /// False: there is none.
    async fn unset(&self, name: &str) -> bool;
    /// Sorted.
    async fn names(&self) -> Vec<String>;
    /// As hosts get it; None: there is none.
    async fn value(&self, name: &str) -> Option<String>;
}

async fn contract(vault: &impl Vault) {
    let before = vault.names().await;
    assert!(!vault.unset("new").await && vault.value("new").await.is_none());
    vault.set("new", "one").await;
    assert_eq!(vault.value("new").await.as_deref(), Some("one"));
    // The same again is the same, and another value is the one that counts.
    vault.set("new", "one").await;
    vault.set("new", "two\nlines \"and\" 'all', ü").await;
    assert_eq!(
        vault.value("new").await.as_deref(),
        Some("two\nlines \"and\" 'all', ü")
    );
    let longest = "x".repeat(65_536);
    vault.set("A-long_one.7", &longest).await;
    assert_eq!(vault.value("A-long_one.7").await, Some(longest));
    let mut both = [before.clone(), vec!["A-long_one.7".into(), "new".into()]].concat();
    both.sort();
    assert_eq!(vault.names().await, both);
    assert!(vault.unset("new").await);
    assert!(!vault.unset("new").await && vault.value("new").await.is_none());
    assert!(!vault.names().await.contains(&"new".to_owned()));
    // What was unset can be set again, at once.
    vault.set("new", "three").await;
    assert_eq!(vault.value("new").await.as_deref(), Some("three"));
    for name in ["new", "A-long_one.7"] {
        assert!(vault.unset(name).await);
    }
    assert_eq!(vault.names().await, before);
}

struct Own(World);

impl Own {
    async fn ask(&self, method: Method, name: &str, body: Option<serde_json::Value>) -> StatusCode {
        let uri = format!("/v1/tenants/acme/apps/shop/secrets/{name}?environment=dev");
        self.0.ask(&Who::User(0), method, &uri, body).await.0
    }

    fn place() -> Place {
        super::world::place()
    }
}

impl Vault for Own {
    async fn set(&self, name: &str, value: &str) {
        let status = self.ask(Method::PUT, name, Some(json!({ "value": value }))).await;
        assert_eq!(status, StatusCode::OK);
    }

    async fn unset(&self, name: &str) -> bool {
        self.ask(Method::DELETE, name, None).await == StatusCode::OK
    }

    async fn names(&self) -> Vec<String> {
        let uri = "/v1/tenants/acme/apps/shop/secrets";
        let (_, page) = self.0.ask(&Who::User(0), Method::GET, uri, None).await;
        let items = page["items"].as_array().unwrap().iter();
        let own = items.filter(|item| item["environment"] == "dev" && item["generated"] == false);
        let mut all: Vec<String> = own
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    }

    async fn value(&self, name: &str) -> Option<String> {
        let name = name.to_owned();
        let found = self
            .0
            .state
            .store
            .read(move |db| db.reveal(&Self::place(), &name, None))
            .await;
        found.ok().map(|secret| secret.expose().to_owned())
    }
}

struct Amazon(Client);

impl Vault for Amazon {
    async fn set(&self, name: &str, value: &str) {
        let ticket = format!("{:032x}", crate::clock::bits());
        let value = Secret::new(value.to_owned());
        vault::set(&self.0, SHELF, name, &value, &ticket).await.unwrap();
        // A try whose answer was lost is made again under its ticket.
        let again = vault::set(&self.0, SHELF, name, &value, &ticket).await.unwrap();
        assert_ne!(again, vault::Set::Restored);
    }

    async fn unset(&self, name: &str) -> bool {
        vault::unset(&self.0, SHELF, name).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let all = vault::list(&self.0, SHELF).await.unwrap();
        assert!(all.values().all(Option::is_some), "when it was set is known");
        all.into_keys().collect()
    }

    async fn value(&self, name: &str) -> Option<String> {
        let ask = json!({ "SecretId": format!("{}{name}", SHELF.prefix) });
        let answer = self.0.json(&call::GET_SECRET, ask).await.ok()?;
        answer["SecretString"].as_str().map(str::to_owned)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_the_platform() {
    contract(&Own(World::new().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_secrets_manager() {
    let Some(moto) = Moto::start().await else { return };
    contract(&Amazon(moto.client())).await;
}
