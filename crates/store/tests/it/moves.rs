//! Environments on their way to AWS: who may be served where.

use jiff::Timestamp;
use model::{
    Place,
    route::{Access, Network},
    wire::Side,
};
use store::{Door, Error, PushState, Tx};

use crate::world::{World, by, place, push};

const HOST: &str = "shop.aws.example";

/// Nobody is served until then.
const LATER: Option<Timestamp> = Some(Timestamp::constant(4_000_000_000, 0));

async fn refused(
    world: &World,
    work: impl FnOnce(&mut Tx<'_>) -> Result<(), Error> + Send + 'static,
) -> String {
    match world.store.write(work).await {
        Err(Error::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

async fn actions(world: &World, place: &Place) -> Vec<String> {
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let own = lines.into_iter().filter(|line| line.object == place.to_string());
    own.map(|line| line.action)
        .filter(|action| action.starts_with("move."))
        .collect()
}

async fn begun(data: bool) -> (World, Place) {
    let (world, dev) = World::dev().await;
    let own = dev.clone();
    world
        .write(move |tx| tx.begin_move(&own, HOST, 1, data, &by(1)).map(drop))
        .await;
    (world, dev)
}

#[tokio::test]
async fn without_a_database_any_share_goes_there_and_all_of_it_comes_back() {
    let (world, dev) = begun(false).await;
    let own = dev.clone();
    let second = refused(&world, move |tx| {
        tx.begin_move(&own, "other.example", 1, false, &by(2)).map(drop)
    })
    .await;
    assert!(second.contains("already"), "{second}");
    for share in [10, 50, 100] {
        let own = dev.clone();
        world
            .write(move |tx| tx.serve_move(&own, share, None, &by(3)).map(drop))
            .await;
        if share < 100 {
            let own = dev.clone();
            let early = refused(&world, move |tx| tx.finish_move(&own, &by(3))).await;
            assert!(early.contains("not wholly"), "{early}");
        }
    }
    let own = dev.clone();
    world
        .write(move |tx| tx.serve_move(&own, 100, None, &by(4)).map(drop))
        .await;
    let own = dev.clone();
    world.write(move |tx| tx.end_move(&own, false, &by(5))).await;
    let own = dev.clone();
    assert_eq!(
        world.store.read(move |db| db.find_move(&own)).await.unwrap(),
        None
    );
    let said = actions(&world, &dev).await;
    assert_eq!(
        said,
        ["move.begin", "move.serve", "move.serve", "move.serve", "move.end"]
    );
}

#[tokio::test]
async fn nobody_is_served_where_the_data_is_not() {
    let (world, dev) = begun(true).await;
    for share in [1, 50, 100] {
        let own = dev.clone();
        let why = refused(&world, move |tx| {
            tx.serve_move(&own, share, None, &by(2)).map(drop)
        })
        .await;
        assert!(why.contains("is here"), "{why}");
    }
    let own = dev.clone();
    let open = refused(&world, move |tx| tx.count_move(&own, "2 tables", &by(3))).await;
    assert!(open.contains("served"), "{open}");
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.serve_move(&own, 0, LATER, &by(3))?;
            tx.count_move(&own, "2 tables", &by(3))
        })
        .await;
    let own = dev.clone();
    let other = refused(&world, move |tx| {
        tx.settle_move(&own, Side::Away, "1 table", None, &by(4))
            .map(drop)
    })
    .await;
    assert!(other.contains("not what was dumped"), "{other}");
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.settle_move(&own, Side::Away, "2 tables", None, &by(4))?;
            tx.serve_move(&own, 100, None, &by(4)).map(drop)
        })
        .await;
    let own = dev.clone();
    let back = refused(&world, move |tx| tx.serve_move(&own, 0, None, &by(5)).map(drop)).await;
    assert!(back.contains("on AWS"), "{back}");
    let own = dev.clone();
    let lost = refused(&world, move |tx| tx.end_move(&own, false, &by(5))).await;
    assert!(lost.contains("would be lost"), "{lost}");
    let own = dev.clone();
    world.write(move |tx| tx.end_move(&own, true, &by(6))).await;
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    assert!(lines.last().unwrap().detail.contains("\"lost_writes\":true"));
}

#[tokio::test]
async fn what_waits_for_what_has_moved_is_ignored_and_says_why() {
    let (world, dev) = begun(false).await;
    let own = dev.clone();
    let number = world
        .write(move |tx| {
            tx.serve_move(&own, 100, None, &by(2))?;
            let number = tx.enqueue_push(&push(&own, "waits"), &by(2))?;
            tx.finish_move(&own, &by(3))?;
            tx.finish_move(&own, &by(4))?;
            Ok::<_, Error>(number)
        })
        .await;
    assert_eq!(world.store.read(|db| db.places_to_release()).await.unwrap(), []);
    let found = world.store.read(move |db| db.push(number)).await.unwrap();
    assert_eq!(found.state, PushState::Ignored);
    assert!(found.reason.unwrap().contains("vend aws push"));
    let own = dev.clone();
    let gone = refused(&world, move |tx| tx.serve_move(&own, 50, None, &by(5)).map(drop)).await;
    assert!(gone.contains("runs here any more"), "{gone}");
    let own = dev.clone();
    let gone = refused(&world, move |tx| tx.end_move(&own, true, &by(5))).await;
    assert!(gone.contains("nothing of"), "{gone}");
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.reopen_move(&own, &by(6))?;
            tx.serve_move(&own, 0, None, &by(7))?;
            tx.end_move(&own, false, &by(8))
        })
        .await;
    let expected = ["begin", "serve", "finish", "reopen", "serve", "end"].map(|word| format!("move.{word}"));
    assert_eq!(actions(&world, &dev).await, expected);
}

#[tokio::test]
async fn a_move_goes_with_its_environment() {
    let (world, dev) = begun(false).await;
    let own = dev.clone();
    world.write(move |tx| tx.delete_environment(&own, &by(2))).await;
    assert_eq!(world.store.read(|db| db.moves()).await.unwrap(), []);
    assert_eq!(place("acme/shop/dev"), dev);
}

#[tokio::test]
async fn what_is_pushed_meanwhile_is_released_when_it_stays() {
    let (world, dev) = begun(false).await;
    let own = dev.clone();
    world
        .write(move |tx| tx.enqueue_push(&push(&own, "waits"), &by(2)).map(drop))
        .await;
    assert_eq!(world.store.read(|db| db.places_to_release()).await.unwrap(), []);
    let own = dev.clone();
    world.write(move |tx| tx.end_move(&own, false, &by(3))).await;
    assert_eq!(
        world.store.read(|db| db.places_to_release()).await.unwrap(),
        [dev]
    );
}

#[tokio::test]
async fn what_was_counted_is_forgotten_when_somebody_may_write() {
    let (world, dev) = begun(true).await;
    let counted = "1 tables, 2 rows, 0123456789abcdef";
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.serve_move(&own, 0, LATER, &by(2))?;
            tx.count_move(&own, counted, &by(2))?;
            // Another dump failed.
            assert!(tx.spoil_move(&own)?);
            assert!(tx.settle_move(&own, Side::Away, counted, None, &by(3)).is_err());
            tx.count_move(&own, counted, &by(3))?;
            tx.serve_move(&own, 0, None, &by(4))?;
            let again = tx.serve_move(&own, 0, LATER, &by(5))?;
            assert_eq!(again.counted, None);
            assert!(tx.settle_move(&own, Side::Away, counted, None, &by(5)).is_err());
            tx.count_move(&own, counted, &by(6))?;
            tx.settle_move(&own, Side::Away, counted, None, &by(6))?;
            assert!(!tx.spoil_move(&own)?, "where it is true nobody is to write here");
            Ok(())
        })
        .await;
    // After it was finished, the way back is one that can be gone.
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.serve_move(&own, 100, None, &by(7))?;
            tx.finish_move(&own, &by(7))
        })
        .await;
    let own = dev.clone();
    match world.store.write(move |tx| tx.end_move(&own, true, &by(8))).await {
        Err(Error::Refused { next, .. }) => assert!(next.unwrap().ends_with("--engine embedded")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn data_comes_back_and_is_lost_nowhere() {
    let (world, dev) = begun(true).await;
    let (there, here) = (
        "1 tables, 3 rows, 0123456789abcdef",
        "1 tables, 3 rows, 0123456789abcdef",
    );
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.serve_move(&own, 0, LATER, &by(2))?;
            tx.count_move(&own, there, &by(2))?;
            tx.settle_move(&own, Side::Away, there, None, &by(2))?;
            tx.serve_move(&own, 100, None, &by(2))?;
            assert!(
                tx.tear_move(&own, &by(3)).is_err(),
                "it is served, so its data changes"
            );
            tx.serve_move(&own, 100, LATER, &by(3))?;
            tx.tear_move(&own, &by(3))?;
            // From here on what is here is of no use, and nobody may have it served.
            assert!(tx.end_move(&own, true, &by(3)).is_err());
            assert!(tx.serve_move(&own, 0, None, &by(3)).is_err());
            assert!(
                tx.settle_move(&own, Side::Here, here, None, &by(3)).is_err(),
                "nothing was counted here"
            );
            tx.count_move(&own, here, &by(4))?;
            assert!(
                tx.settle_move(&own, Side::Here, "1 tables, 2 rows, x", None, &by(4))
                    .is_err()
            );
            // Said again, that it has arrived on AWS changes nothing.
            let still = tx.settle_move(&own, Side::Away, there, None, &by(4))?;
            assert!(still.torn && still.data == Some(Side::Away));
            let late = tx.settle_move(&own, Side::Here, here, Some(by(2).at), &by(4));
            assert!(late.is_err(), "somebody was served since it was dumped");
            let back = tx.settle_move(&own, Side::Here, here, Some(by(3).at), &by(5))?;
            assert!(!back.torn && back.data == Some(Side::Here) && back.closed);
            assert!(
                tx.serve_move(&own, 100, None, &by(5)).is_err(),
                "the data is here"
            );
            tx.serve_move(&own, 0, None, &by(5))?;
            tx.end_move(&own, false, &by(6))
        })
        .await;
    let words = [
        "begin",
        "serve",
        "dump",
        "settle",
        "serve",
        "serve",
        "overwrite",
        "load",
        "settle",
        "serve",
        "end",
    ];
    assert_eq!(
        actions(&world, &dev).await,
        words.map(|word| format!("move.{word}"))
    );
}

#[tokio::test]
async fn who_is_served_by_nobody_for_too_long_is_served_where_the_data_is() {
    let (world, dev) = begun(true).await;
    let until = by(10).at;
    let own = dev.clone();
    world
        .write(move |tx| {
            tx.serve_move(&own, 0, Some(until), &by(2))?;
            tx.count_move(&own, "2 tables", &by(3))?;
            assert_eq!(tx.overdue_moves(by(9).at)?, []);
            assert_eq!(tx.lapse_move(&own, &by(9))?, None);
            // Said again, it is closed for longer, and since the same time; the ledger has it once.
            let longer = tx.serve_move(&own, 0, Some(by(20).at), &by(9))?;
            assert_eq!(longer.closed_at, Some(by(2).at));
            assert_eq!(tx.lapse_move(&own, &by(10))?, None);
            assert_eq!(tx.overdue_moves(by(20).at)?, std::slice::from_ref(&own));
            let over = tx.overdue_move(&own, &by(20))?.unwrap();
            assert!(over.closed && over.counted.is_none());
            assert!(
                tx.settle_move(&own, Side::Away, "2 tables", None, &by(20))
                    .is_err(),
                "nothing settles any more"
            );
            let open = tx.lapse_move(&own, &by(20))?.unwrap();
            assert_eq!((open.share, open.closed, open.closed_until), (0, false, None));
            // The same where its data is on AWS.
            tx.serve_move(&own, 0, Some(until), &by(21))?;
            tx.count_move(&own, "2 tables", &by(21))?;
            tx.settle_move(&own, Side::Away, "2 tables", None, &by(21))?;
            let open = tx.lapse_move(&own, &by(22))?.unwrap();
            assert_eq!((open.share, open.closed), (100, false));
            assert_eq!(tx.overdue_moves(by(30).at)?, []);
            Ok(())
        })
        .await;
    let words = [
        "begin", "serve", "dump", "lapse", "serve", "dump", "settle", "lapse",
    ];
    assert_eq!(
        actions(&world, &dev).await,
        words.map(|word| format!("move.{word}"))
    );
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let lapse = lines.iter().find(|line| line.action == "move.lapse").unwrap();
    assert!(
        lapse.detail.contains("closed_at") && lapse.detail.contains("\"before\":0"),
        "{}",
        lapse.detail
    );
}

#[tokio::test]
async fn what_only_this_load_balancer_does_is_refused_for_what_aws_serves_too() {
    let (world, dev) = begun(false).await;
    let tenant = dev.tenant.clone();
    for door in [Door::Environment(dev.clone()), Door::Tenant(tenant.clone())] {
        let why = refused(&world, move |tx| tx.close(&door, None, &by(2))).await;
        assert!(why.contains("cannot be closed") && why.contains(HOST), "{why}");
    }
    let some = Access {
        deny: vec![Network::exact("192.0.2.0/24").unwrap()],
        ..Access::default()
    };
    let (own, denied) = (tenant.clone(), some.clone());
    let why = refused(&world, move |tx| tx.set_access(&own, &denied, &by(2))).await;
    assert!(why.contains("who asks") && why.contains(HOST), "{why}");
    // What lets everybody in again is never refused.
    let (own, door) = (tenant.clone(), Door::Environment(dev.clone()));
    world
        .write(move |tx| {
            tx.set_access(&own, &Access::default(), &by(3))?;
            tx.open(&door, &by(3))
        })
        .await;
    // Back here it can be done; and what is closed does not begin to move.
    let (own, place, door) = (tenant, dev.clone(), Door::Environment(dev.clone()));
    world
        .write(move |tx| {
            tx.end_move(&place, false, &by(4))?;
            tx.set_access(&own, &some, &by(4))?;
            tx.close(&door, None, &by(4))
        })
        .await;
    let why = refused(&world, move |tx| {
        tx.begin_move(&dev, HOST, 1, false, &by(5)).map(drop)
    })
    .await;
    assert!(why.contains("closed here"), "{why}");
}
