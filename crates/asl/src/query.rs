//! JSONata in a definition: the expressions between `{%` and `%}`, and what may go wrong with them.

use crate::fault::Fault;
use crate::scope::Scope;
use serde_json::Value;

/// An expression, and the field that holds it.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    field: String,
}

impl Query {
    /// The text between the marks; `None` when `text` is not an expression.
    pub fn body(text: &str) -> Option<&str> {
        Some(text.strip_prefix("{%")?.strip_suffix("%}")?.trim())
    }

    /// Reads the expression `body` of `field`, such as `Output/result`.
    pub fn parse(body: &str, field: &str) -> Result<Self, String> {
        Ok(Self {
            text: body.to_owned(),
            field: field.to_owned(),
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn field(&self) -> &str {
        &self.field
    }

    pub fn evaluate(&self, _scope: &Scope) -> Result<Value, Fault> {
        Err(Fault::runtime("JSONata"))
    }
}
