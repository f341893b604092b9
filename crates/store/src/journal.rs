//! The durable engine's rows: executions, their histories, tasks and timers.
//!
//! A transition is committed whole, against the version that it was decided on, or not at all.

mod activities;
mod executions;
mod log;
mod machines;
mod maps;
mod runs;
mod tasks;
mod transition;

pub use activities::{Activity, News};
pub use executions::{Execution, ExecutionFilter, ExecutionSummary, HistoryRow, Status};
pub use log::{Batch, Begin, Finish, Fold, Logged, Piece, Snapshot, Waiting};
pub use machines::{Alias, MachineFilter, MachineVersion, NewMachine, StateMachine, Tags};
pub use maps::{ChildEnd, Children, Kin, MapChild, MapRun, RunChange, RunStep};
pub use runs::{Run, RunFilter};
pub use tasks::{Due, Lease, Task, TaskKey};
pub use transition::{End, NewExecution, NewTask, Transition};
