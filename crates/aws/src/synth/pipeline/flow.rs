//! One environment's flow: the state machine that moves a release, and its role. The receiver starts it.

use model::{AppName, EnvironmentName, spec};
use serde_json::json;

use super::{Scope, branch, log_group, machine::machine, scope};
use crate::synth::{
    Error, Kind, Stack,
    config::{self, Config},
    policy::{Grant, Role, arn, global_arn, grant},
    template::{Resource, Template, att, sub},
    word::Label,
};

/// The projects that flows start. That of branches is none of them.
const PROJECTS: [&str; 4] = ["build", "bake", "pack", "tests"];

/// `vend-flow-production-shop-production`
pub(in crate::synth) fn flow_name(
    config: &Config,
    home: &Label,
    app: &AppName,
    environment: &EnvironmentName,
) -> String {
    format!("{}-flow-{home}-{app}-{environment}", config.platform)
}

/// The stack of one environment's flow. `targets`: the foundations into which a release goes, in order.
pub fn flow(
    config: &Config,
    app: &spec::App,
    environment: &spec::Environment,
    targets: &[Label],
) -> Result<Stack, Error> {
    let default = config::App::default();
    let scope = scope(config, app, &default)?;
    let name = flow_name(config, scope.label, &app.app, &environment.name);
    if name.len() > 80 {
        let why = format!("the flow's name `{name}` is longer than the 80 characters of a state machine's");
        return Err(Error::config(format!("apps.{}", app.app), why));
    }
    let definition = machine(config, app, environment, targets)?;
    let mut template = Template::new(format!("{}, {}: how a release moves", app.app, environment.name));
    let path = format!(
        "/{}/{}/{}/flow/{}",
        scope.platform(),
        scope.label,
        app.app,
        environment.name
    );
    // Step Functions writes into groups below this path without a policy of their own.
    let path = format!("/aws/vendedlogs/states{path}");
    template.add(Resource::new(
        "LogGroup",
        "AWS::Logs::LogGroup",
        "What every execution did.",
        log_group(&scope, &path),
    ));
    let role_arn = match environment.preview {
        // One role for all of them: what makes them by itself makes no roles.
        Some(_) => global_arn(
            "iam",
            &format!("role/{}/flow/{}", scope.platform(), branch::flow_role(&scope)),
        ),
        None => {
            role(&mut template, &scope, targets);
            att("FlowRole.Arn")
        }
    };
    let topics =
        json!({ "Builds": scope.shared("BuildsTopic"), "Operations": scope.shared("OperationsTopic") });
    let properties = json!({
        "StateMachineName": name,
        "StateMachineType": "STANDARD",
        "RoleArn": role_arn,
        "DefinitionString": json!({ "Fn::Sub": [format!("{definition:#}"), topics] }),
        "EncryptionConfiguration": { "Type": "CUSTOMER_MANAGED_KMS_KEY", "KmsKeyId": scope.shared("KeyArn"), "KmsDataKeyReusePeriodSeconds": 300 },
        "LoggingConfiguration": {
            "Level": "ALL",
            "IncludeExecutionData": true,
            "Destinations": [{ "CloudWatchLogsLogGroup": { "LogGroupArn": att("LogGroup.Arn") } }],
        },
        "TracingConfiguration": { "Enabled": true },
    });
    let about = "From a commit to traffic, with a way back from every step.";
    template.add(Resource::new(
        "Flow",
        "AWS::StepFunctions::StateMachine",
        about,
        properties,
    ));
    let stack = scope.stack(Kind::Flow, name, template)?;
    Ok(stack.of(&app.app, Some(environment)))
}

fn role(template: &mut Template, scope: &Scope<'_>, targets: &[Label]) {
    let about = "The flow: builds, asks, and becomes the release role of each target.";
    let role = duties("FlowRole", about, scope, targets);
    template.add(excused(role.resource(scope.platform(), scope.shared("Boundary"))));
}

/// A role that may do what flows into these targets do.
pub(super) fn duties(id: &str, about: &str, scope: &Scope<'_>, targets: &[Label]) -> Role {
    let pipeline = scope.name();
    let releases = targets.iter().map(|label| {
        let account = scope
            .config
            .foundations
            .get(label)
            .and_then(|target| target.account.as_ref());
        let account = account.map_or("${AWS::AccountId}", |account| account.as_str());
        sub(format!(
            "arn:${{AWS::Partition}}:iam::{account}:role/{platform}/{platform}-{label}-release",
            platform = scope.platform()
        ))
    });
    Role::of_service(id, about, "states.amazonaws.com")
        .path("flow/")
        .grants(building(&PROJECTS.map(|word| format!("{pipeline}-{word}"))))
        .grants(sources(scope))
        .grant(grant(
            "TakeTurns",
            "Two releases never move one environment at the same time, and none goes over one that began later",
            "dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem",
            [arn("dynamodb", &format!("table/{pipeline}"))],
        ))
        .grant(grant(
            "Become",
            "What is done in a target is done as its release role",
            "sts:AssumeRole",
            releases,
        ))
        .grant(grant(
            "Tell",
            "People are asked, and hear how it ended",
            "sns:Publish",
            [scope.shared("BuildsTopic"), scope.shared("OperationsTopic")],
        ))
        .grant(grant(
            "Encrypt",
            "State, table and topics are encrypted",
            "kms:Decrypt kms:GenerateDataKey",
            [scope.shared("KeyArn")],
        ))
        .grants(watching())
}

/// What every state machine may: write its log, and say where time was spent.
pub(super) fn watching() -> Vec<Grant> {
    vec![
        grant(
            "Log",
            "Step Functions asks for the delivery of its log; these calls know no single resources",
            "logs:CreateLogDelivery logs:DeleteLogDelivery logs:DescribeLogGroups logs:DescribeResourcePolicies logs:GetLogDelivery \
             logs:ListLogDeliveries logs:PutResourcePolicy logs:UpdateLogDelivery",
            [json!("*")],
        ),
        grant(
            "Trace",
            "Where an execution spent its time; traces know no single resources",
            "xray:GetSamplingRules xray:GetSamplingTargets xray:PutTelemetryRecords xray:PutTraceSegments",
            [json!("*")],
        ),
    ]
}

/// What checkov asks of each of them.
pub(super) fn excused(role: Resource) -> Resource {
    role.skip("CKV_AWS_111", "The delivery of logs knows no single resources.")
        .skip("CKV_AWS_107", "The delivery of logs knows no single resources.")
}

/// Where the source is put by whoever pushes, the flow waits until it is there.
fn sources(scope: &Scope<'_>) -> Vec<Grant> {
    if scope.options.repository.is_some() {
        return Vec::new();
    }
    let path = format!("source/{}/*", scope.app.app);
    let bucket = format!(
        "arn:${{AWS::Partition}}:s3:::{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}",
        scope.platform(),
        scope.label
    );
    vec![
        grant(
            "SeeSource",
            "Is the source of the commit there?",
            "s3:GetObject",
            [scope.objects(&path)],
        ),
        grant(
            "MissSource",
            "S3 says that something is not there to who may list the bucket only, and asking for one object has no prefix",
            "s3:ListBucket",
            [sub(bucket)],
        ),
    ]
}

/// Builds of these projects. Each is named: whoever starts one may say what it runs, with that project's role.
pub(super) fn building(projects: &[String]) -> Vec<Grant> {
    let projects = projects
        .iter()
        .map(|name| arn("codebuild", &format!("project/{name}")));
    vec![
        grant(
            "Build",
            "Its builds; a machine that is stopped stops them",
            "codebuild:BatchGetBuilds codebuild:StartBuild codebuild:StopBuild",
            projects,
        ),
        grant(
            "HearOfBuilds",
            "Step Functions hears of the end of a build by a rule of its own",
            "events:DescribeRule events:PutRule events:PutTargets",
            [arn(
                "events",
                "rule/StepFunctionsGetEventForCodeBuildStartBuildRule",
            )],
        ),
    ]
}
