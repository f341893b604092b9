//! Text to tokens. Positions are in UTF-16 units from 0; that of a token is where it ends, as in the reference.

use crate::{
    error::{Result, fault},
    number,
    pattern::Pattern,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Also the words `and`, `or` and `in`.
    Operator(&'static str),
    Name(String),
    Variable(String),
    String(String),
    Number(f64),
    Bool(bool),
    Null,
    Regex(Pattern),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub position: usize,
}

impl Token {
    /// The operator that it is; the empty text for all else.
    pub fn operator(&self) -> &'static str {
        match self.kind {
            Kind::Operator(operator) => operator,
            Kind::End => "(end)",
            _ => "",
        }
    }

    /// The token in a message: its text, and whether it is quoted there.
    pub fn shown(&self) -> (String, bool) {
        match &self.kind {
            Kind::Operator(text) => ((*text).to_owned(), true),
            Kind::Name(text) | Kind::Variable(text) | Kind::String(text) => (text.clone(), true),
            Kind::Number(value) => (number::text(*value), false),
            Kind::Bool(value) => (value.to_string(), false),
            Kind::Null => ("null".to_owned(), false),
            Kind::Regex(_) => ("{}".to_owned(), false),
            Kind::End => ("(end)".to_owned(), true),
        }
    }
}

const DOUBLE: [&str; 9] = ["..", ":=", "!=", ">=", "<=", "**", "~>", "?:", "??"];
const SINGLE: &str = ".[]{}(),@#;:?+-*/%|=<>^&!~";

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}')
}

pub struct Lexer {
    text: Vec<char>,
    /// Where the characters are that take two UTF-16 units.
    wide: Vec<usize>,
    at: usize,
    /// How many regular expressions there were.
    patterns: usize,
}

/// An expression may have so many regular expressions: each may take milliseconds to compile.
const PATTERNS: usize = 200;

impl Lexer {
    pub fn new(text: &str) -> Lexer {
        let wide = text.chars().enumerate().filter(|(_, c)| c.len_utf16() > 1);
        Lexer {
            text: text.chars().collect(),
            wide: wide.map(|(index, _)| index).collect(),
            at: 0,
            patterns: 0,
        }
    }

    /// The position of a character.
    fn place(&self, at: usize) -> usize {
        at + self.wide.partition_point(|index| *index < at)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn slice(&self, from: usize, to: usize) -> String {
        self.text[from..to].iter().collect()
    }

    /// The next token. After an operand (`infix`) a slash divides; elsewhere it opens a regular expression.
    pub fn next(&mut self, infix: bool) -> Result<Token> {
        self.skip()?;
        let kind = self.kind(infix)?;
        Ok(Token {
            kind,
            position: self.place(self.at),
        })
    }

    fn kind(&mut self, infix: bool) -> Result<Kind> {
        let Some(first) = self.peek(0) else {
            return Ok(Kind::End);
        };
        if first == '/' && !infix {
            self.at += 1;
            return self.regex().map(Kind::Regex);
        }
        for operator in DOUBLE {
            let mut chars = operator.chars();
            if chars.next() == Some(first) && chars.next() == self.peek(1) {
                self.at += 2;
                return Ok(Kind::Operator(operator));
            }
        }
        if let Some(index) = SINGLE.find(first) {
            self.at += 1;
            return Ok(Kind::Operator(&SINGLE[index..index + 1]));
        }
        match first {
            '"' | '\'' => self.string(first).map(Kind::String),
            '0'..='9' => self.number(),
            '`' => self.quoted().map(Kind::Name),
            _ => Ok(self.word()),
        }
    }

    /// Skips blanks and comments.
    fn skip(&mut self) -> Result<()> {
        loop {
            while self.peek(0).is_some_and(is_blank) {
                self.at += 1;
            }
            if self.peek(0) != Some('/') || self.peek(1) != Some('*') {
                return Ok(());
            }
            let start = self.at;
            self.at += 2;
            while !(self.peek(0) == Some('*') && self.peek(1) == Some('/')) {
                self.at += 1;
                if self.at >= self.text.len() {
                    return Err(fault("S0106").at(self.place(start)));
                }
            }
            self.at += 2;
        }
    }

    fn regex(&mut self) -> Result<Pattern> {
        self.patterns += 1;
        if self.patterns > PATTERNS {
            let reason = format!("there are more than {PATTERNS}");
            return Err(fault("S0303").at(self.place(self.at)).text(&reason));
        }
        let start = self.at;
        let mut depth = 0i32;
        while let Some(c) = self.peek(0) {
            if c == '/' && depth == 0 && self.backslashes().is_multiple_of(2) {
                let pattern = self.slice(start, self.at);
                if pattern.is_empty() {
                    return Err(fault("S0301").at(self.place(self.at)));
                }
                self.at += 1;
                let flags = self.at;
                while matches!(self.peek(0), Some('i' | 'm')) {
                    self.at += 1;
                }
                return Pattern::compile(&pattern, &self.slice(flags, self.at))
                    .map_err(|fault| fault.at(self.place(start)));
            }
            let escaped = self.text[self.at - 1] == '\\';
            match c {
                '(' | '[' | '{' if !escaped => depth += 1,
                ')' | ']' | '}' if !escaped => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        Err(fault("S0302").at(self.place(self.at)))
    }

    /// How many backslashes stand right before here.
    fn backslashes(&self) -> usize {
        self.text[..self.at]
            .iter()
            .rev()
            .take_while(|c| **c == '\\')
            .count()
    }

    fn string(&mut self, quote: char) -> Result<String> {
        self.at += 1;
        // UTF-16, because escapes may write a character in two halves.
        let mut units: Vec<u16> = Vec::new();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            if c == quote {
                return Ok(crate::text::from_units(&units));
            }
            if c == '\\' {
                units.push(self.escape()?);
            } else {
                units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
            }
        }
        Err(fault("S0101").at(self.place(self.at)))
    }

    fn escape(&mut self) -> Result<u16> {
        let position = self.at;
        let c = self.peek(0).unwrap_or_default();
        self.at += 1;
        Ok(match c {
            '"' | '\\' | '/' => c as u16,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => {
                let end = (self.at + 4).min(self.text.len());
                let hex = self.slice(self.at, end);
                let valid = !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
                if !valid {
                    return Err(fault("S0104").at(self.place(position)));
                }
                self.at = end;
                u16::from_str_radix(&hex, 16).expect("four hex digits fit")
            }
            _ => {
                let token = if c == '\0' { String::new() } else { c.to_string() };
                return Err(fault("S0103").at(self.place(position)).token(&token));
            }
        })
    }

    fn number(&mut self) -> Result<Kind> {
        let start = self.at;
        let digits = |lexer: &mut Lexer| {
            let from = lexer.at;
            while lexer.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                lexer.at += 1;
            }
            lexer.at > from
        };
        if self.peek(0) == Some('0') {
            self.at += 1;
        } else {
            digits(self);
        }
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            digits(self);
        }
        let before = self.at;
        if matches!(self.peek(0), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.peek(0), Some('+' | '-')) {
                self.at += 1;
            }
            if !digits(self) {
                self.at = before;
            }
        }
        let text = self.slice(start, self.at);
        let value: f64 = text.parse().expect("digits are a number");
        if !value.is_finite() {
            return Err(fault("S0102").at(self.place(start)).token(&text));
        }
        Ok(Kind::Number(value))
    }

    fn quoted(&mut self) -> Result<String> {
        self.at += 1;
        let start = self.at;
        match self.text[start..].iter().position(|c| *c == '`') {
            Some(length) => {
                self.at = start + length + 1;
                Ok(self.slice(start, start + length))
            }
            None => Err(fault("S0105").at(self.place(self.text.len()))),
        }
    }

    fn word(&mut self) -> Kind {
        let start = self.at;
        while self.peek(0).is_some_and(|c| !is_blank(c) && !SINGLE.contains(c)) {
            self.at += 1;
        }
        let word = self.slice(start, self.at);
        match word.as_str() {
            "and" => Kind::Operator("and"),
            "or" => Kind::Operator("or"),
            "in" => Kind::Operator("in"),
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" => Kind::Null,
            _ => match word.strip_prefix('$') {
                Some(name) => Kind::Variable(name.to_owned()),
                None => Kind::Name(word),
            },
        }
    }
}
