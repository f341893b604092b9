//! The receiver: webhooks without a server.
//!
//! An HTTP API in front of one function, which runs this program's own handler of webhooks. It verifies a push and starts
//! the flows of its branch.

use std::collections::BTreeMap;

use model::spec;
use serde_json::{Value, json};

use super::{Scope, branch, log_group};
use crate::synth::{
    Error,
    policy::{Role, arn, grant},
    template::{Resource, Template, att, re, sub},
    word::Label,
};

/// Where the function's code lies in the bucket of templates, until it is known whose it is.
pub(super) const CODE: &str = "receiver/bootstrap.zip";
/// Lambda takes 4 KiB of variables in all.
const MAX_BRANCHES: usize = 3_000;

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let (branches, previews) = branches(scope)?;
    state(template, scope);
    role(template, scope);
    function(template, scope, &branches, &previews);
    api(template, scope);
    Ok(())
}

/// The environments that follow each branch, and the entries for branches that have their own, both as JSON.
fn branches(scope: &Scope<'_>) -> Result<(String, String), Error> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for own in scope.app.environments.iter().filter(|own| own.preview.is_none()) {
        all.entry(&own.branch).or_default().push(own.name.as_str());
    }
    let entries = branch::entries(scope)?;
    let entry = |(pattern, targets): &(&spec::Pattern, Vec<Label>)| {
        let expires = pattern
            .environment
            .preview
            .as_ref()
            .map(|own| own.expires.as_secs());
        json!({ "branches": pattern.branches, "expires": expires, "made": branch::is_made(scope, targets) })
    };
    let previews: Vec<Value> = entries.iter().map(entry).collect();
    let (text, previews) = (json!(all).to_string(), json!(previews).to_string());
    if text.len() + previews.len() > MAX_BRANCHES {
        let why = format!(
            "the names of its environments and branches have {} bytes together, and the receiver's variables take {MAX_BRANCHES}",
            text.len() + previews.len()
        );
        return Err(Error::config(format!("apps.{}", scope.app.app), why));
    }
    Ok((text, previews))
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
    let properties = json!({
        "TableName": scope.name(),
        "AttributeDefinitions": [{ "AttributeName": "key", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "key", "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
        "SSESpecification": { "SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": scope.shared("KeyArn") },
        "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true },
        "TimeToLiveSpecification": { "AttributeName": "expires", "Enabled": true },
    });
    let about = "Whose turn an environment is.";
    template.add(Resource::new("Table", "AWS::DynamoDB::Table", about, properties).retained());
}

fn role(template: &mut Template, scope: &Scope<'_>) {
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
    let mut started = vec![arn("states", &flows)];
    if !scope.app.patterns.is_empty() {
        started.push(arn(
            "states",
            &format!("stateMachine:{}", branch::machine_name(scope)),
        ));
    }
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
            "Start",
            "A push that is verified starts the flows of its branch, or what makes them; the end of a branch what takes them away",
            "states:StartExecution",
            started,
        ))
        .grant(grant(
            "Encrypt",
            "The secret is encrypted, and what a flow is given",
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
}

fn function(template: &mut Template, scope: &Scope<'_>, branches: &str, previews: &str) {
    let flow = format!(
        "arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:stateMachine:{}-flow-{}-{}-",
        scope.platform(),
        scope.label,
        scope.app.app
    );
    let machine = format!(
        "arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:stateMachine:{}",
        branch::machine_name(scope)
    );
    let properties = json!({
        "FunctionName": scope.name(),
        "Description": "Webhooks",
        "Runtime": "provided.al2023",
        "Architectures": ["arm64"],
        "Handler": "bootstrap",
        "Code": { "S3Bucket": scope.shared("TemplatesBucket"), "S3Key": CODE },
        "Role": att("ReceiverRole.Arn"),
        "MemorySize": 256,
        "Timeout": 20,
        "KmsKeyArn": scope.shared("KeyArn"),
        "TracingConfig": { "Mode": "Active" },
        "LoggingConfig": { "LogFormat": "JSON", "LogGroup": re("ReceiverLogGroup") },
        "Environment": { "Variables": {
            "VEND_APP": scope.app.app.as_str(),
            "VEND_BRANCHES": branches,
            "VEND_PREVIEWS": previews,
            "VEND_BRANCH_MACHINE": sub(machine),
            "VEND_FLOW": sub(flow),
            "VEND_WEBHOOK_SECRET": re("WebhookSecret"),
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
        "Description": "Webhooks",
    });
    template.add(Resource::new(
        "Api",
        "AWS::ApiGatewayV2::Api",
        "What the repository reaches.",
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
    let properties = json!({
        "ApiId": re("Api"), "RouteKey": "POST /webhooks", "AuthorizationType": "NONE",
        "Target": sub("integrations/${ApiToReceiver}"),
    });
    let about = "Webhooks, and nothing else.";
    let route = Resource::new("WebhookRoute", "AWS::ApiGatewayV2::Route", about, properties).skip(
        "CKV_AWS_309",
        "A webhook proves itself by its signature, which the receiver checks.",
    );
    template.add(route);
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
