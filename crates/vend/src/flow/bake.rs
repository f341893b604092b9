//! The image that hosts start from: the customer's scripts on a base, or the one that is there already.

use std::sync::Arc;

use jiff::SignedDuration;
use model::{
    Place,
    port::{BakeOrder, Baked, Bakery as _, Blame, Commit, Fault},
    spec,
};
use serde::Deserialize;
use serde_json::{Value, json};

use store::{Bake, By, NewBake};

use super::{Attempt, World, state::Sourced, stored};

/// Of all scripts of an image together, without what they wait for.
pub const TIMEOUT: SignedDuration = SignedDuration::from_mins(45);

#[derive(Deserialize)]
struct Input {
    place: Place,
    commit: Commit,
    spec: spec::Environment,
    source: Sourced,
}

/// An image that is there takes no room, however full the disk is. One that cannot be looked for, since it is wrong, is refused
/// by the bake; one that could not be looked for just now may have to be made.
fn takes_room(found: &Result<Option<Baked>, Fault>) -> bool {
    match found {
        Ok(found) => found.is_none(),
        Err(fault) => fault.blame == Blame::Platform,
    }
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let order = BakeOrder {
        place: input.place.clone(),
        source: input.source.digest,
        login: super::images::login(world, &input.place, &input.spec.image).await?,
        base: input.spec.image.base,
        scripts: input.spec.image.scripts,
        inputs: input.spec.image.inputs,
        commit: input.commit,
        trunk: super::images::trunk(world, &input.place).await?,
        timeout: TIMEOUT,
    };
    let new = NewBake {
        ticket: attempt.steady.clone(),
        place: input.place,
        execution: Some(attempt.execution.clone()),
        commit: order.commit.clone(),
        base: order.base.clone(),
        log: format!("bake/{}", attempt.steady).parse().ok(),
    };
    let by = By::platform(crate::clock::now());
    let begun = world.store.write(move |tx| tx.begin_bake(&new, &by));
    let bake = begun.await.map_err(stored)?;
    let room = match takes_room(&world.node.find(&order).await) {
        true => {
            let note = |why| note(world, &bake, why);
            super::images::room(&world.node, &world.pokes.sweep, bake.waits.clone(), note).await
        }
        false => Ok(()),
    };
    let baked = match room {
        Ok(()) => world.node.bake(&attempt.steady, &order).await,
        Err(full) => Err(full),
    };
    let (ticket, outcome, by) = (
        attempt.steady.clone(),
        baked.clone(),
        By::platform(crate::clock::now()),
    );
    let finished = world
        .store
        .write(move |tx| tx.finish_bake(&ticket, outcome.as_ref(), &by));
    finished.await.map_err(stored)?;
    let baked = baked?;
    super::images::attest(world, &order, &baked).await?;
    Ok(json!({ "image": baked.image, "reused": baked.reused, "log": baked.log }))
}

/// Puts on record why a bake waits, or that it does not any more.
async fn note(world: &World, bake: &Bake, why: Option<String>) -> Result<(), Fault> {
    if let Some(why) = &why {
        tracing::warn!(place = %bake.place, "a bake waits for {why}");
    }
    let ticket = bake.ticket.clone();
    let noted = world
        .store
        .write(move |tx| tx.bake_waits(&ticket, why.as_deref()));
    noted.await.map_err(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_looked_for_may_need_room() {
        let there = Baked {
            image: model::Digest::of("image"),
            layers: Vec::new(),
            reused: true,
            duration_ms: 0,
            log: None,
        };
        for (found, expected) in [
            (Ok(None), true),
            (Ok(Some(there)), false),
            (Err(Fault::platform("it took too long")), true),
            (Err(Fault::customer("there is no such base")), false),
            (Err(Fault::order("the order is wrong")), false),
        ] {
            assert_eq!(takes_room(&found), expected, "{found:?}");
        }
    }
}
