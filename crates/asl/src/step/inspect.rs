//! One state by itself, with an answer that is given: what its data became on the way, and how it ended. The same
//! evaluations as in an execution, without events.

mod items;

use super::Run;
use super::data::{About, merge};
use crate::execution::{Execution, Parent, Strand, Variables};
use crate::fault::{self, Fault};
use crate::limit;
use crate::machine::{self, Kind, Language, Machine, ResultPath, Retrier, State};
use crate::payload::Payload;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A state, and what it is given.
pub(crate) struct Inspection<'a> {
    /// Of this one state.
    pub machine: &'a Machine,
    pub name: &'a str,
    pub input: &'a Value,
    pub variables: &'a Map<String, Value>,
    pub context: Value,
    pub answer: Option<Answer>,
    /// Of the retrier that matches, so far.
    pub retries: u32,
    /// Iterations of a Map that failed.
    pub failures: Option<u64>,
    /// What the `ItemReader` of a Map reads.
    pub read: Option<&'a str>,
    /// The mocked error is one of a task.
    pub of_task: bool,
}

/// What the task, or everything inside a Map or Parallel state, says.
pub(crate) enum Answer {
    Result(Value),
    Error(Option<String>, Option<String>),
}

pub(crate) struct Seen {
    /// Data on its way, under AWS's names.
    pub payloads: Vec<(&'static str, Payload)>,
    /// What is no data: numbers of a Map, which retrier and catcher.
    pub figures: Map<String, Value>,
    pub ended: Ended,
}

pub(crate) enum Ended {
    Succeeded(Left),
    Caught(Fault, Left),
    Retriable(Fault),
    Failed(Fault),
}

/// What a state hands on.
pub(crate) struct Left {
    pub output: Payload,
    pub assigned: Map<String, Value>,
    pub next: Option<String>,
}

pub(crate) fn inspect(inspection: &Inspection<'_>, at: Timestamp, seed: [u64; 2]) -> Seen {
    let mut run = Run::new(inspection.machine, Execution::new(), at);
    run.random = crate::random::Random::new(seed, 0);
    run.given = Some(inspection.context.clone());
    let input = Payload::new(inspection.input.clone());
    let mut strand = Strand::new(Parent::None, inspection.name, input, 0, at);
    let variables = inspection.variables.iter();
    strand.variables = variables
        .map(|(name, value)| (name.clone(), Payload::new(value.clone())))
        .collect();
    let mut seen = Seen {
        payloads: Vec::new(),
        figures: Map::new(),
        ended: Ended::Failed(Fault::default()),
    };
    let Some(state) = run.state(&strand) else {
        return seen;
    };
    seen.ended = match run.tested(&strand, state, inspection, &mut seen) {
        Ok(left) => Ended::Succeeded(left),
        Err(fault) => run.handled(&strand, state, inspection.retries, fault, &mut seen),
    };
    seen
}

impl Seen {
    fn note(&mut self, name: &'static str, value: &Payload) {
        self.payloads.push((name, value.clone()));
    }
}

impl<'m> Run<'m> {
    fn tested(
        &self,
        strand: &Strand,
        state: &'m State,
        inspection: &Inspection<'m>,
        seen: &mut Seen,
    ) -> Result<Left, Fault> {
        let path = state.language == Language::JsonPath;
        let fixed = matches!(&state.kind, Kind::Pass(pass) if pass.result.is_some());
        // What is mocked as a whole shows nothing of what would have gone in.
        let whole = matches!(state.kind, Kind::Parallel { .. });
        let input = self.input(strand, state)?;
        if path && !fixed && !whole {
            seen.note("afterInputPath", &input);
        }
        match &state.kind {
            Kind::Pass(pass) => self.passed(strand, state, pass, &input, seen),
            Kind::Choice(choice) => {
                let outcome = self.chosen(strand, state, choice)?;
                Ok(left(outcome.output, &outcome.assigned, outcome.next))
            }
            Kind::Wait(wait) => {
                let at = |fault: Fault| fault.at(&strand.state, strand.entered);
                self.due(strand, state, wait, &input).map_err(at)?;
                self.quiet(strand, state, input, seen)
            }
            Kind::Succeed => self.quiet(strand, state, input, seen),
            Kind::Fail { error, cause } => {
                Err(self.failure(strand, state, error.as_ref(), cause.as_ref())?)
            }
            Kind::Task(task) => {
                let order = self.order(strand, state, task)?;
                seen.note(
                    if path { "afterParameters" } else { "afterArguments" },
                    &order.input,
                );
                let result = answered(inspection, "the task")?;
                seen.note("result", &result);
                self.left(strand, state, result, seen)
            }
            Kind::Parallel { .. } => self.left(strand, state, answered(inspection, "the branches")?, seen),
            Kind::Map(map) => self.mapped(strand, state, map, inspection, seen),
        }
    }

    fn passed(
        &self,
        strand: &Strand,
        state: &'m State,
        pass: &machine::Pass,
        input: &Payload,
        seen: &mut Seen,
    ) -> Result<Left, Fault> {
        let result = match (&pass.result, &pass.parameters) {
            (Some(result), _) => {
                seen.note("result", result);
                result.clone()
            }
            (None, parameters) => {
                self.given(strand, state, parameters.as_ref(), input, "afterParameters", seen)?
            }
        };
        self.left(strand, state, result, seen)
    }

    /// What a template makes of the input.
    fn given(
        &self,
        strand: &Strand,
        state: &State,
        template: Option<&crate::template::Template>,
        input: &Payload,
        name: &'static str,
        seen: &mut Seen,
    ) -> Result<Payload, Fault> {
        let made = match template {
            Some(template) => Payload::new(self.template(strand, state, template, About::data(input))?),
            None => input.clone(),
        };
        if state.language == Language::JsonPath {
            seen.note(name, &made);
        }
        Ok(made)
    }

    fn mapped(
        &self,
        strand: &Strand,
        state: &'m State,
        map: &'m machine::Map,
        inspection: &Inspection<'m>,
        seen: &mut Seen,
    ) -> Result<Left, Fault> {
        let (_, open) = self.list(strand, state, map)?;
        self.itemized(strand, state, map, inspection, seen)?;
        seen.figures
            .insert("maxConcurrency".into(), open.unwrap_or(0).into());
        let (failures, percentage) = self.tolerance(strand, state, map)?;
        if let Some(failures) = failures {
            seen.figures
                .insert("toleratedFailureCount".into(), failures.into());
        }
        if let Some(percentage) = percentage {
            seen.figures
                .insert("toleratedFailurePercentage".into(), percentage.into());
        }
        let result = answered(inspection, "the iterations")?;
        let all = result.as_array().map_or(0, Vec::len) as f64;
        let failed = inspection.failures.unwrap_or(0);
        let counted = failed > failures.unwrap_or(if percentage.is_some() { u64::MAX } else { 0 });
        let shared = percentage.is_some_and(|most| failed as f64 * 100.0 > most * all);
        if counted || shared {
            let cause = "The specified tolerated failure threshold was exceeded";
            return Err(Fault::named(fault::THRESHOLD, cause));
        }
        self.left(strand, state, result, seen)
    }

    /// Wait and Succeed, which make nothing of their input and show nothing of it.
    fn quiet(
        &self,
        strand: &Strand,
        state: &'m State,
        input: Payload,
        seen: &mut Seen,
    ) -> Result<Left, Fault> {
        let known = seen.payloads.len();
        let left = self.left(strand, state, input, seen);
        seen.payloads.truncate(known);
        left
    }

    /// A result on its way out of the state.
    fn left(
        &self,
        strand: &Strand,
        state: &'m State,
        result: Payload,
        seen: &mut Seen,
    ) -> Result<Left, Fault> {
        let work = state.kind.work();
        let (output, assigned) = match state.language {
            Language::JsonAta => {
                let about = About {
                    result: Some(&*result).filter(|_| work.is_some()),
                    ..About::data(&strand.input)
                };
                let fields = (state.answer.as_ref(), state.assign.as_ref());
                self.answered(strand, state, fields, about, &result)?
            }
            Language::JsonPath => {
                let selector = work.and_then(|work| work.selector.as_ref());
                let result = self.given(strand, state, selector, &result, "afterResultSelector", seen)?;
                let assigned = self.assigned(strand, state, state.assign.as_ref(), About::data(&result))?;
                let path = match &state.kind {
                    Kind::Pass(pass) => &pass.result_path,
                    _ => work.map_or(&ResultPath::Replace, |work| &work.result_path),
                };
                let merged = merge(strand, path, result)?;
                seen.note("afterResultPath", &merged);
                (self.output(strand, state, merged)?, assigned)
            }
        };
        if crate::size::within(&output, limit::PAYLOAD, limit::DEPTH).is_none() {
            return Err(Fault::too_large(&strand.state));
        }
        Ok(left(output, &assigned, state.next.as_deref()))
    }

    fn failure(
        &self,
        strand: &Strand,
        state: &State,
        error: Option<&machine::Text>,
        cause: Option<&machine::Text>,
    ) -> Result<Fault, Fault> {
        let text = |text: Option<&machine::Text>, name: &str| {
            text.map(|text| self.text(strand, state, text, name)).transpose()
        };
        Ok(Fault {
            error: text(error, "ErrorPath")?,
            cause: text(cause, "CausePath")?,
            ..Fault::default()
        })
    }

    /// What retriers and catchers make of a failure.
    fn handled(
        &self,
        strand: &Strand,
        state: &'m State,
        retries: u32,
        fault: Fault,
        seen: &mut Seen,
    ) -> Ended {
        let Some(work) = state.kind.work() else {
            return Ended::Failed(fault);
        };
        let answers = |names: &[String]| names.iter().any(|name| fault.answers(name));
        let mut details = json!({});
        let retrier = work
            .retry
            .iter()
            .enumerate()
            .find(|(_, retrier)| answers(&retrier.errors));
        if let Some((index, retrier)) = retrier {
            details["retryIndex"] = index.into();
            if retries < retrier.attempts {
                details["retryBackoffIntervalSeconds"] = delay(retrier, retries).into();
                seen.figures.insert("errorDetails".into(), details);
                return Ended::Retriable(fault);
            }
        }
        let catcher = work
            .catch
            .iter()
            .enumerate()
            .find(|(_, catcher)| answers(&catcher.errors));
        if let Some((index, _)) = catcher {
            details["catchIndex"] = index.into();
        }
        if details.as_object().is_some_and(|details| !details.is_empty()) {
            seen.figures.insert("errorDetails".into(), details);
        }
        match catcher.map(|(_, catcher)| self.caught(strand, state, catcher, &fault)) {
            None => Ended::Failed(fault),
            Some(Ok(outcome)) => Ended::Caught(fault, left(outcome.output, &outcome.assigned, outcome.next)),
            Some(Err(fault)) => Ended::Failed(fault),
        }
    }
}

fn left(output: Payload, assigned: &Variables, next: Option<&str>) -> Left {
    let assigned = assigned.iter();
    Left {
        output,
        assigned: assigned
            .map(|(name, value)| (name.clone(), Value::clone(value)))
            .collect(),
        next: next.map(str::to_owned),
    }
}

/// The mocked result; its mocked error is the fault of `whom`.
fn answered(inspection: &Inspection, whom: &str) -> Result<Payload, Fault> {
    match &inspection.answer {
        Some(Answer::Result(result)) => Ok(Payload::new(result.clone())),
        Some(Answer::Error(error, cause)) => Err(Fault {
            error: error.clone(),
            cause: cause.clone(),
            task: inspection.of_task,
            terminal: error.as_deref() == Some(fault::RUNTIME),
            ..Fault::default()
        }),
        None => Err(Fault::runtime(format!("Nothing answers for {whom}."))),
    }
}

/// Whole seconds until the next attempt, before any jitter.
fn delay(retrier: &Retrier, retries: u32) -> u64 {
    let power = i32::try_from(retries).unwrap_or(i32::MAX);
    let most = retrier.most.unwrap_or(limit::SECONDS) as f64;
    (retrier.interval as f64 * retrier.rate.powi(power)).min(most) as u64
}
