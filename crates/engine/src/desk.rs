//! Who waits for work, what work waits, and which token belongs to which task.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::oneshot;

/// Shared by all that know a task.
pub(crate) type Token = Arc<str>;

/// A task as a worker gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Number of the tenant whose execution it is, or [`PLATFORM`](crate::PLATFORM).
    pub owner: u64,
    /// Who shows it answers for the task.
    pub token: String,
    pub input: Value,
    /// Key of the execution, and the task's number in it.
    pub execution: u64,
    pub task: u64,
    /// From 1; grows with each retry.
    pub attempt: u32,
}

pub(crate) struct Poller {
    pub worker: Option<String>,
    pub answer: oneshot::Sender<Offer>,
}

/// Which task a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whose execution it is: nobody else may answer.
    pub owner: u64,
    pub execution: u64,
    pub task: u64,
}

#[derive(Default)]
pub(crate) struct Desk {
    tokens: HashMap<Token, Place>,
    waiting: HashMap<String, VecDeque<Token>>,
    pollers: HashMap<String, VecDeque<Poller>>,
    /// Dropped when the task is over.
    watchers: HashMap<Token, oneshot::Sender<()>>,
}

/// Entries of those who stopped waiting are swept when there are more than this.
pub(crate) const SWEEP: usize = 64;

impl Desk {
    /// Everything about tasks is forgotten; who waits goes on waiting.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.watchers.clear();
        self.waiting.clear();
    }

    pub fn place(&self, token: &str) -> Option<Place> {
        self.tokens.get(token).copied()
    }

    pub fn know(&mut self, token: Token, place: Place) {
        self.tokens.insert(token, place);
    }

    pub fn forget(&mut self, token: &str) {
        self.tokens.remove(token);
        self.watchers.remove(token);
    }

    /// Forgets all tasks of an execution.
    pub fn forget_all(&mut self, execution: u64) {
        self.tokens.retain(|_, place| place.execution != execution);
        let tokens = &self.tokens;
        self.watchers.retain(|token, _| tokens.contains_key(token));
    }

    /// Drops `over` when the task is over, at once if it is.
    pub fn watch(&mut self, token: &str, over: oneshot::Sender<()>) {
        if let Some((token, _)) = self.tokens.get_key_value(token) {
            self.watchers.insert(token.clone(), over);
        }
    }

    /// A poller of `resource` that still waits.
    pub fn poller(&mut self, resource: &str) -> Option<Poller> {
        let queue = self.pollers.get_mut(resource)?;
        while let Some(poller) = queue.pop_front() {
            if !poller.answer.is_closed() {
                return Some(poller);
            }
        }
        self.pollers.remove(resource);
        None
    }

    /// A task of `resource` that nobody has, the oldest first.
    pub fn task(&mut self, resource: &str) -> Option<Token> {
        let queue = self.waiting.get_mut(resource)?;
        while let Some(token) = queue.pop_front() {
            if self.tokens.contains_key(&token) {
                return Some(token);
            }
        }
        self.waiting.remove(resource);
        None
    }

    pub fn wait_for_task(&mut self, resource: String, poller: Poller) {
        let queue = self.pollers.entry(resource).or_default();
        if queue.len() >= SWEEP && queue.len().is_power_of_two() {
            queue.retain(|poller| !poller.answer.is_closed());
        }
        queue.push_back(poller);
    }

    pub fn wait_for_poller(&mut self, resource: &str, token: Token) {
        match self.waiting.get_mut(resource) {
            Some(queue) => queue.push_back(token),
            None => drop(self.waiting.insert(resource.to_owned(), VecDeque::from([token]))),
        }
    }

    /// A task that was handed out to nobody goes first.
    pub fn return_task(&mut self, resource: &str, token: Token) {
        self.waiting
            .entry(resource.to_owned())
            .or_default()
            .push_front(token);
    }

    /// Resources that have both a task and somebody who waits for one.
    pub fn matches(&self) -> Vec<String> {
        self.pollers
            .keys()
            .filter(|resource| self.waiting.contains_key(*resource))
            .cloned()
            .collect()
    }
}
