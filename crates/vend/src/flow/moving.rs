//! An environment's way to AWS and back, as this platform sees it: who serves it is a row, and the load balancer follows.
//!
//! What is made on AWS is made by whoever moves it, with their own credentials; nothing here can call AWS.

use std::sync::Arc;

use axum::body::Body;
use model::{Place, port::Fault, route::Protocol, spec, wire::Side};
use store::{By, Error, Tx};
use tracing::warn;

use super::{World, commands::refused, start, variables::DATABASE_NAME};
use crate::web::Moving;

/// Takes one step, and has the load balancer follow before it answers.
pub async fn step(world: &World, place: Place, step: Moving, by: By) -> Result<(), Fault> {
    match step {
        Moving::Begin { host } => begin(world, &place, host, by).await.map_err(refused)?,
        Moving::Serve { share, closed } => {
            let own = place.clone();
            let until = closed.map(|closed| by.at + closed);
            let written = world
                .store
                .write(move |tx| tx.serve_move(&own, share, until, &by));
            let found = written.await.map_err(refused)?;
            if !found.closed && found.data == Some(Side::Here) {
                let opened = open(world, &found).await;
                world.routes.apply().await?;
                return opened;
            }
        }
        Moving::Finish => return start::leave(world, &place, by).await.map(drop).map_err(refused),
        Moving::Reopen => {
            return start::come_back(world, &place, by)
                .await
                .map(drop)
                .map_err(refused);
        }
        Moving::Settle { side, counted, since } => {
            recount(world, &place, side).await?;
            let written = world
                .store
                .write(move |tx| tx.settle_move(&place, side, &counted, since, &by));
            written.await.map(drop).map_err(refused)?;
        }
        Moving::End { lose } => {
            let own = place.clone();
            let found = world
                .store
                .read(move |db| db.the_move(&own))
                .await
                .map_err(refused)?;
            found.may_end(lose).map_err(refused)?;
            if found.finished_at.is_none() {
                open(world, &found).await?;
            }
            let own = place.clone();
            let written = world.store.write(move |tx| tx.end_move(&own, lose, &by));
            written.await.map_err(refused)?;
            // Pushes that came meanwhile have waited.
            world.pokes.pushes.notify_one();
        }
    }
    world.routes.apply().await
}

/// Refuses where what is here is not what was dumped or loaded: a server that was started again has let others write.
async fn recount(world: &World, place: &Place, side: Side) -> Result<(), Fault> {
    let own = place.clone();
    let read = world
        .store
        .read(move |db| Ok::<_, Error>((db.the_move(&own)?, db.environment(&own)?)));
    let (found, environment) = read.await.map_err(refused)?;
    let Some(host) = environment
        .database_host
        .filter(|_| found.closed && found.data.is_some_and(|own| own != side))
    else {
        return Ok(());
    };
    let now = world.node.count(&host, place, DATABASE_NAME).await?;
    match found.counted {
        Some(counted) if counted == now => Ok(()),
        _ => Err(Fault::order(format!(
            "what is here is not what was counted any more: {now}"
        ))),
    }
}

/// Lets the app write to its database here. Whether a dump was ever whole is not asked: a half one made it read-only too.
async fn open(world: &World, found: &store::Move) -> Result<(), Fault> {
    let place = found.place.clone();
    let read = world.store.read(move |db| db.environment(&place));
    match read.await.map_err(refused)?.database_host {
        Some(host) if found.data.is_some() => world.node.open(&host, &found.place, DATABASE_NAME).await,
        _ => Ok(()),
    }
}

/// All of the data of an environment that nobody is served by just now.
pub async fn dump(world: &Arc<World>, place: Place, by: By) -> Result<(String, Body), Fault> {
    let world = Arc::clone(world);
    // Brought to its end also when nobody waits for it any more: what is half done would stay read-only.
    let whole = tokio::spawn(async move { dumped(&world, place, by).await });
    let ended = whole.await;
    ended.unwrap_or_else(|error| Err(Fault::platform(format!("the dump ended half way: {error}"))))
}

async fn dumped(world: &World, place: Place, by: By) -> Result<(String, Body), Fault> {
    let own = place.clone();
    let read = world
        .store
        .read(move |db| Ok::<_, Error>((db.the_move(&own)?, db.environment(&own)?)));
    let (found, environment) = read.await.map_err(refused)?;
    let host = environment
        .database_host
        .filter(|_| found.data == Some(Side::Here));
    let Some(host) = host else {
        return Err(Fault::order(format!(
            "{place} has no data here that is to go elsewhere"
        )));
    };
    if !found.closed {
        return Err(Fault::order(format!("{place} is served, so its data changes")));
    }
    let kept = match world.node.dump(&host, &place, DATABASE_NAME).await {
        Err(fault) => Err(fault),
        Ok((counted, body)) => {
            let (own, said) = (place.clone(), counted.clone());
            let written = world.store.write(move |tx| tx.count_move(&own, &said, &by));
            // It may have been aborted meanwhile, by somebody who could not know that it would be read-only.
            written.await.map_err(refused).map(|()| (counted, body))
        }
    };
    if kept.is_err() {
        let own = place.clone();
        let spoilt = world.store.write(move |tx| tx.spoil_move(&own)).await;
        if spoilt.unwrap_or(true)
            && let Err(fault) = world.node.open(&host, &place, DATABASE_NAME).await
        {
            warn!(%place, "the database of {place} may be read-only: {fault}");
        }
    }
    kept
}

/// Takes in all of the data of an environment that nobody is served by just now, in place of what is here.
pub async fn load(world: &Arc<World>, place: Place, dump: Body, by: By) -> Result<String, Fault> {
    let world = Arc::clone(world);
    // Brought to its end also when nobody waits for it any more: another load must not begin beside it.
    let whole = tokio::spawn(async move { loaded(&world, place, dump, by).await });
    let ended = whole.await;
    ended.unwrap_or_else(|error| Err(Fault::platform(format!("the load ended half way: {error}"))))
}

async fn loaded(world: &World, place: Place, dump: Body, by: By) -> Result<String, Fault> {
    let (own, actor) = (place.clone(), by.clone());
    // On record first: what is here is of no use from then on.
    let torn = world.store.write(move |tx| {
        let host = tx.environment(&own)?.database_host;
        let host = host.ok_or_else(|| start::refusal(format!("{own} has no database here"), None))?;
        tx.tear_move(&own, &actor).map(|()| host)
    });
    let host = torn.await.map_err(refused)?;
    let counted = world.node.load(&host, &place, DATABASE_NAME, dump).await?;
    let (own, said) = (place, counted.clone());
    let written = world.store.write(move |tx| tx.count_move(&own, &said, &by));
    written.await.map_err(refused).map(|()| counted)
}

/// Serves everybody where the data is, because whoever carried it has stopped to say that it goes on.
pub async fn lapse(world: &World, place: &Place, by: By) -> Result<(), Fault> {
    let (own, actor) = (place.clone(), by.clone());
    let over = world.store.write(move |tx| tx.overdue_move(&own, &actor));
    let Some(found) = over.await.map_err(refused)? else {
        return Ok(());
    };
    if found.data == Some(Side::Here) {
        // First: who is served before it may write would fail, and nobody would try again.
        open(world, &found).await?;
    }
    let own = place.clone();
    let lapsed = world.store.write(move |tx| tx.lapse_move(&own, &by));
    if let Some(found) = lapsed.await.map_err(refused)? {
        warn!(%place, "{place} was served by nobody for too long: {} % go to {} again", found.share, found.host);
    }
    world.routes.apply().await
}

async fn begin(world: &World, place: &Place, host: String, by: By) -> Result<(), Error> {
    if world.platform.owns(&host) {
        let message = format!("`{host}` is a name of this platform: requests would go round in circles");
        return Err(start::refusal(message, None));
    }
    let place = place.clone();
    world.store.write(move |tx| hold(tx, &place, &host, &by)).await
}

/// From here on nothing else becomes live: nor does what waits for people already.
fn hold(tx: &Tx<'_>, place: &Place, host: &str, by: &By) -> Result<(), Error> {
    start::refuse_moving(tx, place)?;
    if tx.is_busy(place)? {
        return Err(start::under_way(place));
    }
    let Some(live) = tx.live_release(place)? else {
        let message = format!("{place} has no release yet: there is nothing to move");
        return Err(start::refusal(message, Some("vend aws push".into())));
    };
    let environment = tx.environment(place)?;
    if environment.asleep_at.is_some() {
        let next = format!("vend wake {place}");
        return Err(start::refusal(format!("{place} sleeps"), Some(next)));
    }
    if let Some(why) = immovable(&live.content.spec) {
        return Err(start::refusal(format!("{place} cannot be moved: {why}"), None));
    }
    if !tx.tenant(&place.tenant)?.access.is_empty() {
        let next = format!("vend edge access {} --everybody", place.tenant);
        let why = "its load balancer here looks at who asks for this tenant, and nobody would on AWS";
        return Err(start::refusal(
            format!("{place} cannot be moved: {why}"),
            Some(next),
        ));
    }
    let release = live.content.number;
    tx.begin_move(place, host, release, environment.database_host.is_some(), by)
        .map(drop)
}

/// Why an environment cannot be moved, by what it is.
fn immovable(spec: &spec::Environment) -> Option<String> {
    if spec.placement.is_some() {
        return Some("it is on registered machines, which are its customer's own".into());
    }
    if spec.preview.is_some() {
        return Some("it comes and goes with its branch: vend aws apply --branch makes it there".into());
    }
    if let Some(port) = spec.listeners.first() {
        let (protocol, port) = (port.protocol, port.port);
        return Some(format!(
            "this load balancer forwards HTTP alone to AWS, and nobody would come to {protocol} {port} there while its name leads \
             here; vend aws apply and vend aws push make the environment there beside this one, and then its names can lead there"
        ));
    }
    if spec.host.traffic.protocol != Protocol::Http1 {
        return Some("its hosts speak HTTP/2, and between the two load balancers HTTP/1.1 is spoken".into());
    }
    if !spec.access.is_empty() {
        return Some("this load balancer looks at who asks, and nobody would on AWS".into());
    }
    if spec.authenticate.is_some() {
        return Some("people sign in to it at this load balancer, and nobody would be asked on AWS".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_would_not_serve_alike_stays() {
        let why = |keys: &str| {
            let text = format!("app: shop\n{keys}\n");
            let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
            immovable(&app.environments[0])
        };
        assert_eq!(why("environments: { production: {} }"), None);
        let port = why("listeners: [{ protocol: udp, port: 5514, host_port: 514 }]").unwrap();
        for part in [
            "forwards HTTP alone",
            "udp 5514",
            "vend aws apply",
            "its names can lead there",
        ] {
            assert!(port.contains(part), "{part}: {port}");
        }
        let grpc = why("host: { traffic: { protocol: grpc } }").unwrap();
        assert!(grpc.contains("HTTP/2"), "{grpc}");
        let access = why("access: { deny: 192.0.2.7 }").unwrap();
        assert!(access.contains("who asks"), "{access}");
    }
}
