//! A parsed and checked definition.

use crate::check::Diagnostic;
use crate::parse;
use crate::path::Path;
use crate::template::{Expression, Template};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A state machine that passed all checks; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    definition: Value,
    program: Program,
    timeout: Option<u64>,
}

impl Machine {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// All problems at once (at most [`limit::DIAGNOSTICS`](crate::limit::DIAGNOSTICS)), in the order of the text. What
    /// the language has and this crate does not yet is refused with [`Code::NotAvailableYet`](crate::Code).
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let (definition, program, timeout) = parse::definition(text)?;
        Ok(Self(Arc::new(Checked {
            definition,
            program,
            timeout,
        })))
    }

    /// The definition as it was given.
    pub fn definition(&self) -> &Value {
        &self.0.definition
    }

    pub(crate) fn program(&self) -> &Program {
        &self.0.program
    }

    /// `TimeoutSeconds` of the whole machine.
    pub(crate) fn timeout(&self) -> Option<u64> {
        self.0.timeout
    }
}

/// States that belong together: the machine's, a branch's or an iteration's.
#[derive(Debug, Default)]
pub struct Program {
    pub start: String,
    pub states: BTreeMap<String, State>,
}

#[derive(Debug)]
pub struct State {
    pub kind: Kind,
    pub input: Filter,
    pub output: Filter,
    /// `None` ends the branch.
    pub next: Option<String>,
    pub assign: Option<Template>,
    /// Some expression reads the context object.
    pub context: bool,
}

/// `InputPath` and `OutputPath`.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Absent, or `$`.
    All,
    /// `null`: an empty object instead.
    Nothing,
    Path(Path),
}

#[derive(Debug)]
pub enum Kind {
    Pass(Pass),
    Task(Box<Task>),
    Choice(Choice),
    Wait(Wait),
    Succeed,
    Fail {
        error: Option<Text>,
        cause: Option<Text>,
    },
    Parallel {
        branches: Vec<Program>,
        work: Work,
    },
    Map(Box<Map>),
}

impl Kind {
    /// The `Type` field.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass(_) => "Pass",
            Self::Task(_) => "Task",
            Self::Choice(_) => "Choice",
            Self::Wait(_) => "Wait",
            Self::Succeed => "Succeed",
            Self::Fail { .. } => "Fail",
            Self::Parallel { .. } => "Parallel",
            Self::Map(_) => "Map",
        }
    }

    /// What states that do work have in common.
    pub fn work(&self) -> Option<&Work> {
        match self {
            Self::Task(task) => Some(&task.work),
            Self::Parallel { work, .. } => Some(work),
            Self::Map(map) => Some(&map.work),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct Pass {
    pub result: Option<Value>,
    pub parameters: Option<Template>,
    pub result_path: ResultPath,
}

/// Where a result goes.
#[derive(Debug, Clone)]
pub enum ResultPath {
    /// Absent, or `$`: it replaces the input.
    Replace,
    /// `null`: the input stays as it was.
    Discard,
    Into(Path),
}

/// Parameters, results, retriers and catchers of Task, Parallel and Map.
#[derive(Debug)]
pub struct Work {
    pub parameters: Option<Template>,
    pub selector: Option<Template>,
    pub result_path: ResultPath,
    pub retry: Vec<Retrier>,
    pub catch: Vec<Catcher>,
}

#[derive(Debug)]
pub struct Retrier {
    pub errors: Vec<String>,
    pub interval: u64,
    pub attempts: u32,
    pub rate: f64,
    pub most: Option<u64>,
    pub jitter: bool,
}

#[derive(Debug)]
pub struct Catcher {
    pub errors: Vec<String>,
    pub next: String,
    pub result_path: ResultPath,
    pub assign: Option<Template>,
}

#[derive(Debug)]
pub struct Task {
    pub resource: String,
    pub timeout: Option<Number>,
    pub heartbeat: Option<Number>,
    pub credentials: Option<Template>,
    pub work: Work,
}

/// A count given as such, or found in the data.
#[derive(Debug, Clone)]
pub enum Number {
    Fixed(u64),
    Path(Path),
}

/// A text given as such, or computed.
#[derive(Debug, Clone)]
pub enum Text {
    Fixed(String),
    Computed(Expression),
}

#[derive(Debug)]
pub struct Choice {
    pub rules: Vec<Rule>,
    pub default: Option<String>,
}

#[derive(Debug)]
pub struct Rule {
    pub test: Test,
    pub next: String,
    pub assign: Option<Template>,
}

#[derive(Debug)]
pub enum Test {
    And(Vec<Test>),
    Or(Vec<Test>),
    Not(Box<Test>),
    Compare { variable: Path, comparison: Comparison },
}

#[derive(Debug)]
pub enum Comparison {
    Is(Type, bool),
    Matches(String),
    Boolean(Against),
    String(Order, Against),
    Numeric(Order, Against),
    Timestamp(Order, Against),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Null,
    Present,
    Numeric,
    String,
    Boolean,
    Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Equal,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

#[derive(Debug)]
pub enum Against {
    Value(Value),
    Path(Path),
}

#[derive(Debug)]
pub enum Wait {
    Seconds(u64),
    SecondsPath(Path),
    Timestamp(String),
    TimestampPath(Path),
}

#[derive(Debug)]
pub struct Map {
    pub items: Option<Path>,
    pub concurrency: Option<Number>,
    pub processor: Program,
    pub work: Work,
}
