//! Nothing piles up, and what time ends is ended: old histories, answers, deliveries, tokens and questions go, and the
//! ledger's head is signed.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use store::{By, Error, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::flow::World;

const EVERY: Duration = Duration::from_secs(60);
/// Executions stay on record this long after their end; the ledger keeps what they did for ever.
const EXECUTIONS: SignedDuration = SignedDuration::from_hours(90 * 24);
const AT_ONCE: u32 = 200;

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        let now = crate::clock::now();
        if let Err(error) = world.store.write(move |tx| tidy(tx, now)).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot tidy the database"
            );
        }
        tokio::select! { () = cancel.cancelled() => return, () = sleep(EVERY) => {} }
    }
}

fn tidy(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Error> {
    tx.expire_approvals(&By::platform(now))?;
    tx.prune_executions(now - EXECUTIONS, AT_ONCE)?;
    tx.prune_hosts(now - EXECUTIONS)?;
    tx.prune_deliveries(now - EXECUTIONS)?;
    tx.prune_commands(now)?;
    tx.prune_tokens(now)?;
    tx.prune_secrets()?;
    tx.checkpoint(now)?;
    Ok(())
}
