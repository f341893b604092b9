//! What a case says about the world: what its tasks answered, its objects, its functions.

use asl::Event;
use md5::Digest;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Stdio};

pub struct Recording<'c> {
    pub case: &'c Value,
    answers: VecDeque<&'c Value>,
}

impl<'c> Recording<'c> {
    pub fn of(case: &'c Value) -> Self {
        Self {
            case,
            answers: case["task_results"].as_array().into_iter().flatten().collect(),
        }
    }

    pub fn expected(&self) -> &str {
        self.case["expected"]["status"].as_str().unwrap_or_default()
    }

    pub fn worker(&self) -> Option<String> {
        let events = self.case["expected"]["events"].as_array()?;
        let name = events
            .iter()
            .find_map(|event| event["activityStartedEventDetails"]["workerName"].as_str());
        name.map(str::to_owned)
    }

    /// Activities of the definition that nobody made: where a case has workers, it names theirs.
    pub fn missing(&self) -> Vec<String> {
        let Some(workers) = self.case["activity_workers"].as_array() else {
            return Vec::new();
        };
        let states = self.case["definition"]["States"].as_object();
        let resources = states.into_iter().flatten().map(|(_, state)| &state["Resource"]);
        resources
            .filter(|resource| workers.iter().all(|worker| worker["activity_arn"] != **resource))
            .filter_map(Value::as_str)
            .filter(|resource| resource.contains(":activity:"))
            .map(str::to_owned)
            .collect()
    }

    /// What the next attempt of `state` answered.
    pub fn next(&mut self, state: &str) -> Option<&'c Value> {
        let fits = |answer: &&Value| answer["state"] == state || answer["state"].is_null();
        let at = self.answers.iter().position(fits)?;
        self.answers.remove(at)
    }

    /// Where the recording has no answer but the function that gave it, the function is called.
    pub fn call(&self, task: u64, resource: &str, input: &Value) -> Option<Event> {
        let service = resource.contains(":states:::lambda:invoke");
        if !service && !resource.contains(":lambda:") {
            return None;
        }
        let source = self.case["lambda_functions"][0]["source"].as_str()?;
        let event = if service { &input["Payload"] } else { input };
        let output = python(source, event);
        Some(match output.get("error") {
            Some(error) => Event::TaskFailed {
                task,
                error: error.as_str().map(str::to_owned),
                cause: Some(output["cause"].to_string()),
            },
            None if service => Event::TaskSucceeded {
                task,
                output: json!({ "ExecutedVersion": "$LATEST", "Payload": output["result"], "StatusCode": 200 }),
            },
            None => Event::TaskSucceeded {
                task,
                output: output["result"].clone(),
            },
        })
    }
}

/// The bytes of an object of the case.
pub fn objects(case: &Value, parameters: &Value) -> Option<Vec<u8>> {
    let puts = case["s3_setup"].as_array()?.iter();
    let mut wanted = puts.map(|put| &put["kwargs"]).filter(|object| {
        ["Bucket", "Key"]
            .iter()
            .all(|name| object[*name] == parameters[*name])
    });
    Some(wanted.next_back()?["Body"].as_str()?.as_bytes().to_vec())
}

/// The objects of the bucket, as S3 lists them.
pub fn listing(case: &Value, parameters: &Value) -> Vec<Value> {
    let prefix = parameters["Prefix"].as_str().unwrap_or_default();
    let puts = case["s3_setup"].as_array().into_iter().flatten();
    let objects = puts.map(|put| &put["kwargs"]).filter(|object| {
        let key = object["Key"].as_str().unwrap_or_default();
        object["Bucket"] == parameters["Bucket"] && key.starts_with(prefix)
    });
    let mut listed: Vec<_> = objects
        .map(|object| {
            let body = object["Body"].as_str().unwrap_or_default();
            let sum = md5::Md5::digest(body.as_bytes());
            let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({
                "Etag": format!("\"{sum}\""), "Key": object["Key"], "LastModified": 0, "Size": body.len(), "StorageClass": "STANDARD",
            })
        })
        .collect();
    listed.sort_by_key(|object| object["Key"].as_str().map(str::to_owned));
    listed
}

const HARNESS: &str = r#"
import json, sys
source, event = json.load(sys.stdin)
scope = {}
exec(source, scope)
try:
    print(json.dumps({"result": scope["handler"](event, None)}))
except Exception as error:
    name = type(error).__name__
    print(json.dumps({"error": name, "cause": {"errorMessage": str(error), "errorType": name}}))
"#;

fn python(source: &str, event: &Value) -> Value {
    let mut child = Command::new("python3")
        .args(["-c", HARNESS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the functions of the recordings are in Python");
    let request = json!([source, event]).to_string();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}
