//! A password that RDS has changed reaches those who use it: hosts fetch it, and containers, which are given it when they start,
//! are started anew.

use model::Digest;
use serde_json::{Value, json};

use super::{Scope, database};
use crate::synth::{
    policy::{Role, arn, grant},
    template::{Resource, Template, att, re, sub},
};

/// Characters of a state machine's name.
const MAX_NAME: usize = 80;
/// Seconds between two looks at new containers.
const PAUSE: i64 = 15;
/// Seconds for ECS to put new containers in the place of the old ones, beside what these take to end and those to be well.
const USUAL: i64 = 3_600;
/// How often containers are started anew: a release, or another new password, may come in between.
const STARTS: u32 = 3;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let target = match scope.is_container() {
        true => containers(template, scope),
        false => hosts(template, scope),
    };
    let pattern = json!({
        "source": ["aws.secretsmanager"],
        "detail-type": ["AWS Service Event via CloudTrail"],
        "detail": {
            "eventSource": ["secretsmanager.amazonaws.com"],
            "eventName": ["RotationSucceeded"],
            "additionalEventData": { "SecretId": [database::secret(scope)] },
        },
    });
    let (description, about) = match scope.is_container() {
        true => (
            "Containers start anew with the new password of their database",
            "A new password reaches the containers.",
        ),
        false => (
            "Hosts fetch the new password of their database",
            "A new password reaches the hosts.",
        ),
    };
    let properties = json!({
        "Description": description, "EventPattern": pattern, "State": "ENABLED", "Targets": [target],
    });
    template.add(Resource::new(
        "PasswordChanged",
        "AWS::Events::Rule",
        about,
        properties,
    ));
}

/// A line of shell on each host. Gives the rule's target.
fn hosts(template: &mut Template, scope: &Scope<'_>) -> Value {
    let command = grant(
        "RunOnHosts",
        "Tells the hosts of this environment to fetch their variables anew",
        "ssm:SendCommand",
        [arn("ec2", "instance/*")],
    )
    .when(json!({ "StringEquals": { "ssm:resourceTag/vend:stack": re("AWS::StackName") } }));
    let document = sub("arn:${AWS::Partition}:ssm:${AWS::Region}::document/AWS-RunShellScript");
    let run = grant(
        "RunShell",
        "The command is a line of shell",
        "ssm:SendCommand",
        [document.clone()],
    );
    let role = Role::of_service(
        "PasswordRole",
        "Tells hosts of a new password.",
        "events.amazonaws.com",
    )
    .path("host/");
    template.add(
        role.grant(command)
            .grant(run)
            .resource(scope.platform(), scope.shared("Boundary")),
    );
    json!({
        "Id": "hosts",
        "Arn": document,
        "RoleArn": att("PasswordRole.Arn"),
        "Input": "{\"commands\":[\"/usr/local/sbin/vend-environment restart\"]}",
        "RunCommandParameters": {
            "RunCommandTargets": [{ "Key": "tag:vend:stack", "Values": [re("AWS::StackName")] }],
        },
    })
}

/// New containers in the place of the old ones, as in a release: none goes before its successor is well. A rule cannot ask ECS
/// for that, but a state machine can. Gives the rule's target.
fn containers(template: &mut Template, scope: &Scope<'_>) -> Value {
    let services =
        || sub("arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:service/${AWS::StackName}/*");
    let restart = grant(
        "StartAnew",
        "Containers learn a password when they start",
        "ecs:UpdateService",
        [services()],
    );
    let look = grant(
        "Look",
        "ECS says when the new containers run",
        "ecs:DescribeServices",
        [services()],
    );
    let role = Role::of_service(
        "PasswordMachineRole",
        "Starts this environment's containers anew.",
        "states.amazonaws.com",
    )
    .path("host/");
    template.add(
        role.grant(restart)
            .grant(look)
            .resource(scope.platform(), scope.shared("Boundary")),
    );
    let properties = json!({
        "StateMachineName": name(scope),
        "StateMachineType": "STANDARD",
        "RoleArn": att("PasswordMachineRole.Arn"),
        "DefinitionString": sub(format!("{:#}", definition(scope))),
    });
    let kept = "Its executions, with all that they did, are kept by Step Functions itself for 90 days; they hold no secret.";
    let about = "Starts containers anew, so that they learn a new password.";
    template.add(
        Resource::new(
            "PasswordMachine",
            "AWS::StepFunctions::StateMachine",
            about,
            properties,
        )
        .skip("CKV_AWS_284", kept)
        .skip("CKV_AWS_285", kept),
    );
    let start = grant(
        "Start",
        "Starts what starts the containers anew",
        "states:StartExecution",
        [re("PasswordMachine")],
    );
    let role = Role::of_service(
        "PasswordRole",
        "Tells containers of a new password.",
        "events.amazonaws.com",
    )
    .path("host/");
    template.add(
        role.grant(start)
            .resource(scope.platform(), scope.shared("Boundary")),
    );
    json!({ "Id": "containers", "Arn": re("PasswordMachine"), "RoleArn": att("PasswordRole.Arn") })
}

/// The stack's name, or, where that is longer than a machine's may be, its beginning with a digest of it.
fn name(scope: &Scope<'_>) -> String {
    if scope.name.len() <= MAX_NAME {
        return scope.name.clone();
    }
    let digest = Digest::of(&scope.name).hex();
    format!("{}-{}", &scope.name[..MAX_NAME - 9], &digest[..8])
}

/// How often is looked at new containers.
fn looks(scope: &Scope<'_>) -> i64 {
    let seconds = USUAL + i64::from(scope.drain()) + scope.within();
    (seconds + PAUSE - 1) / PAUSE
}

/// What the machine does: each half by itself, and it has failed if one has.
fn definition(scope: &Scope<'_>) -> Value {
    let halves: Vec<String> = scope
        .halves()
        .iter()
        .map(|half| half.word().to_lowercase())
        .collect();
    let looks = looks(scope);
    json!({
        "Comment": "The containers of the halves that run start anew, and learn the new password.",
        "QueryLanguage": "JSONata",
        "StartAt": "Halves",
        // More than all looks take.
        "TimeoutSeconds": 2 * PAUSE * looks,
        "States": {
            "Halves": {
                "Type": "Map",
                "Items": halves,
                "ItemProcessor": {
                    "ProcessorConfig": { "Mode": "INLINE" },
                    "StartAt": "Half",
                    "States": half(looks),
                },
                "Next": "AreWell",
            },
            "AreWell": {
                "Type": "Choice",
                "Choices": [{ "Condition": "{% $count($states.input[$ != '']) = 0 %}", "Next": "Well" }],
                "Default": "Unwell",
            },
            "Well": { "Type": "Succeed" },
            "Unwell": {
                "Type": "Fail",
                "Error": "NewPasswordNotLearnt",
                "Cause": "{% $join($states.input[$ != ''], '; ') %}",
            },
        },
    })
}

/// The states of one half: its containers start anew, and ECS is asked until they run. It ends in an empty text, or in why they do
/// not. Of a deployment that is not there any more nobody can say that its containers run: another came in its place, and if that
/// was ECS going back, its containers are the old ones. That other one may be a release, and comes to its end first.
fn half(looks: i64) -> Value {
    let gone = ["Ecs.ServiceNotFoundException", "Ecs.ServiceNotActiveException"];
    let again = json!({ "ErrorEquals": ["States.TaskFailed", "States.Timeout"], "IntervalSeconds": 10, "BackoffRate": 2, "MaxAttempts": 5 });
    let restart = json!({
        "Type": "Task",
        "Resource": "arn:${AWS::Partition}:states:::aws-sdk:ecs:updateService",
        "Arguments": { "Cluster": "${AWS::StackName}", "Service": "{% $half %}", "ForceNewDeployment": true },
        "Assign": {
            "deployment": "{% $states.result.Service.Deployments[Status = 'PRIMARY'].Id %}",
            "starts": "{% $starts + 1 %}",
        },
        "TimeoutSeconds": 60,
        "Retry": [{ "ErrorEquals": gone, "MaxAttempts": 0 }, again],
        "Catch": [{ "ErrorEquals": gone, "Next": "NotRunning" }],
        "Next": "Wait",
    });
    let look = json!({
        "Type": "Task",
        "Resource": "arn:${AWS::Partition}:states:::aws-sdk:ecs:describeServices",
        "Arguments": { "Cluster": "${AWS::StackName}", "Services": ["{% $half %}"] },
        "Assign": {
            "rollout": "{% ($all := $states.result.Services[0].Deployments; $own := $all[Id = $deployment]; \
                        $exists($own) ? $own.RolloutState : \
                        ($all[Status = 'PRIMARY'].RolloutState = 'IN_PROGRESS' ? 'IN_PROGRESS' : 'REPLACED')) %}",
            "looks": "{% $looks + 1 %}",
        },
        "TimeoutSeconds": 60,
        "Retry": [again],
        "Next": "Rollout",
    });
    let when =
        |condition: String, next: &str| json!({ "Condition": format!("{{% {condition} %}}"), "Next": next });
    let unwell = format!(
        "{{% $half & ': after ' & $string($looks) & ' looks, one each {PAUSE} s, its new containers are ' & $rollout %}}"
    );
    json!({
        "Half": {
            "Type": "Pass",
            "Assign": { "half": "{% $states.input %}", "starts": 0, "looks": 0 },
            "Next": "StartAnew",
        },
        "StartAnew": restart,
        "Wait": { "Type": "Wait", "Seconds": PAUSE, "Next": "Look" },
        "Look": look,
        "Rollout": {
            "Type": "Choice",
            "Choices": [
                when("$rollout = 'COMPLETED'".to_owned(), "Running"),
                when(format!("$rollout = 'FAILED' or $looks >= {looks}"), "NotWell"),
                when(format!("$rollout = 'REPLACED' and $starts < {STARTS}"), "StartAnew"),
                when("$rollout = 'REPLACED'".to_owned(), "NotWell"),
            ],
            "Default": "Wait",
        },
        "Running": { "Type": "Succeed", "Output": "" },
        // A half that does not run has no service.
        "NotRunning": { "Type": "Succeed", "Output": "" },
        "NotWell": { "Type": "Succeed", "Output": unwell },
    })
}
