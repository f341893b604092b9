//! The data of an environment that moves: dumped here, carried through the bucket of artifacts, loaded by a host there.
//!
//! Nobody is served meanwhile. What was counted on both sides must be the same before anybody is served there.

use std::{fmt::Display, time::Duration};

use ::aws::{
    bucket,
    live::{data, fleet, half},
    synth::{Engine, Runtime},
    upload::{PIECE, Upload},
};
use axum::body::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::wire::{Arrived, Move as Moved, Side};

use super::{Trip, frost};
use crate::{
    cli::aws::{
        Exit, Failure, broken,
        home::{Home, Spot, Target},
    },
    output::size,
    web::COUNTED,
};

/// For so long requests that came before the door was closed may still write.
pub const LAST: Duration = Duration::from_secs(5);

/// Refuses data that could not be loaded there.
pub fn refuse(spot: &Spot<'_>, trip: &Trip<'_>) -> Result<(), Failure> {
    let refused = |why: &str| {
        let what = format!("the data of {} cannot be moved: {why}", trip.target);
        Err(Failure::new(Exit::Refused, what))
    };
    if spot.engine() != Engine::Mariadb {
        return refused(
            "here it is MariaDB's, and aws.toml says another engine; `database.engine = \"mariadb\"` takes it",
        );
    }
    if spot.runtime() != Runtime::Host {
        return refused("it is loaded by a host of the environment, and aws.toml has it run in containers");
    }
    Ok(())
}

/// Carries the data, and has everybody served where it is.
pub async fn carry(trip: &Trip<'_>, home: &Home, spot: &Spot<'_>) -> Result<(), Failure> {
    let mut found = trip.the_move().await?;
    if found.data == Some(Side::Here) {
        found = match Box::pin(trip.closed(0, carried(trip, home, spot))).await {
            Ok(found) => found,
            Err(failure) => {
                // Where its data still is.
                let undo = format!("vend move {} --abort", trip.target);
                return Err(match trip.forward(0).await {
                    Ok(_) => {
                        trip.tell("data", "did not arrive; everybody is served here again");
                        failure
                    }
                    Err(second) => {
                        let why = second.cause.as_ref().unwrap_or(&second.what);
                        let what = format!("did not arrive, and nobody is served here yet: {why}");
                        trip.tell("data", &what);
                        failure.next(undo)
                    }
                });
            }
        };
    }
    if found.share != 100 || found.closed {
        found = trip.forward(100).await?;
    }
    trip.tell("traffic", &format!("100 % to {}", found.host));
    let target = &trip.target;
    trip.output.line(&format!(
        "next: vend move {target} --finish, when nobody wants to go back\n\
         undo: vend move {target} --engine embedded"
    ));
    Ok(())
}

async fn carried(trip: &Trip<'_>, home: &Home, spot: &Spot<'_>) -> Result<Moved, Failure> {
    let target = frost::target(spot);
    let host = host(&target).await?;
    let since = trip.close(0).await?.closed_at;
    trip.tell("data", "nobody is served from now on");
    tokio::time::sleep(LAST).await;
    let path = format!("{}/dump", trip.path);
    let (counted, dump) = trip.client.made(&path, &serde_json::json!({}), COUNTED).await?;
    let name = home.artifacts().await?;
    let client = spot.client();
    // Hosts of the environment read below it, and nobody else does. A key of its own: another dump is another object.
    let at = crate::clock::now().as_millisecond();
    let key = format!("move/{}/{}/{at}.sql.gz", home.app(), spot.name());
    let upload = Upload::begin(client, &name, &key).await.map_err(broken)?;
    let loaded = match sent(upload, dump).await {
        Ok((bytes, version)) => {
            trip.tell("data", &format!("{counted}: {} carried", size(bytes)));
            ran(&target, &host, &data::loading(&name, &key, &version)).await
        }
        Err(failure) => Err(failure),
    };
    // Of no use any more, whatever came of it.
    let erased = bucket::erase(client, &name, &key).await;
    let (counted, _) = loaded?;
    erased.map_err(broken)?;
    trip.tell("data", &format!("{counted}: loaded"));
    let arrived = Arrived {
        counted,
        side: Side::Away,
        closed_at: since,
    };
    trip.client
        .work(&format!("{}/arrived", trip.path), &arrived)
        .await
}

/// A host that serves there.
pub async fn host(target: &Target<'_>) -> Result<String, Failure> {
    let stack = target.still().await?;
    let halves = half::halves(&stack);
    let serving = half::serving(&halves).ok_or_else(|| Failure::failed("nothing of it runs on AWS"))?;
    let hosts = fleet::hosts(target.client(), &stack, serving)
        .await
        .map_err(broken)?;
    let healthy = hosts.into_iter().find(|host| host.health == "healthy");
    let none = || Failure::failed("no host there is healthy, so nobody can load the data");
    healthy
        .map(|host| host.id)
        .ok_or_else(|| none().next("vend aws hosts"))
}

/// Sends what comes, piece by piece.
async fn sent(mut upload: Upload<'_>, mut dump: Incoming) -> Result<(u64, String), Failure> {
    let (mut held, mut bytes) = (Vec::with_capacity(PIECE), 0);
    while let Some(frame) = dump.frame().await {
        let frame = frame.map_err(|error| cut(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        held.extend_from_slice(&data);
        while held.len() >= PIECE {
            let rest = held.split_off(PIECE);
            let piece = std::mem::replace(&mut held, rest);
            upload.put(Bytes::from(piece)).await.map_err(broken)?;
        }
    }
    upload.put(Bytes::from(held)).await.map_err(broken)?;
    let version = upload.end().await.map_err(broken)?;
    Ok((bytes, version))
}

fn cut(error: &dyn Display) -> Failure {
    Failure::failed("the dump was cut short").cause(error.to_string())
}

/// Has a host run lines that load or dump, and count. Gives what was counted, and which version of an object was written.
pub async fn ran(target: &Target<'_>, host: &str, script: &str) -> Result<(String, Option<String>), Failure> {
    let client = target.client();
    let command = data::start(client, host, script).await.map_err(broken)?;
    match data::ended(client, host, &command, crate::clock::now)
        .await
        .map_err(broken)?
    {
        data::Ended::Counted { counted, version } => Ok((counted, version)),
        data::Ended::Failed { why } => Err(Failure::failed("the data was not carried on AWS").cause(why)),
    }
}
