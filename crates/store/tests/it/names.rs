//! Whose each domain and each port is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Place,
    spec::{Certificate, Domain},
};
use store::{NewRelease, Owner};

use crate::world::{World, at, by, release};

fn owned(pairs: &[(&str, &Place, i64)]) -> BTreeMap<String, Owner> {
    let owner = |(name, place, second): &(&str, &Place, i64)| {
        let owner = Owner {
            place: (*place).clone(),
            since: at(*second),
        };
        ((*name).to_owned(), owner)
    };
    pairs.iter().map(owner).collect()
}

async fn owners(world: &World) -> BTreeMap<String, Owner> {
    world.store.read(|db| db.owners()).await.unwrap()
}

#[tokio::test]
async fn a_name_is_one_environments_until_it_is_another_s_or_its_environment_is_gone() {
    let world = World::new();
    let thief = world.environment("aaa/shop/production").await;
    let first = world.environment("vic/shop/production").await;
    let both = owned(&[("bank.example.com", &first, 1), ("tcp-15432", &first, 2)]);
    let written = both.clone();
    world.write(move |tx| tx.set_owners(&written)).await;
    let world = world.reopen();
    assert_eq!(owners(&world).await, both);
    let one = owned(&[("bank.example.com", &first, 1), ("tcp-15432", &thief, 3)]);
    let written = one.clone();
    world.write(move |tx| tx.set_owners(&written)).await;
    assert_eq!(owners(&world).await, one);
    let gone = first.clone();
    world.write(move |tx| tx.delete_environment(&gone, &by(4))).await;
    assert_eq!(owners(&world).await, owned(&[("tcp-15432", &thief, 3)]));
    // It went while somebody looked whose names are.
    world.write(move |tx| tx.set_owners(&both)).await;
    assert_eq!(owners(&world).await, BTreeMap::new());
    let nobody = world.store.read(|db| db.owner("tcp-15432")).await.unwrap();
    assert_eq!(nobody, None);
}

/// A release with this domain.
fn with(host: &str) -> NewRelease {
    let mut new = release(host);
    new.spec.domains = vec![Domain {
        host: host.to_owned(),
        certificate: Certificate::File,
        dedicated_balancer: false,
    }];
    new
}

#[tokio::test]
async fn how_long_a_name_was_asked_for_is_told_over_releases_and_back_to_the_last_break() {
    let (world, dev) = World::dev().await;
    let since = async |world: &World| -> Option<Timestamp> {
        let place = dev.clone();
        let read = world.store.read(move |db| {
            db.named_since(&place, &|spec| {
                spec.domains.iter().any(|own| own.host == "a.example.com")
            })
        });
        read.await.unwrap()
    };
    let live = async |world: &World, number: u64, second: i64| {
        let place = dev.clone();
        world
            .write(move |tx| tx.set_live(&place, number, at(900), &by(second)))
            .await;
    };
    assert_eq!(since(&world).await, None);
    for host in ["a.example.com", "a.example.com", "b.example.com"] {
        let place = dev.clone();
        world
            .write(move |tx| tx.create_release(&place, &with(host), &by(0)))
            .await;
    }
    for (number, second, expected) in [
        (1, 10, Some(10)),
        (2, 20, Some(10)),
        (3, 30, None),
        // Who goes back to it asks anew.
        (1, 40, Some(40)),
        (2, 50, Some(40)),
    ] {
        live(&world, number, second).await;
        assert_eq!(since(&world).await, expected.map(at), "v{number} at {second}");
    }
    // Another environment of the same name has another past.
    let gone = dev.clone();
    world.write(move |tx| tx.delete_environment(&gone, &by(60))).await;
    world.environment("acme/shop/dev").await;
    let place = dev.clone();
    world
        .write(move |tx| tx.create_release(&place, &with("a.example.com"), &by(61)))
        .await;
    assert_eq!(since(&world).await, None);
    live(&world, 1, 70).await;
    assert_eq!(since(&world).await, Some(at(70)));
}
