//! Timer units and the moments that they name (`systemd.timer(5)`, `systemd.time(7)`).

use std::time::Duration;

use jiff::{ToSpan as _, civil};

use super::{expand, syntax};

/// A timer, and what of its file was not understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timer {
    /// Full name of what it starts.
    pub unit: String,
    pub calendar: Vec<Calendar>,
    /// After the host began.
    pub after_boot: Option<Duration>,
    /// After the timer itself was started.
    pub after_start: Option<Duration>,
    /// After its unit was started last, and after it ended.
    pub after_active: Option<Duration>,
    pub after_inactive: Option<Duration>,
    pub notes: Vec<String>,
}

/// Reads a timer's file. `name` is without `.timer`.
pub fn parse(name: &str, text: &str) -> Timer {
    let mut timer = Timer {
        unit: format!("{name}.service"),
        ..Timer::default()
    };
    let mut section = String::new();
    for line in syntax::logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section == "Timer"
            && let Some((key, value)) = line.split_once('=')
        {
            timer.assign(key.trim(), value.trim(), name);
        }
    }
    timer
}

impl Timer {
    fn assign(&mut self, key: &str, value: &str, name: &str) {
        let span = syntax::time(value);
        let known = match key {
            "Unit" => {
                self.unit = expand(value, name);
                true
            }
            "OnCalendar" if value.is_empty() => {
                self.calendar.clear();
                true
            }
            "OnCalendar" => Calendar::parse(value)
                .map(|calendar| self.calendar.push(calendar))
                .is_some(),
            "OnBootSec" | "OnStartupSec" => set(&mut self.after_boot, span),
            "OnActiveSec" => set(&mut self.after_start, span),
            "OnUnitActiveSec" => set(&mut self.after_active, span),
            "OnUnitInactiveSec" => set(&mut self.after_inactive, span),
            // A host begins anew with every release, so no run was missed; and it is alone with its clock.
            "Persistent" | "AccuracySec" | "RandomizedDelaySec" | "RemainAfterElapse" => true,
            _ => false,
        };
        if !known {
            self.notes.push(format!("{key}={value} is ignored"));
        }
    }

    /// How long until it is due, from what is known of the time and of its unit. `None`: never again.
    pub fn next(&self, now: Moment) -> Option<Duration> {
        let since = |span: Option<Duration>, passed: Option<Duration>| Some(span?.saturating_sub(passed?));
        let calendar = self.calendar.iter().filter_map(|calendar| {
            let next = calendar.next(now.civil)?;
            Duration::try_from(next - now.civil).ok()
        });
        let once = |span: Option<Duration>, passed: Duration| span?.checked_sub(passed);
        // One of a boot that was longer ago is made up for, once.
        let boot = once(self.after_boot, now.since_boot).or_else(|| {
            let never = now.since_active.is_none();
            self.after_boot.filter(|_| never).map(|_| Duration::ZERO)
        });
        calendar
            .chain(boot)
            .chain(once(self.after_start, now.since_start))
            .chain(since(self.after_active, now.since_active))
            .chain(since(self.after_inactive, now.since_inactive))
            .min()
    }
}

fn set(field: &mut Option<Duration>, span: Option<Duration>) -> bool {
    *field = span.or(*field);
    span.is_some()
}

/// What a timer is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// UTC.
    pub civil: civil::DateTime,
    pub since_boot: Duration,
    pub since_start: Duration,
    /// `None` when its unit was never started, or has not ended.
    pub since_active: Option<Duration>,
    pub since_inactive: Option<Duration>,
}

/// A repeating moment: `Mon..Fri *-*-* 06,18:00/15:00`. In UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Monday first.
    weekdays: [bool; 7],
    year: Part,
    month: Part,
    day: Part,
    hour: Part,
    minute: Part,
    second: Part,
}

/// The values of one part: any, or a few ranges with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part(Vec<(i16, i16, i16)>);

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let ranges = text.split(',').map(|one| {
            let (range, step) = match one.split_once('/') {
                Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0)?)),
                None => (one, None),
            };
            if range == "*" {
                return Some((0, i16::MAX, step.unwrap_or(1)));
            }
            let (from, to) = match range.split_once("..") {
                Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
                None => {
                    let from: i16 = range.parse().ok()?;
                    (from, if step.is_some() { i16::MAX } else { from })
                }
            };
            (from >= 0 && from <= to).then_some((from, to, step.unwrap_or(1)))
        });
        ranges
            .collect::<Option<Vec<_>>>()
            .filter(|ranges| ranges.len() <= 60)
            .map(Self)
    }

    fn has(&self, value: i16) -> bool {
        self.0
            .iter()
            .any(|(from, to, step)| (*from..=*to).contains(&value) && (value - from) % step == 0)
    }
}

impl Calendar {
    /// `None` when it is not understood.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = match text.trim() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "semiannually" => "*-01,07-01 00:00:00",
            "yearly" | "annually" => "*-01-01 00:00:00",
            other => other,
        };
        let mut words = whole.split_whitespace().filter(|word| *word != "UTC").peekable();
        let weekdays = match words.peek() {
            Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let days = weekdays(word)?;
                words.next();
                days
            }
            _ => [true; 7],
        };
        let (mut date, mut clock) = (["*", "*", "*"], ["0", "0", "0"]);
        for word in words {
            let (into, separator) = match word.contains(':') {
                true => (&mut clock, ':'),
                false => (&mut date, '-'),
            };
            let parts: Vec<&str> = word.split(separator).collect();
            match (parts.as_slice(), separator) {
                ([a, b, c], _) => *into = [a, b, c],
                ([a, b], ':') => *into = [a, b, "0"],
                ([a, b], _) => *into = ["*", a, b],
                _ => return None,
            }
        }
        Some(Self {
            weekdays,
            year: Part::parse(date[0])?,
            month: Part::parse(date[1])?,
            day: Part::parse(date[2])?,
            hour: Part::parse(clock[0])?,
            minute: Part::parse(clock[1])?,
            second: Part::parse(clock[2])?,
        })
    }

    /// The first moment after this one, within some years. Bounded: days, then minutes of a day, then seconds.
    pub fn next(&self, after: civil::DateTime) -> Option<civil::DateTime> {
        const DAYS: i32 = 366 * 5;
        let start = after
            .checked_add(1.second())
            .ok()?
            .with()
            .subsec_nanosecond(0)
            .build()
            .ok()?;
        for ahead in 0..DAYS {
            let date = start.date().checked_add(ahead.days()).ok()?;
            if !self.on(date) {
                continue;
            }
            let from = if ahead == 0 {
                start.time()
            } else {
                civil::Time::midnight()
            };
            if let Some(time) = self.at(from) {
                return Some(date.to_datetime(time));
            }
        }
        None
    }

    fn on(&self, date: civil::Date) -> bool {
        let weekday = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        self.weekdays[weekday]
            && self.year.has(date.year())
            && self.month.has(date.month().into())
            && self.day.has(date.day().into())
    }

    /// The first time of a day from this one on.
    fn at(&self, from: civil::Time) -> Option<civil::Time> {
        for hour in (from.hour()..24).filter(|hour| self.hour.has((*hour).into())) {
            let first = if hour == from.hour() { from.minute() } else { 0 };
            for minute in (first..60).filter(|minute| self.minute.has((*minute).into())) {
                let same = hour == from.hour() && minute == from.minute();
                let first = if same { from.second() } else { 0 };
                let second = (first..60).find(|second| self.second.has((*second).into()));
                if let Some(second) = second {
                    return civil::Time::new(hour, minute, second, 0).ok();
                }
            }
        }
        None
    }
}

fn weekdays(text: &str) -> Option<[bool; 7]> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let index = |name: &str| {
        let name = name.to_ascii_lowercase();
        NAMES.iter().position(|known| name.starts_with(known))
    };
    let mut days = [false; 7];
    for part in text.trim_end_matches(',').split(',') {
        let (from, to) = part.split_once("..").unwrap_or((part, part));
        let (from, to) = (index(from)?, index(to)?);
        let length = (to + 7 - from) % 7;
        (0..=length).for_each(|step| days[(from + step) % 7] = true);
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendars_name_moments() {
        for (text, after, expected) in [
            ("daily", "2026-02-28T10:00:00", "2026-03-01T00:00:00"),
            ("hourly", "2026-01-01T10:59:59", "2026-01-01T11:00:00"),
            ("*:0/15", "2026-01-01T10:44:00", "2026-01-01T10:45:00"),
            ("*-*-* 6,18:00", "2026-01-01T06:00:00", "2026-01-01T18:00:00"),
            ("Mon..Fri 09:30", "2026-01-02T09:30:00", "2026-01-05T09:30:00"),
            (
                "Sat..Sun,Wed *-*-* 00:00:00",
                "2026-01-01T00:00:00",
                "2026-01-03T00:00:00",
            ),
            ("monthly", "2026-01-31T00:00:00", "2026-02-01T00:00:00"),
            ("02-29", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
            ("*-*-* *:*:00/20", "2026-01-01T00:00:21", "2026-01-01T00:00:40"),
            (
                "Mon..Fri *-*-* 9..17:00/30:00",
                "2026-01-02T17:30:00",
                "2026-01-05T09:00:00",
            ),
            ("Sat *-*-1..7 18:00", "2026-01-03T18:00:00", "2026-02-07T18:00:00"),
            ("2026-03-01", "2026-01-01T00:00:00", "2026-03-01T00:00:00"),
            ("*-*-* 04:00:00 UTC", "2026-01-01T04:00:00", "2026-01-02T04:00:00"),
            ("weekly", "2026-01-01T00:00:00", "2026-01-05T00:00:00"),
        ] {
            let next = Calendar::parse(text).unwrap().next(after.parse().unwrap());
            assert_eq!(next, Some(expected.parse().unwrap()), "{text}");
        }
        for bad in ["x", "25:", "Mon..Blu", "1-2-3-4", "*/0:00", "5..3:00"] {
            let never = Calendar::parse(bad)
                .and_then(|calendar| calendar.next("2026-01-01T00:00:00".parse().unwrap()));
            assert_eq!(never, None, "{bad}");
        }
    }

    #[test]
    fn a_timer_is_due_when_the_first_of_its_clocks_is() {
        let text = "[Timer]\nOnBootSec=10min\nOnUnitActiveSec=1h\nUnit=other.service\nPersistent=true\nWakeSystem=yes\n";
        let timer = parse("a", text);
        assert_eq!(timer.unit, "other.service");
        assert_eq!(timer.notes, ["WakeSystem=yes is ignored"]);
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut now = Moment {
            civil: "2026-01-01T00:00:00".parse().unwrap(),
            since_boot: minutes(4),
            since_start: minutes(4),
            since_active: None,
            since_inactive: None,
        };
        assert_eq!(timer.next(now), Some(minutes(6)));
        // It is too late for it, but not for doing it.
        now.since_boot = minutes(11);
        assert_eq!(timer.next(now), Some(Duration::ZERO));
        now.since_active = Some(minutes(15));
        assert_eq!(timer.next(now), Some(minutes(45)));
        let once = parse("a", "[Timer]\nOnBootSec=10min\n");
        assert_eq!(once.next(now), None, "it was done");
        // Longer than anything else in a unit may take.
        let weekly = parse("a", "[Timer]\nOnUnitActiveSec=1w\n");
        assert_eq!(weekly.next(now), Some(minutes(7 * 24 * 60 - 15)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_timer_or_a_note(text in "\\PC{0,60}") {
            let timer = parse("a", &format!("[Timer]\nOnCalendar={text}\nOnBootSec={text}\n"));
            for calendar in timer.calendar {
                let _ = calendar.next("2026-01-01T00:00:00".parse().unwrap());
            }
        }
    }
}
