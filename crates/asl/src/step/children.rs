//! Distributed Map: how its child executions are opened, counted and closed. What they work on and what they say is not
//! here but with whoever runs them; see [`MapRun`](crate::MapRun).

use super::Run;
use super::data::About;
use super::task::Amount;
use crate::event::Command;
use crate::execution::{Children, Position, Strand};
use crate::family;
use crate::fault::{self, Fault};
use crate::history;
use crate::intrinsic;
use crate::limit;
use crate::machine::{Distributed, Kind, Map, State};
use crate::payload::Payload;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl<'m> Run<'m> {
    pub(super) fn open_run(
        &mut self,
        id: u64,
        mut strand: Strand,
        state: &'m State,
        map: &'m Map,
        run: &'m Distributed,
    ) {
        let (items, open) = match self.list(&strand, state, map) {
            Ok(found) => found,
            Err(fault) => return self.fail(id, strand, fault),
        };
        let length = match &*items {
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        strand.last = self.emit("MapStateStarted", strand.last, json!({ "length": length }));
        let (failures, percentage) = match self.tolerance(&strand, state, map) {
            Ok(tolerance) => tolerance,
            Err(fault) => return self.fail(id, strand, fault),
        };
        let task = self.x.next_task;
        self.x.next_task += 1;
        let arn = self.run_arn(task, run);
        strand.last = self.emit("MapRunStarted", strand.last, json!({ "mapRunArn": arn }));
        let most = open.filter(|open| *open > 0).unwrap_or(limit::CHILDREN);
        strand.position = Position::Run(Box::new(Children {
            task,
            started: strand.last,
            total: None,
            items: 0,
            next: 0,
            open: BTreeSet::new(),
            failed: 0,
            failures,
            percentage,
            most: most.min(limit::CHILDREN),
            closing: false,
            redrives: 0,
            closes: false,
            failing: None,
        }));
        self.commands.push(Command::OpenMapRun {
            task,
            state: strand.state.clone(),
            arn,
        });
        self.x.tasks.insert(task, id);
        self.x.strands.insert(id, strand);
    }

    /// How many failed items the run endures, and which part of all.
    pub(super) fn tolerance(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
    ) -> Result<(Option<u64>, Option<f64>), Fault> {
        let refuse = |cause: &str| Err(Fault::runtime(cause).at(&strand.state, strand.entered));
        let input = self.input(strand, state)?;
        let about = About::data(&input);
        let failures = match &map.failures {
            None => None,
            Some(amount) => {
                let names = ("ToleratedFailureCountPath", "integer");
                match self.amount(strand, state, amount, about, names, integer)? {
                    Amount::Fixed(count) => Some(count),
                    Amount::Found(count) => match u64::try_from(count) {
                        Ok(count) => Some(count),
                        Err(_) => return refuse("ToleratedFailureCount cannot be negative."),
                    },
                }
            }
        };
        let percentage = match &map.percentage {
            None => None,
            Some(amount) => {
                let names = ("ToleratedFailurePercentagePath", "float");
                match self.amount(strand, state, amount, about, names, float)? {
                    Amount::Fixed(part) => Some(part),
                    Amount::Found(part) if (0.0..=100.0).contains(&part) => Some(part),
                    Amount::Found(_) => {
                        return refuse("ToleratedFailurePercentage must be between 0 and 100.");
                    }
                }
            }
        };
        Ok((failures, percentage))
    }

    /// `…:mapRun:machine/label:uuid`, where the label is made up if there is none.
    pub(crate) fn run_arn(&self, task: u64, run: &Distributed) -> String {
        let machine = self.x.origin.as_ref().map_or("", |origin| &origin.machine_id);
        let made_up = intrinsic::uuid(self.random.digest("label", task));
        let label = run.label.as_deref().unwrap_or(&made_up);
        let name = intrinsic::uuid(self.random.digest("run", task));
        format!(
            "{}/{label}:{name}",
            machine.replacen(":stateMachine:", ":mapRun:", 1)
        )
    }

    pub(super) fn run_opened(&mut self, task: u64, children: u64, items: u64, closes: bool) -> bool {
        self.with_run(task, |run, id, strand, _, mut all| {
            if all.total.is_some() {
                return Some((strand, all));
            }
            all.total = Some(children);
            all.items = items;
            all.closes = closes;
            run.go_on(id, strand, all);
            None
        })
    }

    /// The run goes on with the children that did not succeed; what they are is found by whoever keeps them.
    pub(super) fn redrive_run(&mut self, id: u64, redriven: u64) {
        let Some(mut strand) = self.x.strands.remove(&id) else {
            return;
        };
        let run = match self.state(&strand).map(|state| &state.kind) {
            Some(Kind::Map(map)) => map.run.as_deref(),
            _ => None,
        };
        let (Some(run), Position::Run(children)) = (run, &mut strand.position) else {
            strand.position = Position::Attempt;
            self.x.strands.insert(id, strand);
            return self.x.ready.push_back(id);
        };
        children.redrives = children.redrives.saturating_add(1);
        let (task, count) = (children.task, children.redrives);
        let arn = self.run_arn(task, run);
        let details = json!({ "mapRunArn": arn, "redriveCount": count });
        strand.last = self.emit("MapRunRedriven", redriven, details);
        self.commands.push(Command::RedriveMapRun {
            task,
            state: strand.state.clone(),
            arn,
        });
        self.x.tasks.insert(task, id);
        self.x.strands.insert(id, strand);
    }

    pub(super) fn run_reopened(
        &mut self,
        task: u64,
        children: u64,
        (items, failed): (u64, u64),
        closes: bool,
    ) -> bool {
        self.with_run(task, |run, id, strand, _, mut all| {
            if all.total.is_some() {
                return Some((strand, all));
            }
            all.total = Some(children);
            (all.items, all.failed) = (items, failed);
            all.closes = closes;
            run.go_on(id, strand, all);
            None
        })
    }

    pub(super) fn run_changed(
        &mut self,
        task: u64,
        most: Option<u64>,
        failures: Option<u64>,
        percentage: Option<f64>,
    ) -> bool {
        self.with_run(task, |run, id, strand, _, mut children| {
            if let Some(most) = most {
                children.most = most.wrapping_sub(1).min(limit::CHILDREN - 1) + 1;
            }
            children.failures = failures.or(children.failures);
            children.percentage = percentage.or(children.percentage);
            if children.total.is_none() {
                return Some((strand, children));
            }
            run.go_on(id, strand, children);
            None
        })
    }

    pub(super) fn child_ended(&mut self, task: u64, child: u64, items: u64, succeeded: bool) -> bool {
        self.with_run(task, |run, id, strand, _, mut children| {
            if !children.open.remove(&child) {
                return Some((strand, children));
            }
            if !succeeded {
                children.failed = children.failed.saturating_add(items);
            }
            run.go_on(id, strand, children);
            None
        })
    }

    pub(super) fn run_failed(&mut self, task: u64, error: Option<&str>, cause: Option<&str>) -> bool {
        let cut = |text: Option<&str>, most| text.map(|text| text.chars().take(most).collect::<String>());
        let fault = Fault {
            error: cut(error, limit::ERROR),
            cause: cut(cause, limit::CAUSE),
            ..Fault::default()
        };
        self.with_run(task, |run, id, strand, _, mut children| {
            // What a run fails with is not hidden by results that cannot be written, nor does it hide that.
            let fault = match children.failing.take() {
                Some(failing) => failing.besides(&fault),
                None => fault,
            };
            // Children may run when it is the results that cannot be written.
            run.fail_run(id, strand, children, fault);
            None
        })
    }

    pub(super) fn run_closed(&mut self, task: u64, output: &Value) -> bool {
        self.with_run(task, |run, id, mut strand, state, mut children| {
            if !children.closing {
                return Some((strand, children));
            }
            if let Some(failing) = children.failing.take() {
                run.fail_run(id, strand, children, failing);
                return None;
            }
            let output = Payload::new(output.clone());
            if !output.fits() {
                let fault = Fault {
                    terminal: false,
                    ..Fault::too_large(&strand.state)
                };
                run.fail_run(id, strand, children, fault);
                return None;
            }
            run.x.tasks.remove(&children.task);
            let succeeded = run.emit("MapRunSucceeded", strand.last, json!({}));
            run.emit("MapStateSucceeded", succeeded, json!({}));
            strand.last = succeeded;
            strand.position = Position::Attempt;
            run.complete(id, strand, state, Some(output));
            None
        })
    }

    /// Starts what may start; closes the run when all have ended, and fails it when too many have failed.
    fn go_on(&mut self, id: u64, mut strand: Strand, mut children: Box<Children>) {
        if children.failing.is_none() && exceeded(&children) {
            let cause = "The specified tolerated failure threshold was exceeded";
            let fault = Fault::named(fault::THRESHOLD, cause);
            if !children.closes || !self.writes(&strand) {
                return self.fail_run(id, strand, children, fault);
            }
            children.failing = Some(fault);
            if !children.open.is_empty() {
                self.commands.push(Command::StopChildren { task: children.task });
            }
        }
        let total = match children.failing.is_some() {
            true => children.next,
            false => children.total.unwrap_or_default(),
        };
        while children.next < total && (children.open.len() as u64) < children.most {
            let child = children.next;
            children.next += 1;
            children.open.insert(child);
            let series = self.random.branch(children.task).seed();
            self.commands.push(Command::StartChild {
                task: children.task,
                child,
                name: family::name(series, child),
                seed: family::seed(series, child),
            });
        }
        if children.next == total && children.open.is_empty() && !children.closing {
            children.closing = true;
            self.commands.push(Command::CloseMapRun { task: children.task });
        }
        strand.position = Position::Run(children);
        self.x.strands.insert(id, strand);
    }

    /// Whether the results of the children are written somewhere.
    fn writes(&self, strand: &Strand) -> bool {
        let Some(Kind::Map(map)) = self.state(strand).map(|state| &state.kind) else {
            return false;
        };
        let writer = map.run.as_ref().and_then(|run| run.writer.as_ref());
        writer.is_some_and(|writer| writer.resource.is_some())
    }

    fn fail_run(&mut self, id: u64, mut strand: Strand, children: Box<Children>, fault: Fault) {
        let mut details = json!({});
        history::failure(&mut details, fault.error.as_deref(), fault.cause.as_deref());
        strand.last = self.emit("MapRunFailed", strand.last, details);
        self.commands.push(Command::CancelTask { task: children.task });
        strand.position = Position::Run(children);
        self.fail(id, strand, fault);
    }

    /// The run ends because something around it did.
    pub(super) fn abort_run(&mut self, last: &mut u64, children: &Children) {
        self.commands.push(Command::CancelTask { task: children.task });
        *last = self.emit("MapRunAborted", *last, json!({}));
    }

    /// Hands the strand of an open run to `act`, which may give it back because nothing changes.
    fn with_run(
        &mut self,
        task: u64,
        act: impl FnOnce(&mut Self, u64, Strand, &'m State, Box<Children>) -> Option<(Strand, Box<Children>)>,
    ) -> bool {
        let Some(id) = self.x.tasks.get(&task).copied() else {
            return false;
        };
        let Some(mut strand) = self.x.strands.remove(&id) else {
            return false;
        };
        let state = self.state(&strand);
        let position = std::mem::replace(&mut strand.position, Position::Attempt);
        let given_back = match (position, state) {
            (Position::Run(children), Some(state)) => match act(self, id, strand, state, children) {
                None => return true,
                Some((strand, children)) => Strand {
                    position: Position::Run(children),
                    ..strand
                },
            },
            (position, _) => Strand { position, ..strand },
        };
        self.x.strands.insert(id, given_back);
        false
    }
}

fn exceeded(children: &Children) -> bool {
    let failed = children.failed;
    let part = |most: f64| failed as f64 * 100.0 > most * children.items as f64;
    match (children.failures, children.percentage) {
        (None, None) => failed > 0,
        (Some(most), None) => failed > most,
        (None, Some(most)) => part(most),
        (Some(count), Some(most)) => failed > count || part(most),
    }
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn float(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    number.is_finite().then_some(number)
}
