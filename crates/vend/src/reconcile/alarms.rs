//! Deployments that are under way while an alarm of theirs rings: they are ended, and what they did is undone.
//!
//! What was told is a row, and so is what is under way: after a restart it is looked at again.

use std::{sync::Arc, time::Duration};

use model::{ExecutionId, Place, port::Fault};
use serde_json::json;
use store::{By, Db, Error, ExecutionSummary};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::{World, alarms, definition, deletion, runs, stored, supersede, workers};

/// An alarm that rings was minutes in ringing.
const EVERY: Duration = Duration::from_secs(1);

/// How the ledger calls it.
const ACTION: &str = "execution.alarm";

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

/// What is to be ended, and why.
struct Order {
    run: u64,
    execution: ExecutionId,
    place: Place,
    is_told: bool,
    fault: Fault,
}

async fn look(world: &World) -> Result<(), Fault> {
    for order in world.store.read(ringing).await.map_err(stored)? {
        let (error, cause) = runs::failure(&order.fault);
        if !order.is_told {
            info!("{}", order.fault);
            let by = By::platform(crate::clock::now());
            let mut deed = deletion::deed(&by, ACTION, Some(&order.place), order.execution.as_str());
            deed.detail = json!({ "cause": order.fault.message });
            let written = world.store.write(move |tx| tx.record(deed, by.at));
            written.await.map_err(stored)?;
        }
        workers::interrupt_sparing(&world.engine, order.run, &error, &cause, is_spared).await?;
    }
    Ok(())
}

/// What undoes is left alone, and so is what migrates: nobody would know how far it came. What is recorded has happened.
fn is_spared(resource: &str) -> bool {
    definition::is_final(resource)
        || definition::is_migrating(resource)
        || definition::activity(resource) == Some("record")
}

/// The deployments of pushes that go on while an alarm rings.
fn ringing(db: &Db<'_>) -> Result<Vec<Order>, Error> {
    let mut found = Vec::new();
    for execution in db.open_executions()? {
        if execution.kind != "release" {
            continue;
        }
        match judge(db, &execution) {
            Ok(order) => found.extend(order),
            // Those of others are looked at all the same.
            Err(error) => {
                warn!(execution.id = %execution.id, "cannot see whether an alarm rings for it: {error}")
            }
        }
    }
    Ok(found)
}

fn judge(db: &Db<'_>, execution: &ExecutionSummary) -> Result<Option<Order>, Error> {
    let Some(place) = execution.place.clone() else {
        return Ok(None);
    };
    let Some(own) = db.open_deployment(&place, &execution.id)? else {
        return Ok(None);
    };
    let spec = db.release(&place, own.release)?.content.spec;
    let Some(ring) = alarms::ring(db, &place.tenant, spec.deploy.alarms.as_ref())? else {
        return Ok(None);
    };
    let Some(run) = runs::open(db, execution.run)? else {
        return Ok(None);
    };
    let is_told = supersede::told(db, &execution.id)?
        .iter()
        .any(|line| line.action == ACTION);
    let is_left_alone = match run.orders.is_empty() {
        // It waits for the clock, maybe to be undone once more: that is hurried once and not every second.
        true => is_told,
        false => run.orders.values().any(|order| is_spared(&order.resource)),
    };
    let what = format!("v{} of {place} was taken back", own.release);
    Ok((!is_left_alone).then(|| Order {
        run: execution.run,
        execution: execution.id.clone(),
        fault: alarms::fault(&place, &ring, &what),
        place,
        is_told,
    }))
}
