//! Timers that run: each a task that sleeps until its timer is due, and then asks for the start of its unit.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{
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
    /// When it last started its unit, and when that ended.
    active: Option<Instant>,
    inactive: Option<Instant>,
}

/// The same in milliseconds ago, for the agent that takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    started: u64,
    active: Option<u64>,
    inactive: Option<u64>,
}

impl Ticking {
    /// A new one has no age.
    pub fn start(timer: Timer, services: Services, age: Age) -> Self {
        let (sender, next) = watch::channel(None);
        let ago = |millis: u64| Instant::now().checked_sub(Duration::from_millis(millis));
        let past = Arc::new(Mutex::new(Past {
            started: ago(age.started).unwrap_or_else(Instant::now),
            active: age.active.and_then(ago),
            inactive: age.inactive.and_then(ago),
        }));
        Self {
            unit: timer.unit.clone(),
            next,
            past: Arc::clone(&past),
            task: tokio::spawn(tick(timer, services, sender, past)),
        }
    }

    pub fn age(&self) -> Age {
        let past = *self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Age {
            started: ago(past.started),
            active: past.active.map(ago),
            inactive: past.inactive.map(ago),
        }
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

async fn tick(
    timer: Timer,
    services: Services,
    next: watch::Sender<Option<Timestamp>>,
    past: Arc<Mutex<Past>>,
) {
    let keep = |change: fn(&mut Past)| change(&mut past.lock().unwrap_or_else(PoisonError::into_inner));
    loop {
        let Past {
            started,
            active,
            inactive,
        } = *past.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = Moment {
            civil: now().to_zoned(TimeZone::UTC).datetime(),
            since_boot: services.uptime(),
            since_start: started.elapsed(),
            since_active: active.map(|at| at.elapsed()),
            since_inactive: inactive.map(|at| at.elapsed()),
        };
        let Some(wait) = timer.next(moment) else {
            next.send_replace(None);
            return;
        };
        next.send_replace(now().checked_add(wait).ok());
        if wait > LOOK {
            sleep(LOOK).await;
            continue;
        }
        sleep(wait).await;
        keep(|past| past.active = Some(Instant::now()));
        if let Err(why) = services.start(&timer.unit).await {
            tracing::warn!("the timer of {} could not start it: {why}", timer.unit);
        }
        // While its unit is up there is no next time (`systemd.timer(5)`).
        next.send_replace(None);
        services.ended(&timer.unit).await;
        keep(|past| past.inactive = Some(Instant::now()));
        // What is due at this second is not due twice in it.
        sleep(Duration::from_secs(1)).await;
    }
}
