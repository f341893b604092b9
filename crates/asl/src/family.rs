//! What the child executions of a Map run have in common, without the run: whoever starts many of them need not look at
//! the execution each time.

use crate::event::Event;
use crate::intrinsic;
use crate::random::Random;
use serde_json::Value;

/// Names, seeds and origin of the children of a Map run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// What is before their names in their ids.
    pub(crate) id: String,
    pub(crate) role: String,
    pub(crate) machine_id: String,
    pub(crate) machine_name: String,
    pub(crate) series: [u64; 2],
}

impl Family {
    /// The id of the child's execution, by its number in the order of the items.
    pub fn id(&self, child: u64) -> String {
        format!("{}{}", self.id, self.name(child))
    }

    /// The name of the child's execution.
    pub fn name(&self, child: u64) -> String {
        name(self.series, child)
    }

    /// The machine's name and label: what stands for the machine where the child is described.
    pub fn machine(&self) -> &str {
        &self.machine_name
    }

    /// The event that starts the child.
    pub fn start(&self, child: u64, input: Value) -> Event {
        self.event(self.name(child), seed(self.series, child), input)
    }

    pub(crate) fn event(&self, name: String, seed: [u64; 2], input: Value) -> Event {
        Event::Start {
            id: format!("{}{name}", self.id),
            name,
            input,
            role: self.role.clone(),
            machine_id: self.machine_id.clone(),
            machine_name: self.machine_name.clone(),
            seed,
        }
    }
}

pub(crate) fn name(series: [u64; 2], child: u64) -> String {
    intrinsic::uuid(Random::new(series, 0).digest("name", child))
}

pub(crate) fn seed(series: [u64; 2], child: u64) -> [u64; 2] {
    Random::new(series, 0).branch(child).seed()
}
