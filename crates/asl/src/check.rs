//! What is wrong with a definition, in AWS's words where they are known, and the checks that need the whole graph.

use crate::limit;
use crate::locate::{locate, place};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// One problem of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// AWS's words where they are known.
    pub message: String,
    /// The same in the words of statelint, or the reason in more detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The place as AWS writes it: `/States/Look/Choices[0]/Next`. Some problems have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// JSON pointer to the field or, when a field is missing, to the object that lacks it; `/` is the whole definition.
    pub pointer: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {} at {}",
            self.line,
            self.column,
            self.code,
            self.message,
            self.location.as_deref().unwrap_or(&self.pointer)
        )
    }
}

/// Whether a definition with the problem can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    Warning,
    Error,
}

/// AWS's code of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// There is no text.
    MissingDescription,
    /// The text is not JSON, or too long.
    InvalidJsonDescription,
    SchemaValidationFailed,
    /// A state that is named does not exist, or one that exists is never named.
    MissingTransitionTarget,
    MissingEndState,
    DuplicateStateName,
    InvalidJsonataExpression,
    /// The expression reads something that an expression of a state cannot.
    UnsupportedJsonataExpression,
    /// A warning: a text that looks like a path or a call, under a key without `.$`.
    NoDollar,
    /// A warning: a text that looks like a path, in a field that takes none.
    NoPath,
    /// A warning: a path or a call in the `Result` of a Pass state, where it is only text.
    PassResultIsStatic,
    /// A warning of ours: the `Resource` is a URI, as the language wants it, and no ARN, as AWS does.
    NoArn,
    /// A warning of ours: no service that is known here has this `Resource`.
    UnknownResource,
    /// A warning of ours: a task waits for its token, and nobody is told it.
    NoTaskToken,
    /// A warning of ours: a call that needs parameters has none of its own.
    NoParameters,
    /// A warning of ours: blanks around `{% … %}` make it a text.
    NoExpression,
    /// Ours, a warning: a key that stands twice in one object.
    DuplicateKey,
    /// Ours: the language has it, this crate does not yet.
    NotAvailableYet,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingDescription => "MISSING_DESCRIPTION",
            Self::InvalidJsonDescription => "INVALID_JSON_DESCRIPTION",
            Self::SchemaValidationFailed => "SCHEMA_VALIDATION_FAILED",
            Self::MissingTransitionTarget => "MISSING_TRANSITION_TARGET",
            Self::MissingEndState => "MISSING_END_STATE",
            Self::DuplicateStateName => "DUPLICATE_STATE_NAME",
            Self::InvalidJsonataExpression => "INVALID_JSONATA_EXPRESSION",
            Self::UnsupportedJsonataExpression => "UNSUPPORTED_JSONATA_EXPRESSION",
            Self::NoDollar => "NO_DOLLAR",
            Self::NoPath => "NO_PATH",
            Self::PassResultIsStatic => "PASS_RESULT_IS_STATIC",
            Self::NoArn => "NO_ARN",
            Self::UnknownResource => "UNKNOWN_RESOURCE",
            Self::NoTaskToken => "NO_TASK_TOKEN",
            Self::NoParameters => "NO_PARAMETERS",
            Self::NoExpression => "NO_EXPRESSION",
            Self::DuplicateKey => "DUPLICATE_KEY",
            Self::NotAvailableYet => "NOT_AVAILABLE_YET",
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::NoDollar
            | Self::NoPath
            | Self::PassResultIsStatic
            | Self::NoArn
            | Self::UnknownResource
            | Self::NoTaskToken
            | Self::NoParameters
            | Self::NoExpression
            | Self::DuplicateKey => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem before its place in the text is known.
#[derive(Debug)]
struct Problem {
    code: Code,
    /// The pointer that AWS names; `None` for the few problems without a place.
    at: Option<String>,
    /// The pointer that people want to see, when it is another.
    spot: Option<String>,
    /// Where in the text it is, when the pointer finds another place.
    byte: Option<usize>,
    message: String,
    detail: Option<String>,
}

/// Whether a definition is new, or was taken once and has executions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Age {
    #[default]
    New,
    /// Only what cannot be run is a problem.
    Kept,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Report {
    age: Age,
    problems: Vec<Problem>,
    /// More were found than are kept.
    truncated: bool,
}

impl Report {
    /// Of a definition of that age.
    pub fn of(age: Age) -> Self {
        Self {
            age,
            ..Self::default()
        }
    }

    /// Whether checks apply that came after definitions without them had been taken.
    pub fn is_of_new(&self) -> bool {
        self.age == Age::New
    }

    pub fn add(&mut self, pointer: &str, code: Code, message: impl Into<String>) {
        self.keep(code, Some(pointer.to_owned()), message.into());
    }

    pub fn schema(&mut self, pointer: &str, message: impl Into<String>) {
        self.add(pointer, Code::SchemaValidationFailed, message);
    }

    /// A problem of the whole program in `pointer`, for which AWS names no place.
    pub fn placeless(&mut self, pointer: &str, code: Code, message: &str) {
        self.keep(code, None, message.to_owned());
        self.spot(pointer);
    }

    /// Says more about the last problem.
    pub fn detail(&mut self, detail: impl Into<String>) {
        if let Some(last) = self.problems.last_mut().filter(|_| !self.truncated) {
            last.detail = Some(detail.into());
        }
    }

    /// Shows people another place for the last problem than AWS names.
    pub fn spot(&mut self, pointer: &str) {
        if let Some(last) = self.problems.last_mut().filter(|_| !self.truncated) {
            last.spot = Some(pointer.to_owned());
        }
    }

    /// The last problem is at this byte of the text.
    pub fn byte(&mut self, byte: usize) {
        if let Some(last) = self.problems.last_mut().filter(|_| !self.truncated) {
            last.byte = Some(byte);
        }
    }

    pub fn unavailable(&mut self, pointer: &str, what: &str) {
        self.add(
            pointer,
            Code::NotAvailableYet,
            format!("{what} is not available yet"),
        );
    }

    fn keep(&mut self, code: Code, at: Option<String>, message: String) {
        if self.problems.len() >= limit::DIAGNOSTICS {
            self.truncated = true;
            return;
        }
        self.problems.push(Problem {
            code,
            at,
            spot: None,
            byte: None,
            message,
            detail: None,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The problems with their places in `text`, in its order; those without a place come last.
    pub fn finish(self, text: &str, definition: &Value) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<_> = self
            .problems
            .into_iter()
            .map(|problem| problem.placed(text, definition))
            .collect();
        diagnostics.sort_by_key(|found| (found.location.is_none(), found.line, found.column));
        diagnostics
    }
}

impl Problem {
    fn placed(self, text: &str, definition: &Value) -> Diagnostic {
        let root = |pointer: String| {
            if pointer.is_empty() {
                "/".to_owned()
            } else {
                pointer
            }
        };
        let location = self.at.map(|at| location(&root(at), definition));
        let at_root = || "/".to_owned();
        let pointer = match (self.spot, &location) {
            (Some(spot), _) => root(spot),
            (None, Some(location)) => location.pointer.clone(),
            (None, None) => at_root(),
        };
        let (line, column) = match self.byte {
            Some(byte) => place(text, byte),
            None => locate(text, &pointer),
        };
        Diagnostic {
            severity: self.code.severity(),
            code: self.code,
            message: self.message,
            detail: self.detail,
            location: location.map(|location| location.text),
            pointer,
            line,
            column,
        }
    }
}

struct Location {
    pointer: String,
    text: String,
}

/// A pointer as AWS writes it: elements of arrays in brackets, and nothing escaped.
fn location(pointer: &str, definition: &Value) -> Location {
    let mut text = String::new();
    let mut at = Some(definition);
    for token in pointer.split('/').skip(1).filter(|token| !token.is_empty()) {
        let token = token.replace("~1", "/").replace("~0", "~");
        match at {
            Some(Value::Array(items)) => {
                text.push_str(&format!("[{token}]"));
                at = token.parse::<usize>().ok().and_then(|index| items.get(index));
            }
            _ => {
                text.push_str(&format!("/{token}"));
                at = at.and_then(|value| value.get(&token));
            }
        }
    }
    Location {
        pointer: pointer.to_owned(),
        text: if text.is_empty() { "/".into() } else { text },
    }
}

/// Appends a token to a pointer.
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// Checks that every transition has a target, that the program can end, and that every state is reached. `program` is
/// the object with `States`; problems of its fields do not hinder.
pub fn transitions(program: &Value, pointer: &str, report: &mut Report) {
    let Some(states) = program["States"].as_object().filter(|states| !states.is_empty()) else {
        return;
    };
    let place = join(pointer, "States");
    let start = program["StartAt"].as_str();
    if let Some(start) = start.filter(|start| !states.contains_key(*start)) {
        missing(&join(pointer, "StartAt"), start, report);
    }
    for (name, state) in states {
        for (field, target) in targets(state) {
            if !states.contains_key(target) {
                missing(&format!("{}/{field}", join(&place, name)), target, report);
            }
        }
    }
    if !states.values().any(is_terminal) {
        report.placeless(pointer, Code::MissingEndState, "Workflow has no terminal state");
        return report.detail("No terminal state found in machine");
    }
    if let Some(start) = start.filter(|start| states.contains_key(*start)) {
        for name in unreached(states, start) {
            let message = format!("State \"{name}\" is not reachable.");
            report.add(&join(&place, name), Code::MissingTransitionTarget, message);
            report.detail(format!("No transition found to state {name}"));
        }
    }
}

/// Characters of a variable's name.
const NAME: usize = 80;

/// Checks the names that the `Assign` of a state, and those of its rules and catchers, give. That an inner scope assigns
/// what an outer one does is not refused: AWS runs such machines.
pub fn variables(state: &Value, pointer: &str, report: &mut Report) {
    names(&state["Assign"], pointer, report);
    for field in ["Choices", "Catch"] {
        for (at, entry) in state[field].as_array().into_iter().flatten().enumerate() {
            names(&entry["Assign"], &format!("{pointer}/{field}/{at}"), report);
        }
    }
}

fn names(assign: &Value, pointer: &str, report: &mut Report) {
    for (key, _) in assign.as_object().into_iter().flatten() {
        let variable = key.strip_suffix(".$").unwrap_or(key);
        if !is_name(variable) {
            let place = format!("{pointer}/Assign");
            report.schema(&place, format!("'{variable}' is not a valid variable name"));
            report.spot(&join(&place, key));
        }
    }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        && text.chars().count() <= NAME
        && text != "states"
}

fn missing(place: &str, target: &str, report: &mut Report) {
    let message = format!("Missing 'Next' target: {target}");
    report.add(place, Code::MissingTransitionTarget, message);
    report.detail(format!("No state found named \"{target}\""));
}

fn is_terminal(state: &Value) -> bool {
    state["End"] == true || state["Type"] == "Succeed" || state["Type"] == "Fail"
}

/// The states that nothing leads to, without those that would be reached if these were.
fn unreached<'a>(states: &'a Map<String, Value>, start: &'a str) -> Vec<&'a str> {
    let mut reached = BTreeSet::new();
    walk(states, start, &mut reached);
    let lost = |name: &&str| !reached.contains(name);
    let names: Vec<&str> = states.keys().map(String::as_str).filter(lost).collect();
    let led_to: BTreeSet<&str> = names
        .iter()
        .flat_map(|from| {
            targets(&states[*from])
                .into_iter()
                .map(move |(_, to)| (*from, to))
        })
        .filter(|(from, to)| from != to)
        .map(|(_, to)| to)
        .collect();
    let mut found = Vec::new();
    let first = names.iter().filter(|name| !led_to.contains(*name));
    // What is left then goes round in circles: one of each is named.
    for name in first.chain(&names) {
        if !reached.contains(name) {
            found.push(*name);
            walk(states, name, &mut reached);
        }
    }
    found
}

fn walk<'a>(states: &'a Map<String, Value>, from: &'a str, reached: &mut BTreeSet<&'a str>) {
    let mut queue = vec![from];
    while let Some(name) = queue.pop() {
        if reached.insert(name)
            && let Some(state) = states.get(name)
        {
            queue.extend(targets(state).into_iter().map(|(_, target)| target));
        }
    }
}

/// The transitions of a state: where they are written, and where they lead.
fn targets(state: &Value) -> Vec<(String, &str)> {
    let mut targets = Vec::new();
    for field in ["Next", "Default"] {
        targets.extend(state[field].as_str().map(|target| (field.to_owned(), target)));
    }
    for field in ["Choices", "Catch"] {
        let entries = state[field].as_array().into_iter().flatten().enumerate();
        targets.extend(
            entries.filter_map(|(at, entry)| Some((format!("{field}/{at}/Next"), entry["Next"].as_str()?))),
        );
    }
    targets
}
