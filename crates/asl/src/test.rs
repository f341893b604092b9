//! TestState: one state, run by itself with a mocked answer, and what became of its data on the way.
//!
//! The room knows AWS's request and response and the rules between them; what a state does with data is the
//! interpreter's (`step::inspect`). Nothing is called: a task without a mock is refused.

mod find;
mod schema;

use crate::machine::Machine;
use crate::step::inspect::{self, Ended, Inspection};
use crate::{Diagnostic, refusal};
use jiff::Timestamp;
use jsonata::json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The request of `TestState`. Payloads are JSON text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TestRequest {
    /// A state, or a state machine when there is a `state_name`.
    pub definition: String,
    pub role_arn: Option<String>,
    /// Without it, `{}`.
    pub input: Option<String>,
    pub inspection_level: Level,
    /// Has no effect, and is refused beside a mock: there are no secrets without a call.
    pub reveal_secrets: bool,
    pub variables: Option<String>,
    pub state_name: Option<String>,
    pub mock: Option<Mock>,
    /// The context object, instead of one that is made up.
    pub context: Option<String>,
    pub state_configuration: Configuration,
}

/// How much the response says of the way of the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    #[default]
    Info,
    Debug,
    /// What an HTTP task sent and received too; the same as `Debug` here.
    Trace,
}

/// What the task, or the whole Map or Parallel state, answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mock {
    pub result: Option<String>,
    pub error_output: Option<ErrorOutput>,
    pub field_validation_mode: Mode,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ErrorOutput {
    pub error: Option<String>,
    pub cause: Option<String>,
}

/// How closely a mocked result must be what the service answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// All required fields, and the types of all that are known.
    #[default]
    Strict,
    /// The types of the fields that are there.
    Present,
    None,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Configuration {
    /// Retries so far, of the retrier that matches.
    pub retrier_retry_count: Option<u32>,
    /// The state inside a Map or Parallel state in which the mocked error happened.
    pub error_caused_by_state: Option<String>,
    /// Iterations of a Map that failed.
    pub map_iteration_failure_count: Option<u64>,
    /// What the `ItemReader` of a Map reads, as JSON text.
    pub map_item_reader_data: Option<String>,
}

/// The response of `TestState`. Payloads are JSON text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspection_data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_state: Option<String>,
    pub status: Tested,
}

/// How the state ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Tested {
    Succeeded,
    Failed,
    /// A retrier would try it again.
    Retriable,
    CaughtError,
}

/// Why a request cannot be answered, with AWS's name of the exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    fn validation(message: impl Into<String>) -> Self {
        Self {
            code: "ValidationException",
            message: message.into(),
        }
    }

    fn definition(problems: &[Diagnostic]) -> Self {
        Self {
            code: "InvalidDefinition",
            message: refusal(problems),
        }
    }
}

/// Tests one state. `at` is the time that it sees, `seed` the source of its randomness.
///
/// # Errors
/// The request is not valid, in AWS's words where they are known.
pub fn test(request: &TestRequest, at: Timestamp, seed: [u64; 2]) -> Result<TestResponse, Refusal> {
    let found = find::state(&request.definition, request.state_name.as_deref())?;
    let machine = Machine::single(&found.name, &found.state, found.jsonata)
        .map_err(|problems| Refusal::definition(&problems))?;
    let input = parsed("input", request.input.as_deref().unwrap_or("{}"))?;
    let variables = match &request.variables {
        None => Map::new(),
        Some(text) => match parsed("variables", text)? {
            Value::Object(variables) => variables,
            _ => return Err(Refusal::validation("The variables must be a JSON object.")),
        },
    };
    let answer = answer(request, &found)?;
    let context = match &request.context {
        Some(text) => parsed("context", text)?,
        None => context(request, &found, &input, at),
    };
    let configuration = &request.state_configuration;
    if let Some(data) = &configuration.map_item_reader_data
        && data.len() > crate::limit::PAYLOAD
    {
        return Err(Refusal::validation("The mapItemReaderData is too large."));
    }
    let inspection = Inspection {
        machine: &machine,
        name: &found.name,
        input: &input,
        variables: &variables,
        context,
        answer,
        retries: configuration.retrier_retry_count.unwrap_or(0),
        failures: configuration.map_iteration_failure_count,
        read: configuration.map_item_reader_data.as_deref(),
        of_task: is_of_task(request, &found)?,
    };
    let seen = inspect::inspect(&inspection, at, seed);
    Ok(response(request, &input, &variables, seen))
}

/// Does a task report the mocked error? Inside a Map or Parallel state that depends on the state that it happened in.
fn is_of_task(request: &TestRequest, found: &find::Found) -> Result<bool, Refusal> {
    let Some(name) = &request.state_configuration.error_caused_by_state else {
        return Ok(true);
    };
    match find::within(&found.state, name) {
        Some(state) => Ok(state["Type"] == "Task"),
        None => Err(Refusal::validation(format!(
            "State '{name}' of errorCausedByState does not exist in the state"
        ))),
    }
}

fn parsed(what: &str, text: &str) -> Result<Value, Refusal> {
    let value =
        json::read(text).map_err(|error| Refusal::validation(format!("Invalid JSON in {what}: {error}")))?;
    match crate::size::within(&value, crate::limit::PAYLOAD, crate::limit::DEPTH) {
        Some(_) => Ok(value),
        None => Err(Refusal::validation(format!("The {what} is too large."))),
    }
}

/// The mocked answer, checked; `None` for states that need none.
fn answer(request: &TestRequest, found: &find::Found) -> Result<Option<inspect::Answer>, Refusal> {
    let kind = found.state["Type"].as_str().unwrap_or_default();
    let Some(mock) = &request.mock else {
        return unmocked(request, kind).map(|()| None);
    };
    if !["Task", "Map", "Parallel"].contains(&kind) {
        let message = format!("State type '{kind}' is not supported when a mock is specified");
        return Err(Refusal::validation(message));
    }
    if request.reveal_secrets {
        let message = "TestState does not support RevealSecrets when a mock is specified.";
        return Err(Refusal::validation(message));
    }
    match (&mock.result, &mock.error_output) {
        (Some(_), Some(_)) => Err(Refusal::validation(
            "A test mock should have only one of the following fields: [result, errorOutput].",
        )),
        (None, None) => Err(Refusal::validation(
            "A test mock should have one of the following fields: [result, errorOutput].",
        )),
        (None, Some(output)) => {
            let output = output.clone();
            Ok(Some(inspect::Answer::Error(output.error, output.cause)))
        }
        (Some(result), None) => {
            if json::read(result).is_err() {
                return Err(Refusal::validation("Mocked result must be valid JSON"));
            }
            let result = parsed("mock result", result)?;
            fits(request, found, kind, &result, mock.field_validation_mode)?;
            Ok(Some(inspect::Answer::Result(result)))
        }
    }
}

/// Whether a state can do without an answer.
fn unmocked(request: &TestRequest, kind: &str) -> Result<(), Refusal> {
    if request.state_configuration.map_iteration_failure_count.is_some() {
        let message = "TestState does not support MapIterationFailureCount when a mock is not specified.";
        return Err(Refusal::validation(message));
    }
    match kind {
        "Task" if request.role_arn.is_none() => Err(Refusal::validation(
            "RoleArn must be specified when testing a Task state",
        )),
        "Task" => Err(Refusal::validation(
            "TestState does not support Task states when a mock is not specified.",
        )),
        "Map" | "Parallel" => Err(Refusal {
            code: "InvalidDefinition",
            message: "TestState API does not support Map or Parallel states. Supported state types include: \
                      [Task, Wait, Pass, Succeed, Fail, Choice]"
                .into(),
        }),
        _ => Ok(()),
    }
}

/// Whether a mocked result can be the result of the state.
fn fits(
    request: &TestRequest,
    found: &find::Found,
    kind: &str,
    result: &Value,
    mode: Mode,
) -> Result<(), Refusal> {
    match kind {
        // What is written to an object store is not in the result: that says where it is.
        "Map" if found.state["ResultWriter"].get("Resource").is_some() => match result.is_object() {
            true => Ok(()),
            false => Err(Refusal::validation("Mocked result must be a JSON object.")),
        },
        "Map" | "Parallel" => {
            let Some(items) = result.as_array() else {
                return Err(Refusal::validation("Mocked result must be an array."));
            };
            let branches = found.state["Branches"].as_array().map_or(items.len(), Vec::len);
            if branches != items.len() {
                return Err(Refusal::validation(format!(
                    "Mocked result must have one element for each branch: {branches} of them"
                )));
            }
            let failures = request.state_configuration.map_iteration_failure_count;
            if failures.is_some_and(|failures| failures > items.len() as u64) {
                let message =
                    "Map iteration failure count must be less than or equal to the number of Map iterations";
                return Err(Refusal::validation(message));
            }
            Ok(())
        }
        "Task" => {
            let resource = found.state["Resource"].as_str().unwrap_or_default();
            schema::check(resource, result, mode)
                .map_err(|why| Refusal::validation(format!("Mock result schema validation error: {why}")))
        }
        _ => Err(Refusal::validation(format!(
            "A mock is not supported for {kind} states."
        ))),
    }
}

/// A context object as AWS makes it up: that of an Express execution, and a state called `StateName`.
fn context(request: &TestRequest, found: &find::Found, input: &Value, at: Timestamp) -> Value {
    let now = crate::instant::text(at);
    let place = "arn:aws:states:us-east-1:123456789012";
    let mut context = json!({
        "Execution": {
            "Id": format!("{place}:express:TestState:test:test"),
            "Input": input,
            "Name": "test",
            "RoleArn": request.role_arn,
            "StartTime": now,
        },
        "StateMachine": { "Id": format!("{place}:stateMachine:TestState"), "Name": "TestState" },
        "State": { "Name": "StateName", "EnteredTime": now },
    });
    if ["Task", "Map", "Parallel"]
        .iter()
        .any(|kind| found.state["Type"] == *kind)
    {
        context["State"]["RetryCount"] = request
            .state_configuration
            .retrier_retry_count
            .unwrap_or(0)
            .into();
    }
    if found.is_in_map {
        context["Map"] = json!({ "Item": { "Index": 0, "Value": null } });
        context["Map"]["Item"]["Value"] = input.clone();
    }
    let resource = found.state["Resource"].as_str().unwrap_or_default();
    if resource.contains(".waitForTaskToken") {
        context["Task"] = json!({ "Token": "TestStateToken" });
    }
    context
}

fn response(
    request: &TestRequest,
    input: &Value,
    variables: &Map<String, Value>,
    seen: inspect::Seen,
) -> TestResponse {
    let mut response = TestResponse {
        output: None,
        error: None,
        cause: None,
        inspection_data: None,
        next_state: None,
        status: Tested::Succeeded,
    };
    let text = Texts::of(request);
    let mut assigned = variables.clone();
    match seen.ended {
        Ended::Succeeded(left) => {
            response.output = Some(text.of_value(&left.output));
            response.next_state = left.next;
            assigned.extend(left.assigned);
        }
        Ended::Caught(fault, left) => {
            response.status = Tested::CaughtError;
            (response.error, response.cause) = (fault.error, fault.cause);
            response.output = Some(text.of_value(&left.output));
            response.next_state = left.next;
            assigned.extend(left.assigned);
        }
        Ended::Failed(fault) => {
            response.status = Tested::Failed;
            (response.error, response.cause) = (fault.error, fault.cause);
        }
        Ended::Retriable(fault) => {
            response.status = Tested::Retriable;
            (response.error, response.cause) = (fault.error, fault.cause);
        }
    }
    if request.inspection_level > Level::Info {
        let mut data = json!({ "input": text.of_value(input) });
        for (name, value) in &seen.payloads {
            data[*name] = text.of_value(value).into();
        }
        for (name, value) in seen.figures {
            data[name] = value;
        }
        if !assigned.is_empty() {
            data["variables"] = Value::Object(assigned).to_string().into();
        }
        response.inspection_data = Some(data);
    }
    response
}

/// The texts that came in: what nobody changed goes out as it came, with its blanks, as AWS does it.
struct Texts<'a>(Vec<&'a str>);

/// Arrays and objects in a text that are looked at.
const PARTS: usize = 1_000;

impl<'a> Texts<'a> {
    fn of(request: &'a TestRequest) -> Self {
        let mock = request.mock.as_ref().and_then(|mock| mock.result.as_deref());
        let texts = [request.input.as_deref(), mock].into_iter().flatten();
        Self(
            texts
                .flat_map(|text| std::iter::once(text.trim()).chain(parts(text)))
                .collect(),
        )
    }

    fn of_value(&self, value: &Value) -> String {
        let plain = value.to_string();
        let same = |text: &&&str| {
            // Blanks only make a text longer.
            text.len() >= plain.len() && json::read(text).is_ok_and(|own| own == *value)
        };
        self.0.iter().find(same).map_or(plain, |text| (*text).to_owned())
    }
}

/// The arrays and objects inside a JSON text.
fn parts(text: &str) -> Vec<&str> {
    let (mut open, mut found) = (Vec::new(), Vec::new());
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => open.push(at),
            b']' | b'}' if !quoted => found.extend(open.pop().and_then(|start| text.get(start..=at))),
            _ => {}
        }
        if found.len() >= PARTS {
            break;
        }
    }
    found
}
