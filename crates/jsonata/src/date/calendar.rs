//! The Gregorian calendar without end, and the parts of a moment. Times are milliseconds since 1970 in UTC.

pub const DAY: f64 = 86_400_000.0;
/// The farthest moment that JavaScript has.
pub const FARTHEST: f64 = 8.64e15;

/// Days since 1970 of the first day of a month; months count from 0 and may run over.
fn days(year: i64, month: i64) -> i64 {
    let (year, month) = (year + month.div_euclid(12), month.rem_euclid(12));
    // A year starts in March, so that the leap day is its last.
    let (year, month) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    let in_year = (153 * month + 2) / 5;
    era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719_468
}

/// `Date.UTC`: fields may run over; years from 0 to 99 mean those of the 20th century.
pub fn utc(year: f64, month: f64, day: f64, time: f64) -> f64 {
    let year = year.trunc();
    if !(year.abs() < 400_000.0 && month.abs() < 4_800_000.0 && day.is_finite()) {
        return f64::NAN;
    }
    let year = if (0.0..=99.0).contains(&year) {
        year + 1900.0
    } else {
        year
    };
    let first = days(year as i64, month.trunc() as i64) as f64;
    (first + day.trunc() - 1.0) * DAY + time
}

/// A moment taken apart.
#[derive(Clone, Copy)]
pub struct Moment {
    pub millis: f64,
    pub year: f64,
    /// From 0.
    pub month: f64,
    pub day: f64,
}

impl Moment {
    /// None: beyond what JavaScript has.
    pub fn new(millis: f64) -> Option<Moment> {
        if millis.is_nan() || millis.abs() > FARTHEST {
            return None;
        }
        let millis = millis.trunc();
        let number = (millis / DAY).floor() as i64 + 719_468;
        let (era, in_era) = (number.div_euclid(146_097), number.rem_euclid(146_097));
        let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year + year / 4 - year / 100);
        let month = (5 * in_year + 2) / 153;
        let day = in_year - (153 * month + 2) / 5 + 1;
        let (year, month) = (era * 400 + year, if month < 10 { month + 2 } else { month - 10 });
        Some(Moment {
            millis,
            year: (year + i64::from(month < 2)) as f64,
            month: month as f64,
            day: day as f64,
        })
    }

    fn time(&self) -> f64 {
        self.millis.rem_euclid(DAY)
    }

    pub fn hour(&self) -> f64 {
        (self.time() / 3_600_000.0).floor()
    }

    /// The number of a component of a picture; none for those that are no numbers.
    pub fn component(&self, component: char) -> Option<f64> {
        let today = utc(self.year, self.month, self.day, 0.0);
        Some(match component {
            'Y' => self.year,
            'M' => self.month + 1.0,
            'D' => self.day,
            'd' => (today - utc(self.year, 0.0, 1.0, 0.0)) / DAY + 1.0,
            'F' => weekday(self.millis),
            'W' => week(Period::Year, self, today),
            'w' => week(Period::Month, self, today),
            'X' => self.week_period(Period::Year),
            'x' => self.week_period(Period::Month),
            'H' => self.hour(),
            'h' => match self.hour() % 12.0 {
                0.0 => 12.0,
                hour => hour,
            },
            'm' => (self.time() / 60_000.0).floor() % 60.0,
            's' => (self.time() / 1_000.0).floor() % 60.0,
            'f' => self.time() % 1_000.0,
            _ => return None,
        })
    }

    /// The year or month to which this moment's week belongs.
    fn week_period(&self, period: Period) -> f64 {
        let own = period.of(self, 0.0);
        let (year, month) = if self.millis < own {
            period.shifted(self, -1.0)
        } else if self.millis >= period.of(self, 1.0) {
            period.shifted(self, 1.0)
        } else {
            period.shifted(self, 0.0)
        };
        match period {
            Period::Year => year,
            Period::Month => month.rem_euclid(12.0) + 1.0,
        }
    }
}

/// From 1, Monday, to 7.
fn weekday(millis: f64) -> f64 {
    ((millis / DAY).floor() + 3.0).rem_euclid(7.0) + 1.0
}

#[derive(Clone, Copy)]
enum Period {
    Year,
    Month,
}

impl Period {
    fn shifted(self, moment: &Moment, by: f64) -> (f64, f64) {
        match self {
            Period::Year => (moment.year + by, 0.0),
            Period::Month => {
                let month = moment.month + by;
                (moment.year + (month / 12.0).floor(), month.rem_euclid(12.0))
            }
        }
    }

    /// The Monday of the first week of the moment's period, or of one near it: the week that has its first Thursday.
    fn of(self, moment: &Moment, by: f64) -> f64 {
        let (year, month) = self.shifted(moment, by);
        let first = utc(year, month, 1.0, 0.0);
        let weekday = weekday(first);
        if weekday > 4.0 {
            first + (8.0 - weekday) * DAY
        } else {
            first - (weekday - 1.0) * DAY
        }
    }
}

fn week(period: Period, moment: &Moment, today: f64) -> f64 {
    let number = |start: f64| (today - start) / (DAY * 7.0) + 1.0;
    let most = match period {
        Period::Year => 52.0,
        Period::Month => 4.0,
    };
    let mut week = number(period.of(moment, 0.0));
    if week > most {
        if today >= period.of(moment, 1.0) {
            week = 1.0;
        }
    } else if week < 1.0 {
        week = number(period.of(moment, -1.0));
    }
    week.floor()
}
