//! Pictures of whole numbers: `#,##0`, `A`, `i`, `Ww`, `1;o`.

use super::words;
use crate::{
    error::{Result, fault, quote},
    function::regular,
    number,
    run::Run,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Upper,
    Lower,
    Title,
}

#[derive(Clone, PartialEq)]
pub enum Primary {
    Decimal(Decimal),
    Letters,
    Roman,
    Words,
    /// A numbering that nobody implements.
    Sequence(String),
}

/// A pattern of digits.
#[derive(Clone, PartialEq)]
pub struct Decimal {
    /// The digit zero of the family.
    pub zero: u32,
    pub mandatory: usize,
    pub optional: usize,
    /// Separators by how many digits are right of them.
    pub separators: Vec<(usize, char)>,
    /// The distance of equal separators; 0 if they differ.
    pub regular: usize,
    /// How many digits are read when another number follows at once.
    pub width: Option<usize>,
}

#[derive(Clone, PartialEq)]
pub struct Picture {
    pub primary: Primary,
    pub case: Case,
    pub ordinal: bool,
}

/// The zeros of Unicode's families of decimal digits in the basic plane.
const ZEROS: [u32; 37] = [
    0x30, 0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66,
    0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

impl Picture {
    pub fn parse(text: &str) -> Result<Picture> {
        let (primary, modifier) = text.rsplit_once(';').unwrap_or((text, ""));
        let (case, kind) = match primary {
            "A" => (Case::Upper, Primary::Letters),
            "a" => (Case::Lower, Primary::Letters),
            "I" => (Case::Upper, Primary::Roman),
            "i" => (Case::Lower, Primary::Roman),
            "W" => (Case::Upper, Primary::Words),
            "Ww" => (Case::Title, Primary::Words),
            "w" => (Case::Lower, Primary::Words),
            digits => (Case::Lower, pattern(digits)?),
        };
        Ok(Picture {
            primary: kind,
            case,
            ordinal: modifier.starts_with('o'),
        })
    }

    pub fn decimal(&mut self) -> Option<&mut Decimal> {
        match &mut self.primary {
            Primary::Decimal(decimal) => Some(decimal),
            _ => None,
        }
    }

    /// Writes a whole number.
    pub fn write(&self, run: &Run<'_>, value: f64) -> Result<String> {
        let size = value.abs();
        let text = match &self.primary {
            Primary::Letters => words::letters(size, if self.case == Case::Upper { b'A' } else { b'a' }),
            Primary::Roman => {
                run.charge(size as usize / 100)?;
                words::roman(size)
            }
            Primary::Words => words::write(size, self.ordinal),
            Primary::Decimal(decimal) => {
                run.charge(decimal.mandatory)?;
                self.suffixed(decimal.write(size))
            }
            Primary::Sequence(token) => return Err(fault("D3130").insert("value", quote(token))),
        };
        let text = match (&self.primary, self.case) {
            (Primary::Roman | Primary::Words, Case::Upper) => text.to_uppercase(),
            (Primary::Words, Case::Lower) => text.to_lowercase(),
            _ => text,
        };
        Ok(if value < 0.0 { format!("-{text}") } else { text })
    }

    fn suffixed(&self, text: String) -> String {
        if !self.ordinal {
            return text;
        }
        let mut last = text.chars().rev();
        let suffix = match last.next() {
            Some('1') => "st",
            Some('2') => "nd",
            Some('3') => "rd",
            _ => "th",
        };
        let suffix = if last.next() == Some('1') { "th" } else { suffix };
        text + suffix
    }

    /// Reads a whole number; what cannot be read is not a number.
    pub fn read(&self, text: &str) -> Result<f64> {
        let is_upper = self.case == Case::Upper;
        Ok(match &self.primary {
            Primary::Letters => words::from_letters(text, if is_upper { b'A' } else { b'a' }),
            Primary::Roman if is_upper => words::from_roman(text),
            Primary::Roman => words::from_roman(&text.to_uppercase()),
            Primary::Words => words::read(&text.to_lowercase()),
            Primary::Decimal(decimal) => {
                let mut digits = text;
                if self.ordinal {
                    // The suffix has two letters.
                    let end = text.char_indices().rev().nth(1).map_or(0, |(byte, _)| byte);
                    digits = &text[..end];
                }
                decimal.read(digits)
            }
            Primary::Sequence(token) => return Err(fault("D3130").insert("value", quote(token))),
        })
    }

    /// The regular expression of what can be read.
    pub fn pattern(&self) -> Result<String> {
        let is_upper = self.case == Case::Upper;
        Ok(match &self.primary {
            Primary::Letters => if is_upper { "[A-Z]+" } else { "[a-z]+" }.to_owned(),
            Primary::Roman => if is_upper { "[MDCLXVI]+" } else { "[mdclxvi]+" }.to_owned(),
            Primary::Words => words::pattern(),
            Primary::Decimal(decimal) => {
                let count = decimal
                    .width
                    .map_or("+".to_owned(), |width| format!("{{{width}}}"));
                format!(
                    "[0-9]{count}{}",
                    if self.ordinal { "(?:th|st|nd|rd)" } else { "" }
                )
            }
            Primary::Sequence(token) => return Err(fault("D3130").insert("value", quote(token))),
        })
    }
}

/// A pattern of digits, read from the right.
fn pattern(text: &str) -> Result<Primary> {
    let mut zero = None;
    let mut decimal = Decimal {
        zero: ZEROS[0],
        mandatory: 0,
        optional: 0,
        separators: Vec::new(),
        regular: 0,
        width: None,
    };
    for c in text.chars().rev() {
        let family = ZEROS
            .into_iter()
            .find(|zero| (*zero..*zero + 10).contains(&(c as u32)));
        match family {
            Some(family) => {
                if *zero.get_or_insert(family) != family {
                    return Err(fault("D3131"));
                }
                decimal.mandatory += 1;
            }
            None if c == '#' => decimal.optional += 1,
            None => decimal.separators.push((decimal.mandatory + decimal.optional, c)),
        }
    }
    let Some(zero) = zero else {
        return Ok(Primary::Sequence(text.to_owned()));
    };
    decimal.zero = zero;
    let first = decimal.separators.first().map(|(_, c)| *c);
    if decimal.separators.iter().all(|(_, c)| Some(*c) == first) {
        let positions: Vec<usize> = decimal.separators.iter().map(|(position, _)| *position).collect();
        decimal.regular = regular(&positions);
    }
    Ok(Primary::Decimal(decimal))
}

impl Decimal {
    /// Writes a number that is not negative.
    fn write(&self, value: f64) -> String {
        let text = number::text(value);
        let missing = self.mandatory.saturating_sub(text.len());
        let text = "0".repeat(missing) + &text;
        let shifted = |c: char| char::from_u32((c as u32 + self.zero).saturating_sub(ZEROS[0])).unwrap_or(c);
        let mut text: Vec<char> = text.chars().map(shifted).collect();
        if let Some(groups) = text.len().saturating_sub(1).checked_div(self.regular) {
            let separator = self.separators[0].1;
            for group in 1..=groups {
                text.insert(text.len() - group * self.regular - (group - 1), separator);
            }
            return text.into_iter().collect();
        }
        for (position, separator) in self.separators.iter().rev() {
            match text.len().checked_sub(*position) {
                Some(at) => text.insert(at, *separator),
                // JavaScript's `substr` with a negative start takes the end only.
                None => {
                    let kept = position - text.len();
                    let start = text.len().saturating_sub(kept);
                    text.drain(..start);
                    text.insert(0, *separator);
                }
            }
        }
        text.into_iter().collect()
    }

    fn read(&self, text: &str) -> f64 {
        let is_separator = |c: char| match self.regular {
            0 => self.separators.iter().any(|(_, separator)| *separator == c),
            _ => c == ',',
        };
        let digits = text.chars().filter(|c| !is_separator(*c));
        let plain = |c: char| char::from_u32((c as u32 + ZEROS[0]).wrapping_sub(self.zero)).unwrap_or(c);
        let digits: String = match self.zero {
            0x30 => digits.collect(),
            _ => digits.map(plain).collect(),
        };
        number::leading_integer(&digits).unwrap_or(f64::NAN)
    }
}
