//! Lines as one, as whoever reads base64 reads them (RFC 4648, section 3.3; RFC 2045, section 6.8).

use std::borrow::Cow;

/// A text without the line ends that follow a digit of base64. A line that is empty ends what is joined.
#[derive(Debug)]
pub(super) struct Joined<'t> {
    bytes: Cow<'t, [u8]>,
    /// From these places on so many bytes were left out, in order.
    gaps: Vec<(usize, usize)>,
}

impl<'t> Joined<'t> {
    pub fn new(text: &'t [u8]) -> Self {
        let mut gaps = Vec::new();
        let mut bytes = Vec::new();
        let (mut from, mut left_out) = (0, 0);
        while let Some(end) = text[from..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let end = from + end;
            let long = match &text[end..] {
                [b'\r', b'\n', ..] => 2,
                [b'\n', ..] | [b'\r'] => 1,
                _ => 0,
            };
            if end == from || !is_digit(text[end - 1]) || long == 0 {
                bytes.extend_from_slice(&text[from..=end]);
                from = end + 1;
                continue;
            }
            bytes.extend_from_slice(&text[from..end]);
            left_out += long;
            gaps.push((bytes.len(), left_out));
            from = end + long;
        }
        if gaps.is_empty() {
            let bytes = text.into();
            return Self { bytes, gaps };
        }
        bytes.extend_from_slice(&text[from..]);
        let bytes = bytes.into();
        Self { bytes, gaps }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a byte of these stands in the text.
    pub fn at(&self, index: usize) -> usize {
        let before = self.gaps.partition_point(|(at, _)| *at <= index);
        index + before.checked_sub(1).map_or(0, |gap| self.gaps[gap].1)
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte)
}
