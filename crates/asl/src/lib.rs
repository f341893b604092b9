//! The Amazon States Language as a pure function: a definition, a state, an event and a time give the next state, the
//! commands to carry out and the history to keep.
//!
//! The room exists so that an execution can be journaled: whoever replays the same events against the same machine
//! arrives at the same place, whatever crashed in between. It must not know Vend, files, sockets, databases or clocks;
//! time and randomness come in as values. It must not panic, recurse without bound or work without bound on any
//! definition or input, because both come from customers.

mod check;
mod decimal;
mod event;
mod execution;
mod family;
mod fault;
mod history;
mod instant;
mod intrinsic;
mod items;
mod locate;
mod machine;
mod parse;
mod path;
mod payload;
mod query;
mod random;
mod references;
mod results;
mod run;
mod scope;
mod size;
mod step;
mod template;
mod test;
mod validate;

pub use check::{Code, Diagnostic, Severity};
pub use event::{Command, Event, Step, Timeout};
pub use execution::{Execution, OpenRun, OpenState, OpenTask, OpenTimer, Purpose, Status};
pub use family::Family;
pub use history::{HistoryEvent, Kind};
pub use items::{Answer, Reading, Request};
pub use jsonata::json;
pub use machine::{Flavour, Machine};
pub use references::references;
pub use results::{File, Results, Writing};
pub use run::{Child, Ended, Failure, MapRun};
pub use step::step;
pub use test::{
    Configuration, ErrorOutput, Level, Mock, Mode, Refusal, TestRequest, TestResponse, Tested, test,
};
pub use validate::{Validation, Verdict, refusal, validate};

/// Limits that AWS sets, and a few of our own where AWS names none.
pub mod limit {
    /// Bytes of JSON text that a state's input or output, or a task's result, may have.
    pub const PAYLOAD: usize = 256 * 1024;
    /// Levels of nesting in such a payload. Ours: it keeps an [`Execution`](crate::Execution) readable by any JSON reader.
    pub const DEPTH: usize = 100;
    /// Characters of a number in such a payload, which is what Jackson reads. Whatever computes with it reads it anew.
    pub const NUMBER: usize = 1_000;
    /// Events in the history of one execution; the last one says that it failed for that reason.
    pub const HISTORY: u64 = 25_000;
    /// Bytes of a definition.
    pub const DEFINITION: usize = 1024 * 1024;
    /// Characters of a state's name.
    pub const NAME: usize = 80;
    /// Intrinsic functions inside each other.
    pub const NESTED_CALLS: usize = 10;
    /// Seconds that a Wait, a time-out or a heartbeat may name.
    pub const SECONDS: u64 = 99_999_999;
    /// Diagnostics that one check returns.
    pub const DIAGNOSTICS: usize = 100;
    /// Bytes of the variables of one scope together.
    pub const VARIABLES: usize = 10 * 1024 * 1024;
    /// Iterations of an inline Map that run at the same time, at most.
    pub const CONCURRENCY: u64 = 40;
    /// Child executions of a distributed Map that run at the same time, at most.
    pub const CHILDREN: u64 = 1_000;
    /// Activities that an execution remembers as deleted.
    pub const ACTIVITIES: usize = 1_000;
    /// Items of a distributed Map.
    pub const ITEMS: usize = 1_000_000;
    /// Bytes of an object that items are read from.
    pub const OBJECT: usize = 64 * 1024 * 1024;
    /// Bytes of the items that are made of tables, counting names and cells of each row and some more for each.
    pub const TABLES: usize = 512 * 1024 * 1024;
    /// What a cell takes beside its text.
    pub(crate) const CELL: usize = 64;
    /// Seconds that an execution of an Express machine may take.
    pub const EXPRESS: u64 = 300;
    /// Characters that are kept of an error's name, and of its cause.
    pub const ERROR: usize = 256;
    pub const CAUSE: usize = 32_768;
    /// Bytes of history that one step writes before it asks to be called again (see [`Command::StartTimer`](crate::Command)).
    pub(crate) const STEP_BYTES: usize = 4 * 1024 * 1024;
    /// Steps of JSONata after which it asks so too.
    pub(crate) const STEP_QUERIES: u64 = 4_000_000;
    /// State transitions that one step makes before it asks to be called again.
    pub(crate) const STEP_TRANSITIONS: usize = 1_000;
}
