//! The service that tasks call without a worker of their own: Step Functions, which is this platform.
//!
//! `arn:aws:states:::states:startExecution` with `.sync`, `.sync:2` and `.waitForTaskToken`, and every operation of the
//! API as `arn:aws:states:::aws-sdk:sfn:…`. A task acts as a developer of its tenant. It is offered again when the
//! process that had it is gone, so what it starts has the task in its origin, and is started once.
//!
//! Names, results and errors as AWS's integrations have them: "Integrate AWS Step Functions with Step Functions" and "AWS
//! SDK service integrations" in its developer guide, and recorded executions.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use engine::{Handle, Offer};
use model::{
    Digest,
    policy::{Principal, Role},
};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    OPERATIONS,
    call::Call,
    executions::{fresh_name, named_by},
    fault::Fault,
};
use crate::web::state::State;

const PREFIX: &str = "arn:aws:states:::";
const SDK: &str = "aws-sdk:sfn:";
/// Calls of one tenant that are made at once.
const CALLS: usize = 8;
/// Those that wait for others, and so must not hold the places that the others need.
const PATIENT: [&str; 2] = ["GetActivityTask", "StartSyncExecution"];
/// After a call that the platform's own fault kept from being made.
const AGAIN: Duration = Duration::from_secs(1);
/// Members that are JSON in a text; whoever gives them as JSON means the same.
const TEXTS: [&str; 4] = ["input", "output", "definition", "mock"];

/// What a resource asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Service {
    /// Is it the plain API, not the integration that is made for state machines?
    sdk: bool,
    operation: &'static str,
    until: Until,
}

/// When the task is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Answered,
    /// Whoever has the task's token says.
    Called,
    /// The execution that it starts has ended. Are its input and output given as JSON?
    Ended(bool),
}

impl Service {
    fn parse(resource: &str) -> Option<Self> {
        let rest = resource.strip_prefix(PREFIX)?;
        let (sdk, action) = match rest.strip_prefix(SDK) {
            Some(action) => (true, action),
            None => (false, rest.strip_prefix("states:")?),
        };
        let (name, pattern) = match action.split_once('.') {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (action, None),
        };
        let until = match pattern {
            None => Until::Answered,
            Some("waitForTaskToken") => Until::Called,
            Some("sync") if !sdk => Until::Ended(false),
            Some("sync:2") if !sdk => Until::Ended(true),
            Some(_) => return None,
        };
        let (operation, _) = OPERATIONS
            .into_iter()
            .find(|(known, _)| cased(known, false) == name)?;
        let is_known = sdk || operation == "StartExecution";
        is_known.then_some(Self {
            sdk,
            operation,
            until,
        })
    }

    /// Every resource that is known.
    fn all() -> Vec<String> {
        let actions = OPERATIONS.map(|(name, _)| format!("{SDK}{}", cased(name, false)));
        let services = actions.into_iter().chain(["states:startExecution".to_owned()]);
        let patterns = ["", ".waitForTaskToken", ".sync", ".sync:2"];
        services
            .flat_map(|service| patterns.map(|pattern| format!("{PREFIX}{service}{pattern}")))
            .filter(|resource| Self::parse(resource).is_some())
            .collect()
    }

    /// A refusal as the language knows it.
    fn failure(self, fault: &Fault) -> Failure {
        let (service, name) = match self.sdk {
            true => ("Sfn", fault.name),
            false => ("StepFunctions", fault.name),
        };
        let kind = name.strip_suffix("Exception").unwrap_or(name);
        let (message, code) = (&fault.message, fault.status().as_u16());
        let cause = match self.sdk {
            true => format!(
                "{message} (Service: Sfn, Status Code: {code}, Request ID: {})",
                fresh_name()
            ),
            false => format!(
                "{message} (Service: AWSStepFunctions; Status Code: {code}; Error Code: {name}; Request ID: {}; \
                 Proxy: null)",
                fresh_name()
            ),
        };
        Failure {
            error: format!("{service}.{kind}Exception"),
            cause,
        }
    }
}

/// Why a task fails.
struct Failure {
    error: String,
    cause: String,
}

/// Is this a resource that the platform itself answers for?
pub fn is_called(resource: &str) -> bool {
    Service::parse(resource).is_some()
}

/// Is it one of Step Functions, known or not?
pub fn is_own(resource: &str) -> bool {
    resource
        .strip_prefix(PREFIX)
        .is_some_and(|rest| rest.starts_with(SDK) || rest.starts_with("states:"))
}

/// Answers for tasks until `stop`.
pub fn work(state: &State, stop: &CancellationToken) {
    let turns = Arc::new(Turns::default());
    for resource in Service::all() {
        let taking = take(state.clone(), resource, Arc::clone(&turns), stop.clone());
        let stop = stop.clone();
        state
            .tasks
            .spawn(async move { stop.run_until_cancelled(taking).await });
    }
}

async fn take(state: State, resource: String, turns: Arc<Turns>, stop: CancellationToken) {
    let service = Service::parse(&resource).expect("all resources are known");
    // The engine ends with the platform.
    while let Ok(offer) = state.states.engine.poll(&resource, None).await {
        let errand = Errand {
            turns: turns.of(offer.owner),
            state: state.clone(),
            service,
            offer,
        };
        let stop = stop.clone();
        state
            .tasks
            .spawn(async move { stop.run_until_cancelled(errand.run()).await });
    }
}

/// The places for calls of each tenant.
#[derive(Default)]
struct Turns(Mutex<HashMap<u64, Arc<Semaphore>>>);

impl Turns {
    fn of(&self, owner: u64) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = all
            .entry(owner)
            .or_insert_with(|| Arc::new(Semaphore::new(CALLS)));
        Arc::clone(places)
    }
}

/// A task, and what it asks for.
struct Errand {
    turns: Arc<Semaphore>,
    state: State,
    service: Service,
    offer: Offer,
}

impl Errand {
    async fn run(self) {
        let (engine, token) = (&self.engine().clone(), self.offer.token.clone());
        // What is started must be known, so that it can be stopped: the call is made whatever comes in between.
        let (called, is_over) = {
            let mut call = pin!(self.call());
            tokio::select! {
                called = &mut call => (called, false),
                () = engine.over(&token) => match self.service.until {
                    Until::Ended(_) => (call.await, true),
                    Until::Answered | Until::Called => return,
                },
            }
        };
        let answered = match called {
            Ok(answer) if is_over => return self.leave(&answer).await,
            Ok(answer) => tokio::select! {
                answered = self.answer(&answer) => answered,
                () = engine.over(&token) => return self.leave(&answer).await,
            },
            Err(fault) => Err(self.service.failure(&fault)),
        };
        let owner = self.offer.owner;
        let told = match answered {
            Ok(Some(output)) => engine.succeed(owner, &token, output).await,
            Ok(None) => Ok(()),
            Err(Failure { error, cause }) => engine.fail(owner, &token, Some(error), Some(cause)).await,
        };
        match told {
            // Somebody else has answered, or its time was over.
            Ok(()) | Err(engine::Error::TaskGone) => {}
            // It is offered again.
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "a task's answer is not kept"
            ),
        }
    }

    fn engine(&self) -> &Handle {
        &self.state.states.engine
    }

    /// The task's output, or `None` when somebody else gives it.
    async fn answer(&self, answer: &Value) -> Result<Option<Value>, Failure> {
        let output = self.shown(answer.clone());
        let parsed = match self.service.until {
            Until::Answered => return Ok(Some(output)),
            Until::Called => None,
            Until::Ended(parsed) => Some(parsed),
        };
        let (owner, token) = (self.offer.owner, &self.offer.token);
        // One that is not kept is offered again, and this is in vain.
        let _ = self.engine().submit(owner, token, output).await;
        match parsed {
            None => Ok(None),
            Some(parsed) => self.ended(arn_of(answer), parsed).await.map(Some),
        }
    }

    /// Makes the call that the task is about, until the platform can.
    async fn call(&self) -> Result<Value, Fault> {
        loop {
            let called = match PATIENT.contains(&self.service.operation) {
                true => self.call_once().await,
                false => {
                    let _turn = self.turns.acquire().await;
                    self.call_once().await
                }
            };
            match called {
                Err(fault) if fault.is_ours() => tokio::time::sleep(AGAIN).await,
                called => return called,
            }
        }
    }

    async fn call_once(&self) -> Result<Value, Fault> {
        let mut input = asked(&self.offer.input, true);
        if self.service.operation == "StartExecution"
            && let Some(members) = input.as_object_mut()
        {
            members.entry("name").or_insert_with(|| self.name().into());
        }
        let call = self.made(input).await?;
        match self.service.operation {
            "StartExecution" => {
                call.start_once(matches!(self.service.until, Until::Ended(_)))
                    .await
            }
            operation => call.run(operation).await,
        }
    }

    async fn made(&self, input: Value) -> Result<Call, Fault> {
        let (owner, key) = (self.offer.owner, self.offer.execution);
        let store = &self.state.store;
        let (tenant, parent) = store
            .read(move |db| {
                let parent = db.run_by_key(key)?.map(|(run, _)| run.arn);
                Ok::<_, store::Error>((db.tenant_numbered(owner)?, parent))
            })
            .await?;
        // Without one, nothing may be done: there is no tenant with this number any more.
        let tenant = tenant.ok_or_else(|| Fault::denied("the execution's tenant is gone"))?;
        let who = Principal {
            actor: parent.unwrap_or_else(|| "an express execution".into()),
            role: Role::Developer,
            tenant: Some(tenant),
        };
        let (_, action) = OPERATIONS
            .into_iter()
            .find(|(name, _)| *name == self.service.operation)
            .ok_or_else(Fault::unknown_operation)?;
        let mut call = Call::new(self.state.clone(), who, action, &HeaderMap::new(), input)?;
        call.task = Some(self.mark().hex());
        Ok(call)
    }

    /// What tells this task from all others, and does not tell its token.
    fn mark(&self) -> Digest {
        Digest::of_parts(["task", &self.offer.token])
    }

    /// What the execution is called that this task starts.
    fn name(&self) -> String {
        let mark = self.mark();
        let (high, low) = mark.as_bytes()[..16].split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        named_by(word(high), word(low))
    }

    /// What an answer of the API looks like in a state machine.
    fn shown(&self, answer: Value) -> Value {
        let mut shown = shown(answer, self.service.sdk);
        if !self.service.sdk {
            shown["SdkHttpMetadata"] = json!({ "HttpStatusCode": 200 });
            shown["SdkResponseMetadata"] = json!({ "RequestId": fresh_name() });
        }
        shown
    }

    /// Waits until the execution has ended, and gives what became of it.
    async fn ended(&self, arn: &str, parsed: bool) -> Result<Value, Failure> {
        loop {
            match self.look(arn).await {
                Ok(Some(about)) => return told(about, parsed),
                Ok(None) => {}
                Err(fault) if fault.is_ours() => tokio::time::sleep(AGAIN).await,
                Err(fault) => return Err(self.service.failure(&fault)),
            }
        }
    }

    /// What became of an execution if it has ended; otherwise waits for news of it.
    async fn look(&self, arn: &str) -> Result<Option<Value>, Fault> {
        let call = self.made(json!({ "executionArn": arn })).await?;
        let end = self.engine().end_of(call.run_of(arn).await?.key).await?;
        let about = call.describe_execution().await?;
        if about["status"] != "RUNNING" {
            return Ok(Some(about));
        }
        // It is dropped: that is the news.
        let _ = end.await;
        Ok(None)
    }

    /// The task is said to be over before its answer came: what it has started for itself is stopped. Not when it is
    /// offered again, because a commit failed.
    async fn leave(&self, answer: &Value) {
        if !matches!(self.service.until, Until::Ended(_))
            || !matches!(self.engine().is_open(&self.offer.token).await, Ok(false))
        {
            return;
        }
        let stopped = async {
            let arn = arn_of(answer);
            let call = self.made(json!({ "executionArn": arn })).await?;
            let key = call.run_of(arn).await?.key;
            match self.engine().stop(key, None, None).await {
                Ok(_) | Err(engine::Error::NotOpen(_)) => Ok(()),
                Err(error) => Err(Fault::from(error)),
            }
        };
        if let Err(fault) = stopped.await {
            warn!(
                "an execution goes on though the task that waits for it is over: {}",
                fault.message
            );
        }
    }
}

/// The execution that was started.
fn arn_of(answer: &Value) -> &str {
    answer["executionArn"].as_str().unwrap_or_default()
}

/// What became of an execution, as `.sync` tells it.
fn told(about: Value, parsed: bool) -> Result<Value, Failure> {
    const MEMBERS: [&str; 14] = [
        "Cause",
        "Error",
        "ExecutionArn",
        "Input",
        "InputDetails",
        "Name",
        "Output",
        "OutputDetails",
        "StartDate",
        "StateMachineAliasArn",
        "StateMachineArn",
        "StateMachineVersionArn",
        "Status",
        "StopDate",
    ];
    let mut about = shown(about, false);
    let mut result = Map::new();
    for member in MEMBERS {
        let value = about[member].take();
        let value = match value.as_str() {
            Some(text) if parsed && matches!(member, "Input" | "Output") => {
                asl::json::read(text).unwrap_or(Value::Null)
            }
            None if value.is_null() => continue,
            _ => value,
        };
        result.insert(member.into(), value);
    }
    match result.get("Status").and_then(Value::as_str) {
        Some("SUCCEEDED") => Ok(result.into()),
        _ => Err(Failure {
            error: "States.TaskFailed".into(),
            cause: Value::Object(result).to_string(),
        }),
    }
}

/// The parameters of a task, whose members begin with capitals, as the API wants them.
fn asked(parameters: &Value, outermost: bool) -> Value {
    match parameters {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| {
                    let name = cased(name, false);
                    let value = match value {
                        Value::String(_) => value.clone(),
                        value if outermost && TEXTS.contains(&name.as_str()) => value.to_string().into(),
                        value => asked(value, false),
                    };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(|item| asked(item, false)).collect(),
        other => other.clone(),
    }
}

/// An answer of the API with names that begin with capitals. Times are texts, or milliseconds since 1970.
fn shown(answer: Value, texts: bool) -> Value {
    match answer {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| {
                    let is_time = name.ends_with("Date") || name == "timestamp";
                    let value = match value.as_f64().filter(|_| is_time) {
                        Some(seconds) => time(seconds, texts),
                        // What it has are names of states.
                        None if name == "variableReferences" => value,
                        None => shown(value, texts),
                    };
                    (cased(&name, true), value)
                })
                .collect(),
        ),
        Value::Array(items) => items.into_iter().map(|item| shown(item, texts)).collect(),
        other => other,
    }
}

fn time(seconds: f64, text: bool) -> Value {
    let milliseconds = (seconds * 1000.0).round() as i64;
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(at) if text => format!("{at:.3}").into(),
        _ => milliseconds.into(),
    }
}

/// A name with its first letter large or small.
fn cased(name: &str, large: bool) -> String {
    let mut letters = name.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    let first = match large {
        true => first.to_ascii_uppercase(),
        false => first.to_ascii_lowercase(),
    };
    std::iter::once(first).chain(letters).collect()
}
