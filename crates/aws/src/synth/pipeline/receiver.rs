//! The receiver: webhooks and answers of approvers, without a server.
//!
//! An HTTP API in front of one function, which runs this program's own handler of webhooks. It verifies a push and puts it
//! on the bus, where the rules of flows wait; it asks approvers and counts their answers, and tells the flow.

use serde_json::json;

use super::{Scope, log_group};
use crate::synth::{
    policy::{Role, arn, grant},
    template::{Resource, Template, att, re, sub},
};

/// Where the function's code lies in the bucket of templates.
const CODE: &str = "receiver/bootstrap.zip";

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let code = json!({ "Type": "String", "Default": CODE, "Description": "The receiver's code, in the bucket of templates" });
    template.parameter("ReceiverCode", code);
    state(template, scope);
    function(template, scope);
    api(template, scope);
}

fn state(template: &mut Template, scope: &Scope<'_>) {
    let secret = json!({
        "Name": format!("{}/{}/{}/webhook", scope.platform(), scope.label, scope.app.app),
        "Description": "With this the repository signs its webhooks",
        "GenerateSecretString": { "PasswordLength": 48, "ExcludePunctuation": true },
        "KmsKeyId": scope.shared("KeyArn"),
    });
    let secret = Resource::new(
        "WebhookSecret",
        "AWS::SecretsManager::Secret",
        "What webhooks are signed with.",
        secret,
    )
    .skip(
        "CKV2_AWS_57",
        "The repository has the same secret: it changes there and here together, by a person.",
    );
    template.add(secret);
    let properties = json!({ "Name": scope.name(), "KmsKeyIdentifier": scope.shared("KeyArn") });
    let bus = Resource::new(
        "Bus",
        "AWS::Events::EventBus",
        "Pushes of this app; flows listen.",
        properties,
    );
    template.add(bus);
    let properties = json!({
        "TableName": scope.name(),
        "AttributeDefinitions": [{ "AttributeName": "key", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "key", "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
        "SSESpecification": { "SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": scope.shared("KeyArn") },
        "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true },
        "TimeToLiveSpecification": { "AttributeName": "expires", "Enabled": true },
    });
    let about = "Webhooks that came before, questions to approvers with their answers, and whose turn an environment is.";
    template.add(Resource::new("Table", "AWS::DynamoDB::Table", about, properties).retained());
}

fn function(template: &mut Template, scope: &Scope<'_>) {
    let path = format!("/aws/lambda/{}", scope.name());
    template.add(Resource::new(
        "ReceiverLogGroup",
        "AWS::Logs::LogGroup",
        "What the receiver says.",
        log_group(scope, &path),
    ));
    let flows = format!(
        "stateMachine:{}-flow-{}-{}-*",
        scope.platform(),
        scope.label,
        scope.app.app
    );
    let role = Role::of_silent_service("ReceiverRole", "The receiver.", "lambda.amazonaws.com")
        .grant(grant(
            "Logs",
            "What it says goes into its log group",
            "logs:CreateLogStream logs:PutLogEvents",
            [att("ReceiverLogGroup.Arn")],
        ))
        .grant(grant(
            "ReadSecret",
            "It verifies the signatures of webhooks",
            "secretsmanager:GetSecretValue",
            [re("WebhookSecret")],
        ))
        .grant(grant(
            "TellPush",
            "A push that is verified goes on the bus",
            "events:PutEvents",
            [att("Bus.Arn")],
        ))
        .grant(grant(
            "Remember",
            "A webhook is taken once, and answers of approvers are counted",
            "dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem",
            [att("Table.Arn")],
        ))
        .grant(grant(
            "Ask",
            "Approvers get a mail",
            "sns:Publish",
            [scope.shared("BuildsTopic")],
        ))
        .grant(grant(
            "Answer",
            "The flow goes on when enough have answered",
            "states:SendTaskFailure states:SendTaskHeartbeat states:SendTaskSuccess",
            [arn("states", &flows)],
        ))
        .grant(grant(
            "Encrypt",
            "Secret, table, bus and topic are encrypted",
            "kms:Decrypt kms:GenerateDataKey",
            [scope.shared("KeyArn")],
        ))
        .grant(grant(
            "Trace",
            "Where a request spent its time; traces know no single resources",
            "xray:PutTelemetryRecords xray:PutTraceSegments",
            [json!("*")],
        ));
    template.add(role.resource(scope.platform(), scope.shared("Boundary")));
    let properties = json!({
        "FunctionName": scope.name(),
        "Description": "Webhooks and answers of approvers",
        "Runtime": "provided.al2023",
        "Architectures": ["arm64"],
        "Handler": "bootstrap",
        "Code": { "S3Bucket": scope.shared("TemplatesBucket"), "S3Key": re("ReceiverCode") },
        "Role": att("ReceiverRole.Arn"),
        "MemorySize": 256,
        "Timeout": 20,
        "KmsKeyArn": scope.shared("KeyArn"),
        "TracingConfig": { "Mode": "Active" },
        "LoggingConfig": { "LogFormat": "JSON", "LogGroup": re("ReceiverLogGroup") },
        "Environment": { "Variables": {
            "VEND_APP": scope.app.app.as_str(),
            "VEND_BUS": re("Bus"),
            "VEND_TABLE": re("Table"),
            "VEND_TOPIC": scope.shared("BuildsTopic"),
            "VEND_WEBHOOK_SECRET": re("WebhookSecret"),
            "VEND_URL": att("Api.ApiEndpoint"),
        } },
    });
    let function = Resource::new("Receiver", "AWS::Lambda::Function", "This program's handler of webhooks, without a server.", properties)
        .skip("CKV_AWS_115", "A reservation takes from the account's ten of the first day; the API's own limit holds requests back.")
        .skip("CKV_AWS_116", "It is only ever called by somebody who waits for the answer, and hears of a failure.")
        .skip("CKV_AWS_117", "It calls services of AWS only; in the network it would need NAT to reach them.");
    template.add(function);
}

fn api(template: &mut Template, scope: &Scope<'_>) {
    let properties = json!({
        "Name": scope.name(),
        "ProtocolType": "HTTP",
        "Description": "Webhooks and answers of approvers",
    });
    template.add(Resource::new(
        "Api",
        "AWS::ApiGatewayV2::Api",
        "What the repository and approvers reach.",
        properties,
    ));
    let integration = json!({
        "ApiId": re("Api"),
        "IntegrationType": "AWS_PROXY",
        "IntegrationUri": att("Receiver.Arn"),
        "PayloadFormatVersion": "2.0",
        "TimeoutInMillis": 20_000,
    });
    template.add(Resource::new(
        "ApiToReceiver",
        "AWS::ApiGatewayV2::Integration",
        "All of it goes to the receiver.",
        integration,
    ));
    for (id, key) in [
        ("WebhookRoute", "POST /webhooks"),
        ("QuestionRoute", "GET /approvals/{id}"),
        ("AnswerRoute", "POST /approvals/{id}"),
    ] {
        let properties = json!({
            "ApiId": re("Api"), "RouteKey": key, "AuthorizationType": "NONE", "Target": sub("integrations/${ApiToReceiver}"),
        });
        let route = Resource::new(id, "AWS::ApiGatewayV2::Route", format!("{key}."), properties)
            .skip("CKV_AWS_309", "A webhook proves itself by its signature and an approver by the token of the question; the receiver checks both.");
        template.add(route);
    }
    let path = format!("/{}/{}/{}/api", scope.platform(), scope.label, scope.app.app);
    template.add(Resource::new(
        "ApiLogGroup",
        "AWS::Logs::LogGroup",
        "Who called.",
        log_group(scope, &path),
    ));
    let format = r#"{"id":"$context.requestId","ip":"$context.identity.sourceIp","route":"$context.routeKey","status":"$context.status","time":"$context.requestTime"}"#;
    let properties = json!({
        "ApiId": re("Api"),
        "StageName": "$default",
        "AutoDeploy": true,
        "AccessLogSettings": { "DestinationArn": att("ApiLogGroup.Arn"), "Format": format },
        "DefaultRouteSettings": { "ThrottlingBurstLimit": 50, "ThrottlingRateLimit": 20 },
    });
    template.add(Resource::new(
        "ApiStage",
        "AWS::ApiGatewayV2::Stage",
        "Open, and not faster than a repository pushes.",
        properties,
    ));
    let properties = json!({
        "Action": "lambda:InvokeFunction",
        "FunctionName": att("Receiver.Arn"),
        "Principal": "apigateway.amazonaws.com",
        "SourceArn": sub("arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*"),
    });
    template.add(Resource::new(
        "ApiMayCall",
        "AWS::Lambda::Permission",
        "The API, and nobody else, calls the receiver.",
        properties,
    ));
    template.output(
        "WebhookUrl",
        "What the repository calls",
        sub("${Api.ApiEndpoint}/webhooks"),
    );
    template.output(
        "WebhookSecret",
        "Where the secret of webhooks is",
        re("WebhookSecret"),
    );
}
