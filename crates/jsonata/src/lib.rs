//! JSONata: a language to query JSON and make new JSON of it (<https://docs.jsonata.org>), as the reference
//! jsonata-js 2.2 speaks it, with what AWS Step Functions adds.
//!
//! Pure and total: an expression is parsed once and evaluated with values only; the clock and randomness come in as
//! values, too. No text makes it panic, and steps, depth and memory of an evaluation end at named [`Limits`]. It knows
//! nothing of state machines.
//!
//! ```
//! let expression = jsonata::Expression::parse("$sum($order.items.price)").unwrap();
//! let order = serde_json::json!({ "items": [{ "price": 1.5 }, { "price": 2.5 }] });
//! let scope = jsonata::Scope::new(jiff::Timestamp::UNIX_EPOCH).bind("order", &order);
//! assert_eq!(expression.evaluate(&scope).unwrap(), Some(serde_json::json!(4)));
//! ```

mod date;
mod error;
mod evaluate;
mod function;
pub mod json;
mod names;
mod number;
mod pattern;
mod resolve;
mod run;
mod signature;
mod syntax;
mod text;
mod token;
mod tree;
mod value;

use std::sync::Arc;

use bumpalo::Bump;
use jiff::Timestamp;
use serde_json::Value as Json;

pub use error::Error;
pub use run::Limits;

use run::{Parsed, Run};
use value::Value;

/// A parsed expression.
#[derive(Clone)]
pub struct Expression(Arc<Parts>);

struct Parts {
    tree: tree::Node,
    free: names::Free,
    top: Vec<String>,
}

/// What an expression may see.
#[derive(Clone)]
pub struct Scope<'a> {
    /// Variables by name, without the dollar.
    pub bindings: Vec<(&'a str, &'a Json)>,
    /// `$` and `$$`; none: undefined.
    pub input: Option<&'a Json>,
    /// What `$now` and `$millis` tell.
    pub now: Timestamp,
    /// Where `$random`, `$shuffle` and `$uuid` begin: the same seed gives the same values.
    pub seed: u64,
    /// Whether the functions of Step Functions are there: `$partition`, `$range`, `$hash`, `$random` with a seed, `$uuid`
    /// and `$parse`.
    pub states: bool,
    /// Whether `$eval` is there. Step Functions does not have it.
    pub eval: bool,
    pub limits: Limits,
}

impl<'a> Scope<'a> {
    /// No variables, no input, JSONata's own functions without `$eval`, the usual limits.
    pub fn new(now: Timestamp) -> Scope<'a> {
        Scope {
            bindings: Vec::new(),
            input: None,
            now,
            seed: 0,
            states: false,
            eval: false,
            limits: Limits::default(),
        }
    }

    /// One more variable, without the dollar. A name that is bound twice stands for the later value.
    pub fn bind(mut self, name: &'a str, value: &'a Json) -> Scope<'a> {
        self.bindings.push((name, value));
        self
    }
}

impl Expression {
    /// Parses the text of an expression, without `{%` and `%}`.
    pub fn parse(text: &str) -> Result<Expression, Error> {
        let tree = syntax::parse(text).and_then(resolve::resolve)?;
        let (free, top) = (names::free(&tree), names::top(&tree));
        Ok(Expression(Arc::new(Parts { tree, free, top })))
    }

    /// The variables that the expression takes from its scope, by name without the dollar, each once, in order of their
    /// first use. Built-in functions, `$` and `$$` are not among them.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.free.variables.iter().map(String::as_str)
    }

    /// Whether the expression reads the field `member` of the variable `variable` of its scope, by name and right behind
    /// it: `$variable.member`.
    pub fn reads(&self, variable: &str, member: &str) -> bool {
        let mut members = self.0.free.members.iter();
        members.any(|(name, field)| name == variable && field == member)
    }

    /// What the expression reads from its input: fields by name, `$` and `$$`. An expression of Step Functions has no
    /// input and may not.
    pub fn top(&self) -> impl Iterator<Item = &str> {
        self.0.top.iter().map(String::as_str)
    }

    /// The value of the expression; none if it is undefined ("returned nothing") or a function.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Option<Json>, Error> {
        self.measure(scope).0
    }

    /// The same, and how many of the [`Limits::steps`] it took: for whoever has a budget for several evaluations.
    pub fn measure(&self, scope: &Scope<'_>) -> (Result<Option<Json>, Error>, u64) {
        let parsed = Parsed::default();
        let arena = Bump::new();
        let now = scope.now.as_millisecond() as f64;
        let mut run = Run::new(&arena, scope.limits, now, scope.seed);
        run.states = scope.states;
        run.parsed = scope.eval.then_some(&parsed);
        let result = || {
            let frame = run.frame(None)?;
            for (name, value) in &scope.bindings {
                run.bind(frame, name, Value::from(*value))?;
            }
            let input = scope.input.map_or(Value::Undefined, Value::from);
            run.bind(frame, "$", input)?;
            let value = run.eval(&self.0.tree, run.whole(input)?, frame)?;
            run.json(value, 0)
        };
        (result().map_err(Error::from), run.spent())
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expression")
            .field("variables", &self.0.free.variables)
            .finish_non_exhaustive()
    }
}
