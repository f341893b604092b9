//! What a Map run needs that takes time: its children are made, found again and collected beside the loop. Each chore
//! may be cut off anywhere and done again from its beginning.

use std::{sync::Arc, time::Duration};

use asl::{Ended, Execution, Failure, Family, Machine, MapRun, Results, Writing, limit};
use jiff::Timestamp;
use model::TenantName;
use serde_json::Value;
use store::{Definition, MapChild, Status, Store};
use tokio::task::spawn_blocking;

use crate::{Error, objects::Buckets};

/// Chores at the same time: each may hold the items of a whole run.
pub(crate) const AT_ONCE: usize = 2;
/// Children, and bytes of their inputs, that one transaction keeps.
const PAGE: usize = 512;
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of results that a ResultWriter writes.
const RESULTS: usize = 256 << 20;
/// Before something is looked at again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Something to be done for the Map run `task` of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chore {
    pub execution: u64,
    pub task: u64,
    pub deed: Deed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The engine started: whatever is next.
    Resume,
    /// Makes the children.
    Open,
    /// Finds those that are to be tried again.
    Redrive,
    Close,
}

/// What all children of a run have in common.
pub(crate) struct Kindred {
    pub run: u64,
    pub redriven: bool,
    pub owner: u64,
    pub tenant: Option<TenantName>,
    /// Key of the state machine.
    pub machine: u64,
    pub origin: String,
    pub family: Family,
    pub program: Machine,
    /// The text of `program`.
    pub definition: Definition,
}

pub(crate) enum Outcome {
    /// Nothing is to be told; the children may be started.
    Ready(Kindred),
    Opened {
        kindred: Kindred,
        children: u64,
        items: u64,
    },
    Reopened {
        kindred: Kindred,
        children: u64,
        items: u64,
        failed: u64,
    },
    /// Children of before have not ended yet.
    Busy(Vec<u64>),
    Closed {
        output: Value,
        written: bool,
    },
    Failed(Failure),
    /// The run is not there any more.
    Gone,
    /// It is to be done again.
    Broken(Error),
    /// The same; nobody knows why.
    Cut,
}

/// The run and the execution that it is in, as they are now.
pub(crate) struct Around {
    pub store: Store,
    pub buckets: Buckets,
    pub machine: Machine,
    pub state: Execution,
}

/// Does a chore. `state` must have the run.
pub(crate) async fn work(chore: Chore, around: Around) -> Outcome {
    let store = around.store.clone();
    match doing(chore, around).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let execution = chore.execution;
            let there = store.read(move |db| db.run_by_key(execution));
            match there.await {
                Ok::<_, store::Error>(None) => Outcome::Gone,
                _ => Outcome::Broken(error),
            }
        }
    }
}

async fn doing(chore: Chore, around: Around) -> Result<Outcome, Error> {
    let (execution, task) = (chore.execution, chore.task);
    let rows = around.store.read(move |db| {
        let run = db.map_run_of(execution, task)?;
        Ok::<_, store::Error>(run.zip(db.run_by_key(execution)?))
    });
    let Some((row, (parent, _))) = rows.await? else {
        return Ok(Outcome::Gone);
    };
    let around = Arc::new(around);
    let Some(run) = MapRun::of(&around.machine, &around.state, task) else {
        return Ok(Outcome::Gone);
    };
    let Some(program) = run.machine() else {
        return Ok(Outcome::Gone);
    };
    let kindred = Kindred {
        run: row.key,
        redriven: row.redrives > 0,
        owner: parent.owner,
        tenant: parent.tenant,
        machine: parent.machine,
        origin: origin(&parent.origin, run.family().machine()),
        family: run.family(),
        definition: text(&program),
        program,
    };
    drop(run);
    match chore.deed {
        Deed::Resume => Ok(Outcome::Ready(kindred)),
        Deed::Open => open(kindred, around, task).await,
        Deed::Redrive => redrive(kindred, around, row.items).await,
        Deed::Close => close(kindred, around, task).await,
    }
}

/// The digest is computed here, beside the loop and the writer.
fn text(program: &Machine) -> Definition {
    let definition = Definition::from(program.definition().to_string());
    definition.digest();
    definition
}

/// As that of the execution that the run is in, but of the machine with the label.
fn origin(text: &str, machine: &str) -> String {
    let mut origin: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(members) = origin.as_object_mut() {
        members.insert("machine".into(), machine.into());
    }
    origin.to_string()
}

async fn open(kindred: Kindred, around: Arc<Around>, task: u64) -> Result<Outcome, Error> {
    let own = Arc::clone(&around);
    let made = spawn_blocking(move || -> Result<Vec<(u64, String)>, Failure> {
        let run = MapRun::of(&own.machine, &own.state, task).ok_or_else(gone)?;
        let mut reading = run.reading()?;
        if let Some(reading) = &mut reading {
            own.buckets.fill(reading)?;
        }
        let children = run.children(reading)?;
        let text = |child: asl::Child| (child.items, child.input.to_string());
        Ok(children.into_iter().map(text).collect())
    });
    let made = made.await.unwrap_or_else(|error| {
        Err(Failure {
            error: "States.Runtime".into(),
            cause: format!("The platform could not make the children: {error}"),
        })
    });
    let children = match made {
        Ok(children) => children,
        Err(failure) => return Ok(Outcome::Failed(failure)),
    };
    let (run, count) = (kindred.run, children.len() as u64);
    let items = children.iter().map(|(items, _)| items).sum();
    let mut children = children.into_iter().peekable();
    let mut first = 0;
    while children.peek().is_some() {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(child) = children.next_if(|_| page.len() < PAGE && bytes < PAGE_BYTES) {
            bytes += child.1.len();
            page.push(child);
        }
        let length = page.len() as u64;
        around
            .store
            .write(move |tx| tx.make_children(run, first, &page))
            .await?;
        first += length;
    }
    around.store.write(move |tx| tx.drop_children(run, count)).await?;
    Ok(Outcome::Opened {
        kindred,
        children: count,
        items,
    })
}

fn gone() -> Failure {
    Failure {
        error: "States.Runtime".into(),
        cause: "The Map run is not open.".into(),
    }
}

async fn redrive(kindred: Kindred, around: Arc<Around>, items: u64) -> Result<Outcome, Error> {
    let run = kindred.run;
    let open = around.store.read(move |db| db.open_children(run)).await?;
    if !open.is_empty() {
        return Ok(Outcome::Busy(open));
    }
    let (mut from, mut place, mut failed) = (Some(0), 0, 0);
    while let Some(child) = from {
        let listed = around.store.write(move |tx| tx.list_redrive(run, child, place));
        let (next, after, lost): (_, _, u64) = listed.await?;
        (from, place) = (next, after);
        failed += lost;
    }
    Ok(Outcome::Reopened {
        kindred,
        children: place,
        items,
        failed,
    })
}

async fn close(kindred: Kindred, around: Arc<Around>, task: u64) -> Result<Outcome, Error> {
    let (run, own) = (kindred.run, Arc::clone(&around));
    let collected = around.store.read(move |db| {
        let Some(map) = MapRun::of(&own.machine, &own.state, task) else {
            return Ok::<_, Error>(Ok(Collected::Enough(Outcome::Gone)));
        };
        let writing = match map.writing() {
            Ok(writing) => writing,
            Err(failure) => return Ok(Err(failure)),
        };
        let Some(writing) = writing else {
            let children = outputs(db, run, &kindred.family)?;
            let output = map.output(children);
            return Ok(Ok(Collected::Enough(Outcome::Closed {
                output,
                written: false,
            })));
        };
        let Some(results) = results(db, &kindred, &map, &writing)? else {
            return Ok(Err(Buckets::too_many(RESULTS)));
        };
        let files = results.files();
        Ok(Ok(Collected::Files(writing, files)))
    });
    let (writing, files) = match collected.await? {
        Ok(Collected::Files(writing, files)) => (writing, files),
        Ok(Collected::Enough(outcome)) => return Ok(outcome),
        Err(failure) => return Ok(Outcome::Failed(failure)),
    };
    // Not in the read, which would keep a reader, and the log of the database, for as long as the disk takes.
    let written = spawn_blocking(move || {
        around.buckets.keep(&writing, files)?;
        Ok(writing.output())
    });
    let written = written.await.unwrap_or_else(|error| {
        Err(Failure {
            error: "States.Runtime".into(),
            cause: format!("The platform could not write the results: {error}"),
        })
    });
    Ok(match written {
        Ok(output) => Outcome::Closed {
            output,
            written: true,
        },
        Err(failure) => Outcome::Failed(failure),
    })
}

/// What the children left.
enum Collected {
    /// There is nothing to be written.
    Enough(Outcome),
    Files(Writing, Vec<asl::File>),
}

/// The children that succeeded: no more of them than make a result that is too large already.
fn outputs(db: &store::Db<'_>, run: u64, family: &Family) -> Result<Vec<Ended>, Error> {
    let (mut found, mut bytes, mut from) = (Vec::new(), 0, Some(0));
    while let Some(first) = from {
        let page = db.map_children(run, first, PAGE as u32)?;
        from = page.last().map(|last| last.child + 1);
        for child in page {
            if child.status != Some(Status::Succeeded) {
                continue;
            }
            // An array may be flattened, and leaves two bytes less.
            bytes += child.output.as_ref().map_or(0, String::len).saturating_sub(2);
            found.extend(ended(family, child));
            if bytes > limit::PAYLOAD {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// The results of all children; `None`: there is too much of them.
fn results<'a>(
    db: &store::Db<'_>,
    kindred: &Kindred,
    map: &MapRun<'_>,
    writing: &'a Writing,
) -> Result<Option<Results<'a>>, Error> {
    let (mut results, mut from) = (Results::new(writing), Some(0));
    while let Some(first) = from {
        let page = db.map_children(kindred.run, first, PAGE as u32)?;
        from = page.last().map(|last| last.child + 1);
        for child in page {
            if let Some(child) = ended(&kindred.family, child) {
                results.add(map, &child);
            }
            if results.size() > RESULTS {
                return Ok(None);
            }
        }
    }
    Ok(Some(results))
}

fn ended(family: &Family, child: MapChild) -> Option<Ended> {
    let (error, cause) = (child.error, child.cause);
    let status = match child.status.unwrap_or(Status::Running) {
        Status::Running => asl::Status::Running,
        Status::Succeeded => asl::Status::Succeeded {
            output: asl::json::read(child.output.as_deref()?).ok()?,
        },
        Status::Failed => asl::Status::Failed { error, cause },
        Status::TimedOut => asl::Status::TimedOut,
        Status::Aborted => asl::Status::Aborted { error, cause },
    };
    let started = child.started_at.unwrap_or(Timestamp::UNIX_EPOCH);
    Some(Ended {
        name: family.name(child.child),
        input: asl::json::read(&child.input).unwrap_or_default(),
        status,
        started,
        stopped: child.ended_at.unwrap_or(started),
    })
}
