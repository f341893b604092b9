//! Which activities there are, for the engine, which must not wait for the store to know; and definitions that were read.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError, RwLock},
};

use asl::{Flavour, Machine};

use super::{arn, fault::Fault, services};

/// Definitions that are kept parsed.
const PROGRAMS: usize = 256;

#[derive(Default)]
pub struct Known {
    activities: RwLock<HashSet<String>>,
    /// By type, whether it was taken before, and text.
    programs: Mutex<HashMap<(bool, bool, String), Machine>>,
}

impl Known {
    /// Reads the activities that there are.
    pub async fn load(&self, store: &store::Store) -> Result<(), store::Error> {
        let all = store.read(|db| db.all_activities()).await?;
        let mut known = self.activities.write().unwrap_or_else(PoisonError::into_inner);
        *known = all
            .into_iter()
            .map(|(account, name)| arn::activity(account, &name))
            .collect();
        Ok(())
    }

    pub fn add(&self, arn: &str) {
        let mut known = self.activities.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(arn.to_owned());
    }

    pub fn remove(&self, arn: &str) {
        let mut known = self.activities.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(arn);
    }

    /// Why nobody will ever work on tasks of this resource for this tenant.
    pub fn refuses(&self, owner: u64, resource: &str) -> Option<String> {
        if services::is_called(resource) {
            return None;
        }
        if !resource.starts_with("arn:") {
            return Some(format!(
                "The resource {resource} is not an ARN: nothing can be called by it."
            ));
        }
        if services::is_own(resource) {
            return Some(format!(
                "The resource {resource} is not recognized: Step Functions has no such operation, or not in this way."
            ));
        }
        let arn::Arn { account, kind } = match arn::Arn::parse(resource) {
            Ok(arn) => arn,
            Err(_) => {
                return Some(format!(
                    "The resource {resource} is a service that this platform does not call; an activity can do it."
                ));
            }
        };
        let known = self.activities.read().unwrap_or_else(PoisonError::into_inner);
        let is_theirs = account == owner && matches!(kind, arn::Kind::Activity { .. });
        (!is_theirs || !known.contains(resource)).then(|| format!("The activity {resource} does not exist."))
    }

    /// A definition that somebody gives, read and checked.
    pub fn program(&self, express: bool, text: &str) -> Result<Machine, Fault> {
        self.read(express, false, text)
    }

    /// One that was taken once: checks that came later do not refuse it.
    pub fn kept(&self, express: bool, text: &str) -> Result<Machine, Fault> {
        self.read(express, true, text)
    }

    fn read(&self, express: bool, kept: bool, text: &str) -> Result<Machine, Fault> {
        let key = (express, kept, text.to_owned());
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok(program.clone());
        }
        let flavour = match express {
            true => Flavour::Express,
            false => Flavour::Standard,
        };
        let program = match kept {
            true => Machine::kept_as(flavour, text),
            false => Machine::parse_as(flavour, text),
        };
        let program = program.map_err(|problems| Fault::new("InvalidDefinition", asl::refusal(&problems)))?;
        if programs.len() >= PROGRAMS {
            programs.clear();
        }
        programs.insert(key, program.clone());
        Ok(program)
    }
}
