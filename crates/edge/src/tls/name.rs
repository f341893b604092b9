//! The name of who a certificate is of, or from, as RFC 2253 writes it: `CN=shop,O=Acme\, Inc.,C=CH`. ALB has it so in its
//! headers.

use std::fmt::Write as _;

use super::der::Reader;

const SET: u8 = 0x31;
const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
/// Texts that are read: UTF-8, and those that are a part of it.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x16, 0x14];

/// The last part first, as the RFC says; none when it is no name.
pub fn text(der: &[u8]) -> Option<String> {
    let (mut parts, mut outer) = (Vec::new(), Reader(der));
    while !outer.0.is_empty() {
        let (mut set, mut values) = (Reader(outer.expect(SET)?), Vec::new());
        while !set.0.is_empty() {
            let mut pair = Reader(set.expect(SEQUENCE)?);
            let oid = pair.expect(OID)?;
            values.push(attribute(oid, pair.next()?));
        }
        parts.push(values.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(oid: &[u8], (tag, value): (u8, &[u8])) -> String {
    let text = str::from_utf8(value).ok().filter(|_| TEXTS.contains(&tag));
    match (short(oid), text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(text)),
        (Some(name), None) => format!("{name}={}", hexadecimal(tag, value)),
        (None, _) => format!("{}={}", dotted(oid), hexadecimal(tag, value)),
    }
}

/// Names of RFC 2253, section 2.3.
fn short(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        _ => return None,
    })
}

/// What would end a part, begin or end with a space, or be no character of a header, is escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, c) in text.char_indices() {
        let edge = c == ' ' && (at == 0 || at == last) || c == '#' && at == 0;
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            _ if edge => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
        }
    }
    out
}

/// `#` and the whole value.
fn hexadecimal(tag: u8, value: &[u8]) -> String {
    let length = match value.len() {
        short @ 0..=0x7f => format!("{short:02x}"),
        long @ 0x80..=0xff => format!("81{long:02x}"),
        long => format!("82{long:04x}"),
    };
    let bytes = value.iter().map(|byte| format!("{byte:02x}"));
    format!("#{tag:02x}{length}{}", bytes.collect::<String>())
}

fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number << 7 & u64::MAX >> 1 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    // The first one is two.
    if let Some(first) = numbers.first().copied() {
        let root = (first / 40).min(2);
        numbers[0] = first - 40 * root;
        numbers.insert(0, root);
    }
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u8, value: &[u8]) -> Vec<u8> {
        [&[tag, value.len() as u8], value].concat()
    }

    fn part(pairs: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let pair = |(oid, tag, text): &(&[u8], u8, &[u8])| {
            value(SEQUENCE, &[value(OID, oid), value(*tag, text)].concat())
        };
        value(SET, &pairs.iter().flat_map(pair).collect::<Vec<u8>>())
    }

    /// The examples of RFC 2253, section 5, and what a header could not hold.
    #[test]
    fn names_are_written_as_the_rfc_says() {
        let (cn, o, c, ou): (&[u8], _, _, _) = (&[0x55, 4, 3], &[0x55, 4, 10], &[0x55, 4, 6], &[0x55, 4, 11]);
        for (parts, expected) in [
            (
                vec![
                    part(&[(c, 0x13, b"GB")]),
                    part(&[(o, 0x13, b"Isode Limited")]),
                    part(&[(cn, 0x13, b"Steve Kille")]),
                ],
                "CN=Steve Kille,O=Isode Limited,C=GB",
            ),
            (
                vec![
                    part(&[(o, 0x13, b"Widget Inc.")]),
                    part(&[(ou, 0x13, b"Sales"), (cn, 0x13, b"J. Smith")]),
                ],
                "OU=Sales+CN=J. Smith,O=Widget Inc.",
            ),
            (
                vec![part(&[(o, 0x13, b"Sue, Grabbit and Runn")])],
                "O=Sue\\, Grabbit and Runn",
            ),
            (vec![part(&[(cn, 0x0c, b"Before\rAfter")])], "CN=Before\\0DAfter"),
            (
                vec![part(&[(cn, 0x0c, " #Lučić ".as_bytes())])],
                "CN=\\ #Lu\\C4\\8Di\\C4\\87\\ ",
            ),
            (
                vec![part(&[(&[0x2b, 6, 1, 4, 1, 0x8b, 0x3a, 0], 4, b"Hi")])],
                "1.3.6.1.4.1.1466.0=#04024869",
            ),
            (vec![], ""),
        ] {
            assert_eq!(text(&parts.concat()).as_deref(), Some(expected));
        }
        for bad in [&b"\x31"[..], b"\x30\x00", b"\x31\x03\x30\x01\x06"] {
            assert_eq!(text(bad), None);
        }
    }
}
