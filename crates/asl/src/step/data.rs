//! The flow of data through a state: input, result, output, variables, and where the state goes then.

use super::Run;
use crate::execution::{Parent, Position, Status, Strand};
use crate::fault::{self, Fault};
use crate::history;
use crate::instant;
use crate::limit;
use crate::machine::{Filter, Kind, Pass, ResultPath, State, Text};
use crate::path::{Missing, Path};
use crate::scope::{Budget, Scope, Spent};
use crate::size;
use crate::template::{Expression, Template};
use serde_json::{Map, Value, json};

/// What a state hands on when it is left.
pub(super) struct Outcome<'m> {
    pub output: Value,
    pub assigned: Map<String, Value>,
    /// `None` ends the strand.
    pub next: Option<&'m str>,
}

impl<'m> Run<'m> {
    /// Evaluates with `data` as `$`.
    pub(super) fn read<T>(
        &self,
        strand: &Strand,
        state: &State,
        data: &Value,
        read: impl FnOnce(&Scope) -> T,
    ) -> T {
        self.read_item(strand, state, data, None, read)
    }

    /// The same with an item of the Map state itself, which only its selector sees.
    pub(super) fn read_item<T>(
        &self,
        strand: &Strand,
        state: &State,
        data: &Value,
        item: Option<(usize, &Value)>,
        read: impl FnOnce(&Scope) -> T,
    ) -> T {
        let context = if state.context {
            self.context(strand, state, item)
        } else {
            Value::Null
        };
        let variables = self.variables(strand);
        let budget = Budget::default();
        read(&Scope {
            data,
            context: &context,
            variables: &variables,
            random: &self.random,
            budget: &budget,
        })
    }

    /// The variables that a strand sees, its own first.
    fn variables<'a>(&'a self, strand: &'a Strand) -> Vec<&'a Map<String, Value>> {
        let mut scopes = vec![&strand.variables];
        let mut parent = strand.parent.strand();
        while let Some(outer) = parent.and_then(|id| self.x.strands.get(&id)) {
            scopes.push(&outer.variables);
            parent = outer.parent.strand();
        }
        scopes
    }

    /// The context object.
    fn context(&self, strand: &Strand, state: &State, item: Option<(usize, &Value)>) -> Value {
        let Some(origin) = &self.x.origin else {
            return Value::Null;
        };
        let mut context = json!({
            "Execution": {
                "Id": origin.id,
                "Input": origin.input,
                "StartTime": instant::text(origin.at),
                "Name": origin.name,
                "RoleArn": origin.role,
                "RedriveCount": 0,
            },
            "StateMachine": { "Id": origin.machine_id, "Name": origin.machine_name },
            "State": { "Name": strand.state, "EnteredTime": instant::text(strand.since) },
        });
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
        if let Some((index, value)) = item.or_else(|| self.item(strand)) {
            context["Map"] = json!({ "Item": { "Index": index, "Value": value } });
        }
        context
    }

    /// The item of the innermost iteration around a strand.
    fn item<'a>(&'a self, strand: &'a Strand) -> Option<(usize, &'a Value)> {
        let mut parent = &strand.parent;
        loop {
            match parent {
                Parent::None => return None,
                Parent::Item { index, value, .. } => return Some((*index, value)),
                Parent::Branch { of, .. } => parent = &self.x.strands.get(of)?.parent,
            }
        }
    }

    pub(super) fn pass(&mut self, id: u64, strand: Strand, state: &'m State, pass: &Pass) {
        let result = self
            .input(&strand, state)
            .and_then(|input| match (&pass.result, &pass.parameters) {
                (Some(result), _) => Ok(result.clone()),
                (None, Some(parameters)) => self.template(&strand, state, parameters, &input),
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

    fn text(&self, strand: &Strand, state: &State, text: &Text, name: &str) -> Result<String, Fault> {
        let expression = match text {
            Text::Fixed(text) => return Ok(text.clone()),
            Text::Computed(expression) => expression,
        };
        let value = self.read(strand, state, &strand.input, |scope| match expression {
            Expression::Call(call) => call.evaluate(scope),
            Expression::Query(query) => query.evaluate(scope),
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
    pub(super) fn input(&self, strand: &Strand, state: &State) -> Result<Value, Fault> {
        self.filter(strand, state, &state.input, strand.input.clone())
    }

    /// Data after the `OutputPath` of a state.
    pub(super) fn output(&self, strand: &Strand, state: &State, data: Value) -> Result<Value, Fault> {
        self.filter(strand, state, &state.output, data)
    }

    fn filter(&self, strand: &Strand, state: &State, filter: &Filter, data: Value) -> Result<Value, Fault> {
        match filter {
            Filter::All => Ok(data),
            Filter::Nothing => Ok(json!({})),
            Filter::Path(path) => self
                .read(strand, state, &data, |scope| {
                    scope.read(path).map_err(|missing| invalid(path, &missing))
                })
                .map_err(|fault| fault.at(&strand.state, strand.entered)),
        }
    }

    pub(super) fn template(
        &self,
        strand: &Strand,
        state: &State,
        template: &Template,
        data: &Value,
    ) -> Result<Value, Fault> {
        self.read(strand, state, data, |scope| template.evaluate(scope))
            .map_err(|fault| fault.at(&strand.state, strand.entered))
    }

    /// Leaves a state with `result`, or with its input when there is none, by way of its result and output fields.
    pub(super) fn complete(&mut self, id: u64, strand: Strand, state: &'m State, result: Option<Value>) {
        match self.outcome(&strand, state, result) {
            Ok(outcome) => self.exit(id, strand, outcome),
            Err(fault) => self.fail(id, strand, fault),
        }
    }

    fn outcome(
        &self,
        strand: &Strand,
        state: &'m State,
        result: Option<Value>,
    ) -> Result<Outcome<'m>, Fault> {
        let result = match result {
            Some(result) => result,
            None => self.input(strand, state)?,
        };
        let work = state.kind.work();
        let result = match work.and_then(|work| work.selector.as_ref()) {
            Some(selector) => self.template(strand, state, selector, &result)?,
            None => result,
        };
        let assigned = self.assigned(strand, state, state.assign.as_ref(), &result)?;
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

    /// The variables that an `Assign` sets; nothing is set yet.
    pub(super) fn assigned(
        &self,
        strand: &Strand,
        state: &State,
        assign: Option<&Template>,
        data: &Value,
    ) -> Result<Map<String, Value>, Fault> {
        let Some(assign) = assign else {
            return Ok(Map::new());
        };
        let Value::Object(assigned) = self.template(strand, state, assign, data)? else {
            return Err(Fault::runtime("Assign must be an object").at(&strand.state, strand.entered));
        };
        let mut total = 0_usize;
        for value in strand.variables.values().chain(assigned.values()) {
            let fits = size::within(value, limit::PAYLOAD, limit::DEPTH)
                .ok_or_else(|| Fault::too_large(&strand.state))?;
            total += fits;
        }
        if total > limit::VARIABLES {
            Err(Fault::too_large(&strand.state))
        } else {
            Ok(assigned)
        }
    }

    /// Leaves a state.
    pub(super) fn exit(&mut self, id: u64, mut strand: Strand, outcome: Outcome<'m>) {
        let Outcome {
            output,
            assigned,
            next,
        } = outcome;
        if size::within(&output, limit::PAYLOAD, limit::DEPTH).is_none() {
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
                .map(|(name, value)| (name.clone(), value.to_string().into()))
                .collect();
            details["assignedVariables"] = Value::Object(texts);
            details["assignedVariablesDetails"] = json!({ "truncated": false });
        }
        strand.last = self.emit(format!("{}StateExited", state.kind.name()), strand.last, details);
        strand.variables.extend(assigned);
        match next {
            Some(next) => {
                strand.state = next.to_owned();
                strand.input = output;
                strand.position = Position::Enter;
                self.resume(id, strand);
            }
            None if strand.parent == Parent::None => self.succeed(strand.last, output),
            None => self.child_succeeded(strand, output),
        }
    }

    fn succeed(&mut self, previous: u64, output: Value) {
        if self.full {
            return;
        }
        let mut details = json!({});
        history::payload(&mut details, "output", &output);
        self.write("ExecutionSucceeded", previous, details);
        self.end(Status::Succeeded { output });
    }
}

/// Puts a result where `ResultPath` says, in the raw input.
pub(super) fn merge(strand: &Strand, result_path: &ResultPath, result: Value) -> Result<Value, Fault> {
    match result_path {
        ResultPath::Replace => Ok(result),
        ResultPath::Discard => Ok(strand.input.clone()),
        ResultPath::Into(path) => path.write(strand.input.clone(), result).ok_or_else(|| {
            let cause = format!(
                "Unable to apply ReferencePath {} to input {}",
                path.text(),
                strand.input
            );
            Fault::named(fault::RESULT_PATH, cause).at(&strand.state, strand.entered)
        }),
    }
}

/// Jayway's complaint about a path.
pub(super) fn invalid(path: &Path, missing: &Missing) -> Fault {
    match missing {
        Missing::Spent => Spent.into(),
        missing => Fault::runtime(format!("Invalid path '{}' : {}", path.text(), missing.reason())),
    }
}
