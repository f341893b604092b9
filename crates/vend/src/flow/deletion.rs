//! Apps and tenants with everything they hold: their environments one by one, then themselves.
//!
//! The order to delete is a row before anything happens, so that a restart goes on with it.

use std::{sync::Arc, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::{StreamExt as _, stream};
use model::{
    AppName, ExecutionId, Place, TenantName,
    ledger::Deed,
    port::{Fault, Upkeep as _},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{By, Db, Error, Store, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{World, cancel, start, stored};
use crate::{config::Data, git::remote::Remotes};

const SETTING: &str = "deletions";
const EVERY: Duration = Duration::from_secs(2);
/// Executions that are read at a time, and those that are stopped at the same time.
const PAGE: u32 = 512;
const STOPS: usize = 64;

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
    for environment in &environments {
        // It would be waited for without end.
        start::refuse_half_gone(tx, &environment.place)?;
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

/// Is the whole tenant to go? Nothing of it begins any more: otherwise whoever goes on starting keeps it from going.
pub fn leaving(db: &Db<'_>, tenant: &TenantName) -> Result<bool, Error> {
    let ordered = ordered(db)?;
    Ok(ordered
        .iter()
        .any(|what| what.tenant == *tenant && what.app.is_none()))
}

/// Is an environment still to go, with its app or its branch? What was protected meanwhile is not.
fn is_to_go(db: &Db<'_>, place: &Place) -> Result<bool, Error> {
    let Some(own) = db.find_environment(place)?.filter(|own| !own.protected) else {
        return Ok(false);
    };
    Ok(own.ending().is_some() || covers(db, &place.tenant, &place.app)?)
}

/// Stops what is open in an environment that is to go, but for its destruction. In one that stays nothing is touched,
/// whatever was known a moment ago.
pub async fn clear(world: &World, place: &Place, cause: &str) -> Result<(), Fault> {
    let (own, by) = (place.clone(), By::platform(crate::clock::now()));
    let open = world.store.read(move |db| in_the_way(db, &own, &by));
    for (run, given_up) in open.await.map_err(stored)? {
        match given_up {
            Some(order) => cancel::carry_out(&world.engine, order).await.map(drop)?,
            None => cancel::interrupt(&world.engine, run, cause).await?,
        }
    }
    Ok(())
}

/// The runs of what is open there, and how they are left if they would undo themselves for ever.
fn in_the_way(db: &Db<'_>, place: &Place, by: &By) -> Result<Vec<(u64, Option<cancel::Order>)>, Error> {
    if !is_to_go(db, place)? {
        return Ok(Vec::new());
    }
    let mut open = db.open_executions()?;
    open.retain(|own| own.place.as_ref() == Some(place) && own.kind != start::DESTROY);
    open.iter()
        .map(|own| Ok((own.run, cancel::given_up(db, own, by)?)))
        .collect()
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
            Err(Error::Refused { .. }) => {
                clear(world, &environment.place, "its app is being deleted").await?;
            }
            Err(error) => return Err(stored(error)),
        }
    }
    if environments.is_empty() {
        finish(world, what).await?;
    }
    Ok(started)
}

/// Stops the open executions of a tenant's state machines. Some may be open afterwards: children of Map runs end by
/// and by, and others may have been started meanwhile.
async fn halt(store: &Store, engine: &engine::Handle, tenant: &TenantName) -> Result<(), Fault> {
    let mut after = 0;
    loop {
        let own = tenant.clone();
        let open = store.read(move |db| db.open_runs_of(&own, after, PAGE)).await;
        let open = open.map_err(stored)?;
        let Some(last) = open.last() else {
            return Ok(());
        };
        after = *last;
        let stop = |key| async move {
            let cause = "its tenant is being deleted";
            (
                key,
                engine
                    .stop(key, Some("Vend.Cancelled".into()), Some(cause.into()))
                    .await,
            )
        };
        let mut stopped = stream::iter(open).map(stop).buffer_unordered(STOPS);
        while let Some((key, stopped)) = stopped.next().await {
            match stopped {
                // It may have ended meanwhile.
                Ok(_) | Err(engine::Error::NotOpen(_)) => {}
                Err(error) => warn!(
                    key,
                    error = &error as &dyn std::error::Error,
                    "an execution could not be stopped"
                ),
            }
        }
    }
}

async fn finish(world: &World, what: &Deletion) -> Result<(), Fault> {
    if what.app.is_none() {
        halt(&world.store, &world.engine, &what.tenant).await?;
    }
    // First: while the order is there, it is done again until it is done.
    world.node.forget(&what.tenant, what.app.as_ref()).await?;
    crate::reconcile::builders::forget(world, &what.tenant, what.app.as_ref()).await?;
    remove_own(world, what).await?;
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
    // What came in the last moment.
    if let Err(fault) = remove_own(world, what).await {
        warn!("{fault}");
    }
    info!(
        "{}{} is deleted",
        what.tenant,
        what.app.as_ref().map(|app| format!("/{app}")).unwrap_or_default()
    );
    Ok(())
}

/// The repositories of what is deleted, and the keys by which a tenant's are fetched elsewhere: who has the name next must
/// find neither.
fn own(data: &Data, remotes: &Remotes, what: &Deletion) -> Vec<Utf8PathBuf> {
    let repositories = data.repositories().join(what.tenant.as_str());
    match &what.app {
        Some(app) => vec![repositories.join(format!("{app}.git"))],
        None => vec![repositories, remotes.of(&what.tenant).keys().to_owned()],
    }
}

async fn remove_own(world: &World, what: &Deletion) -> Result<(), Fault> {
    for path in own(&world.data, &world.remotes, what) {
        remove(&path).await?;
    }
    Ok(())
}

async fn remove(path: &Utf8Path) -> Result<(), Fault> {
    match tokio::fs::remove_dir_all(path).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let what = format!("{path} of what is deleted cannot be removed: {error}");
            Err(Fault::platform(what).next(format!("sudo rm -r {path}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{Handle, Limits, Setup, Start};

    use super::*;

    const WAIT: &str = r#"{"StartAt":"Wait","States":{"Wait":{"Type":"Wait","Seconds":900,"End":true}}}"#;
    const MAP: &str = r#"{"StartAt":"Each","States":{"Each":{"Type":"Map","End":true,"ItemProcessor":{
        "ProcessorConfig":{"Mode":"DISTRIBUTED","ExecutionType":"STANDARD"},"StartAt":"Wait",
        "States":{"Wait":{"Type":"Wait","Seconds":900,"End":true}}}}}}"#;

    fn engine(store: &Store, cancel: &CancellationToken) -> Handle {
        let (engine, handle) = engine::new(Setup {
            store: store.clone(),
            clock: crate::clock::now,
            bits: crate::clock::bits,
            refuses: Arc::new(|_, _| None),
            own: |_| false,
            objects: None,
            witness: None,
            limits: Limits::default(),
        });
        tokio::spawn(engine.run(cancel.clone().cancelled_owned()));
        handle
    }

    fn start((tenant, owner): (&TenantName, u64), text: &str, name: &str) -> Start {
        Start {
            tenant: Some(tenant.clone()),
            owner,
            machine: owner,
            machine_arn: format!("machine:{owner}"),
            machine_name: "m".into(),
            role: "role".into(),
            program: asl::Machine::parse(text).unwrap(),
            definition: text.into(),
            name: name.into(),
            arn: format!("execution:{owner}:{name}"),
            origin: "{}".into(),
            input: json!([1, 2, 3]),
            fresh: false,
        }
    }

    /// Children of a tenant's Map runs that are open.
    async fn children(store: &Store, key: u64) -> usize {
        let open = store.read(move |db| {
            let run = db.map_run_of(key, 1)?;
            run.map_or_else(|| Ok(Vec::new()), |run| db.open_children(run.key))
        });
        open.await
            .map_err(|error: Error| error.to_string())
            .unwrap()
            .len()
    }

    #[tokio::test]
    async fn neither_repositories_nor_keys_of_a_tenant_stay_for_the_next_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data(Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap());
        let remotes = Remotes::new(&crate::config::Platform::default(), &data);
        let file = |path: &str| data.0.join(path);
        let all = [
            data.repositories().join("acme/shop.git/HEAD"),
            data.repositories().join("acme/site.git/HEAD"),
            data.repositories().join("acme-eu/shop.git/HEAD"),
            file("serve/ssh/acme/id_ed25519"),
            file("serve/ssh/acme-eu/id_ed25519"),
        ];
        for path in &all {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let there = || all.clone().map(|path| path.exists());
        let mut what = Deletion {
            tenant: "acme".parse().unwrap(),
            app: Some("shop".parse().unwrap()),
            actor: "person:a".into(),
        };
        for expected in [[false, true, true, true, true], [false, false, true, false, true]] {
            // Once more does no harm.
            for path in [own(&data, &remotes, &what), own(&data, &remotes, &what)].concat() {
                remove(&path).await.unwrap();
            }
            assert_eq!(there(), expected);
            what.app = None;
        }
        // What cannot be removed is told, and the deletion goes on later.
        let fault = remove(&all[4]).await.unwrap_err();
        assert!(fault.next.unwrap().starts_with("sudo rm -r "));
    }

    #[tokio::test]
    async fn what_is_protected_in_time_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let store = Store::open(&path).unwrap();
        let by = || By::platform(crate::clock::now());
        let text = "app: shop\nenvironments: { production: {}, preview: { branches: [login] } }\n";
        let app = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
        let spec = app.following("login").unwrap().remove(0);
        let place: Place = "acme/shop/login".parse().unwrap();
        let looked = store.write(move |tx| {
            tx.create_tenant(&place.tenant, &by())?;
            tx.create_app(&place.tenant, &place.app, None, &by())?;
            tx.ensure_preview(&place, &spec, 9, &by())?;
            let look = |tx: &Tx<'_>| -> Result<_, Error> {
                let ends = start::refuse_staying(tx, &place).is_ok();
                Ok((ends, is_to_go(tx, &place)?))
            };
            let mut looks = vec![look(tx)?];
            tx.end_preview(&place, "its branch is gone", &by())?;
            looks.push(look(tx)?);
            tx.set_protected(&place, true, &by())?;
            looks.push(look(tx)?);
            // Nor is it when all of its app is to go and it was protected since.
            tx.set_protected(&place, false, &by())?;
            let own = Deletion {
                tenant: place.tenant.clone(),
                app: None,
                actor: "person:a".into(),
            };
            order(tx, &own, &by())?;
            looks.push(look(tx)?);
            tx.set_protected(&place, true, &by())?;
            looks.push(look(tx)?);
            Ok::<_, Error>(looks)
        });
        let expected = [
            (false, false),
            (true, true),
            (false, false),
            (false, true),
            (false, false),
        ];
        assert_eq!(looked.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_tenant_goes_when_nothing_of_it_moves_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let (store, cancel) = (Store::open(&path).unwrap(), CancellationToken::new());
        let by = || By::platform(crate::clock::now());
        let names: [TenantName; 2] = ["acme".parse().unwrap(), "other".parse().unwrap()];
        for name in names.clone() {
            store
                .write(move |tx| tx.create_tenant(&name, &by()))
                .await
                .unwrap();
        }
        let (engine, acme, other) = (engine(&store, &cancel), (&names[0], 1), (&names[1], 2));
        engine.start(start(acme, WAIT, "waits")).await.unwrap();
        let map = engine.start(start(acme, MAP, "maps")).await.unwrap().key;
        let stays = engine.start(start(other, WAIT, "waits")).await.unwrap().key;
        while children(&store, map).await < 3 {
            tokio::task::yield_now().await;
        }

        let delete = || {
            let name = names[0].clone();
            store.write(move |tx| tx.delete_tenant(&name, &by()))
        };
        let refused = delete().await.unwrap_err();
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
        while let Err(error) = delete().await {
            assert!(matches!(error, Error::Refused { .. }), "{error}");
            halt(&store, &engine, &names[0]).await.unwrap();
        }

        engine.settle().await.unwrap();
        let open = |name: &TenantName| {
            let name = name.clone();
            store.read(move |db| db.open_runs_of(&name, 0, 9))
        };
        assert_eq!(open(&names[0]).await.unwrap(), Vec::<u64>::new());
        assert_eq!(open(&names[1]).await.unwrap(), [stays], "another tenant goes on");
        cancel.cancel();
    }
}
