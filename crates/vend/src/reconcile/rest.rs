//! Environments that nobody asks for are put to sleep, and woken by the first who does.
//!
//! Who asks is what the edge counts: its numbers are read from time to time, and what has not changed for as long as the
//! live release says is idle. An open connection or flow is use. After a restart the time begins anew.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{Place, port::Fault};
use store::By;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::flow::{World, chain, start, stored};

/// How often the numbers are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Between two looks at what is wanted, after one that told of somewhere new. The edge itself keeps whoever asks until
/// there is news, or for a while: nobody who comes meanwhile waits for that.
const PACE: Duration = Duration::from_millis(1);
/// Between two looks after one that told of nothing new. Anybody can make the edge tell the same again and again.
const KNOWN: Duration = Duration::from_millis(50);
/// Between two looks, when the edge does not say it, and two tries, when the store does not.
const SILENT: Duration = Duration::from_secs(1);
/// Between two tries to wake one environment.
const AGAIN: Duration = Duration::from_secs(10);
/// The same, where something else is under way: it may be over soon.
const BUSY: Duration = Duration::from_millis(50);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        never = watch(&world) => never,
        never = listen(&world) => never,
    }
}

/// Looks for what is idle, for ever.
async fn watch(world: &World) {
    let mut uses = Uses::default();
    loop {
        sleep(EVERY).await;
        if let Err(fault) = rest(world, &mut uses).await {
            debug!("cannot look for environments that are idle: {fault}");
        }
    }
}

async fn rest(world: &World, uses: &mut Uses) -> Result<(), Fault> {
    let sleepy = world.store.read(|db| db.sleepy()).await.map_err(stored)?;
    let sleepy: BTreeMap<Place, SignedDuration> = sleepy.into_iter().collect();
    if sleepy.is_empty() {
        uses.0.clear();
        return Ok(());
    }
    let stats = world.edge.stats().await;
    let stats = stats.map_err(|error| Fault::platform(chain(&error)))?;
    let counts = counts(&stats, &sleepy);
    let now = crate::clock::now();
    for (place, after) in sleepy {
        let count = counts.get(&place).copied().unwrap_or_default();
        if uses.idle(&place, count, now) >= after {
            fall_asleep(world, &place, now).await;
            uses.0.remove(&place);
        }
    }
    Ok(())
}

async fn fall_asleep(world: &World, place: &Place, now: Timestamp) {
    match start::sleep(world, place, By::platform(now)).await {
        Ok(_) => info!("nobody asks for {place}: it goes to sleep"),
        // Something is under way there, which is use.
        Err(store::Error::Refused { .. }) => {}
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "{place} cannot be put to sleep"
        ),
    }
}

/// What the edge counted of one environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    requests: u64,
    active: u64,
}

/// By environment, of all its target groups.
fn counts(stats: &[edge::GroupStats], of: &BTreeMap<Place, SignedDuration>) -> HashMap<Place, Count> {
    let mut counts: HashMap<Place, Count> = HashMap::new();
    for group in stats {
        // `TENANT/APP/ENVIRONMENT/vN`, and for a port one part more.
        let place: Vec<&str> = group.group.splitn(4, '/').take(3).collect();
        let Ok(place) = place.join("/").parse::<Place>() else {
            continue;
        };
        if of.contains_key(&place) {
            let count = counts.entry(place).or_default();
            count.requests = count.requests.wrapping_add(group.requests);
            count.active += u64::from(group.active);
        }
    }
    counts
}

/// Since when each environment's count is what it is.
#[derive(Default)]
struct Uses(HashMap<Place, (Count, Timestamp)>);

impl Uses {
    /// How long nobody has used it.
    fn idle(&mut self, place: &Place, count: Count, now: Timestamp) -> SignedDuration {
        let (known, since) = self.0.entry(place.clone()).or_insert((count, now));
        if *known != count || count.active > 0 || *since > now {
            (*known, *since) = (count, now);
        }
        now.duration_since(*since)
    }
}

/// Hears from the edge where hosts are wanted, for ever.
async fn listen(world: &World) {
    let mut tried = Tried::default();
    loop {
        let wanted = match world.edge.wanted().await {
            Ok(wanted) => wanted,
            Err(error) => {
                debug!("the edge does not say what is wanted: {}", chain(&error));
                sleep(SILENT).await;
                continue;
            }
        };
        let places = wanted.iter().filter_map(|place| place.parse().ok());
        let new = tried.untried(places.collect(), Instant::now());
        for place in &new {
            let rest = wake(world, place).await;
            tried.0.insert(place.clone(), Instant::now() + rest);
        }
        // Whoever waits is named again and again, until what wakes has come up.
        sleep(if new.is_empty() { KNOWN } else { PACE }).await;
    }
}

/// Until when each environment that was tried is left alone, whatever came of it.
#[derive(Default)]
struct Tried(HashMap<Place, Instant>);

impl Tried {
    /// Those of the places that may be tried now.
    fn untried(&mut self, places: HashSet<Place>, now: Instant) -> Vec<Place> {
        self.0.retain(|_, until| *until > now);
        let may = |place: &Place| !self.0.contains_key(place);
        places.into_iter().filter(may).collect()
    }
}

/// Starts what sleeps, and says for how long it need not be tried again.
async fn wake(world: &World, place: &Place) -> Duration {
    let now = crate::clock::now();
    let own = place.clone();
    let asleep = world.store.read(move |db| db.find_environment(&own)).await;
    match asleep.map(|found| found.is_some_and(|found| found.asleep_at.is_some())) {
        Ok(true) => {}
        Ok(false) => return BUSY,
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "{place} cannot be woken"
            );
            return SILENT;
        }
    }
    match start::wake(world, place, By::platform(now)).await {
        Ok(_) => {
            info!("somebody asks for {place}: it wakes");
            AGAIN
        }
        Err(store::Error::Refused { .. }) => BUSY,
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "{place} cannot be woken"
            );
            AGAIN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(group: &str, requests: u64, active: u32) -> edge::GroupStats {
        edge::GroupStats {
            group: group.into(),
            requests,
            target_5xx: 0,
            edge_5xx: 0,
            active,
            times: Vec::new(),
        }
    }

    #[test]
    fn all_groups_of_an_environment_count_and_no_others() {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let sleepy = BTreeMap::from([(place.clone(), SignedDuration::from_secs(10))]);
        let counted = counts(
            &[
                stats("acme/shop/dev/v1", 3, 0),
                stats("acme/shop/dev/v2/tcp-5432", 4, 1),
                stats("acme/shop/dev2/v1", 8, 0),
                stats("nonsense", 8, 0),
            ],
            &sleepy,
        );
        let count = Count {
            requests: 7,
            active: 1,
        };
        assert_eq!(counted, HashMap::from([(place, count)]));
    }

    #[test]
    fn what_was_refused_is_not_tried_at_once_again() {
        let [busy, woken]: [Place; 2] = ["acme/shop/dev", "acme/shop/qa"].map(|place| place.parse().unwrap());
        let all = || HashSet::from([busy.clone(), woken.clone()]);
        let (mut tried, now) = (Tried::default(), Instant::now());
        assert_eq!(tried.untried(all(), now).len(), 2);
        tried.0.insert(busy.clone(), now + BUSY);
        tried.0.insert(woken.clone(), now + AGAIN);
        // Whoever asks again and again, there is no new try, and the pace is the slow one.
        assert_eq!(tried.untried(all(), now + BUSY / 2), []);
        assert_eq!(tried.untried(all(), now + BUSY), std::slice::from_ref(&busy));
        assert_eq!(tried.untried(all(), now + AGAIN).len(), 2);
        assert!(tried.0.is_empty());
    }

    #[test]
    fn only_what_does_not_change_is_idle() {
        let mut uses = Uses::default();
        let place: Place = "acme/shop/dev".parse().unwrap();
        let mut idle = |at: i64, requests, active| {
            let now = Timestamp::from_second(at).unwrap();
            uses.idle(&place, Count { requests, active }, now).as_secs()
        };
        assert_eq!(idle(100, 5, 0), 0);
        assert_eq!(idle(110, 5, 0), 10);
        // A request, and one that stays open.
        assert_eq!(idle(120, 6, 0), 0);
        assert_eq!(idle(130, 6, 1), 0);
        assert_eq!(idle(140, 6, 1), 0);
        assert_eq!(idle(150, 6, 0), 0);
        assert_eq!(idle(155, 6, 0), 5);
        // The edge counts from nothing again; the clock is set back.
        assert_eq!(idle(160, 0, 0), 0);
        assert_eq!(idle(100, 0, 0), 0);
        assert_eq!(idle(105, 0, 0), 5);
    }
}
