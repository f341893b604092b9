//! Timers that run: each a task that sleeps until its timer is due, and then asks for the start of its unit.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    service::Turns,
    services::Services,
    unit::timer::{Moment, Timer},
};
use crate::now;

/// The clock may be set meanwhile: it is looked at again after so long.
const LOOK: Duration = Duration::from_secs(60);

/// A timer that was started. It ends with this value.
pub struct Ticking {
    pub unit: String,
    next: watch::Receiver<Option<Timestamp>>,
    past: Arc<Mutex<Past>>,
    task: JoinHandle<()>,
}

/// What a timer has seen.
#[derive(Debug, Clone, Copy)]
struct Past {
    started: Instant,
    /// When it last started its unit.
    fired: Option<Instant>,
    /// When it waited again after that, and how late it was then.
    rested: Option<Instant>,
    late: Duration,
    /// When its unit last began to be up, and when it ended.
    turns: Turns,
    /// What is due by the calendar is so after this.
    calendar: Timestamp,
}

/// The same in milliseconds ago, for the agent that takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    started: u64,
    active: Option<u64>,
    inactive: Option<u64>,
    #[serde(default)]
    fired: Option<u64>,
    #[serde(default)]
    rested: Option<u64>,
    #[serde(default)]
    late: u64,
    /// Since 1970.
    #[serde(default)]
    calendar: Option<i64>,
}

impl Past {
    fn new(age: Age, stamp: Option<Timestamp>) -> Self {
        let ago = |millis: u64| Instant::now().checked_sub(Duration::from_millis(millis));
        let before = age
            .calendar
            .and_then(|millis| Timestamp::from_millisecond(millis).ok());
        // An agent that knows nothing of the calendar has taken its own starts for all.
        let fired = age.fired.or(age.active.filter(|_| age.calendar.is_none()));
        Self {
            started: ago(age.started).unwrap_or_else(Instant::now),
            fired: fired.and_then(ago),
            rested: age.rested.or(fired).and_then(ago),
            late: Duration::from_millis(age.late),
            turns: Turns {
                active: age.active.and_then(ago),
                inactive: age.inactive.and_then(ago),
            },
            calendar: before.or(stamp).unwrap_or_else(now),
        }
    }

    fn age(self) -> Age {
        let ago = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Age {
            started: ago(self.started),
            active: self.turns.active.map(ago),
            inactive: self.turns.inactive.map(ago),
            fired: self.fired.map(ago),
            rested: self.rested.map(ago),
            late: u64::try_from(self.late.as_millis()).unwrap_or(u64::MAX),
            calendar: Some(self.calendar.as_millisecond()),
        }
    }

    fn moment(self, since_boot: Duration, delay: Duration) -> Moment {
        let since = |at: Option<Instant>| at.map(|at| at.elapsed());
        let now = now();
        Moment {
            now,
            calendar: self.calendar.min(now),
            since_boot,
            since_start: self.started.elapsed(),
            since_fired: since(self.fired),
            since_rested: since(self.rested),
            late: self.late,
            since_active: since(self.turns.active),
            since_inactive: since(self.turns.inactive),
            delay,
        }
    }
}

impl Ticking {
    /// A new one has no age. One that is persistent goes on after the last time that it was due, which is in a file below
    /// `stamps`.
    pub fn start(name: &str, timer: Timer, services: Services, age: Option<Age>, stamps: &Path) -> Self {
        let (sender, next) = watch::channel(None);
        let stamp = timer.persistent.then(|| stamps.join(format!("stamp-{name}")));
        let last = stamp.as_deref().filter(|_| age.is_none()).and_then(|stamp| {
            let last = modified(stamp);
            if last.is_none() {
                touch(stamp);
            }
            last.filter(|last| *last < now())
        });
        let past = Arc::new(Mutex::new(Past::new(age.unwrap_or_default(), last)));
        let unit = timer.unit.clone();
        let tick = Tick {
            name: name.to_owned(),
            timer,
            services,
            next: sender,
            past: Arc::clone(&past),
            stamp,
        };
        Self {
            unit,
            next,
            past,
            task: tokio::spawn(tick.run()),
        }
    }

    pub fn age(&self) -> Age {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).age()
    }

    /// When it is due.
    pub fn next(&self) -> Option<Timestamp> {
        *self.next.borrow()
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Tick {
    name: String,
    timer: Timer,
    services: Services,
    next: watch::Sender<Option<Timestamp>>,
    past: Arc<Mutex<Past>>,
    stamp: Option<PathBuf>,
}

impl Tick {
    async fn run(self) {
        let mut delay = self.delay();
        loop {
            let mut turns = self.services.turns(&self.timer.unit);
            if let Some(turns) = &mut turns {
                let latest = *turns.borrow_and_update();
                self.past().turns.hear(latest);
            }
            let moment = self.past().moment(self.services.uptime(), delay);
            let wait = self.timer.next(moment);
            let due = wait.and_then(|wait| now().checked_add(wait).ok());
            self.next.send_replace(due);
            match wait {
                Some(Duration::ZERO) => {
                    self.fire(delay).await;
                    delay = self.delay();
                }
                None if !self.timer.follows() => break,
                // Its unit may be started by others, too.
                wait => drop(timeout(wait.unwrap_or(LOOK).min(LOOK), turn(turns)).await),
            }
        }
        if !self.timer.remains {
            self.services.timer_is_over(&self.name);
        }
    }

    async fn fire(&self, late: Duration) {
        {
            let mut past = self.past();
            let fired = Instant::now();
            (past.fired, past.rested, past.late) = (Some(fired), Some(fired), late);
            past.calendar = now();
        }
        if let Some(stamp) = &self.stamp {
            touch(stamp);
        }
        // While its unit is up there is no next time (`systemd.timer(5)`).
        self.next.send_replace(None);
        let (services, unit) = (self.services.clone(), self.timer.unit.clone());
        // What was begun goes on when the timer is stopped.
        let start = tokio::spawn(async move {
            let _concern = services.concern();
            services.start(&unit).await
        });
        if let Ok(Err(why)) = start.await {
            tracing::warn!("the timer of {} could not start it: {why}", self.timer.unit);
        }
        self.services.ended(&self.timer.unit).await;
        self.past().rested = Some(Instant::now());
        // However short what it asks for is, there is a pause.
        sleep(Duration::from_secs(1)).await;
    }

    /// By chance, anew each time.
    fn delay(&self) -> Duration {
        let most = u64::try_from(self.timer.delay.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = [0; 8];
        // Without randomness it is due at its time.
        let _ = getrandom::fill(&mut bytes);
        Duration::from_millis(u64::from_ne_bytes(bytes).checked_rem(most).unwrap_or_default())
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a unit begins to be up or ends; for ever when it is not known.
async fn turn(turns: Option<watch::Receiver<Turns>>) {
    if let Some(mut turns) = turns
        && turns.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn modified(stamp: &Path) -> Option<Timestamp> {
    let modified = fs::metadata(stamp).ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

/// Without it the timer is only not made up for.
fn touch(stamp: &Path) {
    let touched = stamp
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::File::create(stamp))
        .and_then(|file| file.set_modified(std::time::SystemTime::from(now())));
    if let Err(error) = touched {
        tracing::warn!("{}: {error}", stamp.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_timer_has_seen_is_known_to_the_agent_that_takes_over() {
        let read = |text: &str| Past::new(serde_json::from_str(text).unwrap(), None);
        let whole =
            r#"{"started":90000,"active":50000,"inactive":40000,"fired":60000,"calendar":1767225600000}"#;
        let past = read(whole);
        assert_eq!(past.calendar, "2026-01-01T00:00:00Z".parse().unwrap());
        let age = past.age();
        assert!((60_000..70_000).contains(&age.fired.unwrap()) && age.active < age.fired);
        // As agents before this one told it.
        let older = read(r#"{"started":90000,"active":50000,"inactive":null}"#);
        assert!(older.fired.is_some() && older.turns.inactive.is_none());
        assert!(
            read(r#"{"started":0,"active":null,"inactive":null}"#)
                .fired
                .is_none()
        );
    }

    #[test]
    fn a_persistent_timer_goes_on_after_its_last_time() {
        let directory = tempfile::tempdir().unwrap();
        let stamp = directory.path().join("timers/stamp-a.timer");
        touch(&stamp);
        let made = modified(&stamp).unwrap();
        assert!(made.duration_since(now()).abs() < jiff::SignedDuration::from_secs(10));
        assert_eq!(modified(&directory.path().join("none")), None);
        assert_eq!(Past::new(Age::default(), Some(made)).calendar, made);
    }
}
