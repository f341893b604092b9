//! `$formatNumber`: decimal pictures after XPath's `format-number` (XPath and XQuery Functions 3.1, section 4.7), in the
//! reference's reading of it.

use super::{arg, number_arg, text_arg};
use crate::{
    error::{Result, fault},
    number,
    run::Run,
    value::Value,
};

/// The characters that mean something in a picture, and what is written for them.
struct Symbols {
    decimal: char,
    grouping: char,
    exponent: char,
    minus: String,
    percent: String,
    per_mille: String,
    zero: char,
    digit: char,
    separator: char,
}

impl Symbols {
    fn new(options: Value<'_>) -> Symbols {
        let text = |key: &str, otherwise: &str| match options {
            Value::Object(object) => match object.get(key) {
                Value::String(text) => text.to_owned(),
                _ => otherwise.to_owned(),
            },
            _ => otherwise.to_owned(),
        };
        let one = |key: &str, otherwise: char| text(key, "").chars().next().unwrap_or(otherwise);
        Symbols {
            decimal: one("decimal-separator", '.'),
            grouping: one("grouping-separator", ','),
            exponent: one("exponent-separator", 'e'),
            minus: text("minus-sign", "-"),
            percent: text("percent", "%"),
            per_mille: text("per-mille", "\u{2030}"),
            zero: one("zero-digit", '0'),
            digit: one("digit", '#'),
            separator: one("pattern-separator", ';'),
        }
    }

    fn is_digit(&self, c: char) -> bool {
        (self.zero as u32..self.zero as u32 + 10).contains(&(c as u32))
    }

    fn is_active(&self, c: char) -> bool {
        self.is_digit(c)
            || [
                self.decimal,
                self.exponent,
                self.grouping,
                self.digit,
                self.separator,
            ]
            .contains(&c)
    }

    fn in_family(&self, text: &str) -> String {
        let digit = |c: char| match c.to_digit(10) {
            Some(digit) => char::from_u32(self.zero as u32 + digit).unwrap_or(c),
            None => c,
        };
        text.chars().map(digit).collect()
    }
}

/// One half of a picture, taken apart.
#[derive(Clone)]
struct Part {
    picture: Vec<char>,
    prefix: String,
    suffix: String,
    active: Vec<char>,
    mantissa: Vec<char>,
    exponent: Option<Vec<char>>,
    integer: Vec<char>,
    fraction: Vec<char>,
}

/// What a part asks of a number.
#[derive(Clone)]
struct Plan {
    part: Part,
    positions: Vec<usize>,
    regular: usize,
    fraction_positions: Vec<usize>,
    integer_least: usize,
    scaling: usize,
    fraction_least: usize,
    fraction_most: usize,
    exponent_least: usize,
}

pub fn format_number<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(value) = number_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let picture = text_arg(args, 1).unwrap_or("undefined");
    // Grouping moves text once for each group.
    run.tick((picture.len() as u64).pow(2) / 64 + 100)?;
    let symbols = Symbols::new(arg(args, 2));
    let halves: Vec<&str> = picture.split(symbols.separator).collect();
    if halves.len() > 2 {
        return Err(fault("D3080"));
    }
    let mut plans = Vec::new();
    for half in halves {
        let part = split(half, &symbols);
        if let Some(code) = validate(&part, &symbols) {
            return Err(fault(code));
        }
        plans.push(analyse(part, &symbols));
    }
    if plans.len() == 1 {
        let mut negative = plans[0].clone();
        negative.part.prefix = format!("{}{}", symbols.minus, negative.part.prefix);
        plans.push(negative);
    }
    let plan = &plans[usize::from(value < 0.0)];
    run.string(&plan.write(value, &symbols))
}

fn split(half: &str, symbols: &Symbols) -> Part {
    let picture: Vec<char> = half.chars().collect();
    let is_edge = |c: &char| symbols.is_active(*c) && *c != symbols.exponent;
    let start = picture.iter().position(is_edge).unwrap_or(0);
    let end = picture
        .iter()
        .rposition(is_edge)
        .map_or(picture.len(), |last| last + 1);
    let active = picture[start..end].to_vec();
    let exponent_at = picture[start..]
        .iter()
        .position(|c| *c == symbols.exponent)
        .map(|at| at + start);
    let (mantissa, exponent) = match exponent_at {
        Some(at) if at <= end => {
            let at = at.min(active.len());
            (
                active[..at].to_vec(),
                Some(active.get(at + 1..).unwrap_or(&[]).to_vec()),
            )
        }
        _ => (active.clone(), None),
    };
    let suffix: Vec<char> = picture[end..].to_vec();
    let (integer, fraction) = match mantissa.iter().position(|c| *c == symbols.decimal) {
        Some(at) => (mantissa[..at].to_vec(), mantissa[at + 1..].to_vec()),
        None => (mantissa.clone(), suffix.clone()),
    };
    Part {
        prefix: picture[..start].iter().collect(),
        suffix: suffix.into_iter().collect(),
        active,
        mantissa,
        exponent,
        integer,
        fraction,
        picture,
    }
}

/// What is wrong with a part; of several faults the last one.
fn validate(part: &Part, symbols: &Symbols) -> Option<&'static str> {
    let text: String = part.picture.iter().collect();
    let has = |c: char| part.picture.contains(&c);
    let twice = |c: char| part.picture.iter().filter(|own| **own == c).count() > 1;
    let repeated = |symbol: &str| text.find(symbol) != text.rfind(symbol);
    let both = text.contains(&symbols.percent) && text.contains(&symbols.per_mille);
    let either = text.contains(&symbols.percent) || text.contains(&symbols.per_mille);
    let decimal = part.picture.iter().position(|c| *c == symbols.decimal);
    let is_grouping = |at: Option<usize>| at.and_then(|at| part.picture.get(at)) == Some(&symbols.grouping);
    let optional = part.integer.iter().position(|c| *c == symbols.digit);
    let optional_last = part.fraction.iter().rposition(|c| *c == symbols.digit);
    let digit = |c: &char| symbols.is_digit(*c);
    let exponent = part.exponent.as_deref();
    let faults = [
        (twice(symbols.decimal), "D3081"),
        (repeated(&symbols.percent), "D3082"),
        (repeated(&symbols.per_mille), "D3083"),
        (both, "D3084"),
        (
            !part.mantissa.iter().any(|c| digit(c) || *c == symbols.digit),
            "D3085",
        ),
        (part.active.iter().any(|c| !symbols.is_active(*c)), "D3086"),
        (
            decimal.is_some_and(|at| is_grouping(at.checked_sub(1)) || is_grouping(Some(at + 1))),
            "D3087",
        ),
        (
            !has(symbols.decimal) && part.integer.last() == Some(&symbols.grouping),
            "D3088",
        ),
        (
            part.picture.windows(2).any(|pair| pair == [symbols.grouping; 2]),
            "D3089",
        ),
        (
            optional.is_some_and(|at| part.integer[..at].iter().any(digit)),
            "D3090",
        ),
        (
            optional_last.is_some_and(|at| part.fraction[at..].iter().any(digit)),
            "D3091",
        ),
        (exponent.is_some_and(|text| !text.is_empty() && either), "D3092"),
        (
            exponent.is_some_and(|text| text.is_empty() || !text.iter().all(digit)),
            "D3093",
        ),
    ];
    faults
        .into_iter()
        .rev()
        .find(|(wrong, _)| *wrong)
        .map(|(_, code)| code)
}

fn analyse(part: Part, symbols: &Symbols) -> Plan {
    let countable = |c: &&char| symbols.is_digit(**c) || **c == symbols.digit;
    let digits = |chars: &[char]| chars.iter().filter(|c| symbols.is_digit(**c)).count();
    let positions = |chars: &[char], left: bool| {
        let mut found = Vec::new();
        let mut next = chars.iter().position(|c| *c == symbols.grouping);
        while let Some(at) = next {
            let side = if left { chars.get(..at) } else { chars.get(at..) };
            found.push(side.unwrap_or(chars).iter().filter(countable).count());
            // The reference goes on in the integer part, even for the fraction.
            let rest = part.integer.get(at + 1..).unwrap_or(&[]);
            next = rest
                .iter()
                .position(|c| *c == symbols.grouping)
                .map(|more| at + 1 + more);
        }
        found
    };
    let integer_positions = positions(&part.integer, false);
    let fraction_positions = positions(&part.fraction, true);
    let scaling = digits(&part.integer);
    let mut integer_least = scaling;
    let mut fraction_least = digits(&part.fraction);
    let mut fraction_most = part.fraction.iter().filter(countable).count();
    let has_exponent = part.exponent.is_some();
    if integer_least == 0 && fraction_most == 0 {
        if has_exponent {
            (fraction_least, fraction_most) = (1, 1);
        } else {
            integer_least = 1;
        }
    }
    if has_exponent && integer_least == 0 && part.integer.contains(&symbols.digit) {
        integer_least = 1;
    }
    if integer_least == 0 && fraction_least == 0 {
        fraction_least = 1;
    }
    Plan {
        regular: regular(&integer_positions),
        positions: integer_positions,
        fraction_positions,
        integer_least,
        scaling,
        fraction_least,
        fraction_most,
        exponent_least: part.exponent.as_deref().map_or(0, digits),
        part,
    }
}

/// The distance at which all separators stand; 0 if they stand otherwise.
pub fn regular(positions: &[usize]) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let Some(factor) = positions.iter().copied().reduce(divisor) else {
        return 0;
    };
    let all = (1..=positions.len()).all(|index| positions.contains(&(index * factor)));
    if all { factor } else { 0 }
}

impl Plan {
    fn write(&self, value: f64, symbols: &Symbols) -> String {
        let picture: String = self.part.picture.iter().collect();
        let adjusted = if picture.contains(&symbols.percent) {
            value * 100.0
        } else if picture.contains(&symbols.per_mille) {
            value * 1000.0
        } else {
            value
        };
        let (mantissa, exponent) = self.scale(adjusted);
        let rounded = number::round(mantissa, self.fraction_most as f64).abs();
        let text = symbols.in_family(&number::fixed(rounded, self.fraction_most));
        let (integer, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let integer = integer.trim_start_matches(symbols.zero);
        let fraction = fraction.trim_end_matches(symbols.zero);
        let zeros = |count: usize| symbols.zero.to_string().repeat(count);
        let integer = zeros(self.integer_least.saturating_sub(integer.chars().count())) + integer;
        let fraction =
            fraction.to_owned() + &zeros(self.fraction_least.saturating_sub(fraction.chars().count()));
        let mut text = self.group(&integer, &fraction, symbols);
        let decimal = text.iter().position(|c| *c == symbols.decimal);
        if !self.part.picture.contains(&symbols.decimal) || decimal.is_some_and(|at| at + 1 == text.len()) {
            text.pop();
        }
        let mut written = self.part.prefix.clone();
        written.extend(text);
        if let Some(exponent) = exponent {
            let digits = symbols.in_family(&number::fixed(exponent.abs(), 0));
            written.push(symbols.exponent);
            written.push_str(if exponent < 0.0 { &symbols.minus } else { "" });
            written.push_str(&zeros(self.exponent_least.saturating_sub(digits.chars().count())));
            written.push_str(&digits);
        }
        written + &self.part.suffix
    }

    /// Mantissa and exponent, where the picture has one.
    fn scale(&self, number: f64) -> (f64, Option<f64>) {
        if self.exponent_least == 0 {
            return (number, None);
        }
        let most = 10f64.powf(self.scaling as f64);
        let least = 10f64.powf(self.scaling as f64 - 1.0);
        let mut mantissa = number;
        let mut exponent = 0.0;
        if mantissa != 0.0 && mantissa.is_finite() {
            while mantissa.abs() < least {
                mantissa *= 10.0;
                exponent -= 1.0;
            }
            while mantissa.is_finite() && mantissa.abs() > most {
                mantissa /= 10.0;
                exponent += 1.0;
            }
        }
        (mantissa, Some(exponent))
    }

    /// Puts the decimal separator and the grouping separators in.
    fn group(&self, integer: &str, fraction: &str, symbols: &Symbols) -> Vec<char> {
        let mut text: Vec<char> = integer.chars().collect();
        let mut point = text.len();
        text.push(symbols.decimal);
        text.extend(fraction.chars());
        if let Some(groups) = point.saturating_sub(1).checked_div(self.regular) {
            for group in 1..=groups {
                text.insert(point - group * self.regular, symbols.grouping);
            }
        } else {
            for position in &self.positions {
                let at = slice_at(point as isize - *position as isize, text.len());
                text.insert(at, symbols.grouping);
                point += 1;
            }
        }
        let point = text
            .iter()
            .position(|c| *c == symbols.decimal)
            .unwrap_or(text.len());
        for position in &self.fraction_positions {
            text.insert((position + point + 1).min(text.len()), symbols.grouping);
        }
        text
    }
}

/// Where `slice` cuts: negative places count from the end.
fn slice_at(place: isize, length: usize) -> usize {
    if place < 0 {
        length.saturating_sub(place.unsigned_abs())
    } else {
        (place as usize).min(length)
    }
}
