//! How long the answer to a build is waited for. Its time counts from when it leaves the node's queue: how long it may
//! stay there is the node's to say.

use std::time::{Duration, Instant};

use model::port::Fault;

use super::MAKE;

/// How often the node is asked whether a build still waits for its turn.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// A node that says nothing at all for so long is given up.
const SILENT: Duration = Duration::from_secs(600);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// When the node said something last.
    heard: Instant,
    /// When the build was last known to wait.
    waited: Instant,
}

/// What the node says of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It waits for its turn.
    Waits,
    /// It is its turn, or the node knows nothing of it.
    Goes,
    /// The node does not answer.
    Silence,
}

impl Patience {
    /// `timeout`: of the build's commands. Its image may be made before them, and what is left is kept after them.
    pub fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            limit: timeout.saturating_add(MAKE),
            heard: now,
            waited: now,
        }
    }

    /// A fault, when it is over.
    pub fn look(&mut self, word: Word, now: Instant) -> Result<(), Fault> {
        if word != Word::Silence {
            self.heard = now;
        }
        if word == Word::Waits {
            self.waited = now;
        }
        if now.duration_since(self.heard) >= SILENT {
            return Err(Fault::platform(format!(
                "the node has said nothing for {} minutes while it builds or bakes",
                SILENT.as_secs() / 60
            ))
            .next("`vend doctor` says why"));
        }
        if now.duration_since(self.waited) >= self.limit {
            // Nobody tries again what hung for so long.
            return Err(Fault::order(format!(
                "what was built or baked did not end within {} minutes after it left the queue, and is given up",
                self.limit.as_secs() / 60
            ))
            .next("`vend doctor` on the platform's machine; then vend push again"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::port::Blame;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Minutes until it is over and whose fault that is, when the node says this at each minute.
    fn over(says: impl Fn(u32) -> Word) -> Option<(u32, Blame)> {
        let begun = Instant::now();
        let mut patience = Patience::new(30 * MINUTE, begun);
        (1..=1000).find_map(|minute| {
            let looked = patience.look(says(minute), begun + minute * MINUTE);
            looked.err().map(|fault| (minute, fault.blame))
        })
    }

    #[test]
    fn a_build_has_its_time_from_when_it_leaves_the_queue() {
        assert_eq!(over(|_| Word::Goes), Some((90, Blame::Order)));
        let queued = |minute| if minute <= 300 { Word::Waits } else { Word::Goes };
        assert_eq!(over(queued), Some((390, Blame::Order)));
        // One that is tried again waits again.
        let again = |minute| if minute % 80 < 20 { Word::Waits } else { Word::Goes };
        assert_eq!(over(again), None);
    }

    #[test]
    fn a_node_that_says_nothing_is_given_up_also_while_a_build_waits() {
        assert_eq!(over(|_| Word::Silence), Some((10, Blame::Platform)));
        let stops = |minute| if minute <= 300 { Word::Waits } else { Word::Silence };
        assert_eq!(over(stops), Some((310, Blame::Platform)));
        // A short one, such as a restart, is none.
        let halts = |minute| {
            if minute % 10 != 0 {
                Word::Silence
            } else {
                Word::Waits
            }
        };
        assert_eq!(over(halts), None);
    }
}
