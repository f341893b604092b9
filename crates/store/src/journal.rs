//! The durable engine's rows: executions, their histories, tasks and timers.
//!
//! A transition is committed whole, against the version that it was decided on, or not at all.

mod executions;
mod tasks;
mod transition;

pub use executions::{Execution, ExecutionFilter, ExecutionSummary, HistoryRow, Status};
pub use tasks::{Due, Lease, Task, TaskKey};
pub use transition::{End, NewExecution, NewTask, Transition};
