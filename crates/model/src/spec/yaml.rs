//! YAML as a tree that knows where each node stands.
//!
//! Bounded before anything is built: bytes, depth, nodes. Aliases are refused, so that no file is larger than it
//! looks; where they are wanted, as in buildspecs, what they stand for counts as if it were written out. What a plain scalar means (`0755`, `yes`, `3.10`) is not decided here: CodeDeploy, CodeBuild and we ourselves
//! read them differently.

mod alias;
mod blank;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use self::alias::{Anchors, depth, merge, weight};
use crate::Problem;

/// The largest file that is read.
pub const MAX_BYTES: usize = 1 << 20;
/// How deep sequences and mappings may nest.
pub const MAX_DEPTH: usize = 64;
/// How many scalars, sequences and mappings a file may have.
pub const MAX_NODES: usize = 100_000;

/// One value of a file, with the place of its first character; line and column count from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub line: u32,
    pub column: u32,
    /// An explicit tag, such as `!!str` or `!Ref`, as the file writes it.
    pub tag: Option<String>,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar {
        text: String,
        style: Style,
    },
    Sequence(Vec<Node>),
    /// In the order of the file; keys are scalars, and of equal keys only the last is kept.
    Mapping(Vec<(Node, Node)>),
}

/// How a scalar is written: only plain ones can be numbers, booleans or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Quoted,
    /// `|` and `>`
    Block,
}

/// The first document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `None` when there is nothing but blanks and comments.
    pub root: Option<Node>,
    /// Keys that stand more than once in one mapping: each later place. Whether that is an error is the reader's
    /// business: Ruby takes the last.
    pub duplicates: Vec<Node>,
    /// Where a second document starts, if one does. It is not read.
    pub second: Option<(u32, u32)>,
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A plain scalar that YAML reads as nothing.
    pub fn is_null(&self) -> bool {
        self.plain()
            .is_some_and(|text| matches!(text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar that is not quoted: one that may be something else than text.
    pub fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar {
                text,
                style: Style::Plain,
            } if self.tag.is_none() => Some(text),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|(name, _)| name.text() == Some(key))
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// What it is, for people: `a list`, `a mapping`, `text`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => match self.plain() {
                Some("true" | "false") => "true or false",
                Some(text) if text.parse::<f64>().is_ok() => "a number",
                _ => "text",
            },
        }
    }
}

/// Bytes as text: UTF-8, with or without a byte order mark.
pub fn decode<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Problem> {
    if bytes.len() > MAX_BYTES {
        return Err(too_large(file, bytes.len()));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
            let byte = bytes[error.valid_up_to()];
            Err(Problem::error(
                file,
                cut(line),
                cut(column),
                format!("the file is not UTF-8: byte 0x{byte:02x}"),
            )
            .help("save it as UTF-8"))
        }
    }
}

/// Reads the first document of `text`. One problem at most: after it, nothing in the file can be trusted.
pub fn parse(file: &str, text: &str) -> Result<Document, Problem> {
    read(file, text, None)
}

/// The same of a file that may have aliases (`*name`) and merge keys (`<<`).
pub fn parse_with_aliases(file: &str, text: &str) -> Result<Document, Problem> {
    read(file, text, Some(Anchors::default()))
}

fn read(file: &str, text: &str, anchors: Option<Anchors>) -> Result<Document, Problem> {
    if text.len() > MAX_BYTES {
        return Err(too_large(file, text.len()));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(((line, column), c)) = blank::unprintable(text) {
        let what = format!(
            "the file has the character U+{:04X}, which YAML does not allow",
            u32::from(c)
        );
        return Err(Problem::error(file, cut(line), cut(column), what)
            .help("take it out; in double quotes it can be written as an escape"));
    }
    let mut builder = Builder::new(file, anchors);
    let mut parser = Parser::new_from_str(text);
    let (mut scalars, mut end) = (Vec::new(), None);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(file, text, &error))?;
        if let Event::Scalar(value, style, ..) = &event {
            scalars.extend(blank::Place::of(&span, value, *style));
        }
        if builder.take(event, span)? {
            end = Some(span.start);
            break;
        }
    }
    match blank::tab(text, &scalars, end) {
        None => Ok(builder.document),
        Some(((line, column), what)) => {
            Err(Problem::error(file, cut(line), cut(column), what).help("replace the tab by spaces"))
        }
    }
}

fn too_large(file: &str, bytes: usize) -> Problem {
    Problem::error(
        file,
        0,
        0,
        format!("the file is too large: {bytes} bytes, and {MAX_BYTES} at most are read"),
    )
}

fn too_deep() -> String {
    format!("the file nests deeper than {MAX_DEPTH} levels")
}

/// Columns and lines of a file of at most [`MAX_BYTES`] always fit.
fn cut(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn place(span: &Span) -> (u32, u32) {
    (cut(span.start.line()), cut(span.start.col() + 1))
}

/// The scanner's words, and in front of them the usual cause where the line shows it.
fn syntax(file: &str, text: &str, error: &ScanError) -> Problem {
    // What is missing at the end is missing on the last line, not on one after it.
    let lines = text.lines().count().max(1);
    let (line, column) = match (error.marker().line(), error.marker().col()) {
        (line, _) if line > lines => (lines, text.lines().last().unwrap_or_default().chars().count()),
        place => place,
    };
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indent = &source[..source.len() - source.trim_start().len()];
    let problem = |message: String| Problem::error(file, cut(line), cut(column + 1), message);
    if indent.contains('\t') {
        let tab = indent.find('\t').unwrap_or_default();
        return Problem::error(
            file,
            cut(line),
            cut(tab + 1),
            "a tab stands in the indentation: YAML is indented with spaces",
        )
        .help("replace the tab by spaces");
    }
    let words = error.info();
    if words.contains("recursion limit") {
        return problem(too_deep());
    }
    let problem = problem(format!("not YAML: {words}"));
    match words {
        _ if words.contains("mapping values are not allowed") || words.contains("simple key") => {
            problem.help("check the indentation, and quote text that holds `: `")
        }
        _ if words.contains("reserved") || source.trim_start().starts_with(['@', '`', '%']) => {
            problem.help("quote the text")
        }
        _ => problem,
    }
}

enum Open {
    Sequence {
        /// The number of its anchor; 0 is none.
        anchor: usize,
        node: Node,
        items: Vec<Node>,
    },
    Mapping {
        anchor: usize,
        node: Node,
        entries: Vec<(Node, Node)>,
        /// Where each key stands in `entries`, so that a file of many keys stays linear.
        index: std::collections::HashMap<String, usize>,
        key: Option<Node>,
    },
}

struct Builder<'f> {
    file: &'f str,
    open: Vec<Open>,
    nodes: usize,
    documents: usize,
    document: Document,
    /// `None`: aliases are refused.
    anchors: Option<Anchors>,
}

impl<'f> Builder<'f> {
    fn new(file: &'f str, anchors: Option<Anchors>) -> Self {
        Self {
            anchors,
            file,
            open: Vec::new(),
            nodes: 0,
            documents: 0,
            document: Document {
                root: None,
                duplicates: Vec::new(),
                second: None,
            },
        }
    }

    /// Takes one event; true when no more are wanted.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<bool, Problem> {
        let at = place(&span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.document.second = Some(at);
                    return Ok(true);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                let text = text.into_owned();
                let node = self.node(at, tag.map(|tag| tag.to_string()), Value::Scalar { text, style })?;
                self.remember(anchor, &node)?;
                self.close(node)?;
            }
            Event::SequenceStart(anchor, tag) => {
                let node = self.node(at, tag.map(|tag| tag.to_string()), Value::Sequence(Vec::new()))?;
                self.deepen(Open::Sequence {
                    anchor,
                    node,
                    items: Vec::new(),
                })?;
            }
            Event::MappingStart(anchor, tag) => {
                let node = self.node(at, tag.map(|tag| tag.to_string()), Value::Mapping(Vec::new()))?;
                self.deepen(Open::Mapping {
                    anchor,
                    node,
                    entries: Vec::new(),
                    index: std::collections::HashMap::new(),
                    key: None,
                })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) if self.anchors.is_some() => {
                let node = self.alias(at, anchor)?;
                self.close(node)?;
            }
            Event::Alias(_) => {
                return Err(self
                    .problem(at, "an alias (`*name`) is not allowed")
                    .help("write the value out where it is used"));
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(false)
    }

    fn problem(&self, (line, column): (u32, u32), message: impl Into<String>) -> Problem {
        Problem::error(self.file, line, column, message)
    }

    /// What an alias stands for, as if it were written out here.
    fn alias(&mut self, at: (u32, u32), anchor: usize) -> Result<Node, Problem> {
        let found = self
            .anchors
            .as_ref()
            .and_then(|anchors| anchors.nodes.get(&anchor));
        let Some(found) = found else {
            return Err(self.problem(at, "the alias stands for what it is in itself"));
        };
        if self.open.len() + depth(found) > MAX_DEPTH {
            return Err(self.problem(at, too_deep()));
        }
        let (node, (nodes, bytes)) = (found.clone(), weight(found));
        self.pay(at, nodes, bytes)?;
        Ok(node)
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Problem> {
        if anchor == 0 || self.anchors.is_none() {
            return Ok(());
        }
        let (nodes, bytes) = weight(node);
        self.pay((node.line, node.column), nodes, bytes)?;
        if let Some(anchors) = &mut self.anchors {
            anchors.nodes.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Copies count as if they stood in the file.
    fn pay(&mut self, at: (u32, u32), nodes: usize, bytes: usize) -> Result<(), Problem> {
        self.nodes += nodes;
        let total = self.anchors.as_mut().map_or(0, |anchors| {
            anchors.bytes += bytes;
            anchors.bytes
        });
        if self.nodes > MAX_NODES || total > MAX_BYTES {
            return Err(self.problem(at, "the file is too large with its aliases written out"));
        }
        Ok(())
    }

    fn node(&mut self, at: (u32, u32), tag: Option<String>, value: Value) -> Result<Node, Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.problem(at, format!("the file holds more than {MAX_NODES} values")));
        }
        let (line, column) = at;
        Ok(Node {
            line,
            column,
            tag,
            value,
        })
    }

    fn deepen(&mut self, open: Open) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            let (Open::Sequence { node, .. } | Open::Mapping { node, .. }) = &open;
            let at = (node.line, node.column);
            return Err(self.problem(at, too_deep()));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let (anchor, node) = match self.open.pop() {
            Some(Open::Sequence {
                anchor,
                mut node,
                items,
            }) => {
                node.value = Value::Sequence(items);
                (anchor, node)
            }
            Some(Open::Mapping {
                anchor,
                mut node,
                entries,
                ..
            }) => {
                let entries = if self.anchors.is_some() {
                    merge(entries)
                } else {
                    entries
                };
                node.value = Value::Mapping(entries);
                (anchor, node)
            }
            None => return Ok(()),
        };
        self.remember(anchor, &node)?;
        self.close(node)
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) -> Result<(), Problem> {
        let Some(open) = self.open.last_mut() else {
            let empty = node.is_null() && node.plain() == Some("");
            self.document.root = (!empty).then_some(node);
            return Ok(());
        };
        match open {
            Open::Sequence { items, .. } => items.push(node),
            Open::Mapping { key: key @ None, .. } => {
                if node.text().is_none() {
                    let at = (node.line, node.column);
                    return Err(self.problem(at, "a key must be text, not a list or a mapping"));
                }
                *key = Some(node);
            }
            Open::Mapping {
                entries, index, key, ..
            } => {
                let key = key
                    .take()
                    .expect("the arm before has taken the case without a key");
                let name = key.text().unwrap_or_default().to_owned();
                match index.get(&name) {
                    Some(&at) => {
                        self.document.duplicates.push(key);
                        entries[at].1 = node;
                    }
                    None => {
                        index.insert(name, entries.len());
                        entries.push((key, node));
                    }
                }
            }
        }
        Ok(())
    }
}
