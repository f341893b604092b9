//! The migration of a release: a script of its revision, once, on one of the new hosts, before any of them is served.

use serde_json::json;

use super::{
    Whole, call,
    target::{Look, Target},
};

/// How long Systems Manager tries to reach the host.
const REACH_S: i64 = 600;
/// How long the first start of a host, which begins before Systems Manager knows it, is waited for: first by the flow, and
/// then by the command, whose script needs the variables that the start writes.
const START_S: i64 = 600;
/// Seconds that may go by before a migration runs.
pub const LEAD_S: i64 = REACH_S + START_S;
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
        Some(user) => format!("chown -R {user}: . && timeout {seconds} runuser -u {user} -- {script}"),
        None => format!("timeout {seconds} {script}"),
    };
    // Nothing is said by `timeout` itself, and nothing by AWS of what a shell ended.
    let said = format!(
        "{as_user} || {{ code=$?; [ $code -ne 124 ] || echo 'it took longer than {seconds} s' >&2; exit $code; }}"
    );
    let commands = json!([
        "set -eu",
        "umask 022",
        format!(
            "n=0; until [ -e /var/lib/vend/started ]; do n=$((n + 1)); \
             if [ $n -gt {START_S} ]; then echo 'the first start of the host is not over' >&2; exit 1; fi; sleep 1; done"
        ),
        "set -a; . /etc/vend/environment; set +a",
        "dir=$(mktemp -d /var/tmp/vend-migrate.XXXXXX)",
        "trap 'rm -rf \"$dir\"' EXIT",
        "chmod 0755 \"$dir\"",
        format!(
            "{{% 'aws s3 cp --only-show-errors s3://{bucket}/' & $revision & ' \"$dir\"/revision.zip' %}}"
        ),
        "unzip -q \"$dir\"/revision.zip -d \"$dir\"/revision",
        "cd \"$dir\"/revision",
        format!("chmod +x {script}"),
        said,
    ]);
    let mut send = json!({
        "Type": "Task",
        "Comment": "Once: without an answer nobody knows how far it came, so it is not tried again. What was refused was not taken.",
        "Resource": call("aws-sdk:ssm:sendCommand"),
        "Credentials": { "RoleArn": "{% $target.role %}" },
        "Arguments": {
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": ["{% $host %}"],
            "Comment": "The migration of a release",
            "TimeoutSeconds": REACH_S,
            "Parameters": { "commands": commands, "executionTimeout": [(START_S + seconds).to_string()] },
        },
        "TimeoutSeconds": 120,
        // A host is in service as soon as it runs, and known to Systems Manager when its agent does.
        "Retry": [{
            "ErrorEquals": ["Ssm.InvalidInstanceIdException"],
            "IntervalSeconds": 15, "BackoffRate": 1, "MaxAttempts": START_S / 15,
        }],
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
        minutes: (LEAD_S + seconds) / 60 + 2,
        error: "Vend.Migration",
        cause: &cause,
    };
    target.until("Migrating", look, next);
}
