//! Deployments that are under way while an alarm of theirs rings: they are ended, and what they did is undone.
//!
//! What was told is a row, and so is what is under way: after a restart it is looked at again.

use std::{sync::Arc, time::Duration};

use model::port::Fault;
use store::Db;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::{World, alarms, definition, runs, stored, workers};

/// An alarm that rings was minutes in ringing.
const EVERY: Duration = Duration::from_secs(1);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        if let Err(fault) = look(&world).await {
            warn!("cannot look whether an alarm rings: {fault}");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}

async fn look(world: &World) -> Result<(), Fault> {
    for (run, fault) in world.store.read(ringing).await.map_err(stored)? {
        info!("{fault}");
        let (error, cause) = runs::failure(&fault);
        workers::interrupt(&world.engine, run, &error, &cause).await?;
    }
    Ok(())
}

/// The runs of pushes whose deployment goes on while an alarm rings. What undoes is left alone, and so is what migrates:
/// nobody would know how far it came.
fn ringing(db: &Db<'_>) -> Result<Vec<(u64, Fault)>, store::Error> {
    let mut found = Vec::new();
    for execution in db.open_executions()? {
        let Some(place) = execution.place.filter(|_| execution.kind == "release") else {
            continue;
        };
        let Some(own) = db.open_deployment(&place, &execution.id)? else {
            continue;
        };
        let release = db.release(&place, own.release)?.content;
        let rule = release.spec.deploy.alarms.as_ref();
        let Some(ring) = alarms::ring(db, &place.tenant, rule)? else {
            continue;
        };
        let is_left_alone = runs::open(db, execution.run)?.is_none_or(|run| {
            let mut orders = run.orders.values();
            orders.any(|order| {
                definition::is_final(&order.resource) || definition::is_migrating(&order.resource)
            })
        });
        if !is_left_alone {
            let what = format!("v{} of {place} was taken back", own.release);
            found.push((execution.run, alarms::fault(&place, &ring, &what)));
        }
    }
    Ok(found)
}
