//! Strings as JavaScript sees them, in UTF-16, kept in UTF-8.

use std::cmp::Ordering;

/// Half a character, which UTF-8 cannot hold, is kept as one of the last 2,048 private characters.
const HALVES: u32 = 0x10_f800;

/// Text from UTF-16 units.
pub fn from_units(units: &[u16]) -> String {
    let decoded = char::decode_utf16(units.iter().copied());
    decoded
        .map(|c| {
            c.unwrap_or_else(|half| {
                let offset = u32::from(half.unpaired_surrogate()) - 0xd800;
                char::from_u32(HALVES + offset).expect("the last private characters are characters")
            })
        })
        .collect()
}

/// Whether the text holds half a character.
pub fn has_half(text: &str) -> bool {
    text.chars().any(|c| c as u32 >= HALVES)
}

/// The order of JavaScript's `<`: by UTF-16 units.
pub fn compare(left: &str, right: &str) -> Ordering {
    if left.is_ascii() || right.is_ascii() {
        return left.cmp(right);
    }
    left.encode_utf16().cmp(right.encode_utf16())
}

/// How many UTF-16 units the text has.
pub fn units(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(char::len_utf16).sum()
}

/// The byte where the UTF-16 unit `index` starts; the end for those beyond it.
pub fn byte_of_unit(text: &str, index: usize) -> usize {
    if text.is_ascii() {
        return index.min(text.len());
    }
    let mut passed = 0;
    for (byte, c) in text.char_indices() {
        if passed >= index {
            return byte;
        }
        passed += c.len_utf16();
    }
    text.len()
}

/// The byte where the character `index` starts; the end for those beyond it.
pub fn byte_of_char(text: &str, index: usize) -> usize {
    if text.is_ascii() {
        return index.min(text.len());
    }
    text.char_indices()
        .nth(index)
        .map_or(text.len(), |(byte, _)| byte)
}
