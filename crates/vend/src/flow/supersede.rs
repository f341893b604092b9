//! A broken release never blocks the fix: a newer push takes the place of one that goes nowhere, and says so.
//!
//! What goes well is not stopped: who pushes often would never see anything live.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::{ExecutionId, HostId, Place, port::Fault};
use serde_json::json;
use store::{
    ApprovalState, By, Db, DeploymentState, Error, ExecutionFilter, ExecutionSummary, HostState,
    LedgerFilter, Push,
};
use tracing::info;

use super::{World, definition, deletion, late, runs, stored, workers};
use crate::reconcile::bases::{AUTOMATIC, REFRESH};

#[cfg(test)]
mod giving;

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
    let patience = SignedDuration::from_secs(world.platform.deployments.patience_s.into());
    let ordered = world.store.write(move |tx| {
        let mut orders = Vec::new();
        for place in tx.places_held_up()? {
            let Some(order) = judge(tx, &place, by.at, patience)? else {
                continue;
            };
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
fn judge(
    db: &Db<'_>,
    place: &Place,
    now: Timestamp,
    patience: SignedDuration,
) -> Result<Option<Order>, Error> {
    let newest = db
        .pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?
        .pop();
    let is_someones = |push: &Push| !matches!(push.origin.as_str(), REFRESH | AUTOMATIC);
    let Some(push) = newest.filter(is_someones) else {
        // A newer base can wait.
        return Ok(None);
    };
    let Some(execution) = giving_way(db, place)? else {
        return Ok(None);
    };
    if is_told(db, &execution.id)? || is_ending(db, &execution)? {
        return Ok(None);
    }
    let why = match broken(db, place, &execution.id)? {
        None => hangs(db, place, &execution, now, patience)?,
        why => why,
    };
    Ok(why.map(|why| Order {
        cause: cause(&push, &why),
        execution,
    }))
}

/// What a newer push may take the place of: a release, or the live one's way to machines that joined late.
fn giving_way(db: &Db<'_>, place: &Place) -> Result<Option<ExecutionSummary>, Error> {
    for kind in ["release", late::JOIN] {
        let filter = ExecutionFilter {
            tenant: Some(place.tenant.clone()),
            app: Some(place.app.clone()),
            environment: Some(place.environment.clone()),
            kind: Some(kind.into()),
            open: Some(true),
            limit: 1,
            ..ExecutionFilter::default()
        };
        if let Some(execution) = db.executions(&filter)?.pop() {
            return Ok(Some(execution));
        }
    }
    Ok(None)
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

/// What runs hooks. A migration is not given up: nobody would know how far it came.
const HOOKS: [&str; 4] = ["deploy", "roll", "machines", "shift"];

/// Deployments that are looked at for how long hooks take here.
const RECENT: u32 = 5;

/// Why a release hangs in a hook: no host has told of anything for longer than it should take.
fn hangs(
    db: &Db<'_>,
    place: &Place,
    execution: &ExecutionSummary,
    now: Timestamp,
    patience: SignedDuration,
) -> Result<Option<String>, Error> {
    let Some(own) = db.open_deployment(place, &execution.id)? else {
        return Ok(None);
    };
    let in_hooks = runs::open(db, execution.run)?.is_some_and(|run| {
        let mut activities = run.orders.values();
        activities
            .any(|order| definition::activity(&order.resource).is_some_and(|name| HOOKS.contains(&name)))
    });
    let told = db.deployment_events(&own.id)?.into_iter().map(|(_, report)| {
        let took = SignedDuration::try_from(Duration::from_millis(report.duration_ms)).unwrap_or_default();
        report
            .started_at
            .saturating_add(took)
            .unwrap_or(report.started_at)
    });
    let quiet = now.duration_since(told.max().unwrap_or(own.started_at).max(own.started_at));
    let allowed = patience.max(usual(db, place)?.saturating_mul(2));
    Ok((in_hooks && quiet > allowed).then(|| {
        let (quiet, allowed) = (quiet.as_secs(), allowed.as_secs());
        format!("it hangs in a hook: no host has told of anything for {quiet} s, and {allowed} s are enough")
    }))
}

/// The longest that all hooks of one host took in the last deployments that went well.
fn usual(db: &Db<'_>, place: &Place) -> Result<SignedDuration, Error> {
    let mut longest = SignedDuration::ZERO;
    for deployment in db.deployments(place, RECENT)? {
        if deployment.state != DeploymentState::Succeeded {
            continue;
        }
        let mut hosts: BTreeMap<HostId, Duration> = BTreeMap::new();
        for (host, report) in db.deployment_events(&deployment.id)? {
            *hosts.entry(host).or_default() += Duration::from_millis(report.duration_ms);
        }
        let most = hosts.into_values().max().unwrap_or_default();
        longest = longest.max(SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX));
    }
    Ok(longest)
}
