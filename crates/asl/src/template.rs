//! Payload templates: JSON in which a key that ends in `.$` names a path or an intrinsic function.

use crate::fault::{self, Fault};
use crate::intrinsic::Call;
use crate::path::{Missing, Path};
use crate::query::Query;
use crate::scope::{Scope, Spent};
use serde_json::{Map, Value};

#[derive(Debug, Clone)]
pub enum Template {
    Literal(Value),
    Object(Vec<(String, Template)>),
    Array(Vec<Template>),
    /// The key as written, with its `.$`, for messages.
    Dynamic(String, Expression),
}

/// A path, a call or a query in JSONata.
#[derive(Debug, Clone)]
pub enum Expression {
    Path(Path),
    Call(Call),
    Query(Query),
}

impl Template {
    /// Reads a JSONata template that stands in `field`; problems go to `problem` with the keys that lead to them. `absent`
    /// as in [`Query::parse`].
    pub fn queries(
        value: &Value,
        field: &str,
        absent: &[&str],
        trail: &mut Vec<String>,
        problem: &mut dyn FnMut(&[String], String),
    ) -> Self {
        match value {
            Value::String(text) => match Query::body(text).map(|body| Query::parse(body, field, absent)) {
                None => Self::Literal(value.clone()),
                Some(Ok(query)) => Self::Dynamic(field.to_owned(), Expression::Query(query)),
                Some(Err(why)) => {
                    problem(trail, why);
                    Self::Literal(Value::Null)
                }
            },
            Value::Object(members) => {
                let mut parsed = Vec::new();
                for (key, member) in members {
                    trail.push(key.clone());
                    let place = format!("{field}/{key}");
                    parsed.push((key.clone(), Self::queries(member, &place, absent, trail, problem)));
                    trail.pop();
                }
                Self::object(parsed, value)
            }
            Value::Array(items) => {
                let mut parsed = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    trail.push(at.to_string());
                    let place = format!("{field}[{at}]");
                    parsed.push(Self::queries(item, &place, absent, trail, problem));
                    trail.pop();
                }
                Self::array(parsed, value)
            }
            other => Self::Literal(other.clone()),
        }
    }

    /// Reads a template; problems go to `problem` with the keys that lead to them.
    pub fn parse(value: &Value, trail: &mut Vec<String>, problem: &mut dyn FnMut(&[String], String)) -> Self {
        match value {
            Value::Object(members) => {
                let mut parsed = Vec::new();
                for (key, value) in members {
                    trail.push(key.clone());
                    parsed.push(Self::member(key, value, trail, problem));
                    trail.pop();
                }
                Self::object(parsed, value)
            }
            Value::Array(items) => {
                let mut parsed = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    trail.push(at.to_string());
                    parsed.push(Self::parse(item, trail, problem));
                    trail.pop();
                }
                Self::array(parsed, value)
            }
            other => Self::Literal(other.clone()),
        }
    }

    /// An object of parsed members; a literal when there is nothing to evaluate in it.
    fn object(members: Vec<(String, Self)>, value: &Value) -> Self {
        let literal = |member: &Self| matches!(member, Self::Literal(_));
        if members.iter().all(|(_, member)| literal(member)) {
            Self::Literal(value.clone())
        } else {
            Self::Object(members)
        }
    }

    fn array(items: Vec<Self>, value: &Value) -> Self {
        if items.iter().all(|item| matches!(item, Self::Literal(_))) {
            Self::Literal(value.clone())
        } else {
            Self::Array(items)
        }
    }

    fn member(
        key: &str,
        value: &Value,
        trail: &mut Vec<String>,
        problem: &mut dyn FnMut(&[String], String),
    ) -> (String, Self) {
        let Some(name) = key.strip_suffix(".$") else {
            return (key.to_owned(), Self::parse(value, trail, problem));
        };
        let expression = value
            .as_str()
            .ok_or_else(|| "a string is needed".to_owned())
            .and_then(Expression::parse);
        match expression {
            Ok(expression) => (name.to_owned(), Self::Dynamic(key.to_owned(), expression)),
            Err(why) => {
                problem(
                    trail,
                    format!(
                        "The value for the field '{key}' must be a valid JSONPath or a valid intrinsic function call: {why}"
                    ),
                );
                (name.to_owned(), Self::Literal(Value::Null))
            }
        }
    }

    pub fn evaluate(&self, scope: &Scope) -> Result<Value, Fault> {
        Ok(match self {
            Self::Literal(value) => scope.budget.copy(value)?,
            Self::Array(items) => items
                .iter()
                .map(|item| item.evaluate(scope))
                .collect::<Result<_, _>>()?,
            Self::Object(members) => {
                let mut object = Map::new();
                for (key, member) in members {
                    scope.budget.bytes(key.len())?;
                    object.insert(key.clone(), member.evaluate(scope)?);
                }
                Value::Object(object)
            }
            Self::Dynamic(_, Expression::Call(call)) => call.evaluate(scope)?,
            Self::Dynamic(_, Expression::Query(query)) => query.evaluate(scope)?,
            Self::Dynamic(key, Expression::Path(path)) => scope
                .read(path)
                .map_err(|missing| not_found(key, path, missing, scope))?,
        })
    }
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('$') {
            Path::parse(text).map(Self::Path)
        } else {
            Call::parse(text).map(Self::Call)
        }
    }
}

fn not_found(key: &str, path: &Path, missing: Missing, scope: &Scope) -> Fault {
    let cause = match missing {
        Missing::Spent => return Spent.into(),
        Missing::Variable(_) => missing.reason(),
        Missing::Leaf(_) | Missing::Middle(_) => {
            let root = scope.root(path).unwrap_or(&Value::Null);
            format!(
                "The JSONPath '{}' specified for the field '{key}' could not be found in the input '{root}'",
                path.text()
            )
        }
    };
    Fault {
        alias: Some(fault::PARAMETER_PATH.into()),
        ..Fault::runtime(cause)
    }
}
