//! What holds of every state machine, whatever it is for: limits of Step Functions that no checker of ours asks about.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{config, deployed, iam::stacks};

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

/// The number behind `key` in a text.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.split(key).nth(1)?;
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// How often a flow waits in a state until it gives up: each time a part of what it has waited, or always as long. What is one of
/// `steps` begins anew in each, and gives up by what all of them have waited: it waits most often when they take equally long.
fn waits(name: &str, states: &Map<String, Value>, steps: u64) -> Option<u64> {
    let pause = &states[&format!("{name}Wait")]["Seconds"];
    let (least, most, part) = match pause.as_str() {
        Some(text) => (
            number(text, "$max([").unwrap(),
            number(text, "$min([").unwrap(),
            number(text, "$waited /"),
        ),
        None => (pause.as_u64()?, pause.as_u64()?, None),
    };
    let asks = ["Done", "Ready"].map(|part| states.get(&format!("{name}{part}")));
    let limit = |sum: &str| {
        let mut asks = asks.iter().flatten();
        asks.find_map(|own| number(&own.to_string(), sum))
    };
    let each = limit("$spent >=").map(|all| (all.div_ceil(steps), steps));
    let once = || limit("$waited >=").map(|own| (own, 1));
    let (limit, times) = each
        .or_else(once)
        .unwrap_or_else(|| panic!("{name} waits for ever"));
    let (mut waited, mut count) = (0, 0);
    while waited < limit {
        waited += most.min(least.max(part.map_or(0, |part| waited / part)));
        count += 1;
    }
    Some(count * times)
}

/// The most events that these states write when each is entered, with all that is tried again in it and all that it waits, and the
/// steps of the traffic are `steps`.
fn events(states: &Map<String, Value>, targets: u64, steps: u64) -> u64 {
    let own = |(name, state): (&String, &Value)| {
        let tries: u64 = state["Retry"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|own| own["MaxAttempts"].as_u64())
            .sum();
        let mut count = match state["Type"].as_str().unwrap() {
            // Entered, scheduled, started, ended and exited; each try is scheduled, started and ended once more.
            "Task" if tries > 20 => 5 + 3 * tries,
            "Task" => 5,
            "Map" | "Parallel" => 4 + 2 * targets,
            _ => 2,
        };
        let looped = ["Look", "Done", "Ready", "Wait"].into_iter().find_map(|part| {
            let name = name.strip_suffix(part)?;
            states
                .contains_key(&format!("{name}Wait"))
                .then(|| waits(name, states, steps))?
        });
        let is_step = ["Weight", "Watch", "Alarms", "Named", "Quiet"].contains(&name.as_str());
        let rounds = match name.starts_with("Shift") {
            true => steps,
            false => 1,
        };
        count *= looped.map_or(rounds, |waits| waits + rounds);
        if is_step {
            count *= steps;
        }
        count
            + inside(state)
                .map(|inner| targets * events(inner, targets, steps))
                .sum::<u64>()
    };
    states.iter().map(own).sum()
}

/// What an execution may write: one that has written more fails, and nothing is brought back.
/// Source: "Quotas related to state machine executions" of the Step Functions guide.
const EVENTS: u64 = 25_000;

/// The flow of an environment in two targets, with a migration of four hours.
fn long(strategy: &str) -> Value {
    let app = deployed(
        &format!("{{ strategy: {strategy}, migrate: {{ script: m.sh, timeout: 4h }} }}"),
        "{ min: 1, max: 2 }",
    );
    let targets = ["production", "other"].map(|label| label.parse().unwrap());
    let own = &app.environments[0];
    aws::synth::machine(&config("also = ['other']"), &app, own, &targets).unwrap()
}

/// The events of a flow into two targets.
fn written(machine: &Value, steps: u64) -> u64 {
    events(machine["States"].as_object().unwrap(), 2, steps)
}

#[test]
fn whatever_a_flow_waits_for_it_ends_by_itself() {
    for (strategy, steps) in [("blue-green", 1), ("canary", 2), ("linear", 10)] {
        let all = written(&long(strategy), steps);
        assert!((10_000..EVENTS).contains(&all), "{strategy}: {all}");
    }
    // Of small steps as many are those of one target.
    for (percent, steps) in [(2, 50), (1, 100)] {
        let machine = long(&format!("linear, percent: {percent}%"));
        let all = events(machine["States"].as_object().unwrap(), 1, steps);
        assert!((10_000..EVENTS).contains(&all), "{percent}: {all}");
    }
}

/// Each bound of what a flow waits for is needed, and missed where it is not there.
#[test]
fn a_flow_that_asks_too_often_would_be_found() {
    let machine = long("blue-green");
    let text = machine.to_string();
    let steady = text.replace("$floor($waited / 8)", "0");
    assert!(text != steady);
    let steady = written(&serde_json::from_str(&steady).unwrap(), 1);
    assert!(steady > EVENTS, "{steady}");
    let mut often = machine.clone();
    let mut turns = 0;
    for (_, state) in often["States"].as_object_mut().unwrap() {
        let is_turn = state["Arguments"]["ConditionExpression"]
            .to_string()
            .contains("#expires");
        if is_turn {
            // Every 30 seconds for a day.
            state["Retry"][0]["MaxAttempts"] = (24 * 120).into();
            turns += 1;
        }
    }
    let all = written(&often, 1);
    assert!(turns > 1 && all > EVENTS, "{turns}: {all}");
}
