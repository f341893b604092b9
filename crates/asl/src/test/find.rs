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
    let Some(state) = inside(&machine, name) else {
        let message = format!("State '{name}' does not exist in the state machine definition");
        return Err(Refusal::validation(message));
    };
    Ok(Found {
        name: name.to_owned(),
        state: state.clone(),
        jsonata: machine["QueryLanguage"] == "JSONata",
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
    })
}

fn inside<'a>(program: &'a Value, name: &str) -> Option<&'a Value> {
    let states = program["States"].as_object()?;
    if let Some(state) = states.get(name) {
        return Some(state);
    }
    states.values().find_map(|state| {
        let branches = state["Branches"].as_array().into_iter().flatten();
        let processors = ["ItemProcessor", "Iterator"]
            .into_iter()
            .filter_map(|field| state.get(field));
        branches
            .chain(processors)
            .find_map(|program| inside(program, name))
    })
}
