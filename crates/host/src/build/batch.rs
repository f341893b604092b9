//! The builds of a batch, each after those that it depends on. Knows nothing of what a build is.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use model::{
    port::Fault,
    spec::build::{Batch, Task},
};

/// How one build of a batch ended, for who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    Succeeded(&'a str),
    Failed(&'a str),
    /// It failed, and the batch does not mind.
    Ignored(&'a str),
    /// What it depends on did not succeed, or the batch was given up.
    Skipped(&'a str),
}

/// Runs a batch, `at_once` builds at a time. Gives what the builds that succeeded came to, in the batch's order, or the
/// first failure. With `fast_fail` that failure gives up what still goes on; otherwise only what depends on it is left out.
pub async fn run<T, F: Future<Output = Result<T, Fault>>>(
    batch: &Batch,
    at_once: usize,
    build: impl Fn(Task) -> F,
    mut ended: impl FnMut(End<'_>),
) -> Result<Vec<(String, T)>, Fault> {
    let mut progress = Progress::new(batch);
    let mut running = FuturesUnordered::new();
    let mut results: BTreeMap<String, T> = BTreeMap::new();
    let mut first: Option<Fault> = None;
    loop {
        for name in progress.skipped() {
            ended(End::Skipped(&name));
        }
        while running.len() < at_once.max(1)
            && let Some(task) = progress.next()
        {
            let name = task.identifier.clone();
            let built = build(task.clone());
            running.push(async move { (name, built.await) });
        }
        let Some((name, built)) = running.next().await else {
            break;
        };
        match built {
            Ok(value) => {
                ended(End::Succeeded(&name));
                progress.done(&name, true);
                results.insert(name, value);
            }
            Err(fault) => {
                let counts = progress.done(&name, false);
                ended(match counts {
                    true => End::Failed(&name),
                    false => End::Ignored(&name),
                });
                if counts {
                    let fault = Fault {
                        message: format!("the build {name} of the batch: {}", fault.message),
                        ..fault
                    };
                    first.get_or_insert(fault);
                    if batch.fast_fail {
                        // What still goes on is dropped with its future.
                        break;
                    }
                }
            }
        }
    }
    drop(running);
    match first {
        Some(fault) => {
            progress.left().iter().for_each(|name| ended(End::Skipped(name)));
            Err(fault)
        }
        None => Ok(batch
            .tasks
            .iter()
            .filter_map(|task| Some((task.identifier.clone(), results.remove(&task.identifier)?)))
            .collect()),
    }
}

/// Which builds may begin. Pure.
struct Progress<'a> {
    waiting: Vec<&'a Task>,
    ignored: BTreeSet<&'a str>,
    /// By name, whether what depends on it may go on.
    over: BTreeMap<String, bool>,
}

impl<'a> Progress<'a> {
    fn new(batch: &'a Batch) -> Self {
        let ignored = batch.tasks.iter().filter(|task| task.ignore_failure);
        Self {
            waiting: batch.tasks.iter().collect(),
            ignored: ignored.map(|task| task.identifier.as_str()).collect(),
            over: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> Option<&'a Task> {
        let ready = |task: &&Task| {
            task.depend_on
                .iter()
                .all(|name| self.over.get(name) == Some(&true))
        };
        let at = self.waiting.iter().position(ready)?;
        Some(self.waiting.remove(at))
    }

    /// Whether a failure counts.
    fn done(&mut self, name: &str, succeeded: bool) -> bool {
        let ignored = self.ignored.contains(name);
        self.over.insert(name.to_owned(), succeeded || ignored);
        !succeeded && !ignored
    }

    /// Those that can never begin, and with them those that depend on them.
    fn skipped(&mut self) -> Vec<String> {
        let mut skipped = Vec::new();
        let never = |task: &&Task, over: &BTreeMap<String, bool>| {
            task.depend_on.iter().any(|name| over.get(name) == Some(&false))
        };
        while let Some(at) = self.waiting.iter().position(|task| never(task, &self.over)) {
            let task = self.waiting.remove(at);
            self.over.insert(task.identifier.clone(), false);
            skipped.push(task.identifier.clone());
        }
        skipped
    }

    fn left(&self) -> Vec<String> {
        self.waiting.iter().map(|task| task.identifier.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name<a,b` waits for a and b; `!` fails, `?` fails and nobody minds.
    fn batch(text: &str, fast_fail: bool) -> (Batch, Vec<String>) {
        let mut failing = Vec::new();
        let task = |word: &str| {
            let (name, after) = word.split_once('<').unwrap_or((word, ""));
            let identifier = name.trim_end_matches(['!', '?']).to_owned();
            if identifier != name {
                failing.push(identifier.clone());
            }
            Task {
                identifier,
                ignore_failure: name.ends_with('?'),
                depend_on: after
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                ..Task::default()
            }
        };
        let tasks = text.split(' ').map(task).collect();
        (Batch { fast_fail, tasks }, failing)
    }

    #[track_caller]
    fn check(text: &str, fast_fail: bool, events: &str, result: Result<&str, &str>) {
        let (batch, failing) = batch(text, fast_fail);
        let mut seen = Vec::new();
        let build = |task: Task| {
            let fails = failing.contains(&task.identifier);
            async move {
                if fails {
                    Err(Fault::customer("broke"))
                } else {
                    Ok(())
                }
            }
        };
        let note = |end: End<'_>| {
            seen.push(match end {
                End::Succeeded(name) => format!("+{name}"),
                End::Failed(name) => format!("-{name}"),
                End::Ignored(name) => format!("~{name}"),
                End::Skipped(name) => format!("/{name}"),
            });
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(run(&batch, 1, build, note));
        let names = |all: Vec<(String, ())>| {
            all.into_iter()
                .map(|(name, ())| name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let found = found.map(names).map_err(|fault| fault.message);
        assert_eq!(seen.join(" "), events, "{text}");
        assert_eq!(found, result.map(str::to_owned).map_err(str::to_owned), "{text}");
    }

    #[test]
    fn builds_follow_what_they_depend_on() {
        check("a b c", false, "+a +b +c", Ok("a b c"));
        check("a b<a c<a,b", false, "+a +b +c", Ok("a b c"));
        let broke = Err("the build a of the batch: broke");
        check("a! b<a c d<b", false, "-a /b /d +c", broke);
        check("a! b<a c", true, "-a /b /c", broke);
        check("a? b<a c", true, "~a +b +c", Ok("b c"));
    }
}
