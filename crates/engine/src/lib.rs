//! The durable engine: moves executions of state machines, and loses nothing.
//!
//! Decide, commit, act. An event comes (somebody starts an execution, a worker answers, a timer goes off), `asl::step`
//! decides what follows, the event is committed, and only then does anybody outside hear of what followed. A step is a
//! pure function, so the event *is* the decision: state, history, tasks and timers follow from the events, always the
//! same ones, and need not be written with each of them. From time to time they are folded into rows, so that the log
//! stays short and a start reads little. Commits of many executions share one transaction.
//!
//! There is no recovery. A start, a commit that failed and a reader of a history all do the same: a snapshot, and the
//! events after it.
//!
//! The room exists so that it can be measured and killed without a platform around it. It must not know of HTTP, hosts
//! or releases: who works on tasks is no concern of its own. Time and randomness come in as functions.

mod act;
mod beside;
mod children;
mod chores;
mod commit;
mod desk;
mod error;
mod express;
mod handle;
mod interrupt;
mod live;
mod lost;
mod maps;
mod news;
mod objects;
mod port;
mod read;
mod recover;
mod run;
mod timers;
mod turns;

pub use desk::Offer;
pub use error::Error;
pub use handle::{Also, Ended, Handle, Start, Started};
pub use live::{Order, Own};
pub use objects::Objects;
pub use port::Local;
pub use recover::{Mark, Recovered, history, outline, recover};
pub use run::{Engine, Limits, PLATFORM, Refuses, Setup, Witness, new};
