//! What an expression can see: its data, the context object, the variables, and a budget that bounds its work.

use crate::execution::Variables;
use crate::fault::Fault;
use crate::path::{Missing, Path, Root};
use crate::random::Random;
use crate::size;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

/// Bytes that one evaluation may copy, and JSON values that its paths may visit.
const COPIED: usize = 4 * 1024 * 1024;
const VISITED: usize = 200_000;
/// Steps that its queries may take together.
const STEPS: u64 = 2_000_000;

/// Millionths of a whole budget.
pub const WHOLE: u64 = 1_000_000;

pub struct Scope<'a> {
    pub data: &'a Value,
    pub context: &'a Value,
    /// `$states` of JSONata, besides the context.
    pub input: &'a Value,
    pub result: Option<&'a Value>,
    pub error: Option<&'a Value>,
    /// Innermost first.
    pub variables: &'a [&'a Variables],
    pub random: &'a Random,
    pub now: Timestamp,
    pub budget: &'a Budget,
    /// `$states`, once a query has asked for it.
    pub states: OnceCell<Value>,
}

/// What is left to one evaluation.
pub struct Budget {
    bytes: Cell<usize>,
    visits: Cell<usize>,
    steps: Cell<u64>,
}

/// The budget ran out.
#[derive(Debug, PartialEq, Eq)]
pub struct Spent;

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: Cell::new(COPIED),
            visits: Cell::new(VISITED),
            steps: Cell::new(STEPS),
        }
    }
}

impl Budget {
    /// A copy of `value`, paid for.
    pub fn copy(&self, value: &Value) -> Result<Value, Spent> {
        let bytes = size::within(value, self.bytes.get(), 256).ok_or(Spent)?;
        self.bytes.set(self.bytes.get() - bytes);
        Ok(value.clone())
    }

    pub fn bytes(&self, bytes: usize) -> Result<(), Spent> {
        self.bytes.set(self.bytes.get().checked_sub(bytes).ok_or(Spent)?);
        Ok(())
    }

    /// What is left for queries.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// A query took `steps`.
    pub fn walk(&self, steps: u64) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }

    /// What queries took.
    pub fn walked(&self) -> u64 {
        STEPS - self.steps.get()
    }

    /// The part of the whole that was spent, in millionths, of what most was spent of.
    pub fn share(&self) -> u64 {
        let part = |left: u64, whole: u64| (whole - left) * WHOLE / whole;
        part(self.bytes.get() as u64, COPIED as u64)
            .max(part(self.visits.get() as u64, VISITED as u64))
            .max(part(self.steps.get(), STEPS))
    }

    pub fn visit(&self, values: usize) -> Result<(), Spent> {
        self.visits
            .set(self.visits.get().checked_sub(values).ok_or(Spent)?);
        Ok(())
    }
}

impl<'a> Scope<'a> {
    /// The document that a path starts from.
    pub fn root(&self, path: &Path) -> Result<&'a Value, Missing> {
        match path.root() {
            Root::Data => Ok(self.data),
            Root::Context => Ok(self.context),
            Root::Variable(name) => self.variable(name).ok_or_else(|| Missing::Variable(name.clone())),
        }
    }

    /// `$states`
    pub fn states(&self) -> &Value {
        self.states.get_or_init(|| {
            // Not with `json!`, which writes numbers anew.
            let mut states = json!({});
            states["input"] = self.input.clone();
            states["context"] = self.context.clone();
            for (name, value) in [("result", self.result), ("errorOutput", self.error)] {
                if let Some(value) = value {
                    states[name] = value.clone();
                }
            }
            states
        })
    }

    pub fn variable(&self, name: &str) -> Option<&'a Value> {
        self.variables
            .iter()
            .find_map(|scope| scope.get(name))
            .map(|value| &**value)
    }

    /// What `path` selects, without a copy where that is possible.
    pub fn look(&self, path: &Path) -> Result<Cow<'a, Value>, Missing> {
        path.look(self.root(path)?, self.budget)
    }

    /// A copy of what `path` selects.
    pub fn read(&self, path: &Path) -> Result<Value, Missing> {
        path.read(self.root(path)?, self.budget)
    }
}

impl From<Spent> for Fault {
    fn from(Spent: Spent) -> Self {
        Fault {
            terminal: true,
            ..Fault::named(
                crate::fault::DATA_LIMIT,
                "An expression does too much work or its result is too large.",
            )
        }
    }
}
