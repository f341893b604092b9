//! Numbers by their value. A number keeps the text that it was written with, and 1.50, 1.5 and 15e-1 are the same number.

use serde_json::Number;
use std::cmp::Ordering;

/// The order of two numbers, exact however long or large they are.
pub fn order(left: &Number, right: &Number) -> Ordering {
    match left.as_i64().zip(right.as_i64()) {
        Some((left, right)) => left.cmp(&right),
        None => Decimal::new(left.as_str()).order(&Decimal::new(right.as_str())),
    }
}

/// A number as `0.DIGITS × 10^power`; the first digit is none of `0`, or there is none.
struct Decimal<'a> {
    negative: bool,
    /// Before and after the point, as they were written.
    parts: (&'a [u8], &'a [u8]),
    /// Zeros that the parts begin with.
    zeros: usize,
    power: i64,
}

impl<'a> Decimal<'a> {
    fn new(text: &'a str) -> Self {
        let unsigned = text.trim_start_matches('-');
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, fraction) = (whole.as_bytes(), fraction.as_bytes());
        let zeros = whole
            .iter()
            .chain(fraction)
            .take_while(|digit| **digit == b'0')
            .count();
        // Beyond 64 bits only the sign of an exponent counts.
        let most = if exponent.starts_with('-') {
            i64::MIN
        } else {
            i64::MAX
        };
        let exponent = exponent.parse().unwrap_or(most);
        Self {
            negative: unsigned.len() < text.len(),
            parts: (whole, fraction),
            zeros,
            power: (whole.len() as i64 - zeros as i64).saturating_add(exponent),
        }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        let (whole, fraction) = self.parts;
        whole.iter().chain(fraction).skip(self.zeros).copied()
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self.sign(), other.sign()) {
            (-1, -1) => other.magnitude(self),
            (1, 1) => self.magnitude(other),
            (left, right) => left.cmp(&right),
        }
    }

    fn sign(&self) -> i8 {
        match self.digits().next() {
            None => 0,
            Some(_) if self.negative => -1,
            Some(_) => 1,
        }
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (self.digits(), other.digits());
        let mut found = self.power.cmp(&other.power);
        while found.is_eq() {
            found = match (left.next(), right.next()) {
                (None, None) => break,
                (one, two) => one.unwrap_or(b'0').cmp(&two.unwrap_or(b'0')),
            };
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value() {
        let ascending = [
            &["-1e+999999999999999999999"][..],
            &["-18446744073709551617"],
            &["-18446744073709551616", "-18446744073709551616.0"],
            &["-0.5", "-5e-1"],
            &["-1e-999999999999999999999"],
            &["0", "-0", "0.000", "-0e7", "0e999999999999999999999"],
            &["1e-400"],
            &["0.1"],
            &["0.10000000000000000000001"],
            &["1.5", "1.50", "15e-1", "0.0015E3", "150e-2"],
            &["9"],
            &["10", "1e1", "10.0", "1E+1"],
            &["9007199254740992"],
            &["9007199254740993", "9007199254740993.0"],
            &["12345678901234567890123456789"],
            &["1e400", "10e399"],
        ];
        for (at, same) in ascending.iter().enumerate() {
            for left in *same {
                for (other, right) in ascending
                    .iter()
                    .enumerate()
                    .flat_map(|(at, texts)| texts.iter().map(move |text| (at, text)))
                {
                    let found = order(&left.parse().unwrap(), &right.parse().unwrap());
                    assert_eq!(found, at.cmp(&other), "{left} and {right}");
                }
            }
        }
    }
}
