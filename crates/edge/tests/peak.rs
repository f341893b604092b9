//! What a whole table takes while it comes in: hardly more than the table that stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "world/counting.rs"]
mod counting;
mod world;

use std::sync::atomic::Ordering::SeqCst;

use counting::{HELD, MOST};
use model::route::Table;
use world::{Edge, forward, group, refusing, rule, shop};

fn table(version: u64, hosts: u32) -> Table {
    let mut table = Table {
        version,
        ..Table::default()
    };
    for n in 0..hosts {
        let name = format!("{version}-{n}");
        table
            .rules
            .push(rule(n + 1, &format!("h{n}.test"), forward(&[(&name, 1)])));
        table.target_groups.insert(name, group(&[refusing_at(n)]));
    }
    table
}

/// Nobody is there, and nobody will ask for long.
fn refusing_at(n: u32) -> std::net::SocketAddr {
    ([127, 0, 0, 1], 1 + (n % 1_000) as u16).into()
}

/// One test in one process: what others allocate would count.
#[tokio::test]
async fn a_whole_table_takes_little_more_than_it_leaves() {
    const HOSTS: u32 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[refusing()])).await;
    let tables = [table(2, HOSTS), table(3, HOSTS)];
    let idle = HELD.load(SeqCst);
    let mut seen = Vec::new();
    for table in &tables {
        MOST.store(HELD.load(SeqCst), SeqCst);
        edge.client.apply(table).await.unwrap();
        seen.push((MOST.load(SeqCst) - idle, HELD.load(SeqCst) - idle));
    }
    println!("bytes of {HOSTS} hosts, at most and afterwards: {seen:?}");
    let [(first, rests), (second, _)] = seen[..] else {
        panic!()
    };
    // What comes in is beside what is made of it, and, the second time, beside what was there.
    assert!(first < 3 * rests, "{first} bytes for {rests}");
    assert!(second < 4 * rests, "{second} bytes for {rests}");
    edge.stop().await;
}
