//! Errors on their way out: retriers, then catchers, then the branch or iteration around, then the execution.

use super::Run;
use super::data::{About, Outcome, merge};
use crate::event::Command;
use crate::execution::{Parent, Position, Purpose, Strand};
use crate::fault::Fault;
use crate::history;
use crate::limit;
use crate::machine::{Catcher, Kind, Language, Retrier, State, Work};
use crate::payload::Payload;
use crate::random::Random;
use serde_json::json;

impl<'m> Run<'m> {
    /// The state of `strand` failed.
    pub(super) fn fail(&mut self, id: u64, strand: Strand, fault: Fault) {
        let (mut id, mut strand, mut fault) = (id, strand, fault);
        loop {
            self.forget(&mut strand);
            self.evaluation_failed(&mut strand, &fault);
            if self.full {
                return;
            }
            match self.handle(id, strand, fault) {
                None => return,
                Some((failed, mut uncaught)) => match failed.parent.strand() {
                    None => {
                        let last = failed.last;
                        self.fallen.insert(id, failed);
                        return self.end_failed(last, uncaught);
                    }
                    Some(outer) => {
                        // The event about a query is written once, where it failed.
                        uncaught.place = None;
                        self.fallen.insert(id, failed.clone());
                        let Some(around) = self.abandon(outer, failed) else {
                            return;
                        };
                        (id, strand, fault) = (outer, around, uncaught);
                    }
                },
            }
        }
    }

    /// The history tells of a failed query before it tells of the state.
    fn evaluation_failed(&mut self, strand: &mut Strand, fault: &Fault) {
        let Some(place) = &fault.place else { return };
        let mut details = json!({ "state": strand.state });
        if !place.is_empty() {
            details["location"] = place.as_str().into();
        }
        history::failure(&mut details, fault.error.as_deref(), fault.cause.as_deref());
        let untouched = strand.last == strand.entered && !fault.late;
        let previous = if untouched { strand.before } else { strand.last };
        strand.last = self.emit("EvaluationFailed", previous, details);
    }

    /// Retries or catches; what neither does is given back.
    fn handle(&mut self, id: u64, mut strand: Strand, fault: Fault) -> Option<(Strand, Fault)> {
        let Some(state) = self.state(&strand) else {
            return Some((strand, fault));
        };
        let Some(work) = state.kind.work() else {
            return Some((strand, fault));
        };
        if let Some(delay) = retry(&mut strand, &work.retry, &fault, &self.random) {
            self.fallen.clear();
            let timer = self.timer(delay, Purpose::Backoff, id);
            strand.position = Position::Backoff { timer };
            self.x.strands.insert(id, strand);
            return None;
        }
        let under_way = matches!(
            strand.position,
            Position::Parallel { .. } | Position::Map { .. } | Position::Run(_)
        );
        if under_way || fault.place.is_some() {
            match state.kind {
                Kind::Map(_) => strand.last = self.emit("MapStateFailed", strand.last, json!({})),
                Kind::Parallel { .. } => {
                    strand.last = self.emit("ParallelStateFailed", strand.last, json!({}));
                }
                _ => {}
            }
        }
        let Some(catcher) = work.catcher(&fault) else {
            return Some((strand, fault));
        };
        match self.caught(&strand, state, catcher, &fault) {
            Ok(outcome) if outcome.output.fits() => {
                self.fallen.clear();
                self.exit(id, strand, outcome);
                None
            }
            Ok(_) => {
                let fault = Fault::too_large(&strand.state);
                Some((strand, fault))
            }
            Err(fault) => Some((strand, fault)),
        }
    }

    pub(super) fn caught(
        &self,
        strand: &Strand,
        state: &'m State,
        catcher: &'m Catcher,
        fault: &Fault,
    ) -> Result<Outcome<'m>, Fault> {
        let error = Payload::new(fault.output());
        let (answer, assign) = (catcher.answer.as_ref(), catcher.assign.as_ref());
        let (output, assigned) = match state.language {
            Language::JsonPath => {
                let assigned = self.assigned(strand, state, assign, About::data(&error))?;
                (merge(strand, &catcher.result_path, error)?, assigned)
            }
            Language::JsonAta => {
                let about = About {
                    error: Some(&error),
                    ..About::data(&strand.input)
                };
                self.answered(strand, state, (answer, assign), about, &error)?
            }
        };
        Ok(Outcome {
            output,
            assigned,
            next: Some(&catcher.next),
        })
    }

    /// Takes leave of the task and the timer of a strand.
    fn forget(&mut self, strand: &mut Strand) {
        if let Some(timer) = strand.timer() {
            self.stop_timer(timer);
        }
        if let Position::Task { task, .. } = strand.position {
            self.x.tasks.remove(&task);
            strand.position = Position::Attempt;
        }
        if let Position::Run(children) = &strand.position {
            self.x.tasks.remove(&children.task);
        }
    }

    /// Ends everything inside the Parallel or Map state `outer`, because `failed` inside it did; takes its strand out.
    pub(super) fn abandon(&mut self, outer: u64, failed: Strand) -> Option<Strand> {
        match failed.parent {
            Parent::Item { index, .. } => {
                self.iteration_ended("MapIterationFailed", outer, index, failed.last)
            }
            _ => self.state_aborted(&failed),
        }
        self.abort_inside(outer);
        let mut around = self.x.strands.remove(&outer)?;
        around.last = failed.last;
        Some(around)
    }

    fn iteration_ended(&mut self, kind: &'static str, outer: u64, index: usize, previous: u64) {
        if let Some(around) = self.x.strands.get(&outer) {
            self.emit(kind, previous, json!({ "name": around.state, "index": index }));
        }
    }

    fn abort_inside(&mut self, outer: u64) {
        let inside: Vec<_> = self
            .x
            .strands
            .iter()
            .filter(|(_, strand)| strand.parent.strand() == Some(outer))
            .map(|(id, _)| *id)
            .collect();
        for id in inside {
            self.abort_inside(id);
            let Some(mut strand) = self.x.strands.remove(&id) else {
                continue;
            };
            self.fallen.insert(id, strand.clone());
            match &strand.position {
                Position::Task { task, .. } => self.commands.push(Command::CancelTask { task: *task }),
                Position::Run(children) => self.abort_run(&mut strand.last, children),
                _ => {}
            }
            if !matches!(strand.position, Position::Enter) {
                self.state_aborted(&strand);
            }
            self.forget(&mut strand);
            if let Parent::Item { index, .. } = strand.parent {
                self.iteration_ended("MapIterationAborted", outer, index, strand.last);
            }
        }
        self.x.ready.retain(|id| self.x.strands.contains_key(id));
    }

    fn state_aborted(&mut self, strand: &Strand) {
        if let Some(state) = self.state(strand)
            && matches!(
                state.kind,
                Kind::Task(_) | Kind::Wait(_) | Kind::Parallel { .. } | Kind::Map(_)
            )
        {
            let kind = format!("{}StateAborted", state.kind.name());
            self.emit(kind, strand.last, json!({}));
        }
    }
}

impl Work {
    fn catcher(&self, fault: &Fault) -> Option<&Catcher> {
        self.catch
            .iter()
            .find(|catcher| catcher.errors.iter().any(|name| fault.answers(name)))
    }
}

/// Seconds until the next attempt, when a retrier matches and has attempts left; it is counted then.
fn retry(strand: &mut Strand, retriers: &[Retrier], fault: &Fault, random: &Random) -> Option<f64> {
    let matching = |retrier: &&Retrier| retrier.errors.iter().any(|name| fault.answers(name));
    let (at, retrier) = retriers
        .iter()
        .enumerate()
        .find(|(_, retrier)| matching(retrier))?;
    strand.attempts.resize(retriers.len(), 0);
    let used = strand.attempts.get_mut(at)?;
    if *used >= retrier.attempts {
        return None;
    }
    let power = i32::try_from(*used).unwrap_or(i32::MAX);
    *used += 1;
    let most = retrier.most.unwrap_or(limit::SECONDS) as f64;
    let delay = (retrier.interval as f64 * retrier.rate.powi(power)).min(most);
    Some(if retrier.jitter {
        delay * random.fraction()
    } else {
        delay
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn retrier(errors: &[&str], attempts: u32, jitter: bool) -> Retrier {
        let errors = errors.iter().map(|name| (*name).to_owned()).collect();
        Retrier {
            errors,
            interval: 3,
            attempts,
            rate: 2.0,
            most: Some(10),
            jitter,
        }
    }

    #[test]
    fn delays_grow_to_the_maximum_and_each_retrier_counts_for_itself() {
        let mut strand = Strand::new(Parent::None, "S", Payload::default(), 0, Timestamp::UNIX_EPOCH);
        let retriers = [retrier(&["A"], 3, false), retrier(&["States.ALL"], 1, false)];
        let random = Random::new([0, 0], 0);
        let mut next = |name: &str| retry(&mut strand, &retriers, &Fault::named(name, ""), &random);
        assert_eq!(
            ["A", "B", "A", "B", "A", "A"].map(&mut next),
            [Some(3.0), Some(3.0), Some(6.0), None, Some(10.0), None]
        );
        assert_eq!(retry(&mut strand, &retriers, &Fault::runtime(""), &random), None);
    }

    #[test]
    fn full_jitter_stays_below_the_delay() {
        let mut strand = Strand::new(Parent::None, "S", Payload::default(), 0, Timestamp::UNIX_EPOCH);
        let random = Random::new([0, 0], 0);
        for _ in 0..100 {
            let delay = retry(
                &mut strand,
                &[retrier(&["A"], 100, true)],
                &Fault::named("A", ""),
                &random,
            );
            assert!(delay.is_some_and(|delay| (0.0..10.0).contains(&delay)));
        }
    }
}
