//! Text to moments.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::LazyLock,
};

use super::{
    calendar::{FARTHEST, Moment, utc},
    integer::Primary,
    picture::{DAYS, MONTHS, Marker, Part, analyse},
};
use crate::{
    error::{Result, fault, quote},
    number,
    pattern::Pattern,
    run::Run,
};

/// A moment in ISO 8601: a year, and as much of the rest as there is.
pub fn iso(text: &str) -> Option<f64> {
    static SHAPE: LazyLock<Pattern> = LazyLock::new(|| {
        let shape = [r"(\d{4})", r"(?:-([01]\d))?", r"(?:-([0-3]\d))?"].concat()
            + r"(?:T([0-2]\d):([0-5]\d):([0-5]\d))?(\.\d+)?([+-][0-2]\d:?[0-5]\d|Z)?";
        Pattern::compile(&format!("^(?:{shape})$"), "").expect("the pattern is well formed")
    });
    let found = SHAPE.find(text, 0).ok()??;
    let group = |index: usize| found.groups[index].map(|(start, end)| &text[start..end]);
    let number = |index: usize, otherwise: f64| {
        group(index).map_or(otherwise, |text| text.parse().unwrap_or(otherwise))
    };
    let (year, month, day) = (number(0, 0.0), number(1, 1.0), number(2, 1.0));
    let (hour, minute, second) = (number(3, 0.0), number(4, 0.0), number(5, 0.0));
    let fraction = group(6).map_or(0.0, |text| {
        let digits: String = text[1..].chars().chain("000".chars()).take(3).collect();
        digits.parse().unwrap_or(0.0)
    });
    let zone = group(7).map_or(0.0, |zone| {
        let sign = if zone.starts_with('-') { -1.0 } else { 1.0 };
        let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
        let value: f64 = digits.parse().unwrap_or(0.0);
        sign * ((value / 100.0).floor() * 60.0 + value % 100.0)
    });
    let midnight = hour == 24.0 && minute == 0.0 && second == 0.0 && fraction == 0.0;
    if !(1.0..=12.0).contains(&month) || !(1.0..=31.0).contains(&day) || hour > 23.0 && !midnight {
        return None;
    }
    let time = ((hour * 60.0 + minute - zone) * 60.0 + second) * 1000.0 + fraction;
    // Years from 0 to 99 are meant here; a leap cycle later the calendar is the same.
    const CYCLE: f64 = 146_097.0 * 86_400_000.0;
    Some(utc(year + 400.0, month - 1.0, day, time) - CYCLE)
}

/// What it costs to compile a picture's regular expression, in steps.
const COMPILING: u64 = 1_000;

type Components = HashMap<char, f64>;

/// A moment by a picture. None: the text does not fit it.
pub fn parse(run: &Run<'_>, text: &str, picture: &str) -> Result<Option<f64>> {
    let parts = analyse(picture)?;
    let mut source = String::new();
    for part in &parts {
        source.push_str(&format!("({})", part.pattern()?));
    }
    run.tick(COMPILING + source.len() as u64 + text.len() as u64)?;
    let Some(found) = Pattern::compile(&format!("^{source}$"), "i")?.find(text, 0)? else {
        return Ok(None);
    };
    let mut components = Components::new();
    for (part, group) in parts.iter().zip(&found.groups) {
        if let (Part::Marker(marker), Some((start, end))) = (part, group) {
            match marker.read(&text[*start..*end])? {
                Some(value) => components.insert(marker.component, value),
                None => components.remove(&marker.component),
            };
        }
    }
    let marked = parts.iter().any(|part| matches!(part, Part::Marker(_)));
    if !marked {
        return Ok(None);
    }
    let moment = assemble(run, components)?;
    if moment.is_nan() || moment.abs() > FARTHEST {
        return Err(fault("D3136"));
    }
    Ok(Some(moment))
}

impl Part {
    fn pattern(&self) -> Result<String> {
        match self {
            Part::Literal(text) => Ok(text.chars().map(escaped).collect()),
            Part::Marker(marker) => marker.pattern(),
        }
    }
}

fn escaped(c: char) -> String {
    if ".*+?^${}()|[]\\/".contains(c) {
        format!("\\{c}")
    } else {
        c.to_string()
    }
}

impl Marker {
    /// The separator between hours and minutes of a zone.
    fn zone_separator(&self) -> Option<char> {
        match &self.integer.as_ref()?.primary {
            Primary::Decimal(decimal) if decimal.regular > 0 => decimal.separators.first().map(|(_, c)| *c),
            _ => None,
        }
    }

    fn pattern(&self) -> Result<String> {
        match (self.component, &self.integer) {
            (component @ ('Z' | 'z'), _) => {
                let lead = if component == 'z' { "GMT" } else { "" };
                let minutes = self
                    .zone_separator()
                    .map(|c| format!("{}[0-9]+", escaped(c)))
                    .unwrap_or_default();
                Ok(format!("{lead}[-+][0-9]+{minutes}"))
            }
            ('f', _) => Ok("[0-9]+".to_owned()),
            (_, Some(integer)) => integer.pattern(),
            ('M' | 'x' | 'F' | 'P', None) => Ok("[a-zA-Z]+".to_owned()),
            (component, None) => Err(fault("D3133").insert("value", quote(&component.to_string()))),
        }
    }

    /// The number that a text stands for; none for an unknown name.
    fn read(&self, text: &str) -> Result<Option<f64>> {
        let name_of = |names: &[&str]| {
            let fits = |name: &&str| &name[..self.most.unwrap_or(name.len()).min(name.len())] == text;
            names.iter().position(fits).map(|index| index as f64 + 1.0)
        };
        Ok(match (self.component, &self.integer) {
            ('Z' | 'z', _) => Some(self.read_zone(text)),
            ('f', _) => {
                let digits = &text[..text.len().min(3)];
                format!("0.{digits}")
                    .parse()
                    .ok()
                    .map(|fraction: f64| fraction * 1000.0)
            }
            (_, Some(integer)) => Some(integer.read(text)?),
            ('F', None) => name_of(&DAYS),
            ('P', None) => match text {
                "am" | "AM" => Some(0.0),
                "pm" | "PM" => Some(1.0),
                _ => None,
            },
            _ => name_of(&MONTHS),
        })
    }

    fn read_zone(&self, text: &str) -> f64 {
        let text = if self.component == 'z' {
            text.get(3..).unwrap_or("")
        } else {
            text
        };
        let number = |text: &str| number::leading_integer(text).unwrap_or(f64::NAN);
        let (hours, minutes) = match self.zone_separator() {
            Some(separator) => text.split_once(separator).unwrap_or((text, "")),
            None if text.len() > 3 => text.split_at(3),
            None => (text, "0"),
        };
        number(hours) * 60.0 + number(minutes)
    }
}

/// Which of the wanted components are there: at least one of them, and no other of `all`.
fn is_form(components: &Components, all: &str, wanted: &str) -> bool {
    // The reference takes a 0 for an absent component here.
    let present = |c: char| {
        components
            .get(&c)
            .is_some_and(|value| *value != 0.0 && !value.is_nan())
    };
    let mut there = all.chars().filter(|c| present(*c)).peekable();
    there.peek().is_some() && there.all(|c| wanted.contains(c))
}

/// Fills in what is missing, in order from the greatest component to the least: those before all that are given from
/// now, those behind with the least value. There may be no gap.
fn fill(run: &Run<'_>, components: &mut Components, order: impl Iterator<Item = char>) -> Result<()> {
    let now = Moment::new(run.now).ok_or_else(|| fault("D3136"))?;
    let (mut started, mut ended) = (false, false);
    for part in order {
        match components.entry(part) {
            Entry::Occupied(_) if ended => return Err(fault("D3136")),
            Entry::Occupied(_) => started = true,
            Entry::Vacant(gap) if started => {
                gap.insert(if "MDd".contains(part) { 1.0 } else { 0.0 });
                ended = true;
            }
            Entry::Vacant(gap) => {
                let half = f64::from(u8::from(now.hour() >= 12.0));
                gap.insert(now.component(part).unwrap_or(half));
            }
        }
    }
    Ok(())
}

/// The moment that the components mean together.
fn assemble(run: &Run<'_>, mut components: Components) -> Result<f64> {
    const DATE: &str = "YXMxWwdD";
    const TIME: &str = "PHhmsf";
    let date_a = is_form(&components, DATE, "YMD");
    let date_b = !date_a && is_form(&components, DATE, "Yd");
    let date_c = is_form(&components, DATE, "Xxw");
    let date_d = !date_c && is_form(&components, DATE, "XW");
    let twelve = !is_form(&components, TIME, "Hmsf") && is_form(&components, TIME, "Phmsf");
    let date = match (date_b, date_c, date_d) {
        (true, ..) => "YD",
        (_, true, _) => "XxwF",
        (.., true) => "XWF",
        _ => "YMD",
    };
    let order = date.chars().chain(if twelve { "Phmsf" } else { "Hmsf" }.chars());
    fill(run, &mut components, order)?;
    if date_c || date_d {
        return Err(fault("D3136"));
    }
    let of = |c: char| components.get(&c).copied();
    let year = of('Y').unwrap_or(f64::NAN);
    let mut month = of('M')
        .filter(|month| *month > 0.0)
        .map_or(0.0, |month| month - 1.0);
    let mut day = of('D').unwrap_or(f64::NAN);
    if date_b {
        let derived =
            Moment::new(utc(year, 0.0, of('d').unwrap_or(f64::NAN), 0.0)).ok_or_else(|| fault("D3136"))?;
        (month, day) = (derived.month, derived.day);
    }
    let hour = match (twelve, of('h')) {
        (true, Some(hour)) => {
            let hour = if hour == 12.0 { 0.0 } else { hour };
            if of('P') == Some(1.0) { hour + 12.0 } else { hour }
        }
        _ => of('H').unwrap_or(f64::NAN),
    };
    let part = |c: char| of(c).unwrap_or(f64::NAN).trunc();
    let zone = of('Z').filter(|zone| *zone != 0.0).or(of('z')).unwrap_or(0.0);
    let time = ((hour.trunc() * 60.0 + part('m') - zone) * 60.0 + part('s')) * 1000.0 + part('f');
    Ok(utc(year, month, day, time))
}
