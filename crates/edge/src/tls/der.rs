//! What is asked of a certificate beside its key and names: until when it is good, its number, and the names in it (RFC 5280,
//! section 4.1). A reader of DER that goes only as far as that.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::name;

/// Of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Hexadecimal.
    pub serial: String,
    /// Who signed it, and whose it is, as RFC 2253 writes names.
    pub issuer: String,
    pub subject: String,
    pub from: Timestamp,
    pub until: Timestamp,
}

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Reads them; none when this is no certificate.
pub fn facts(der: &[u8]) -> Option<Facts> {
    let parts = parts(der)?;
    let text = |name| name::text(Reader(name).expect(SEQUENCE)?);
    Some(Facts {
        serial: parts.serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        issuer: text(parts.issuer)?,
        subject: text(parts.subject)?,
        from: time(parts.from)?,
        until: time(parts.until)?,
    })
}

/// What stands in a certificate, as it stands there: names with their tags, times as tag and value.
pub struct Parts<'a> {
    pub serial: &'a [u8],
    pub issuer: &'a [u8],
    from: (u8, &'a [u8]),
    until: (u8, &'a [u8]),
    subject: &'a [u8],
    /// What is behind its names, that of its key first.
    rest: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// The bits of its public key.
    pub fn key(&self) -> Option<&'a [u8]> {
        let mut key = Reader(Reader(self.rest.0).expect(SEQUENCE)?);
        key.expect(SEQUENCE)?;
        // The first byte counts bits that are not used.
        key.expect(BIT_STRING)?.get(1..)
    }
}

pub fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let mut outer = Reader(Reader(der).expect(SEQUENCE)?);
    let mut body = Reader(outer.expect(SEQUENCE)?);
    let (tag, first) = body.next()?;
    let serial = match tag {
        VERSION => body.expect(INTEGER)?,
        INTEGER => first,
        _ => return None,
    };
    // The signature's algorithm.
    body.expect(SEQUENCE)?;
    let issuer = body.whole()?;
    let mut validity = Reader(body.expect(SEQUENCE)?);
    Some(Parts {
        serial,
        issuer,
        from: validity.next()?,
        until: validity.next()?,
        subject: body.whole()?,
        rest: body,
    })
}

pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value, with its tag.
    pub fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            // Lengths of up to three bytes: a certificate is never larger.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(short & 3))?;
                (
                    digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
                    rest,
                )
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next value with its tag and length, as it stands there.
    pub fn whole(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        self.next()?;
        Some(&before[..before.len() - self.0.len()])
    }

    pub fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    }
}

/// Both forms end in seconds and `Z` (RFC 5280, section 4.1.2.5).
pub fn time((tag, value): (u8, &[u8])) -> Option<Timestamp> {
    let text = str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let digits = match (tag, text.len()) {
        // Two digits of a year are of 1950 to 2049.
        (UTC_TIME, 12) if text >= "50" => format!("19{text}"),
        (UTC_TIME, 12) => format!("20{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &digits).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_its_number_and_time() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        for (year, utc) in [(2031, true), (2077, false)] {
            wanted.not_before = rcgen::date_time_ymd(1999, 1, 2);
            wanted.not_after = rcgen::date_time_ymd(year, 3, 4);
            wanted.serial_number = Some(vec![0x01, 0xab].into());
            let made = wanted.self_signed(&key).unwrap();
            let facts = facts(made.der()).unwrap();
            assert_eq!(facts.serial, "01ab");
            assert_eq!(facts.subject, "CN=rcgen self signed cert");
            assert_eq!(facts.issuer, facts.subject);
            assert_eq!(facts.from.to_string(), "1999-01-02T00:00:00Z");
            assert_eq!(
                facts.until.to_string(),
                format!("{year}-03-04T00:00:00Z"),
                "{utc}"
            );
            for cut in 0..made.der().len().min(80) {
                assert_eq!(super::facts(&made.der()[..cut]), None);
            }
        }
    }
}
