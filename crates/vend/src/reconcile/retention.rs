//! Nothing piles up: old histories and answers to repeated commands go when nobody can want them any more.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::World;

const EVERY: Duration = Duration::from_secs(600);
/// Executions stay on record this long after their end; the ledger keeps what they did for ever.
const EXECUTIONS: SignedDuration = SignedDuration::from_hours(90 * 24);
const AT_ONCE: u32 = 200;

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        let before = crate::clock::now() - EXECUTIONS;
        match world.store.write(move |tx| tx.prune_executions(before, AT_ONCE)).await {
            Ok(0) => {}
            Ok(pruned) => info!(pruned, "forgot {pruned} executions that ended 90 days ago"),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "cannot forget old executions"),
        }
        tokio::select! { () = cancel.cancelled() => return, () = sleep(EVERY) => {} }
    }
}
