//! What an agent leaves to the one that takes over from it in the same process: everything that it held in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use model::{Secret, secret};
use serde::{Deserialize, Serialize};

use super::{Services, daemon, process};
use crate::agent::{
    api::{Configuration, DaemonOrder, Origin},
    service::{Definition, Held},
};

/// Secrets are in it: it is only ever in memory.
#[derive(Serialize, Deserialize)]
pub struct Legacy {
    configuration: Option<Configuration>,
    #[serde(serialize_with = "secret::all_in_the_clear")]
    variables: BTreeMap<String, Secret>,
    targets: BTreeSet<String>,
    timers: Vec<String>,
    /// Units, and the numbers of their open files.
    #[serde(default)]
    sockets: Vec<(String, Vec<i32>)>,
    daemons: BTreeMap<String, DaemonOrder>,
    order: Vec<String>,
    services: Vec<Held>,
}

impl Legacy {
    /// The open files that must stay open.
    pub fn outputs(&self) -> impl Iterator<Item = i32> {
        let sockets = self
            .sockets
            .iter()
            .flat_map(|(_, numbers)| numbers.iter().copied());
        self.services.iter().filter_map(|held| held.output).chain(sockets)
    }
}

impl Services {
    /// What the next agent needs to know.
    pub async fn leave(&self) -> Legacy {
        let handles: Vec<_> = {
            let registry = self.lock();
            registry
                .entries
                .values()
                .map(|entry| entry.handle.clone())
                .collect()
        };
        let mut services = Vec::new();
        for handle in handles {
            services.extend(handle.hold().await);
        }
        let registry = self.lock();
        Legacy {
            configuration: registry.configuration.clone(),
            variables: registry.variables.clone(),
            targets: registry.targets.clone(),
            timers: registry.timers.keys().cloned().collect(),
            sockets: registry
                .sockets
                .iter()
                .map(|(unit, listening)| (unit.clone(), listening.numbers()))
                .collect(),
            daemons: registry.daemons.clone(),
            order: registry.order.clone(),
            services,
        }
    }

    /// Goes on with what another agent left. `open` gives the open file of a number, once.
    pub fn inherit(&self, legacy: Legacy, mut open: impl FnMut(i32) -> Option<OwnedFd>) {
        {
            let mut registry = self.lock();
            registry.configuration = legacy.configuration;
            registry.variables = legacy.variables;
            registry.targets = legacy.targets;
            registry.daemons = legacy.daemons;
            registry.order = legacy.order;
        }
        for held in legacy.services {
            let output = held.output.and_then(&mut open);
            match self.definition_of(&held) {
                Ok(definition) => drop(self.adopt(definition, Some((held, output)))),
                Err(why) => tracing::warn!("{} is nobody's any more: {why}", held.name),
            }
        }
        for (unit, numbers) in legacy.sockets {
            let opened: Vec<OwnedFd> = numbers.into_iter().filter_map(&mut open).collect();
            if let Err(why) = self.start_socket(&unit, Some(opened)) {
                tracing::warn!("{unit} does not listen any more: {why}");
            }
        }
        for timer in legacy.timers {
            if let Err(why) = self.start_timer(&timer) {
                tracing::warn!("{timer} does not go on: {why}");
            }
        }
    }

    fn definition_of(&self, held: &Held) -> Result<Definition, String> {
        let gone = || "its definition is gone".to_owned();
        match held.origin {
            Origin::Unit => self.read_definition(&format!("{}.service", held.name)),
            Origin::Procfile => {
                let configuration = self.lock().configuration.clone().unwrap_or_default();
                let command = configuration.processes.get(&held.name).ok_or_else(gone)?;
                Ok(process(&held.name, command, &self.layout.app))
            }
            Origin::Daemon => self.lock().daemons.get(&held.name).map(daemon).ok_or_else(gone),
        }
    }
}
