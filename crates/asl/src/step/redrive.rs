//! Redrive: an execution that ended without success goes on from the states that did not succeed.
//!
//! When an execution ends so, its lines of control are kept as they were before the failure took them down. Branches and
//! iterations that had succeeded stay so; what had failed, or was under way, is attempted again from its beginning. A distributed Map goes on with the children that did
//! not succeed.

use super::Run;
use crate::execution::{Parent, Position, Status, Strand};
use serde_json::json;
use std::collections::BTreeMap;

impl Run<'_> {
    /// Called before an end takes all strands away.
    pub(super) fn keep_for_redrive(&mut self, status: &Status) {
        if matches!(status, Status::Succeeded { .. } | Status::Running) {
            return;
        }
        let mut fallen = std::mem::take(&mut self.x.strands);
        fallen.append(&mut self.fallen);
        fallen.values_mut().for_each(rest);
        let whole = |strand: &Strand| match strand.parent.strand() {
            None => true,
            Some(outer) => fallen.get(&outer).is_some_and(holds),
        };
        let kept: Vec<u64> = fallen
            .iter()
            .filter(|(_, strand)| whole(strand))
            .map(|(id, _)| *id)
            .collect();
        self.x.fallen = fallen;
        self.x.fallen.retain(|id, _| kept.binary_search(id).is_ok());
        orphans(&mut self.x.fallen);
    }

    pub(super) fn redrive(&mut self, count: u32) -> bool {
        if !self.x.can_redrive() || self.x.redrives.checked_add(1) != Some(count) {
            return false;
        }
        self.x.status = Status::Running;
        self.x.redrives = count;
        self.x.redriven = Some(self.at);
        let details = json!({ "redriveCount": self.x.redrives });
        let redriven = self.emit("ExecutionRedriven", self.x.history, details);
        self.start_deadline();
        let mut open = Vec::new();
        for (id, mut strand) in std::mem::take(&mut self.x.fallen) {
            strand.last = redriven;
            strand.retries = 0;
            strand.attempts.clear();
            let waits = holds(&strand);
            let runs = matches!(strand.position, Position::Run(_));
            self.x.strands.insert(id, strand);
            match runs {
                true => open.push(id),
                false if !waits => self.x.ready.push_back(id),
                false => {}
            }
        }
        // Which states they are in is known when those around them are there again.
        open.into_iter().for_each(|id| self.redrive_run(id, redriven));
        true
    }
}

/// Whether a strand waits for others inside it.
fn holds(strand: &Strand) -> bool {
    matches!(strand.position, Position::Parallel { .. } | Position::Map { .. })
}

/// Sets a strand back to where it can begin again.
fn rest(strand: &mut Strand) {
    match &mut strand.position {
        Position::Enter | Position::Parallel { .. } | Position::Map { .. } => {}
        // The same run goes on, unless it never had children.
        Position::Run(children) if children.total.is_some() || children.redrives > 0 => {
            children.total = None;
            children.open.clear();
            (children.next, children.failed, children.closing) = (0, 0, false);
            children.failing = None;
        }
        _ => strand.position = Position::Attempt,
    }
}

/// A Parallel or Map state of which nothing is left inside failed by itself: it starts over. So does one whose own
/// parent is gone.
fn orphans(fallen: &mut BTreeMap<u64, Strand>) {
    loop {
        let outers: Vec<u64> = fallen
            .values()
            .filter_map(|strand| strand.parent.strand())
            .collect();
        let empty: Vec<u64> = fallen
            .iter()
            .filter(|(id, strand)| holds(strand) && !outers.contains(id))
            .map(|(id, _)| *id)
            .collect();
        if empty.is_empty() {
            break;
        }
        for id in empty {
            if let Some(strand) = fallen.get_mut(&id) {
                strand.position = Position::Attempt;
            }
        }
    }
    let lost: Vec<u64> = fallen
        .iter()
        .filter(|(_, strand)| match &strand.parent {
            Parent::None => false,
            Parent::Branch { of, .. } | Parent::Item { of, .. } => !fallen.get(of).is_some_and(holds),
        })
        .map(|(id, _)| *id)
        .collect();
    for id in lost {
        fallen.remove(&id);
    }
}
