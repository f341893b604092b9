//! The state machine of branches: one execution for each push to a branch, and for its end. It puts them in order, has the
//! stacks made, starts the flow, and waits until nobody has pushed for long enough.
//!
//! Of two executions about one branch the one that began later counts: each writes down that it is there, works when it is
//! its turn, and only if nobody wrote after it. So it does not matter in which order turns are given.
//!
//! A deletion counts once, ever, and only for the commit that the branch stood at: one that comes late, or again, takes nothing
//! away from who pushed since.

use serde_json::{Map, Value, json};

use super::{Scope, flow, flow_arn, machine_name};
use crate::synth::{
    pipeline::{
        log_group,
        machine::{KNOWN_DAYS, TURN_S, call, catch, retry},
        notice::Notice,
    },
    policy::{Role, arn, grant},
    template::{Resource, Template, att},
};

/// Minutes that a build may wait, and take. All tries of a state together stay below a turn, or another execution would take it
/// meanwhile.
pub(super) const QUEUED_MINUTES: u32 = 60;
pub(super) const BUILD_MINUTES: u32 = 120;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let path = format!(
        "/aws/vendedlogs/states/{}/{}/{}/branches",
        scope.platform(),
        scope.label,
        scope.app.app
    );
    let about = "What every execution about a branch did.";
    template.add(Resource::new(
        "BranchMachineLogGroup",
        "AWS::Logs::LogGroup",
        about,
        log_group(scope, &path),
    ));
    let role = Role::of_service(
        "BranchMachineRole",
        "The machine of branches: has stacks made and taken away, and starts flows.",
        "states.amazonaws.com",
    )
    .grants(flow::building(&[machine_name(scope)]))
    .grant(grant(
        "Order",
        "Of executions about a branch the last one counts, one at a time",
        "dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem",
        [arn("dynamodb", &format!("table/{}", scope.name()))],
    ))
    .grant(grant(
        "Start",
        "When its stacks are there, the flow of a branch gets its push",
        "states:StartExecution",
        [flow_arn(scope)],
    ))
    .grant(grant(
        "Tell",
        "People hear of what failed",
        "sns:Publish",
        [scope.shared("OperationsTopic")],
    ))
    .grant(grant(
        "Encrypt",
        "State, table and topics are encrypted",
        "kms:Decrypt kms:GenerateDataKey",
        [scope.shared("KeyArn")],
    ))
    .grants(flow::watching());
    template.add(flow::excused(
        role.resource(scope.platform(), scope.shared("Boundary")),
    ));
    let definition = format!("{:#}", definition(scope));
    let properties = json!({
        "StateMachineName": machine_name(scope),
        "StateMachineType": "STANDARD",
        "RoleArn": att("BranchMachineRole.Arn"),
        "DefinitionString": json!({ "Fn::Sub": [definition, { "Operations": scope.shared("OperationsTopic") }] }),
        "EncryptionConfiguration": { "Type": "CUSTOMER_MANAGED_KMS_KEY", "KmsKeyId": scope.shared("KeyArn"), "KmsDataKeyReusePeriodSeconds": 300 },
        "LoggingConfiguration": {
            "Level": "ALL",
            "IncludeExecutionData": true,
            "Destinations": [{ "CloudWatchLogsLogGroup": { "LogGroupArn": att("BranchMachineLogGroup.Arn") } }],
        },
        "TracingConfiguration": { "Enabled": true },
    });
    let about = "Environments come and go with their branches.";
    template.add(Resource::new(
        "BranchMachine",
        "AWS::StepFunctions::StateMachine",
        about,
        properties,
    ));
}

fn definition(scope: &Scope<'_>) -> Value {
    let mut states = Map::new();
    let mut add = |name: &str, state: Value| drop(states.insert(name.to_owned(), state));
    let known = |next: &str| {
        let mut state = json!({ "Type": "Task" });
        state["Next"] = json!(next);
        state
    };
    add(
        "Begin",
        json!({
            "Type": "Pass",
            "Assign": { "job": "{% $states.input %}", "action": "{% $states.input.action %}" },
            "Next": "IsEnd",
        }),
    );
    add(
        "IsEnd",
        json!({
            "Type": "Choice",
            "Choices": [{ "Condition": "{% $action = 'destroy' %}", "Next": "Once" }],
            "Default": "Record",
        }),
    );
    add("Once", with(known("RecordEnd"), once(scope)));
    add("RecordEnd", with(known("Turn"), record_end(scope)));
    add("Record", with(known("Turn"), record(scope)));
    add("Turn", with(known("Look"), turn(scope)));
    add("Look", with(known("IsNewest"), look(scope)));
    add(
        "IsNewest",
        json!({
            "Type": "Choice",
            "Choices": [
                { "Condition": "{% $newest and $action = 'destroy' %}", "Next": "Destroy" },
                { "Condition": "{% $newest %}", "Next": "Apply" },
            ],
            "Default": "LeaveOvertaken",
        }),
    );
    add("LeaveOvertaken", leave(scope, "Overtaken"));
    add(
        "Overtaken",
        json!({ "Type": "Succeed", "Comment": "Something later counts." }),
    );
    // What could not be made is looked at by people; what could not be taken away is tried again by itself.
    add("Apply", work(scope, "Release", (60, 1)));
    add("Destroy", work(scope, "Forget", (300, 5)));
    add("Release", release(scope));
    add("LeaveApplied", leave(scope, "Keep"));
    add(
        "Keep",
        json!({
            "Type": "Wait",
            "Comment": "Every push waits, and only the last one takes the environment away.",
            "Seconds": "{% $job.expires %}",
            "Next": "Expire",
        }),
    );
    add(
        "Expire",
        json!({ "Type": "Pass", "Assign": { "action": "destroy" }, "Next": "Turn" }),
    );
    add("Forget", forget(scope));
    add("LeaveGone", leave(scope, "Gone"));
    add("Gone", json!({ "Type": "Succeed" }));
    add("LeaveAfterFailure", leave(scope, "TellFailure"));
    add("TellFailure", tell(scope));
    add(
        "HasEnd",
        json!({
            "Type": "Choice",
            "Comment": "What is half made expires too.",
            "Choices": [{ "Condition": "{% $action = 'apply' %}", "Next": "Keep" }],
            "Default": "Failed",
        }),
    );
    add(
        "Failed",
        json!({ "Type": "Fail", "Error": "{% $failure.Error %}", "Cause": "{% $failure.Cause %}" }),
    );
    json!({
        "Comment": format!("{}: environments come and go with their branches", scope.app.app),
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": states,
    })
}

fn with(mut state: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        state[key] = value.clone();
    }
    state
}

/// Seconds since 1970.
const NOW: &str = "$floor($millis() / 1000)";
const OWNER: &str = "{% $states.context.Execution.Id %}";

fn key(what: &str) -> Value {
    json!({ "S": format!("{{% '{what}/' & $job.environment %}}") })
}

/// What is signed about a deletion may be sent again by whoever has it. Names of executions are known for 90 days: this row is
/// never taken away.
fn once(scope: &Scope<'_>) -> Value {
    json!({
        "Comment": "A deletion counts once, however often it is sent.",
        "Resource": call("dynamodb:putItem"),
        "Arguments": {
            "TableName": scope.name(),
            "Item": {
                "key": { "S": "{% 'gone/' & $job.environment & '/' & $job.event %}" },
                "owner": { "S": OWNER },
            },
            "ConditionExpression": "attribute_not_exists(#key) OR #owner = :owner",
            "ExpressionAttributeNames": { "#key": "key", "#owner": "owner" },
            "ExpressionAttributeValues": { ":owner": { "S": OWNER } },
        },
        "TimeoutSeconds": 60,
        "Retry": transient(),
        "Catch": overtaken(),
    })
}

fn record(scope: &Scope<'_>) -> Value {
    let mut state = written(scope, "{% $job.push.commit %}");
    state["Comment"] = json!("Who began later counts, whoever writes first.");
    state["Arguments"]["ConditionExpression"] = json!("attribute_not_exists(#key) OR #began <= :began");
    state["Retry"] = transient();
    state
}

/// A push that came before the deletion may not have written yet: it is waited for a little.
fn record_end(scope: &Scope<'_>) -> Value {
    let mut state = written(scope, "{% $job.commit %}");
    state["Comment"] = json!("The branch stood at the commit of its last push, or somebody pushed since.");
    let arguments = &mut state["Arguments"];
    arguments["ConditionExpression"] =
        json!("attribute_not_exists(#key) OR (#began <= :began AND #commit = :commit)");
    arguments["ExpressionAttributeNames"]["#commit"] = json!("commit");
    arguments["ExpressionAttributeValues"][":commit"] = json!({ "S": "{% $job.commit %}" });
    let mut retries = vec![json!({
        "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
        "IntervalSeconds": 20, "BackoffRate": 1, "MaxAttempts": 3,
    })];
    retries.extend(retry().as_array().into_iter().flatten().cloned());
    state["Retry"] = json!(retries);
    state
}

/// Which execution about the branch was the last, and for which commit.
fn written(scope: &Scope<'_>, commit: &str) -> Value {
    let began = "{% $string($toMillis($states.context.Execution.StartTime)) %}";
    json!({
        "Resource": call("dynamodb:putItem"),
        "Arguments": {
            "TableName": scope.name(),
            "Item": {
                "key": key("branch"),
                "owner": { "S": OWNER },
                "began": { "N": began },
                "commit": { "S": commit },
                "expires": { "N": format!("{{% $string({NOW} + {}) %}}", KNOWN_DAYS * 86_400) },
            },
            "ExpressionAttributeNames": { "#key": "key", "#began": "began" },
            "ExpressionAttributeValues": { ":began": { "N": began } },
        },
        "TimeoutSeconds": 60,
        "Catch": overtaken(),
    })
}

fn overtaken() -> Value {
    json!([
        { "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"], "Next": "Overtaken" },
        { "ErrorEquals": ["States.ALL"], "Assign": { "failure": "{% $states.errorOutput %}" }, "Next": "TellFailure" },
    ])
}

/// A condition that does not hold is no reason to ask again.
fn transient() -> Value {
    let mut all =
        vec![json!({ "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"], "MaxAttempts": 0 })];
    all.extend(retry().as_array().into_iter().flatten().cloned());
    json!(all)
}

fn turn(scope: &Scope<'_>) -> Value {
    json!({
        "Comment": "One at a time makes or takes away the stacks of a branch.",
        "Resource": call("dynamodb:putItem"),
        "Arguments": {
            "TableName": scope.name(),
            "Item": {
                "key": key("turn/stacks"),
                "owner": { "S": OWNER },
                "expires": { "N": format!("{{% $string({NOW} + {TURN_S}) %}}") },
            },
            "ConditionExpression": "attribute_not_exists(#key) OR #expires < :now OR #owner = :owner",
            "ExpressionAttributeNames": { "#key": "key", "#expires": "expires", "#owner": "owner" },
            "ExpressionAttributeValues": {
                ":now": { "N": format!("{{% $string({NOW}) %}}") },
                ":owner": { "S": OWNER },
            },
        },
        "TimeoutSeconds": 60,
        "Retry": [
            {
                "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
                "IntervalSeconds": 30, "BackoffRate": 1, "MaxAttempts": TURN_S / 30,
            },
            { "ErrorEquals": ["States.TaskFailed", "States.Timeout"], "IntervalSeconds": 5, "BackoffRate": 2, "MaxAttempts": 3 },
        ],
        "Catch": catch("TellFailure"),
    })
}

fn look(scope: &Scope<'_>) -> Value {
    json!({
        "Resource": call("dynamodb:getItem"),
        "Arguments": { "TableName": scope.name(), "Key": { "key": key("branch") }, "ConsistentRead": true },
        "Assign": { "newest": "{% $states.result.Item.owner.S = $states.context.Execution.Id %}" },
        "TimeoutSeconds": 60,
        "Retry": retry(),
        "Catch": catch("LeaveAfterFailure"),
    })
}

fn work(scope: &Scope<'_>, next: &str, (interval_s, attempts): (u32, u32)) -> Value {
    let variable = |name: &str, value: &str| json!({ "Name": name, "Type": "PLAINTEXT", "Value": value });
    json!({
        "Type": "Task",
        "Resource": call("codebuild:startBuild.sync"),
        "Arguments": {
            "ProjectName": machine_name(scope),
            "EnvironmentVariablesOverride": [
                variable("VEND_ACTION", "{% $action %}"),
                variable("VEND_BRANCH", "{% $job.branch %}"),
            ],
        },
        "TimeoutSeconds": (QUEUED_MINUTES + BUILD_MINUTES) * 60,
        "Retry": [{
            "ErrorEquals": ["States.TaskFailed", "States.Timeout"],
            "IntervalSeconds": interval_s, "BackoffRate": 2, "MaxAttempts": attempts,
        }],
        "Catch": catch("LeaveAfterFailure"),
        "Next": next,
    })
}

/// The release has the name that the delivery gave it, so that it is one release however often it is asked for.
fn release(scope: &Scope<'_>) -> Value {
    let (platform, label, app) = (scope.platform(), scope.label, &scope.app.app);
    let flow = format!(
        "{{% 'arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:stateMachine:{platform}-flow-{label}-{app}-' & $job.environment %}}"
    );
    let known = [
        "StepFunctions.ExecutionAlreadyExists",
        "StepFunctions.ExecutionAlreadyExistsException",
    ];
    let mut retries = vec![json!({ "ErrorEquals": known, "MaxAttempts": 0 })];
    retries.extend(retry().as_array().into_iter().flatten().cloned());
    json!({
        "Type": "Task",
        "Resource": call("states:startExecution"),
        "Arguments": { "StateMachineArn": flow, "Name": "{% $job.release %}", "Input": "{% $job.push %}" },
        "TimeoutSeconds": 60,
        "Retry": retries,
        "Catch": [
            { "ErrorEquals": known, "Next": "LeaveApplied" },
            { "ErrorEquals": ["States.ALL"], "Assign": { "failure": "{% $states.errorOutput %}" }, "Next": "LeaveAfterFailure" },
        ],
        "Next": "LeaveApplied",
    })
}

/// Takes an item away, if it is this execution's.
fn drop_item(scope: &Scope<'_>, item: &str, next: &str) -> Value {
    json!({
        "Type": "Task",
        "Resource": call("dynamodb:deleteItem"),
        "Arguments": {
            "TableName": scope.name(),
            "Key": { "key": key(item) },
            "ConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": { "#owner": "owner" },
            "ExpressionAttributeValues": { ":owner": { "S": OWNER } },
        },
        "TimeoutSeconds": 60,
        "Retry": transient(),
        "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": next }],
        "Next": next,
    })
}

/// Lets the next one in.
fn leave(scope: &Scope<'_>, next: &str) -> Value {
    drop_item(scope, "turn/stacks", next)
}

/// The branch is gone, and nobody has come after that.
fn forget(scope: &Scope<'_>) -> Value {
    drop_item(scope, "branch", "LeaveGone")
}

fn tell(scope: &Scope<'_>) -> Value {
    let app = &scope.app.app;
    let text = format!(
        "'{app}, branch ' & $job.branch & ': could not ' & $action & ' its stacks, ' & $failure.Error & ': ' & $failure.Cause \
         & ($action = 'destroy' ? '. Nobody tries again by itself: vend aws destroy --branch does.' : '')"
    );
    let notice = Notice {
        topic: "${Operations}",
        subject: &format!("{app}: stacks of a branch"),
        text: &text,
        chat: None,
        steps: &[],
    };
    json!({
        "Type": "Task",
        "Resource": call("sns:publish"),
        "Arguments": notice.arguments(),
        "TimeoutSeconds": 60,
        "Retry": retry(),
        "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": "HasEnd" }],
        "Next": "HasEnd",
    })
}
