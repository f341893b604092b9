//! The timestamps that the language accepts: RFC 3339 with an upper-case `T`, and `Z` or an offset.

use jiff::Timestamp;

/// Reads `2016-03-14T01:59:00.123Z`; anything else, and any date that does not exist, is `None`.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let shape = b"dddd-dd-ddTdd:dd:dd";
    for (at, want) in shape.iter().enumerate() {
        let fits = if *want == b'd' {
            digit(at)
        } else {
            bytes.get(at) == Some(want)
        };
        if !fits {
            return None;
        }
    }
    let mut at = shape.len();
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let fraction = bytes[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&fraction) {
            return None;
        }
        at += fraction;
    }
    let zone = &bytes[at..];
    let offset = zone.len() == 6
        && matches!(zone[0], b'+' | b'-')
        && zone[3] == b':'
        && [1, 2, 4, 5].iter().all(|at| zone[*at].is_ascii_digit());
    if zone != b"Z" && !offset {
        return None;
    }
    text.parse().ok()
}

/// The form that AWS writes: milliseconds and `Z`.
pub fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_milliseconds() {
        let at = parse("2012-10-09T21:00:55.0429+02:00").map(text);
        assert_eq!(at.as_deref(), Some("2012-10-09T19:00:55.042Z"));
    }

    #[test]
    fn accepts_what_aws_accepts() {
        for text in [
            "2012-10-09T19:00:55Z",
            "2012-10-09T19:00:55+01:00",
            "2016-03-05T21:29:29.243167252Z",
            "2026-11-20T22:00:35.00Z",
        ] {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "2012-10-09",
            "2012-10-09T19:00:55",
            "2012-10-09t19:00:55Z",
            "2012-10-09 19:00:55Z",
            "2016-13-05T21:29:29Z",
            "2016-12-05T25:29:29Z",
            "05-12-2016T21:29:29Z",
            "2026-11-20T22:00:35.000000",
            "2012-10-09T19:00:55é",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
