//! How often something may happen (`StartLimitBurst=` of `systemd.unit(5)`, `TriggerLimitBurst=` of `systemd.socket(5)`).
//! Pure: the time comes in.

use std::time::{Duration, Instant};

use super::syntax::time;

/// So many times in so long. There is no limit when either is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: u32,
}

impl Rate {
    /// Starts of a service, where its unit does not say.
    pub const STARTS: Self = Self {
        interval: Duration::from_secs(10),
        burst: 5,
    };

    /// Starts by a socket, where that does not say.
    pub const TRIGGERS: Self = Self {
        interval: Duration::from_secs(2),
        burst: 20,
    };

    pub fn limits(self) -> bool {
        !self.interval.is_zero() && self.burst > 0
    }

    /// The longest pause with which more than the burst still fit into the interval: with longer ones nobody would ever
    /// be told to give up.
    pub fn pause(self) -> Option<Duration> {
        self.limits()
            .then(|| self.interval / self.burst.saturating_add(1))
    }

    /// Takes `…IntervalSec=` (in older units `…Interval=`) or `…Burst=`. False when it is neither, or no such value.
    pub fn assign(&mut self, key: &str, value: &str) -> bool {
        match key {
            "IntervalSec" | "Interval" => time(value).map(|interval| self.interval = interval),
            "Burst" => value.parse().ok().map(|burst| self.burst = burst),
            _ => None,
        }
        .is_some()
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} s", self.burst, self.interval.as_secs_f64())
    }
}

/// How often it happened in the interval that runs. An interval begins with what happens first after the last one.
#[derive(Debug, Default)]
pub struct Count(Option<(Instant, u32)>);

impl Count {
    /// Counts once more. False when that is more often than it may happen.
    pub fn another(&mut self, rate: Rate, now: Instant) -> bool {
        let (since, times) = match self.0 {
            Some((since, times)) if now.saturating_duration_since(since) < rate.interval => {
                (since, times.saturating_add(1))
            }
            _ => (now, 1),
        };
        self.0 = Some((since, times));
        !rate.limits() || times <= rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it happens before it is too often, with the same pause each time; `None` for a thousand times.
    fn times(rate: Rate, pause: Duration) -> Option<u32> {
        let (mut count, begin) = (Count::default(), Instant::now());
        (0..1000).find(|times| !count.another(rate, begin + pause * *times))
    }

    #[test]
    fn more_than_the_burst_in_an_interval_is_too_often() {
        for (pause, expected) in [
            (0, Some(5)),
            (200, Some(5)),
            (1999, Some(5)),
            (2000, None),
            (9000, None),
        ] {
            assert_eq!(
                times(Rate::STARTS, Duration::from_millis(pause)),
                expected,
                "{pause} ms"
            );
        }
        for (interval, burst) in [(0, 5), (10, 0)] {
            let rate = Rate {
                interval: Duration::from_secs(interval),
                burst,
            };
            assert_eq!(times(rate, Duration::ZERO), None, "{rate}");
            assert_eq!(rate.pause(), None, "{rate}");
        }
    }

    #[test]
    fn the_longest_pause_still_ends() {
        for (interval, burst) in [(10, 5), (2, 20), (600, 1), (1, u32::MAX)] {
            let rate = Rate {
                interval: Duration::from_secs(interval),
                burst,
            };
            let pause = rate.pause().unwrap();
            assert!(pause * burst.min(1_000_000) < rate.interval, "{rate}");
        }
        assert_eq!(times(Rate::STARTS, Rate::STARTS.pause().unwrap()), Some(5));
    }

    #[test]
    fn reads_what_units_say() {
        let mut rate = Rate::STARTS;
        assert!(rate.assign("IntervalSec", "1min") && rate.assign("Burst", "3"));
        assert_eq!(rate.to_string(), "3 in 60 s");
        for (key, value) in [
            ("Burst", "-1"),
            ("Burst", ""),
            ("IntervalSec", "soon"),
            ("Action", "none"),
        ] {
            assert!(!rate.assign(key, value), "{key}={value}");
        }
        assert_eq!(rate.to_string(), "3 in 60 s");
    }
}
