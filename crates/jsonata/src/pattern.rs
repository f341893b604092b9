//! Regular expressions in JavaScript's syntax, run by an engine that does bounded work. Where both agree they are the
//! same text; the rest is rewritten here.

use std::{iter::Peekable, str::Chars, sync::Arc};

use fancy_regex::{Regex, RegexBuilder};

use crate::error::{Fault, Result, fault, quote};

/// Steps back that one search with look-around or back-references may take.
const BACKTRACKS: usize = 100_000;
/// What a search that may step back counts at least; a plain one counts what it reads.
const BACKTRACKING: u64 = 2_000;
/// Bytes of a compiled expression.
const COMPILED: usize = 512 << 10;

#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Arc<Regex>,
    /// What a search costs besides what it reads, in steps.
    pub cost: u64,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

/// Where a match is, in bytes; groups that took no part are none.
pub struct Found {
    pub start: usize,
    pub end: usize,
    pub groups: Vec<Option<(usize, usize)>>,
}

impl Pattern {
    /// Compiles the text between slashes. `flags` are of `i` and `m`.
    pub fn compile(source: &str, flags: &str) -> Result<Pattern> {
        let invalid = |reason: String| fault("S0303").insert("value", quote(&reason));
        let mut writer = Writer {
            rest: source.chars().peekable(),
            out: String::new(),
            groups: source.matches('(').count(),
        };
        writer.whole().map_err(|reason| invalid(reason.to_owned()))?;
        let regex = RegexBuilder::new(&writer.out)
            .case_insensitive(flags.contains('i'))
            .multi_line(flags.contains('m'))
            .backtrack_limit(BACKTRACKS)
            .delegate_size_limit(COMPILED)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let out = &writer.out;
        let plain = !["(?=", "(?!", "(?<=", "(?<!", r"(?:\", r"\k"]
            .iter()
            .any(|sign| out.contains(sign));
        Ok(Pattern {
            cost: if plain { 1 } else { BACKTRACKING },
            source: source.to_owned(),
            regex: Arc::new(regex),
        })
    }

    /// The first match that starts at the byte `from` or later.
    pub fn find(&self, text: &str, from: usize) -> Result<Option<Found>> {
        let captures = self
            .regex
            .captures_from_pos(text, from)
            .map_err(|_| exhausted())?;
        Ok(captures.map(|captures| {
            let span = |index| captures.get(index).map(|found| (found.start(), found.end()));
            let (start, end) = span(0).expect("a match has a whole");
            Found {
                start,
                end,
                groups: (1..captures.len()).map(span).collect(),
            }
        }))
    }
}

fn exhausted() -> Box<Fault> {
    fault("U1002").insert("value", BACKTRACKS.to_string())
}

const BLANKS: &str =
    r"\t\n\x0b\x0c\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";
const WORD: &str = "0-9A-Za-z_";

/// One member of a class: a set, or a character that can begin or end a range.
enum Member {
    Set(String),
    Char(char),
}

type Rewritten<T> = std::result::Result<T, &'static str>;

struct Writer<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// At most so many groups.
    groups: usize,
}

impl Writer<'_> {
    fn whole(&mut self) -> Rewritten<()> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '.' => self.out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
                '(' => self.group()?,
                '{' if !self.is_count() => self.out.push_str(r"\{"),
                '}' | ']' => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                '{' => {
                    self.out.push('{');
                    for c in self.rest.by_ref() {
                        self.out.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                _ => self.out.push(c),
            }
        }
        Ok(())
    }

    /// Whether a brace opens a count such as `{2,3}`; otherwise JavaScript takes it for itself.
    fn is_count(&self) -> bool {
        let body: String = self.rest.clone().take_while(|c| *c != '}').take(20).collect();
        let closed = self.rest.clone().nth(body.chars().count()) == Some('}');
        let (low, high) = body.split_once(',').unwrap_or((&body, "0"));
        let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
        closed && !low.is_empty() && digits(low) && digits(high)
    }

    fn group(&mut self) -> Rewritten<()> {
        self.out.push('(');
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        let mut ahead = self.rest.clone();
        ahead.next();
        match ahead.next() {
            Some(':' | '=' | '!' | '<') => Ok(()),
            _ => Err("Invalid group"),
        }
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() {
            self.out.push(c);
        } else {
            self.out.push_str(&format!(r"\x{{{:x}}}", c as u32));
        }
    }

    /// An escape outside of a class.
    fn escape(&mut self) -> Rewritten<()> {
        match self.rest.peek() {
            None => return Err("\\ at end of pattern"),
            Some(c @ ('b' | 'B')) => {
                self.out.push('\\');
                self.out.push(*c);
                self.rest.next();
            }
            Some('k') => {
                self.out.push_str(r"\k");
                self.rest.next();
            }
            Some('1'..='9') => self.reference(),
            Some(_) => match self.member()? {
                Member::Set(set) => self.out.push_str(&format!("[{set}]")),
                Member::Char(c) => self.literal(c),
            },
        }
        Ok(())
    }

    fn reference(&mut self) {
        let mut number = 0;
        while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(10)) {
            if number * 10 + digit as usize > self.groups {
                break;
            }
            number = number * 10 + digit as usize;
            self.rest.next();
        }
        if number == 0 {
            // No such group: the digit itself.
            let digit = self.rest.next().expect("a digit was seen");
            return self.out.push(digit);
        }
        // Apart from digits that follow.
        self.out.push_str(&format!(r"(?:\{number})"));
    }

    /// What stands behind a backslash, as a member of a class.
    fn member(&mut self) -> Rewritten<Member> {
        let c = self.rest.next().ok_or("\\ at end of pattern")?;
        Ok(match c {
            'd' => Member::Set("0-9".to_owned()),
            'D' => Member::Set("[^0-9]".to_owned()),
            'w' => Member::Set(WORD.to_owned()),
            'W' => Member::Set(format!("[^{WORD}]")),
            's' => Member::Set(BLANKS.to_owned()),
            'S' => Member::Set(format!("[^{BLANKS}]")),
            'n' => Member::Char('\n'),
            'r' => Member::Char('\r'),
            't' => Member::Char('\t'),
            'f' => Member::Char('\u{c}'),
            'v' => Member::Char('\u{b}'),
            '0' => Member::Char('\0'),
            'c' => {
                let letter = self.rest.next().ok_or("Invalid control escape")?;
                Member::Char(char::from(letter as u8 % 32))
            }
            'x' => Member::Char(self.hex(2).map_or('x', |unit| {
                crate::text::from_units(&[unit]).chars().next().unwrap_or('x')
            })),
            'u' => Member::Char(self.unicode()),
            other => Member::Char(other),
        })
    }

    fn hex(&mut self, count: usize) -> Option<u16> {
        let digits: String = self.rest.clone().take(count).collect();
        let complete = digits.len() == count && digits.chars().all(|c| c.is_ascii_hexdigit());
        let value = if complete {
            u16::from_str_radix(&digits, 16).ok()
        } else {
            None
        }?;
        self.rest.nth(count - 1);
        Some(value)
    }

    fn unicode(&mut self) -> char {
        let Some(first) = self.hex(4) else { return 'u' };
        let mut units = vec![first];
        let before = self.rest.clone();
        if (0xd800..0xdc00).contains(&first)
            && self.rest.next() == Some('\\')
            && self.rest.next() == Some('u')
        {
            units.extend(self.hex(4));
        }
        let mut chars = crate::text::from_units(&units)
            .chars()
            .collect::<Vec<_>>()
            .into_iter();
        let c = chars.next().unwrap_or('u');
        if chars.next().is_some() || units.len() == 1 {
            self.rest = before;
        }
        c
    }

    fn class(&mut self) -> Rewritten<()> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        if self.rest.next_if_eq(&']').is_some() {
            self.out.push_str(if negated { r"[\s\S]" } else { r"[^\s\S]" });
            return Ok(());
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        loop {
            let member = match self.rest.next().ok_or("Unterminated character class")? {
                ']' => break,
                c => self.class_member(c)?,
            };
            let mut ahead = self.rest.clone();
            let is_range = ahead.next() == Some('-') && !matches!(ahead.next(), None | Some(']'));
            match member {
                Member::Char(low) if is_range => {
                    self.rest.next();
                    let next = self.rest.next().ok_or("Unterminated character class")?;
                    self.literal(low);
                    match self.class_member(next)? {
                        Member::Char(high) => {
                            self.out.push('-');
                            self.literal(high);
                        }
                        Member::Set(set) => self.out.push_str(&format!(r"\-{set}")),
                    }
                }
                Member::Char(c) => self.literal(c),
                Member::Set(set) => self.out.push_str(&set),
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn class_member(&mut self, c: char) -> Rewritten<Member> {
        if c != '\\' {
            return Ok(Member::Char(c));
        }
        if self.rest.next_if_eq(&'b').is_some() {
            return Ok(Member::Char('\u{8}'));
        }
        self.member()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(source: &str, flags: &str, text: &str) -> Option<String> {
        let pattern = Pattern::compile(source, flags).unwrap();
        let found = pattern.find(text, 0).unwrap();
        found.map(|found| text[found.start..found.end].to_owned())
    }

    #[test]
    fn javascript_means_what_it_means() {
        for (source, flags, text, expected) in [
            (r"\d+", "", "٣12", Some("12")),
            (r"a{,2}", "", "a{,2}", Some("a{,2}")),
            (r"a{2}", "", "aaa", Some("aa")),
            (r"[[]a]", "", "[a]", Some("[a]")),
            (r"[^]+", "", "a\nb", Some("a\nb")),
            (r"[a-]+", "", "-a-", Some("-a-")),
            (r"[\w-]+", "", "a-b c", Some("a-b")),
            (r"(a)\1", "", "aba aa", Some("aa")),
            (r"a(?=b)", "", "acab", Some("a")),
            (r"\u0041\x42", "", "AB", Some("AB")),
            (r"\/x", "", "/x", Some("/x")),
            (r"^b$", "m", "a\nb", Some("b")),
            (r"b$", "", "b\n", None),
            ("HELLO", "i", "hello", Some("hello")),
            (r"[&&a]+", "", "&a&", Some("&a&")),
            (r".", "", "\u{2028}", None),
        ] {
            assert_eq!(matches(source, flags, text).as_deref(), expected, "{source}");
        }
        for wrong in ["(", "[a", "(?i)a", "*", "a\\"] {
            assert!(Pattern::compile(wrong, "").is_err(), "{wrong}");
        }
        assert!(Pattern::compile("(a{1000}){1000}", "").is_err());
    }

    #[test]
    fn a_search_is_bounded() {
        let pattern = Pattern::compile(r"^(?:(a+)+\1?)$", "").unwrap();
        let outcome = pattern.find(&("a".repeat(40) + "!"), 0);
        assert!(outcome.map_or_else(|fault| fault.code == "U1002", |found| found.is_none()));
    }
}
