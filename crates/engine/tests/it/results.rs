//! Results of distributed Maps that fail: they are written, whatever happens to the engine in between.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
};

use engine::{Limits, Objects};
use serde_json::{Value, json};
use store::{Status, Store};
use tokio::sync::mpsc as notices;

use crate::world::{
    Running, dir, ended,
    maps::{Buckets, answer, fail, map, over, runs},
    open, run, run_with, setup, start,
};

const THRESHOLD: Option<&str> = Some("States.ExceedToleratedFailureThreshold");

fn writing(mut more: Value) -> Value {
    more["ResultWriter"] = json!({
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": { "Bucket": "out", "Prefix": "p" },
    });
    more
}

async fn with(objects: impl Objects + 'static, store: Store, limits: Limits) -> Running {
    let mut setup = setup(&store, limits);
    setup.objects = Some(Arc::new(objects));
    run_with(setup, store).await
}

/// What the manifest of the run names: the inputs of the children, and how they ended.
fn results(root: &Path, arn: &str) -> [Vec<(String, String)>; 3] {
    let read = |key: &str| -> Value {
        serde_json::from_slice(&std::fs::read(root.join("out").join(key)).unwrap()).unwrap()
    };
    let manifest = read(&format!("p/{}/manifest.json", arn.rsplit(':').next().unwrap()));
    assert_eq!(manifest["MapRunArn"], arn);
    ["SUCCEEDED", "FAILED", "PENDING"].map(|kind| {
        let files = manifest["ResultFiles"][kind].as_array().unwrap().iter();
        let children = files.flat_map(|file| read(file["Key"].as_str().unwrap()).as_array().unwrap().clone());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told = children.map(|child| (text(&child["Input"]), text(&child["Status"])));
        told.collect()
    })
}

/// Writes an object, says so, and does not come back until it is let go: then it fails.
struct Stuck {
    buckets: Buckets,
    notice: notices::UnboundedSender<()>,
    hold: Mutex<mpsc::Receiver<()>>,
}

impl Objects for Stuck {
    fn read(&self, owner: u64, parameters: &Value) -> io::Result<Vec<u8>> {
        self.buckets.read(owner, parameters)
    }

    fn list(&self, owner: u64, parameters: &Value) -> io::Result<Vec<Value>> {
        self.buckets.list(owner, parameters)
    }

    fn write(&self, owner: u64, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        self.buckets.write(owner, bucket, key, bytes)?;
        self.notice.send(()).map_err(io::Error::other)?;
        self.hold.lock().unwrap().recv().map_err(io::Error::other)
    }
}

/// The engine ends before the children are stopped, or in the middle of the writing, or not at all.
#[tokio::test]
async fn a_run_that_fails_leaves_its_results_and_a_redrive_the_whole() {
    let text = map(writing(json!({ "MaxConcurrency": 3 })));
    for cut in 0..3 {
        let dir = dir();
        let root: PathBuf = dir.held.path().join("objects");
        let buckets = || Buckets(root.clone());
        let (notice, mut noticed) = notices::unbounded_channel();
        let (release, hold) = mpsc::channel();
        let store = open(&dir.path).await;
        let mut running = match cut {
            2 => {
                let (buckets, hold) = (buckets(), Mutex::new(hold));
                let stuck = Stuck {
                    buckets,
                    notice,
                    hold,
                };
                with(stuck, store, Limits::default()).await
            }
            _ => with(buckets(), store, Limits::default()).await,
        };
        let items = json!([0, 1, 2, 3, 4]);
        let begun = running.handle.start(start(&text, "a", items)).await.unwrap();
        let good = answer(&running.handle).await.to_string();
        let bad = fail(&running.handle).await.to_string();
        if cut == 2 {
            noticed.recv().await.unwrap();
            let found = runs(&running.store, begun.key).await.remove(0);
            assert_eq!(found.status, Status::Running, "it has not failed yet");
        }
        if cut > 0 {
            running = with(buckets(), running.abort().await, Limits::default()).await;
        }
        drop(release);
        let over = ended(&running.store, begun.key).await;
        assert_eq!(over.error.as_deref(), THRESHOLD, "cut {cut}");
        let found = runs(&running.store, begun.key).await.remove(0);
        assert_eq!((found.status, found.written), (Status::Failed, true), "cut {cut}");
        let [succeeded, failed, pending] = results(&root, &found.arn);
        assert_eq!(succeeded, [(good.clone(), "SUCCEEDED".to_owned())], "cut {cut}");
        let expected = ["0", "1", "2", "3"].into_iter().filter(|input| *input != good);
        let expected = expected.map(|input| {
            let status = if input == bad { "FAILED" } else { "ABORTED" };
            (input.to_owned(), status.to_owned())
        });
        assert_eq!(failed, expected.collect::<Vec<_>>(), "cut {cut}");
        assert_eq!(pending, [("4".to_owned(), "PENDING".to_owned())], "cut {cut}");
        running.handle.redrive(begun.key).await.unwrap();
        for _ in 0..4 {
            answer(&running.handle).await;
        }
        assert_eq!(ended(&running.store, begun.key).await.status, Status::Succeeded);
        let [succeeded, failed, pending] = results(&root, &found.arn);
        assert_eq!(
            (succeeded.len(), failed.len(), pending.len()),
            (5, 0, 0),
            "cut {cut}"
        );
        // Nobody could remove it on AWS: the new manifest does not name it.
        let before = format!("out/p/{}/FAILED_0.json", found.arn.rsplit(':').next().unwrap());
        assert!(root.join(before).exists(), "cut {cut}");
        running.end().await;
    }
}

/// Those that run are stopped, and those that there is no room for are never started.
#[tokio::test]
async fn express_children_do_not_hold_a_failure_up() {
    let dir = dir();
    let root = dir.held.path().join("objects");
    let limits = Limits {
        children: 2,
        ..Limits::default()
    };
    let running = with(Buckets(root.clone()), open(&dir.path).await, limits).await;
    let choice = json!({ "Type": "Choice", "Default": "Bad",
        "Choices": [{ "Variable": "$", "NumericGreaterThan": 0, "Next": "Long" }] });
    let processor = json!({ "StartAt": "C", "States": {
        "C": choice, "Long": { "Type": "Wait", "Seconds": 250, "End": true },
        "Bad": { "Type": "Fail", "Error": "Zero" } } });
    let text = over("EXPRESS", processor, writing(json!({ "MaxConcurrency": 5 })));
    let items = json!([1, 0, 2, 3, 4, 5, 6]);
    let begun = running.handle.start(start(&text, "a", items)).await.unwrap();
    let over = ended(&running.store, begun.key).await;
    assert_eq!(over.error.as_deref(), THRESHOLD);
    let found = runs(&running.store, begun.key).await.remove(0);
    let [succeeded, failed, pending] = results(&root, &found.arn);
    assert!(succeeded.is_empty());
    let child = |input: &str, status: &str| (input.to_owned(), status.to_owned());
    assert_eq!(failed[..2], [child("1", "ABORTED"), child("0", "FAILED")]);
    assert_eq!(failed.len() + pending.len(), 7);
    assert!(pending.contains(&child("6", "PENDING")), "{pending:?}");
    running.end().await;
}

#[tokio::test]
async fn results_that_cannot_be_written_do_not_hide_why_a_run_failed() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let text = map(writing(json!({})));
    let begun = running.handle.start(start(&text, "a", json!([0]))).await.unwrap();
    fail(&running.handle).await;
    let over = ended(&running.store, begun.key).await;
    assert_eq!(over.error.as_deref(), THRESHOLD);
    let found = runs(&running.store, begun.key).await.remove(0);
    assert_eq!((found.status, found.written), (Status::Failed, false));
    // Where nothing else failed, it is why.
    let begun = running.handle.start(start(&text, "b", json!([0]))).await.unwrap();
    answer(&running.handle).await;
    let over = ended(&running.store, begun.key).await;
    assert_eq!(over.error.as_deref(), Some("States.ResultWriterFailed"));
    running.end().await;
}
