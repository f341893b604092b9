//! Characters and tabs that libyaml refuses and our scanner takes: CodeDeploy's agent and many tools read with libyaml, and a
//! file that is right here must be right there.
//!
//! libyaml skips a tab in block context only where no key may begin: not at the start of a line, nor after `-` and `?`; and
//! it counts no tab as indentation. The walk is over what stands between the scalars that our scanner has found.

use saphyr_parser::{Marker, ScalarStyle, Span};

/// Line and column, from 1.
type At = (usize, usize);

/// Where a scalar stands, in characters.
pub(super) struct Place {
    start: usize,
    end: usize,
    is_plain: bool,
}

impl Place {
    /// `None`: nothing is written there, or a block scalar, which the walk reads itself.
    pub fn of(span: &Span, value: &str, style: ScalarStyle) -> Option<Self> {
        let is_plain = match style {
            ScalarStyle::Plain if value.is_empty() => return None,
            ScalarStyle::Literal | ScalarStyle::Folded => return None,
            style => style == ScalarStyle::Plain,
        };
        Some(Self {
            start: span.start.index(),
            end: span.end.index(),
            is_plain,
        })
    }
}

/// The first character that no YAML file may have.
pub(super) fn unprintable(text: &str) -> Option<(At, char)> {
    let may = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
    let at = text.find(|c| !may(c))?;
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[start..].chars().count() + 1;
    Some(((line, column), text[at..].chars().next()?))
}

/// The first tab that stands where none may, before `end`, and what is wrong with it. `scalars` are in the order of the text.
pub(super) fn tab(text: &str, scalars: &[Place], end: Option<Marker>) -> Option<(At, &'static str)> {
    if !text.contains('\t') {
        return None;
    }
    let mut chars: Vec<char> = text.chars().collect();
    chars.truncate(end.map_or(usize::MAX, |end| end.index()));
    let mut walk = Walk::new(&chars);
    let refused = walk.all(scalars).err()?;
    let before = &chars[refused - walk.column()..refused];
    let what = match before.iter().all(|c| *c == ' ') {
        true => "a tab stands in the indentation: YAML is indented with spaces",
        false => "a tab stands after `-` or `?`: YAML takes a space there",
    };
    Some(((walk.line, walk.column() + 1), what))
}

/// libyaml's scanner, as far as it matters to tabs.
struct Walk<'t> {
    chars: &'t [char],
    at: usize,
    line: usize,
    /// Where the line starts.
    start: usize,
    /// How many flow collections are open.
    flow: usize,
    /// A key may begin here.
    may_begin: bool,
    /// Where what may be a key began: line and column.
    key: Option<(usize, usize)>,
    /// Columns of the open block collections.
    indents: Vec<usize>,
}

impl<'t> Walk<'t> {
    fn new(chars: &'t [char]) -> Self {
        Self {
            chars,
            at: 0,
            line: 1,
            start: 0,
            flow: 0,
            may_begin: true,
            key: None,
            indents: Vec::new(),
        }
    }

    /// Walks to the end, or to a tab that libyaml refuses: where it is.
    fn all(&mut self, scalars: &[Place]) -> Result<(), usize> {
        for scalar in scalars {
            self.between(scalar.start)?;
            if self.at > scalar.start {
                continue;
            }
            // Where it has an anchor or a tag, the place begins with that.
            while matches!(self.peek(), Some('&' | '!')) {
                self.token('&')?;
                self.blanks()?;
            }
            self.begin();
            self.save();
            match scalar.is_plain {
                true => self.plain(scalar.end)?,
                false => self.skip(scalar.end),
            }
        }
        self.between(self.chars.len())
    }

    fn column(&self) -> usize {
        self.at - self.start
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Whether a blank, a line's end or the text's comes after so many characters.
    fn ends(&self, after: usize) -> bool {
        let next = self.chars.get(self.at + after);
        next.is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | '\r'))
    }

    fn step(&mut self) {
        let is_end = match self.peek() {
            Some('\r') => self.chars.get(self.at + 1) != Some(&'\n'),
            next => next == Some('\n'),
        };
        self.at += 1;
        if is_end {
            (self.line, self.start) = (self.line + 1, self.at);
        }
    }

    fn skip(&mut self, to: usize) {
        while self.at < to {
            self.step();
        }
        self.may_begin = false;
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| !matches!(c, '\n' | '\r')) {
            self.at += 1;
        }
    }

    /// What begins here ends the block collections that are indented deeper.
    fn begin(&mut self) {
        let column = self.column();
        if self.flow == 0 {
            self.indents.retain(|indent| *indent <= column);
        }
    }

    /// What begins here may be a key.
    fn save(&mut self) {
        if self.flow == 0 && self.may_begin {
            self.key = Some((self.line, self.column()));
        }
    }

    /// A block collection is indented so far.
    fn roll(&mut self, column: usize) {
        if self.flow == 0 && self.indents.last().is_none_or(|last| *last < column) {
            self.indents.push(column);
        }
    }

    /// What stands deeper than this is inside the innermost block collection.
    fn inside(&self) -> usize {
        self.indents.last().map_or(0, |last| last + 1)
    }

    fn between(&mut self, to: usize) -> Result<(), usize> {
        self.blanks()?;
        while self.at < to {
            self.token(self.chars[self.at])?;
            self.blanks()?;
        }
        Ok(())
    }

    /// Blanks, line ends and comments.
    fn blanks(&mut self) -> Result<(), usize> {
        while let Some(c) = self.peek() {
            match c {
                '\t' if self.flow == 0 && self.may_begin => return Err(self.at),
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' => {
                    self.step();
                    self.may_begin |= self.flow == 0;
                }
                '#' => self.skip_line(),
                _ => break,
            }
        }
        Ok(())
    }

    /// One that is no scalar, or a block scalar.
    fn token(&mut self, c: char) -> Result<(), usize> {
        let (column, is_block) = (self.column(), self.flow == 0);
        self.begin();
        let is_mark = |mark: char| self.chars[self.at..].starts_with(&[mark; 3]) && self.ends(3);
        if column == 0 && (c == '%' || is_mark('-') || is_mark('.')) {
            self.indents.clear();
            match c {
                '%' => self.skip_line(),
                _ => self.at += 3,
            }
            self.may_begin = false;
            return Ok(());
        }
        match c {
            '|' | '>' if is_block => return self.block(),
            '&' | '*' | '!' => {
                self.save();
                self.word();
                return Ok(());
            }
            '[' | '{' => {
                self.save();
                self.flow += 1;
                self.may_begin = true;
            }
            ']' | '}' => {
                self.flow = self.flow.saturating_sub(1);
                self.may_begin = false;
            }
            '-' | '?' => {
                self.roll(column);
                if is_block {
                    self.key = None;
                }
                self.may_begin = is_block;
            }
            ':' if is_block => {
                let key = self.key.take().filter(|(line, _)| *line == self.line);
                self.roll(key.map_or(column, |(_, column)| column));
                self.may_begin = key.is_none();
            }
            _ => {}
        }
        self.at += 1;
        Ok(())
    }

    /// An anchor, an alias or a tag.
    fn word(&mut self) {
        let ends = |c| self.flow > 0 && matches!(c, ',' | '[' | ']' | '{' | '}');
        let length = self.chars[self.at..]
            .iter()
            .position(|c| matches!(c, ' ' | '\t' | '\n' | '\r') || ends(*c));
        self.at = length.map_or(self.chars.len(), |length| self.at + length);
        self.may_begin = false;
    }

    /// A plain scalar and the blanks and empty lines after it, which libyaml reads with it.
    fn plain(&mut self, end: usize) -> Result<(), usize> {
        let inside = self.inside();
        let mut is_indentation = false;
        self.may_begin = false;
        while let Some(c) = self.peek() {
            match c {
                '\n' | '\r' => is_indentation = true,
                '\t' if is_indentation && self.column() < inside => return Err(self.at),
                ' ' | '\t' => {}
                _ if self.at >= end => break,
                _ => is_indentation = false,
            }
            self.step();
        }
        self.may_begin |= is_indentation;
        Ok(())
    }

    /// A block scalar from its indicator on.
    fn block(&mut self) -> Result<(), usize> {
        let header = self.at;
        self.skip_line();
        let head = self.chars[header..self.at].iter().take(3);
        let told = head.filter_map(|c| c.to_digit(10)).next();
        let told = told.and_then(|digit| usize::try_from(digit).ok());
        let mut indent = told.map(|told| self.indents.last().map_or(told, |last| last + told));
        self.step();
        let deepest = self.indentation(indent)?;
        let indent = *indent.get_or_insert(deepest.max(self.inside()).max(1));
        while self.column() == indent && self.peek().is_some() {
            self.skip_line();
            self.step();
            self.indentation(Some(indent))?;
        }
        self.may_begin = true;
        Ok(())
    }

    /// Spaces before a line of a block scalar, and empty lines before it. Gives the largest column that there was; where the
    /// scalar's own is not known yet, all spaces count.
    fn indentation(&mut self, indent: Option<usize>) -> Result<usize, usize> {
        let mut deepest = 0;
        loop {
            let more = indent.is_none_or(|indent| self.column() < indent);
            match self.peek() {
                Some(' ') if more => self.at += 1,
                Some('\t') if more => return Err(self.at),
                Some('\n' | '\r') => self.step(),
                _ => return Ok(deepest),
            }
            deepest = deepest.max(self.column());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::yaml::parse_with_aliases;

    /// Texts with what PyYAML 6.0.3 with libyaml says of them: whether it takes them.
    #[test]
    fn tabs_are_taken_where_libyaml_takes_them() {
        for (text, taken) in [
            ("-\ta\n", false),
            ("- \ta\n", false),
            ("a:\n  -\techo a\n", false),
            ("a:\n  - \techo a\n", false),
            ("a: \tb\n", true),
            ("a: b\t\n", true),
            ("a: b\t# c\n", true),
            ("a: b\n\t\nc: d\n", false),
            ("a: b\n \t\nc: d\n", true),
            ("a: b # c\n\t\nd: e\n", false),
            ("a:\n\t\n  b: c\n", false),
            ("a:\n  b: c\n\t\n", false),
            ("a:\n\tb: c\n", false),
            ("a:\n \tb: c\n", false),
            ("\ta: b\n", false),
            ("a: 'b'\n\t\nc: d\n", false),
            ("a: 'b'\t\nc: d\n", true),
            ("a: \"b\tc\"\n", true),
            ("a: [b,\tc]\t\n", true),
            ("a: [\n  b,\n  \tc\n  ]\n", true),
            ("a: {b: \tc}\n", true),
            ("a: |\n  b\n  \tc\n", true),
            ("a: |\n\tb\n", false),
            ("a: |\n  b\n\t\n  c\n", false),
            ("a: |\n  b\n  \t\n  c\n", true),
            ("a: |\n  \tb\n", false),
            ("a: |2\n  \tb\n", true),
            ("a: |\t# b\n  c\n", true),
            ("a: b\n  \tc\n", true),
            ("a: b\n\tc\n", false),
            ("a:\n  b: c\n \t\n", false),
            ("a: # b\tc\n  d\n", true),
            ("# a\tb\nc: d\n", true),
            ("\t# a\nb: c\n", false),
            ("a:\n\t# b\n  c: d\n", false),
            ("a: &b\tc\n", true),
            ("a: !!str\tb\n", true),
            ("- &a\tb\n- *a\t\n", true),
            ("---\ta\n", true),
            ("a:\n  - b\t\n  - c\n", true),
            ("a:\n- b\n\t\n- c\n", false),
            ("?\ta\n: b\n", false),
            ("? a\n:\tb\n", false),
            ("a\t: b\n", true),
            ("-\ta: b\n", false),
            ("- -\ta\n", false),
            ("a: b\n\t", false),
            ("a: &b\n  \t\nc: d\n", false),
            ("!!str \n\t\n", false),
            ("a: !!str\n  \tb\n", false),
            ("a: b\n\n\t\n", false),
        ] {
            let said = parse_with_aliases("b.yml", text).err();
            assert_eq!(said.is_none(), taken, "{text:?}: {said:?}");
        }
    }

    #[test]
    fn a_tab_is_told_by_its_place() {
        for (text, told) in [
            (
                "a:\n\t\nb: c\n",
                "b.yml:2:1: a tab stands in the indentation: YAML is indented with spaces (replace the tab by spaces)",
            ),
            (
                "ä:\r\n  -\tb\r\n",
                "b.yml:2:4: a tab stands after `-` or `?`: YAML takes a space there (replace the tab by spaces)",
            ),
        ] {
            let said = parse_with_aliases("b.yml", text).unwrap_err();
            assert_eq!(said.to_string(), told);
        }
        // Of a second document nothing is read.
        let document = parse_with_aliases("b.yml", "a: b\n---\n-\tc\n").unwrap();
        assert!(document.second.is_some());
    }

    #[test]
    fn characters_that_no_file_may_have_are_refused_wherever_they_stand() {
        for (c, taken) in [
            ('\0', false),
            ('\u{1}', false),
            ('\u{8}', false),
            ('\t', true),
            ('\u{b}', false),
            ('\u{c}', false),
            ('\u{1b}', false),
            ('\u{1f}', false),
            ('~', true),
            ('\u{7f}', false),
            ('\u{80}', false),
            ('\u{85}', true),
            ('\u{9f}', false),
            ('\u{a0}', true),
            ('\u{d7ff}', true),
            ('\u{e000}', true),
            ('\u{fffd}', true),
            ('\u{fffe}', false),
            ('\u{ffff}', false),
            ('\u{1f600}', true),
            ('\u{10ffff}', true),
        ] {
            for text in [
                format!("a: \"b{c}c\"\n"),
                format!("a: b # {c}c\n"),
                format!("a: |\n  b{c}c\n"),
            ] {
                let said = parse_with_aliases("b.yml", &text).err();
                assert_eq!(said.is_none(), taken, "{text:?}: {said:?}");
            }
        }
        let said = parse_with_aliases("b.yml", "a: b\nä: \u{1b}[0m\n").unwrap_err();
        assert_eq!(
            said.to_string(),
            "b.yml:2:4: the file has the character U+001B, which YAML does not allow (take it out; in double quotes it can be written as an escape)"
        );
    }
}
