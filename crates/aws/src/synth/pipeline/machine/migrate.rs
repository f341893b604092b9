//! The migration of a release: a script of its revision, once, on one of the new hosts, before any of them is served.

use serde_json::json;

use super::{
    Whole, call,
    target::{Look, Target},
};

/// How long Systems Manager tries to reach the host.
pub const REACH_S: i64 = 600;
/// How much of what the script says about its failure is told.
const SAID: usize = 400;

/// The states from `Migrate` to `next`; none where nothing is to be migrated.
pub(super) fn add(target: &mut Target, whole: &Whole<'_>, next: &str) {
    let Some(migrate) = &whole.deploy.migrate else {
        return;
    };
    let seconds = migrate.timeout.as_secs().max(1);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''")).replace("${", "${!");
    let (script, bucket) = (quoted(&format!("./{}", migrate.script)), whole.bucket());
    let as_user = match &migrate.runas {
        Some(user) => format!("chown -R {user}: . && runuser -u {user} -- {script}"),
        None => script.clone(),
    };
    let commands = json!([
        "set -eu",
        "umask 022",
        "set -a; if [ -f /etc/vend/environment ]; then . /etc/vend/environment; fi; set +a",
        "dir=$(mktemp -d /var/tmp/vend-migrate.XXXXXX)",
        "trap 'rm -rf \"$dir\"' EXIT",
        "chmod 0755 \"$dir\"",
        format!(
            "{{% 'aws s3 cp --only-show-errors s3://{bucket}/' & $revision & ' \"$dir\"/revision.zip' %}}"
        ),
        "unzip -q \"$dir\"/revision.zip -d \"$dir\"/revision",
        "cd \"$dir\"/revision",
        format!("chmod +x {script}"),
        as_user,
    ]);
    let mut send = json!({
        "Type": "Task",
        "Comment": "Once: without an answer nobody knows how far it came, so it is not tried again.",
        "Resource": call("aws-sdk:ssm:sendCommand"),
        "Credentials": { "RoleArn": "{% $target.role %}" },
        "Arguments": {
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": ["{% $host %}"],
            "Comment": "The migration of a release",
            "TimeoutSeconds": REACH_S,
            "Parameters": { "commands": commands, "executionTimeout": [seconds.to_string()] },
        },
        "TimeoutSeconds": 120,
        "Assign": { "command": "{% $states.result.Command.CommandId %}" },
        "Next": "MigratingBegins",
    });
    send["Catch"] = target.catch();
    target.add("Migrate", send);
    // The command is not known everywhere in the first moment.
    target.add(
        "MigratingBegins",
        json!({ "Type": "Wait", "Seconds": 5, "Next": "Migrating" }),
    );
    let cause =
        format!("{{% 'the migration on ' & $host & ' is ' & $state & ': ' & $substring($why, 0, {SAID}) %}}");
    let look = Look {
        what: "ssm:getCommandInvocation",
        arguments: json!({ "CommandId": "{% $command %}", "InstanceId": "{% $host %}" }),
        assign: json!({
            "state": "{% $states.result.Status %}",
            "why": "{% ($why := $states.result.StandardErrorContent; $exists($why) and $why != '' ? $why : 'it says no more') %}",
        }),
        good: "$state = 'Success'",
        bad: Some("$state in ['Failed', 'TimedOut', 'Cancelled', 'Cancelling']"),
        minutes: (seconds + REACH_S) / 60 + 2,
        error: "Vend.Migration",
        cause: &cause,
    };
    target.until("Migrating", look, next);
}
