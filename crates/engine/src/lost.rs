//! Executions of tenants of which what was kept cannot be read. They end as failed, by name: nothing may be under way for
//! ever, hold up its run, or keep the log from being dropped. Those of the platform's own are ended by who knows more of
//! them.

use jiff::Timestamp;
use store::{Batch, Db, Finish, Run, RunChange, RunStep, Status};

use crate::{Engine, Error, PLATFORM, maps::Done};

const ERROR: &str = "Vend.Unreadable";
const CAUSE: &str = "What is kept of the execution cannot be read.";

/// Is it to be ended here?
pub(crate) fn is_lost(run: &Run) -> bool {
    run.owner != PLATFORM && run.ended_at.is_none()
}

fn finish(run: &Run, at: Timestamp) -> Finish {
    Finish {
        execution: run.key,
        status: Status::Failed,
        output: None,
        error: Some(ERROR.into()),
        cause: Some(CAUSE.into()),
        at,
        history: None,
        snapshot: None,
        kin: run.kin,
    }
}

/// Ends what is lost at a start, with the open Map runs of it.
pub(crate) fn end(lost: &[Run], runs: &[store::MapRun], at: Timestamp) -> Batch {
    let of_lost = |open: &&store::MapRun| lost.iter().any(|run| run.key == open.execution);
    let end = |open: &store::MapRun| RunStep {
        execution: open.execution,
        task: open.task,
        at,
        change: RunChange::End {
            status: Status::Failed,
            written: open.written,
        },
    };
    Batch {
        runs: runs.iter().filter(of_lost).map(end).collect(),
        finishes: lost.iter().map(|run| finish(run, at)).collect(),
        ..Batch::default()
    }
}

/// Open children of all runs of an execution.
fn children(db: &Db<'_>, execution: u64) -> Result<Vec<u64>, store::Error> {
    let mut found = Vec::new();
    for run in db.map_runs(execution, None, u32::MAX)? {
        found.extend(db.open_children(run.key)?);
    }
    Ok(found)
}

impl Engine {
    /// Ends an execution that was to be read because something happens to it.
    pub(crate) fn give_up(&mut self, run: &Run) {
        let (key, at) = (run.key, self.now());
        self.ending.insert(key, self.sent + 1);
        self.batch.finishes.push(finish(run, at));
        self.desk.forget_all(key);
        let open: Vec<u64> = self
            .runs
            .keys()
            .filter(|(execution, _)| *execution == key)
            .map(|(_, task)| *task)
            .collect();
        if !open.is_empty() {
            // After a start its run may not know them yet.
            let store = self.setup.store.clone();
            self.jobs.spawn(async move {
                let found = store.read(move |db| Ok(children(db, key)?));
                Done::Strays(found.await)
            });
        }
        for task in open {
            self.run_over(key, task, at, Status::Failed);
        }
        if let Some(kin) = run.kin {
            self.child_over(kin, false);
        }
    }

    pub(crate) fn strays(&mut self, found: Result<Vec<u64>, Error>) {
        match found {
            Ok(strays) => self.stop_all(strays),
            // The next start stops them.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot read the children of an execution that is lost"
            ),
        }
    }
}
