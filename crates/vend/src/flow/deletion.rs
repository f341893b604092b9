//! Apps and tenants with everything they hold: their environments one by one, then themselves.
//!
//! The order to delete is a row before anything happens, so that a restart goes on with it.

use std::{sync::Arc, time::Duration};

use model::{
    AppName, ExecutionId, Place, TenantName,
    ledger::Deed,
    port::{Fault, Upkeep as _},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{By, Db, Error, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{World, start, stored, workers};

const SETTING: &str = "deletions";
const EVERY: Duration = Duration::from_secs(2);

/// An app, or a whole tenant, that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub tenant: TenantName,
    pub app: Option<AppName>,
    pub actor: String,
}

pub fn deed(by: &By, action: &str, place: Option<&Place>, object: &str) -> Deed {
    Deed {
        actor: by.actor.clone(),
        action: action.into(),
        tenant: place.map(|place| place.tenant.to_string()),
        object: object.into(),
        detail: json!({}),
    }
}

/// Writes the order down. Refused when anything of it is protected.
pub fn order(tx: &mut Tx<'_>, what: &Deletion, by: &By) -> Result<(), Error> {
    match &what.app {
        Some(app) => drop(tx.app(&what.tenant, app)?),
        None => drop(tx.tenant(&what.tenant)?),
    }
    let environments = tx.environments(Some((&what.tenant, what.app.as_ref())))?;
    if let Some(held) = environments.iter().find(|environment| environment.protected) {
        return Err(Error::Refused {
            message: format!("{} is protected", held.place),
            next: Some(format!("vend environments unprotect {}", held.place)),
        });
    }
    let mut all = ordered(tx)?;
    if !all.contains(what) {
        all.push(what.clone());
        keep(tx, &all, by)?;
    }
    Ok(())
}

fn ordered(db: &Db<'_>) -> Result<Vec<Deletion>, Error> {
    let text = db.setting(SETTING)?.unwrap_or_else(|| "[]".into());
    serde_json::from_str(&text).map_err(|_| Error::Damaged("the list of deletions cannot be read".into()))
}

fn keep(tx: &mut Tx<'_>, all: &[Deletion], by: &By) -> Result<(), Error> {
    let text = serde_json::to_string(all).expect("deletions are plain data");
    tx.set_setting(SETTING, Some(&text), by)
}

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        match world.store.read(ordered).await {
            Ok(all) => {
                for what in &all {
                    if let Err(fault) = once(&world, what).await {
                        warn!("a deletion could not go on: {fault}");
                    }
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot read what is to be deleted"
            ),
        }
        tokio::select! { () = cancel.cancelled() => return, () = sleep(EVERY) => {} }
    }
}

/// Is what belongs to this app to go?
pub fn covers(db: &Db<'_>, tenant: &TenantName, app: &AppName) -> Result<bool, Error> {
    let ordered = ordered(db)?;
    Ok(ordered
        .iter()
        .any(|what| what.tenant == *tenant && what.app.as_ref().is_none_or(|own| own == app)))
}

/// Stops what is open in an environment that is to go, but for its destruction.
async fn cancel(world: &World, place: &Place) -> Result<(), Fault> {
    let open = world
        .store
        .read(|db| db.open_executions())
        .await
        .map_err(stored)?;
    for execution in open {
        if execution.place.as_ref() == Some(place) && execution.kind != start::DESTROY {
            let cause = "its app is being deleted";
            workers::interrupt(world, execution.run, "Vend.Cancelled", cause).await?;
        }
    }
    Ok(())
}

/// Does what can be done now: destroys environments, then deletes what has none any more.
pub async fn once(world: &World, what: &Deletion) -> Result<Vec<ExecutionId>, Fault> {
    let own = what.clone();
    let environments = world
        .store
        .read(move |db| db.environments(Some((&own.tenant, own.app.as_ref()))))
        .await;
    let environments = match environments {
        Ok(environments) => environments,
        Err(Error::Missing { .. }) => Vec::new(),
        Err(error) => return Err(stored(error)),
    };
    let mut started = Vec::new();
    for environment in &environments {
        let by = By::new(what.actor.clone(), crate::clock::now());
        match start::destroy(world, environment.place.clone(), by).await {
            Ok(execution) => started.push(execution),
            // Something is under way, its own destruction included: the next round looks again.
            Err(Error::Refused { .. }) => cancel(world, &environment.place).await?,
            Err(error) => return Err(stored(error)),
        }
    }
    if environments.is_empty() {
        finish(world, what).await?;
    }
    Ok(started)
}

async fn finish(world: &World, what: &Deletion) -> Result<(), Fault> {
    // First: while the order is there, it is done again until it is done.
    world.node.forget(&what.tenant, what.app.as_ref()).await?;
    let own = what.clone();
    let by = By::new(what.actor.clone(), crate::clock::now());
    let deleted = world.store.write(move |tx| {
        let apps = match tx.apps(Some(&own.tenant)) {
            Ok(apps) => apps,
            Err(Error::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        for app in apps
            .iter()
            .filter(|app| own.app.as_ref().is_none_or(|only| *only == app.name))
        {
            tx.delete_app(&own.tenant, &app.name, &by)?;
        }
        if own.app.is_none() && tx.tenant(&own.tenant).is_ok() {
            tx.delete_tenant(&own.tenant, &by)?;
        }
        let mut all = ordered(tx)?;
        all.retain(|other| *other != own);
        keep(tx, &all, &by)
    });
    match deleted.await {
        Ok(()) => {}
        // An execution is still ending: the next round looks again.
        Err(Error::Refused { .. }) => return Ok(()),
        Err(error) => return Err(stored(error)),
    }
    let path = match &what.app {
        Some(app) => world.repository_of(&what.tenant, app).path().to_owned(),
        None => world.data.repositories().join(what.tenant.as_str()),
    };
    match tokio::fs::remove_dir_all(&path).await {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => warn!(%error, %path, "a repository could not be removed"),
    }
    info!(
        "{}{} is deleted",
        what.tenant,
        what.app.as_ref().map(|app| format!("/{app}")).unwrap_or_default()
    );
    Ok(())
}
