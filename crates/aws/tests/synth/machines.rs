//! What holds of every state machine, whatever it is for: limits of Step Functions that no checker of ours asks about.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::iam::stacks;

/// Every state machine of every stack, by the stack's name.
fn machines() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for stack in stacks() {
        for own in stack.template.of("AWS::StepFunctions::StateMachine") {
            let text = &own.properties["DefinitionString"]["Fn::Sub"];
            let text = text.as_str().or_else(|| text[0].as_str()).unwrap();
            all.push((stack.name.as_str(), serde_json::from_str(text).unwrap()));
        }
    }
    assert!(all.len() > 30, "{}", all.len());
    all
}

/// The states inside of a state: of its branches, or of what it does for each item.
fn inside(state: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    let branches = state["Branches"].as_array().into_iter().flatten();
    let all = branches.chain([&state["ItemProcessor"]]);
    all.filter_map(|own| own["States"].as_object())
}

/// The names that states of one scope assign.
fn assigned(states: &Map<String, Value>) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for state in states.values() {
        let lists = ["Catch", "Choices"].map(|field| state[field].as_array().into_iter().flatten());
        for own in lists.into_iter().flatten().chain([state]) {
            names.extend(
                own["Assign"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.as_str()),
            );
        }
    }
    names
}

fn hidden<'v>(states: &'v Map<String, Value>, outer: &BTreeSet<&'v str>, wrong: &mut BTreeSet<&'v str>) {
    let own = assigned(states);
    wrong.extend(own.intersection(outer));
    let all: BTreeSet<&str> = own.union(outer).copied().collect();
    for inner in states.values().flat_map(inside) {
        hidden(inner, &all, wrong);
    }
}

/// "A variable assigned in an inner scope cannot have the same name as one assigned in an outer scope."
/// Source: "Variable scope" of the Step Functions guide.
#[test]
fn no_scope_assigns_what_one_around_it_assigns() {
    let mut names = 0;
    for (name, machine) in machines() {
        let states = machine["States"].as_object().unwrap();
        let mut wrong = BTreeSet::new();
        hidden(states, &BTreeSet::new(), &mut wrong);
        assert_eq!(wrong, BTreeSet::new(), "{name}");
        names += states
            .values()
            .flat_map(inside)
            .map(|own| assigned(own).len())
            .sum::<usize>();
    }
    assert!(names > 100, "{names}");
}
