//! Intrinsic functions: `States.Format('Hello {}', $.name)`, their grammar and their evaluation.

mod array;
mod number;
mod text;

pub use text::uuid;

use crate::fault::{self, Fault};
use crate::limit;
use crate::path::Path;
use crate::scope::Scope;
use jsonata::json;
use serde_json::Value;

/// A call, checked as far as it can be without data.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    function: Function,
    arguments: Vec<Argument>,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Argument {
    Path(Path),
    Call(Call),
    Literal(Value),
    /// A quoted text, with its escapes, because `States.Format` tells `\{` from `{`.
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Array,
    ArrayContains,
    ArrayGetItem,
    ArrayLength,
    ArrayPartition,
    ArrayRange,
    ArrayUnique,
    Base64Decode,
    Base64Encode,
    Format,
    Hash,
    JsonMerge,
    JsonToString,
    MathAdd,
    MathRandom,
    StringSplit,
    StringToJson,
    Uuid,
}

/// Name, function, fewest and most arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 18] = [
    ("States.ArrayContains", Function::ArrayContains, 2, 2),
    ("States.ArrayGetItem", Function::ArrayGetItem, 2, 2),
    ("States.ArrayLength", Function::ArrayLength, 1, 1),
    ("States.ArrayPartition", Function::ArrayPartition, 2, 2),
    ("States.ArrayRange", Function::ArrayRange, 3, 3),
    ("States.ArrayUnique", Function::ArrayUnique, 1, 1),
    ("States.Array", Function::Array, 0, usize::MAX),
    ("States.Base64Decode", Function::Base64Decode, 1, 1),
    ("States.Base64Encode", Function::Base64Encode, 1, 1),
    ("States.Format", Function::Format, 1, usize::MAX),
    ("States.Hash", Function::Hash, 2, 2),
    ("States.JsonMerge", Function::JsonMerge, 3, 3),
    ("States.JsonToString", Function::JsonToString, 1, 1),
    ("States.MathAdd", Function::MathAdd, 2, 2),
    ("States.MathRandom", Function::MathRandom, 2, 3),
    ("States.StringSplit", Function::StringSplit, 2, 2),
    ("States.StringToJson", Function::StringToJson, 1, 1),
    ("States.UUID", Function::Uuid, 0, 0),
];

/// Why a function could not answer.
enum Failure {
    /// The arguments do not fit.
    Misuse(String),
    /// Not the function's fault: a missing path, a spent budget.
    Other(Fault),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Misuse(why)
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self::Misuse(why.to_owned())
    }
}

impl From<crate::scope::Spent> for Failure {
    fn from(spent: crate::scope::Spent) -> Self {
        Self::Other(spent.into())
    }
}

type Answer = Result<Value, Failure>;

impl Call {
    /// Reads a call that must be the whole of `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (call, rest) = parse(text, 1)?;
        if rest.is_empty() {
            Ok(call)
        } else {
            Err(format!("unexpected '{rest}' after the function call"))
        }
    }

    /// Shows every path among the arguments, those of inner calls too.
    pub fn paths(&self, see: &mut dyn FnMut(&Path)) {
        for argument in &self.arguments {
            match argument {
                Argument::Path(path) => see(path),
                Argument::Call(call) => call.paths(see),
                Argument::Literal(_) | Argument::Text(_) => {}
            }
        }
    }

    /// The answer, or the error that the state has then.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, Fault> {
        self.answer(scope).map_err(|failure| match failure {
            Failure::Other(fault) => fault,
            Failure::Misuse(why) => Fault::named(
                fault::INTRINSIC,
                format!("The function '{}' had the following error: {why}", self.text),
            ),
        })
    }

    fn answer(&self, scope: &Scope) -> Answer {
        if self.function == Function::Format {
            return self.format(scope);
        }
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(argument.value(scope)?);
        }
        self.function.apply(arguments, scope)
    }

    fn format(&self, scope: &Scope) -> Answer {
        let pattern = match self.arguments.first() {
            Some(Argument::Text(raw)) => raw.clone(),
            Some(other) => match other.value(scope)? {
                Value::String(text) => text,
                _ => return Err("the first argument must be a string".into()),
            },
            None => return Err("a template is missing".into()),
        };
        let mut values = Vec::new();
        for argument in &self.arguments[1..] {
            values.push(argument.value(scope)?);
        }
        text::format(&pattern, &values, scope.budget)
    }
}

impl Argument {
    fn value(&self, scope: &Scope) -> Answer {
        match self {
            Self::Literal(value) => Ok(scope.budget.copy(value)?),
            Self::Text(raw) => Ok(Value::String(text::unescape(raw))),
            Self::Call(call) => call.evaluate(scope).map_err(Failure::Other),
            Self::Path(path) => scope.read(path).map_err(|missing| {
                Failure::Other(match missing {
                    crate::path::Missing::Spent => crate::scope::Spent.into(),
                    missing => Fault {
                        alias: Some(fault::PARAMETER_PATH.into()),
                        ..Fault::runtime(format!("Invalid path '{}' : {}", path.text(), missing.reason()))
                    },
                })
            }),
        }
    }
}

impl Function {
    fn apply(self, arguments: Vec<Value>, scope: &Scope) -> Answer {
        let mut arguments = arguments.into_iter();
        let mut next = || arguments.next().unwrap_or(Value::Null);
        match self {
            Self::Array => Ok(Value::Array(arguments.collect())),
            Self::ArrayContains => array::contains(&next(), &next()),
            Self::ArrayGetItem => array::item(next(), &next()),
            Self::ArrayLength => array::length(&next()),
            Self::ArrayPartition => array::partition(next(), &next()),
            Self::ArrayRange => array::range(&next(), &next(), &next()),
            Self::ArrayUnique => array::unique(next(), scope.budget),
            Self::Base64Decode => text::decode(&next()),
            Self::Base64Encode => text::encode(&next()),
            Self::Format => Err("a template is missing".into()),
            Self::Hash => text::hash(&next(), &next()),
            Self::JsonMerge => text::merge(next(), next(), &next()),
            Self::JsonToString => Ok(Value::String(next().to_string())),
            Self::MathAdd => number::add(&next(), &next()),
            Self::MathRandom => number::random(&next(), &next(), arguments.next().as_ref(), scope.random),
            Self::StringSplit => text::split(&next(), &next()),
            Self::StringToJson => text::parse(&next()),
            Self::Uuid => Ok(Value::String(uuid(scope.random.draw()))),
        }
    }
}

fn parse(text: &str, depth: usize) -> Result<(Call, &str), String> {
    if depth > limit::NESTED_CALLS {
        return Err(format!(
            "intrinsic functions may be nested at most {} deep",
            limit::NESTED_CALLS
        ));
    }
    let (name, body) = text.split_once('(').ok_or("a function call is missing")?;
    let (_, function, fewest, most) = *FUNCTIONS
        .iter()
        .find(|known| known.0 == name)
        .ok_or_else(|| format!("there is no function '{name}'"))?;
    let (arguments, rest) = arguments(body, depth)?;
    if !(fewest..=most).contains(&arguments.len()) {
        return Err(format!("{name} does not take {} arguments", arguments.len()));
    }
    let end = text.len() - rest.len();
    Ok((
        Call {
            function,
            arguments,
            text: text[..end].to_owned(),
        },
        rest,
    ))
}

/// Reads up to the closing bracket; the opening one is read.
fn arguments(text: &str, depth: usize) -> Result<(Vec<Argument>, &str), String> {
    let mut arguments = Vec::new();
    let mut rest = text.trim_start();
    if let Some(rest) = rest.strip_prefix(')') {
        return Ok((arguments, rest));
    }
    loop {
        let (argument, after) = argument(rest, depth)?;
        arguments.push(argument);
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix(',') {
            rest = after.trim_start();
        } else {
            let after = after
                .strip_prefix(')')
                .ok_or("a ',' or ')' is missing in the arguments")?;
            return Ok((arguments, after));
        }
    }
}

fn argument(text: &str, depth: usize) -> Result<(Argument, &str), String> {
    if text.starts_with('$') {
        let (path, rest) = Path::prefix(text)?;
        return Ok((Argument::Path(path), rest));
    }
    if text.starts_with("States.") {
        let (call, rest) = parse(text, depth + 1)?;
        return Ok((Argument::Call(call), rest));
    }
    if let Some(body) = text.strip_prefix('\'') {
        let mut escaped = false;
        for (at, next) in body.char_indices() {
            match next {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => return Ok((Argument::Text(body[..at].to_owned()), &body[at + 1..])),
                _ => {}
            }
        }
        return Err("a quoted text has no end".into());
    }
    let end = text.find([',', ')', ' ']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match json::read(word) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => Ok((Argument::Literal(value), rest)),
        _ => Err(format!("'{word}' is not an argument")),
    }
}

#[cfg(test)]
mod tests;
