//! Walks XML within bounds, and gives each element with those that it is in.

use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesRef, BytesStart, Event},
};

use super::{Error, Telling};

pub(super) const DEPTH: usize = 64;

/// What is done with elements. `path` holds the names of the open elements, outermost first, the element itself last.
pub(super) trait Listener {
    fn open(&mut self, path: &[String], element: &Element<'_>) -> Result<(), Error>;
    /// All that stands between two tags.
    fn text(&mut self, _path: &[String], _text: &str) {}
    fn close(&mut self, _path: &[String]) {}
}

/// The start of an element.
pub(super) struct Element<'a>(&'a BytesStart<'a>);

impl Element<'_> {
    /// An attribute's text. A malformed one is as good as none: what counts is which elements there are.
    pub fn get(&self, name: &str) -> Option<String> {
        let attribute = self
            .0
            .attributes()
            .flatten()
            .find(|attribute| attribute.key.as_ref() == name)?;
        let text = attribute.value.into_owned();
        let plain = quick_xml::escape::unescape(&text).map(|text| text.into_owned());
        Some(plain.unwrap_or(text))
    }

    /// An attribute that is a number; 0 when it is none.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name)
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }
}

/// Walks a document whose outermost element is one of `roots`.
pub(super) fn walk(
    bytes: &[u8],
    roots: &[&str],
    to: &mut impl Listener,
    telling: Telling<'_>,
) -> Result<(), Error> {
    let wrong = |found: &str| wrong(telling.short(found), roots);
    let document = decode(bytes);
    let mut reader = Reader::from_str(document.trim_start_matches('\u{feff}'));
    reader.config_mut().check_end_names = true;
    let mut path: Vec<String> = Vec::new();
    let mut begun = false;
    // The parser gives it in pieces: references stand alone, and so does what is quoted as a whole.
    let mut text = String::new();
    loop {
        let event = reader.read_event().map_err(|error| Error::Xml {
            at: reader.error_position(),
            reason: telling.short(&error.to_string()),
        })?;
        if matches!(event, Event::Start(_) | Event::Empty(_) | Event::End(_)) && !text.is_empty() {
            to.text(&path, &text);
            text.clear();
        }
        match event {
            Event::Eof if !path.is_empty() => {
                return Err(Error::Xml {
                    at: reader.buffer_position(),
                    reason: "it ends too early".to_owned(),
                });
            }
            Event::Eof if !begun => return Err(wrong("")),
            Event::Eof => return Ok(()),
            // Entities are never expanded here; who declares some means to.
            Event::DocType(text) if text.contains('[') => return Err(Error::Entities),
            Event::Start(ref element) | Event::Empty(ref element) => {
                let name = element.local_name().as_ref().to_owned();
                if path.is_empty() && (begun || !roots.contains(&name.as_str())) {
                    return Err(wrong(&name));
                }
                begun = true;
                path.push(name);
                if path.len() > DEPTH {
                    return Err(Error::TooDeep);
                }
                to.open(&path, &Element(element))?;
                if matches!(event, Event::Empty(_)) {
                    to.close(&path);
                    path.pop();
                }
            }
            Event::End(_) => {
                to.close(&path);
                path.pop();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(reference) => text.push_str(&meant(&reference)),
            _ => {}
        }
    }
}

/// What a reference stands for. One that nothing declares stands for itself.
fn meant(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return character.to_string();
    }
    resolve_predefined_entity(reference).map_or_else(|| format!("&{};", &**reference), str::to_owned)
}

fn wrong(found: String, roots: &[&str]) -> Error {
    let names: Vec<String> = roots.iter().map(|root| format!("`{root}`")).collect();
    Error::Root {
        found,
        wanted: names.join(" or "),
    }
}

/// Tools of Windows write UTF-16 with a mark at its start.
fn decode(bytes: &[u8]) -> String {
    let units = |wide: fn([u8; 2]) -> u16| {
        bytes[2..]
            .chunks_exact(2)
            .map(move |pair| wide([pair[0], pair[1]]))
    };
    let wide = |units: &mut dyn Iterator<Item = u16>| {
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    match bytes {
        [0xFF, 0xFE, ..] => wide(&mut units(u16::from_le_bytes)),
        [0xFE, 0xFF, ..] => wide(&mut units(u16::from_be_bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
