//! Timers that run: each a task that sleeps until its timer is due, and then asks for the start of its unit.

use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
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
    task: JoinHandle<()>,
}

impl Ticking {
    pub fn start(timer: Timer, services: Services) -> Self {
        let (sender, next) = watch::channel(None);
        Self {
            unit: timer.unit.clone(),
            next,
            task: tokio::spawn(tick(timer, services, sender)),
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

async fn tick(timer: Timer, services: Services, next: watch::Sender<Option<Timestamp>>) {
    let started = Instant::now();
    let (mut active, mut inactive) = (None::<Instant>, None::<Instant>);
    loop {
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
        active = Some(Instant::now());
        if let Err(why) = services.start(&timer.unit).await {
            tracing::warn!("the timer of {} could not start it: {why}", timer.unit);
        }
        inactive = Some(Instant::now());
        // What is due at this second is not due twice in it.
        sleep(Duration::from_secs(1)).await;
    }
}
