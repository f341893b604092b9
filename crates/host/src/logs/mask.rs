//! Takes secrets out of a stream of bytes, however the stream is cut into pieces.

mod forms;
mod joined;
mod patterns;

use std::ops::Range;

use joined::Joined;
use patterns::Patterns;

const STARS: &[u8] = b"***";
/// So many base64 digits before the end of a line are held back when they may begin a secret. Fewer are shown, or every
/// other line would wait for the next one.
const DIGITS_HELD: usize = 4;

/// Replaces secrets by `***`: their exact values, the long lines of those of several lines, their base64 forms in any
/// alignment (so also inside of an encoded `user:password`) and over several lines, and how URLs, JSON, XML and shells
/// write them. Of an encoded one that a line's end divides, at most three digits before that end are left.
///
/// Holds back the end of the stream only while it may be the beginning of a secret.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    plain: Patterns,
    /// Of base64, which goes on behind the end of a line.
    encoded: Patterns,
    held: Vec<u8>,
    /// So many bytes at the start of `held` were shown. A secret may have begun in them.
    told: usize,
    /// So many belong to a secret whose stars were written.
    covered: usize,
}

impl Mask {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        Self {
            plain: Patterns::new(secrets.clone().into_iter().flat_map(forms::of)),
            encoded: Patterns::new(secrets.into_iter().flat_map(forms::encoded)),
            ..Self::default()
        }
    }

    /// A text of its own, without secrets.
    pub fn conceal(&self, text: &str) -> String {
        if self.plain.is_empty() {
            return text.to_owned();
        }
        let mut own = Self {
            plain: self.plain.clone(),
            encoded: self.encoded.clone(),
            held: text.as_bytes().to_vec(),
            ..Self::default()
        };
        String::from_utf8_lossy(&own.finish()).into_owned()
    }

    /// What can be shown now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.plain.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let joined = Joined::new(&self.held);
        let whole = self.held.len() - self.plain.beginning(&self.held);
        let begins = |allowed: &dyn Fn(usize, usize) -> bool| {
            let digits = self.encoded.beginning_where(joined.bytes(), |digits| {
                allowed(digits, joined.at(joined.bytes().len() - digits))
            });
            match digits {
                0 => self.held.len(),
                digits => joined.at(joined.bytes().len() - digits),
            }
        };
        let divided = |from: usize| self.held[from..].contains(&b'\n') || self.held[from..].contains(&b'\r');
        let until = begins(&|digits, from| digits >= DIGITS_HELD || !divided(from));
        let until = until.min(whole).max(self.told);
        let keep = begins(&|_, _| true).min(until);
        let secrets = self.secrets(&joined);
        self.show(until, keep, secrets)
    }

    /// What was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        let secrets = self.secrets(&Joined::new(&self.held));
        self.show(self.held.len(), self.held.len(), secrets)
    }

    /// Shows what is held without the secrets in it, up to there, and keeps it from there.
    fn show(&mut self, until: usize, keep: usize, secrets: Vec<Range<usize>>) -> Vec<u8> {
        let mut shown = Vec::with_capacity(until - self.told);
        let mut from = self.told.max(self.covered);
        for secret in secrets {
            if secret.start >= until {
                break;
            }
            if secret.end <= self.told {
                continue;
            }
            shown.extend_from_slice(&self.held[from..secret.start.max(from)]);
            if secret.start > 0 || self.covered == 0 {
                shown.extend_from_slice(STARS);
            }
            from = secret.end.max(from);
        }
        shown.extend_from_slice(&self.held[from.min(until)..until]);
        self.covered = if from > until { from - keep } else { 0 };
        self.told = until - keep;
        self.held.drain(..keep);
        shown
    }

    /// Where the secrets are in `held`, in order, those that overlap made one.
    fn secrets(&self, joined: &Joined<'_>) -> Vec<Range<usize>> {
        let raw = |found: Range<usize>| joined.at(found.start)..joined.at(found.end - 1) + 1;
        let mut found: Vec<_> = self.plain.find(&self.held).collect();
        found.extend(self.encoded.find(joined.bytes()).map(raw));
        found.sort_unstable_by_key(|range| range.start);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if self.covered > 0 {
            ranges.push(0..self.covered);
        }
        for range in found {
            match ranges.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        ranges
    }
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
    fn the_padding_of_an_encoded_secret_goes_with_it() {
        for (text, shown) in [
            ("aHVudGVyMnNlY3JldA==\n", "***\n"),
            ("aHVudGVyMnNlY3JldA\n", "***\n"),
            ("aHVudGVyMnNlY3JldC4=\n", "***4=\n"),
            ("PASS=aHVudGVyMnNlY3JldA==", "PASS=***"),
        ] {
            let bytes = text.as_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(
                    masked(&["hunter2secret"], &[first, second]),
                    shown,
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn an_encoded_secret_is_masked_over_the_ends_of_lines() {
        let secret = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6a7B8";
        // `echo -n "$SECRET" | base64`, which breaks its lines after 76 digits, and of `key:` and the same.
        let alone = "Z2hwX2ExQjJjM0Q0ZTVGNmc3SDhpOUowazFMMm0zTjRvNVA2cTdSOHM5VDB1MVYydzNYNHk1WjZh\nN0I4\n";
        let behind = "a2V5OmdocF9hMUIyYzNENGU1RjZnN0g4aTlKMGsxTDJtM040bzVQNnE3UjhzOVQwdTFWMnczWDR5\r\nNVo2YTdCOA==\r\n";
        for (text, shown) in [(alone, "***\n"), (behind, "a2V5O***\r\n")] {
            let bytes = text.as_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(masked(&[secret], &[first, second]), shown, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_line_is_shown_at_its_end_where_no_more_than_a_digit_could_begin_a_secret() {
        let mut mask = Mask::new(["hunter2secret"]);
        assert_eq!(mask.feed(b"done: a\n"), b"done: a\n");
        assert_eq!(mask.feed(b"next\n"), b"next\n");
        // What was shown is known when the rest comes.
        assert_eq!(mask.feed(b"done: aH\n"), b"done: aH\n");
        assert_eq!(mask.feed(b"VudGVyMnNlY3JldA==\n."), b"***\n.");
        assert_eq!(mask.feed(b"aHVu\n"), b"");
        assert_eq!(mask.feed(b"\n!"), b"aHVu\n\n!");
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
    fn every_writers_form_is_masked_wherever_it_is_cut() {
        let (umlaut, quote, emoji, mixed) = (
            "passwörd-geheim",
            "it's/slash<x>",
            "emoji😀and\"both",
            "ü<&>\"'\\/😀\n+`$z",
        );
        for (writer, secret, text) in [
            ("Python's JSON", umlaut, r"passw\u00f6rd-geheim"),
            ("Python's JSON", quote, "it's/slash<x>"),
            ("Python's JSON", emoji, r#"emoji\ud83d\ude00and\"both"#),
            ("Python's JSON", mixed, r#"\u00fc<&>\"'\\/\ud83d\ude00\n+`$z"#),
            ("Jackson, in ASCII", umlaut, r"passw\u00F6rd-geheim"),
            ("Jackson, in ASCII", emoji, r#"emoji\uD83D\uDE00and\"both"#),
            ("PHP's JSON", umlaut, r"passw\u00f6rd-geheim"),
            ("PHP's JSON", quote, r"it's\/slash<x>"),
            ("PHP's JSON", emoji, r#"emoji\ud83d\ude00and\"both"#),
            ("PHP's JSON", mixed, r#"\u00fc<&>\"'\\\/\ud83d\ude00\n+`$z"#),
            ("PHP's JSON, in UTF-8", mixed, r#"ü<&>\"'\\\/😀\n+`$z"#),
            (
                "PHP's JSON, in hexadecimal",
                mixed,
                r"\u00fc\u003C\u0026\u003E\u0022\u0027\\\/\ud83d\ude00\n+`$z",
            ),
            ("Go's JSON", umlaut, "passwörd-geheim"),
            ("Go's JSON", quote, r"it's/slash\u003cx\u003e"),
            ("Go's JSON", emoji, r#"emoji😀and\"both"#),
            ("Go's JSON", mixed, r#"ü\u003c\u0026\u003e\"'\\/😀\n+`$z"#),
            ("Go's JSON", "line\u{2028}end\u{c}x", r"line\u2028end\fx"),
            (
                "Go's JSON before 1.22",
                "line\u{2028}end\u{c}x",
                r"line\u2028end\u000cx",
            ),
            ("Gson", quote, r"it\u0027s/slash\u003cx\u003e"),
            (".NET's JSON", umlaut, r"passw\u00F6rd-geheim"),
            (
                ".NET's JSON",
                mixed,
                r"\u00FC\u003C\u0026\u003E\u0022\u0027\\/\uD83D\uDE00\n\u002B\u0060$z",
            ),
            ("XML in ASCII", umlaut, "passw&#246;rd-geheim"),
            ("XML in ASCII", umlaut, "passw&#xF6;rd-geheim"),
            ("XML in ASCII", umlaut, "passw&#xf6;rd-geheim"),
            ("XML in ASCII", emoji, "emoji&#128512;and\"both"),
            ("XML in ASCII", emoji, "emoji&#x1F600;and&quot;both"),
            ("Go's XML", quote, "it&#39;s/slash&lt;x&gt;"),
            ("Go's XML", mixed, "ü&lt;&amp;&gt;&#34;&#39;\\/😀&#xA;+`$z"),
            (
                "Python's attributes",
                mixed,
                "&#252;&lt;&amp;&gt;&quot;'\\/&#128512;&#10;+`$z",
            ),
            ("PHP's XML", quote, "it&#039;s/slash&lt;x&gt;"),
            ("Python's shlex", quote, r#"it'"'"'s/slash<x>"#),
            ("Python's shlex", "it''s", r#"it'"'"''"'"'s"#),
            ("dash", "'it''s", r#""'"'it'"''"'s"#),
            ("bash's printf %q", umlaut, r"passw\303\266rd-geheim"),
            ("bash's printf %q", quote, r"it\'s/slash\<x\>"),
            ("bash's printf %q", emoji, r#"emoji😀and\"both"#),
            ("bash's printf %q", emoji, r#"emoji\360\237\230\200and"both"#),
            (
                "bash's printf %q",
                "a b,c~d#e=f:~g!{h}",
                r"a\ b\,c~d#e=f:\~g\!\{h\}",
            ),
            ("bash's printf %q", "#hash~", r"\#hash~"),
            ("bash's printf %q", mixed, r#"ü<&>"\'\\/😀\n+`$z"#),
            (
                "bash's printf %q",
                mixed,
                r#"\303\274<&>"\'\\/\360\237\230\200\n+`$z"#,
            ),
            ("double quotes", mixed, "ü<&>\\\"'\\\\/😀\n+\\`\\$z"),
        ] {
            let bytes = text.as_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let shown = masked(&[secret], &[b"(", first, second, b")"]);
                assert_eq!(shown, "(***)", "{writer}: {text}, cut at {cut}");
            }
        }
    }

    #[test]
    fn the_forms_of_a_secret_are_bounded() {
        let worst: String = "ü<&>\"'\\/😀\n\u{8}\u{2028}+`$ ~#,".repeat(20);
        let mut forms: Vec<Vec<u8>> = forms::of(&worst).chain(forms::encoded(&worst)).collect();
        forms.sort_unstable();
        forms.dedup();
        assert!(forms.len() <= 200, "{}", forms.len());
        assert!(forms.iter().all(|form| form.len() <= worst.len() * 6));
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
        fn no_digit_that_tells_of_an_encoded_secret_is_shown(
            secret in proptest::collection::vec(33u8..127, 6..140), before in proptest::collection::vec(0u8..=255, 0..80),
            after in proptest::collection::vec(0u8..=255, 0..4), url: bool, padded: bool, cut: proptest::sample::Index,
            width in 8usize..200, end in "\r?\n",
        ) {
            use base64::{Engine as _, engine::general_purpose as alphabets};
            let all = [&before[..], &secret, &after].concat();
            let digits = match (url, padded) {
                (false, true) => alphabets::STANDARD.encode(&all),
                (false, false) => alphabets::STANDARD_NO_PAD.encode(&all),
                (true, true) => alphabets::URL_SAFE.encode(&all),
                (true, false) => alphabets::URL_SAFE_NO_PAD.encode(&all),
            };
            let lines: Vec<_> = digits.as_bytes().chunks(width).collect();
            let text = String::from_utf8(lines.join(end.as_bytes())).unwrap();
            let at = |digit: usize| digit + digit.saturating_sub(1) / width * end.len();
            let first = before.len() * 8 / 6;
            let last = match after.is_empty() {
                true => text.len(),
                false => at(((before.len() + secret.len()) * 8).div_ceil(6)),
            };
            // Digits at the end of a line that are too few to be held back for the next one.
            let few = width - first % width;
            let shown_first = match few < DIGITS_HELD {
                true => at(first) + few + 2 * end.len(),
                false => at(first) + end.len(),
            };
            let (start, rest) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let shown = masked(&[std::str::from_utf8(&secret).unwrap()], &[start, rest]);
            let (head, _) = shown.split_once("***").expect("it is found");
            let (_, tail) = shown.rsplit_once("***").expect("it is found");
            prop_assert!(text[..shown_first.min(text.len())].starts_with(head), "{} of {}", &shown, &text);
            prop_assert!(text[last..].ends_with(tail), "{} of {}", &shown, &text);
            prop_assert!(shown[head.len()..shown.len() - tail.len()].bytes().all(|byte| byte == b'*'), "{}", &shown);
        }

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
