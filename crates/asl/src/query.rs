//! JSONata in a definition: the expressions between `{%` and `%}`, and what may go wrong with them.

use crate::fault::{self, Fault};
use crate::scope::Scope;
use jsonata::{Expression, Limits};
use serde_json::Value;

/// Bytes that one evaluation may take for what it makes.
const BYTES: usize = 32 * 1024 * 1024;

/// An expression, and the field that holds it.
#[derive(Debug, Clone)]
pub struct Query {
    expression: Expression,
    text: String,
    /// As AWS names it: `Output/result`, `Catch[0]/Output`.
    field: String,
    /// It may draw random numbers.
    random: bool,
}

/// What a field wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Array,
    Boolean,
    Number,
    String,
}

impl Query {
    /// The text between the marks; `None` when `text` is not an expression.
    pub fn body(text: &str) -> Option<&str> {
        Some(text.strip_prefix("{%")?.strip_suffix("%}")?.trim())
    }

    /// Reads the expression `body` of `field`, such as `Output/result`; `absent`: the members of `$states` that are not there when it is evaluated.
    pub fn parse(body: &str, field: &str, absent: &[&str]) -> Result<Self, String> {
        let expression = Expression::parse(body).map_err(|error| error.to_string())?;
        if let Some(name) = expression.top().next() {
            return Err(format!(
                "Reference to '{name}' at the top level is not supported."
            ));
        }
        if let Some(member) = absent.iter().find(|member| expression.reads("states", member)) {
            return Err(format!("Field '$states.{member}' does not exist."));
        }
        Ok(Self {
            random: ["$random", "$uuid", "$shuffle"]
                .iter()
                .any(|function| body.contains(function)),
            expression,
            text: body.to_owned(),
            field: field.to_owned(),
        })
    }

    pub fn evaluate(&self, scope: &Scope) -> Result<Value, Fault> {
        match run(&self.expression, scope, self.random) {
            Ok(Some(value)) => Ok(value),
            Ok(None) if self.is_function(scope) => Err(self.failed("returned an unsupported result type.")),
            Ok(None) => Err(self.failed("returned nothing (undefined).")),
            Err(error) => Err(self.failed(&format!(
                "threw an error during evaluation. {}: {}",
                error.code, error.message
            ))),
        }
    }

    /// Whether there is a value after all, but one that is no data.
    fn is_function(&self, scope: &Scope) -> bool {
        let asked = Expression::parse(&format!("$type((\n{}\n))", self.text));
        asked.is_ok_and(|asked| run(&asked, scope, self.random) == Ok(Some("function".into())))
    }

    /// The value, which must be of one kind.
    pub fn expect(&self, scope: &Scope, kind: Kind) -> Result<Value, Fault> {
        self.wanted(self.evaluate(scope)?, kind)
    }

    /// `value`, if it is of that kind.
    pub fn wanted(&self, value: Value, kind: Kind) -> Result<Value, Fault> {
        if kind.fits(&value) {
            return Ok(value);
        }
        let (want, is) = (kind.name(), name(&value));
        Err(self.failed(&format!(
            "returned an unexpected result type. Expected '{want}', but was '{is}' for value: {value}"
        )))
    }

    /// The value has the right type and still will not do; AWS does not quote the expression then, and blames the
    /// state rather than what came before it.
    pub fn refused(&self, cause: String) -> Fault {
        Fault {
            place: Some(self.field.clone()),
            late: true,
            ..Fault::named(fault::QUERY, cause)
        }
    }

    fn failed(&self, what: &str) -> Fault {
        let cause = format!(
            "The JSONata expression '{}' specified for the field '{}' {what}",
            self.text, self.field
        );
        Fault {
            place: Some(self.field.clone()),
            ..Fault::named(fault::QUERY, cause)
        }
    }
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        self.name() == name(value)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
        }
    }
}

/// Evaluates within the budget of `scope`.
fn run(expression: &Expression, scope: &Scope, random: bool) -> Result<Option<Value>, jsonata::Error> {
    let names = expression.variables().filter_map(|name| {
        let value = if name == "states" {
            Some(scope.states())
        } else {
            scope.variable(name)
        };
        Some((name, value?))
    });
    let seed = if random { scope.random.number() } else { 0 };
    let (value, steps) = expression.measure(&jsonata::Scope {
        bindings: names.collect(),
        seed,
        states: true,
        limits: Limits {
            steps: scope.budget.steps(),
            bytes: BYTES,
            ..Limits::default()
        },
        ..jsonata::Scope::new(scope.now)
    });
    scope.budget.walk(steps);
    value
}

/// The whole number that a value is; JSONata has only doubles.
pub fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

/// JSONata's word for the type of a value.
fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
