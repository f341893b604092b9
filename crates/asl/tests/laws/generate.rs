//! Definitions: sound ones, damaged ones, and none at all.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A machine that passes all checks, with tasks, waits, choices, retriers, catchers, branches and iterations.
pub fn definition() -> impl Strategy<Value = Value> {
    (prop::collection::vec(any::<u8>(), 4..80), any::<bool>()).prop_map(|(bytes, deadline)| {
        let mut source = Source {
            bytes,
            at: 0,
            states: 0,
        };
        let mut definition = program(&mut source, 0);
        if deadline {
            definition["TimeoutSeconds"] = json!(200);
        }
        definition
    })
}

struct Source {
    bytes: Vec<u8>,
    at: usize,
    states: usize,
}

impl Source {
    /// The next decision; 0 for ever when there are no more.
    fn next(&mut self, many: u8) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        byte % many
    }

    fn name(&mut self) -> String {
        self.states += 1;
        format!("S{}", self.states)
    }
}

/// The same machine, or one like it, in JSONata: every state has queries, of which some fail for some data.
pub fn jsonata() -> impl Strategy<Value = Value> {
    definition().prop_map(|mut definition| {
        translate(&mut definition);
        definition["QueryLanguage"] = json!("JSONata");
        definition
    })
}

/// Takes the fields of JSONPath from the states of a program and puts those of JSONata in their places.
fn translate(program: &mut Value) {
    for state in program["States"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        let fields = state.as_object_mut().unwrap();
        for name in ["InputPath", "ItemsPath", "ResultPath", "Result", "Parameters"] {
            if let Some(old) = fields.shift_remove(name) {
                match (name, fields["Type"].as_str()) {
                    ("ItemsPath", _) => {
                        drop(fields.insert("Items".into(), json!("{% $states.input.items %}")))
                    }
                    ("Result", _) => drop(fields.insert(
                        "Output".into(),
                        json!({ "n": "{% $states.input.n + 1 %}", "items": "{% [1..$states.input.n] %}" }),
                    )),
                    ("ResultPath", _) if old.is_string() => drop(fields.insert(
                        "Output".into(),
                        json!("{% $merge([$states.input, {'result': $states.result}]) %}"),
                    )),
                    ("Parameters", Some("Task")) => drop(fields.insert(
                        "Arguments".into(),
                        json!({ "token": "{% $states.context.Task.Token %}", "id": "{% $uuid() %}" }),
                    )),
                    _ => {}
                }
            }
        }
        if fields.contains_key("Assign") {
            fields.insert("Assign".into(), json!({ "v": "{% $states.input.n %}" }));
        }
        if let Some(selector) = fields.get_mut("ItemSelector") {
            *selector = json!({ "n": "{% $states.context.Map.Item.Index + $random() %}", "items": [1] });
        }
        for rule in fields
            .get_mut("Choices")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let next = rule["Next"].clone();
            *rule = json!({ "Condition": "{% $not($states.input.n < 3) %}", "Next": next, "Output": "{% $states.input %}" });
        }
        for catcher in fields
            .get_mut("Catch")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let catcher = catcher.as_object_mut().unwrap();
            catcher.shift_remove("ResultPath");
            catcher.insert(
                "Output".into(),
                json!({ "n": 2, "error": "{% $states.errorOutput.Error %}" }),
            );
        }
        for name in ["ItemReader", "ResultWriter"] {
            let Some(place) = fields.get_mut(name).and_then(Value::as_object_mut) else {
                continue;
            };
            let parameters = place.shift_remove("Parameters").unwrap_or_default();
            place.insert("Arguments".into(), parameters);
        }
        if let Some(processor) = fields.get_mut("ItemProcessor") {
            translate(processor);
        }
        for branch in fields
            .get_mut("Branches")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            translate(branch);
        }
    }
}

/// A machine in either language.
pub fn either() -> impl Strategy<Value = Value> {
    prop_oneof![definition(), jsonata()]
}

/// A chain of states; Choice and Catch go one further as well, so that all are reached.
fn program(source: &mut Source, depth: usize) -> Value {
    let length = 1 + usize::from(source.next(4));
    let names: Vec<_> = (0..length).map(|_| source.name()).collect();
    let mut states = Map::new();
    for (at, name) in names.iter().enumerate() {
        let next = names.get(at + 1);
        states.insert(name.clone(), state(source, depth, next));
    }
    json!({ "StartAt": names[0], "States": states })
}

fn state(source: &mut Source, depth: usize, next: Option<&String>) -> Value {
    let mut state = match source.next(11) {
        0 => {
            json!({ "Type": "Pass", "Parameters": { "n.$": "$.n", "items": [1, 2] }, "Assign": { "v.$": "$.n" } })
        }
        1 => json!({ "Type": "Pass", "ResultPath": "$.x", "Result": { "a.$": "not a template" } }),
        2 => json!({ "Type": "Wait", "Seconds": u64::from(source.next(20)) }),
        3 | 4 => task(source),
        5 if depth < 3 => {
            let branches: Vec<_> = (0..=source.next(3)).map(|_| program(source, depth + 1)).collect();
            json!({ "Type": "Parallel", "Branches": branches })
        }
        6 if depth < 3 => {
            let processor = program(source, depth + 1);
            json!({
                "Type": "Map", "MaxConcurrency": source.next(3), "ItemProcessor": processor,
                "ItemSelector": { "n.$": "$$.Map.Item.Index", "items": [1], "id.$": "States.UUID()" },
                "InputPath": "$", "ItemsPath": "$.items",
            })
        }
        10 if depth < 3 => distributed(source, depth),
        7 if next.is_none() => return json!({ "Type": "Succeed" }),
        8 if next.is_none() => return json!({ "Type": "Fail", "Error": "Broken", "Cause": "by design" }),
        9 if next.is_some() => {
            return json!({
                "Type": "Choice", "Default": next,
                "Choices": [{ "Not": { "Variable": "$.n", "NumericLessThan": 3 }, "Next": next, "Assign": { "w": 1 } }],
            });
        }
        _ => task(source),
    };
    if matches!(state["Type"].as_str(), Some("Parallel" | "Map" | "Task")) {
        state["ResultPath"] = [json!(null), json!("$.result")][usize::from(source.next(2))].clone();
        if source.next(2) == 1 {
            let jitter = ["NONE", "FULL"][usize::from(source.next(2))];
            state["Retry"] = json!([{ "ErrorEquals": ["States.ALL"], "MaxAttempts": source.next(3), "JitterStrategy": jitter }]);
        }
        if let Some(next) = next.filter(|_| source.next(2) == 1) {
            state["Catch"] =
                json!([{ "ErrorEquals": ["States.TaskFailed"], "Next": next, "ResultPath": "$.error" }]);
        }
    }
    match next {
        Some(next) => state["Next"] = json!(next),
        None => state["End"] = json!(true),
    }
    state
}

fn distributed(source: &mut Source, depth: usize) -> Value {
    let mut processor = program(source, depth + 1);
    processor["ProcessorConfig"] = json!({ "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" });
    let mut map = json!({
        "Type": "Map", "MaxConcurrency": source.next(3), "ItemProcessor": processor,
        "ToleratedFailurePercentage": u64::from(source.next(60)),
    });
    if source.next(2) == 1 {
        map["ItemReader"] = json!({ "Resource": "arn:aws:states:::s3:getObject", "Parameters": { "Bucket": "b", "Key": "k" } });
    } else {
        map["ItemsPath"] = json!("$.items");
    }
    if source.next(2) == 1 {
        map["ResultWriter"] =
            json!({ "Resource": "arn:aws:states:::s3:putObject", "Parameters": { "Bucket": "b" } });
    }
    map
}

fn task(source: &mut Source) -> Value {
    let resources = [
        "arn:aws:states:local:1:activity:build",
        "arn:aws:lambda:local:1:function:f",
        "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "urn:build",
    ];
    let mut task = json!({ "Type": "Task", "Resource": resources[usize::from(source.next(4))] });
    if task["Resource"] == resources[2] {
        task["Parameters"] = json!({ "token.$": "$$.Task.Token" });
    }
    if source.next(2) == 1 {
        task["TimeoutSeconds"] = json!(60);
        task["HeartbeatSeconds"] = json!(5);
    }
    task
}

const WORDS: [&str; 48] = [
    "StartAt",
    "States",
    "Type",
    "Pass",
    "Task",
    "Choice",
    "Wait",
    "Succeed",
    "Fail",
    "Parallel",
    "Map",
    "Next",
    "End",
    "Branches",
    "ItemProcessor",
    "Choices",
    "Default",
    "Variable",
    "Resource",
    "Retry",
    "Catch",
    "ErrorEquals",
    "Seconds",
    "ResultPath",
    "InputPath",
    "Parameters",
    "Assign",
    "x.$",
    "$",
    "$.a[*]",
    "$$",
    "States.Format('{}', $)",
    "States.ALL",
    "Not",
    "And",
    "NumericEquals",
    "JSONata",
    "QueryLanguage",
    "Output",
    "Arguments",
    "Items",
    "Condition",
    "{% $states.input.n %}",
    "{% $states %}",
    "{% $map([1..9], function($x) { $x * $x }) %}",
    "ItemReader",
    "ItemBatcher",
    "DISTRIBUTED",
];

/// Any JSON, with a liking for the words of the language.
pub fn nonsense() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(WORDS.to_vec());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(
                    members
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

/// Puts `nonsense` in the place of one value of `definition`.
pub fn damaged(mut definition: Value, damage: u32, nonsense: Value) -> Value {
    let mut pointers = Vec::new();
    collect(&definition, &mut String::new(), &mut pointers);
    let pointer = &pointers[damage as usize % pointers.len()];
    if let Some(place) = definition.pointer_mut(pointer) {
        *place = nonsense;
    }
    definition
}

fn collect(value: &Value, pointer: &mut String, pointers: &mut Vec<String>) {
    pointers.push(pointer.clone());
    let length = pointer.len();
    let mut enter = |token: &str, value: &Value| {
        pointer.push('/');
        pointer.push_str(token);
        collect(value, pointer, pointers);
        pointer.truncate(length);
    };
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, item)| enter(&at.to_string(), item)),
        Value::Object(members) => members.iter().for_each(|(key, item)| enter(key, item)),
        _ => {}
    }
}
