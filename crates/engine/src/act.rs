//! What inputs do to executions, and what is done once that is committed.

use std::{collections::VecDeque, sync::Arc};

use asl::{Command, Event, Timeout};
use jiff::{SignedDuration, Timestamp};
use model::ledger::Deed;
use store::{Begin, Logged};
use tokio::sync::oneshot;

use crate::{
    Also, Engine, Error, Offer, Own, Started,
    chores::Chore,
    desk::{Place, Poller, Token},
    handle::{Answer, Input, Report, Start},
    live::Live,
    news::Cursor,
    recover,
    timers::Due,
};

/// Something that waits for a commit.
pub(crate) enum Act {
    Started(Answer<Started>, Started, String),
    Done(Answer<()>),
    /// Whether a task is open then.
    IsOpen(String, Answer<bool>),
    /// Of an execution that was stopped or is tried again.
    Moved(u64, Answer<Timestamp>, Timestamp),
    Chore(Chore),
    /// All executions up to here have heard of an activity.
    Told(Cursor),
    /// An execution of the platform's own, and how it ended.
    Over(u64, Arc<Own>, &'static str),
    Deliver {
        resource: String,
        token: Token,
        input: serde_json::Value,
        attempt: u32,
        answer: oneshot::Sender<Offer>,
    },
}

impl Act {
    fn fail(self, error: Error) {
        // Whoever asked may not wait any more.
        match self {
            Self::Started(answer, ..) => drop(answer.send(Err(error))),
            Self::Done(answer) => drop(answer.send(Err(error))),
            Self::IsOpen(_, answer) => drop(answer.send(Err(error))),
            Self::Moved(_, answer, _) => drop(answer.send(Err(error))),
            // What is kept says what is to be done.
            Self::Chore(_) | Self::Told(_) | Self::Deliver { .. } | Self::Over(..) => {}
        }
    }

    /// The execution that there is not if this is about one that is refused.
    pub(crate) fn of(&self) -> Option<u64> {
        match self {
            Self::Started(_, started, _) => Some(started.key),
            Self::Over(key, ..) | Self::Moved(key, ..) => Some(*key),
            Self::Done(_) | Self::IsOpen(..) | Self::Chore(_) | Self::Told(_) | Self::Deliver { .. } => None,
        }
    }
}

/// Refuses an input that will not happen.
fn refuse(input: Input, error: Error) {
    match input {
        Input::Start(_, answer) | Input::StartWith(_, _, answer) => drop(answer.send(Err(error))),
        Input::Express(_, begun, _) => drop(begun.send(Err(error))),
        Input::Report { answer, .. } | Input::Interrupt { answer, .. } | Input::Settle(answer) => {
            drop(answer.send(Err(error)))
        }
        Input::Stop { answer, .. } => drop(answer.send(Err(error))),
        Input::Await { answer, .. } => drop(answer.send(Err(error))),
        Input::IsOpen { answer, .. } => drop(answer.send(Err(error))),
        Input::Redrive { answer, .. } => drop(answer.send(Err(error))),
        Input::Change { answer, .. } => drop(answer.send(Err(error))),
        // What it belongs to has ended.
        Input::Poll { .. }
        | Input::Take { .. }
        | Input::Watch { .. }
        | Input::Happen { .. }
        | Input::Again { .. }
        | Input::Chore(_)
        | Input::News => {}
    }
}

impl Engine {
    pub(crate) fn take(&mut self, input: Input) {
        match input {
            Input::Start(start, answer) if start.fresh => self.begin(*start, None, answer),
            Input::StartWith(start, also, answer) => self.begin(*start, Some(also), answer),
            Input::Start(start, answer) => match self.names.insert(start.arn.clone()) {
                true => self.naming.push((start, answer)),
                false => drop(answer.send(Err(Error::Exists(start.arn)))),
            },
            Input::Express(start, begun, answer) => {
                let _ = begun.send(self.begin_express(*start, answer));
            }
            Input::Poll { resource, poller } => match self.desk.task(&resource) {
                Some(token) => self.give(resource, token, poller),
                None => self.desk.wait_for_task(resource, poller),
            },
            Input::Take {
                resource,
                token,
                poller,
            } => match self.desk.place(&token) {
                Some(_) => self.give(resource, token, poller),
                None => self.take(Input::Poll { resource, poller }),
            },
            Input::Report {
                owner,
                token,
                report,
                answer,
            } => self.report(owner, token, report, answer),
            Input::Watch { token, over } => self.desk.watch(&token, over),
            Input::IsOpen { token, answer } => self.acts.push(Act::IsOpen(token, answer)),
            Input::Await { key, answer } => self.wait_for_end(key, answer),
            Input::Interrupt { key, .. } if !self.live.contains_key(&key) => self.park(key, input),
            Input::Interrupt {
                key,
                error,
                cause,
                spared,
                answer,
            } => {
                self.interrupt(key, &error, &cause, spared);
                self.acts.push(Act::Done(answer));
            }
            Input::Stop { key, .. } if !self.live.contains_key(&key) => self.park(key, input),
            Input::Stop {
                key,
                error,
                cause,
                deed,
                answer,
            } => {
                self.happen(key, Event::Cancel { error, cause });
                self.moved(key, deed, answer);
            }
            Input::Redrive { key, answer, .. } if self.live.contains_key(&key) => {
                drop(answer.send(Err(Error::NotRedrivable(key))))
            }
            Input::Redrive { key, .. } => self.park(key, input),
            Input::Happen { key, event } => self.agenda.push_back((key, event)),
            Input::Chore(chore) => {
                self.waking = self.waking.saturating_sub(1);
                self.queue_first(chore);
            }
            Input::Again { key, .. } if self.live.contains_key(&key) => {}
            Input::Again { key, kin } => self.park(key, Input::Again { key, kin }),
            Input::Change { key, event, answer } => self.change_run(key, event, answer),
            Input::News => self.ask_for_news(),
            Input::Settle(answer) => self.settling.push(answer),
        }
    }

    pub(crate) fn begin(&mut self, mut start: Start, also: Option<Also>, answer: Answer<Started>) {
        self.key += 1;
        let (key, at) = (self.key, self.now());
        let begin = Begin {
            key,
            tenant: start.tenant.clone(),
            machine: start.machine,
            name: start.name.clone(),
            arn: start.arn.clone(),
            origin: start.origin.clone(),
            definition: std::mem::take(&mut start.definition).into(),
            input: start.input.to_string(),
            at,
            kin: None,
        };
        let mut live = Live::new(start.owner, start.program.clone(), at);
        live.own = start.tenant.is_none().then(|| {
            Arc::new(Own {
                name: start.name.clone(),
                origin: start.origin.clone(),
            })
        });
        match also {
            None => self.batch.begins.push(begin),
            Some(also) => self.alsos.push((begin, also)),
        }
        self.insert(key, live);
        let started = Started { key, at };
        self.acts.push(Act::Started(answer, started, start.arn.clone()));
        let event = self.first(start);
        self.happen(key, event);
    }

    pub(crate) fn first(&self, start: Start) -> Event {
        Event::Start {
            id: start.arn,
            name: start.name,
            input: start.input,
            role: start.role,
            machine_id: start.machine_arn,
            machine_name: start.machine_name,
            seed: [(self.setup.bits)(), (self.setup.bits)()],
        }
    }

    pub(crate) fn insert(&mut self, key: u64, mut live: Live) {
        self.touch += 1;
        live.touched = self.touch;
        self.used.insert(self.touch, key);
        self.live.insert(key, live);
    }

    /// Gives a task to somebody who waits for one.
    fn give(&mut self, resource: String, token: Token, poller: Poller) {
        let Some(Place { execution, task, .. }) = self.desk.place(&token) else {
            return self.take(Input::Poll { resource, poller });
        };
        if poller.answer.is_closed() {
            return self.desk.return_task(&resource, token);
        }
        let Some(live) = self.live.get(&execution) else {
            return self.park(
                execution,
                Input::Take {
                    resource,
                    token,
                    poller,
                },
            );
        };
        let Some(order) = live.orders.get(&task) else {
            return self.take(Input::Poll { resource, poller });
        };
        let (started, input, attempt) = (order.started, order.input.clone(), order.attempt);
        if !started {
            let worker = poller.worker;
            self.happen(execution, Event::TaskStarted { task, worker });
        }
        self.acts.push(Act::Deliver {
            resource,
            token,
            input,
            attempt,
            answer: poller.answer,
        });
    }

    /// Gives tasks to pollers while there are both.
    pub(crate) fn hand_out(&mut self, resource: &str) {
        while let Some(poller) = self.desk.poller(resource) {
            match self.desk.task(resource) {
                Some(token) => self.give(resource.to_owned(), token, poller),
                None => return self.desk.wait_for_task(resource.to_owned(), poller),
            }
        }
    }

    fn report(&mut self, owner: u64, token: String, report: Report, answer: Answer<()>) {
        let place = self.desk.place(&token).filter(|place| place.owner == owner);
        let Some(Place { execution, task, .. }) = place else {
            return drop(answer.send(Err(self.unknown(&token))));
        };
        let Some(live) = self.live.get(&execution) else {
            return self.park(
                execution,
                Input::Report {
                    owner,
                    token,
                    report,
                    answer,
                },
            );
        };
        let heartbeat = live.orders.get(&task).and_then(|order| order.heartbeat);
        let event = match report {
            Report::Alive => {
                self.alive(execution, task, heartbeat);
                return drop(answer.send(Ok(())));
            }
            Report::Submitted(output) => Event::TaskSubmitted { task, output },
            Report::Succeeded(output) => Event::TaskSucceeded { task, output },
            Report::Failed(error, cause) => Event::TaskFailed { task, error, cause },
        };
        self.happen(execution, event);
        self.acts.push(Act::Done(answer));
    }

    /// A text of another shape never was a token.
    fn unknown(&self, token: &str) -> Error {
        let shape = token.len() == 43
            && token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if shape { Error::TaskGone } else { Error::Token }
    }

    pub(crate) fn alive(&mut self, execution: u64, task: u64, heartbeat: Option<u64>) {
        if let Some(seconds) = heartbeat {
            let until =
                self.now() + SignedDuration::from_secs(seconds.min(i64::from(u32::MAX) as u64) as i64);
            self.timers.alive(execution, task, until);
        }
    }

    pub(crate) fn silent(&mut self, execution: u64, task: u64) {
        let kind = Timeout::Heartbeat;
        if self.live.contains_key(&execution) {
            self.happen(execution, Event::TaskTimedOut { task, kind });
        } else {
            // It is looked at again when it has been read.
            self.want(execution);
            let soon = self.now() + SignedDuration::from_millis(20);
            self.timers.alive(execution, task, soon);
        }
    }

    /// An execution was stopped or is tried again: the ledger says so with it, and whoever asked hears of it afterwards.
    pub(crate) fn moved(&mut self, key: u64, deed: Option<Box<Deed>>, answer: Answer<Timestamp>) {
        let at = self.now();
        self.batch.deeds.extend(deed.map(|deed| (key, *deed, at)));
        self.acts.push(Act::Moved(key, answer, at));
    }

    /// Lets an event happen to an execution in memory, and all that follows from it at once.
    pub(crate) fn happen(&mut self, key: u64, event: Event) {
        let now = self.now();
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let Some(live) = self.live.get_mut(&key) else {
                return;
            };
            if !live.fits(&event) {
                continue;
            }
            live.at = live.at.max(now);
            let at = live.at;
            let state = std::mem::take(&mut live.state);
            let step = asl::step(&live.machine, state, &event, at);
            let (came, over) = recover::note(&mut live.orders, &event, &step);
            live.state = step.execution;
            let is_open = live.state.is_open();
            if live.express.is_none() {
                self.history += live.pending.push(&step.history);
                if let (Some(own), Some(witness)) = (&live.own, &self.setup.witness) {
                    let deeds = witness.deeds(own, &step.history).into_iter();
                    self.batch.deeds.extend(deeds.map(|deed| (key, deed, at)));
                }
                self.log(key, at, &event);
            }
            for order in over {
                self.desk.forget(&order.token);
                self.timers.over(key, order.task);
            }
            for command in step.commands {
                match command {
                    Command::StartTimer { timer, at } => self.set(key, timer, at),
                    command => self.map_command(key, at, &event, command),
                }
            }
            self.map_event(key, at, &event);
            self.heard(key, &event);
            for task in came {
                queue.extend(self.offer(key, task));
            }
            if let Event::TaskStarted { task, .. } = event {
                let heartbeat = self
                    .live
                    .get(&key)
                    .and_then(|live| live.orders.get(&task)?.heartbeat);
                self.alive(key, task, heartbeat);
            }
            if !is_open {
                self.finish(key);
            }
        }
    }

    fn set(&mut self, key: u64, timer: u64, at: Timestamp) {
        let due = Due::Timer {
            execution: key,
            timer,
        };
        match Self::in_memory(key) {
            true => self.timers.keep(at, due),
            false => self.timers.set(at, due),
        }
    }

    fn log(&mut self, key: u64, at: Timestamp, event: &Event) {
        self.seq += 1;
        self.touch += 1;
        let live = self.live.get_mut(&key).expect("what happens, happens in memory");
        self.used.remove(&live.touched);
        self.used.insert(self.touch, key);
        live.touched = self.touch;
        live.seq = self.seq;
        if live.unfolded.is_none() {
            live.unfolded = Some(self.seq);
            self.dirty.insert(self.seq, key);
        }
        self.batch.events.push(Logged {
            seq: self.seq,
            execution: key,
            at,
            event: serde_json::to_string(event).expect("an event is plain data"),
        });
    }

    /// A task was scheduled. What happens next to its execution, if that is known already.
    fn offer(&mut self, key: u64, task: u64) -> Option<Event> {
        let live = self.live.get(&key)?;
        let (owner, order) = (live.owner, live.orders.get(&task)?);
        let (resource, token) = (order.resource.clone(), order.token.clone());
        if let Some(cause) = (self.setup.refuses)(owner, &resource) {
            return Some(Event::TaskRefused { task, cause });
        }
        let place = Place {
            owner,
            execution: key,
            task,
        };
        self.desk.know(token.clone(), place);
        let Some(poller) = self.desk.poller(&resource) else {
            self.desk.wait_for_poller(&resource, token);
            return None;
        };
        self.acts.push(Act::Deliver {
            resource: resource.to_string(),
            token,
            input: order.input.clone(),
            attempt: order.attempt,
            answer: poller.answer,
        });
        Some(Event::TaskStarted {
            task,
            worker: poller.worker,
        })
    }

    /// What was to be done is not: who asked is told, who waits for a task goes on waiting.
    pub(crate) fn undo(&mut self, act: Act, error: Error) {
        match act {
            Act::Deliver {
                resource,
                token,
                answer,
                ..
            } => {
                self.not_handed_out(&token);
                let worker = None;
                self.desk.wait_for_task(resource, Poller { worker, answer });
            }
            other => other.fail(error),
        }
    }

    /// A task of an execution that only memory knows is still there: nobody got it.
    fn not_handed_out(&mut self, token: &Token) {
        let place = self
            .desk
            .place(token)
            .filter(|place| Self::in_memory(place.execution));
        let Some(Place { execution, task, .. }) = place else {
            return;
        };
        let live = self.live.get_mut(&execution);
        if let Some(order) = live.and_then(|live| live.orders.get_mut(&task)) {
            order.started = false;
        }
    }

    pub(crate) fn refuse(&mut self, input: Input, error: Error) {
        match input {
            Input::Take { resource, poller, .. } | Input::Poll { resource, poller } => {
                self.desk.wait_for_task(resource, poller)
            }
            // It is still to happen: only the reading failed.
            input @ (Input::Happen { .. } | Input::Again { .. } | Input::Chore(_))
                if matches!(error, Error::Store(_)) =>
            {
                self.take(input)
            }
            Input::Happen { key, event } => self.heard(key, &event),
            // What cannot be read is not tried again, and its run need not wait for it.
            Input::Again { kin, .. } => self.child_over(kin, false),
            Input::Chore(_) => self.waking = self.waking.saturating_sub(1),
            other => refuse(other, error),
        }
    }

    pub(crate) fn act(&mut self, act: Act) {
        match act {
            Act::Started(answer, started, arn) => {
                self.names.remove(&arn);
                let _ = answer.send(Ok(started));
            }
            Act::Done(answer) => drop(answer.send(Ok(()))),
            Act::IsOpen(token, answer) => drop(answer.send(Ok(self.desk.place(&token).is_some()))),
            Act::Chore(chore) => self.queue(chore),
            Act::Told(cursor) => self.tell_on(Some(cursor)),
            Act::Moved(_, answer, at) => drop(answer.send(Ok(at))),
            Act::Over(_, own, status) => {
                if let Some(witness) = &self.setup.witness {
                    witness.ended(&own, status);
                }
            }
            Act::Deliver {
                resource,
                token,
                input,
                attempt,
                answer,
            } => {
                let Some(place) = self.desk.place(&token) else {
                    // It ended before anybody had it: whoever waits goes on waiting.
                    let poller = Poller { worker: None, answer };
                    return self.take(Input::Poll { resource, poller });
                };
                let offer = Offer {
                    owner: place.owner,
                    token: token.to_string(),
                    input,
                    execution: place.execution,
                    task: place.task,
                    attempt,
                };
                if answer.send(offer).is_err() {
                    self.desk.return_task(&resource, token);
                    self.hand_out(&resource);
                }
            }
        }
    }
}
