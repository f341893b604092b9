//! Every state of a definition, in whatever it is nested.

use crate::check::join;
use serde_json::Value;

/// A state as it is written.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub state: &'a Value,
    /// JSON pointer to it.
    pub pointer: &'a str,
    /// It speaks JSONata.
    pub is_jsonata: bool,
}

/// Shows all states of a machine, outer ones first.
pub fn states(machine: &Value, see: &mut impl FnMut(Place<'_>)) {
    program(machine, "", machine["QueryLanguage"] == "JSONata", see);
}

fn program(value: &Value, pointer: &str, jsonata: bool, see: &mut impl FnMut(Place<'_>)) {
    for (name, state) in value["States"].as_object().into_iter().flatten() {
        let place = join(&join(pointer, "States"), name);
        see(Place {
            state,
            pointer: &place,
            is_jsonata: jsonata || state["QueryLanguage"] == "JSONata",
        });
        for name in ["ItemProcessor", "Iterator"] {
            program(&state[name], &join(&place, name), jsonata, see);
        }
        for (at, branch) in state["Branches"].as_array().into_iter().flatten().enumerate() {
            program(
                branch,
                &join(&join(&place, "Branches"), &at.to_string()),
                jsonata,
                see,
            );
        }
    }
}
