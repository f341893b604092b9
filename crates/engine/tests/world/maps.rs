//! What the tests of distributed Maps share.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use engine::{Handle, Objects};
use serde_json::{Value, json};
use store::{MapRun, Run, RunFilter, Store};

use super::{OWNER, read, resource};

/// Buckets in a directory.
pub struct Buckets(pub PathBuf);

impl Objects for Buckets {
    fn read(&self, _: u64, parameters: &Value) -> io::Result<Vec<u8>> {
        let text = |name: &str| parameters[name].as_str().unwrap_or_default().to_owned();
        std::fs::read(self.0.join(text("Bucket")).join(text("Key")))
    }

    fn list(&self, _: u64, _: &Value) -> io::Result<Vec<Value>> {
        Err(io::Error::other("it has no lists"))
    }

    fn write(&self, _: u64, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(bucket).join(key);
        std::fs::create_dir_all(path.parent().unwrap())?;
        std::fs::write(path, bytes)
    }
}

pub async fn runs(store: &Store, key: u64) -> Vec<MapRun> {
    read(store, move |db| db.map_runs(key, None, 100)).await
}

pub async fn children(store: &Store, run: u64) -> Vec<Run> {
    let filter = RunFilter {
        run: Some(run),
        limit: 1000,
        ..RunFilter::default()
    };
    let mut found = read(store, move |db| db.runs(&filter)).await;
    found.reverse();
    found
}

pub async fn counts(store: &Store, run: u64) -> BTreeMap<String, (u64, u64)> {
    let counted = read(store, move |db| db.map_counts(run)).await;
    let counted = counted.into_iter().filter(|(_, count)| count.children > 0);
    counted
        .map(|(status, count)| (format!("{status:?}"), (count.children, count.items)))
        .collect()
}

/// A Map whose children each have a task, with further fields.
pub fn map(more: Value) -> String {
    let work = json!({ "Type": "Task", "Resource": resource("work"), "End": true });
    over(
        "STANDARD",
        json!({ "StartAt": "Work", "States": { "Work": work } }),
        more,
    )
}

pub fn over(kind: &str, mut processor: Value, more: Value) -> String {
    processor["ProcessorConfig"] = json!({ "Mode": "DISTRIBUTED", "ExecutionType": kind });
    let mut state = json!({ "Type": "Map", "End": true, "ItemProcessor": processor });
    let more = more.as_object().unwrap().clone();
    state.as_object_mut().unwrap().extend(more);
    json!({ "StartAt": "M", "States": { "M": state } }).to_string()
}

/// A Pass in JSONPath that gives its input back.
pub fn pass() -> Value {
    json!({ "StartAt": "P", "States": { "P": { "Type": "Pass", "End": true } } })
}

pub async fn answer(handle: &Handle) -> Value {
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let output = json!({ "did": offer.input });
    handle.succeed(OWNER, &offer.token, output).await.unwrap();
    offer.input
}

pub async fn fail(handle: &Handle) -> Value {
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let (error, cause) = (Some("Broken".into()), None);
    handle.fail(OWNER, &offer.token, error, cause).await.unwrap();
    offer.input
}

pub async fn nothing_is_offered(handle: &Handle) {
    let work = resource("work");
    let waited = tokio::time::timeout(Duration::from_millis(200), handle.poll(&work, None));
    assert!(waited.await.is_err(), "a task too many");
}
