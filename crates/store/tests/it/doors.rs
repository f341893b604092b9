//! What is closed, who may ask, and which priorities rules keep.

use std::collections::BTreeMap;

use model::route::Access;
use store::{Door, Error};

use crate::world::{World, by};

#[tokio::test]
async fn an_environment_is_closed_by_itself_or_with_its_tenant() {
    let (world, dev) = World::dev().await;
    let (tenant, own) = (Door::Tenant(dev.tenant.clone()), Door::Environment(dev.clone()));
    let seen = async |world: &World| {
        let place = dev.clone();
        world.store.read(move |db| db.closure(&place)).await.unwrap()
    };
    assert_eq!(seen(&world).await, None);
    let (whole, one) = (tenant.clone(), own.clone());
    world
        .write(move |tx| {
            tx.close(&whole, None, &by(1))?;
            tx.close(&one, Some("<p>mine"), &by(2))
        })
        .await;
    let closure = seen(&world).await.unwrap();
    assert_eq!((closure.whole, closure.page.as_deref()), (false, Some("<p>mine")));
    let (one, again) = (own.clone(), own.clone());
    world
        .write(move |tx| {
            tx.close(&one, None, &by(3))?;
            tx.open(&one, &by(4))?;
            // Nothing happens, and nothing is written.
            tx.open(&again, &by(5))
        })
        .await;
    assert!(seen(&world).await.unwrap().whole);
    let whole = tenant.clone();
    world.write(move |tx| tx.open(&whole, &by(6))).await;
    assert_eq!(seen(&world).await, None);
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let actions: Vec<_> = lines
        .iter()
        .filter(|line| line.action.ends_with(".close") || line.action.ends_with(".open"))
        .map(|line| line.action.as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "tenant.close",
            "environment.close",
            "environment.close",
            "environment.open",
            "tenant.open"
        ]
    );
}

#[tokio::test]
async fn who_may_ask_is_kept_with_the_tenant() {
    let (world, dev) = World::dev().await;
    let access = Access {
        allow: Vec::new(),
        deny: vec!["192.0.2.0/24".parse().unwrap()],
    };
    for wanted in [access, Access::default()] {
        let (name, own) = (dev.tenant.clone(), wanted.clone());
        world.write(move |tx| tx.set_access(&name, &own, &by(1))).await;
        let name = dev.tenant.clone();
        let tenant = world.store.read(move |db| db.tenant(&name)).await.unwrap();
        assert_eq!(tenant.access, wanted);
    }
}

#[tokio::test]
async fn steps_are_kept_and_no_two_rules_have_one() {
    let (world, dev) = World::dev().await;
    let steps = |pairs: &[(&str, u32)]| -> BTreeMap<String, u32> {
        pairs
            .iter()
            .map(|(name, step)| ((*name).to_owned(), *step))
            .collect()
    };
    let first = steps(&[("a.example", 1), ("udp-5514", 3)]);
    let (place, own) = (dev.clone(), first.clone());
    world.write(move |tx| tx.set_steps(&place, &own)).await;
    let place = dev.clone();
    let kept = world.store.read(move |db| db.steps(&place)).await.unwrap();
    assert_eq!(kept, first);
    for wrong in [
        steps(&[("a.example", 1), ("b.example", 1)]),
        steps(&[("a.example", 256)]),
    ] {
        let place = dev.clone();
        let written: Result<(), Error> = world.store.write(move |tx| tx.set_steps(&place, &wrong)).await;
        assert!(written.is_err());
    }
    let kept = world.store.read(move |db| db.steps(&dev)).await.unwrap();
    assert_eq!(kept, first, "what was refused changed nothing");
}
