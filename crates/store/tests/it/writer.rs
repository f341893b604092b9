//! Opening, group commit, panics, readers.

use std::{
    fs::{self, Permissions},
    future::poll_fn,
    os::unix::fs::PermissionsExt as _,
    pin::Pin,
    sync::mpsc,
    task::Poll,
};

use store::{Error, Store};

use crate::world::{self, World, at, by, tenant};

#[derive(Debug)]
enum Mine {
    Store,
    Own(u32),
}

impl From<Error> for Mine {
    fn from(_: Error) -> Self {
        Self::Store
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_are_all_there_and_failures_fail_alone() {
    let world = World::new();
    let tasks: Vec<_> = (0..300u32)
        .map(|n| {
            let store = world.store.clone();
            tokio::spawn(async move {
                let outcome: Result<u32, Mine> = store
                    .write(move |tx| {
                        tx.set_setting(&format!("n/{n}"), Some("1"), &by(0))?;
                        match n % 10 {
                            3 => Err(Mine::Own(n)),
                            7 => panic!("on purpose"),
                            _ => Ok(n),
                        }
                    })
                    .await;
                let there = store.read(move |db| db.setting(&format!("n/{n}"))).await.unwrap();
                match (n % 10, outcome) {
                    (3, Err(Mine::Own(own))) => assert_eq!((own, there), (n, None)),
                    (7, Err(Mine::Store)) => assert_eq!(there, None),
                    (_, Ok(own)) => assert_eq!((own, there), (n, Some("1".into()))),
                    (_, other) => panic!("{n}: {other:?}"),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let head = world.store.read(|db| db.ledger_head()).await.unwrap();
    assert_eq!(head.unwrap().0, 240, "one line for each write that stayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_together_is_committed_together() {
    let world = World::new();
    let file = world.dir().join("store.sqlite3");
    let (go, wait) = mpsc::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let store = world.store.clone();
    let first = tokio::spawn(async move {
        store
            .write(move |tx| {
                tx.set_setting("first", Some("1"), &by(0))?;
                begun.send(()).unwrap();
                wait.recv().unwrap();
                Ok::<_, Error>(())
            })
            .await
    });
    begins.await.unwrap();
    // Readers go on while the writer is in the middle of its work.
    let seen = world.store.read(|db| db.setting("first")).await.unwrap();
    assert_eq!(seen, None);
    let mut second = Box::pin(world.store.write(move |tx| {
        let outside = rusqlite::Connection::open(&file).unwrap();
        let committed: u32 = outside
            .query_row("SELECT count(*) FROM settings", [], |row| row.get(0))
            .unwrap();
        Ok::<_, Error>((tx.setting("first")?.is_some(), committed))
    }));
    queue(&mut second).await;
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    let (seen, committed) = second.await.unwrap();
    assert!(seen, "work sees what was done before it in the same transaction");
    assert_eq!(committed, 0, "and that is not committed yet");
}

#[tokio::test]
async fn a_clone_that_is_dropped_in_its_own_work_does_not_hang() {
    let World { store, dir } = World::new();
    let held = store.clone();
    let mut work = Box::pin(store.write(move |tx| {
        let made = tx.create_tenant(&tenant("acme"), &by(0)).map(drop);
        drop(held);
        made
    }));
    queue(&mut work).await;
    drop(work);
    drop(store);
    // Nobody waited for the answer, and the work is done all the same.
    let store = loop {
        match Store::open(&world::path(dir.path())) {
            Err(Error::Locked(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(store.read(|db| db.tenants()).await.unwrap().len(), 1);
}

/// Polls a write once, which puts it into the queue.
async fn queue<T>(write: &mut Pin<Box<impl Future<Output = T>>>) {
    poll_fn(|context| {
        assert!(write.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn one_process_at_a_time() {
    let world = World::new();
    assert!(matches!(Store::open(&world.dir()), Err(Error::Locked(_))));
    world.write(|tx| tx.create_tenant(&tenant("acme"), &by(0))).await;
    let world = world.reopen();
    assert_eq!(world.store.read(|db| db.tenants()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_private_and_never_made_anew() {
    let world = World::new();
    let dir = world.dir();
    let World { store, dir: _held } = world;
    drop(store);
    for file in ["store.sqlite3", "keys/master.key", "keys/ledger.key", "lock"] {
        let mode = fs::metadata(dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let master = dir.join("keys/master.key");
    let good = fs::read(&master).unwrap();
    fs::set_permissions(&master, Permissions::from_mode(0o644)).unwrap();
    assert!(
        matches!(Store::open(&dir), Err(Error::Key { .. })),
        "others can read it"
    );
    fs::set_permissions(&master, Permissions::from_mode(0o600)).unwrap();
    fs::write(&master, [1; 32]).unwrap();
    assert!(
        matches!(Store::open(&dir), Err(Error::Sealed { .. })),
        "another key"
    );
    fs::write(&master, [1; 31]).unwrap();
    assert!(matches!(Store::open(&dir), Err(Error::Key { .. })), "not a key");
    fs::remove_file(&master).unwrap();
    assert!(matches!(Store::open(&dir), Err(Error::Io { .. })), "no key");
    fs::write(&master, good).unwrap();
    fs::set_permissions(&master, Permissions::from_mode(0o600)).unwrap();
    Store::open(&dir).unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_not_opened() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let dir = world.dir();
    let World { store, dir: _held } = world;
    drop(store);
    let file = dir.join("store.sqlite3");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xA5);
    fs::write(&file, bytes).unwrap();
    let error = Store::open(&dir).err().unwrap();
    assert!(matches!(error, Error::Damaged(_) | Error::Sqlite(_)), "{error:?}");
}

#[tokio::test]
async fn times_come_back_in_whole_microseconds() {
    let world = World::new();
    let precise = at(5) + jiff::SignedDuration::from_nanos(1_234_567);
    let made = world
        .write(move |tx| tx.create_tenant(&tenant("acme"), &store::By::platform(precise)))
        .await;
    assert_eq!(made.created_at.as_nanosecond() % 1_000_000_000, 1_234_000);
    let mut verifier = model::ledger::Verifier::default();
    let lines = world.store.read(|db| db.ledger_from(1, 10)).await.unwrap();
    lines.iter().for_each(|line| verifier.check(line).unwrap());
}

#[tokio::test]
async fn those_who_wait_are_told_of_every_commit() {
    let world = World::new();
    let mut commits = world.store.commits();
    for expected in 1..=3u64 {
        commits.mark_unchanged();
        assert_eq!(world.write(|tx| tx.count_up("routes")).await, expected);
        commits.changed().await.unwrap();
    }
}
