//! The state that a request means.

use super::Refusal;
use crate::check::Severity;
use crate::limit;
use crate::machine::Flavour;
use crate::validate::validate;
use jsonata::json;
use serde_json::Value;

/// A state by itself.
pub struct Found {
    pub name: String,
    pub state: Value,
    /// The machine around it speaks JSONata.
    pub jsonata: bool,
    /// It is a state of the iterations of a Map.
    pub is_in_map: bool,
}

/// The state `name` of a machine, wherever it is in it; without a name, the definition is the state.
pub fn state(definition: &str, name: Option<&str>) -> Result<Found, Refusal> {
    let Some(name) = name else {
        return alone(definition);
    };
    let found = validate(definition, Flavour::Standard, Severity::Error, limit::DIAGNOSTICS);
    if !found.diagnostics.is_empty() {
        return Err(Refusal::definition(&found.diagnostics));
    }
    let machine = json::read(definition).unwrap_or_default();
    let Some((state, is_in_map)) = inside(&machine, name, false) else {
        let message = format!("State '{name}' does not exist in the state machine definition");
        return Err(Refusal::validation(message));
    };
    Ok(Found {
        name: name.to_owned(),
        state: state.clone(),
        jsonata: machine["QueryLanguage"] == "JSONata",
        is_in_map,
    })
}

fn alone(definition: &str) -> Result<Found, Refusal> {
    if definition.len() > limit::DEFINITION {
        return Err(Refusal::validation("The definition is too long."));
    }
    let state = json::read(definition).map_err(|error| Refusal {
        code: "InvalidDefinition",
        message: format!("Invalid State Machine Definition: 'INVALID_JSON_DESCRIPTION: {error}'"),
    })?;
    if state.get("States").is_some() && state.get("Type").is_none() {
        let message = "StateName must be specified when the definition is a state machine";
        return Err(Refusal::validation(message));
    }
    Ok(Found {
        name: "StateName".into(),
        state,
        jsonata: false,
        is_in_map: false,
    })
}

/// The state `name` inside a Map or Parallel state.
pub fn within<'a>(state: &'a Value, name: &str) -> Option<&'a Value> {
    deeper(state, name, false).map(|(state, _)| state)
}

/// The state, and whether a Map is around it.
fn inside<'a>(program: &'a Value, name: &str, mapped: bool) -> Option<(&'a Value, bool)> {
    let states = program["States"].as_object()?;
    if let Some(state) = states.get(name) {
        return Some((state, mapped));
    }
    states.values().find_map(|state| deeper(state, name, mapped))
}

fn deeper<'a>(state: &'a Value, name: &str, mapped: bool) -> Option<(&'a Value, bool)> {
    let branches = state["Branches"].as_array().into_iter().flatten();
    let branches = branches.map(|program| (program, mapped));
    let processors = ["ItemProcessor", "Iterator"]
        .into_iter()
        .filter_map(|field| state.get(field))
        .map(|program| (program, true));
    branches
        .chain(processors)
        .find_map(|(program, mapped)| inside(program, name, mapped))
}
