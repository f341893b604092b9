//! The moments that timers name (`systemd.time(7)`, "Calendar Events"). Pure, but for the host's database of time zones.

use jiff::{Timestamp, ToSpan as _, civil, tz::TimeZone};

/// A repeating moment: `Mon..Fri *-*-* 06,18:00/15:00 Europe/Berlin`. In UTC where it says nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Monday first.
    weekdays: [bool; 7],
    year: Part,
    month: Part,
    day: Part,
    /// Days are counted from the month's end.
    backwards: bool,
    hour: Part,
    minute: Part,
    second: Part,
    zone: TimeZone,
}

/// The values of one part: any, or a few ranges with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part(Vec<(i16, i16, i16)>);

impl Part {
    /// `None` also for what is never there.
    fn parse(text: &str, (least, most): (i16, i16)) -> Option<Self> {
        let ranges = text.split(',').map(|one| {
            let (range, step) = match one.split_once('/') {
                Some((range, step)) => (
                    range,
                    Some(step.parse().ok().filter(|step| (1..=most).contains(step))?),
                ),
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
            let there = from >= least && from <= to && from <= most && (to <= most || to == i16::MAX);
            there.then_some((from, to, step.unwrap_or(1)))
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

    /// Of `last` days, has it that one, counted from the end? What has no end goes on to the end of the month.
    fn has_from_end(&self, day: i16, last: i16) -> bool {
        let left = last + 1 - day;
        self.0.iter().any(|(from, to, step)| match *to {
            i16::MAX => left <= *from && (from - left) % step == 0,
            to => (*from..=to).contains(&left) && (left - from) % step == 0,
        })
    }
}

impl Calendar {
    /// `None` when it is not understood.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, zone) = match text.trim().rsplit_once(' ') {
            Some((rest, name)) if zone(name).is_some() => (rest, zone(name)?),
            _ => (text.trim(), TimeZone::UTC),
        };
        let short = text.to_ascii_lowercase();
        let whole = match short.as_str() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01 00:00:00",
            "yearly" | "annually" | "anually" => "*-01-01 00:00:00",
            _ => text,
        };
        let mut words = whole.split_whitespace().peekable();
        let weekdays = match words.peek() {
            Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let days = weekdays(word)?;
                words.next();
                days
            }
            _ => [true; 7],
        };
        let (mut date, mut clock) = (["*", "*", "*"], ["0", "0", "0"]);
        let mut backwards = false;
        for word in words {
            let parts: Vec<&str> = match word.contains(':') {
                true => word.split(':').collect(),
                // The end of a month is behind a `~`.
                false => word.split(['-', '~']).collect(),
            };
            match (parts.as_slice(), word.contains(':')) {
                ([a, b, c], true) => clock = [a, b, c],
                ([a, b], true) => clock = [a, b, "0"],
                ([a, b, c], false) => date = [a, b, c],
                ([a, b], false) => date = ["*", a, b],
                _ => return None,
            }
            backwards |= match word.split_once('~') {
                Some((_, day)) if day.contains(['-', '~', ':']) => return None,
                rest => rest.is_some(),
            };
        }
        Some(Self {
            weekdays,
            year: Part::parse(date[0], (0, 9999))?,
            month: Part::parse(date[1], (1, 12))?,
            day: Part::parse(date[2], (1, 31))?,
            backwards,
            hour: Part::parse(clock[0], (0, 23))?,
            minute: Part::parse(clock[1], (0, 59))?,
            second: Part::parse(clock[2], (0, 59))?,
            zone,
        })
    }

    /// The first moment after this one, within some years. One that the clocks pass over is later, one that they come to
    /// twice is once.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut civil = moment.to_zoned(self.zone.clone()).datetime();
        // As often as clocks may be put back between two moments.
        for _ in 0..4000 {
            civil = self.next(civil)?;
            let next = self.zone.to_timestamp(civil).ok()?;
            if next > moment {
                return Some(next);
            }
        }
        None
    }

    /// The first moment after this one, within some years. Bounded: days, then minutes of a day, then seconds.
    fn next(&self, after: civil::DateTime) -> Option<civil::DateTime> {
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
            && match self.backwards {
                true => self
                    .day
                    .has_from_end(date.day().into(), date.days_in_month().into()),
                false => self.day.has(date.day().into()),
            }
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

/// A zone by its name in the host's database: `Europe/Zurich`, and `CET` where that is a name there.
fn zone(name: &str) -> Option<TimeZone> {
    match name {
        "UTC" => Some(TimeZone::UTC),
        name if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains(['*', ':']) => {
            TimeZone::get(name).ok()
        }
        _ => None,
    }
}

/// Whole names, or their first three letters.
fn weekdays(text: &str) -> Option<[bool; 7]> {
    const NAMES: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let index = |name: &str| {
        let name = name.to_ascii_lowercase();
        NAMES
            .iter()
            .position(|known| name == *known || name == known[..3])
    };
    let mut days = [false; 7];
    for part in text.trim_end_matches(',').split(',') {
        // In older units with one dash.
        let range = part.split_once("..").or_else(|| part.split_once('-'));
        let (from, to) = range.unwrap_or((part, part));
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
            ("Daily", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
            ("biannually", "2026-01-01T00:00:00", "2026-07-01T00:00:00"),
            ("Mon-Fri 10:00", "2026-01-02T10:00:00", "2026-01-05T10:00:00"),
            (
                "mon..Wednesday,SAT 10:00",
                "2026-01-01T00:00:00",
                "2026-01-03T10:00:00",
            ),
            ("*-*~1", "2026-01-01T00:00:00", "2026-01-31T00:00:00"),
            ("*-02~03", "2026-01-01T00:00:00", "2026-02-26T00:00:00"),
            ("Mon *-05~07/1", "2026-01-01T00:00:00", "2026-05-25T00:00:00"),
            ("9..17/2:00", "2026-01-01T09:00:00", "2026-01-01T11:00:00"),
            ("0:0..30/7", "2026-01-01T00:28:00", "2026-01-02T00:00:00"),
            (
                "10:00 Europe/Berlin",
                "2026-07-01T00:00:00",
                "2026-07-01T08:00:00",
            ),
            (
                "Sun 02:30 Europe/Berlin",
                "2026-03-28T00:00:00",
                "2026-03-29T01:30:00",
            ),
            (
                "Sun 02:30 Europe/Berlin",
                "2026-10-25T00:30:00",
                "2026-11-01T01:30:00",
            ),
        ] {
            // Not every machine has a database of zones.
            if text.contains("Berlin") && zone("Europe/Berlin").is_none() {
                continue;
            }
            let utc = |text: &str| format!("{text}Z").parse::<Timestamp>().unwrap();
            let next = Calendar::parse(text).unwrap().after(utc(after));
            assert_eq!(next, Some(utc(expected)), "{text}");
        }
        for bad in [
            "x",
            "25:",
            "Mon..Blu",
            "1-2-3-4",
            "*/0:00",
            "5..3:00",
            "Monkey 10:00",
            "*-13-01",
            "25:00",
            "*:70",
            "*:0/90",
            "00:00:60",
            "*-*-31..2",
            "*~*~1",
            "*-*-* 10",
            "10:00 Nowhere/Else",
            "*:*:0/0.5",
        ] {
            assert_eq!(Calendar::parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_calendar_or_none(text in "[-~*.,:/ 0-9a-zA-Z]{0,40}") {
            if let Some(calendar) = Calendar::parse(&text) {
                let _ = calendar.after("2026-01-01T00:00:00Z".parse().unwrap());
            }
        }
    }
}
