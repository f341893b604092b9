//! Timer units (`systemd.timer(5)`). Pure: the time comes in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{calendar::Calendar, expand, read::truth, syntax};

/// A timer, and what of its file was not understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timer {
    /// Full name of what it starts.
    pub unit: String,
    pub calendar: Vec<Calendar>,
    /// After the host began.
    pub after_boot: Vec<Duration>,
    /// After the timer itself was started.
    pub after_start: Vec<Duration>,
    /// After its unit was started last, and after it ended.
    pub after_active: Vec<Duration>,
    pub after_inactive: Vec<Duration>,
    /// It is late by less than this, by chance.
    pub delay: Duration,
    /// What was due by the calendar while it was stopped is made up for.
    pub persistent: bool,
    /// It stays up when it is never due again.
    pub remains: bool,
    pub notes: Vec<String>,
}

/// Reads a timer's file. `name` is without `.timer`.
pub fn parse(name: &str, text: &str) -> Timer {
    let mut timer = Timer {
        unit: format!("{name}.service"),
        remains: true,
        ..Timer::default()
    };
    let mut section = String::new();
    for line in syntax::logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section == "Timer"
            && let Some((key, value)) = line.split_once('=')
        {
            timer.assign(key.trim(), &expand(value.trim(), &format!("{name}.timer")));
        }
    }
    timer
}

impl Timer {
    fn assign(&mut self, key: &str, value: &str) {
        let known = match key {
            "OnCalendar" | "OnBootSec" | "OnStartupSec" | "OnActiveSec" | "OnUnitActiveSec"
            | "OnUnitInactiveSec"
                if value.is_empty() =>
            {
                self.reset();
                true
            }
            "OnCalendar" => push(&mut self.calendar, Calendar::parse(value)),
            "OnBootSec" | "OnStartupSec" => push(&mut self.after_boot, syntax::time(value)),
            "OnActiveSec" => push(&mut self.after_start, syntax::time(value)),
            "OnUnitActiveSec" => push(&mut self.after_active, syntax::time(value)),
            "OnUnitInactiveSec" => push(&mut self.after_inactive, syntax::time(value)),
            "RandomizedDelaySec" => set(&mut self.delay, syntax::time(value)),
            "Persistent" => set(&mut self.persistent, truth(value)),
            "RemainAfterElapse" => set(&mut self.remains, truth(value)),
            "Unit" if !value.ends_with(".timer") => {
                value.clone_into(&mut self.unit);
                true
            }
            // It is always exact.
            "AccuracySec" => true,
            _ => false,
        };
        if !known {
            self.notes.push(format!("{key}={value} is ignored"));
        }
    }

    /// An empty value of any of them takes all of them away.
    fn reset(&mut self) {
        self.calendar.clear();
        for list in [
            &mut self.after_boot,
            &mut self.after_start,
            &mut self.after_active,
            &mut self.after_inactive,
        ] {
            list.clear();
        }
    }

    /// May what its unit does make it due?
    pub fn follows(&self) -> bool {
        !self.after_active.is_empty() || !self.after_inactive.is_empty()
    }

    /// Is there anything that makes it due?
    pub fn is_one(&self) -> bool {
        self.follows()
            || !(self.calendar.is_empty() && self.after_boot.is_empty() && self.after_start.is_empty())
    }

    /// How long until it is due, from what is known of the time and of its unit. `None`: never again, or not before its
    /// unit was started or has ended.
    pub fn next(&self, now: Moment) -> Option<Duration> {
        let calendar = self.calendar.iter().filter_map(|calendar| {
            let next = calendar.after(now.calendar)?;
            Some(next.duration_since(now.now))
        });
        let left = |span: &Duration, passed: Duration| signed(*span).saturating_sub(signed(passed));
        // What was due before the timer was there is made up for, once; what was due by the end of its last turn, with how
        // late that was, is over.
        let once = |span: &Duration, passed: Duration| {
            let rested = now.since_rested.map(|since| passed.saturating_sub(since));
            let is_over = rested.is_some_and(|rested| rested >= span.saturating_add(now.late));
            (!is_over).then(|| left(span, passed))
        };
        let boot = self.after_boot.iter().map(|span| once(span, now.since_boot));
        let start = self.after_start.iter().map(|span| once(span, now.since_start));
        // Who started or stopped its unit does not matter.
        let since = |span: &Duration, unit: Option<Duration>| {
            let latest = unit.into_iter().chain(now.since_fired).min()?;
            Some(left(span, latest))
        };
        let active = self.after_active.iter().map(|span| since(span, now.since_active));
        let inactive = self
            .after_inactive
            .iter()
            .map(|span| since(span, now.since_inactive));
        let spans = boot.chain(start).chain(active).chain(inactive).flatten();
        let next = calendar.chain(spans).min()?.saturating_add(signed(now.delay));
        Some(Duration::try_from(next).unwrap_or_default())
    }
}

fn push<T>(list: &mut Vec<T>, value: Option<T>) -> bool {
    let is_one = value.is_some();
    list.extend(value);
    is_one
}

fn set<T>(field: &mut T, value: Option<T>) -> bool {
    value.map(|value| *field = value).is_some()
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

/// What a timer is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Timestamp,
    /// It was last due, or was started: what the calendar says counts after this.
    pub calendar: Timestamp,
    pub since_boot: Duration,
    pub since_start: Duration,
    /// Since it last started its unit. `None` when it never did.
    pub since_fired: Option<Duration>,
    /// Since it waits again after that, and how late it was then.
    pub since_rested: Option<Duration>,
    pub late: Duration,
    /// Since its unit last began to be up, and since it last ended. `None` when that is not known.
    pub since_active: Option<Duration>,
    pub since_inactive: Option<Duration>,
    /// How late it is this time.
    pub delay: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    /// Four minutes after all began.
    fn early() -> Moment {
        Moment {
            now: "2026-01-01T00:04:00Z".parse().unwrap(),
            calendar: "2026-01-01T00:00:00Z".parse().unwrap(),
            since_boot: minutes(4),
            since_start: minutes(4),
            since_fired: None,
            since_rested: None,
            late: Duration::ZERO,
            since_active: None,
            since_inactive: None,
            delay: Duration::ZERO,
        }
    }

    #[test]
    fn a_timer_is_due_when_the_first_of_its_clocks_is() {
        let text = "[Timer]\nOnBootSec=10min\nOnUnitActiveSec=1h\nUnit=other.service\nPersistent=true\nWakeSystem=yes\n";
        let timer = parse("a", text);
        assert_eq!((timer.unit.as_str(), timer.persistent), ("other.service", true));
        assert_eq!(timer.notes, ["WakeSystem=yes is ignored"]);
        let mut now = early();
        assert_eq!(timer.next(now), Some(minutes(6)));
        // It is too late for it, but not for doing it.
        now.since_boot = minutes(11);
        assert_eq!(timer.next(now), Some(Duration::ZERO));
        now.since_boot = minutes(26);
        (now.since_fired, now.since_rested) = (Some(minutes(15)), Some(minutes(15)));
        assert_eq!(timer.next(now), Some(minutes(45)));
        let once = parse("a", "[Timer]\nOnBootSec=10min\n");
        assert_eq!(once.next(now), None, "it was done");
        // Longer than anything else in a unit may take.
        let weekly = parse("a", "[Timer]\nOnUnitActiveSec=1w\n");
        assert_eq!(weekly.next(now), Some(minutes(7 * 24 * 60 - 15)));
        let never = parse("a", "[Timer]\nOnActiveSec=infinity\nOnUnitActiveSec=infinity\n");
        assert!(never.next(now).is_none_or(|wait| wait > minutes(1 << 40)));
    }

    #[test]
    fn a_clock_that_another_one_came_before_is_still_due() {
        let timer = parse("a", "[Timer]\nOnActiveSec=5min\nOnCalendar=00:04\n");
        // By the calendar it was due at four minutes, and with `late` a little later.
        let at = |started, rested, late, delay| Moment {
            now: "2026-01-01T00:09:00Z".parse().unwrap(),
            calendar: "2026-01-01T00:04:30Z".parse().unwrap(),
            since_start: started,
            since_fired: Some(started - rested),
            since_rested: Some(started - rested),
            late,
            delay,
            ..early()
        };
        let due = |moment| timer.next(moment).filter(|wait| *wait < minutes(60));
        let (none, rested) = (Duration::ZERO, Duration::from_secs(270));
        assert_eq!(due(at(rested, rested, none, none)), Some(Duration::from_secs(30)));
        // Whoever slept until then wakes a little later.
        let woken = minutes(5) + Duration::from_millis(3);
        assert_eq!(due(at(woken, rested, none, none)), Some(none));
        assert_eq!(due(at(woken, woken, none, none)), None, "it was its turn");
        // It is late by two minutes, and the calendar's turn came half a minute after its own time.
        let rested = Duration::from_secs(330);
        assert_eq!(
            due(at(rested, rested, minutes(2), minutes(1))),
            Some(Duration::from_secs(30))
        );
        assert_eq!(due(at(minutes(6), rested, minutes(2), minutes(1))), Some(none));
        assert_eq!(
            due(at(minutes(8), minutes(8), minutes(2), minutes(9))),
            None,
            "its unit was up"
        );
    }

    /// Whoever started or stopped its unit, and whatever it did itself.
    #[test]
    fn what_its_unit_does_makes_it_due() {
        let timer = parse("a", "[Timer]\nOnUnitActiveSec=1h\nOnUnitInactiveSec=2h\n");
        assert!(timer.follows() && timer.is_one());
        let mut now = early();
        assert_eq!(timer.next(now), None);
        now.since_active = Some(minutes(50));
        assert_eq!(timer.next(now), Some(minutes(10)));
        now.since_inactive = Some(minutes(115));
        assert_eq!(timer.next(now), Some(minutes(5)));
        now.since_fired = Some(minutes(20));
        assert_eq!(timer.next(now), Some(minutes(40)));
        now.since_active = Some(minutes(10));
        assert_eq!(timer.next(now), Some(minutes(50)));
    }

    #[test]
    fn several_of_one_kind_add_up_and_an_empty_one_takes_all_away() {
        let two = parse(
            "a",
            "[Timer]\nOnActiveSec=1h\nOnActiveSec=5min\nOnCalendar=01:00\nOnCalendar=00:06\n",
        );
        let mut now = early();
        assert_eq!(two.next(now), Some(minutes(1)));
        now.since_start = minutes(6);
        (now.since_fired, now.since_rested) = (Some(minutes(0)), Some(minutes(0)));
        assert_eq!(two.next(now), Some(minutes(2)));
        for empty in ["OnCalendar", "OnBootSec", "OnUnitInactiveSec"] {
            let text = format!("[Timer]\nOnActiveSec=5min\nOnCalendar=00:06\n{empty}=\nOnStartupSec=1h\n");
            let reset = parse("a", &text);
            assert_eq!(reset.next(early()), Some(minutes(56)), "{empty}");
            assert!(reset.notes.is_empty());
        }
        assert!(!parse("a", "[Timer]\nOnCalendar=\nOnCalendar=soon\n").is_one());
    }

    #[test]
    fn the_calendar_goes_on_after_the_last_time() {
        let timer = parse("a", "[Timer]\nOnCalendar=*:0/5\n");
        let mut now = early();
        assert_eq!(timer.next(now), Some(minutes(1)));
        // Its unit was up meanwhile.
        now.now = "2026-01-01T00:07:00Z".parse().unwrap();
        assert_eq!(timer.next(now), Some(Duration::ZERO));
        now.calendar = now.now;
        assert_eq!(timer.next(now), Some(minutes(3)));
        now.delay = minutes(2);
        assert_eq!(timer.next(now), Some(minutes(5)));
        now.now = "2026-01-01T00:11:00Z".parse().unwrap();
        assert_eq!(
            timer.next(now),
            Some(minutes(1)),
            "what is made up for is late, too"
        );
    }

    #[test]
    fn values_have_specifiers_and_no_timer_starts_a_timer() {
        let text = "[Timer]\nOnCalendar=%i\nUnit=%p-%i.service\nUnit=b.timer\nRandomizedDelaySec=2h\nRemainAfterElapse=no\n";
        let timer = parse("job@hourly", text);
        assert_eq!(timer.unit, "job-hourly.service");
        assert_eq!((timer.calendar.len(), timer.remains), (1, false));
        assert_eq!(timer.delay, minutes(120));
        assert_eq!(timer.notes, ["Unit=b.timer is ignored"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_timer_or_a_note(text in "\\PC{0,60}") {
            let timer = parse("a", &format!("[Timer]\nOnCalendar={text}\nOnBootSec={text}\nRandomizedDelaySec={text}\n"));
            let _ = timer.next(early());
        }
    }
}
