//! What an agent left that was killed while it ran something. On a machine of somebody's own all of it goes on without it.

use super::{Services, processes::process};
use crate::agent::{
    service::{Definition, Handle, Left, Wish},
    trace::Trace,
    unit::Restart,
};

impl Services {
    /// Looks after what still runs, and ends what is left of what does not.
    pub fn recover(&self) {
        let traces = self.layout.traces.as_deref();
        for trace in traces.map(Trace::services).unwrap_or_default() {
            let held = trace.held();
            let definition = self.unconfigured(&held.name);
            self.remember(&held.name);
            self.adopt(
                definition,
                Some(Left {
                    output: trace.output(),
                    heard: false,
                    held,
                }),
            );
        }
    }

    /// A process whose environment and command nobody has told yet: it is not started again before.
    pub(super) fn unconfigured(&self, name: &str) -> Definition {
        let mut definition = process(name, "", &self.layout.app);
        name.clone_into(&mut definition.unit.description);
        definition.unit.restart = Restart::Never;
        definition
    }

    /// Reads what the processes write that another agent left: what must not be seen in logs is known.
    pub async fn listen(&self) {
        let handles: Vec<Handle> = {
            let registry = self.lock();
            let entries = registry.entries.values();
            entries.map(|entry| entry.handle.clone()).collect()
        };
        for handle in handles {
            // One that has ended says nothing more.
            let _ = handle.ask(Wish::Hear).await;
        }
    }
}
