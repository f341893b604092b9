//! Tenants, apps, environments, pushes, releases, hosts.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use model::{ExecutionId, HostId, port::PushEvent, release::ReleaseState};
use store::{Arriving, Error, HostState, NewPush, PushState};

use crate::world::{World, app, at, by, end, host, place, push, release, start, tenant};

#[tokio::test]
async fn names_are_taken_once_and_free_again_after_deletion() {
    let world = World::new();
    world.write(|tx| tx.create_tenant(&tenant("acme"), &by(0))).await;
    let again = world
        .store
        .write(|tx| tx.create_tenant(&tenant("acme"), &by(0)))
        .await;
    assert!(matches!(again, Err(Error::Exists { .. })));
    world
        .write(|tx| tx.create_app(&tenant("acme"), &app("shop"), None, &by(0)))
        .await;
    let full = world
        .store
        .write(|tx| tx.delete_tenant(&tenant("acme"), &by(1)))
        .await;
    assert!(matches!(full, Err(Error::Refused { .. })));
    world
        .write(|tx| tx.delete_app(&tenant("acme"), &app("shop"), &by(1)))
        .await;
    world.write(|tx| tx.delete_tenant(&tenant("acme"), &by(2))).await;
    world.write(|tx| tx.create_tenant(&tenant("acme"), &by(3))).await;
    let lines = world.store.read(|db| db.ledger_from(1, 100)).await.unwrap();
    let actions: Vec<_> = lines.iter().map(|line| line.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "tenant.create",
            "app.create",
            "app.delete",
            "tenant.delete",
            "tenant.create"
        ]
    );
}

#[tokio::test]
async fn environments_never_share_number_subnet_user_ids_or_addresses() {
    let world = World::new();
    for text in [
        "acme/shop/dev",
        "acme/shop/production",
        "other/shop/dev",
        "other/blog/dev",
    ] {
        world.environment(text).await;
    }
    let dev = place("acme/shop/dev");
    world
        .write({
            let dev = dev.clone();
            move |tx| tx.delete_environment(&dev, &by(1))
        })
        .await;
    for text in ["third/a/b", "acme/shop/dev", "other/blog/staging"] {
        world.environment(text).await;
    }
    let all = world.store.read(|db| db.environments(None)).await.unwrap();
    let unique = |values: Vec<u32>| {
        assert_eq!(
            values.iter().collect::<BTreeSet<_>>().len(),
            all.len(),
            "{values:?}"
        )
    };
    unique(all.iter().map(|e| e.number).collect());
    unique(all.iter().map(|e| e.subnet.into()).collect());
    unique(all.iter().map(|e| e.uid_base).collect());
    assert!(all.iter().all(|e| e.uid_base % 65_536 == 0));
    let of = |text: &str| all.iter().find(|e| e.place == place(text)).unwrap();
    assert_eq!(
        of("third/a/b").number,
        1,
        "the number of a deleted environment is free at once"
    );
    assert_eq!(
        of("acme/shop/dev").uid_base,
        524_288,
        "its user ids stay its tenant's"
    );
}

#[tokio::test]
async fn addresses_are_unique_until_their_host_is_retired() {
    let (world, dev) = World::dev().await;
    let made = world
        .write({
            let dev = dev.clone();
            move |tx| {
                (0..253)
                    .map(|n| tx.create_host(&host(n, &dev, Some(1)), &by(0)))
                    .collect::<Result<Vec<_>, _>>()
            }
        })
        .await;
    let addresses: BTreeSet<_> = made.iter().map(|host| host.address.octets()[3]).collect();
    assert_eq!(addresses, (2..=254).collect());
    let (one, two) = (dev.clone(), dev.clone());
    let full = world
        .store
        .write(move |tx| tx.create_host(&host(900, &one, None), &by(0)))
        .await;
    assert!(matches!(full, Err(Error::Exhausted { .. })));
    let next = world
        .write(move |tx| {
            tx.set_host_state(&HostId::from_bits(7), HostState::Retired, None, &by(1))?;
            tx.create_host(&host(900, &two, None), &by(1))
        })
        .await;
    assert_eq!(next.address, made[7].address);
    let back = world
        .store
        .write(|tx| tx.set_host_state(&HostId::from_bits(7), HostState::Serving, None, &by(2)))
        .await;
    assert!(matches!(back, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn the_newest_push_runs_and_older_ones_are_superseded() {
    let (world, dev) = World::dev().await;
    let first = ExecutionId::from_bits(1);
    world
        .write({
            let dev = dev.clone();
            move |tx| {
                for text in ["a", "b", "c"] {
                    tx.enqueue_push(&push(&dev, text), &by(0))?;
                }
                let next = tx.next_push(&dev, &first, &by(1))?.unwrap();
                assert_eq!(next.commit.message, "c");
                start(tx, 1, Some(&dev), "{}", &by(1))?;
                tx.enqueue_push(&push(&dev, "d"), &by(2))?;
                assert_eq!(
                    tx.next_push(&dev, &ExecutionId::from_bits(2), &by(2))?,
                    None,
                    "one runs"
                );
                assert_eq!(tx.places_to_release()?, []);
                end(tx, 1, store::Status::Succeeded, 3)?;
                assert_eq!(tx.places_to_release()?, std::slice::from_ref(&dev));
                assert!(tx.next_push(&dev, &ExecutionId::from_bits(2), &by(3))?.is_some());
                Ok(())
            }
        })
        .await;
    let pushes = world
        .store
        .read(|db| db.pushes(&tenant("acme"), &app("shop"), None, None, 10))
        .await
        .unwrap();
    let states: Vec<_> = pushes.iter().rev().map(|push| push.state).collect();
    assert_eq!(
        states,
        [
            PushState::Superseded,
            PushState::Superseded,
            PushState::Running,
            PushState::Running
        ]
    );
}

#[tokio::test]
async fn a_push_says_why_it_is_delayed_until_it_goes_on() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            let mut new = push(&dev, "a");
            new.environment = None;
            let id = tx.enqueue_push(&new, &by(0))?;
            let reason = |tx: &store::Tx<'_>| tx.push(id).map(|push| (push.state, push.reason));
            tx.delay_push(id, "cannot fetch it yet")?;
            assert_eq!(
                reason(tx)?,
                (PushState::Waiting, Some("cannot fetch it yet".into()))
            );
            tx.assign_push(id, std::slice::from_ref(&dev.environment), "", &by(1))?;
            assert_eq!(reason(tx)?, (PushState::Waiting, None));
            tx.delay_push(id, "too late")?;
            assert_eq!(reason(tx)?, (PushState::Waiting, None));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_switch_moves_release_and_hosts_and_back() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            for n in 1..=2u64 {
                let made = tx.create_release(&dev, &release(&format!("r{n}")), &by(0))?;
                assert_eq!(made.content.number, n);
                let id = tx.create_host(&host(n, &dev, Some(n)), &by(0))?.id;
                tx.set_host_state(&id, HostState::Ready, None, &by(0))?;
            }
            let state = |n| {
                tx.host(&HostId::from_bits(n))
                    .map(|host| (host.state, host.retire_at))
            };
            tx.set_live(&dev, 1, at(10), &by(1))?;
            tx.set_live(&dev, 2, at(20), &by(2))?;
            assert_eq!(state(1)?, (HostState::Kept, Some(at(20))));
            assert_eq!(state(2)?, (HostState::Serving, None));
            assert_eq!(tx.environment(&dev)?.previous, Some(1));
            assert_eq!(tx.release(&dev, 1)?.state, ReleaseState::Retired);
            assert_eq!(tx.hosts_to_retire(at(19))?.len(), 0);
            assert_eq!(tx.hosts_to_retire(at(20))?.len(), 1);
            let lines = tx.ledger_head()?;
            tx.set_live(&dev, 2, at(25), &by(2))?;
            assert_eq!(tx.ledger_head()?, lines, "again changes nothing");
            tx.set_live(&dev, 1, at(30), &by(3))?;
            assert_eq!(state(1)?, (HostState::Serving, None));
            assert_eq!(state(2)?, (HostState::Kept, Some(at(30))));
            tx.fail_release(&dev, 2, "it was bad", &by(4))?;
            assert!(matches!(
                tx.set_live(&dev, 2, at(40), &by(5)),
                Err(Error::Refused { .. })
            ));
            assert!(matches!(
                tx.fail_release(&dev, 1, "no", &by(5)),
                Err(Error::Refused { .. })
            ));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_sleeps_has_no_hosts_until_its_release_serves_again() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            let mut new = release("r1");
            new.spec.sleep_after = Some(SignedDuration::from_secs(90));
            tx.create_release(&dev, &new, &by(0))?;
            let id = tx.create_host(&host(1, &dev, Some(1)), &by(0))?.id;
            tx.set_host_state(&id, HostState::Ready, None, &by(0))?;
            assert!(tx.sleepy()?.is_empty(), "nothing is live yet");
            tx.set_live(&dev, 1, at(10), &by(1))?;
            assert_eq!(tx.sleepy()?, [(dev.clone(), SignedDuration::from_secs(90))]);
            tx.sleep(&dev, at(20), &by(2))?;
            tx.sleep(&dev, at(30), &by(3))?;
            let host_of = tx.host(&id)?;
            assert_eq!(
                (host_of.state, host_of.retire_at),
                (HostState::Draining, Some(at(20)))
            );
            assert_eq!(tx.environment(&dev)?.asleep_at, Some(by(2).at));
            assert!(tx.sleepy()?.is_empty(), "it sleeps already");
            let id = tx.create_host(&host(2, &dev, Some(1)), &by(4))?.id;
            tx.set_host_state(&id, HostState::Ready, None, &by(4))?;
            assert!(tx.environment(&dev)?.asleep_at.is_some(), "nothing serves yet");
            tx.set_live(&dev, 1, at(50), &by(5))?;
            assert_eq!(tx.environment(&dev)?.asleep_at, None);
            // Another release wakes it as well.
            tx.create_release(&dev, &release("r2"), &by(6))?;
            tx.sleep(&dev, at(60), &by(6))?;
            tx.set_live(&dev, 2, at(70), &by(7))?;
            assert_eq!(tx.environment(&dev)?.asleep_at, None);
            assert!(tx.sleepy()?.is_empty(), "v2 does not sleep");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_release_that_arrives_shares_the_traffic_until_it_is_live_or_gone() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            for n in 1..=2u64 {
                tx.create_release(&dev, &release(&format!("r{n}")), &by(0))?;
                tx.create_host(&host(n, &dev, Some(n)), &by(0))?;
                tx.set_host_state(&HostId::from_bits(n), HostState::Ready, None, &by(0))?;
            }
            tx.set_live(&dev, 1, at(10), &by(0))?;
            let state = |tx: &store::Tx<'_>| Ok::<_, Error>(tx.host(&HostId::from_bits(2))?.state);
            let arriving = |share| Some(Arriving { release: 2, share });
            // In place, hosts become serving one by one, and not by this.
            tx.share_traffic(&dev, arriving(None), &by(1))?;
            assert_eq!(state(tx)?, HostState::Ready);
            tx.share_traffic(&dev, arriving(Some(10)), &by(2))?;
            assert_eq!(state(tx)?, HostState::Serving);
            assert_eq!(tx.environment(&dev)?.arriving, arriving(Some(10)));
            let lines = tx.ledger(&store::LedgerFilter::default())?.len();
            tx.share_traffic(&dev, arriving(Some(10)), &by(3))?;
            assert_eq!(
                tx.ledger(&store::LedgerFilter::default())?.len(),
                lines,
                "nothing was done"
            );
            tx.set_live(&dev, 2, at(10), &by(4))?;
            assert_eq!(tx.environment(&dev)?.arriving, None);
            assert_eq!(tx.host(&HostId::from_bits(1))?.state, HostState::Kept);
            tx.set_host_release(&HostId::from_bits(1), 2, &by(5))?;
            assert_eq!(tx.hosts_of_release(&dev, 2)?.len(), 2);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_a_rollback_needs_is_kept() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            for n in 1..=9u64 {
                tx.create_release(&dev, &release(&format!("r{n}")), &by(0))?;
                match n {
                    4 => tx.fail_release(&dev, n, "bad", &by(0))?,
                    9 => {}
                    _ => tx.set_live(&dev, n, at(10), &by(0))?,
                }
            }
            tx.create_host(&host(1, &dev, Some(1)), &by(0))?;
            let kept = tx.keepers()?;
            // The live 8th, the five before it that were live, the pending 9th, and the host's.
            let expected: BTreeSet<_> = [1, 2, 3, 5, 6, 7, 8, 9]
                .map(|n| model::Digest::of(format!("image r{n}")))
                .into();
            assert_eq!(kept.images, expected);
            assert_eq!(kept.revisions.len(), 8);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_was_live_last_is_kept_however_old_its_number_is() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            for n in 1..=7u64 {
                tx.create_release(&dev, &release(&format!("r{n}")), &by(0))?;
                tx.set_live(&dev, n, at(10), &by(n as i64))?;
            }
            // All the way back, and then the fix: what it replaces is the first.
            tx.set_live(&dev, 1, at(10), &by(8))?;
            assert_eq!(tx.kept_releases(&dev)?, BTreeSet::from([1, 3, 4, 5, 6, 7]));
            tx.create_release(&dev, &release("r8"), &by(9))?;
            tx.set_live(&dev, 8, at(10), &by(10))?;
            assert_eq!(tx.kept_releases(&dev)?, BTreeSet::from([1, 4, 5, 6, 7, 8]));
            let images = tx.keepers()?.images;
            let image = |n: u64| model::Digest::of(format!("image r{n}"));
            assert!(images.contains(&image(1)) && !images.contains(&image(3)));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_an_execution_under_way_goes_back_to_or_speaks_of_is_kept() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            for n in 1..=9u64 {
                tx.create_release(&dev, &release(&format!("r{n}")), &by(0))?;
                tx.set_live(&dev, n, at(10), &by(0))?;
            }
            let image = |n: u64| model::Digest::of(format!("image r{n}"));
            assert_eq!(tx.kept_releases(&dev)?, BTreeSet::from([4, 5, 6, 7, 8, 9]));
            assert!(!tx.keepers()?.images.contains(&image(1)));
            let elsewhere: model::Place = "acme/other/dev".parse().unwrap();
            start(tx, 1, Some(&dev), r#"{"kind":"rollback","to":1}"#, &by(1))?;
            start(tx, 2, Some(&dev), r#"{"plan":{"release":2,"from":2}}"#, &by(1))?;
            start(tx, 3, Some(&elsewhere), r#"{"to":3}"#, &by(1))?;
            let snapshot = store::Snapshot {
                execution: 1001,
                seq: 1,
                wake: None,
                open: "[]".into(),
                orders: "[]".into(),
                state: format!(r#"{{"made":{{"build":"{}"}}}}"#, image(98)),
            };
            let logged = store::Logged {
                seq: 2,
                execution: 1002,
                at: at(1),
                event: format!(
                    r#"{{"output":{{"build":"{}","log":"deploy/t-x-1-1.h-1"}}}}"#,
                    image(99)
                ),
            };
            tx.append(&store::Batch {
                folds: vec![store::Fold {
                    snapshot,
                    history: None,
                }],
                events: vec![logged],
                ..store::Batch::default()
            })?;
            let kept = tx.keepers()?;
            assert!(kept.images.contains(&image(1)) && kept.images.contains(&image(2)));
            assert!(!kept.images.contains(&image(3)), "it is of another environment");
            assert_eq!(kept.mentioned, BTreeSet::from([image(98), image(99)]));
            assert_eq!(kept.logs, BTreeSet::from(["deploy/t-x-1-1.h-1".parse().unwrap()]));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_is_protected_or_inhabited_is_not_destroyed() {
    let (world, dev) = World::dev().await;
    world
        .write(move |tx| {
            tx.set_protected(&dev, true, &by(0))?;
            assert!(matches!(
                tx.delete_environment(&dev, &by(0)),
                Err(Error::Refused { .. })
            ));
            tx.set_protected(&dev, false, &by(0))?;
            let id = tx.create_host(&host(1, &dev, None), &by(0))?.id;
            tx.set_database(&dev, Some(&id), true, &by(0))?;
            assert!(tx.environment(&dev)?.database_ready);
            assert!(matches!(
                tx.delete_environment(&dev, &by(0)),
                Err(Error::Refused { .. })
            ));
            tx.set_host_state(&id, HostState::Retired, None, &by(1))?;
            assert!(!tx.environment(&dev)?.database_ready);
            tx.delete_environment(&dev, &by(1))?;
            assert!(matches!(tx.environment(&dev), Err(Error::Missing { .. })));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_was_told_of_a_push_stays_with_it_and_its_copies() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let told = PushEvent {
        before: Some("0".repeat(40)),
        account: Some("88621008".into()),
    };
    let event = told.clone();
    world
        .write(move |tx| {
            let new = NewPush {
                environment: None,
                event: Some(event),
                ..push(&dev, "x")
            };
            let id = tx.enqueue_push(&new, &by(1))?;
            let both = ["dev", "test"].map(|name| name.parse().unwrap());
            tx.assign_push(id, &both, "nobody", &by(2))?;
            tx.enqueue_push(&push(&dev, "y"), &by(3)).map(drop)
        })
        .await;
    let found = world
        .store
        .read(|db| db.pushes(&tenant("acme"), &app("shop"), None, None, 10))
        .await
        .unwrap();
    let events: Vec<_> = found.into_iter().map(|push| push.event).collect();
    assert_eq!(events, [None, Some(told.clone()), Some(told)]);
}
