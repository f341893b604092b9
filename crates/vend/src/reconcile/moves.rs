//! Environments that are served by nobody, because their data was on the way, and whose carrier has stopped to say that it
//! goes on: they are served where their data is.

use std::{sync::Arc, time::Duration};

use model::port::Fault;
use store::By;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::flow::{World, moving, stored};

/// Whoever carries data says for minutes that it goes on: seconds more are no matter.
const EVERY: Duration = Duration::from_secs(5);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        never = watch(&world) => never,
    }
}

async fn watch(world: &World) {
    loop {
        sleep(EVERY).await;
        if let Err(fault) = look(world, By::platform(crate::clock::now())).await {
            warn!("cannot look for environments that are served by nobody: {fault}");
        }
    }
}

/// One look, at a time. An environment that cannot be served yet is tried at the next.
async fn look(world: &World, by: By) -> Result<(), Fault> {
    let now = by.at;
    let over = world
        .store
        .read(move |db| db.overdue_moves(now))
        .await
        .map_err(stored)?;
    for place in over {
        if let Err(fault) = moving::lapse(world, &place, by.clone()).await {
            warn!(%place, "{place} is served by nobody still: {fault}");
        }
    }
    Ok(())
}
