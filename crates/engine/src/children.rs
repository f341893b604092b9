//! Children of Map runs: started when their run says so, and their run hears how they ended.
//!
//! Which child is meant and what became of it so far is read from rows each time, so that a child is started once whatever
//! came in between.

use std::{collections::hash_map::Entry, sync::Arc};

use asl::Event;
use jiff::Timestamp;
use store::{Begin, ChildEnd, Kin, MapChild, Status};
use tracing::warn;

use crate::{
    Engine, Error, beside,
    chores::Kindred,
    handle::Input,
    live::{Express, Live},
    maps::{Done, told},
    timers::Due,
};

/// Children that are looked up at once.
const FETCH: usize = 128;

impl Engine {
    /// Reads what is known of children that are to be started: which they are, and whether they were started before.
    pub(crate) fn call(&mut self) {
        if self.fetching || !self.has_room() {
            return;
        }
        for _ in 0..self.callers.len() {
            let Some(caller) = self.callers.pop() else {
                return;
            };
            let Some(open) = self.runs.get_mut(&caller) else {
                continue;
            };
            let Some(kindred) = open.kindred.clone().filter(|_| !open.calls.is_empty()) else {
                continue;
            };
            let is_express = kindred.program.flavour() == asl::Flavour::Express;
            let brood = self.brood.get(&kindred.owner).copied().unwrap_or(0);
            let room = match is_express && !open.failing {
                true => self.setup.limits.children.saturating_sub(brood),
                false => FETCH,
            };
            let most = FETCH.min(room).min(open.calls.len());
            if most == 0 {
                self.callers.push_back(open.owner, caller);
                continue;
            }
            let places: Vec<u64> = open.calls.drain(..most).collect();
            let rest = !open.calls.is_empty();
            if rest {
                self.callers.push_back(open.owner, caller);
            }
            let (store, (execution, task)) = (self.setup.store.clone(), caller);
            self.fetching = true;
            let done = move |places, children| Done::Fetched {
                execution,
                task,
                places,
                children,
            };
            let wanted = places.clone();
            let reading = async move {
                let (run, redriven, asked) = (kindred.run, kindred.redriven, wanted.clone());
                let found = store.read(move |db| Ok(db.map_places(run, redriven, &asked)?));
                done(wanted, found.await)
            };
            self.jobs.spawn(beside::whole(reading, move || {
                done(places, Err(store::Error::Panicked.into()))
            }));
            return;
        }
    }

    pub(crate) fn fetched(
        &mut self,
        run: (u64, u64),
        places: Vec<u64>,
        children: Result<Vec<MapChild>, Error>,
    ) {
        let Some(open) = self.runs.get_mut(&run) else {
            return;
        };
        let Some(kindred) = open.kindred.clone() else {
            return;
        };
        match children {
            Ok(children) => children
                .into_iter()
                .for_each(|child| self.look_after(run, &kindred, child)),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot read children");
                open.calls.extend(places);
                self.callers.push_back(open.owner, run);
            }
        }
    }

    /// Starts a child, or does whatever is next for it.
    fn look_after(&mut self, (execution, task): (u64, u64), kindred: &Arc<Kindred>, child: MapChild) {
        let kin = Kin {
            run: kindred.run,
            execution,
            task,
            child: child.child,
            place: child.place,
            items: child.items,
        };
        let Some(open) = self.runs.get_mut(&(execution, task)) else {
            return;
        };
        if open.children.contains_key(&kin.place) {
            return;
        }
        match (child.status, child.execution) {
            (Some(Status::Running), Some(key)) => {
                open.children.insert(kin.place, key);
                if open.failing {
                    self.stop_all([key]);
                }
            }
            // What did not succeed before, or was not tried, stays as it is.
            (status, _) if open.failing => self.child_over(kin, status == Some(Status::Succeeded)),
            (None, _) => self.begin_child(kindred, kin, &child.input),
            // Its end is on record, and is yet to be heard of here.
            (Some(_), Some(key)) if child.waits && self.ending.contains_key(&key) => {
                if open.calls.is_empty() {
                    self.callers.push_back(open.owner, (execution, task));
                }
                open.calls.push_back(child.place);
            }
            (Some(_), Some(key)) if child.waits => {
                open.children.insert(kin.place, key);
                self.park(key, Input::Again { key, kin });
            }
            (Some(status), _) => self.child_over(kin, status == Status::Succeeded),
        }
    }

    fn begin_child(&mut self, kindred: &Kindred, kin: Kin, input: &str) {
        let at = self.now();
        let event = kindred
            .family
            .start(kin.child, asl::json::read(input).unwrap_or_default());
        let is_express = kindred.program.flavour() == asl::Flavour::Express;
        let mut live = Live::new(kindred.owner, kindred.program.clone(), at);
        live.kin = Some(kin);
        let key = match is_express {
            true => {
                self.express += 1;
                *self.brood.entry(kindred.owner).or_default() += 1;
                live.express = Some(Box::new(Express {
                    started_at: at,
                    answer: None,
                }));
                let until = at + self.setup.limits.express;
                self.timers.keep(
                    until,
                    Due::Express {
                        execution: self.express,
                    },
                );
                self.express
            }
            false => {
                self.key += 1;
                self.batch.begins.push(Begin {
                    key: self.key,
                    tenant: kindred.tenant.clone(),
                    machine: kindred.machine,
                    name: kindred.family.name(kin.child),
                    arn: kindred.family.id(kin.child),
                    origin: kindred.origin.clone(),
                    definition: kindred.definition.clone(),
                    input: input.to_owned(),
                    at,
                    kin: Some(kin),
                });
                self.key
            }
        };
        if let Some(open) = self.runs.get_mut(&(kin.execution, kin.task)) {
            open.children.insert(kin.place, key);
        }
        self.insert(key, live);
        self.happen(key, event);
    }

    /// Is the execution, as far as its run knows, the open child of that place?
    pub(crate) fn has_child(&self, kin: Kin, key: u64) -> bool {
        let open = self.runs.get(&(kin.execution, kin.task));
        open.is_some_and(|open| open.children.get(&kin.place) == Some(&key))
    }

    /// A child has ended: its run hears of it.
    pub(crate) fn child_over(&mut self, kin: Kin, succeeded: bool) {
        let Some(open) = self.runs.get_mut(&(kin.execution, kin.task)) else {
            return;
        };
        open.children.remove(&kin.place);
        let ended = Event::ChildEnded {
            task: kin.task,
            child: kin.place,
            items: kin.items,
            succeeded,
        };
        self.agenda.push_back((kin.execution, ended));
    }

    /// An express child has ended: that is all that is kept of it.
    pub(crate) fn express_child_over(
        &mut self,
        owner: u64,
        kin: Kin,
        started_at: Timestamp,
        ended_at: Timestamp,
        status: asl::Status,
    ) {
        if let Entry::Occupied(mut brood) = self.brood.entry(owner) {
            *brood.get_mut() -= 1;
            if *brood.get() == 0 {
                brood.remove();
            }
        }
        let (status, output, error, cause) = told(status);
        self.batch.ended.push(ChildEnd {
            run: kin.run,
            child: kin.child,
            items: kin.items,
            status,
            output,
            error,
            cause,
            started_at,
            ended_at,
        });
        self.child_over(kin, status == Status::Succeeded);
    }

    /// A child goes on that ended before its run was tried again.
    pub(crate) fn child_again(&mut self, key: u64, kin: Kin, recovered: crate::Recovered) {
        let (at, count) = (self.now(), recovered.state.redrives() + 1);
        let mut live = Live::from(recovered);
        live.kin = Some(kin);
        self.insert(key, live);
        self.batch.placed.push((key, kin));
        self.batch.reopened.push((key, at));
        self.happen(key, Event::Redrive { count });
    }
}
