//! What is signed about an image: verified, and each app's own.

use model::{Digest, Place, port::Baked};
use store::{Error, NewBake, NewRelease};

use crate::{
    evidence::{baked, ticket},
    world::{World, app, by, commit, release, tenant},
};

#[tokio::test]
async fn what_is_signed_about_an_image_can_be_verified() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (world, dev) = World::dev().await;
    let image = Digest::of("image");
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{ "digest": { "sha256": image.hex() } }],
    });
    let signed = statement.clone();
    world
        .write(move |tx| {
            tx.attest(&dev, &image, store::Predicate::Provenance, &signed, &by(1))?;
            tx.attest(&dev, &image, store::Predicate::Checks, &signed, &by(2))?;
            tx.attest(&dev, &image, store::Predicate::Provenance, &signed, &by(3))
        })
        .await;
    let (found, key) = world
        .store
        .read(move |db| Ok::<_, Error>((db.attestations(&image, None)?, db.ledger_key())))
        .await
        .unwrap();
    let kinds: Vec<store::Predicate> = found.iter().map(|one| one.predicate).collect();
    assert_eq!(
        kinds,
        [store::Predicate::Checks, store::Predicate::Provenance],
        "signed again is the newest, once"
    );
    let envelope = &found[1].envelope;
    let text = |value: &serde_json::Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let payload = text(&envelope["payload"]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&payload).unwrap(),
        statement
    );
    let kind = envelope["payloadType"].as_str().unwrap();
    // DSSE, "Protocol": what is signed is not the payload alone.
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(&payload);
    let signature: [u8; 64] = text(&envelope["signatures"][0]["sig"]).try_into().unwrap();
    let key = hex::decode(key.to_string().strip_prefix("ed25519:").unwrap()).unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&signature);
    key.verify_strict(&message, &signature).unwrap();
    message.push(b' ');
    assert!(key.verify_strict(&message, &signature).is_err());
}

#[tokio::test]
async fn an_image_of_several_is_each_one_s_own() {
    let world = World::new();
    let image = Digest::of("image");
    for (task, (text, script)) in [
        ("rival/shop/dev", "rival.sh"),
        ("acme/shop/dev", "shop.sh"),
        ("acme/site/dev", "site.sh"),
    ]
    .into_iter()
    .enumerate()
    {
        let place = world.environment(text).await;
        let layer = |name: &str| model::port::Layer {
            key: Digest::of(name),
            made_by: name.to_owned(),
            size_bytes: 1,
            source: Some(Digest::of(name)),
        };
        let baked = Baked {
            image,
            layers: vec![layer("base debian-12"), layer(script)],
            ..baked()
        };
        let new = NewBake {
            ticket: ticket(100 + task as u64),
            place: place.clone(),
            execution: None,
            commit: commit(&format!("{text} 1")),
            base: "debian-12".to_owned(),
            log: None,
        };
        let of = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }], "of": text });
        world
            .write(move |tx| {
                tx.begin_bake(&new, &by(1))?;
                tx.finish_bake(&new.ticket, Ok(&baked), &by(2))?;
                for second in [3, 4] {
                    let new = NewRelease {
                        image,
                        ..release(&format!("{place} {second}"))
                    };
                    tx.create_release(&place, &new, &by(second))?;
                }
                tx.attest(&place, &image, store::Predicate::Provenance, &of, &by(5))?;
                let same = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }] });
                tx.attest(&place, &image, store::Predicate::Checks, &same, &by(6))
            })
            .await;
    }
    for (of, expected) in [
        (None, &["rival/shop", "acme/shop", "acme/site"][..]),
        (Some(("acme", None)), &["acme/shop", "acme/site"]),
        (Some(("acme", Some("site"))), &["acme/site"]),
        (Some(("rival", None)), &["rival/shop"]),
        (Some(("nobody", None)), &[]),
    ] {
        let read = move |db: &store::Db<'_>| {
            let names = of.map(|(own, app)| (tenant(own), app.map(self::app)));
            let of = names.as_ref().map(|(tenant, app)| (tenant, app.as_ref()));
            Ok::<_, Error>((db.image_origins(&image, of)?, db.attestations(&image, of)?))
        };
        let (origins, signed) = world.store.read(read).await.unwrap();
        let told: Vec<String> = origins
            .iter()
            .map(|origin| {
                let content = &origin.content;
                // Its own script, and the first of its commits.
                let own = format!(
                    "{}.sh",
                    if origin.tenant == tenant("rival") {
                        "rival"
                    } else {
                        origin.app.as_str()
                    }
                );
                assert_eq!(content.layers[1].made_by, own);
                assert!(
                    content.commit.message.ends_with("/dev 1"),
                    "{}",
                    content.commit.message
                );
                format!("{}/{}", origin.tenant, origin.app)
            })
            .collect();
        assert_eq!(told, expected, "{of:?}");
        let of: Vec<&str> = signed
            .iter()
            .filter_map(|one| one.statement["of"].as_str())
            .collect();
        let of: Vec<&str> = of.iter().filter_map(|place| place.strip_suffix("/dev")).collect();
        assert_eq!((of, signed.len()), (expected.to_vec(), 2 * expected.len()));
    }
}

#[tokio::test]
async fn what_was_signed_of_an_image_before_it_was_each_one_s_counts_for_those_who_had_it() {
    let world = World::new();
    let image = Digest::of("image");
    let statement = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }] });
    let mut places = Vec::new();
    for (task, text) in [
        "acme/shop/production",
        "rival/shop/production",
        "late/shop/production",
    ]
    .into_iter()
    .enumerate()
    {
        let place = world.environment(text).await;
        let new = NewBake {
            ticket: ticket(200 + task as u64),
            place: place.clone(),
            execution: None,
            commit: commit(text),
            base: "debian-12".to_owned(),
            log: None,
        };
        world
            .write(move |tx| {
                tx.begin_bake(&new, &by(1))?;
                match new.place.tenant == tenant("late") {
                    true => Ok(()),
                    false => tx.finish_bake(&new.ticket, Ok(&Baked { image, ..baked() }), &by(2)),
                }
            })
            .await;
        places.push(place);
    }
    let signs = |place: &Place, second: i64| {
        let (place, statement) = (place.clone(), statement.clone());
        world.write(move |tx| {
            tx.attest(
                &place,
                &image,
                store::Predicate::Provenance,
                &statement,
                &by(second),
            )?;
            tx.attest(&place, &image, store::Predicate::Checks, &statement, &by(second))
        })
    };
    let counts = async || {
        let asked = places.clone();
        let read = move |db: &store::Db<'_>| {
            let evidence = asked.iter().map(|place| db.evidence(&image, place));
            let told = asked.iter().map(|place| {
                let of = Some((&place.tenant, Some(&place.app)));
                db.attestations(&image, of)
            });
            let count = |all: Vec<Vec<store::Attestation>>| all.iter().map(Vec::len).collect::<Vec<_>>();
            let evidence = evidence.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Error>((count(evidence), count(told.collect::<Result<Vec<_>, _>>()?)))
        };
        world.store.read(read).await.unwrap()
    };
    signs(&places[0], 3).await;
    assert_eq!(counts().await, (vec![2, 0, 0], vec![2, 0, 0]), "each has its own");
    let raw = rusqlite::Connection::open(world.dir().join("store.sqlite3")).unwrap();
    raw.execute("UPDATE attestations SET app_id = NULL", []).unwrap();
    assert_eq!(
        counts().await,
        (vec![2, 2, 0], vec![0, 0, 0]),
        "who had it is believed and told nothing; who has not baked it is not believed"
    );
    // From its next bake on the app's own are all that counts.
    signs(&places[1], 4).await;
    raw.execute(
        "DELETE FROM attestations WHERE app_id IS NOT NULL AND predicate = 'checks'",
        [],
    )
    .unwrap();
    assert_eq!(counts().await, (vec![2, 1, 0], vec![0, 1, 0]));
    raw.execute(
        "UPDATE attestations SET statement = '{}' WHERE app_id IS NULL",
        [],
    )
    .unwrap();
    assert_eq!(
        counts().await,
        (vec![0, 1, 0], vec![0, 1, 0]),
        "changed, it is nobody's word"
    );
}

#[tokio::test]
async fn an_image_is_of_the_apps_that_have_baked_it_before_one_has_released_it() {
    let world = World::new();
    let image = Digest::of("image");
    for (task, text) in ["acme/shop/dev", "rival/shop/dev", "late/shop/dev"]
        .into_iter()
        .enumerate()
    {
        let place = world.environment(text).await;
        let second = task as i64;
        let new = NewBake {
            ticket: ticket(300 + task as u64),
            place,
            execution: None,
            commit: commit(text),
            base: "debian-13".to_owned(),
            log: None,
        };
        world
            .write(move |tx| {
                tx.begin_bake(&new, &by(second))?;
                let failed = model::port::Fault::customer("its script failed");
                let baked = Baked { image, ..baked() };
                let outcome = match new.place.tenant == tenant("late") {
                    true => Err(&failed),
                    false => Ok(&baked),
                };
                tx.finish_bake(&new.ticket, outcome, &by(second + 1))
            })
            .await;
    }
    for (of, expected) in [
        (None, &["acme/shop/dev", "rival/shop/dev"][..]),
        (Some("rival"), &["rival/shop/dev"]),
        (Some("late"), &[]),
    ] {
        let read = move |db: &store::Db<'_>| {
            let tenant = of.map(tenant);
            db.image_origins(&image, tenant.as_ref().map(|tenant| (tenant, None)))
        };
        let origins = world.store.read(read).await.unwrap();
        assert!(origins.iter().all(|origin| origin.content.base == "debian-13"));
        let commits: Vec<&str> = origins
            .iter()
            .map(|origin| origin.content.commit.message.as_str())
            .collect();
        assert_eq!(commits, expected, "{of:?}");
    }
}
