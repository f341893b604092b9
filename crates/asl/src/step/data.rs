//! The flow of data through a state: input, result, output, variables, and where the state goes then.

use super::Run;
use crate::execution::{Parent, Position, Status, Strand, Variables};
use crate::fault::{self, Fault};
use crate::history;
use crate::instant;
use crate::limit;
use crate::machine::{Filter, Kind, Language, Pass, ResultPath, State, Text};
use crate::path::{Missing, Path};
use crate::payload::Payload;
use crate::query::Kind as Type;
use crate::scope::{Budget, Scope, Spent};
use crate::size;
use crate::template::{Expression, Template};
use serde_json::{Map, Value, json};
use std::cell::OnceCell;

/// What a state hands on when it is left.
pub(super) struct Outcome<'m> {
    pub output: Payload,
    pub assigned: Variables,
    /// `None` ends the strand.
    pub next: Option<&'m str>,
}

/// What an expression is about, besides its state.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    /// `$` of JSONPath.
    pub data: &'a Value,
    pub result: Option<&'a Value>,
    pub error: Option<&'a Value>,
    /// The item of the Map state itself, which only its selector sees.
    pub item: Option<Item<'a>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub index: usize,
    pub value: &'a Value,
    /// When the items are the members of an object.
    pub key: Option<&'a str>,
}

impl<'a> About<'a> {
    pub fn data(data: &'a Value) -> Self {
        Self {
            data,
            result: None,
            error: None,
            item: None,
        }
    }
}

impl<'m> Run<'m> {
    /// Evaluates expressions of a state.
    pub(crate) fn read<T>(
        &self,
        strand: &Strand,
        state: &State,
        about: About,
        read: impl FnOnce(&Scope) -> T,
    ) -> T {
        let context = if state.context {
            self.context(strand, state, about.item)
        } else {
            Value::Null
        };
        let variables = self.variables(strand);
        let budget = Budget::default();
        let answer = read(&Scope {
            data: about.data,
            context: &context,
            input: &strand.input,
            result: about.result,
            error: about.error,
            variables: &variables,
            random: &self.random,
            now: self.at,
            budget: &budget,
            states: OnceCell::new(),
        });
        self.walked.set(self.walked.get().saturating_add(budget.walked()));
        self.spent.set(self.spent.get().saturating_add(budget.share()));
        answer
    }

    /// The variables that a strand sees, its own first.
    fn variables<'a>(&'a self, strand: &'a Strand) -> Vec<&'a Variables> {
        let mut scopes = vec![&strand.variables];
        let mut parent = strand.parent.strand();
        while let Some(outer) = parent.and_then(|id| self.x.strands.get(&id)) {
            scopes.push(&outer.variables);
            parent = outer.parent.strand();
        }
        scopes
    }

    /// The context object.
    fn context(&self, strand: &Strand, state: &State, item: Option<Item>) -> Value {
        if let Some(given) = &self.given {
            let mut context = given.clone();
            if let (Some(item), Value::Object(_)) = (item, &context) {
                itemize(&mut context, item);
            }
            return context;
        }
        let Some(origin) = &self.x.origin else {
            return Value::Null;
        };
        let mut context = json!({
            "Execution": {
                "Id": origin.id,
                "Input": null,
                "StartTime": instant::text(origin.at),
                "Name": origin.name,
                "RoleArn": origin.role,
            },
            "StateMachine": { "Id": origin.machine_id, "Name": origin.machine_name },
            "State": { "Name": strand.state, "EnteredTime": instant::text(strand.since) },
        });
        // A value goes in as it is: `json!` would write its numbers anew.
        context["Execution"]["Input"] = Value::clone(&origin.input);
        if !self.x.synchronous {
            context["Execution"]["RedriveCount"] = self.x.redrives.into();
            if let Some(at) = self.x.redriven {
                context["Execution"]["RedriveTime"] = instant::text(at).into();
            }
        }
        if state.kind.work().is_some() {
            context["State"]["RetryCount"] = strand.retries.into();
        }
        if let Kind::Task(task) = &state.kind
            && task.resource.contains(".waitForTaskToken")
        {
            let number = match strand.position {
                Position::Task { task, .. } => task,
                _ => self.x.next_task,
            };
            context["Task"] = json!({ "Token": self.token(number) });
        }
        if let Some(item) = item.or_else(|| self.item(strand)) {
            itemize(&mut context, item);
        }
        context
    }

    /// The item of the innermost iteration around a strand.
    fn item<'a>(&'a self, strand: &'a Strand) -> Option<Item<'a>> {
        let mut parent = &strand.parent;
        loop {
            match parent {
                Parent::None => return None,
                Parent::Item { index, value, .. } => {
                    return Some(Item {
                        index: *index,
                        value,
                        key: None,
                    });
                }
                Parent::Branch { of, .. } => parent = &self.x.strands.get(of)?.parent,
            }
        }
    }

    pub(super) fn pass(&mut self, id: u64, strand: Strand, state: &'m State, pass: &Pass) {
        let result = self
            .input(&strand, state)
            .and_then(|input| match (&pass.result, &pass.parameters) {
                (Some(result), _) => Ok(result.clone()),
                (None, Some(parameters)) => self
                    .template(&strand, state, parameters, About::data(&input))
                    .map(Payload::new),
                (None, None) => Ok(input),
            });
        match result {
            Ok(result) => self.complete(id, strand, state, Some(result)),
            Err(fault) => self.fail(id, strand, fault),
        }
    }

    pub(super) fn fail_state(
        &mut self,
        id: u64,
        strand: Strand,
        state: &'m State,
        error: Option<&Text>,
        cause: Option<&Text>,
    ) {
        let text =
            |text: Option<&Text>, name| text.map(|text| self.text(&strand, state, text, name)).transpose();
        let fault = text(error, "ErrorPath").and_then(|error| {
            let cause = text(cause, "CausePath")?;
            Ok(Fault {
                error,
                cause,
                ..Fault::default()
            })
        });
        let fault = fault.unwrap_or_else(|fault| fault);
        self.fail(id, strand, fault);
    }

    pub(super) fn text(
        &self,
        strand: &Strand,
        state: &State,
        text: &Text,
        name: &str,
    ) -> Result<String, Fault> {
        let expression = match text {
            Text::Fixed(text) => return Ok(text.clone()),
            Text::Computed(expression) => expression,
        };
        let about = About::data(&strand.input);
        let value = self.read(strand, state, about, |scope| match expression {
            Expression::Call(call) => call.evaluate(scope),
            Expression::Query(query) => query.expect(scope, Type::String),
            Expression::Path(path) => scope.read(path).map_err(|missing| invalid(path, &missing)),
        });
        let value = value.map_err(|fault| fault.at(&strand.state, strand.entered))?;
        match value {
            Value::String(text) => Ok(text),
            other => {
                let cause = format!("The {name} field must refer to a string but was: {other}");
                Err(Fault::runtime(cause).at(&strand.state, strand.entered))
            }
        }
    }

    /// The input of a state after its `InputPath`.
    pub(crate) fn input(&self, strand: &Strand, state: &State) -> Result<Payload, Fault> {
        self.filter(strand, state, &state.input, strand.input.clone())
    }

    /// Data after the `OutputPath` of a state.
    pub(super) fn output(&self, strand: &Strand, state: &State, data: Payload) -> Result<Payload, Fault> {
        self.filter(strand, state, &state.output, data)
    }

    fn filter(
        &self,
        strand: &Strand,
        state: &State,
        filter: &Filter,
        data: Payload,
    ) -> Result<Payload, Fault> {
        match filter {
            Filter::All => Ok(data),
            Filter::Nothing => Ok(Payload::new(json!({}))),
            Filter::Path(path) => self
                .read(strand, state, About::data(&data), |scope| {
                    scope.read(path).map_err(|missing| invalid(path, &missing))
                })
                .map(Payload::new)
                .map_err(|fault| fault.at(&strand.state, strand.entered)),
        }
    }

    pub(crate) fn template(
        &self,
        strand: &Strand,
        state: &State,
        template: &Template,
        about: About,
    ) -> Result<Value, Fault> {
        self.read(strand, state, about, |scope| template.evaluate(scope))
            .map_err(|fault| fault.at(&strand.state, strand.entered))
    }

    /// Leaves a state with `result`, or with its input when there is none, by way of its result and output fields.
    pub(super) fn complete(&mut self, id: u64, strand: Strand, state: &'m State, result: Option<Payload>) {
        let outcome = match state.language {
            Language::JsonPath => self.outcome(&strand, state, result),
            Language::JsonAta => {
                let about = About {
                    result: result.as_deref().filter(|_| state.kind.work().is_some()),
                    ..About::data(&strand.input)
                };
                let output = result.as_ref().unwrap_or(&strand.input);
                let (answer, assign) = (state.answer.as_ref(), state.assign.as_ref());
                self.answered(&strand, state, (answer, assign), about, output)
                    .map(|(output, assigned)| Outcome {
                        output,
                        assigned,
                        next: state.next.as_deref(),
                    })
            }
        };
        match outcome {
            Ok(outcome) => self.exit(id, strand, outcome),
            Err(fault) => self.fail(id, strand, fault),
        }
    }

    fn outcome(
        &self,
        strand: &Strand,
        state: &'m State,
        result: Option<Payload>,
    ) -> Result<Outcome<'m>, Fault> {
        let result = match result {
            Some(result) => result,
            None => self.input(strand, state)?,
        };
        let work = state.kind.work();
        let result = match work.and_then(|work| work.selector.as_ref()) {
            Some(selector) => Payload::new(self.template(strand, state, selector, About::data(&result))?),
            None => result,
        };
        let assigned = self.assigned(strand, state, state.assign.as_ref(), About::data(&result))?;
        let result_path = match &state.kind {
            Kind::Pass(pass) => &pass.result_path,
            _ => work.map_or(&ResultPath::Replace, |work| &work.result_path),
        };
        let merged = merge(strand, result_path, result)?;
        let output = self.output(strand, state, merged)?;
        Ok(Outcome {
            output,
            assigned,
            next: state.next.as_deref(),
        })
    }

    /// `Assign` and `Output` of JSONata; without an `Output`, `output` is handed on.
    pub(super) fn answered(
        &self,
        strand: &Strand,
        state: &State,
        (answer, assign): (Option<&Template>, Option<&Template>),
        about: About,
        output: &Payload,
    ) -> Result<(Payload, Variables), Fault> {
        let assigned = self.assigned(strand, state, assign, about)?;
        let output = match answer {
            Some(answer) => Payload::new(self.template(strand, state, answer, about)?),
            None => output.clone(),
        };
        Ok((output, assigned))
    }

    /// What a Choice hands on: `rule` and `assign` are those of what was chosen.
    pub(super) fn passed_on(
        &self,
        strand: &Strand,
        state: &'m State,
        input: Payload,
        (answer, assign): (Option<&Template>, Option<&Template>),
        next: &'m str,
    ) -> Result<Outcome<'m>, Fault> {
        let about = About::data(&input);
        let (output, assigned) = match state.language {
            Language::JsonAta => self.answered(strand, state, (answer, assign), about, &input)?,
            Language::JsonPath => {
                let assigned = self.assigned(strand, state, assign, about)?;
                (self.output(strand, state, input)?, assigned)
            }
        };
        Ok(Outcome {
            output,
            assigned,
            next: Some(next),
        })
    }

    /// The variables that an `Assign` sets; nothing is set yet.
    pub(super) fn assigned(
        &self,
        strand: &Strand,
        state: &State,
        assign: Option<&Template>,
        about: About,
    ) -> Result<Variables, Fault> {
        let Some(assign) = assign else {
            return Ok(Variables::new());
        };
        let Value::Object(assigned) = self.template(strand, state, assign, about)? else {
            return Err(Fault::runtime("Assign must be an object").at(&strand.state, strand.entered));
        };
        let mut total = 0_usize;
        for value in strand
            .variables
            .values()
            .map(|value| &**value)
            .chain(assigned.values())
        {
            let fits = size::within(value, limit::PAYLOAD, limit::DEPTH)
                .ok_or_else(|| Fault::too_large(&strand.state))?;
            total += fits;
        }
        if total > limit::VARIABLES {
            return Err(Fault::too_large(&strand.state));
        }
        let assigned = assigned.into_iter();
        Ok(assigned
            .map(|(name, value)| (name, Payload::new(value)))
            .collect())
    }

    /// Leaves a state.
    pub(super) fn exit(&mut self, id: u64, mut strand: Strand, outcome: Outcome<'m>) {
        let Outcome {
            output,
            assigned,
            next,
        } = outcome;
        if !output.fits() {
            let fault = Fault::too_large(&strand.state);
            return self.fail(id, strand, fault);
        }
        let Some(state) = self.state(&strand) else {
            return self.resume(id, strand);
        };
        let mut details = json!({ "name": strand.state });
        history::payload(&mut details, "output", &output);
        if !assigned.is_empty() {
            let texts: Map<_, _> = assigned
                .iter()
                .map(|(name, value)| (name.clone(), value.text().into()))
                .collect();
            details["assignedVariables"] = Value::Object(texts);
            details["assignedVariablesDetails"] = json!({ "truncated": false });
        }
        strand.last = self.emit(state.kind.exited(), strand.last, details);
        strand.variables.extend(assigned);
        match next {
            Some(next) => {
                next.clone_into(&mut strand.state);
                strand.input = output;
                strand.position = Position::Enter;
                self.resume(id, strand);
            }
            None if strand.parent == Parent::None => self.succeed(strand.last, output),
            None => self.child_succeeded(strand, output),
        }
    }

    fn succeed(&mut self, previous: u64, output: Payload) {
        if self.full {
            return;
        }
        let mut details = json!({});
        history::payload(&mut details, "output", &output);
        self.write("ExecutionSucceeded", previous, details);
        self.end(Status::Succeeded {
            output: output.into_value(),
        });
    }
}

/// Puts a result where `ResultPath` says, in the raw input.
/// Says in a context object, which is an object, which item it is about.
fn itemize(context: &mut Value, item: Item) {
    context["Map"] = json!({ "Item": { "Index": item.index, "Value": null } });
    context["Map"]["Item"]["Value"] = item.value.clone();
    if let Some(key) = item.key {
        context["Map"]["Item"]["Key"] = key.into();
    }
}

pub(super) fn merge(strand: &Strand, result_path: &ResultPath, result: Payload) -> Result<Payload, Fault> {
    match result_path {
        ResultPath::Replace => Ok(result),
        ResultPath::Discard => Ok(strand.input.clone()),
        ResultPath::Into(path) => {
            let (input, result) = (Value::clone(&strand.input), result.into_value());
            path.write(input, result).map(Payload::new).ok_or_else(|| {
                let cause = format!(
                    "Unable to apply ReferencePath {} to input {}",
                    path.text(),
                    strand.input.text()
                );
                Fault::named(fault::RESULT_PATH, cause).at(&strand.state, strand.entered)
            })
        }
    }
}

/// Jayway's complaint about a path.
pub(super) fn invalid(path: &Path, missing: &Missing) -> Fault {
    match missing {
        Missing::Spent => Spent.into(),
        missing => Fault::runtime(format!("Invalid path '{}' : {}", path.text(), missing.reason())),
    }
}
