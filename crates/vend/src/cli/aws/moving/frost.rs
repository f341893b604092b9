//! While data leaves AWS, and when it has left, nobody writes to it there: its database refuses, as its stack says.

use ::aws::live::{
    frost::{frozen, is_frozen},
    turn::Turn,
};

use super::Trip;
use crate::cli::aws::{
    Exit, Failure,
    home::{Home, Spot, Target},
    rollback::{held, set, taken},
};

/// The one stack of an environment that moves.
pub fn target<'h>(spot: &Spot<'h>) -> Target<'h> {
    spot.targets()
        .into_iter()
        .next()
        .expect("an environment has a stack")
}

/// Has the database refuse to write, or write again, in the environment's turn.
pub async fn turn(trip: &Trip<'_>, spot: &Spot<'_>, turn: &Turn<'_>, on: bool) -> Result<(), Failure> {
    let target = target(spot);
    let stack = target.still().await?;
    match is_frozen(&stack) {
        None if on => Err(unknown(&target)),
        Some(now) if now != on => {
            let values = frozen(on);
            held(turn, spot, Box::pin(set(&target, &stack, &values, trip.output))).await
        }
        _ => Ok(()),
    }
}

/// Refuses where the stack does not know how.
pub async fn look(spot: &Spot<'_>) -> Result<(), Failure> {
    let target = target(spot);
    match is_frozen(&target.still().await?) {
        Some(_) => Ok(()),
        None => Err(unknown(&target)),
    }
}

fn unknown(target: &Target<'_>) -> Failure {
    let what = format!("{} was made before data could leave it", target.stack);
    Failure::new(Exit::Refused, what).next(format!("vend aws apply --only {}", target.stack))
}

/// Lets everybody write on AWS again, where nobody carries data from there just now.
pub async fn thaw(trip: &Trip<'_>, home: &Home, spot: &Spot<'_>) -> Result<(), Failure> {
    let target = target(spot);
    if is_frozen(&target.still().await?) != Some(true) {
        return Ok(());
    }
    let own = taken(home, spot).await?;
    let done = turn(trip, spot, &own, false).await;
    let left = own.leave().await.map_err(crate::cli::aws::broken);
    done?;
    trip.tell("data", "its database on AWS may be written to again");
    left
}
