//! The engine's laws, on the project's own flows: every prefix of what is kept comes to the same end, what comes twice,
//! late or for another attempt changes nothing, and a clock that jumps changes no order.

use std::{collections::BTreeSet, sync::Mutex};

use asl::Status;
use camino::Utf8PathBuf;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Value, json};

use super::{definition, way::Way};

#[path = "../../../engine/tests/it/laws/story.rs"]
mod story;
#[path = "../../../engine/tests/world/mod.rs"]
mod world;

/// Every flow that there is, by name, and what its plan says of its way.
fn flows() -> Vec<(String, Value, Way)> {
    let asking = definition::tests::sample(true);
    let (direct, rolls, steps) = (
        Way {
            rolls: false,
            steps: false,
        },
        Way {
            rolls: true,
            steps: false,
        },
        Way {
            rolls: false,
            steps: true,
        },
    );
    let mut flows = vec![
        (
            "approved release",
            definition::release(&asking, asking.approval.as_ref()),
            direct,
        ),
        ("resize", definition::resize(), direct),
        ("sleep", definition::sleep(), direct),
        ("destruction", definition::environment_destroy(), direct),
    ];
    for (strategy, way) in definition::tests::STRATEGIES
        .into_iter()
        .zip([direct, rolls, steps, steps])
    {
        let environment = definition::tests::with(strategy);
        flows.push((strategy, definition::release(&environment, None), way));
        if way == rolls {
            flows.push(("back in place", definition::rollback(&environment), way));
        }
    }
    flows.push(("rollback", definition::rollback(&asking), direct));
    let placed = definition::tests::placed_sample();
    let machines = definition::release(&placed, placed.approval.as_ref());
    flows.push(("release on machines", machines, direct));
    let zoned = definition::release(&definition::tests::zoned_sample(), None);
    flows.push(("release on machines in zones", zoned, direct));
    flows.push(("rollback on machines", definition::rollback(&placed), direct));
    flows.push(("late machines", definition::join(&placed), direct));
    let migrating = definition::release(&definition::tests::migrating_sample(), None);
    flows.push(("migrating release", migrating, direct));
    let migrating = definition::release(&definition::tests::rolling_sample(), None);
    flows.push(("migrating release in place", migrating, rolls));
    // Its plan may say that it cannot go the way that was asked for.
    flows.push((
        "in place on new hosts",
        definition::release(&definition::tests::with("in-place"), None),
        direct,
    ));
    flows.push((
        "canary of a first release",
        definition::release(&definition::tests::with("canary"), None),
        direct,
    ));
    flows
        .into_iter()
        .map(|(name, flow, way)| (name.to_owned(), flow, way))
        .collect()
}

fn input(way: Way) -> Value {
    let plan = json!({ "release": 1, "rolls": way.rolls, "steps": way.steps });
    json!({ "kind": "release", "place": "acme/shop/dev", "plan": plan, "price": 1.0 })
}

fn done(resource: &str, way: Way) -> Result<Value, String> {
    Ok(match definition::activity(resource) {
        Some("plan") => json!({ "rolls": way.rolls, "steps": way.steps }),
        _ => json!({ "same": true }),
    })
}

/// The activities of a flow that its way leads through.
async fn activities(flow: &Value, way: Way) -> BTreeSet<String> {
    let asked = Mutex::new(BTreeSet::new());
    let answers = |resource: &str, _| {
        asked.lock().unwrap().insert(resource.to_owned());
        done(resource, way)
    };
    play(flow, way, &answers).await;
    // What undoes is asked when something fails.
    let resources = definition::resources()
        .into_iter()
        .filter(|own| definition::is_final(own));
    let text = flow.to_string();
    let unwinding = resources.filter(|resource| text.contains(&format!("\"{resource}\"")));
    asked.into_inner().unwrap().into_iter().chain(unwinding).collect()
}

async fn play(flow: &Value, way: Way, answers: story::Answers<'_>) -> Status {
    let held = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    let store = world::open(&dir).await;
    story::every_prefix_ends_the_same(store, flow, input(way), answers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_in_which_all_goes_well_comes_to_its_end_from_everywhere() {
    for (name, flow, way) in flows() {
        let status = play(&flow, way, &|resource, _| done(resource, way)).await;
        assert!(matches!(status, Status::Succeeded { .. }), "{name}: {status:?}");
    }
}

/// Each activity in turn fails for good: what was done is undone, and the reason stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_fails_anywhere_takes_its_way_back_from_everywhere() {
    let mut failed = BTreeSet::new();
    for (name, flow, way) in flows() {
        let way_back = flow.to_string().contains(":unwind");
        for failing in activities(&flow, way).await {
            failed.insert(failing.clone());
            let is_final = definition::is_final(&failing);
            let undone = std::sync::atomic::AtomicBool::new(false);
            let answers = |resource: &str, _| match resource {
                _ if resource == failing => Err("Vend.Customer".to_owned()),
                _ => {
                    let undoes = definition::activity(resource) == Some("unwind");
                    undone.fetch_or(undoes, std::sync::atomic::Ordering::Relaxed);
                    done(resource, way)
                }
            };
            let status = play(&flow, way, &answers).await;
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
    assert_eq!(
        failed,
        definition::resources().into_iter().collect(),
        "every activity failed once"
    );
}

/// What the platform got over is as if it had not been.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_whose_every_first_attempt_fails_comes_to_its_end_from_everywhere() {
    for (name, flow, way) in flows() {
        let answers = |resource: &str, attempt| match attempt {
            1 => Err("Vend.Platform".to_owned()),
            _ => done(resource, way),
        };
        let status = play(&flow, way, &answers).await;
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
    fn whatever_happens_to_a_flow_is_kept(flow in any::<prop::sample::Index>(), choices in prop::collection::vec(any::<u32>(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let held = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
            let mut all = flows();
            let (_, definition, way) = all.swap_remove(flow.index(all.len()));
            story::wander(world::open(&dir).await, &definition, input(way), choices).await;
        });
    }
}
