//! Takes secrets out of a stream of bytes, however the stream is cut into pieces.

use std::{ops::Range, sync::Arc};

use aho_corasick::AhoCorasick;

const STARS: &[u8] = b"***";
/// Shorter lines of a secret of several lines are too common to be masked on their own.
const LINE_BYTES: usize = 16;
/// A secret shorter than this has no base64 form that is told from other text.
const ENCODED_BYTES: usize = 6;
/// A longer secret is a key or a file, which nobody writes into a URL; its lines are masked in any case.
const ESCAPED_BYTES: usize = 4096;

/// Replaces secrets by `***`: their exact values, the long lines of those of several lines, their base64 forms in any
/// alignment (so also inside of an encoded `user:password`), and how URLs, JSON, XML and shells write them.
///
/// Holds back the end of the stream only while it may be the beginning of a secret.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    patterns: Arc<[Vec<u8>]>,
    search: Option<AhoCorasick>,
    held: Vec<u8>,
    /// So many bytes at the start of `held` belong to a secret whose stars were written.
    covered: usize,
}

impl Mask {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Vec<u8>> = secrets.into_iter().flat_map(forms).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let search = (!patterns.is_empty())
            .then(|| AhoCorasick::new(&patterns).expect("secrets fit the search: their sizes are bounded"));
        Self {
            patterns: patterns.into(),
            search,
            held: Vec::new(),
            covered: 0,
        }
    }

    /// A text of its own, without secrets.
    pub fn conceal(&self, text: &str) -> String {
        if self.search.is_none() {
            return text.to_owned();
        }
        let mut own = Self {
            patterns: Arc::clone(&self.patterns),
            search: self.search.clone(),
            ..Self::default()
        };
        let mut shown = own.feed(text.as_bytes());
        shown.extend(own.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// What can be shown now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.search.is_none() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        self.show(self.held.len() - self.beginning())
    }

    /// What was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        self.show(self.held.len())
    }

    /// The length of the longest end of `held` that a secret begins with.
    fn beginning(&self) -> usize {
        let begins = |pattern: &[u8]| {
            let longest = self.held.len().min(pattern.len() - 1);
            (1..=longest)
                .rev()
                .find(|&length| self.held.ends_with(&pattern[..length]))
                .unwrap_or(0)
        };
        self.patterns
            .iter()
            .map(|pattern| begins(pattern))
            .max()
            .unwrap_or(0)
    }

    fn show(&mut self, until: usize) -> Vec<u8> {
        if until == 0 {
            return Vec::new();
        }
        let mut shown = Vec::with_capacity(until);
        let mut from = 0;
        for secret in self.secrets() {
            if secret.start >= until {
                break;
            }
            shown.extend_from_slice(&self.held[from..secret.start.max(from)]);
            if secret.start > 0 || self.covered == 0 {
                shown.extend_from_slice(STARS);
            }
            from = secret.end;
        }
        shown.extend_from_slice(&self.held[from.min(until)..until]);
        self.covered = from.saturating_sub(until);
        self.held.drain(..until);
        shown
    }

    /// Where the secrets are in `held`, in order, those that overlap made one.
    fn secrets(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if self.covered > 0 {
            ranges.push(0..self.covered);
        }
        let search = self.search.iter();
        let mut found: Vec<_> = search
            .flat_map(|search| search.find_overlapping_iter(&self.held))
            .map(|found| found.range())
            .collect();
        found.sort_unstable_by_key(|range| range.start);
        for range in found {
            match ranges.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        ranges
    }
}

/// All byte strings that tell a secret.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let trimmed = secret.trim();
    for text in [secret, trimmed] {
        if !text.is_empty() {
            forms.push(text.as_bytes().to_vec());
        }
    }
    if secret.contains('\n') {
        let lines = secret
            .lines()
            .map(str::trim)
            .filter(|line| line.len() >= LINE_BYTES);
        forms.extend(lines.map(|line| line.as_bytes().to_vec()));
    }
    if trimmed.len() >= ENCODED_BYTES {
        forms.extend(encoded(trimmed.as_bytes()));
    }
    if trimmed.len() <= ESCAPED_BYTES {
        let escaped = escaped(trimmed).map(String::into_bytes);
        forms.extend(escaped.filter(|form| !form.is_empty()));
    }
    forms
}

/// How texts are written inside of other texts.
fn escaped(text: &str) -> impl Iterator<Item = String> {
    let percent = |text: &str, keep: &str, upper: bool, plus: bool| -> String {
        let one = |byte: u8| match byte {
            b' ' if plus => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => {
                char::from(byte).to_string()
            }
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        };
        text.bytes().map(one).collect()
    };
    // What browsers, Python, Go, Java and curl leave as it is differs.
    let mut forms = Vec::new();
    for keep in ["-_.~", "-_.!~*'()", "-_.*", "-_.~/", ""] {
        for upper in [true, false] {
            forms.push(percent(text, keep, upper, false));
            forms.push(percent(text, keep, upper, true));
        }
    }
    let json = serde_json::to_string(text).unwrap_or_default();
    forms.push(
        json.get(1..json.len().saturating_sub(1))
            .unwrap_or_default()
            .to_owned(),
    );
    let xml = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    forms.push(xml.replace('"', "&quot;").replace('\'', "&#x27;"));
    forms.push(xml.replace('"', "&quot;").replace('\'', "&#39;"));
    forms.push(xml.replace('"', "&quot;").replace('\'', "&apos;"));
    forms.push(xml);
    forms.push(text.replace('\'', r"'\''"));
    forms.into_iter()
}

/// The base64 digits that a text has at each of the three places that it can have among others, in both alphabets.
fn encoded(text: &[u8]) -> Vec<Vec<u8>> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(text);
        // Digits that mix the text's bits with those of a neighbour differ with the neighbour.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for alphabet in [STANDARD, URL] {
            let digit = |index: usize| {
                let bit = index * 6;
                let high = u16::from(bytes[bit / 8]) << 8;
                let low = bytes.get(bit / 8 + 1).map_or(0, |byte| u16::from(*byte));
                alphabet[usize::from(((high | low) >> (10 - bit % 8)) & 63)]
            };
            forms.push((first..last).map(digit).collect());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut mask = Mask::new(secrets.iter().copied());
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| mask.feed(piece)).collect();
        shown.extend(mask.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn secrets_are_masked_wherever_the_stream_is_cut() {
        for (pieces, shown) in [
            (&["the hunter2!"][..], "the ***!"),
            (&["the hun", "ter2!"], "the ***!"),
            (&["h", "u", "n", "t", "e", "r", "2"], "***"),
            (&["hunter", " hunt", "er2"], "hunter ***"),
            (&["hunter2hunter2"], "******"),
            (&["hunthunter2"], "hunt***"),
            (&["nothing"], "nothing"),
        ] {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(masked(&["hunter2"], &pieces), shown, "{pieces:?}");
        }
    }

    #[test]
    fn overlapping_and_nested_secrets_leave_nothing() {
        assert_eq!(masked(&["abcd", "cdef"], &[b"xabcdefx"]), "x***x");
        assert_eq!(masked(&["abc", "abcdef"], &[b"abc", b"def."]), "***.");
        assert_eq!(masked(&["abca", "cabx"], &[b"abcab", b"x."]), "***.");
        assert_eq!(masked(&[""], &[b"empty"]), "empty");
    }

    #[test]
    fn encoded_secrets_are_masked() {
        // base64 of `hunter2secret`, of the same with a line end, and of `user:hunter2secret`.
        for text in [
            "aHVudGVyMnNlY3JldA==",
            "aHVudGVyMnNlY3JldAo=",
            "dXNlcjpodW50ZXIyc2VjcmV0",
        ] {
            let shown = masked(&["hunter2secret"], &[text.as_bytes()]);
            assert!(
                shown.contains("***") && !shown.contains("dW50ZXIy") && !shown.contains("VudGVy"),
                "{shown}"
            );
        }
    }

    #[test]
    fn escaped_secrets_are_masked() {
        let secret = "p@ss w/rd&\"it's\"";
        for text in [
            "p%40ss%20w%2Frd%26%22it%27s%22",
            "p%40ss+w%2frd%26%22it%27s%22",
            "p%40ss%20w/rd%26%22it%27s%22",
            r#"p@ss w/rd&\"it's\""#,
            "p@ss w/rd&amp;&quot;it&#39;s&quot;",
            "p@ss w/rd&amp;\"it's\"",
            r#"p@ss w/rd&"it'\''s""#,
        ] {
            let (first, second) = text.split_at(5);
            let shown = masked(&[secret], &[b"<", first.as_bytes(), second.as_bytes(), b">"]);
            assert_eq!(shown, "<***>", "{text}");
        }
    }

    #[test]
    fn the_long_lines_of_a_key_are_masked_alone() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nAB\n-----END KEY-----\n";
        assert_eq!(
            masked(&[key], &[b"> MIIEvQIBADANBgkqhkiG\n> AB\n"]),
            "> ***\n> AB\n"
        );
    }

    #[test]
    fn only_a_possible_secret_is_held_back() {
        let mut mask = Mask::new(["hunter2"]);
        assert_eq!(mask.feed(b"line\nhun"), b"line\n");
        assert_eq!(mask.feed(b"gry\n"), b"hungry\n");
    }

    proptest! {
        #[test]
        fn the_cutting_of_the_stream_changes_nothing(
            text in "[ab]{0,40}", cuts in proptest::collection::vec(0usize..5, 0..40), secret in "[ab]{1,5}", other in "[ab]{1,4}",
        ) {
            let secrets = [secret.as_str(), other.as_str()];
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            let shown = masked(&secrets, &pieces);
            prop_assert_eq!(&shown, &masked(&secrets, &[text.as_bytes()]));
            prop_assert!(!shown.contains(&secret) && !shown.contains(&other));
        }
    }
}
