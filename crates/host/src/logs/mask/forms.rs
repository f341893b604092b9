//! The forms in which a secret may stand in a text.

/// Shorter lines of a secret of several lines are too common to be masked on their own.
const LINE_BYTES: usize = 16;
/// A secret shorter than this has no base64 form that is told from other text.
const ENCODED_BYTES: usize = 6;
/// A longer secret is a key or a file, which nobody writes into a URL; its lines are masked in any case.
const ESCAPED_BYTES: usize = 4096;

/// All byte strings that tell a secret, but for those of base64.
pub fn of(secret: &str) -> impl Iterator<Item = Vec<u8>> {
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
    if trimmed.len() <= ESCAPED_BYTES {
        let escaped = url(trimmed)
            .chain(json(trimmed))
            .chain(xml(trimmed))
            .chain(shell(trimmed))
            .map(String::into_bytes);
        forms.extend(escaped.filter(|form| !form.is_empty()));
    }
    forms.into_iter()
}

/// How URLs are written.
fn url(text: &str) -> impl Iterator<Item = String> {
    let percent = |keep: &str, upper: bool, plus: bool| -> String {
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
            forms.push(percent(keep, upper, false));
            forms.push(percent(keep, upper, true));
        }
    }
    forms.into_iter()
}

/// One that writes JSON. All write `\"`, `\\`, and control characters in one way or another.
struct Json {
    /// Characters that it writes as `\u` and digits although it need not.
    digits: &'static str,
    /// And all that are not ASCII.
    ascii: bool,
    /// `/` becomes `\/`.
    slash: bool,
}

const fn writes(digits: &'static str, ascii: bool, slash: bool) -> Json {
    Json { digits, ascii, slash }
}

const JSON: [Json; 10] = [
    // JavaScript, Rust, Java.
    writes("", false, false),
    // Jackson and others that are told to write ASCII.
    writes("", true, false),
    // Python.
    writes("\u{7f}", true, false),
    // PHP; the same told to leave letters; told to write what HTML knows as digits.
    writes("", true, true),
    writes("\u{2028}\u{2029}", false, true),
    writes("\"'<>&", true, true),
    // Go and Rails; Go before 1.22.
    writes("<>&\u{2028}\u{2029}", false, false),
    writes("<>&\u{2028}\u{2029}\u{8}\u{c}", false, false),
    // Gson.
    writes("<>&'=\u{2028}\u{2029}", false, false),
    // .NET.
    writes("\"&'+<>`\u{7f}", true, false),
];

impl Json {
    /// With upper-case digits of what it need not write so, and of what is not ASCII.
    fn write(&self, text: &str, digits: bool, wide: bool) -> String {
        let mut written = String::with_capacity(text.len());
        for char in text.chars() {
            match char {
                char if self.digits.contains(char) => written.push_str(&units(char, digits)),
                char if self.ascii && !char.is_ascii() => written.push_str(&units(char, wide)),
                '"' | '\\' => written.extend(['\\', char]),
                '/' if self.slash => written.push_str("\\/"),
                '\n' => written.push_str("\\n"),
                '\r' => written.push_str("\\r"),
                '\t' => written.push_str("\\t"),
                '\u{8}' => written.push_str("\\b"),
                '\u{c}' => written.push_str("\\f"),
                char if char < ' ' => written.push_str(&units(char, digits)),
                char => written.push(char),
            }
        }
        written
    }
}

/// `\u` and four digits for each unit of UTF-16 (RFC 8259, section 7).
fn units(char: char, upper: bool) -> String {
    let one = |unit: &u16| match upper {
        true => format!("\\u{unit:04X}"),
        false => format!("\\u{unit:04x}"),
    };
    char.encode_utf16(&mut [0; 2]).iter().map(one).collect()
}

fn json(text: &str) -> impl Iterator<Item = String> {
    // PHP writes its digits of ASCII large and the others small.
    const CASES: [(bool, bool); 3] = [(false, false), (true, true), (true, false)];
    let one = |writer: &Json| CASES.map(|(digits, wide)| writer.write(text, digits, wide));
    JSON.iter().flat_map(one).collect::<Vec<_>>().into_iter()
}

/// What writers of XML make of `"`, `'`, tab, line feed and carriage return.
const XML: [[&str; 5]; 8] = [
    ["\"", "'", "\t", "\n", "\r"],
    ["&quot;", "'", "\t", "\n", "\r"],
    ["&quot;", "'", "&#09;", "&#10;", "&#13;"],
    ["&quot;", "&#x27;", "\t", "\n", "\r"],
    ["&quot;", "&#39;", "\t", "\n", "\r"],
    ["&quot;", "&#039;", "\t", "\n", "\r"],
    ["&quot;", "&apos;", "\t", "\n", "\r"],
    // Go.
    ["&#34;", "&#39;", "&#x9;", "&#xA;", "&#xD;"],
];

fn xml(text: &str) -> impl Iterator<Item = String> {
    /// What is not ASCII: as it is, or by its number.
    const WIDE: [fn(char) -> String; 4] = [
        |char| char.to_string(),
        |char| format!("&#{};", u32::from(char)),
        |char| format!("&#x{:X};", u32::from(char)),
        |char| format!("&#x{:x};", u32::from(char)),
    ];
    let mut forms = Vec::new();
    for own in XML {
        for wide in WIDE {
            let one = |char: char| match char {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                char if char.is_ascii() => match "\"'\t\n\r".find(char) {
                    Some(index) => own[index].to_owned(),
                    None => char.to_string(),
                },
                char => wide(char),
            };
            forms.push(text.chars().map(one).collect());
        }
    }
    forms.into_iter()
}

fn shell(text: &str) -> impl Iterator<Item = String> {
    let before = |special: &str| -> String {
        let one = |char: char| [special.contains(char).then_some('\\'), Some(char)];
        text.chars().flat_map(one).flatten().collect()
    };
    [
        text.replace('\'', r"'\''"),
        // Python's shlex.
        text.replace('\'', r#"'"'"'"#),
        together(text),
        before("\"\\$`"),
        before("\"\\$`!"),
        backslashed(text),
        dollar(text, true),
        dollar(text, false),
    ]
    .into_iter()
}

/// As dash quotes: several single quotes together, and no empty quotes at the ends.
fn together(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut quotes = false;
    for char in text.chars() {
        match (quotes, char == '\'') {
            (false, true) => written.push_str("'\""),
            (true, false) => written.push_str("\"'"),
            _ => {}
        }
        quotes = char == '\'';
        written.push(char);
    }
    if quotes {
        written.push('"');
    }
    match text.starts_with('\'') {
        true => written.split_off(1),
        false => written,
    }
}

/// As bash's `printf %q`, where all can be printed.
fn backslashed(text: &str) -> String {
    let mut written = String::with_capacity(text.len() * 2);
    let mut last = None;
    for char in text.chars() {
        let special = match char {
            '~' => matches!(last, None | Some(':' | '=')),
            '#' => last.is_none(),
            char => " \t\n'\"\\|&;()<>!{}*[]?^$`,".contains(char),
        };
        if special {
            written.push('\\');
        }
        written.push(char);
        last = Some(char);
    }
    written
}

/// The inside of `$'…'`, which bash writes where something cannot be printed: in the C locale all that is not ASCII.
fn dollar(text: &str, wide: bool) -> String {
    let mut written = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\'' | '\\' => written.extend(['\\', char]),
            '\u{7}' => written.push_str("\\a"),
            '\u{8}' => written.push_str("\\b"),
            '\t' => written.push_str("\\t"),
            '\n' => written.push_str("\\n"),
            '\u{b}' => written.push_str("\\v"),
            '\u{c}' => written.push_str("\\f"),
            '\r' => written.push_str("\\r"),
            '\u{1b}' => written.push_str("\\E"),
            char if char.is_ascii_control() || !(char.is_ascii() || wide) => {
                let octal = |byte: &u8| format!("\\{byte:03o}");
                written.extend(char.encode_utf8(&mut [0; 4]).as_bytes().iter().map(octal));
            }
            char => written.push(char),
        }
    }
    written
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// So many whole digits beside one that tells a part of the secret are enough to know it by.
const BESIDE: usize = 64;

/// The base64 digits that a secret has at each of the three places that it can have among others, in both alphabets.
pub fn encoded(secret: &str) -> impl Iterator<Item = Vec<u8>> {
    let text = Some(secret.trim().as_bytes()).filter(|text| text.len() >= ENCODED_BYTES);
    let forms = |text: &[u8]| {
        (0..3)
            .flat_map(|before| [STANDARD, URL].map(|alphabet| placed(text, before, alphabet)))
            .flatten()
            .collect::<Vec<_>>()
    };
    text.map(forms).unwrap_or_default().into_iter()
}

/// The digits of a text that follows so many bytes of a group. A digit at its ends that mixes its bits with those of a
/// neighbour has each value that those it has of the text allow. Each end is a form of its own, so that they do not
/// multiply; a mask makes one of those that overlap.
fn placed(text: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(text);
    let value = |index: usize| {
        let bit = index * 6;
        let high = u16::from(bytes[bit / 8]) << 8;
        let low = bytes.get(bit / 8 + 1).map_or(0, |byte| u16::from(*byte));
        usize::from(((high | low) >> (10 - bit % 8)) & 63)
    };
    let first = (before * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    let whole: Vec<u8> = (first..last).map(|index| alphabet[value(index)]).collect();
    let mut forms = Vec::new();
    // The foreign bits come first in the digit, and are none of the text's.
    for foreign in 0..1 << (before * 2) {
        if before > 0 {
            let digit = alphabet[value(first - 1) | (foreign << (6 - before * 2))];
            let near = &whole[..whole.len().min(BESIDE)];
            forms.push([&[digit], near].concat());
        }
    }
    let foreign = match bytes.len() % 3 {
        0 => 0,
        over => 6 - over * 2,
    };
    if foreign > 0 {
        let near = &whole[whole.len().saturating_sub(BESIDE)..];
        for bits in 0..1 << foreign {
            forms.push([near, &[alphabet[value(last) | bits]]].concat());
        }
        // Where the text is the end of all.
        let padding: &[u8] = if foreign == 4 { b"==" } else { b"=" };
        forms.push([near, &[alphabet[value(last)]], padding].concat());
    }
    forms.push(whole);
    forms
}
