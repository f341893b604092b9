//! The durable engine's rows: what runs and ran, the log of it, and the histories; and what is a release among them.

mod activities;
mod definition;
mod executions;
mod left;
mod log;
mod machines;
mod maps;
mod runs;

pub use activities::{Activity, News};
pub use definition::{Definition, Seen};
pub use executions::{DESTROY, ExecutionFilter, ExecutionSummary, NewExecution, Status};
pub use log::{Batch, Begin, Finish, Fold, Logged, Piece, Progress, Snapshot, Waiting};
pub use machines::{Alias, MachineFilter, MachineVersion, NewMachine, StateMachine, Tags};
pub use maps::{ChildEnd, Children, Kin, MapChild, MapRun, RunChange, RunStep};
pub use runs::{Run, RunFilter};
