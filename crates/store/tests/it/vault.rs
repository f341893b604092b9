//! Secrets, tokens and commands: what is kept, and what is not.

use std::{collections::BTreeMap, fs};

use model::{
    Digest, Secret,
    policy::{Principal, Role},
    webhook::Provider,
};
use store::{Command, Error, NewToken, SecretScope};

use crate::world::{World, app, at, by, place, release, tenant};

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn scope(text: &str) -> SecretScope {
    let mut scope = SecretScope::from(&place(text));
    if scope
        .environment
        .as_ref()
        .is_some_and(|name| name.as_str() == "all")
    {
        scope.environment = None;
    }
    scope
}

fn files_hold(world: &World, needle: &[u8]) -> bool {
    let files = fs::read_dir(world.dir()).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file())
        .any(|path| {
            let bytes = fs::read(path).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle)
        })
}

/// Numbers are of an app and a name, over all environments: the one before may be another's.
#[tokio::test]
async fn the_version_before_is_of_the_same_scope() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let previous = async |name: &'static str| {
        let dev = place("acme/shop/dev");
        world
            .store
            .read(move |db| db.previous_secret(&dev, name))
            .await
            .unwrap()
    };
    let set = async |of: &'static str| {
        world
            .write(|tx| tx.set_secret(&scope(of), "db", &secret("x"), &by(1)))
            .await
    };
    assert_eq!(previous("db").await, None);
    assert_eq!(set("acme/shop/all").await, 1);
    assert_eq!(previous("db").await, None);
    assert_eq!((set("acme/shop/live").await, set("acme/shop/all").await), (2, 3));
    assert_eq!(previous("db").await, Some(1));
    assert_eq!(set("acme/shop/dev").await, 4);
    assert_eq!(previous("db").await, None, "an environment's own takes the place");
    assert_eq!((set("acme/shop/all").await, set("acme/shop/dev").await), (5, 6));
    assert_eq!((previous("db").await, previous("other").await), (Some(4), None));
}

#[tokio::test]
async fn no_file_holds_a_value_in_clear() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let token = world
        .write(|tx| {
            tx.set_secret(
                &scope("acme/shop/dev"),
                "api-key",
                &secret("correct-horse"),
                &by(1),
            )?;
            tx.set_webhook_secret(
                &tenant("acme"),
                &app("shop"),
                Provider::Github,
                Some(&secret("battery-staple")),
                &by(1),
            )?;
            let digest = Digest::of("request");
            assert_eq!(tx.claim_command("k", &digest, at(100), &by(1))?, Command::New);
            tx.answer_command(&by(1).actor, "k", 201, b"shown-only-once")?;
            let principal = Principal {
                actor: "token:ci".into(),
                role: Role::Developer,
                tenant: Some(tenant("acme")),
            };
            let new = NewToken {
                name: "ci".into(),
                principal,
                expires_at: None,
            };
            Ok(tx.create_token(&new, &by(1))?.1.expose().to_owned())
        })
        .await;
    assert!(files_hold(&world, b"api-key"), "the search itself works");
    for clear in [
        "correct-horse",
        "battery-staple",
        "shown-only-once",
        &token,
        &token[5..],
    ] {
        assert!(!files_hold(&world, clear.as_bytes()), "{clear}");
    }
    let world = world.reopen();
    world
        .store
        .read(|db| {
            assert_eq!(
                db.reveal(&place("acme/shop/dev"), "api-key", None)?.expose(),
                "correct-horse"
            );
            let webhook = db.webhook_secret(&tenant("acme"), &app("shop"), Provider::Github)?;
            assert_eq!(webhook.unwrap().expose(), "battery-staple");
            assert!(
                db.webhook_secret(&tenant("acme"), &app("shop"), Provider::Gitlab)?
                    .is_none()
            );
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_value_does_not_open_in_another_place() {
    for swap in [
        // Two versions of one secret; two secrets; two environments; two tenants.
        "(SELECT id FROM secrets WHERE name = 'a' AND environment = '' LIMIT 1) AND version = 1
          | (SELECT id FROM secrets WHERE name = 'a' AND environment = '' LIMIT 1) AND version = 2",
        "(SELECT id FROM secrets WHERE name = 'a' AND environment = '' LIMIT 1) AND version = 1
          | (SELECT id FROM secrets WHERE name = 'b')",
        "(SELECT id FROM secrets WHERE name = 'a' AND environment = '' LIMIT 1) AND version = 1
          | (SELECT id FROM secrets WHERE environment = 'dev')",
        "(SELECT min(id) FROM secrets WHERE name = 'a' AND environment = '') AND version = 1
          | (SELECT max(id) FROM secrets WHERE name = 'a' AND environment = '')",
    ] {
        let world = World::new();
        world.environment("acme/shop/dev").await;
        world.environment("other/shop/dev").await;
        world
            .write(|tx| {
                for (n, value) in ["first", "second"].into_iter().enumerate() {
                    tx.set_secret(&scope("acme/shop/all"), "a", &secret(value), &by(n as i64))?;
                }
                tx.set_secret(&scope("acme/shop/all"), "b", &secret("third"), &by(2))?;
                tx.set_secret(&scope("acme/shop/dev"), "a", &secret("fourth"), &by(3))?;
                tx.set_secret(&scope("other/shop/all"), "a", &secret("fifth"), &by(4))
            })
            .await;
        let (to, from) = swap.split_once('|').unwrap();
        let raw = rusqlite::Connection::open(world.dir().join("store.sqlite3")).unwrap();
        let changed = raw.execute(
            &format!(
                "UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE secret_id = {from})
                 WHERE secret_id = {to}"
            ),
            [],
        );
        assert_eq!(changed.unwrap(), 1);
        let moved = world
            .store
            .read(|db| db.reveal(&place("acme/shop/dev"), "a", Some(1)))
            .await;
        assert!(matches!(moved, Err(Error::Sealed { .. })), "{swap}");
    }
}

#[tokio::test]
async fn versions_are_never_used_again_and_pinned_ones_stay() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let other = world.environment("acme/shop/live").await;
    world
        .write(move |tx| {
            let (all, own) = (scope("acme/shop/all"), scope("acme/shop/dev"));
            assert_eq!(tx.set_secret(&all, "key", &secret("v1"), &by(1))?, 1);
            assert_eq!(tx.set_secret(&own, "key", &secret("v2"), &by(2))?, 2);
            assert_eq!(
                tx.current_secrets(&dev)?,
                BTreeMap::from([("key".into(), 2)]),
                "its own first"
            );
            assert_eq!(tx.current_secrets(&other)?, BTreeMap::from([("key".into(), 1)]));
            assert!(
                tx.reveal(&other, "key", Some(2)).is_err(),
                "another environment's"
            );
            let mut pinning = release("r");
            pinning.secrets = tx.current_secrets(&dev)?;
            tx.create_release(&dev, &pinning, &by(3))?;
            assert_eq!(tx.set_secret(&own, "key", &secret("v3"), &by(4))?, 3);
            tx.unset_secret(&own, "key", &by(5))?;
            assert_eq!(
                tx.current_secrets(&dev)?,
                BTreeMap::from([("key".into(), 1)]),
                "the app's again"
            );
            assert_eq!(
                tx.reveal_all(&dev, &pinning.secrets)?["key"].expose(),
                "v2",
                "pinned"
            );
            assert!(tx.reveal(&dev, "key", Some(3)).is_err(), "not pinned");
            tx.fail_release(&dev, 1, "no", &by(6))?;
            assert_eq!(tx.prune_secrets()?, 1);
            assert!(tx.reveal(&dev, "key", Some(2)).is_err());
            assert_eq!(
                tx.set_secret(&own, "key", &secret("v4"), &by(7))?,
                4,
                "no number twice"
            );
            let listed = tx.secrets(&dev.tenant, &dev.app)?;
            let shown: Vec<_> = listed
                .iter()
                .map(|info| (info.scope.environment.is_some(), info.current))
                .collect();
            assert_eq!(shown, [(false, Some(1)), (true, Some(4))]);
            tx.unset_secret(&own, "key", &by(8))?;
            assert!(matches!(
                tx.unset_secret(&own, "key", &by(9)),
                Err(Error::Missing { .. })
            ));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn generated_credentials_are_made_once() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let first = tx.generate_secret(&dev, "vend.database", &by(1))?;
            assert_eq!(first.expose().len(), 64);
            assert!(tx.generate_secret(&dev, "vend.database", &by(2))? == first);
            tx.delete_environment(&dev, &by(3))?;
            tx.ensure_environment(&dev, "main", &by(4))?;
            assert!(tx.generate_secret(&dev, "vend.database", &by(5))? != first);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_bad_name_or_a_huge_value_is_refused_without_being_repeated() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    for (name, value) in [("", "x"), ("a b", "x"), ("ä", "x"), ("ok", &"x".repeat(65_537))] {
        let (name, value) = (name.to_owned(), secret(value));
        let refused = world
            .store
            .write(move |tx| tx.set_secret(&scope("acme/shop/dev"), &name, &value, &by(0)))
            .await;
        let Err(error @ Error::Refused { .. }) = refused else {
            panic!("accepted")
        };
        assert!(error.to_string().len() < 200);
    }
}

#[tokio::test]
async fn a_deleted_tenant_takes_its_key_along() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let file = world.dir().join("store.sqlite3");
    let raw = rusqlite::Connection::open(&file).unwrap();
    let wrapped: Vec<u8> = raw
        .query_row("SELECT wrapped FROM data_keys WHERE owner <> 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    drop(raw);
    assert!(files_hold(&world, &wrapped));
    world
        .write(move |tx| {
            tx.delete_environment(&dev, &by(1))?;
            tx.delete_app(&dev.tenant, &dev.app, &by(1))?;
            tx.delete_tenant(&dev.tenant, &by(1))
        })
        .await;
    // The log is emptied after the commit is answered: the next answer comes after that.
    world.write(|tx| tx.set_setting("a", None, &by(2))).await;
    assert!(!files_hold(&world, &wrapped), "no file holds it any more");
}

#[tokio::test]
async fn tokens_are_found_until_they_expire_or_are_revoked() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    world
        .write(|tx| {
            let mut new = NewToken {
                name: "ci".into(),
                principal: Principal {
                    actor: "token:ci".into(),
                    role: Role::Developer,
                    tenant: Some(tenant("acme")),
                },
                expires_at: Some(at(10)),
            };
            let (token, text) = tx.create_token(&new, &by(0))?;
            assert!(matches!(tx.create_token(&new, &by(0)), Err(Error::Exists { .. })));
            new.principal.tenant = None;
            tx.create_token(&new, &by(0))?;
            assert_eq!(tx.find_token(&text, at(9))?.as_ref(), Some(&token));
            assert_eq!(tx.find_token(&text, at(10))?, None, "expired");
            assert_eq!(tx.find_token(&secret("vend_x"), at(1))?, None);
            tx.use_token(&text, at(5))?;
            assert_eq!(tx.tokens(Some(&tenant("acme")))?[0].used_at, Some(at(5)));
            tx.revoke_token(token.id, &by(6))?;
            assert_eq!(tx.find_token(&text, at(7))?, None, "revoked");
            assert_eq!(tx.tokens(None)?.len(), 1);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn commands_of_a_deleted_tenant_are_not_the_next_one_s() {
    let world = World::new();
    world
        .write(|tx| {
            let one = Digest::of("one");
            let names = ["acme", "acme-eu"].map(tenant);
            for name in &names {
                tx.create_tenant(name, &by(0))?;
            }
            let of = |name| store::By::new(store::of_tenant(name, "token:ci"), at(1));
            let [own, other] = [of(&names[0]), of(&names[1])];
            for by in [&own, &other] {
                assert_eq!(tx.claim_command("k", &one, at(100), by)?, Command::New);
            }
            tx.delete_tenant(&names[0], &by(1))?;
            tx.create_tenant(&names[0], &by(2))?;
            assert_eq!(tx.claim_command("k", &one, at(100), &own)?, Command::New);
            assert_eq!(tx.claim_command("k", &one, at(100), &other)?, Command::UnderWay);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_command_is_done_once() {
    let world = World::new();
    world
        .write(|tx| {
            let (one, two) = (Digest::of("one"), Digest::of("two"));
            assert_eq!(tx.claim_command("k", &one, at(100), &by(0))?, Command::New);
            assert_eq!(tx.claim_command("k", &one, at(100), &by(1))?, Command::UnderWay);
            tx.answer_command(&by(0).actor, "k", 201, b"{}")?;
            let done = Command::Done {
                status: 201,
                body: b"{}".into(),
            };
            assert_eq!(tx.claim_command("k", &one, at(100), &by(2))?, done);
            assert_eq!(tx.claim_command("k", &two, at(100), &by(2))?, Command::Different);
            let other = store::By::new("token:other", at(2));
            assert_eq!(
                tx.claim_command("k", &two, at(100), &other)?,
                Command::New,
                "a key is its sender's"
            );
            assert_eq!(tx.abandon_commands()?, 1);
            assert_eq!(
                tx.claim_command("k", &two, at(200), &by(100))?,
                Command::New,
                "expired"
            );
            tx.abandon_command(&by(0).actor, "k")?;
            assert_eq!(tx.claim_command("k", &one, at(200), &by(101))?, Command::New);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_token_from_before_signatures_signs_after_its_first_use() {
    let world = World::new();
    let principal = Principal {
        actor: "token:ci".into(),
        role: Role::Operator,
        tenant: None,
    };
    let new = NewToken {
        name: "ci".into(),
        principal,
        expires_at: None,
    };
    let (token, text) = world.write(move |tx| tx.create_token(&new, &by(0))).await;
    let id = token.id;
    let key = move |db: &store::Db<'_>| {
        let found = db.signing_key(id, at(1))?;
        Ok::<_, Error>(found.map(|(_, key)| key.expose().to_vec()))
    };
    let made = world.store.read(key).await.unwrap();
    let raw = rusqlite::Connection::open(world.dir().join("store.sqlite3")).unwrap();
    raw.execute("UPDATE tokens SET signing = NULL", []).unwrap();
    assert_eq!(world.store.read(key).await.unwrap(), None);
    let shown = text.clone();
    let found = world
        .store
        .read(move |db| db.find_token(&shown, at(1)))
        .await
        .unwrap();
    assert!(!found.unwrap().signs);
    let shown = text.clone();
    world.write(move |tx| tx.use_token(&shown, at(1))).await;
    assert!(made.is_some());
    assert_eq!(world.store.read(key).await.unwrap(), made);
    let found = world
        .store
        .read(move |db| db.find_token(&text, at(1)))
        .await
        .unwrap();
    assert!(found.unwrap().signs);
}
