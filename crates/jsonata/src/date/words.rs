//! Numbers in English words, Roman numerals and letters.

const FEW: [&str; 20] = [
    "Zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
    "Thirteen",
    "Fourteen",
    "Fifteen",
    "Sixteen",
    "Seventeen",
    "Eighteen",
    "Nineteen",
];
const ORDINALS: [&str; 20] = [
    "Zeroth",
    "First",
    "Second",
    "Third",
    "Fourth",
    "Fifth",
    "Sixth",
    "Seventh",
    "Eighth",
    "Ninth",
    "Tenth",
    "Eleventh",
    "Twelfth",
    "Thirteenth",
    "Fourteenth",
    "Fifteenth",
    "Sixteenth",
    "Seventeenth",
    "Eighteenth",
    "Nineteenth",
];
const TENS: [&str; 9] = [
    "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety", "Hundred",
];
const MAGNITUDES: [&str; 4] = ["Thousand", "Million", "Billion", "Trillion"];

/// A whole number that is not negative, in title case.
pub fn write(number: f64, ordinal: bool) -> String {
    say(number, false, ordinal)
}

/// `joined`: words stand before it.
fn say(number: f64, joined: bool, ordinal: bool) -> String {
    let lead = |with: &str| if joined { with.to_owned() } else { String::new() };
    let rest_of = |words: String, rest: f64| match (rest > 0.0, ordinal) {
        (true, _) => words + &say(rest, true, ordinal),
        (false, true) => words + "th",
        (false, false) => words,
    };
    if number <= 19.0 {
        let names = if ordinal { ORDINALS } else { FEW };
        return lead(" and ") + names[number as usize];
    }
    if number < 100.0 {
        let tens = TENS[(number / 10.0) as usize - 2];
        let rest = number % 10.0;
        return lead(" and ")
            + &match (rest > 0.0, ordinal) {
                (true, _) => format!("{tens}-{}", say(rest, false, ordinal)),
                (false, true) => format!("{}ieth", &tens[..tens.len() - 1]),
                (false, false) => tens.to_owned(),
            };
    }
    if number < 1000.0 {
        let words = format!("{}{} Hundred", lead(", "), FEW[(number / 100.0) as usize]);
        return rest_of(words, number % 100.0);
    }
    let magnitude = ((number.log10() / 3.0).floor() as usize).min(MAGNITUDES.len());
    let factor = 10f64.powi(magnitude as i32 * 3);
    let count = (number / factor).floor();
    let words = format!(
        "{}{} {}",
        lead(", "),
        say(count, false, false),
        MAGNITUDES[magnitude - 1]
    );
    rest_of(words, number - count * factor)
}

/// What one lower-case word counts.
fn value(word: &str) -> Option<f64> {
    let place = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(word));
    if let Some(value) = place(&FEW).or_else(|| place(&ORDINALS)) {
        return Some(value as f64);
    }
    for (index, name) in TENS.iter().enumerate() {
        let ordinal = format!("{}ieth", &name[..name.len() - 1]);
        if name.eq_ignore_ascii_case(word) || ordinal.eq_ignore_ascii_case(word) {
            return Some((index as f64 + 2.0) * 10.0);
        }
    }
    if word == "hundredth" {
        return Some(100.0);
    }
    let cardinal = word.strip_suffix("th").unwrap_or(word);
    let magnitude = MAGNITUDES
        .iter()
        .position(|name| name.eq_ignore_ascii_case(cardinal))?;
    Some(1000f64.powi(magnitude as i32 + 1))
}

/// The regular expression of numbers in words.
pub fn pattern() -> String {
    let mut names: Vec<String> = FEW
        .iter()
        .chain(&ORDINALS)
        .map(|name| name.to_lowercase())
        .collect();
    for name in TENS.iter().map(|name| name.to_lowercase()) {
        let ordinal = format!("{}ieth", &name[..name.len() - 1]);
        names.extend([name, ordinal]);
    }
    names.push("hundredth".to_owned());
    for name in MAGNITUDES.iter().map(|name| name.to_lowercase()) {
        names.extend([name.clone(), name + "th"]);
    }
    format!("(?:{}|and|[-, ])+", names.join("|"))
}

/// The number that lower-case words say; not a number if they say none.
pub fn read(text: &str) -> f64 {
    let mut segments = vec![0.0];
    for word in parts(text) {
        let value = value(word).unwrap_or(f64::NAN);
        let top = segments.pop().unwrap_or(0.0);
        if value < 100.0 {
            if top >= 1000.0 {
                segments.extend([top, value]);
            } else {
                segments.push(top + value);
            }
        } else {
            segments.push(top * value);
        }
    }
    segments.iter().fold(0.0, |total, segment| total + segment)
}

/// Words between commas, blanks, hyphens, and the word "and".
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let is_blank = |text: &str| text.starts_with(char::is_whitespace);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at + c.len_utf8()..];
        let width = if c == ',' && is_blank(rest) {
            2
        } else if c.is_whitespace() && rest.strip_prefix("and").is_some_and(is_blank) {
            c.len_utf8() + 4
        } else if c.is_whitespace() || c == '\\' || c == '-' {
            c.len_utf8()
        } else {
            at += c.len_utf8();
            continue;
        };
        parts.push(&text[start..at]);
        at = text.ceil_char_boundary(at + width);
        start = at;
    }
    parts.push(&text[start..]);
    parts
}

const NUMERALS: [(f64, &str); 13] = [
    (1000.0, "m"),
    (900.0, "cm"),
    (500.0, "d"),
    (400.0, "cd"),
    (100.0, "c"),
    (90.0, "xc"),
    (50.0, "l"),
    (40.0, "xl"),
    (10.0, "x"),
    (9.0, "ix"),
    (5.0, "v"),
    (4.0, "iv"),
    (1.0, "i"),
];

/// Lower-case Roman numerals; a thousandth of the number in length.
pub fn roman(mut number: f64) -> String {
    let mut text = String::new();
    for (value, numeral) in NUMERALS {
        let count = (number / value).floor();
        text.push_str(&numeral.repeat(count as usize));
        number -= count * value;
    }
    text
}

/// The number of upper-case Roman numerals.
pub fn from_roman(text: &str) -> f64 {
    let mut total = 0.0;
    let mut most = 1.0;
    for digit in text.chars().rev() {
        let value = match digit {
            'M' => 1000.0,
            'D' => 500.0,
            'C' => 100.0,
            'L' => 50.0,
            'X' => 10.0,
            'V' => 5.0,
            'I' => 1.0,
            _ => f64::NAN,
        };
        if value < most {
            total -= value;
        } else {
            most = value;
            total += value;
        }
    }
    total
}

/// A, B, … Z, AA: as the columns of a spreadsheet are called, from `first`.
pub fn letters(mut number: f64, first: u8) -> String {
    let mut letters = Vec::new();
    while number > 0.0 {
        letters.push(((number - 1.0) % 26.0) as u8 + first);
        number = ((number - 1.0) / 26.0).floor();
    }
    letters.iter().rev().map(|letter| char::from(*letter)).collect()
}

pub fn from_letters(text: &str, first: u8) -> f64 {
    let digit = |letter: char| f64::from(letter as u32) - f64::from(first) + 1.0;
    let places = text.chars().rev().enumerate();
    places.fold(0.0, |total, (place, letter)| {
        total + digit(letter) * 26f64.powf(place as f64)
    })
}
