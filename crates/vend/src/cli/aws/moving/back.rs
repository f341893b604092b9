//! The way back: hosts here first, then the data, then the traffic.
//!
//! Data comes while nobody is served and nobody can write on AWS. Until it has arrived here it is true there, and whatever
//! fails has everybody served there again. What is lost is nothing: a load here begins when the dump is whole, and is served
//! only when both sides counted the same.

use std::time::Duration;

use ::aws::{
    bucket,
    download::Download,
    live::{data as lines, turn::Turn},
};
use axum::body::{Body, Bytes};
use model::wire::{Arrived, Loaded, Move as Moved, Release, Side};
use tokio::sync::mpsc;

use super::{
    Move, Trip,
    data::{self, LAST},
    frost, plan,
    step::{Same, is_live},
};
use crate::{
    cli::aws::{
        Exit, Failure, agreed, broken,
        home::{Home, Spot},
        rollback::{held, taken},
    },
    output::size,
};

/// Pieces of a dump that are fetched before they are taken.
const AHEAD: usize = 2;

pub async fn back(trip: &Trip<'_>, own: &Move) -> Result<(), Failure> {
    let Some(found) = trip.found().await? else {
        trip.output.line(&format!("{} runs here", trip.target));
        return Ok(());
    };
    let returns = found.data == Some(Side::Away);
    let same = match returns {
        true => Some(same(trip, own, &found).await?),
        false => None,
    };
    let shares: Vec<u32> = match found.data {
        None => own
            .weights
            .iter()
            .map(|weight| 100 - weight)
            .filter(|share| *share < found.share)
            .collect(),
        // A share would write into two databases.
        Some(_) => Vec::new(),
    };
    trip.output.text(&plan::back(&trip.target, &found, &shares));
    if own.plan {
        return Ok(());
    }
    if !agreed("Bring it back?", own.yes, trip.output)? {
        return Err(Failure::failed("nothing was changed"));
    }
    match found.finished_at {
        Some(_) => trip.reopen().await?,
        None => trip.awake().await?,
    }
    if let Some(same) = same {
        let spot = same.spot(trip)?;
        returned(trip, &same.home, &spot).await?;
        trip.awake().await?;
    }
    for share in shares {
        trip.forward(share).await?;
        trip.tell("traffic", &format!("{share} % to {}", found.host));
        tokio::time::sleep(Duration::from_secs(own.watch)).await;
    }
    trip.end(&found, false).await?;
    if found.data.is_some() {
        trip.output.line(&format!(
            "its database on AWS refuses to write, until it moves there again; names that lead to {} must lead here",
            found.host
        ));
    }
    Ok(())
}

/// The files, which must be those of what is live on both sides.
async fn same(trip: &Trip<'_>, own: &Move, found: &Moved) -> Result<Same, Failure> {
    let release = trip.live().await?;
    let same = Same::of(trip, own, &release).await?;
    if same.host != found.host {
        let what = format!(
            "{} is at {}, and the files say {}",
            trip.target, found.host, same.host
        );
        return Err(Failure::new(Exit::Refused, what));
    }
    let spot = same.spot(trip)?;
    refuse_another(trip, &release, &spot).await?;
    frost::look(&spot).await?;
    Ok(same)
}

/// Data that another release has written would not be understood here.
async fn refuse_another(trip: &Trip<'_>, release: &Release, spot: &Spot<'_>) -> Result<(), Failure> {
    let commit = &release.commit.id;
    if is_live(spot, commit).await? {
        return Ok(());
    }
    let (short, name) = (commit.get(..12).unwrap_or(commit), spot.name());
    let what = format!(
        "v{} of {}, which is {short}, is not what is live on AWS",
        release.number, trip.target
    );
    Err(Failure::new(Exit::Refused, what)
        .cause("its tables may be others there, and what runs here would not understand them")
        .next(format!(
            "vend aws rollback {name} --to {short}; then the same again"
        )))
}

/// Brings the data, or has everybody served on AWS again.
async fn returned(trip: &Trip<'_>, home: &Home, spot: &Spot<'_>) -> Result<(), Failure> {
    let host = data::host(&frost::target(spot)).await?;
    let turn = taken(home, spot).await?;
    let doing = carried(trip, home, spot, &turn, &host);
    let done = match turn
        .during(Box::pin(trip.closed(100, doing)), crate::clock::now)
        .await
    {
        Ok(()) => Ok(()),
        Err(failure) => undone(trip, spot, &turn, failure).await,
    };
    let left = turn.leave().await.map_err(broken);
    done?;
    left
}

async fn carried(
    trip: &Trip<'_>,
    home: &Home,
    spot: &Spot<'_>,
    turn: &Turn<'_>,
    host: &str,
) -> Result<(), Failure> {
    let since = trip.close(100).await?.closed_at;
    trip.tell("data", "nobody is served from now on");
    frost::turn(trip, spot, turn, true).await?;
    trip.tell("data", "its database on AWS refuses to write");
    tokio::time::sleep(LAST).await;
    let name = home.artifacts().await?;
    let client = spot.client();
    let at = crate::clock::now().as_millisecond();
    let key = format!("move/{}/{}/{at}.sql.gz", home.app(), spot.name());
    let done = async {
        let target = frost::target(spot);
        let (counted, version) = data::ran(&target, host, &lines::dumping(&name, &key)).await?;
        let version = version.ok_or_else(|| Failure::failed("the dump on AWS says nothing of its object"))?;
        trip.tell("data", &format!("{counted}: dumped there"));
        // Whoever had the turn meanwhile may have let others write.
        held(turn, spot, async { Ok(()) }).await?;
        let (loaded, bytes) = poured(trip, Download::new(client, &name, &key, &version)).await?;
        trip.tell(
            "data",
            &format!("{loaded}: {} carried and loaded here", size(bytes)),
        );
        Ok(counted)
    }
    .await;
    // Of no use any more, whatever came of it.
    let erased = bucket::erase(client, &name, &key).await;
    let counted = done?;
    held(turn, spot, async { Ok(()) }).await?;
    let arrived = Arrived {
        counted,
        side: Side::Here,
        closed_at: since,
    };
    let _: Moved = trip
        .client
        .work(&format!("{}/arrived", trip.path), &arrived)
        .await?;
    trip.tell("data", "is true here");
    erased.map_err(broken)
}

/// Fetches an object piece by piece, and has the platform load it. Gives what was counted, and its bytes.
async fn poured(trip: &Trip<'_>, mut object: Download<'_>) -> Result<(String, u64), Failure> {
    let (pieces, taken) = mpsc::channel::<Result<Bytes, std::io::Error>>(AHEAD);
    // It has the sender, so that what is sent ends with it.
    let fetching = async move {
        let mut bytes = 0;
        loop {
            match object.next().await {
                Ok(Some(piece)) => {
                    bytes += piece.len() as u64;
                    if pieces.send(Ok(piece)).await.is_err() {
                        // Nobody takes it any more, and says why.
                        break Ok(bytes);
                    }
                }
                Ok(None) => break Ok(bytes),
                Err(error) => {
                    // What was sent is not the whole of it.
                    let cut = std::io::Error::other("the dump was cut short");
                    let _ = pieces.send(Err(cut)).await;
                    break Err(broken(error));
                }
            }
        }
    };
    let body = Body::from_stream(stream(taken));
    let path = format!("{}/load", trip.path);
    let loading = trip.client.pour::<Loaded>(&path, body);
    let (fetched, loaded) = tokio::join!(fetching, loading);
    let bytes = fetched?;
    Ok((loaded?.counted, bytes))
}

fn stream(
    taken: mpsc::Receiver<Result<Bytes, std::io::Error>>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    futures_util::stream::unfold(taken, |mut taken| async move {
        taken.recv().await.map(|piece| (piece, taken))
    })
}

/// Everybody is served on AWS again, if the data is still true there.
async fn undone(trip: &Trip<'_>, spot: &Spot<'_>, turn: &Turn<'_>, failure: Failure) -> Result<(), Failure> {
    let abort = format!("vend move {} --abort", trip.target);
    // First: from then on nothing that was counted before arrives any more. It is refused where the data has arrived.
    if let Err(second) = trip.forward(100).await {
        if trip
            .the_move()
            .await
            .is_ok_and(|now| now.data == Some(Side::Here))
        {
            trip.tell("data", "is true here");
            return Ok(());
        }
        let why = second.cause.as_ref().unwrap_or(&second.what);
        let what = format!("did not come, and nobody is served yet: {why}");
        trip.tell("data", &what);
        return Err(failure.next(abort));
    }
    match frost::turn(trip, spot, turn, false).await {
        Ok(()) => {
            trip.tell("data", "did not come; everybody is served on AWS again");
            Err(failure)
        }
        Err(second) => {
            let why = second.cause.as_ref().unwrap_or(&second.what);
            let what =
                format!("did not come; everybody is served on AWS again, where nobody can write yet: {why}");
            trip.tell("data", &what);
            Err(failure.next(format!("vend move {} --engine aws", trip.target)))
        }
    }
}

/// It stays on AWS: what was begun to bring it back is broken off.
pub async fn stays(trip: &Trip<'_>, own: &Move) -> Result<(), Failure> {
    let home = own.files.home()?;
    if home.app() != trip.target.app.as_str() {
        let what = format!(
            "{} is the working tree of {}",
            own.files.dir.display(),
            home.app()
        );
        return Err(Failure::usage(what));
    }
    let spot = home.spot(trip.target.environment()?.as_str())?;
    let found = trip.forward(100).await?;
    trip.tell("traffic", &format!("100 % to {}", found.host));
    frost::thaw(trip, &home, &spot).await
}
