//! JSON text as a value whose numbers keep the literals that they were written with: `1E5`, `1e+05`, `-0.0` and an
//! identifier of thirty digits come out as they went in.
//!
//! `serde_json` reads texts of people here only to say what is wrong with them: its own reader writes exponents anew, and
//! takes an object with a certain key for a number (that is how it passes numbers to itself).

use serde::{Deserialize, Deserializer, de};
use serde_json::{Error, Map, Number, Value, value::RawValue};

/// Arrays and objects inside each other, at most, as in `serde_json`.
const DEPTH: usize = 127;

/// Reads one JSON text (RFC 8259), with blanks around it. Of members with the same key the last one counts. The error tells
/// line and column. Takes memory and time in proportion to the text, so whoever calls bounds its length.
pub fn read<T: AsRef<[u8]> + ?Sized>(text: &T) -> Result<Value, Error> {
    let bytes = text.as_ref();
    let whole = std::str::from_utf8(bytes).ok().and_then(|text| {
        let mut reader = Reader {
            text,
            at: 0,
            room: DEPTH,
        };
        let value = reader.value()?;
        reader.blanks();
        (reader.at == text.len()).then_some(value)
    });
    whole.ok_or_else(|| fault(bytes))
}

/// What `serde_json` finds wrong with a text that is refused here.
fn fault(bytes: &[u8]) -> Error {
    let fault = serde_json::from_slice::<Value>(bytes).err();
    fault.unwrap_or_else(|| de::Error::custom("not a JSON text"))
}

/// A value in a record that serde reads: `#[serde(deserialize_with = "json::exact")]`. Only for records that `serde_json`
/// reads from text, or from a value that was; and not inside what serde buffers (`flatten`, `untagged`).
pub fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    read(text.get()).map_err(de::Error::custom)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Levels that may still be opened.
    room: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Value> {
        match self.blanks()? {
            b'{' => self.inside(Self::object).map(Value::Object),
            b'[' => self.inside(Self::array).map(Value::Array),
            b'"' => self.string().map(Value::String),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number().map(Value::from),
        }
    }

    /// Passes over blanks; the byte behind them.
    fn blanks(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.next() {
            self.at += 1;
        }
        self.next()
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.next() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text.as_bytes()[self.at..]
            .starts_with(word.as_bytes())
            .then(|| {
                self.at += word.len();
                value
            })
    }

    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.room = self.room.checked_sub(1)?;
        self.at += 1;
        let inside = read(self);
        self.room += 1;
        inside
    }

    fn array(&mut self) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        if self.blanks()? == b']' {
            self.at += 1;
            return Some(items);
        }
        loop {
            items.push(self.value()?);
            match self.blanks()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(items)
    }

    fn object(&mut self) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        if self.blanks()? == b'}' {
            self.at += 1;
            return Some(members);
        }
        loop {
            if self.blanks()? != b'"' {
                return None;
            }
            let key = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return None;
            }
            members.insert(key, self.value()?);
            match self.blanks()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(members)
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            self.at += rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?
                + 1;
            match self.text.as_bytes()[self.at - 1] {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                _ => return None,
            }
            if self.at > self.text.len() {
                return None;
            }
        }
        if escaped {
            return serde_json::from_str(self.text.get(start..self.at)?).ok();
        }
        Some(self.text[start + 1..self.at - 1].to_owned())
    }

    fn number(&mut self) -> Option<Number> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        // The only way to a number that keeps its text: `Number::from_str` writes the exponent anew.
        Some(Number::from_string_unchecked(
            self.text[start..self.at].to_owned(),
        ))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests;
