//! `kill -9` at any moment: what was answered is there, and what is there is whole.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::ledger::Verifier;
use store::{Error, Store};

use crate::world::{by, path};

const ROLE: &str = "STORE_CRASH_TEST_DIR";
const ROUNDS: u64 = 25;

/// The process that is killed: writes as fast as it can, and says what was answered.
#[test]
fn child() {
    let Ok(dir) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(&Utf8PathBuf::from(dir)).unwrap();
        let head = store.read(|db| db.ledger_head()).await.unwrap();
        // No number of an earlier round again: a fifth of them is given up, so numbers run ahead of lines.
        let next = Arc::new(AtomicU64::new(head.map_or(1, |(number, _)| number * 1_000)));
        let writers: Vec<_> = (0..8)
            .map(|_| tokio::spawn(write(store.clone(), Arc::clone(&next))))
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write(store: Store, next: Arc<AtomicU64>) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let name = format!("n/{n}");
        let done = store
            .write(move |tx| {
                tx.set_setting(&name, Some("1"), &by(n as i64))?;
                if n.is_multiple_of(5) {
                    return Err(Error::Closed);
                }
                Ok(())
            })
            .await;
        if done.is_ok() {
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {n}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn nothing_that_was_answered_is_lost() {
    let held = tempfile::tempdir().unwrap();
    let dir = path(held.path());
    let mut answered = Vec::new();
    for round in 0..ROUNDS {
        answered.extend(run_and_kill(&dir, Duration::from_millis(30 + (round * 37) % 160)));
        check(&dir, &answered);
    }
    assert!(!answered.is_empty(), "some writes were answered before the kill");
    println!("{} writes were answered in {ROUNDS} rounds", answered.len());
}

fn run_and_kill(dir: &Utf8Path, after: Duration) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--quiet"])
        .env(ROLE, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        lines
            .filter_map(|line| line.strip_prefix("ack ")?.parse().ok())
            .collect::<Vec<u64>>()
    });
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn check(dir: &Utf8Path, answered: &[u64]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Opening repairs, and checks quickly; the whole check follows.
    let store = Store::open(dir).unwrap();
    runtime
        .block_on(store.read(|db| {
            let mut verifier = Verifier::default();
            let mut next = 1;
            loop {
                let lines = db.ledger_from(next, 1000)?;
                let Some(last) = lines.last() else { break };
                next = last.number + 1;
                lines.iter().for_each(|line| verifier.check(line).unwrap());
            }
            Ok::<_, Error>(())
        }))
        .unwrap();
    drop(store);
    let raw = rusqlite::Connection::open(dir.join("store.sqlite3")).unwrap();
    let text = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    let both = "SELECT count(*) || '' FROM ";
    assert_eq!(
        text(&format!("{both} settings")),
        text(&format!("{both} ledger")),
        "a change and its line"
    );
    let mut there = raw.prepare("SELECT 1 FROM settings WHERE name = ?1").unwrap();
    for n in answered {
        assert!(
            there.exists([format!("n/{n}")]).unwrap(),
            "write {n} was answered and is lost"
        );
    }
}
