//! The image that hosts start from: the customer's scripts on a base, or the one that is there already.

use std::sync::Arc;

use jiff::SignedDuration;
use model::{
    Digest, Place,
    port::{BakeOrder, Bakery as _, Commit, Fault},
    spec,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attempt, World, stored};

const TIMEOUT: SignedDuration = SignedDuration::from_mins(45);

#[derive(Deserialize)]
struct Input {
    place: Place,
    commit: Commit,
    spec: spec::Environment,
    source: Sourced,
}

#[derive(Deserialize)]
struct Sourced {
    digest: Digest,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let order = BakeOrder {
        place: input.place.clone(),
        source: input.source.digest,
        base: input.spec.image.base,
        scripts: input.spec.image.scripts,
        inputs: input.spec.image.inputs,
        commit: input.commit,
        timeout: TIMEOUT,
    };
    let baked = world.node.bake(&attempt.steady, &order).await?;
    let (image, reused, log) = (baked.image, baked.reused, baked.log.clone());
    let at = crate::clock::now();
    world.store.write(move |tx| tx.keep_image(&baked, at)).await.map_err(stored)?;
    Ok(json!({ "image": image, "reused": reused, "log": log }))
}
