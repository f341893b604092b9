//! Pictures of dates: texts with markers such as `[Y0001]` or `[MNn,3-3]`.

use super::integer::{Case, Picture as Integer};
use crate::{
    error::{Result, fault, quote},
    number,
};

pub enum Part {
    Literal(String),
    Marker(Marker),
}

pub struct Marker {
    pub component: char,
    /// Names in place of numbers.
    pub names: Option<Case>,
    pub integer: Option<Integer>,
    pub most: Option<usize>,
    /// UTC is written Z.
    pub zulu: bool,
    /// How many digits of the year are written.
    pub year_digits: Option<usize>,
}

/// Components that are numbers unless names are asked for.
const NUMBERS: &str = "YMDdFWwXxHhmsf";
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

pub fn analyse(picture: &str) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = picture;
    while let Some((before, after)) = rest.split_once('[') {
        literal(&mut parts, before);
        if let Some(after) = after.strip_prefix('[') {
            parts.push(Part::Literal("[".to_owned()));
            rest = after;
            continue;
        }
        let (marker, after) = after.split_once(']').ok_or_else(|| fault("D3135"))?;
        let marker: String = marker.chars().filter(|c| !c.is_whitespace()).collect();
        let marker = Marker::parse(&marker)?;
        // Of two numbers in a row, the first must have a fixed width to be read.
        if marker.integer.is_some()
            && NUMBERS.contains(marker.component)
            && let Some(Part::Marker(previous)) = parts.last_mut()
            && let Some(decimal) = previous.integer.as_mut().and_then(Integer::decimal)
        {
            decimal.width = Some(decimal.mandatory);
        }
        parts.push(Part::Marker(marker));
        rest = after;
    }
    literal(&mut parts, rest);
    Ok(parts)
}

fn literal(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Literal(text.replace("]]", "]")));
    }
}

/// The form of a component when none is asked for.
fn usual(component: char) -> Option<&'static str> {
    Some(match component {
        'Y' | 'M' | 'D' | 'd' | 'W' | 'w' | 'X' | 'x' | 'H' | 'h' | 'f' => "1",
        'm' | 's' => "01",
        'Z' | 'z' => "01:01",
        'F' | 'P' | 'C' | 'E' => "n",
        _ => return None,
    })
}

/// In which case a form wants names, if it wants names.
fn case(form: &str) -> Option<Case> {
    match form.as_bytes() {
        [b'n', ..] => Some(Case::Lower),
        [b'N', b'n', ..] => Some(Case::Title),
        [b'N', ..] => Some(Case::Upper),
        _ => None,
    }
}

/// A width such as `2` or `*`.
fn width(text: &str) -> Option<usize> {
    number::leading_integer(text)
        .filter(|width| *width >= 0.0)
        .map(|width| (width as usize).min(super::PICTURE))
}

impl Marker {
    fn parse(text: &str) -> Result<Marker> {
        let component = text.chars().next().unwrap_or_default();
        let modifiers = text.get(component.len_utf8()..).unwrap_or("");
        let (modifiers, widths) = match modifiers.rsplit_once(',') {
            Some((modifiers, widths)) => (modifiers, Some(widths)),
            None => (modifiers, None),
        };
        let (least, most) = match widths.map(|widths| widths.split_once('-').unwrap_or((widths, ""))) {
            Some((least, most)) => (width(least), width(most)),
            None => (None, None),
        };
        let mut second = None;
        let mut first = modifiers;
        if modifiers.chars().count() > 1 && modifiers.ends_with(['a', 't', 'c', 'o']) {
            second = modifiers.chars().last();
            first = &modifiers[..modifiers.len() - 1];
        }
        if first.is_empty() {
            let text = if component == '\0' {
                String::new()
            } else {
                component.to_string()
            };
            first = usual(component).ok_or_else(|| fault("D3132").insert("value", quote(&text)))?;
        }
        let names = case(first);
        let mut marker = Marker {
            component,
            names,
            integer: None,
            most,
            zulu: second == Some('t'),
            year_digits: None,
        };
        if matches!(component, 'Z' | 'z') {
            marker.integer = Some(Integer::parse(first)?);
        } else if names.is_none() && NUMBERS.contains(component) {
            let picture = second.map_or_else(|| first.to_owned(), |second| format!("{first};{second}"));
            marker.integer = Some(Integer::parse(&picture)?);
            marker.widen(least);
        }
        Ok(marker)
    }

    /// Applies the width modifier to the number's picture.
    fn widen(&mut self, least: Option<usize>) {
        let is_year = self.component == 'Y';
        let most = self.most;
        let Some(decimal) = self.integer.as_mut().and_then(Integer::decimal) else {
            if is_year {
                self.year_digits = most;
            }
            return;
        };
        decimal.mandatory = decimal.mandatory.max(least.unwrap_or(0));
        if !is_year {
            return;
        }
        match most {
            Some(most) => {
                self.year_digits = Some(most);
                decimal.mandatory = most;
            }
            None => {
                let digits = decimal.mandatory + decimal.optional;
                self.year_digits = (digits >= 2).then_some(digits);
            }
        }
    }
}
