//! A password that RDS has changed reaches those who use it: hosts fetch it, and containers, which are given it when they start,
//! are started anew.

use serde_json::{Value, json};

use super::{Scope, database};
use crate::synth::{
    Error,
    policy::{Role, arn, grant},
    template::{Resource, Template, att, re, sub},
};

/// Characters of a state machine's name.
const MAX_NAME: usize = 80;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let target = match scope.is_container() {
        true => containers(template, scope)?,
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
    Ok(())
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
fn containers(template: &mut Template, scope: &Scope<'_>) -> Result<Value, Error> {
    if scope.name.len() > MAX_NAME {
        let why = format!(
            "the stack's name `{}` is longer than {MAX_NAME} characters, and the state machine that brings containers a new password has the same",
            scope.name
        );
        return Err(Error::config(format!("apps.{}", scope.app), why));
    }
    let restart = grant(
        "StartAnew",
        "Containers learn a password when they start",
        "ecs:UpdateService",
        [sub(
            "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:service/${AWS::StackName}/*",
        )],
    );
    let role = Role::of_service(
        "PasswordMachineRole",
        "Starts this environment's containers anew.",
        "states.amazonaws.com",
    )
    .path("host/");
    template.add(
        role.grant(restart)
            .resource(scope.platform(), scope.shared("Boundary")),
    );
    let properties = json!({
        "StateMachineName": scope.name,
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
    Ok(json!({ "Id": "containers", "Arn": re("PasswordMachine"), "RoleArn": att("PasswordRole.Arn") }))
}

/// A half that does not run has no service.
fn definition(scope: &Scope<'_>) -> Value {
    let gone = ["Ecs.ServiceNotFoundException", "Ecs.ServiceNotActiveException"];
    let halves: Vec<String> = scope
        .halves()
        .iter()
        .map(|half| half.word().to_lowercase())
        .collect();
    let restart = json!({
        "Type": "Task",
        "Resource": "arn:${AWS::Partition}:states:::aws-sdk:ecs:updateService",
        "Arguments": { "Cluster": "${AWS::StackName}", "Service": "{% $states.input %}", "ForceNewDeployment": true },
        "TimeoutSeconds": 60,
        "Retry": [
            { "ErrorEquals": gone, "MaxAttempts": 0 },
            { "ErrorEquals": ["States.TaskFailed", "States.Timeout"], "IntervalSeconds": 10, "BackoffRate": 2, "MaxAttempts": 5 },
        ],
        "Catch": [{ "ErrorEquals": gone, "Next": "NotRunning" }],
        "End": true,
    });
    json!({
        "Comment": "The containers of the halves that run start anew, and learn the new password.",
        "QueryLanguage": "JSONata",
        "StartAt": "Halves",
        "States": { "Halves": {
            "Type": "Map",
            "Items": halves,
            "ItemProcessor": {
                "ProcessorConfig": { "Mode": "INLINE" },
                "StartAt": "StartAnew",
                "States": { "StartAnew": restart, "NotRunning": { "Type": "Succeed" } },
            },
            "End": true,
        } },
    })
}
