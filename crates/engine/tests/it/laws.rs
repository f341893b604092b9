//! Laws for generated machines, against the real store: what is kept of an execution says at every moment what the
//! execution is, wherever it was folded.

#[path = "../../../asl/tests/laws/generate.rs"]
#[allow(dead_code, reason = "these laws need a part of it")]
mod generate;
mod story;

use camino::Utf8PathBuf;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::json;

use crate::world;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_prefix_of_the_log_is_the_execution(
        definition in generate::either(),
        choices in prop::collection::vec(any::<u32>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let held = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
            let store = world::open(&dir).await;
            let input = json!({ "n": 1, "items": [1, 2, 3], "f": 0.1 });
            story::wander(store, &definition, input, choices).await;
        });
    }
}
