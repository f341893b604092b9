//! Distributed Maps, for whoever carries them out.
//!
//! The interpreter says when a Map run opens, which child starts and when the results are wanted; it does not hold items
//! or outputs, of which there may be more than a record should have. This room makes them, from the same data and always
//! in the same way: the inputs of the children from what was read, and the result from what they said.

use crate::event::Event;
use crate::execution::{Execution, Position, Status, Strand};
use crate::family::Family;
use crate::fault::{self, Fault};
use crate::instant;
use crate::items::Reading;
use crate::limit;
use crate::machine::{self, Distributed, Machine, Map, State, Transformation, Writer};
use crate::results::Writing;
use crate::scope::WHOLE;
use crate::size;
use crate::step::Run;
use crate::step::data::{About, Item};
use crate::step::task;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Why a Map run fails: see [`Event::MapRunFailed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub error: String,
    pub cause: String,
}

/// A child execution to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub input: Value,
    /// How many items are in it.
    pub items: u64,
}

/// A child execution that has ended, or that was never started: its status is [`Status::Running`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub name: String,
    pub input: Value,
    pub status: Status,
    pub started: Timestamp,
    pub stopped: Timestamp,
}

/// An open Map run of an execution.
pub struct MapRun<'m> {
    run: Run<'m>,
    strand: Strand,
    state: &'m State,
    map: &'m Map,
    spec: &'m Distributed,
    machine: &'m Machine,
    arn: String,
}

impl<'m> MapRun<'m> {
    /// The Map run `task` of `execution`, if it is open. `machine` must be the one that the execution was started with.
    pub fn of(machine: &'m Machine, execution: &Execution, task: u64) -> Option<Self> {
        let strand = execution.strands.get(execution.tasks.get(&task)?)?.clone();
        let Position::Run(_) = strand.position else {
            return None;
        };
        let mut run = Run::new(machine, execution.clone(), strand.since);
        let state = run.state(&strand)?;
        let machine::Kind::Map(map) = &state.kind else {
            return None;
        };
        let spec = map.run.as_deref()?;
        let arn = run.run_arn(task, spec);
        // Its own series: what is drawn here is not drawn from the execution.
        run.random = run.random.branch(task);
        Some(Self {
            run,
            strand,
            state,
            map,
            spec,
            machine,
            arn,
        })
    }

    /// A run that is looked at without being opened.
    pub(crate) fn inspected(
        run: Run<'m>,
        strand: Strand,
        state: &'m State,
        map: &'m Map,
        machine: &'m Machine,
    ) -> Option<Self> {
        Some(Self {
            run,
            strand,
            state,
            map,
            spec: map.run.as_deref()?,
            machine,
            arn: String::new(),
        })
    }

    /// AWS's name of it.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The machine that the children run.
    pub fn machine(&self) -> Option<Machine> {
        self.machine.processor(&self.strand.state)
    }

    /// What has to be read first; `None` when the state's own input has the items.
    ///
    /// # Errors
    /// The fields of the `ItemReader` cannot be evaluated.
    pub fn reading(&self) -> Result<Option<Reading>, Failure> {
        let Some(reader) = &self.spec.reader else {
            return Ok(None);
        };
        let input = self.run.input(&self.strand, self.state)?;
        let about = About::data(&input);
        let parameters = match &reader.parameters {
            Some(template) => self.run.template(&self.strand, self.state, template, about)?,
            None => json!({}),
        };
        let integer = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let most = match &reader.most {
            None => 0,
            Some(amount) => {
                let names = ("MaxItemsPath", "integer");
                match self
                    .run
                    .amount(&self.strand, self.state, amount, about, names, integer)?
                {
                    task::Amount::Fixed(most) | task::Amount::Found(most) => most,
                }
            }
        };
        let most = match usize::try_from(most) {
            Ok(0) => usize::MAX,
            Ok(most) => most,
            Err(_) => {
                return Err(Failure {
                    error: fault::ITEM_READER.into(),
                    cause: "field MaxItems must be positive".into(),
                });
            }
        };
        Ok(Some(Reading::new(reader.format.clone(), parameters, most)))
    }

    /// The children, in the order of the items: those that were read, or those of the input.
    ///
    /// # Errors
    /// A field cannot be evaluated, or an input is too large.
    pub fn children(&self, read: Option<Reading>) -> Result<Vec<Child>, Failure> {
        let items = match read {
            Some(reading) => reading.items().into_iter().map(|item| (None, item)).collect(),
            None => self.listed()?,
        };
        let mut selected = Vec::with_capacity(items.len());
        for (index, (key, item)) in items.into_iter().enumerate() {
            selected.push(self.selected(index, key.as_deref(), item)?);
        }
        match &self.spec.batcher {
            Some(batcher) => self.batches(batcher, selected),
            None => selected.into_iter().map(|input| self.child(input, 1)).collect(),
        }
    }

    /// The items of the input as the selector makes them, if there are at most `most`, no more than a payload holds, and
    /// one budget is enough for all.
    pub(crate) fn selection(&self, most: usize) -> Result<Option<Vec<Value>>, Failure> {
        let items = self.listed()?;
        if items.len() > most {
            return Ok(None);
        }
        let (mut selected, mut room) = (Vec::with_capacity(items.len()), limit::PAYLOAD);
        let until = self.run.spent.get() + WHOLE;
        for (index, (key, item)) in items.into_iter().enumerate() {
            if self.run.spent.get() >= until {
                return Ok(None);
            }
            let item = self.selected(index, key.as_deref(), item)?;
            match size::within(&item, room, limit::DEPTH) {
                Some(bytes) => room -= bytes,
                None => return Ok(None),
            }
            selected.push(item);
        }
        Ok(Some(selected))
    }

    /// The items of the input: the elements of an array, or the members of an object.
    fn listed(&self) -> Result<Vec<(Option<String>, Value)>, Failure> {
        let (items, _) = self.run.list(&self.strand, self.state, self.map)?;
        Ok(match items.into_value() {
            Value::Array(items) => items.into_iter().map(|item| (None, item)).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(key, value)| {
                    let mut item = json!({ "Key": key });
                    item["Value"] = value;
                    (Some(key), item)
                })
                .collect(),
            _ => Vec::new(),
        })
    }

    fn selected(&self, index: usize, key: Option<&str>, item: Value) -> Result<Value, Failure> {
        let Some(selector) = &self.map.work.parameters else {
            return Ok(item);
        };
        let input = self.run.input(&self.strand, self.state)?;
        // A member of an object is its value, and its key stands beside it.
        let value = match key {
            Some(_) => item.get("Value").unwrap_or(&Value::Null),
            None => &item,
        };
        let about = About {
            item: Some(Item { index, value, key }),
            ..About::data(&input)
        };
        Ok(self.run.template(&self.strand, self.state, selector, about)?)
    }

    pub(crate) fn batches(
        &self,
        batcher: &machine::Batcher,
        items: Vec<Value>,
    ) -> Result<Vec<Child>, Failure> {
        let input = self.run.input(&self.strand, self.state)?;
        let about = About::data(&input);
        let (strand, state) = (&self.strand, self.state);
        let number = |amount, name| self.run.number(strand, state, amount, about, name);
        let most = number(batcher.items.as_ref(), "MaxItemsPerBatchPath")?;
        let most = most
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(usize::MAX);
        let bytes = number(batcher.bytes.as_ref(), "MaxInputBytesPerBatchPath")?;
        let bytes = bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(limit::PAYLOAD)
            .min(limit::PAYLOAD);
        let mut frame = json!({});
        if let Some(template) = &batcher.input {
            frame["BatchInput"] = self.run.template(strand, state, template, about)?;
        }
        frame["Items"] = json!([]);
        let empty = size::within(&frame, usize::MAX, usize::MAX).unwrap_or_default();
        let mut children = Vec::new();
        let (mut batch, mut length) = (Vec::new(), empty);
        for item in items {
            let more = size::within(&item, usize::MAX, usize::MAX).unwrap_or_default() + 1;
            if !batch.is_empty() && (batch.len() >= most || length + more > bytes) {
                children.push(self.batch(&frame, std::mem::take(&mut batch))?);
                length = empty;
            }
            length += more;
            batch.push(item);
        }
        if !batch.is_empty() {
            children.push(self.batch(&frame, batch)?);
        }
        Ok(children)
    }

    fn batch(&self, frame: &Value, items: Vec<Value>) -> Result<Child, Failure> {
        let count = items.len() as u64;
        let mut input = frame.clone();
        input["Items"] = Value::Array(items);
        self.child(input, count)
    }

    fn child(&self, input: Value, items: u64) -> Result<Child, Failure> {
        if size::within(&input, limit::PAYLOAD, limit::DEPTH).is_none() {
            return Err(Fault::too_large(&self.strand.state).into());
        }
        Ok(Child { input, items })
    }

    /// The event that starts a child, with what [`Command::StartChild`](crate::Command) says.
    pub fn start(&self, name: &str, seed: [u64; 2], input: Value) -> Event {
        self.family().event(name.to_owned(), seed, input)
    }

    /// What the children have in common.
    pub fn family(&self) -> Family {
        let origin = self.run.x.origin.as_ref();
        let label = self.label();
        let under = |text: &String| format!("{text}/{label}");
        Family {
            id: self.child_id(""),
            role: origin.map(|origin| origin.role.clone()).unwrap_or_default(),
            machine_id: origin.map(|origin| under(&origin.machine_id)).unwrap_or_default(),
            machine_name: origin
                .map(|origin| under(&origin.machine_name))
                .unwrap_or_default(),
            series: self.run.random.seed(),
        }
    }

    /// The state's label, or the one that was made up for it.
    pub fn label(&self) -> &str {
        let path = self.arn.rsplit_once(':').map_or("", |(path, _)| path);
        path.rsplit_once('/').map_or("", |(_, label)| label)
    }

    fn child_id(&self, name: &str) -> String {
        let path = self.arn.rsplit_once(':').map_or("", |(path, _)| path);
        format!("{}:{name}", path.replacen(":mapRun:", ":execution:", 1))
    }

    /// Where the results are to be written; `None` when the result of the state is all that is wanted.
    ///
    /// # Errors
    /// The fields of the `ResultWriter` cannot be evaluated.
    pub fn writing(&self) -> Result<Option<Writing>, Failure> {
        let Some(Writer {
            resource: Some(_),
            parameters,
            transformation,
            lines,
        }) = &self.spec.writer
        else {
            return Ok(None);
        };
        let input = self.run.input(&self.strand, self.state)?;
        let place = match parameters {
            Some(template) => {
                let about = About::data(&input);
                self.run.template(&self.strand, self.state, template, about)?
            }
            None => json!({}),
        };
        let text = |name: &str| place[name].as_str().map(str::to_owned);
        let bucket = text("Bucket").ok_or_else(|| Failure {
            error: fault::RESULT_WRITER.into(),
            cause: "The Bucket of the ResultWriter is not a string.".into(),
        })?;
        let folder = self.arn.rsplit(':').next().unwrap_or_default();
        let prefix = match text("Prefix").filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => format!("{}/{folder}", prefix.trim_end_matches('/')),
            None => folder.to_owned(),
        };
        Ok(Some(Writing {
            arn: self.arn.clone(),
            bucket,
            prefix,
            transformation: *transformation,
            lines: *lines,
        }))
    }

    /// The output of a child with what is known of its execution, as AWS writes it.
    pub fn record(&self, child: &Ended) -> Value {
        if child.status == Status::Running {
            return json!({
                "Input": child.input.to_string(),
                "InputDetails": { "Included": true },
                "Status": "PENDING",
            });
        }
        let origin = self.run.x.origin.as_ref();
        let machine = origin.map_or("", |origin| &origin.machine_id);
        let mut record = json!({
            "ExecutionArn": self.child_id(&child.name),
            "Input": child.input.to_string(),
            "InputDetails": { "Included": true },
            "Name": child.name,
            "StartDate": instant::text(child.started),
            "StateMachineArn": format!("{machine}/{}", self.label()),
            "Status": child.status.as_str(),
            "StopDate": instant::text(child.stopped),
        });
        match &child.status {
            Status::Succeeded { output } => {
                record["Output"] = output.to_string().into();
                record["OutputDetails"] = json!({ "Included": true });
            }
            Status::Failed { error, cause } | Status::Aborted { error, cause } => {
                for (name, text) in [("Error", error), ("Cause", cause)] {
                    if let Some(text) = text {
                        record[name] = text.as_str().into();
                    }
                }
            }
            Status::Running | Status::TimedOut => {}
        }
        record
    }

    /// The output of the run when nothing is written: what the children that succeeded said, in the order of the items.
    pub fn output(&self, children: impl IntoIterator<Item = Ended>) -> Value {
        let transformation = match &self.spec.writer {
            Some(writer) => writer.transformation,
            None => Transformation::Compact,
        };
        let succeeded = children
            .into_iter()
            .filter(|child| matches!(child.status, Status::Succeeded { .. }));
        let mut results = Vec::new();
        for child in succeeded {
            let record = match transformation {
                Transformation::None => Some(self.record(&child)),
                _ => None,
            };
            match (record, child.status, transformation) {
                (Some(record), ..) => results.push(record),
                (
                    _,
                    Status::Succeeded {
                        output: Value::Array(items),
                    },
                    Transformation::Flatten,
                ) => {
                    results.extend(items);
                }
                (_, Status::Succeeded { output }, _) => results.push(output),
                _ => {}
            }
        }
        Value::Array(results)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            error: fault.error.unwrap_or_default(),
            cause: fault.cause.unwrap_or_default(),
        }
    }
}
