//! The source tree at the pushed commit, kept as an object: what builds, bakes and later rollbacks stand on.

use std::sync::Arc;

use model::{
    Place,
    port::{Commit, Fault, Objects as _},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attempt, World, chain};

#[derive(Deserialize)]
struct Input {
    place: Place,
    commit: Commit,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place, commit } = attempt.read()?;
    let directory = world.data.serve().join("tmp");
    let platform = |error: std::io::Error| Fault::platform(format!("cannot write to {directory}: {error}"));
    tokio::fs::create_dir_all(&directory).await.map_err(platform)?;
    let file = directory.join(format!("{}.tar", attempt.ticket));
    let archived = world.repository(&place).archive(&commit.id, &file).await;
    let kept = match archived {
        Ok(()) => world.node.put(&file).await,
        Err(error) => Err(Fault::platform(format!(
            "cannot read commit {}: {}",
            commit.id,
            chain(&error)
        ))),
    };
    // What is left behind by a crash is removed when serve starts.
    let _ = tokio::fs::remove_file(&file).await;
    Ok(json!({ "digest": kept? }))
}
