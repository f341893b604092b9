//! Task: scheduling, and what workers report.

use super::Run;
use super::data::{About, invalid};
use super::wait::plain;
use crate::event::{Command, Timeout};
use crate::execution::{Position, Purpose, Strand};
use crate::fault::{self, Fault};
use crate::history;
use crate::limit;
use crate::machine::{self, Number, State, Task};
use crate::payload::Payload;
use crate::query::{self, Kind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The three families of history events.
enum Family<'a> {
    Activity,
    Lambda,
    /// An integration: its type (`sqs`, `aws-sdk:s3`) and what it does (`sendMessage.waitForTaskToken`).
    Service {
        kind: &'a str,
        action: &'a str,
    },
}

/// A number of the definition, or one found in the data and still to be checked.
pub(crate) enum Amount<T, F> {
    Fixed(T),
    Found(F),
}

pub(super) struct Order {
    task: u64,
    pub(super) input: Payload,
    timeout: Option<u64>,
    heartbeat: Option<u64>,
    role: Option<String>,
}

impl<'m> Run<'m> {
    pub(super) fn schedule(&mut self, id: u64, mut strand: Strand, state: &'m State, task: &'m Task) {
        if self.x.gone.contains(&task.resource) {
            let cause = format!("The activity {} does not exist.", task.resource);
            return self.fail(id, strand, Fault::runtime(cause));
        }
        let order = match self.order(&strand, state, task) {
            Ok(order) => order,
            Err(fault) => return self.fail(id, strand, fault),
        };
        self.x.next_task += 1;
        strand.last = self.emit(
            family(&task.resource).event("Scheduled"),
            strand.last,
            self.scheduled(task, &order),
        );
        let number = order.task;
        self.commands.push(Command::Schedule {
            task: number,
            resource: task.resource.clone(),
            input: order.input.into_value(),
            timeout: order.timeout,
            heartbeat: order.heartbeat,
            attempt: strand.retries.saturating_add(1),
            state: strand.state.clone(),
            token: self.token(number),
            role: order.role,
        });
        let timer = order
            .timeout
            .map(|seconds| self.timer(seconds as f64, Purpose::TaskTimeout, id));
        strand.position = Position::Task {
            task: number,
            timer,
            started: false,
            submitted: false,
        };
        self.x.tasks.insert(number, id);
        self.x.strands.insert(id, strand);
    }

    pub(super) fn order(&self, strand: &Strand, state: &State, task: &Task) -> Result<Order, Fault> {
        let input = self.input(strand, state)?;
        let about = About::data(&input);
        let timeout = self.number(strand, state, task.timeout.as_ref(), about, "TimeoutSecondsPath")?;
        let heartbeat = self.number(
            strand,
            state,
            task.heartbeat.as_ref(),
            about,
            "HeartbeatSecondsPath",
        )?;
        let role = match &task.credentials {
            None => None,
            Some(credentials) => match self.template(strand, state, credentials, about)?.get("RoleArn") {
                Some(Value::String(role)) => Some(role.clone()),
                _ => {
                    return Err(Fault::runtime("The RoleArn of the Credentials is not a string")
                        .at(&strand.state, strand.entered));
                }
            },
        };
        let input = match &task.work.parameters {
            Some(parameters) => Payload::new(self.template(strand, state, parameters, about)?),
            None => input,
        };
        if !input.fits() {
            return Err(Fault::too_large(&strand.state));
        }
        Ok(Order {
            task: self.x.next_task,
            input,
            timeout,
            heartbeat,
            role,
        })
    }

    fn scheduled(&self, task: &Task, order: &Order) -> Value {
        let mut details = json!({});
        match family(&task.resource) {
            Family::Activity | Family::Lambda => {
                history::payload(&mut details, "input", &order.input);
                details["resource"] = task.resource.as_str().into();
            }
            Family::Service { kind, action } => {
                details["parameters"] = order.input.text().into();
                let region = self
                    .x
                    .origin
                    .as_ref()
                    .and_then(|origin| origin.machine_id.split(':').nth(3));
                details["region"] = region.unwrap_or_default().into();
                details["resource"] = action.into();
                details["resourceType"] = kind.into();
            }
        }
        for (name, seconds) in [
            ("timeoutInSeconds", order.timeout),
            ("heartbeatInSeconds", order.heartbeat),
        ] {
            if let Some(seconds) = seconds {
                details[name] = seconds.into();
            }
        }
        if let Some(role) = &order.role {
            details["taskCredentials"] = json!({ "roleArn": role });
        }
        details
    }

    /// A positive number given as such, by a path or by a query.
    pub(crate) fn number(
        &self,
        strand: &Strand,
        state: &State,
        number: Option<&Number>,
        about: About,
        name: &str,
    ) -> Result<Option<u64>, Fault> {
        let read = |number: &Value| {
            let text = number.as_str().and_then(|text| text.parse().ok());
            number.as_i64().or(text)
        };
        let Some(number) = number else { return Ok(None) };
        let found = self.amount(strand, state, number, about, (name, "integer"), read)?;
        let most = i64::try_from(limit::SECONDS).unwrap_or(i64::MAX);
        match found {
            Amount::Fixed(number) => Ok(Some(number)),
            Amount::Found(number) if (0..=most).contains(&number) => Ok(u64::try_from(number).ok()),
            Amount::Found(number) => {
                let name = name.strip_suffix("Path").unwrap_or(name);
                let cause = format!("Expected non-negative integer for {name}, got '{number}' instead.");
                Err(Fault::runtime(cause).at(&strand.state, strand.entered))
            }
        }
    }

    /// A number as it is written, or as `read` makes it of what a path or a query yields.
    pub(crate) fn amount<T: Copy, F>(
        &self,
        strand: &Strand,
        state: &State,
        amount: &machine::Amount<T>,
        about: About,
        (name, wanted): (&str, &str),
        read: impl Fn(&Value) -> Option<F>,
    ) -> Result<Amount<T, F>, Fault> {
        let at = |fault: Fault| fault.at(&strand.state, strand.entered);
        match amount {
            machine::Amount::Fixed(number) => Ok(Amount::Fixed(*number)),
            machine::Amount::Path(path) => {
                let found = self.read(strand, state, about, |scope| {
                    scope.read(path).map_err(|missing| invalid(path, &missing))
                });
                let value = found.map_err(at)?;
                read(&value).map(Amount::Found).ok_or_else(|| {
                    at(Fault::runtime(format!(
                        "The {name} field refers to value \"{}\" which is not a valid {wanted}: {}",
                        plain(&value),
                        path.text()
                    )))
                })
            }
            machine::Amount::Query(query) => {
                let found = self.read(strand, state, about, |scope| query.expect(scope, Kind::Number));
                let value = found.map_err(at)?;
                let whole = query::whole(&value).map(Value::from);
                read(whole.as_ref().unwrap_or(&value))
                    .map(Amount::Found)
                    .ok_or_else(|| {
                        let name = name.strip_suffix("Path").unwrap_or(name);
                        at(query.refused(format!(
                            "The {name} field refers to value \"{value}\" which is not a valid {wanted}"
                        )))
                    })
            }
        }
    }

    /// The token of a task: the seed's secret, so that only who was given it can answer.
    pub(super) fn token(&self, task: u64) -> String {
        URL_SAFE_NO_PAD.encode(self.random.digest("task", task))
    }

    pub(super) fn task_started(&mut self, task: u64, worker: Option<&str>) -> bool {
        let Some((id, mut strand, state)) = self.open(task) else {
            return false;
        };
        let Position::Task { started, .. } = &mut strand.position else {
            return self.put_back(id, strand);
        };
        if std::mem::replace(started, true) {
            return self.put_back(id, strand);
        }
        let family = family(&state.resource);
        let details = match (&family, worker) {
            (Family::Activity, Some(worker)) => json!({ "workerName": worker }),
            _ => family.details(),
        };
        strand.last = self.emit(family.event("Started"), strand.last, details);
        self.x.strands.insert(id, strand);
        true
    }

    pub(super) fn task_submitted(&mut self, task: u64, output: &Value) -> bool {
        let Some((id, mut strand, state)) = self.open(task) else {
            return false;
        };
        let family = family(&state.resource);
        let output = Payload::new(output.clone());
        let fits = matches!(family, Family::Service { .. }) && output.fits();
        let Position::Task { submitted, .. } = &mut strand.position else {
            return self.put_back(id, strand);
        };
        if !fits || std::mem::replace(submitted, true) {
            return self.put_back(id, strand);
        }
        let mut details = family.details();
        history::payload(&mut details, "output", &output);
        strand.last = self.emit(family.event("Submitted"), strand.last, details);
        self.x.strands.insert(id, strand);
        true
    }

    pub(super) fn task_succeeded(&mut self, task: u64, output: &Value) -> bool {
        let Some((id, mut strand, state)) = self.open(task) else {
            return false;
        };
        let output = Payload::new(output.clone());
        if !output.fits() {
            let fault = Fault {
                terminal: false,
                task: true,
                ..Fault::too_large(&state.resource)
            };
            self.report(id, strand, state, "Failed", fault);
            return true;
        }
        let family = family(&state.resource);
        let mut details = family.details();
        history::payload(&mut details, "output", &output);
        strand.last = self.emit(family.event("Succeeded"), strand.last, details);
        if let Some(timer) = strand.timer() {
            self.stop_timer(timer);
        }
        self.x.tasks.remove(&task);
        match self.state(&strand) {
            Some(state) => self.complete(id, strand, state, Some(output)),
            None => self.resume(id, strand),
        }
        true
    }

    pub(super) fn task_failed(&mut self, task: u64, error: Option<&str>, cause: Option<&str>) -> bool {
        let Some((id, strand, state)) = self.open(task) else {
            return false;
        };
        let cut = |text: Option<&str>, most| text.map(|text| text.chars().take(most).collect::<String>());
        let fault = Fault {
            error: cut(error, limit::ERROR),
            cause: cut(cause, limit::CAUSE),
            task: true,
            ..Fault::default()
        };
        self.report(id, strand, state, "Failed", fault);
        true
    }

    pub(super) fn task_refused(&mut self, task: u64, cause: &str) -> bool {
        let Some((id, strand, state)) = self.open(task) else {
            return false;
        };
        let cause: String = cause.chars().take(limit::CAUSE).collect();
        self.report(id, strand, state, "Failed", Fault::runtime(cause));
        true
    }

    pub(super) fn task_timed_out(&mut self, task: u64, kind: Timeout) -> bool {
        let Some((id, strand, _)) = self.open(task) else {
            return false;
        };
        self.timed_out(id, strand, kind);
        true
    }

    /// A missed heartbeat has AWS's name for a time-out, and answers to its own as well.
    pub(super) fn timed_out(&mut self, id: u64, strand: Strand, kind: Timeout) {
        let Some(State {
            kind: machine::Kind::Task(task),
            ..
        }) = self.state(&strand)
        else {
            return self.resume(id, strand);
        };
        let alias = (kind == Timeout::Heartbeat).then(|| fault::HEARTBEAT.to_owned());
        let fault = Fault {
            error: Some(fault::TIMEOUT.into()),
            alias,
            task: true,
            ..Fault::default()
        };
        self.report(id, strand, task, "TimedOut", fault);
    }

    fn report(&mut self, id: u64, mut strand: Strand, task: &Task, what: &str, fault: Fault) {
        let family = family(&task.resource);
        let mut details = family.details();
        history::failure(&mut details, fault.error.as_deref(), fault.cause.as_deref());
        strand.last = self.emit(family.event(what), strand.last, details);
        self.fail(id, strand, fault);
    }

    /// Takes out the strand that waits for `task`.
    fn open(&mut self, task: u64) -> Option<(u64, Strand, &'m Task)> {
        let id = *self.x.tasks.get(&task)?;
        let strand = self.x.strands.get(&id)?;
        let State {
            kind: machine::Kind::Task(state),
            ..
        } = self.state(strand)?
        else {
            return None;
        };
        let strand = self.x.strands.remove(&id)?;
        Some((id, strand, state))
    }

    fn put_back(&mut self, id: u64, strand: Strand) -> bool {
        self.x.strands.insert(id, strand);
        false
    }
}

impl Family<'_> {
    fn event(&self, what: &str) -> String {
        let family = match self {
            Self::Activity => "Activity",
            Self::Lambda => "LambdaFunction",
            Self::Service { .. } => "Task",
        };
        format!("{family}{what}")
    }

    fn details(&self) -> Value {
        match self {
            Self::Activity | Self::Lambda => json!({}),
            Self::Service { kind, action } => json!({ "resource": action, "resourceType": kind }),
        }
    }
}

/// An activity is an activity's ARN, and any text that is not an ARN of AWS.
fn family(resource: &str) -> Family<'_> {
    if let Some(service) = resource
        .strip_prefix("arn:")
        .and_then(|rest| rest.split_once(":states:::"))
    {
        let rest = service.1;
        let head = if rest.starts_with("aws-sdk:") {
            "aws-sdk:".len()
        } else {
            0
        };
        let colon = rest[head..].find(':').map_or(rest.len(), |at| head + at);
        return Family::Service {
            kind: &rest[..colon],
            action: rest.get(colon + 1..).unwrap_or_default(),
        };
    }
    if resource.split(':').nth(2) == Some("lambda") {
        Family::Lambda
    } else {
        Family::Activity
    }
}
