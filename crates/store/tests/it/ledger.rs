//! The chain verifies whatever was done, and its rows stay.

use std::collections::BTreeSet;

use model::ledger::{Broken, Deed, Verifier};
use proptest::prelude::*;
use store::{Error, HostState, LedgerFilter, Tx};

use crate::world::{World, at, by, host, place, push, release, start, tenant};

/// Does one of many things to a few names; many of them are refused.
fn act(tx: &Tx<'_>, seed: u64, action: u8, which: u8) -> Result<(), Error> {
    let second = seed as i64;
    let place = place(["acme/shop/dev", "acme/shop/live", "other/shop/dev"][usize::from(which % 3)]);
    match action % 16 {
        0 => tx.create_tenant(&place.tenant, &by(second)).map(drop),
        1 => tx
            .create_app(
                &place.tenant,
                &place.app,
                Some("https://example.com"),
                &by(second),
            )
            .map(drop),
        2..=4 => tx.ensure_environment(&place, "main", &by(second)).map(drop),
        5 => tx.enqueue_push(&push(&place, "x"), &by(second)).map(drop),
        6 | 7 => tx.create_release(&place, &release("x"), &by(second)).map(drop),
        8 => tx.set_live(&place, 1 + u64::from(which % 4), at(second), &by(second)),
        9 | 10 => tx
            .create_host(&host(seed, &place, Some(1)), &by(second))
            .map(drop),
        11 => {
            let hosts = tx.standing_hosts(Some(&place))?;
            let first = hosts
                .first()
                .ok_or_else(|| tx.host(&host(0, &place, None).id).err().unwrap())?;
            tx.set_host_state(&first.id, HostState::Retired, None, &by(second))
        }
        12 => tx.delete_environment(&place, &by(second)),
        13 => tx.delete_app(&place.tenant, &place.app, &by(second)),
        14 => tx.delete_tenant(&place.tenant, &by(second)),
        _ => start(tx, seed, Some(&place), "{}", &by(second)),
    }
}

async fn verify(world: &World) -> u64 {
    let (export, key) = world
        .store
        .read(|db| {
            let mut bytes = Vec::new();
            db.export_ledger(&mut bytes, at(9999))?;
            Ok::<_, Error>((String::from_utf8(bytes).unwrap(), db.ledger_key()))
        })
        .await
        .unwrap();
    let mut verifier = Verifier::default();
    for line in export.lines() {
        verifier.check_text(line, Some(&key)).unwrap();
    }
    verifier.head().map_or(0, |(number, _)| number)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_chain_verifies_after_anything(actions in prop::collection::vec((any::<u8>(), any::<u8>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut lines = 0;
            for (seed, (action, which)) in actions.into_iter().enumerate() {
                let done = world.store.write(move |tx| act(tx, seed as u64, action, which)).await;
                if action % 7 == 0 {
                    world.write(move |tx| tx.checkpoint(at(seed as i64))).await;
                }
                let head = world.store.read(|db| db.ledger_head()).await.unwrap().map_or(0, |(number, _)| number);
                assert!(done.is_ok() || head == lines, "what is refused leaves no line: {done:?}");
                lines = head;
            }
            assert_eq!(verify(&world).await, lines);
            let environments = world.store.read(|db| db.environments(None)).await.unwrap();
            let unique: BTreeSet<_> = environments.iter().map(|e| (e.number, e.uid_base, e.subnet)).collect();
            assert_eq!(unique.len(), environments.len());
            let hosts = world.store.read(|db| db.standing_hosts(None)).await.unwrap();
            let unique: BTreeSet<_> = hosts.iter().map(|host| host.address).collect();
            assert_eq!(unique.len(), hosts.len());
        });
    }
}

#[tokio::test]
async fn rows_cannot_be_changed_and_a_change_behind_our_back_is_found() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    world.write(|tx| tx.checkpoint(at(1))).await.unwrap();
    assert_eq!(
        world.write(|tx| tx.checkpoint(at(2))).await,
        None,
        "nothing new to sign"
    );
    assert_eq!(verify(&world).await, 3);
    let raw = rusqlite::Connection::open(world.dir().join("store.sqlite3")).unwrap();
    assert!(raw.execute("UPDATE ledger SET actor = 'x'", []).is_err());
    assert!(raw.execute("DELETE FROM ledger", []).is_err());
    raw.execute_batch("DROP TRIGGER ledger_stays; UPDATE ledger SET actor = 'x' WHERE number = 2;")
        .unwrap();
    let lines = world.store.read(|db| db.ledger_from(1, 10)).await.unwrap();
    let mut verifier = Verifier::default();
    let found = lines.iter().try_for_each(|line| verifier.check(line));
    assert!(
        matches!(found, Err(Broken::Changed { number: 2, .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn lines_are_found_by_tenant_and_by_object() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    world.environment("acme/shop2/dev").await;
    world.environment("other/shop/dev").await;
    world
        .write(|tx| {
            let deed = Deed {
                actor: "platform".into(),
                action: "platform.start".into(),
                tenant: None,
                object: "platform".into(),
                detail: serde_json::json!({}),
            };
            tx.record(deed, at(1)).map(drop)
        })
        .await;
    let count = async |filter: LedgerFilter| {
        world
            .store
            .read(move |db| db.ledger(&filter))
            .await
            .unwrap()
            .len()
    };
    let of = |tenant_name: &str, object: Option<&str>| LedgerFilter {
        tenant: Some(tenant(tenant_name)),
        object: object.map(str::to_owned),
        ..LedgerFilter::default()
    };
    assert_eq!(count(LedgerFilter::default()).await, 9);
    assert_eq!(count(of("acme", None)).await, 5);
    assert_eq!(count(of("acme", Some("acme/shop"))).await, 2, "not shop2");
    assert_eq!(count(of("other", Some("acme/shop"))).await, 0);
    assert_eq!(
        count(LedgerFilter {
            before: Some(4),
            limit: 2,
            ..LedgerFilter::default()
        })
        .await,
        2
    );
}
