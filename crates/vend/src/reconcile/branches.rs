//! Environments that come and go with their branches: what expires is marked, and what is marked is taken down until it
//! is gone.
//!
//! The mark is a row with its line in the ledger, so that a restart goes on with it, whoever set it.

use std::{sync::Arc, time::Duration};

use model::{Place, port::Fault, spec::written};
use store::{By, Error};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::patience;
use crate::flow::{World, deletion, start, stored};

const EVERY: Duration = Duration::from_secs(5);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        if let Err(fault) = round(&world).await {
            warn!("cannot look for environments whose branches are gone: {fault}");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.branches.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

async fn round(world: &World) -> Result<(), Fault> {
    let now = crate::clock::now();
    let expired = world
        .store
        .read(move |db| db.expired(now))
        .await
        .map_err(stored)?;
    if !expired.is_empty() {
        let marked = world.store.write(move |tx| {
            // Read once more: somebody may have pushed meanwhile.
            for own in tx.expired(now)? {
                let Some(preview) = &own.preview else { continue };
                let reason = format!("nothing was pushed to it for {}", written(preview.expires_after));
                tx.end_preview(&own.place, &reason, &By::platform(now))?;
            }
            Ok::<_, Error>(())
        });
        marked.await.map_err(stored)?;
    }
    let ending = world.store.read(|db| db.ending()).await.map_err(stored)?;
    for (place, reason, actor) in ending {
        if let Err(fault) = take_down(world, &place, &reason, By::new(actor, now)).await {
            warn!("{place} could not be taken down: {fault}");
        }
    }
    Ok(())
}

async fn take_down(world: &World, place: &Place, reason: &str, by: By) -> Result<(), Fault> {
    let own = place.clone();
    let failing = world
        .store
        .read(move |db| patience::failing_in(db, &own, start::DESTROY));
    let failing = failing.await.map_err(stored)?;
    if failing.is_some_and(|failing| by.at < failing.next) {
        return Ok(());
    }
    match start::end(world, place.clone(), by).await {
        Ok(execution) => {
            info!("{place} is taken down by {execution}: {reason}");
            Ok(())
        }
        // Something is under way there, its own destruction included, or it stays: the next round looks again.
        Err(Error::Refused { .. }) => deletion::clear(world, place, reason).await,
        Err(Error::Missing { .. }) => Ok(()),
        Err(error) => Err(stored(error)),
    }
}
