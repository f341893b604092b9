//! What executions left open that are over, however they ended: it is finished as failed, so that nothing seems to be
//! under way for ever, and the traffic is the live release's alone.

use std::{sync::Arc, time::Duration};

use model::{ExecutionId, Place, port::Fault};
use store::{By, Db, Error, Status, Store, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::fleet;
use crate::flow::{World, close, runs, stored};

/// What ends well leaves nothing: this is seldom needed.
const EVERY: Duration = Duration::from_secs(10);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        if let Err(fault) = finish(&world).await {
            warn!("what executions left could not be finished: {fault}");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}

/// Finishes all that is left, and has the load balancer and the hosts follow.
pub async fn finish(world: &World) -> Result<(), Fault> {
    if look(&world.store, By::platform(crate::clock::now())).await? > 0 {
        if let Err(error) = world.routes.apply().await {
            warn!(%error, "the load balancer does not know yet what is left of an execution");
        }
        world.pokes.fleet.notify_one();
        world.pokes.pushes.notify_one();
    }
    Ok(())
}

/// One look. Gives how much it has finished.
pub(crate) async fn look(store: &Store, by: By) -> Result<usize, Fault> {
    let found = store.read(|db| Ok(!db.left_open()?.is_empty() || !db.places_shared()?.is_empty()));
    if !found.await.map_err(stored)? {
        return Ok(0);
    }
    let finished = store.write(move |tx| close_all(tx, &by)).await;
    finished.map_err(stored)
}

/// Looked for in the transaction that ends it: what began meanwhile is left alone.
fn close_all(tx: &mut Tx<'_>, by: &By) -> Result<usize, Error> {
    let mut finished = 0;
    for (place, execution) in tx.left_open()? {
        // What cannot be read of one keeps nobody else's open.
        match tx.attempt(|tx| end(tx, &place, &execution, by))? {
            Ok(()) => finished += 1,
            Err(error) => {
                warn!(%error, execution.id = %execution, "what it left in {place} cannot be finished")
            }
        }
    }
    let mut shared = tx.places_shared()?;
    // Whoever has the hosts has the share, and keeps it until the live release has hosts, too. A place of which that cannot
    // be read is looked at again.
    shared.retain(|place| matches!(runs::moving(tx, place), Ok(None)));
    shared.retain(|place| matches!(fleet::lacks_hosts(tx, place), Ok(false)));
    for place in &shared {
        tx.share_traffic(place, None, by)?;
    }
    Ok(finished + shared.len())
}

fn end(tx: &Tx<'_>, place: &Place, execution: &ExecutionId, by: &By) -> Result<(), Error> {
    let (error, reason) = ending(tx, execution)?;
    warn!(execution.id = %execution, "{place}: {reason}");
    let over = close::Over {
        execution,
        place,
        error: &error,
        reason: &reason,
    };
    close::all(tx, &over, by)
}

/// How an execution ended that left something open: under which error, and in words.
fn ending(db: &Db<'_>, id: &ExecutionId) -> Result<(String, String), Error> {
    let own = match db.execution_summary(id) {
        Ok(own) => own,
        Err(Error::Missing { .. }) => {
            let reason = format!("its execution {id} is not on record any more, and left it open");
            return Ok((String::new(), reason));
        }
        Err(error) => return Err(error),
    };
    let word = match own.status {
        Status::TimedOut => "timed out",
        Status::Aborted => "was stopped",
        Status::Failed => "failed",
        Status::Succeeded | Status::Running => "ended",
    };
    let why = own.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let reason = format!("its execution {id} {word}{why}, and left it open");
    Ok((own.error.unwrap_or_default(), reason))
}

#[cfg(test)]
mod tests;
