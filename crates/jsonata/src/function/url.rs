//! URLs: JavaScript's encodeURI, encodeURIComponent and their inverses (ECMA-262, section 19.2.6).

use super::{Entry, text_arg};
use crate::{
    error::{Result, fault},
    run::Run,
    text,
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("encodeUrlComponent", "<s-:s>", |run, args| {
        encode(run, args, UNRESERVED, "encodeUrlComponent")
    }),
    ("encodeUrl", "<s-:s>", |run, args| {
        encode(run, args, URL, "encodeUrl")
    }),
    ("decodeUrlComponent", "<s-:s>", |run, args| {
        decode(run, args, "", "decodeUrlComponent")
    }),
    ("decodeUrl", "<s-:s>", |run, args| {
        decode(run, args, RESERVED, "decodeUrl")
    }),
];

const UNRESERVED: &str = "-_.!~*'()";
const URL: &str = "-_.!~*'();/?:@&=+$,#";
/// What decodeURI leaves encoded.
const RESERVED: &str = ";/?:@&=+$,#";

fn encode<'a>(run: &Run<'a>, args: &[Value<'a>], kept: &str, function: &str) -> Result<Value<'a>> {
    let Some(given) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.charge(3 * given.len())?;
    if text::has_half(given) {
        return Err(fault("D3140").text(given).insert("function", function.to_owned()));
    }
    let mut encoded = String::new();
    for byte in given.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || byte.is_ascii() && kept.contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    run.string(&encoded)
}

fn decode<'a>(run: &Run<'a>, args: &[Value<'a>], kept: &str, function: &str) -> Result<Value<'a>> {
    let Some(given) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.charge(2 * given.len())?;
    let malformed = || fault("D3140").text(given).insert("function", function.to_owned());
    let mut decoded = Vec::with_capacity(given.len());
    let mut rest = given.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let digits = rest
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .ok_or_else(malformed)?;
        let digits = std::str::from_utf8(digits).expect("hex digits are ASCII");
        let byte = u8::from_str_radix(digits, 16).expect("two hex digits are a byte");
        if byte.is_ascii() && kept.contains(char::from(byte)) {
            decoded.push(b'%');
            continue;
        }
        decoded.push(byte);
        rest = &rest[2..];
    }
    match String::from_utf8(decoded) {
        Ok(text) => run.string(&text),
        Err(_) => Err(malformed()),
    }
}
