//! What an agent left that was killed while it ran something. On a machine of somebody's own all of it goes on without it.

use super::{Services, process};
use crate::agent::{
    api::{Origin, ServiceState},
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

    /// Runs the Procfile's processes once their environment is known. Those that another agent left go on as they are.
    pub async fn begin_processes(&self) -> Result<(), String> {
        let processes = self.lock().configuration.clone().unwrap_or_default().processes;
        for (name, command) in &processes {
            let runs = self.status(name).is_some_and(|status| {
                status.origin == Origin::Procfile && status.state == ServiceState::Active
            });
            let handle = self.define(process(name, command, &self.layout.app)).await?;
            self.remember(name);
            // One that has ended since is started.
            let wish = if runs { Wish::Start } else { Wish::Restart };
            handle.ask(wish).await.map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
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
