//! The page of what is ejected: what somebody without Vend types each day, with AWS's own command line.

use ::aws::{
    Client,
    synth::{Kind, Resource, Stack},
};
use serde_json::Value;

use crate::cli::aws::project::Loaded;

const HEAD: &str = "# Without Vend

These are the templates, state machines and Packer files as the files of the app say them now; what was applied before may differ (`vend
aws plan` says how). `sh apply.sh` makes the stacks in their order with AWS's own command line, and changes nothing where they are as
these templates. For a foundation that is not there yet, name any bucket of yours for its template: `BUCKET=my-bucket sh apply.sh`.

A release is started by Step Functions and needs nothing of Vend: the flow is `flows/*.asl.json`, the buildspecs, appspecs and
scripts are the app's own. The output `Vend` of each stack may be taken away.

Replace words in capitals. `ACCOUNT` below is set by `ACCOUNT=$(aws sts get-caller-identity --query Account --output text)`; with several
accounts, add `--profile NAME`.
";

pub fn page(loaded: &Loaded) -> String {
    let mut text = HEAD.to_owned();
    let stacks = || loaded.made.stacks.iter();
    let pipeline = stacks().find(|stack| stack.kind == Kind::Pipeline);
    if let Some(pipeline) = pipeline {
        text.push_str(&source(loaded, pipeline));
    }
    for flow in stacks().filter(|stack| stack.kind == Kind::Flow) {
        text.push_str(&release(loaded, flow));
        let of_flow =
            |stack: &&Stack| stack.kind == Kind::Environment && stack.environment == flow.environment;
        for stack in stacks().filter(of_flow) {
            text.push_str(&environment(loaded, stack));
        }
    }
    text.push_str(&end(loaded));
    text.push_str("\n## The stacks\n\n| stack | kind | region |\n|---|---|---|\n");
    for stack in stacks() {
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            stack.name,
            stack.kind.word(),
            stack.region
        ));
    }
    text
}

fn client<'l>(loaded: &'l Loaded, stack: &Stack) -> &'l Client {
    &loaded.site(stack.foundation.as_str()).client
}

/// What a release is of.
fn source(loaded: &Loaded, pipeline: &Stack) -> String {
    let (platform, label, region, app) = (
        loaded.platform(),
        &pipeline.foundation,
        &pipeline.region,
        loaded.app(),
    );
    let options = pipeline.app.as_ref().and_then(|app| loaded.config.apps.get(app));
    if options.is_some_and(|own| own.repository.is_some()) {
        return "\n## Source\n\nCodeBuild fetches the commit from the repository itself.\n".to_owned();
    }
    format!(
        "\n## Source\n\nBuilds look for a commit here:\n\n```sh\ncommit=$(git rev-parse HEAD)\ngit archive --format=zip --output source.zip \
         \"$commit\"\naws s3 cp --region {region} source.zip \\\n  \"s3://{platform}-{label}-artifacts-$ACCOUNT-{region}/source/{app}/$commit.zip\"\n```\n"
    )
}

/// Starting a release, answering its question, and going back.
fn release(loaded: &Loaded, flow: &Stack) -> String {
    let mut machines = flow.template.of("AWS::StepFunctions::StateMachine");
    let machine = machines.find_map(|own| own.properties["StateMachineName"].as_str());
    let (Some(machine), Some(environment)) = (machine, &flow.environment) else {
        return String::new();
    };
    let (region, app) = (&flow.region, loaded.app());
    let arn = format!(
        "arn:{}:states:{region}:$ACCOUNT:stateMachine:{machine}",
        client(loaded, flow).partition()
    );
    let mut text = format!(
        "\n## {environment}: release, approve, go back\n\n```sh\ncommit=$(git rev-parse HEAD)\naws stepfunctions start-execution --region {region} \\\n  --state-machine-arn \
         \"{arn}\" \\\n  --input \"{{\\\"app\\\":\\\"{app}\\\",\\\"branch\\\":\\\"BRANCH\\\",\\\"commit\\\":\\\"$commit\\\",\\\"author\\\":\\\"NAME\\\",\\\"message\\\":\\\"WHY\\\",\\\"sender\\\":\\\"NAME\\\"}}\"\n\
         aws stepfunctions list-executions --region {region} --state-machine-arn \"{arn}\"\n```\n\n\
         To go back is to release an earlier commit the same way; while its half still runs, turning the traffic is quicker (below).\n"
    );
    if flow.template.json().contains("waitForTaskToken") {
        text.push_str(&format!(
            "\nPeople are asked by a mail that holds the token; the execution's history (`aws stepfunctions get-execution-history`) has it too:\n\n\
             ```sh\naws stepfunctions send-task-success --region {region} --task-output '{{\"by\":\"YOUR-ARN\"}}' --task-token TOKEN\n\
             aws stepfunctions send-task-failure --region {region} --error Vend.Refused --cause 'WHY' --task-token TOKEN\n```\n"
        ));
    }
    text
}

/// Logs, secrets, and the traffic of one environment's stack.
fn environment(loaded: &Loaded, stack: &Stack) -> String {
    let Some(environment) = &stack.environment else {
        return String::new();
    };
    let (platform, label, region) = (loaded.platform(), &stack.foundation, &stack.region);
    let path = format!("{platform}/{label}/{}/{environment}", loaded.app());
    let mut text = format!(
        "\nOf `{}`:\n\n```sh\naws logs tail --region {region} /{path} --follow\naws secretsmanager create-secret --region {region} --name {path}/SECRET \\\n  \
         --kms-key-id alias/{platform}-{label} --secret-string file://VALUE\naws secretsmanager put-secret-value --region {region} --secret-id {path}/SECRET --secret-string file://VALUE\n",
        stack.name
    );
    if let Some(turn) = turned(loaded, stack) {
        text.push_str(&turn);
    }
    text.push_str("```\n");
    text
}

/// The command that gives all of the traffic to the blue half; None: there is one half only.
fn turned(loaded: &Loaded, stack: &Stack) -> Option<String> {
    let parameters = &stack.template.parameters;
    parameters.iter().find(|(id, _)| id == "BlueWeight")?;
    let each = parameters.iter().map(|(id, _)| match id.as_str() {
        "BlueWeight" => format!(" \\\n  ParameterKey={id},ParameterValue=100"),
        "GreenWeight" => format!(" \\\n  ParameterKey={id},ParameterValue=0"),
        _ => format!(" \\\n  ParameterKey={id},UsePreviousValue=true"),
    });
    let each: String = each.collect();
    let (platform, label) = (loaded.platform(), &stack.foundation);
    let role = format!(
        "arn:{}:iam::$ACCOUNT:role/{platform}/{platform}-{label}-stacks",
        client(loaded, stack).partition()
    );
    Some(format!(
        "# All of the traffic to blue, which must run (BlueRuns) and be healthy; the other way round for green.\n\
         aws cloudformation update-stack --region {} --stack-name {} --use-previous-template \\\n  --capabilities CAPABILITY_NAMED_IAM \
         --role-arn \"{role}\" --parameters{each}\n",
        stack.region, stack.name
    ))
}

/// The way to nothing, and what is left then.
fn end(loaded: &Loaded) -> String {
    let mut text =
        String::from("\n## Back to nothing\n\nIn this order; protected things are let go first.\n\n```sh\n");
    for stack in loaded.made.stacks.iter().rev() {
        let (name, region) = (&stack.name, &stack.region);
        let guarded: Vec<String> = stack
            .template
            .resources
            .iter()
            .filter_map(|own| let_go(stack, own))
            .collect();
        if !guarded.is_empty() {
            text.push_str(&guarded.concat());
            text.push_str(&format!(
                "aws cloudformation update-termination-protection --region {region} --stack-name {name} --no-enable-termination-protection\n"
            ));
        }
        text.push_str(&format!(
            "aws cloudformation delete-stack --region {region} --stack-name {name}\n\
             aws cloudformation wait stack-delete-complete --region {region} --stack-name {name}\n"
        ));
    }
    text.push_str("```\n\nThis stays, with what is in it, until somebody deletes it (a bucket with all its versions, the key last):\n\n");
    for stack in &loaded.made.stacks {
        for own in &stack.template.resources {
            let kept = match own.body()["DeletionPolicy"].as_str() {
                Some("Snapshot") => "a last snapshot",
                Some(policy) if policy.starts_with("Retain") => "all of it",
                _ => continue,
            };
            text.push_str(&format!(
                "- `{}` of `{}` ({}): {kept}{}\n",
                own.id,
                stack.name,
                own.kind,
                named(own)
            ));
        }
    }
    text.push_str("- images of bakes, with their disks' snapshots; secrets that were set\n");
    text
}

/// The name that a template gives.
fn named(own: &Resource) -> String {
    let names = ["BucketName", "TableName", "RepositoryName"].iter();
    let mut names = names.map(|key| &own.properties[*key]);
    let text = |value: &Value| Some(value.as_str().or(value["Fn::Sub"].as_str())?.to_owned());
    names
        .find_map(text)
        .map_or_else(String::new, |name| format!(", `{name}`"))
}

/// What lets a resource be deleted that refuses it.
fn let_go(stack: &Stack, own: &Resource) -> Option<String> {
    let region = &stack.region;
    let id = format!(
        "$(aws cloudformation describe-stack-resource --region {region} --stack-name {} \\\n  --logical-resource-id {} \
         --query StackResourceDetail.PhysicalResourceId --output text)",
        stack.name, own.id
    );
    let what = match own.kind {
        "AWS::RDS::DBCluster" => "cluster",
        "AWS::RDS::DBInstance" => "instance",
        _ => "",
    };
    stack.template.guards(&own.id).then(|| match what {
        "" => format!(
            "aws elbv2 modify-load-balancer-attributes --region {region} --attributes Key=deletion_protection.enabled,Value=false \\\n  \
             --load-balancer-arn \"{id}\"\n"
        ),
        what => format!(
            "aws rds modify-db-{what} --region {region} --no-deletion-protection --apply-immediately \\\n  --db-{what}-identifier \"{id}\"\n"
        ),
    })
}
