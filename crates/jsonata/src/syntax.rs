//! Tokens to a raw tree, by operator precedence (Pratt). What the operators of paths mean together is found out
//! afterwards, in [`crate::resolve`].

use crate::{
    error::{Fault, Result, fault},
    pattern::Pattern,
    signature::Signature,
    token::{Kind, Lexer, Token},
};

pub struct Raw {
    pub kind: Form,
    pub position: usize,
    /// `[]` was written behind it.
    pub keep_array: bool,
    depth: usize,
}

pub type Pair = (Raw, Raw);

pub struct Term {
    pub descending: bool,
    pub expression: Raw,
}

pub enum Form {
    Name(String),
    Variable(String),
    String(String),
    Number(f64),
    Bool(bool),
    Null,
    Regex(Pattern),
    Wildcard,
    Descendant,
    Parent,
    /// A `?` in the place of an argument.
    Placeholder,
    End,
    Binary(&'static str, Box<Raw>, Box<Raw>),
    Filter(Box<Raw>, Box<Raw>),
    Order(Box<Raw>, Vec<Term>),
    Group(Box<Raw>, Vec<Pair>),
    Bind(String, Box<Raw>),
    Focus(Box<Raw>, String),
    Index(Box<Raw>, String),
    Negate(Box<Raw>),
    Array(Vec<Raw>),
    Object(Vec<Pair>),
    Function(Box<Raw>, Vec<Raw>),
    Partial(Box<Raw>, Vec<Raw>),
    Lambda(Vec<String>, Option<Signature>, Box<Raw>),
    Block(Vec<Raw>),
    Condition(Box<Raw>, Box<Raw>, Option<Box<Raw>>),
    /// `a ?: b` and `a ?? b`.
    Default(Box<Raw>, Box<Raw>),
    Coalesce(Box<Raw>, Box<Raw>),
    Transform(Box<Raw>, Box<Raw>, Option<Box<Raw>>),
}

/// An expression may be nested so deep: those who walk the tree recurse.
pub const NESTING: usize = 1_000;

pub fn parse(text: &str) -> Result<Raw> {
    let mut lexer = Lexer::new(text);
    let token = lexer.next(false)?;
    let mut parser = Parser {
        lexer,
        token,
        depth: 0,
    };
    let tree = parser.expression(0)?;
    if parser.token.kind != Kind::End {
        return Err(about(fault("S0201"), &parser.token));
    }
    Ok(tree)
}

fn about(fault: Box<Fault>, token: &Token) -> Box<Fault> {
    let fault = fault.at(token.position);
    match token.shown() {
        (text, true) => fault.token(&text),
        (text, false) => fault.literal(text),
    }
}

/// How tightly an operator holds what is left of it.
fn power(operator: &str) -> u32 {
    match operator {
        "[" | "(" | "@" | "#" => 80,
        "." => 75,
        "{" => 70,
        "*" | "/" | "%" => 60,
        "+" | "-" | "&" => 50,
        "=" | "<" | ">" | "!=" | "<=" | ">=" | "^" | "~>" | "?:" | "??" | "in" => 40,
        "and" => 30,
        "or" => 25,
        "?" => 20,
        ":=" => 10,
        _ => 0,
    }
}

struct Parser {
    lexer: Lexer,
    token: Token,
    depth: usize,
}

impl Parser {
    fn expression(&mut self, power_right: u32) -> Result<Raw> {
        self.depth += 1;
        if self.depth > NESTING {
            return Err(too_deep(self.token.position));
        }
        let result = stacker::maybe_grow(64 << 10, 1 << 20, || {
            let token = self.advance(true)?;
            let mut left = self.prefix(token)?;
            while power_right < power(self.token.operator()) {
                let token = self.advance(false)?;
                left = self.infix(token, left)?;
            }
            Ok(left)
        });
        self.depth -= 1;
        result
    }

    /// Takes the current token and reads the next one.
    fn advance(&mut self, infix: bool) -> Result<Token> {
        let next = self.lexer.next(infix)?;
        if matches!(next.kind, Kind::Operator("!" | "~")) {
            return Err(about(fault("S0204"), &next));
        }
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn expect(&mut self, operator: &'static str, infix: bool) -> Result<()> {
        if self.token.operator() != operator {
            let code = if self.token.kind == Kind::End {
                "S0203"
            } else {
                "S0202"
            };
            return Err(about(fault(code), &self.token).text(operator));
        }
        self.advance(infix).map(drop)
    }

    /// Whether the token is this operator; if so it is taken.
    fn take(&mut self, operator: &str) -> Result<bool> {
        let found = self.token.operator() == operator;
        if found {
            self.advance(false)?;
        }
        Ok(found)
    }

    fn node(&self, position: usize, kind: Form) -> Result<Raw> {
        let depth = kind.deepest() + 1;
        if depth > NESTING {
            return Err(too_deep(position));
        }
        Ok(Raw {
            kind,
            position,
            keep_array: false,
            depth,
        })
    }

    fn boxed(&mut self, power: u32) -> Result<Box<Raw>> {
        self.expression(power).map(Box::new)
    }

    /// A token where an operand is expected.
    fn prefix(&mut self, token: Token) -> Result<Raw> {
        let kind = match token.kind {
            Kind::Name(name) => Form::Name(name),
            Kind::Variable(name) => Form::Variable(name),
            Kind::String(text) => Form::String(text),
            Kind::Number(value) => Form::Number(value),
            Kind::Bool(value) => Form::Bool(value),
            Kind::Null => Form::Null,
            Kind::Regex(pattern) => Form::Regex(pattern),
            Kind::End => Form::End,
            Kind::Operator(word @ ("and" | "or" | "in")) => Form::Name(word.to_owned()),
            Kind::Operator("-") => Form::Negate(self.boxed(70)?),
            Kind::Operator("*") => Form::Wildcard,
            Kind::Operator("**") => Form::Descendant,
            Kind::Operator("%") => Form::Parent,
            Kind::Operator("(") => Form::Block(self.list(")", ";")?),
            Kind::Operator("[") => Form::Array(self.items()?),
            Kind::Operator("{") => Form::Object(self.pairs()?),
            Kind::Operator("|") => self.transform()?,
            Kind::Operator(operator) => return Err(fault("S0211").at(token.position).token(operator)),
        };
        self.node(token.position, kind)
    }

    /// An operator behind its left operand.
    fn infix(&mut self, token: Token, left: Raw) -> Result<Raw> {
        let operator = token.operator();
        let position = token.position;
        let kind = match operator {
            "(" => return self.call(position, left),
            "[" => return self.filter(position, left),
            "^" => Form::Order(Box::new(left), self.terms()?),
            "{" => Form::Group(Box::new(left), self.pairs()?),
            ":=" => match left.kind {
                Form::Variable(name) => Form::Bind(name, self.boxed(9)?),
                Form::Name(name) | Form::String(name) => {
                    return Err(fault("S0212").at(left.position).token(&name));
                }
                _ => return Err(fault("S0212").at(left.position)),
            },
            "@" | "#" => {
                let right = self.expression(80)?;
                let Form::Variable(name) = right.kind else {
                    return Err(fault("S0214").at(right.position).token(operator));
                };
                let left = Box::new(left);
                if operator == "@" {
                    Form::Focus(left, name)
                } else {
                    Form::Index(left, name)
                }
            }
            "?" => {
                let then = self.boxed(0)?;
                let other = if self.take(":")? {
                    Some(self.boxed(0)?)
                } else {
                    None
                };
                Form::Condition(Box::new(left), then, other)
            }
            "?:" => Form::Default(Box::new(left), self.boxed(0)?),
            "??" => Form::Coalesce(Box::new(left), self.boxed(0)?),
            _ => Form::Binary(operator, Box::new(left), self.boxed(power(operator))?),
        };
        self.node(position, kind)
    }

    /// Expressions up to the closing operator; a last separator may stand before it in a block.
    fn list(&mut self, close: &'static str, separator: &'static str) -> Result<Vec<Raw>> {
        let mut expressions = Vec::new();
        while self.token.operator() != close {
            expressions.push(self.expression(0)?);
            if !self.take(separator)? {
                break;
            }
        }
        self.expect(close, true)?;
        Ok(expressions)
    }

    fn items(&mut self) -> Result<Vec<Raw>> {
        let mut items = Vec::new();
        if self.token.operator() != "]" {
            loop {
                let item = self.expression(0)?;
                let position = self.token.position;
                items.push(if self.take("..")? {
                    let right = self.boxed(0)?;
                    self.node(position, Form::Binary("..", Box::new(item), right))?
                } else {
                    item
                });
                if !self.take(",")? {
                    break;
                }
            }
        }
        self.expect("]", true)?;
        Ok(items)
    }

    fn pairs(&mut self) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        if self.token.operator() != "}" {
            loop {
                let key = self.expression(0)?;
                self.expect(":", false)?;
                pairs.push((key, self.expression(0)?));
                if !self.take(",")? {
                    break;
                }
            }
        }
        self.expect("}", true)?;
        Ok(pairs)
    }

    fn terms(&mut self) -> Result<Vec<Term>> {
        self.expect("(", false)?;
        let mut terms = Vec::new();
        loop {
            let ascending = self.take("<")?;
            let descending = !ascending && self.take(">")?;
            terms.push(Term {
                descending,
                expression: self.expression(0)?,
            });
            if !self.take(",")? {
                break;
            }
        }
        self.expect(")", false)?;
        Ok(terms)
    }

    fn transform(&mut self) -> Result<Form> {
        let pattern = self.boxed(0)?;
        self.expect("|", false)?;
        let update = self.boxed(0)?;
        let delete = if self.take(",")? {
            Some(self.boxed(0)?)
        } else {
            None
        };
        self.expect("|", false)?;
        Ok(Form::Transform(pattern, update, delete))
    }

    fn filter(&mut self, position: usize, mut left: Raw) -> Result<Raw> {
        if self.token.operator() != "]" {
            let predicate = self.boxed(0)?;
            self.expect("]", true)?;
            return self.node(position, Form::Filter(Box::new(left), predicate));
        }
        let mut step = &mut left;
        while let Form::Filter(inner, _) = &mut step.kind {
            step = inner;
        }
        step.keep_array = true;
        self.expect("]", false)?;
        Ok(left)
    }

    fn call(&mut self, position: usize, left: Raw) -> Result<Raw> {
        let mut arguments = Vec::new();
        let mut partial = false;
        if self.token.operator() != ")" {
            loop {
                if self.token.operator() == "?" {
                    partial = true;
                    arguments.push(self.node(self.token.position, Form::Placeholder)?);
                    self.advance(false)?;
                } else {
                    arguments.push(self.expression(0)?);
                }
                if !self.take(",")? {
                    break;
                }
            }
        }
        self.expect(")", true)?;
        let is_definition = matches!(&left.kind, Form::Name(name) if name == "function" || name == "λ");
        let left = Box::new(left);
        let kind = match (is_definition, partial) {
            (true, _) => self.lambda(arguments)?,
            (false, true) => Form::Partial(left, arguments),
            (false, false) => Form::Function(left, arguments),
        };
        self.node(position, kind)
    }

    fn lambda(&mut self, arguments: Vec<Raw>) -> Result<Form> {
        let mut names = Vec::new();
        for (index, argument) in arguments.into_iter().enumerate() {
            let Form::Variable(name) = argument.kind else {
                let fault = fault("S0208").at(argument.position);
                return Err(fault.insert("value", (index + 1).to_string()));
            };
            names.push(name);
        }
        let signature = if self.token.operator() == "<" {
            Some(self.signature()?)
        } else {
            None
        };
        self.expect("{", false)?;
        let body = self.boxed(0)?;
        self.expect("}", false)?;
        Ok(Form::Lambda(names, signature, body))
    }

    fn signature(&mut self) -> Result<Signature> {
        let position = self.token.position;
        let mut depth = 1;
        let mut text = "<".to_owned();
        while depth > 0 && self.token.operator() != "{" && self.token.kind != Kind::End {
            self.advance(false)?;
            match self.token.operator() {
                ">" => depth -= 1,
                "<" => depth += 1,
                _ => {}
            }
            text += &self.token.shown().0;
        }
        self.expect(">", false)?;
        Signature::parse(&text).map_err(|fault| {
            let offset = fault.position.unwrap_or(0);
            fault.at(position + offset)
        })
    }
}

fn too_deep(position: usize) -> Box<Fault> {
    fault("U1004").at(position).insert("value", NESTING.to_string())
}

impl Form {
    /// The depth of the deepest part.
    fn deepest(&self) -> usize {
        let all = |parts: &[Raw]| parts.iter().map(|part| part.depth).max().unwrap_or(0);
        let both = |pairs: &[Pair]| {
            pairs
                .iter()
                .map(|(key, value)| key.depth.max(value.depth))
                .max()
                .unwrap_or(0)
        };
        let maybe = |part: &Option<Box<Raw>>| part.as_ref().map_or(0, |part| part.depth);
        match self {
            Form::Binary(_, left, right)
            | Form::Filter(left, right)
            | Form::Default(left, right)
            | Form::Coalesce(left, right) => left.depth.max(right.depth),
            Form::Order(left, terms) => {
                let terms = terms.iter().map(|term| term.expression.depth).max();
                left.depth.max(terms.unwrap_or(0))
            }
            Form::Group(left, pairs) => left.depth.max(both(pairs)),
            Form::Bind(_, part)
            | Form::Focus(part, _)
            | Form::Index(part, _)
            | Form::Negate(part)
            | Form::Lambda(_, _, part) => part.depth,
            Form::Array(parts) | Form::Block(parts) => all(parts),
            Form::Object(pairs) => both(pairs),
            Form::Function(procedure, parts) | Form::Partial(procedure, parts) => {
                procedure.depth.max(all(parts))
            }
            Form::Condition(condition, then, other) | Form::Transform(condition, then, other) => {
                condition.depth.max(then.depth).max(maybe(other))
            }
            _ => 0,
        }
    }
}
