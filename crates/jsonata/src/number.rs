//! Numbers as JavaScript writes and rounds them: `Number::toString`, `toFixed`, `toPrecision` (ECMA-262, section 21.1.3).

/// The nearest double; beyond the largest one infinity, which no operator takes.
pub fn double(literal: &str) -> f64 {
    literal.parse().expect("a number of JSON is one of Rust")
}

/// The shortest decimal text that reads back as the same number.
pub fn text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let (digits, point) = digits(number.abs());
    let count = digits.len() as i32;
    let body = if count <= point && point <= 21 {
        digits.clone() + &"0".repeat((point - count) as usize)
    } else if 0 < point && point <= 21 {
        format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", "0".repeat(-point as usize))
    } else {
        let exponent = point - 1;
        let plus = if exponent > 0 { "+" } else { "" };
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{plus}{exponent}")
    };
    format!("{sign}{body}")
}

/// The shortest digits and where the point stands: 0.012 is ("12", -1).
fn digits(number: f64) -> (String, i32) {
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').expect("`e` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`e` writes a small exponent");
    (mantissa.replace('.', ""), exponent + 1)
}

/// With exactly `places` digits after the point; a tie goes up. Takes no negative numbers.
pub fn fixed(number: f64, places: usize) -> String {
    if number >= 1e21 || !number.is_finite() {
        return text(number);
    }
    // The exact decimal expansion of a double ends after 1,074 places.
    let exact = format!("{number:.1100}");
    let point = exact.find('.').expect("places were asked for");
    let kept = point + 1 + places;
    let (kept, dropped) = exact.split_at(kept.min(exact.len()));
    let mut kept = kept.to_owned();
    if dropped.as_bytes().first().is_some_and(|digit| *digit >= b'5') {
        kept = increment(&kept);
    }
    kept.trim_end_matches('.').to_owned()
}

/// Adds one to the last digit of a decimal text.
fn increment(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        match *byte {
            b'.' => {}
            b'9' => *byte = b'0',
            _ => {
                *byte += 1;
                return String::from_utf8(bytes).expect("digits are ASCII");
            }
        }
    }
    format!("1{}", String::from_utf8(bytes).expect("digits are ASCII"))
}

/// The number with 15 significant digits, as `$string` shows it.
pub fn significant(number: f64) -> f64 {
    if number.fract() == 0.0 || !number.is_finite() {
        return number;
    }
    let text = format!("{:.60e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').expect("`e` writes an exponent");
    let (kept, dropped) = mantissa.split_at(16);
    let up = dropped.as_bytes()[0] >= b'5';
    let kept = if up { increment(kept) } else { kept.to_owned() };
    // 9.99… that went up reads "10.0…": the point is still in its place.
    let rounded: f64 = format!("{kept}e{exponent}")
        .parse()
        .expect("digits and an exponent are a number");
    rounded.copysign(number)
}

/// Moves the decimal point in the text of a number: multiplying would round.
fn shift(number: f64, places: f64) -> f64 {
    if places.fract() != 0.0 || places.abs() > 1e9 {
        return f64::NAN;
    }
    let text = text(number);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}", exponent + places as i64)
        .parse()
        .unwrap_or(f64::NAN)
}

/// Rounds to `places` decimals, half to even.
pub fn round(number: f64, places: f64) -> f64 {
    let moved = if places == 0.0 {
        number
    } else {
        shift(number, places)
    };
    let floor = moved.floor();
    let mut result = if moved - floor >= 0.5 { floor + 1.0 } else { floor };
    if (result - moved).abs() == 0.5 && (result % 2.0).abs() == 1.0 {
        result -= 1.0;
    }
    if places != 0.0 {
        result = shift(result, -places);
    }
    if result == 0.0 { 0.0 } else { result }
}

/// A whole number in another base, from 2 to 36.
pub fn radix(number: f64, base: u32) -> String {
    if base == 10 || !number.is_finite() {
        return text(number);
    }
    let base = f64::from(base);
    let mut rest = number.abs();
    let mut digits = Vec::new();
    while rest >= 9_007_199_254_740_992.0 {
        rest /= base;
        digits.push(b'0');
    }
    loop {
        let digit = rest % base;
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[digit as usize]);
        rest = (rest - digit) / base;
        if rest <= 0.0 {
            break;
        }
    }
    if number < 0.0 {
        digits.push(b'-');
    }
    digits.reverse();
    String::from_utf8(digits).expect("digits are ASCII")
}

/// `parseInt(text, 10)`: blanks, a sign, digits; the rest is ignored.
pub fn leading_integer(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let signed = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = signed.find(|c: char| !c.is_ascii_digit()).unwrap_or(signed.len());
    let value: f64 = signed[..end].parse().ok()?;
    Some(if text.starts_with('-') { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_does() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (123_456_789.125, "123456789.125"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(text(number), expected);
        }
    }

    #[test]
    fn rounding_follows_the_reference() {
        assert_eq!(round(2.5, 0.0), 2.0);
        assert_eq!(round(3.5, 0.0), 4.0);
        assert_eq!(round(4.525, 2.0), 4.52);
        assert_eq!(round(12345.0, -2.0), 12300.0);
        assert_eq!(fixed(2.5, 0), "3");
        assert_eq!(fixed(1.005, 2), "1.00");
        assert_eq!(fixed(9.995e2, 0), "1000");
        assert_eq!(significant(1.0 / 3.0), 0.333_333_333_333_333);
        assert_eq!(significant(0.1 + 0.2), 0.3);
        assert_eq!(significant(9.999_999_999_999_999), 10.0);
        assert_eq!(radix(-255.0, 16), "-ff");
        assert_eq!(leading_integer(" -12x"), Some(-12.0));
        assert_eq!(leading_integer("x"), None);
    }
}
