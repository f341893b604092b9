//! What a Task calls: the form of its `Resource`, and what is known of the services behind it.
//!
//! AWS knows the parameters of every call. Here are the names of the calls that have integrations of their own, and all
//! operations of Step Functions; of `aws-sdk` calls of other services only the form is looked at.

use super::walk::{self, Place};
use crate::check::{Code, Report, join};
use serde_json::Value;

const INVALID: &str = "Value is not a valid resource ARN";
const PATTERNS: [&str; 3] = ["sync", "sync:2", "waitForTaskToken"];

/// Operations of the Step Functions API, as `aws-sdk:sfn:` names them.
const OPERATIONS: [&str; 37] = [
    "createActivity",
    "createStateMachine",
    "createStateMachineAlias",
    "deleteActivity",
    "deleteStateMachine",
    "deleteStateMachineAlias",
    "deleteStateMachineVersion",
    "describeActivity",
    "describeExecution",
    "describeMapRun",
    "describeStateMachine",
    "describeStateMachineAlias",
    "describeStateMachineForExecution",
    "getActivityTask",
    "getExecutionHistory",
    "listActivities",
    "listExecutions",
    "listMapRuns",
    "listStateMachineAliases",
    "listStateMachineVersions",
    "listStateMachines",
    "listTagsForResource",
    "publishStateMachineVersion",
    "redriveExecution",
    "sendTaskFailure",
    "sendTaskHeartbeat",
    "sendTaskSuccess",
    "startExecution",
    "startSyncExecution",
    "stopExecution",
    "tagResource",
    "testState",
    "untagResource",
    "updateMapRun",
    "updateStateMachine",
    "updateStateMachineAlias",
    "validateStateMachineDefinition",
];

/// Integrations whose calls are all known, "Integrating optimized services" in AWS's developer guide. Services that gained
/// calls over the years are not among them: theirs are not judged.
const CALLS: [(&str, &[&str]); 11] = [
    ("apigateway", &["invoke"]),
    ("batch", &["submitJob"]),
    ("databrew", &["startJobRun"]),
    ("dynamodb", &["getItem", "putItem", "deleteItem", "updateItem"]),
    ("ecs", &["runTask"]),
    ("events", &["putEvents"]),
    ("http", &["invoke"]),
    ("lambda", &["invoke"]),
    ("sns", &["publish"]),
    ("sqs", &["sendMessage"]),
    ("states", &["startExecution"]),
];

/// Integrations that are there; which calls they have is left to AWS.
const SERVICES: [&str; 13] = [
    "athena",
    "bedrock",
    "bedrock-agentcore",
    "codebuild",
    "eks",
    "elasticmapreduce",
    "emr-containers",
    "emr-serverless",
    "glue",
    "mediaconvert",
    "sagemaker",
    "s3",
    "ssm",
];

/// What is said of a resource.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It can be run or mocked, and AWS would not take it, or nobody here knows whether it would.
    Doubtful(Code, &'static str),
    Wrong(String),
}

/// Refuses resources that nothing can stand behind.
pub fn check(definition: &Value, report: &mut Report) {
    each(definition, |place, resource| {
        if let Verdict::Wrong(message) = judged(resource) {
            report.schema(&join(place.pointer, "Resource"), message);
        } else if is_start(resource) {
            started(place, report);
        }
    });
}

/// Warns of what can be run and is probably not meant.
pub fn advise(definition: &Value, report: &mut Report) {
    each(definition, |place, resource| {
        let at = join(place.pointer, "Resource");
        if let Verdict::Doubtful(code, message) = judged(resource) {
            report.add(&at, code, message);
        }
        if is_start(resource) && place.state.get(field(place)).is_none() {
            let message =
                "The call has no parameters but the state's input: StateMachineArn must be in that.";
            report.add(&at, Code::NoParameters, message);
        }
        if resource.ends_with(".waitForTaskToken") && !tells_token(place) {
            let message = "The task waits for its token and gives it to nobody.";
            report.add(&at, Code::NoTaskToken, message);
            report.detail(match place.is_jsonata {
                true => "pass $states.context.Task.Token in Arguments",
                false => "pass $$.Task.Token in Parameters",
            });
        }
    });
}

fn each(definition: &Value, mut see: impl FnMut(Place<'_>, &str)) {
    walk::states(definition, &mut |place| {
        if let Some(resource) = place.state["Resource"].as_str()
            && place.state["Type"] == "Task"
        {
            see(place, resource);
        }
    });
}

fn judged(resource: &str) -> Verdict {
    let wrong = || Verdict::Wrong(INVALID.into());
    let Some((scheme, _)) = resource.split_once(':') else {
        return wrong();
    };
    if scheme != "arn" {
        // The language asks for a URI; AWS for an ARN.
        let starts = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic());
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
        return match starts && scheme.chars().all(is_plain) {
            true => Verdict::Doubtful(Code::NoArn, INVALID),
            false => wrong(),
        };
    }
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    let [_, partition, service, region, account, rest] = parts.as_slice() else {
        return wrong();
    };
    if partition.is_empty() || service.is_empty() || rest.is_empty() || resource.contains(char::is_whitespace)
    {
        return wrong();
    }
    match (*service, region.is_empty() && account.is_empty()) {
        ("states", true) => integration(resource, rest),
        ("states", false) => match rest.strip_prefix("activity:") {
            Some(name) if !name.is_empty() => Verdict::Good,
            _ => wrong(),
        },
        ("lambda", _) => Verdict::Good,
        _ => Verdict::Doubtful(
            Code::UnknownResource,
            "A task calls an activity, a Lambda function or an integration; this is none of them.",
        ),
    }
}

/// `SERVICE:ACTION[.PATTERN]`, or `aws-sdk:SERVICE:ACTION[.waitForTaskToken]`.
fn integration(resource: &str, rest: &str) -> Verdict {
    let unknown = || {
        Verdict::Wrong(format!(
            "The resource provided {resource} is not recognized. The value is not a valid resource ARN, or the \
             resource is not available in this region."
        ))
    };
    let (sdk, call) = match rest.strip_prefix("aws-sdk:") {
        Some(call) => (true, call),
        None => (false, rest),
    };
    let Some((service, action)) = call.split_once(':') else {
        return unknown();
    };
    let (action, pattern) = match action.split_once('.') {
        Some((action, pattern)) => (action, Some(pattern)),
        None => (action, None),
    };
    let known = CALLS.iter().find(|(name, _)| *name == service);
    if !sdk && known.is_none() && !SERVICES.contains(&service) && !service.is_empty() {
        return Verdict::Doubtful(
            Code::UnknownResource,
            "No integration of this name is known here; AWS may refuse it.",
        );
    }
    let is_named = |text: &str| text.starts_with(|letter: char| letter.is_ascii_lowercase());
    let is_plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric());
    if !is_named(service)
        || !is_named(action)
        || !is_plain(action)
        || pattern.is_some_and(|pattern| !PATTERNS.contains(&pattern))
    {
        return unknown();
    }
    match sdk {
        true if service == "sfn" && !OPERATIONS.contains(&action) => unknown(),
        true => Verdict::Good,
        false => match known {
            Some((_, actions)) if !actions.contains(&action) => unknown(),
            _ => Verdict::Good,
        },
    }
}

fn is_start(resource: &str) -> bool {
    resource
        .split_once(":states:::states:startExecution")
        .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
}

/// The field that says what the call is given.
fn field(place: Place<'_>) -> &'static str {
    match place.is_jsonata {
        true => "Arguments",
        false => "Parameters",
    }
}

/// `StartExecution` without the machine that it starts. Without the field, the state's input is what the call is given.
fn started(place: Place<'_>, report: &mut Report) {
    let field = field(place);
    let names = ["StateMachineArn", "StateMachineArn.$"];
    if let Some(given) = place.state.get(field).and_then(Value::as_object)
        && !names.iter().any(|name| given.contains_key(*name))
    {
        let message = "The field 'StateMachineArn' is required but was missing";
        report.schema(&join(place.pointer, field), message);
    }
}

/// Is the token, or something that has it, among what the task is given?
fn tells_token(place: Place<'_>) -> bool {
    let mark = match place.is_jsonata {
        true => "context",
        false => "$$",
    };
    ["Parameters", "Arguments", "InputPath"]
        .iter()
        .any(|field| place.state.get(*field).is_some_and(|value| says(value, mark)))
}

fn says(value: &Value, mark: &str) -> bool {
    match value {
        Value::String(text) => text.contains(mark),
        Value::Array(items) => items.iter().any(|item| says(item, mark)),
        Value::Object(members) => members.values().any(|member| says(member, mark)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
