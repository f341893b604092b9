//! Answers of tasks in the format of Step Functions Local's `MockConfigFile.json`.
//!
//! A test case names, for each state, a mocked response; a response lists what the first, second, … call of the state is
//! answered: `Return` a value, or `Throw` an error. Calls are counted by state over the whole execution, its children
//! too. Two members are ours: `Submit` is what a `.sync` or `.waitForTaskToken` request was answered when it was
//! accepted, and a response for a Map state with an `ItemReader` returns what the reader reads.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Ranges that one response may have.
const RANGES: usize = 10_000;

/// Why mocks cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the mocks are not valid: {0}")]
    Invalid(String),
    #[error("the mocks have no state machine \"{name}\"; they have {known}")]
    NoMachine { name: String, known: String },
    #[error("the mocks have several state machines: {known}")]
    Ambiguous { known: String },
    #[error("state machine \"{machine}\" has no test case \"{name}\"; it has {known}")]
    NoCase {
        machine: String,
        name: String,
        known: String,
    },
    #[error("state machine \"{machine}\" has other test cases than one, and none is chosen: {known}")]
    Cases { machine: String, known: String },
    #[error("state \"{state}\" has no mocked response in the test case, and nothing else answers its task")]
    Unmocked { state: String },
    #[error(
        "the mocked response \"{response}\" of state \"{state}\" says nothing of call {call}, counted from 0"
    )]
    Exhausted {
        state: String,
        response: String,
        call: u64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "StateMachines")]
    machines: BTreeMap<String, Machine>,
    #[serde(rename = "MockedResponses", default)]
    responses: BTreeMap<String, BTreeMap<String, Answer>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    #[serde(rename = "TestCases")]
    cases: BTreeMap<String, BTreeMap<String, String>>,
}

/// What one call is answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    #[serde(rename = "Return", default, deserialize_with = "present")]
    returned: Option<Value>,
    #[serde(rename = "Throw")]
    thrown: Option<Thrown>,
    /// What the request was answered, before the task was.
    #[serde(rename = "Submit", default, deserialize_with = "present")]
    pub submitted: Option<Value>,
}

/// `null` is a value.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    asl::json::exact(deserializer).map(Some)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thrown {
    #[serde(rename = "Error")]
    pub error: Option<String>,
    #[serde(rename = "Cause")]
    pub cause: Option<String>,
}

impl Answer {
    /// The value or the error; the reader has seen that there is exactly one.
    pub fn outcome(&self) -> Result<Value, Thrown> {
        match &self.thrown {
            Some(thrown) => Err(thrown.clone()),
            None => Ok(self.returned.clone().unwrap_or_default()),
        }
    }
}

/// The answers of one test case, and how often each state asked.
#[derive(Debug, Default)]
pub struct Mocks {
    /// By state: the response's name.
    names: BTreeMap<String, String>,
    /// By response: from call, to call, answer.
    responses: BTreeMap<String, Vec<(u64, u64, Answer)>>,
    calls: BTreeMap<String, u64>,
}

impl Mocks {
    /// Reads the test case `case` of the machine `name`. Without a name, the machine called `stem` or the only one is
    /// taken; without a case, the only one.
    ///
    /// # Errors
    /// The text is not a mock file, or has no such machine or case.
    pub fn read(text: &str, name: Option<&str>, stem: &str, case: Option<&str>) -> Result<Self, Error> {
        let mut file: File = serde_json::from_str(text).map_err(|error| Error::Invalid(error.to_string()))?;
        let machine = machine(&file, name, stem)?;
        let cases = file
            .machines
            .remove(&machine)
            .map(|machine| machine.cases)
            .unwrap_or_default();
        let known = list(cases.keys());
        let only = || {
            cases
                .keys()
                .next()
                .filter(|_| cases.len() == 1)
                .map(String::as_str)
        };
        let Some(case) = case.or_else(only) else {
            return Err(Error::Cases { machine, known });
        };
        let Some(names) = cases.get(case).cloned() else {
            let name = case.to_owned();
            return Err(Error::NoCase { machine, name, known });
        };
        let mut responses = BTreeMap::new();
        for (state, response) in &names {
            let Some(answers) = file.responses.get(response) else {
                let why = format!(
                    "state \"{state}\" names the response \"{response}\", which MockedResponses does not have"
                );
                return Err(Error::Invalid(why));
            };
            responses.insert(response.clone(), ranges(response, answers)?);
        }
        Ok(Self {
            names,
            responses,
            calls: BTreeMap::new(),
        })
    }

    pub fn has(&self, state: &str) -> bool {
        self.names.contains_key(state)
    }

    /// What the next call of `state` is answered.
    ///
    /// # Errors
    /// The test case says nothing of it.
    pub fn answer(&mut self, state: &str) -> Result<Answer, Error> {
        let Some(response) = self.names.get(state) else {
            return Err(Error::Unmocked {
                state: state.to_owned(),
            });
        };
        let calls = self.calls.entry(state.to_owned()).or_default();
        let call = *calls;
        *calls += 1;
        let answers = self.responses.get(response).into_iter().flatten();
        let mut fitting = answers.filter(|(from, to, _)| (*from..=*to).contains(&call));
        let found = fitting.next().map(|(_, _, answer)| answer.clone());
        found.ok_or_else(|| Error::Exhausted {
            state: state.to_owned(),
            response: response.clone(),
            call,
        })
    }
}

fn machine(file: &File, name: Option<&str>, stem: &str) -> Result<String, Error> {
    let known = list(file.machines.keys());
    let wanted = name.or_else(|| file.machines.contains_key(stem).then_some(stem));
    match (wanted, file.machines.len()) {
        (Some(name), _) if file.machines.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(Error::NoMachine {
            name: name.to_owned(),
            known,
        }),
        (None, 1) => Ok(file.machines.keys().next().cloned().unwrap_or_default()),
        (None, _) => Err(Error::Ambiguous { known }),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.take(20).map(|name| format!("\"{name}\"")).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// `"0"` and `"1-2"`.
fn ranges(response: &str, answers: &BTreeMap<String, Answer>) -> Result<Vec<(u64, u64, Answer)>, Error> {
    if answers.len() > RANGES {
        return Err(Error::Invalid(format!(
            "\"{response}\" has more than {RANGES} entries"
        )));
    }
    let mut ranges: Vec<(u64, u64, Answer)> = Vec::new();
    for (key, answer) in answers {
        let (from, to) = key.split_once('-').unwrap_or((key, key));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u64>(), to.trim().parse()) else {
            let why = format!(
                "\"{response}\" has the key \"{key}\": a number such as \"0\" or a range such as \"1-2\" is needed"
            );
            return Err(Error::Invalid(why));
        };
        if from > to || answer.returned.is_some() == answer.thrown.is_some() {
            let why = match from > to {
                true => "the range ends before it starts",
                false => "exactly one of Return and Throw is needed",
            };
            return Err(Error::Invalid(format!("\"{response}\" at \"{key}\": {why}")));
        }
        ranges.push((from, to, answer.clone()));
    }
    ranges.sort_by_key(|range| range.0);
    if ranges.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
        return Err(Error::Invalid(format!("the ranges of \"{response}\" overlap")));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file() -> String {
        json!({
            "StateMachines": {
                "orders": { "TestCases": {
                    "happy": { "Pay": "paid" },
                    "retried": { "Pay": "flaky", "Ship": "paid" },
                } },
            },
            "MockedResponses": {
                "paid": { "0": { "Return": null } },
                "flaky": {
                    "0": { "Throw": { "Error": "Busy", "Cause": "later" } },
                    "1-2": { "Throw": { "Error": "Busy" } },
                    "3": { "Return": { "paid": true } },
                },
            },
        })
        .to_string()
    }

    #[test]
    fn calls_are_counted_by_state() {
        let mut mocks = Mocks::read(&file(), None, "anything", Some("retried")).unwrap();
        let mut pay = || {
            mocks
                .answer("Pay")
                .map(|answer| answer.outcome().map_err(|thrown| thrown.cause))
        };
        assert_eq!(pay().unwrap(), Err(Some("later".into())));
        assert_eq!(pay().unwrap(), Err(None));
        assert_eq!(pay().unwrap(), Err(None));
        assert_eq!(pay().unwrap(), Ok(json!({ "paid": true })));
        assert!(matches!(pay(), Err(Error::Exhausted { call: 4, .. })));
        assert_eq!(mocks.answer("Ship").unwrap().outcome().unwrap(), json!(null));
        assert!(matches!(mocks.answer("Pack"), Err(Error::Unmocked { .. })));
    }

    #[test]
    fn the_machine_is_found_by_name_or_stem_or_because_there_is_one() {
        let two = file().replace("\"orders\":", "\"other\":{\"TestCases\":{}},\"orders\":");
        for (text, name, stem, case, fits) in [
            (&file(), None, "x", Some("happy"), true),
            (&file(), Some("orders"), "x", Some("happy"), true),
            (&file(), Some("other"), "x", Some("happy"), false),
            (&file(), None, "x", None, false),
            (&file(), None, "x", Some("sad"), false),
            (&two, None, "orders", Some("happy"), true),
            (&two, None, "x", Some("happy"), false),
        ] {
            assert_eq!(
                Mocks::read(text, name, stem, case).is_ok(),
                fits,
                "{name:?} {stem} {case:?}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (from, to) in [
            ("\"1-2\"", "\"2-1\""),
            ("\"1-2\"", "\"first\""),
            ("\"1-2\"", "\"0-2\""),
            ("{\"Return\":{\"paid\":true}}", "{}"),
            ("\"Return\":{", "\"Returns\":{"),
            ("\"Pay\":\"flaky\"", "\"Pay\":\"unknown\""),
        ] {
            let text = file().replace(from, to);
            assert_ne!(text, file(), "{from}");
            let error = Mocks::read(&text, None, "x", Some("retried")).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{from}: {error}");
        }
    }
}
