//! An execution as text: its events, and what became of its failures.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    output::{Output, Tone, clean, exact, headline},
    states::run::Report,
};

/// Characters of a cause in the line of its event.
const CAUSE: usize = 100;
/// Events between a failure and the beginning of its state.
const STEPS: usize = 64;

/// What `vend states run` prints.
pub fn told(report: &Report, definition: &Value, output: &Output) -> String {
    let story = Story::of(&report.events, definition);
    let mut text: String = report
        .events
        .iter()
        .map(|event| story.line(event, output))
        .collect();
    let tone = match report.status {
        "SUCCEEDED" => Tone::Good,
        _ => Tone::Bad,
    };
    text.push_str(&format!("{}\n", output.tone(tone, report.status)));
    for (word, what) in [
        ("error", &report.error),
        ("cause", &report.cause),
        ("output", &report.output),
    ] {
        if let Some(what) = what {
            text.push_str(&format!("{word}: {}\n", clean(what)));
        }
    }
    text
}

struct Story<'a> {
    first: Option<Timestamp>,
    events: HashMap<u64, &'a Value>,
    /// The first event that another one led to.
    next: HashMap<u64, &'a Value>,
    states: HashMap<&'a str, &'a Value>,
}

impl<'a> Story<'a> {
    fn of(events: &'a [Value], definition: &'a Value) -> Self {
        let mut next = HashMap::new();
        for event in events {
            next.entry(number(event, "previousEventId")).or_insert(event);
        }
        Self {
            first: events.first().and_then(at),
            events: events.iter().map(|event| (number(event, "id"), event)).collect(),
            next,
            states: states(definition),
        }
    }

    fn line(&self, event: &Value, output: &Output) -> String {
        let since = at(event)
            .zip(self.first)
            .map(|(at, first)| at.duration_since(first));
        let kind = kind(event);
        let failed = ["Failed", "TimedOut", "Aborted"]
            .iter()
            .any(|end| kind.ends_with(end));
        let tone = match failed {
            true => Tone::Bad,
            false if kind.ends_with("Succeeded") => Tone::Good,
            false => Tone::Plain,
        };
        let what = match name(event) {
            Some(name) => clean(name),
            None if failed => self.failure(event),
            None => String::new(),
        };
        let line = format!(
            "{:>20}  {:>5}  {}  {what}",
            since.map(exact).unwrap_or_default(),
            number(event, "id"),
            output.tone(tone, &format!("{kind:<28}")),
        );
        format!("{}\n", line.trim_end())
    }

    /// Where it failed, why, and who took it: `Pay: Payment.Busy, try again → Retry[0]`.
    fn failure(&self, event: &Value) -> String {
        let members = event.as_object().into_iter().flatten();
        let details = members
            .filter(|(member, _)| member.ends_with("EventDetails"))
            .map(|(_, details)| details)
            .find(|details| details.get("error").or_else(|| details.get("cause")).is_some());
        let Some(details) = details else {
            return String::new();
        };
        let said = |member: &str| details[member].as_str().filter(|text| !text.is_empty());
        let what: Vec<String> = ["error", "cause"]
            .into_iter()
            .filter_map(said)
            .map(|text| headline(text, CAUSE))
            .collect();
        let what = what.join(", ");
        let Some(state) = self.state_of(event) else {
            return what;
        };
        match self.taken(event, state, said("error").unwrap_or_default()) {
            Some(by) => format!("{}: {what} → {by}", clean(state)),
            None => format!("{}: {what}", clean(state)),
        }
    }

    /// The state that an event of a task or a Map belongs to.
    fn state_of(&self, event: &Value) -> Option<&'a str> {
        let mut before = number(event, "previousEventId");
        for _ in 0..STEPS {
            let event = *self.events.get(&before)?;
            if kind(event).ends_with("StateEntered") {
                return name(event);
            }
            before = number(event, "previousEventId");
        }
        None
    }

    /// Which retrier or catcher went on: what came next says which of the two, the definition which one.
    fn taken(&self, event: &Value, state: &str, error: &str) -> Option<String> {
        let next = kind(self.next.get(&number(event, "id"))?);
        let field = match next {
            next if next.ends_with("Scheduled") => "Retry",
            next if next.ends_with("StateExited") => "Catch",
            _ => return None,
        };
        let takes = |entry: &Value| {
            let names = entry["ErrorEquals"].as_array().into_iter().flatten();
            names.filter_map(Value::as_str).any(|name| match name {
                "States.ALL" => true,
                "States.TaskFailed" => error != "States.Timeout",
                // A missed heartbeat is reported as a time-out.
                "States.HeartbeatTimeout" => error == name || error == "States.Timeout",
                name => error == name,
            })
        };
        let entries = self.states.get(state)?[field].as_array()?;
        let at = entries.iter().position(takes)?;
        Some(format!("{field}[{at}]"))
    }
}

/// All states of a machine by name, wherever they are: no two have the same.
pub fn states(definition: &Value) -> HashMap<&str, &Value> {
    let mut found = HashMap::new();
    gather(definition, &mut found);
    found
}

fn gather<'a>(program: &'a Value, states: &mut HashMap<&'a str, &'a Value>) {
    for (name, state) in program["States"].as_object().into_iter().flatten() {
        states.insert(name, state);
        for inner in ["ItemProcessor", "Iterator"] {
            gather(&state[inner], states);
        }
        for branch in state["Branches"].as_array().into_iter().flatten() {
            gather(branch, states);
        }
    }
}

fn number(event: &Value, member: &str) -> u64 {
    event[member].as_u64().unwrap_or_default()
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

fn name(event: &Value) -> Option<&str> {
    ["stateEnteredEventDetails", "stateExitedEventDetails"]
        .iter()
        .find_map(|details| event[*details]["name"].as_str())
}

fn at(event: &Value) -> Option<Timestamp> {
    event["timestamp"].as_str().and_then(|at| at.parse().ok())
}
