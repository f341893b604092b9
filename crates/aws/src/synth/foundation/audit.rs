//! The trail of the account: every call, in files whose chain of digests shows what was taken out.

use serde_json::json;

use super::Scope;
use crate::synth::{
    policy::{Role, grant},
    template::{Resource, Template, att, re},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    if !scope.options.trail {
        return;
    }
    template.add(scope.log_group("TrailLogGroup", "The trail, to be searched.", "trail"));
    let write = grant(
        "WriteTrail",
        "The trail's events go into its log group",
        "logs:CreateLogStream logs:PutLogEvents",
        [att("TrailLogGroup.Arn")],
    );
    let role = Role::of_silent_service(
        "TrailRole",
        "Writes the trail into its log group.",
        "cloudtrail.amazonaws.com",
    )
    .grant(write);
    template.add(role.resource(scope.platform, re("Boundary")));
    let properties = json!({
        "TrailName": scope.name(),
        "S3BucketName": re("LogsBucket"),
        "S3KeyPrefix": "trail",
        "KMSKeyId": att("Key.Arn"),
        "CloudWatchLogsLogGroupArn": att("TrailLogGroup.Arn"),
        "CloudWatchLogsRoleArn": att("TrailRole.Arn"),
        "EnableLogFileValidation": true,
        "IncludeGlobalServiceEvents": true,
        "IsMultiRegionTrail": true,
        "IsLogging": true,
    });
    let about = "Every call in every region of the account, by whom and from where.";
    let trail = Resource::new("Trail", "AWS::CloudTrail::Trail", about, properties)
        .skip(
            "CKV_AWS_252",
            "A topic would tell of each file every five minutes; what matters raises an alarm of its own.",
        )
        .after("LogsBucketPolicy");
    template.add(trail);
}
