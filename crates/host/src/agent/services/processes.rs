//! Processes of a `Procfile`, which have their names as long as it has them: no unit file says what such a service is.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::Services;
use crate::agent::{
    api::{Origin, ServiceState},
    service::{Definition, Handle, Wish},
    unit::{Line, Restart, Unit},
};

/// How long one may take to end.
const STOP: Duration = Duration::from_secs(10);

impl Services {
    /// Runs the Procfile's processes once their environment is known. Those that another agent left go on as they are.
    pub async fn begin_processes(&self) -> Result<(), String> {
        for (name, command) in &self.processes() {
            let runs = self.status(name).is_some_and(|status| {
                status.origin == Origin::Procfile && status.state == ServiceState::Active
            });
            // One that has ended since is started.
            let wish = if runs { Wish::Start } else { Wish::Restart };
            self.run_process(name, command, wish).await?;
        }
        Ok(())
    }

    /// Runs the Procfile's processes anew and stops those that are no longer in it.
    pub async fn restart_processes(&self) -> Result<Vec<String>, String> {
        let processes = self.processes();
        self.stop_processes(|name| !processes.contains_key(name)).await;
        for (name, command) in &processes {
            self.run_process(name, command, Wish::Restart).await?;
        }
        Ok(processes.into_keys().collect())
    }

    async fn run_process(&self, name: &str, command: &str, wish: Wish) -> Result<(), String> {
        let handle = self.define(process(name, command, &self.layout.app)).await?;
        self.remember(name);
        handle.ask(wish).await.map_err(|why| format!("{name}: {why}"))
    }

    /// Stops Procfile processes. Gives those that ran. One that is in the Procfile no longer is known no longer, either: from
    /// then on its name is a unit's, where there is one.
    pub async fn stop_processes(&self, which: impl Fn(&str) -> bool) -> Vec<String> {
        let stopping: Vec<(String, Handle)> = self
            .lock()
            .entries
            .iter()
            .filter(|(name, entry)| entry.handle.status().origin == Origin::Procfile && which(name))
            .map(|(name, entry)| (name.clone(), entry.handle.clone()))
            .collect();
        let mut stopped = Vec::new();
        for (name, handle) in stopping {
            if handle.status().state != ServiceState::Inactive {
                stopped.push(name.clone());
            }
            let _ = handle.ask(Wish::Stop).await;
            if !self.processes().contains_key(&name) {
                self.forget(&name).await;
            }
        }
        stopped
    }

    /// The Procfile's, with their commands.
    pub(super) fn processes(&self) -> BTreeMap<String, String> {
        let registry = self.lock();
        let configuration = registry.configuration.as_ref();
        configuration.map_or_else(BTreeMap::new, |own| own.processes.clone())
    }
}

pub(super) fn process(name: &str, command: &str, directory: &Path) -> Definition {
    let arguments = ["/bin/sh", "-c", command].map(str::to_owned);
    Definition {
        unit: Unit {
            description: format!("{name}: {command}"),
            start: vec![Line::literal(arguments.to_vec())],
            directory: Some(directory.to_owned()),
            restart: Restart::Always,
            restart_delay: Duration::from_millis(500),
            stop_timeout: STOP,
            ..Unit::new(name)
        },
        origin: Origin::Procfile,
        environment: Vec::new(),
    }
}
