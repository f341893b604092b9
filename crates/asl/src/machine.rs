//! A parsed and checked definition.

use crate::check::Age;
use crate::check::Diagnostic;
use crate::parse;
use crate::path::Path;
use crate::payload::Payload;
use crate::query::Query;
use crate::template::{Expression, Template};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A state machine that passed all checks; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    definition: Arc<Value>,
    program: Arc<Program>,
    timeout: Option<u64>,
    flavour: Flavour,
}

/// The `type` of a state machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Flavour {
    #[default]
    Standard,
    /// Short and many: no activities, no waiting for callbacks or jobs, no redrive.
    Express,
}

impl Machine {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// All problems at once (at most [`limit::DIAGNOSTICS`](crate::limit::DIAGNOSTICS)), in the order of the text. What
    /// the language has and this crate does not yet is refused with [`Code::NotAvailableYet`](crate::Code).
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_as(Flavour::Standard, text)
    }

    /// The same for a machine of either type.
    ///
    /// # Errors
    /// As [`Machine::parse`].
    pub fn parse_as(flavour: Flavour, text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::read(flavour, text, Age::New)
    }

    /// Reads a definition that was taken once: checks that came later are no reason to lose an execution of it.
    ///
    /// # Errors
    /// It cannot be run: all problems at once, as of [`Machine::parse`].
    pub fn kept(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::kept_as(Flavour::Standard, text)
    }

    /// The same for a machine of either type.
    ///
    /// # Errors
    /// As [`Machine::kept`].
    pub fn kept_as(flavour: Flavour, text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::read(flavour, text, Age::Kept)
    }

    fn read(flavour: Flavour, text: &str, age: Age) -> Result<Self, Vec<Diagnostic>> {
        let (definition, program, timeout) = parse::definition(flavour, text, age)?;
        Ok(Self(Arc::new(Checked {
            definition: Arc::new(definition),
            program: Arc::new(program),
            timeout,
            flavour,
        })))
    }

    /// A machine of one state, whose transitions lead out of it.
    pub(crate) fn single(name: &str, state: &Value, jsonata: bool) -> Result<Self, Vec<Diagnostic>> {
        let (definition, program, timeout) = parse::single(name, state, jsonata)?;
        Ok(Self(Arc::new(Checked {
            definition: Arc::new(definition),
            program: Arc::new(program),
            timeout,
            flavour: Flavour::Standard,
        })))
    }

    pub fn flavour(&self) -> Flavour {
        self.0.flavour
    }

    /// The machine that runs the children of the distributed Map `state`, wherever in the definition that is.
    pub fn processor(&self, state: &str) -> Option<Self> {
        let map = self.0.program.map(state)?;
        let run = map.run.as_ref()?;
        Some(Self(Arc::new(Checked {
            definition: Arc::clone(&run.definition),
            program: Arc::clone(&map.processor),
            timeout: None,
            flavour: run.flavour,
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

impl Program {
    /// The Map state `name`, here or in a branch or processor inside.
    pub fn map(&self, name: &str) -> Option<&Map> {
        if let Some(state) = self.states.get(name) {
            return match &state.kind {
                Kind::Map(map) => Some(map),
                _ => None,
            };
        }
        self.states.values().find_map(|state| match &state.kind {
            Kind::Map(map) => map.processor.map(name),
            Kind::Parallel { branches, .. } => branches.iter().find_map(|branch| branch.map(name)),
            _ => None,
        })
    }
}

#[derive(Debug)]
pub struct State {
    pub kind: Kind,
    pub language: Language,
    pub input: Filter,
    pub output: Filter,
    /// `Output` of a state that speaks JSONata.
    pub answer: Option<Template>,
    /// `None` ends the branch.
    pub next: Option<String>,
    pub assign: Option<Template>,
    /// Some expression reads the context object.
    pub context: bool,
}

/// `QueryLanguage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    JsonPath,
    JsonAta,
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

    /// The type of the history event with which such a state is entered.
    pub fn entered(&self) -> &'static str {
        match self {
            Self::Pass(_) => "PassStateEntered",
            Self::Task(_) => "TaskStateEntered",
            Self::Choice(_) => "ChoiceStateEntered",
            Self::Wait(_) => "WaitStateEntered",
            Self::Succeed => "SucceedStateEntered",
            Self::Fail { .. } => "FailStateEntered",
            Self::Parallel { .. } => "ParallelStateEntered",
            Self::Map(_) => "MapStateEntered",
        }
    }

    /// The type of the history event with which such a state is left.
    pub fn exited(&self) -> &'static str {
        match self {
            Self::Pass(_) => "PassStateExited",
            Self::Task(_) => "TaskStateExited",
            Self::Choice(_) => "ChoiceStateExited",
            Self::Wait(_) => "WaitStateExited",
            Self::Succeed => "SucceedStateExited",
            Self::Fail { .. } => "FailStateExited",
            Self::Parallel { .. } => "ParallelStateExited",
            Self::Map(_) => "MapStateExited",
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
    pub result: Option<Payload>,
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
    /// `Output`, in JSONata.
    pub answer: Option<Template>,
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

/// A number given as such, or found in the data.
#[derive(Debug, Clone)]
pub enum Amount<T> {
    Fixed(T),
    Path(Path),
    Query(Query),
}

pub type Number = Amount<u64>;

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
    /// `Output`, in JSONata.
    pub answer: Option<Template>,
    pub assign: Option<Template>,
}

#[derive(Debug)]
pub enum Test {
    And(Vec<Test>),
    Or(Vec<Test>),
    Not(Box<Test>),
    /// `Condition`, in JSONata: a query, or a boolean as it stands.
    Query(Query),
    Literal(bool),
    Compare {
        variable: Path,
        comparison: Comparison,
    },
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
    SecondsQuery(Query),
    Timestamp(String),
    TimestampPath(Path),
    TimestampQuery(Query),
}

#[derive(Debug)]
pub struct Map {
    pub items: Items,
    pub concurrency: Option<Number>,
    pub processor: Arc<Program>,
    pub work: Work,
    /// `ToleratedFailureCount`
    pub failures: Option<Number>,
    /// `ToleratedFailurePercentage`
    pub percentage: Option<Amount<f64>>,
    /// The mode is DISTRIBUTED.
    pub run: Option<Box<Distributed>>,
}

/// Where the items of a Map are.
#[derive(Debug)]
pub enum Items {
    /// The input is the array.
    Input,
    /// `ItemsPath`
    Path(Path),
    /// `Items`, in JSONata: an array, perhaps with queries in it, or a query.
    Template(Template),
}

/// What a Map in the mode DISTRIBUTED has besides.
#[derive(Debug)]
pub struct Distributed {
    /// `ItemProcessor`, as the definition of the child executions.
    pub definition: Arc<Value>,
    pub flavour: Flavour,
    pub label: Option<String>,
    pub reader: Option<Reader>,
    pub batcher: Option<Batcher>,
    pub writer: Option<Writer>,
}

/// `ItemReader`
#[derive(Debug)]
pub struct Reader {
    /// `Parameters` or `Arguments`.
    pub parameters: Option<Template>,
    pub format: Format,
    pub most: Option<Amount<i64>>,
}

/// How the items are written in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `ItemsPointer`: the array's place in the document.
    Json {
        pointer: String,
    },
    JsonLines,
    Csv {
        /// `None`: the first row names the columns.
        headers: Option<Vec<String>>,
        delimiter: u8,
    },
    /// An inventory that names other objects, which hold the items.
    Manifest,
    /// The objects of a bucket are the items.
    List,
}

impl Default for Format {
    fn default() -> Self {
        Self::Json {
            pointer: String::new(),
        }
    }
}

/// `ItemBatcher`
#[derive(Debug)]
pub struct Batcher {
    pub items: Option<Number>,
    pub bytes: Option<Number>,
    /// `BatchInput`
    pub input: Option<Template>,
}

/// `ResultWriter`
#[derive(Debug)]
pub struct Writer {
    pub resource: Option<String>,
    /// `Parameters` or `Arguments`.
    pub parameters: Option<Template>,
    pub transformation: Transformation,
    pub lines: bool,
}

/// `WriterConfig.Transformation`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Transformation {
    /// The outputs with what is known of their executions.
    #[default]
    None,
    /// The outputs.
    Compact,
    /// The outputs, and the elements of those that are arrays.
    Flatten,
}
