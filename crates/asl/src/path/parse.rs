//! Text to path. The grammar is bounded: at most [`STEPS`] steps, filters nested at most [`NESTED`] deep.

use super::filter::{Comparison, Filter, Operand, WORDS};
use super::function::Function;
use super::{Hop, Path, Root};
use jsonata::json;
use serde_json::Value;

const STEPS: usize = 64;
const NESTED: usize = 16;

type Parsed<T> = Result<T, String>;

pub fn whole(text: &str) -> Parsed<Path> {
    let (path, rest) = prefix(text)?;
    if rest.is_empty() {
        Ok(path)
    } else {
        Err(format!("unexpected '{}'", start(rest)))
    }
}

pub fn prefix(text: &str) -> Parsed<(Path, &str)> {
    let mut reader = Reader {
        text,
        at: 0,
        nested: 0,
        function: None,
    };
    let path = reader.path()?;
    Ok((path, &text[reader.at..]))
}

fn start(text: &str) -> String {
    text.chars().take(10).collect()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    nested: usize,
    /// The function at the end of the path being read.
    function: Option<Function>,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) {
            return Ok(());
        }
        let found = start(self.rest());
        Err(if found.is_empty() {
            format!("'{token}' is missing at the end")
        } else {
            format!("expected '{token}' before '{found}'")
        })
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|next| next == ' ') {
            self.at += 1;
        }
    }

    fn take(&mut self, keep: impl Fn(char) -> bool) -> &str {
        let rest = &self.text[self.at..];
        let end = rest.find(|next| !keep(next)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn path(&mut self) -> Parsed<Path> {
        let from = self.at;
        self.expect("$")?;
        let root = if self.eat("$") {
            Root::Context
        } else if self
            .peek()
            .is_some_and(|next| next.is_alphabetic() || next == '_')
        {
            Root::Variable(self.take(|next| next.is_alphanumeric() || next == '_').to_owned())
        } else {
            Root::Data
        };
        let steps = self.steps()?;
        Ok(Path {
            root,
            steps,
            function: self.function.take(),
            text: self.text[from..self.at].to_owned(),
        })
    }

    fn steps(&mut self) -> Parsed<Vec<Hop>> {
        let mut steps = Vec::new();
        loop {
            if self.function.is_some() {
                return Ok(steps);
            }
            if self.eat("..") {
                steps.push(Hop::Descend);
                if self.peek() == Some('[') {
                    continue;
                }
                steps.extend(self.name()?);
            } else if self.eat(".") {
                steps.extend(self.name()?);
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(steps);
            }
            if steps.len() > STEPS {
                return Err(format!("a path has at most {STEPS} steps"));
            }
        }
    }

    /// What follows a dot; a function is kept, and ends the path.
    fn name(&mut self) -> Parsed<Option<Hop>> {
        if self.eat("*") {
            return Ok(Some(Hop::Wildcard));
        }
        let name = self
            .take(|next| !next.is_whitespace() && !".[](),'\"*?@:=<>!&|".contains(next))
            .to_owned();
        if name.is_empty() {
            return Err("a name is missing after '.'".into());
        }
        if self.eat("(") {
            let function =
                Function::named(&name).ok_or_else(|| format!("there is no path function '{name}()'"))?;
            self.function = Some(function);
            self.blanks();
            self.expect(")")?;
            return Ok(None);
        }
        Ok(Some(Hop::Key(name)))
    }

    /// What stands between brackets; the opening one is read.
    fn bracket(&mut self) -> Parsed<Hop> {
        self.blanks();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Hop::Wildcard
            }
            Some('\'' | '"') => self.keys()?,
            Some('?') => {
                self.at += 1;
                self.expect("(")?;
                let filter = self.any()?;
                self.expect(")")?;
                Hop::Filter(Box::new(filter))
            }
            _ => self.indices()?,
        };
        self.blanks();
        self.expect("]")?;
        Ok(step)
    }

    fn keys(&mut self) -> Parsed<Hop> {
        let mut keys = vec![self.string()?];
        loop {
            self.blanks();
            if !self.eat(",") {
                break;
            }
            self.blanks();
            keys.push(self.string()?);
        }
        Ok(if keys.len() == 1 {
            Hop::Key(keys.remove(0))
        } else {
            Hop::Keys(keys)
        })
    }

    fn indices(&mut self) -> Parsed<Hop> {
        let first = self.number()?;
        self.blanks();
        if self.eat(":") {
            let to = self.number()?;
            let by = if self.eat(":") {
                self.number()?.unwrap_or(1)
            } else {
                1
            };
            if by < 1 {
                return Err("the step of a slice must be 1 or more".into());
            }
            return Ok(Hop::Slice { from: first, to, by });
        }
        let mut indices = vec![first.ok_or("an index, a name, '*' or '?(' is missing after '['")?];
        while self.eat(",") {
            self.blanks();
            indices.push(self.number()?.ok_or("a number is missing after ','")?);
            self.blanks();
        }
        Ok(if indices.len() == 1 {
            Hop::Index(indices[0])
        } else {
            Hop::Indices(indices)
        })
    }

    fn number(&mut self) -> Parsed<Option<i64>> {
        self.blanks();
        let text = self.take(|next| next == '-' || next.is_ascii_digit());
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| format!("'{text}' is not an index"))
    }

    fn string(&mut self) -> Parsed<String> {
        let quote = self
            .peek()
            .filter(|next| matches!(next, '\'' | '"'))
            .ok_or("a quoted name is missing")?;
        self.at += 1;
        let mut text = String::new();
        let mut escaped = false;
        for (at, next) in self.rest().char_indices() {
            match next {
                _ if escaped => {
                    text.push(next);
                    escaped = false;
                }
                '\\' => escaped = true,
                _ if next == quote => {
                    self.at += at + 1;
                    return Ok(text);
                }
                _ => text.push(next),
            }
        }
        Err("a quoted name has no end".into())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nested == NESTED {
            return Err(format!("a filter is nested more than {NESTED} deep"));
        }
        self.nested += 1;
        let result = read(self);
        self.nested -= 1;
        result
    }

    fn any(&mut self) -> Parsed<Filter> {
        self.deeper(|reader| {
            let mut filters = vec![reader.all()?];
            while reader.eat("||") {
                filters.push(reader.all()?);
            }
            Ok(if filters.len() == 1 {
                filters.remove(0)
            } else {
                Filter::Any(filters)
            })
        })
    }

    fn all(&mut self) -> Parsed<Filter> {
        let mut filters = vec![self.term()?];
        while self.eat("&&") {
            filters.push(self.term()?);
        }
        Ok(if filters.len() == 1 {
            filters.remove(0)
        } else {
            Filter::All(filters)
        })
    }

    fn term(&mut self) -> Parsed<Filter> {
        self.blanks();
        let filter = if self.eat("!") {
            Filter::Not(Box::new(self.deeper(Self::term)?))
        } else if self.eat("(") {
            let filter = self.any()?;
            self.expect(")")?;
            filter
        } else {
            self.comparison()?
        };
        self.blanks();
        Ok(filter)
    }

    fn comparison(&mut self) -> Parsed<Filter> {
        let left = self.operand()?;
        self.blanks();
        let symbol = self.take(|next| "=<>!~".contains(next)).to_owned();
        let word = if symbol.is_empty() { self.word() } else { None };
        let comparison = match (symbol.as_str(), word) {
            (_, Some(word)) => {
                self.take(char::is_alphabetic);
                word
            }
            ("", None) => {
                return match left {
                    Operand::Node(steps) => Ok(Filter::Exists(steps)),
                    Operand::Root(_) | Operand::Literal(_) => {
                        Err("a comparison is missing in the filter".into())
                    }
                };
            }
            ("==", _) => Comparison::Equal,
            ("!=", _) => Comparison::Unequal,
            ("<", _) => Comparison::Less,
            ("<=", _) => Comparison::LessOrEqual,
            (">", _) => Comparison::Greater,
            (">=", _) => Comparison::GreaterOrEqual,
            (other, _) => return Err(format!("the filter operator '{other}' is not available yet")),
        };
        self.blanks();
        let right = self.operand()?;
        Ok(Filter::Compare {
            left,
            comparison,
            right,
        })
    }

    /// The comparison that the next word is.
    fn word(&self) -> Option<Comparison> {
        let rest = self.rest();
        let end = rest
            .find(|next: char| !next.is_alphabetic())
            .unwrap_or(rest.len());
        let known = |(name, _): &&(&str, Comparison)| rest[..end].eq_ignore_ascii_case(name);
        WORDS.iter().find(known).map(|(_, word)| *word)
    }

    /// `['a', 1]`; the opening bracket is next.
    fn list(&mut self) -> Parsed<Operand> {
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        while !self.eat("]") {
            match self.deeper(Self::operand)? {
                Operand::Literal(item) => items.push(item),
                _ => return Err("a list in a filter holds values only".into()),
            }
            self.blanks();
            if !self.eat(",") && self.peek() != Some(']') {
                return Err("a ',' or ']' is missing in a list".into());
            }
            self.blanks();
        }
        Ok(Operand::Literal(Value::Array(items)))
    }

    fn operand(&mut self) -> Parsed<Operand> {
        match self.peek() {
            Some('@') => {
                self.at += 1;
                Ok(Operand::Node(self.deeper(Self::relative)?))
            }
            Some('$') => Ok(Operand::Root(self.deeper(|reader| {
                reader.at += 1;
                reader.relative()
            })?)),
            Some('\'' | '"') => Ok(Operand::Literal(self.string()?.into())),
            Some('[') => self.list(),
            _ => {
                let word = self.take(|next| next.is_ascii_alphanumeric() || "+-.".contains(next));
                let value = json::read(word).map_err(|_| format!("'{word}' is not a value"))?;
                Ok(Operand::Literal(value))
            }
        }
    }

    fn relative(&mut self) -> Parsed<Path> {
        let steps = self.steps()?;
        Ok(Path {
            root: Root::Data,
            steps,
            function: self.function.take(),
            text: String::new(),
        })
    }
}
