//! A broken release never blocks the fix: a newer push takes the place of one that goes nowhere, and says so.
//!
//! What goes well is not stopped: who pushes often would never see anything live.

use model::{ExecutionId, Place, port::Fault};
use serde_json::json;
use store::{ApprovalState, By, Db, Error, ExecutionFilter, ExecutionSummary, HostState, LedgerFilter, Push};
use tracing::info;

use super::{World, definition, deletion, runs, stored, workers};
use crate::reconcile::bases::{AUTOMATIC, REFRESH};

/// How the ledger calls it, and how the execution's failure.
pub const ACTION: &str = "execution.supersede";
pub const ERROR: &str = "Vend.Superseded";

struct Order {
    execution: ExecutionSummary,
    cause: String,
}

/// Ends releases that are broken and that a newer push waits for. What they did is undone, and the push goes next.
pub async fn look(world: &World) -> Result<(), Fault> {
    let by = By::platform(crate::clock::now());
    let ordered = world.store.write(move |tx| {
        let mut orders = Vec::new();
        for place in tx.places_held_up()? {
            let Some(order) = judge(tx, &place)? else { continue };
            let mut deed = deletion::deed(&by, ACTION, Some(&place), order.execution.id.as_str());
            deed.detail = json!({ "cause": order.cause });
            tx.record(deed, by.at)?;
            orders.push(order);
        }
        Ok(orders)
    });
    for order in ordered.await.map_err(stored)? {
        info!("{}: {}", order.execution.id, order.cause);
        workers::interrupt(&world.engine, order.execution.run, ERROR, &order.cause).await?;
    }
    Ok(())
}

/// The release of an environment that is to give way, if it is one and was not told yet.
fn judge(db: &Db<'_>, place: &Place) -> Result<Option<Order>, Error> {
    let newest = db
        .pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?
        .pop();
    let is_someones = |push: &Push| !matches!(push.origin.as_str(), REFRESH | AUTOMATIC);
    let Some(push) = newest.filter(is_someones) else {
        // A newer base can wait.
        return Ok(None);
    };
    let filter = ExecutionFilter {
        tenant: Some(place.tenant.clone()),
        app: Some(place.app.clone()),
        environment: Some(place.environment.clone()),
        kind: Some("release".into()),
        open: Some(true),
        limit: 1,
        ..ExecutionFilter::default()
    };
    let Some(execution) = db.executions(&filter)?.pop() else {
        return Ok(None);
    };
    if is_told(db, &execution.id)? || is_ending(db, &execution)? {
        return Ok(None);
    }
    let why = broken(db, place, &execution.id)?;
    Ok(why.map(|why| Order {
        cause: cause(&push, &why),
        execution,
    }))
}

fn cause(push: &Push, why: &str) -> String {
    let commit = push.commit.id.get(..8).unwrap_or(&push.commit.id);
    format!("push {} of {commit} supersedes it, because {why}", push.id)
}

fn is_told(db: &Db<'_>, execution: &ExecutionId) -> Result<bool, Error> {
    let lines = db.ledger(&LedgerFilter {
        object: Some(execution.to_string()),
        limit: super::cancel::LINES,
        ..LedgerFilter::default()
    })?;
    Ok(lines
        .iter()
        .any(|line| line.action == ACTION || line.action == super::cancel::ACTION))
}

fn is_ending(db: &Db<'_>, execution: &ExecutionSummary) -> Result<bool, Error> {
    let run = runs::open(db, execution.run)?;
    Ok(run.is_none_or(|run| {
        run.orders
            .values()
            .any(|order| definition::is_final(&order.resource))
    }))
}

/// Why a release goes nowhere by itself.
fn broken(db: &Db<'_>, place: &Place, execution: &ExecutionId) -> Result<Option<String>, Error> {
    let approvals = db.approvals_of_execution(execution)?;
    if approvals
        .iter()
        .any(|approval| approval.state == ApprovalState::Open)
    {
        return Ok(Some("it waits for people".into()));
    }
    let Some(own) = db.open_deployment(place, execution)? else {
        return Ok(None);
    };
    if let Some((who, _)) = &own.paused {
        return Ok(Some(format!("{who} paused it")));
    }
    let failed = db.hosts_of_release(place, own.release)?;
    let failed = failed.iter().find(|host| host.state == HostState::Failed);
    Ok(failed.map(|host| format!("it failed on host {}", host.id)))
}
