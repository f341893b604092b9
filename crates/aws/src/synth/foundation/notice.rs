//! Who hears of what: topics, mail, chat, and the budget that raises an alarm.

use serde_json::{Value, json};

use super::{Scope, topic};
use crate::synth::{
    policy::{Role, arn, document, grant},
    template::{Resource, Template, att, listed, re, sub},
    word::Mail,
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let mails = &scope.options.mail;
    one(
        template,
        "Operations",
        "Alarms, failures and the budget.",
        &mails.operations,
    );
    one(
        template,
        "Builds",
        "What was pushed, built and deployed.",
        &mails.builds,
    );
    ended(template, scope);
    chat(template, scope);
    budget(template, scope);
}

fn one(template: &mut Template, word: &str, about: &str, mails: &[Mail]) {
    let id = format!("{word}Topic");
    let properties = json!({
        "DisplayName": sub(format!("${{AWS::StackName}} {}", word.to_lowercase())),
        "KmsMasterKeyId": att("Key.Arn"),
    });
    template.add(Resource::new(&id, "AWS::SNS::Topic", about, properties));
    let services = json!({
        "Sid": "ServicesOfThisAccount",
        "Effect": "Allow",
        "Principal": { "Service": ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"] },
        "Action": "sns:Publish",
        "Resource": re(&id),
        "Condition": { "StringEquals": { "aws:SourceAccount": re("AWS::AccountId") } },
    });
    // EventBridge publishes to no topic whose policy has a condition for it.
    // Source: "Using resource-based policies for EventBridge", Amazon SNS permissions.
    let events = json!({
        "Sid": "Events",
        "Effect": "Allow",
        "Principal": { "Service": "events.amazonaws.com" },
        "Action": "sns:Publish",
        "Resource": re(&id),
    });
    let tls = json!({
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sns:Publish",
        "Resource": re(&id),
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    });
    let properties = json!({ "Topics": [re(&id)], "PolicyDocument": document(vec![services, events, tls]) });
    template.add(Resource::new(
        format!("{id}Policy"),
        "AWS::SNS::TopicPolicy",
        "Who may say something.",
        properties,
    ));
    let mut seen: Vec<&Mail> = mails.iter().collect();
    seen.sort();
    seen.dedup();
    for mail in seen {
        let properties = json!({ "TopicArn": re(&id), "Protocol": "email", "Endpoint": mail.as_str() });
        let about = "Gets a mail first that asks whether it wants any.";
        template.add(Resource::new(
            listed(&format!("{word}Mail"), mail.as_str()),
            "AWS::SNS::Subscription",
            about,
            properties,
        ));
    }
    template.export(&id, about, re(&id));
}

/// A flow tells of its failure while it runs. Of one that was stopped, ran out of time or broke in an expression nobody would
/// hear. Chatbot shows this notification, and a mail is the same text.
/// Source: "Step Functions execution status change" of the EventBridge guide; "Custom notifications" of Chatbot's.
fn ended(template: &mut Template, scope: &Scope<'_>) {
    let machines = |start: String| json!({ "prefix": arn("states", &format!("stateMachine:{start}-")) });
    let of = |word: &str| machines(format!("{}-{word}-{}", scope.platform, scope.label));
    let pattern = json!({
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "status": ["FAILED", "TIMED_OUT", "ABORTED"],
            // Environments have one for the passwords of containers.
            "stateMachineArn": [of("flow"), of("pipeline"), machines(scope.name())],
        },
    });
    let said = json!({
        "version": "1.0",
        "source": "custom",
        "content": {
            "textType": "client-markdown",
            "title": "A flow came to no good end",
            "description": "<status>: <execution>",
            "nextSteps": ["vend aws releases"],
        },
    });
    let properties = json!({
        "Description": "Flows that failed, ran out of time or were stopped",
        "EventPattern": pattern,
        "State": "ENABLED",
        "Targets": [{
            "Id": "operations",
            "Arn": re("OperationsTopic"),
            "InputTransformer": {
                "InputPathsMap": { "status": "$.detail.status", "execution": "$.detail.executionArn" },
                "InputTemplate": said.to_string(),
            },
        }],
    });
    let about = "Tells operators of flows that could not tell it themselves.";
    template.add(
        Resource::new("FlowsEnded", "AWS::Events::Rule", about, properties).after("OperationsTopicPolicy"),
    );
}

fn chat(template: &mut Template, scope: &Scope<'_>) {
    let Some(slack) = &scope.options.slack else {
        return;
    };
    let look = grant(
        "ShowAlarms",
        "A message about an alarm shows its graph; CloudWatch's read calls know no single resources",
        "cloudwatch:DescribeAlarms cloudwatch:GetMetricData",
        [json!("*")],
    );
    let role =
        Role::of_silent_service("ChatRole", "What the chat may see.", "chatbot.amazonaws.com").grant(look);
    template.add(role.resource(scope.platform, re("Boundary")));
    let properties = json!({
        "ConfigurationName": sub("${AWS::StackName}"),
        "SlackWorkspaceId": slack.workspace.as_str(),
        "SlackChannelId": slack.channel.as_str(),
        "IamRoleArn": att("ChatRole.Arn"),
        "SnsTopicArns": [re("OperationsTopic"), re("BuildsTopic")],
        "LoggingLevel": "ERROR",
        "UserRoleRequired": true,
        "GuardrailPolicies": [sub("arn:${AWS::Partition}:iam::aws:policy/CloudWatchReadOnlyAccess")],
    });
    let about = "The same in a channel. The workspace must have been connected once, in AWS's console.";
    template.add(Resource::new(
        "Chat",
        "AWS::Chatbot::SlackChannelConfiguration",
        about,
        properties,
    ));
}

fn budget(template: &mut Template, scope: &Scope<'_>) {
    if scope.options.budget == 0 {
        return;
    }
    let notify = |kind: &str, percent: u32| -> Value {
        json!({
            "Notification": {
                "NotificationType": kind, "ComparisonOperator": "GREATER_THAN", "Threshold": percent, "ThresholdType": "PERCENTAGE",
            },
            "Subscribers": [{ "SubscriptionType": "SNS", "Address": topic() }],
        })
    };
    let properties = json!({
        "Budget": {
            "BudgetName": sub("${AWS::StackName}"),
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": { "Amount": scope.options.budget, "Unit": "USD" },
        },
        "NotificationsWithSubscribers": [notify("ACTUAL", 80), notify("FORECASTED", 100)],
    });
    let about = "The account's month: a word at 80 % spent, and when the whole is to be expected.";
    template.add(
        Resource::new("Budget", "AWS::Budgets::Budget", about, properties).after("OperationsTopicPolicy"),
    );
}
