//! Moments to text.

use super::{
    calendar::Moment,
    integer::{Case, Picture as Integer, Primary},
    picture::{DAYS, MONTHS, Marker, Part, analyse},
};
use crate::{
    error::{Result, fault, quote},
    number,
    run::Run,
    value::Value,
};

/// ISO 8601, when there is no picture.
const ISO: &str = "[Y0001]-[M01]-[D01]T[H01]:[m01]:[s01].[f001][Z01:01t]";

struct Zone {
    hours: f64,
    minutes: f64,
}

pub fn format(run: &Run<'_>, millis: f64, picture: Option<&str>, zone: Option<&str>) -> Result<String> {
    // `+hhmm`, taken as one number.
    let offset = zone.map_or(0.0, |zone| number::leading_integer(zone).unwrap_or(f64::NAN));
    let zone = Zone {
        hours: (offset / 100.0).floor(),
        minutes: offset % 100.0,
    };
    let parts = analyse(picture.unwrap_or(ISO))?;
    let shifted = millis + (60.0 * zone.hours + zone.minutes) * 60_000.0;
    let moment = Moment::new(shifted).ok_or_else(|| fault("D1001").value(Value::from(shifted)))?;
    let mut text = String::new();
    for part in &parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Marker(marker) => text.push_str(&marker.write(run, &moment, &zone)?),
        }
    }
    Ok(text)
}

impl Marker {
    fn write(&self, run: &Run<'_>, moment: &Moment, zone: &Zone) -> Result<String> {
        match self.component {
            'Z' | 'z' => return self.write_zone(run, zone),
            'P' => {
                let text = if moment.hour() >= 12.0 { "pm" } else { "am" };
                return Ok(if self.names == Some(Case::Upper) {
                    text.to_uppercase()
                } else {
                    text.to_owned()
                });
            }
            'C' | 'E' => return Ok("ISO".to_owned()),
            _ => {}
        }
        let unknown = || fault("D3132").insert("value", quote(&self.component.to_string()));
        let mut value = moment.component(self.component).ok_or_else(unknown)?;
        if let Some(digits) = self.year_digits {
            value %= 10f64.powf(digits as f64);
        }
        match (&self.names, &self.integer) {
            (Some(case), _) if self.component != 'f' => self.write_name(value as usize, *case),
            (_, Some(integer)) => integer.write(run, value),
            _ => Err(fault("D3133").insert("value", quote(&self.component.to_string()))),
        }
    }

    fn write_name(&self, value: usize, case: Case) -> Result<String> {
        let names: &[&str] = match self.component {
            'M' | 'x' => &MONTHS,
            'F' => &DAYS,
            _ => return Err(fault("D3133").insert("value", quote(&self.component.to_string()))),
        };
        let name = names.get(value.wrapping_sub(1)).copied().unwrap_or_default();
        let name = match case {
            Case::Upper => name.to_uppercase(),
            Case::Lower => name.to_lowercase(),
            Case::Title => name.to_owned(),
        };
        let length = self.most.unwrap_or(name.len()).min(name.len());
        Ok(name[..length].to_owned())
    }

    fn write_zone(&self, run: &Run<'_>, zone: &Zone) -> Result<String> {
        let offset = zone.hours * 100.0 + zone.minutes;
        let integer = self.integer.as_ref().expect("a zone has a picture");
        let (regular, digits) = match &integer.primary {
            Primary::Decimal(decimal) => (decimal.regular > 0, decimal.mandatory),
            _ => (false, 0),
        };
        let mut text = if regular {
            integer.write(run, offset)?
        } else {
            match digits {
                1 | 2 => {
                    let hours = integer.write(run, zone.hours)?;
                    match zone.minutes {
                        0.0 => hours,
                        minutes => format!("{hours}:{}", Integer::parse("00")?.write(run, minutes)?),
                    }
                }
                3 | 4 => integer.write(run, offset)?,
                _ => return Err(fault("D3134").insert("value", digits.to_string())),
            }
        };
        if offset >= 0.0 {
            text.insert(0, '+');
        }
        if self.component == 'z' {
            text.insert_str(0, "GMT");
        }
        Ok(if offset == 0.0 && self.zulu {
            "Z".to_owned()
        } else {
            text
        })
    }
}
