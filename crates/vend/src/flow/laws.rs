//! The engine's laws, on the project's own flows: every prefix of what is kept comes to the same end, what comes twice,
//! late or for another attempt changes nothing, and a clock that jumps changes no order.

use std::collections::BTreeSet;

use asl::Status;
use camino::Utf8PathBuf;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Value, json};

use super::definition;

#[path = "../../../engine/tests/laws/story.rs"]
mod story;
#[path = "../../../engine/tests/world/mod.rs"]
mod world;

/// Every flow that there is, by name.
fn flows() -> Vec<(&'static str, Value)> {
    let asking = definition::tests::sample(true);
    vec![
        (
            "release",
            definition::release(&definition::tests::sample(false), None),
        ),
        (
            "approved release",
            definition::release(&asking, asking.approval.as_ref()),
        ),
        (
            "migrating release",
            definition::release(&definition::tests::migrating_sample(), None),
        ),
        (
            "release on machines",
            definition::release(
                &definition::tests::placed_sample(),
                definition::tests::placed_sample().approval.as_ref(),
            ),
        ),
        ("rollback", definition::rollback()),
        ("rollback on machines", definition::rollback_on_machines()),
        ("resize", definition::resize()),
        ("destruction", definition::environment_destroy()),
    ]
}

/// The activities of a flow.
fn activities(flow: &Value) -> BTreeSet<String> {
    let text = flow.to_string();
    let resources = definition::resources().into_iter();
    let named = resources.filter(|resource| text.contains(&format!("\"{resource}\"")));
    named.collect()
}

fn input() -> Value {
    json!({ "kind": "release", "place": "acme/shop/dev", "plan": { "release": 1 }, "price": 1.0 })
}

fn done(_: &str) -> Result<Value, String> {
    Ok(json!({ "same": true }))
}

async fn play(flow: &Value, answers: story::Answers<'_>) -> Status {
    let held = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    let store = world::open(&dir).await;
    story::every_prefix_ends_the_same(store, flow, input(), answers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_in_which_all_goes_well_comes_to_its_end_from_everywhere() {
    for (name, flow) in flows() {
        let status = play(&flow, &|resource, _| done(resource)).await;
        assert!(matches!(status, Status::Succeeded { .. }), "{name}: {status:?}");
    }
}

/// Each activity in turn fails for good: what was done is undone, and the reason stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_fails_anywhere_takes_its_way_back_from_everywhere() {
    for (name, flow) in flows() {
        let way_back = flow.to_string().contains(":unwind");
        for failing in activities(&flow) {
            let is_final = definition::is_final(&failing);
            let undone = std::sync::atomic::AtomicBool::new(false);
            let answers = |resource: &str, _| match resource {
                _ if resource == failing => Err("Vend.Customer".to_owned()),
                _ => {
                    let undoes = definition::activity(resource) == Some("unwind");
                    undone.fetch_or(undoes, std::sync::atomic::Ordering::Relaxed);
                    done(resource)
                }
            };
            let status = play(&flow, &answers).await;
            match way_back && is_final {
                // Nothing failed that could be undone.
                true => assert!(
                    matches!(status, Status::Succeeded { .. }),
                    "{name}: {failing}: {status:?}"
                ),
                false => {
                    let error = Some("Vend.Customer".to_owned());
                    assert!(
                        matches!(&status, Status::Failed { error: own, .. } if *own == error),
                        "{name}: {failing}: {status:?}"
                    );
                    assert_eq!(undone.into_inner(), way_back, "{name}: {failing}");
                }
            }
        }
    }
}

/// What the platform got over is as if it had not been.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_whose_every_first_attempt_fails_comes_to_its_end_from_everywhere() {
    for (name, flow) in flows() {
        let answers = |resource: &str, attempt| match attempt {
            1 => Err("Vend.Platform".to_owned()),
            _ => done(resource),
        };
        let status = play(&flow, &answers).await;
        assert!(matches!(status, Status::Succeeded { .. }), "{name}: {status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_to_a_flow_is_kept(flow in 0..8_usize, choices in prop::collection::vec(any::<u32>(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let held = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
            let (_, definition) = flows().swap_remove(flow);
            story::wander(world::open(&dir).await, &definition, input(), choices).await;
        });
    }
}
