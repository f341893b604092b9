//! What many children of a large definition cost in memory.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use engine::Limits;
use serde_json::json;
use store::Status;
use world::{dir, ended, maps::over, open, run, start};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[tokio::test]
async fn children_share_their_definition() {
    const LARGE: usize = 800 << 10;
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let processor = json!({ "StartAt": "P", "Comment": "x".repeat(LARGE),
        "States": { "P": { "Type": "Pass", "Result": 1, "End": true } } });
    let text = over("STANDARD", processor, json!({}));
    let items: Vec<u64> = (0..400).collect();
    let start = start(&text, "a", json!(items));
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let begun = running.handle.start(start).await.unwrap();
    assert_eq!(ended(&running.store, begun.key).await.status, Status::Succeeded);
    let most = MOST.load(Relaxed) - before;
    assert!(most < 40 * LARGE, "{} KiB at the most", most >> 10);
    running.end().await;
}
