//! The boundary, judged as IAM does.

use aws::synth::{Config, Priorities, all};
use model::spec;

use crate::{
    iam::{Keys, Request, Verdict, judge},
    template,
};

#[test]
fn what_the_boundary_denies_stays_denied() {
    let boundary = &template("vend-production")
        .resource("Boundary")
        .unwrap()
        .properties["PolicyDocument"];
    let own = "arn:aws:iam::111111111111:policy/vend/vend-production-boundary";
    let inside: &[(&str, &str)] = &[("iam:PermissionsBoundary", own)];
    let other: &[(&str, &str)] = &[(
        "iam:PermissionsBoundary",
        "arn:aws:iam::aws:policy/AdministratorAccess",
    )];
    let role = "arn:aws:iam::111111111111:role/vend/host/x";
    let foreign = "arn:aws:iam::111111111111:role/admin";
    let release = "arn:aws:iam::222222222222:role/vend/vend-other-release";
    let any = "arn:aws:s3:::a";
    let theirs = "arn:aws:iam::111111111111:policy/administrators";
    let user = "arn:aws:iam::111111111111:user/x";
    let (allowed, silent, denied) = (Verdict::Allowed, Verdict::Silent, Verdict::Denied);
    let cases: [(&str, &str, Keys<'_>, Verdict); 54] = [
        ("iam:CreateRole", role, inside, allowed),
        ("iam:CreateRole", role, &[], denied),
        ("iam:CreateRole", role, other, denied),
        ("IAM:createrole", role, &[], denied),
        ("iam:CreateUser", "arn:aws:iam::111111111111:user/x", &[], denied),
        ("iam:PutRolePolicy", role, &[], denied),
        ("iam:PutRolePolicy", foreign, other, denied),
        ("iam:AttachRolePolicy", foreign, &[], denied),
        ("iam:PutRolePermissionsBoundary", role, other, denied),
        ("iam:DeleteRolePermissionsBoundary", role, inside, denied),
        // Whose boundary is put there first could be changed, and lent, afterwards.
        ("iam:PutRolePermissionsBoundary", foreign, inside, denied),
        ("iam:PutRolePolicy", foreign, inside, denied),
        ("iam:AttachRolePolicy", foreign, inside, denied),
        ("iam:CreateRole", foreign, inside, denied),
        ("iam:TagRole", foreign, inside, denied),
        ("iam:TagRole", role, &[], allowed),
        // A role that is lent to its whole account is lent to nobody inside.
        ("sts:AssumeRole", foreign, &[], denied),
        (
            "sts:AssumeRole",
            "arn:aws:iam::222222222222:role/admin",
            &[],
            denied,
        ),
        ("sts:AssumeRole", release, &[], allowed),
        ("iam:ResetServiceSpecificCredential", user, &[], silent),
        ("iam:UploadSSHPublicKey", user, &[], silent),
        ("iam:AddClientIDToOpenIDConnectProvider", "*", &[], silent),
        ("iam:CreateUser", user, inside, silent),
        ("kms:PutKeyPolicy", "*", &[], denied),
        ("s3:PutBucketPolicy", any, &[], denied),
        ("s3:PutBucketAcl", any, &[], denied),
        ("s3:DeleteBucketPolicy", any, &[], denied),
        ("secretsmanager:PutResourcePolicy", "*", &[], denied),
        ("iam:PassRole", role, &[], allowed),
        ("iam:PassRole", foreign, &[], denied),
        ("iam:UpdateAssumeRolePolicy", foreign, &[], denied),
        (
            "iam:CreateAccessKey",
            "arn:aws:iam::111111111111:user/x",
            &[],
            denied,
        ),
        ("iam:CreateSAMLProvider", "*", &[], denied),
        ("iam:CreatePolicyVersion", own, &[], denied),
        ("iam:SetDefaultPolicyVersion", own, &[], denied),
        ("iam:DeletePolicy", own, &[], denied),
        // Whoever may write another version of an administrator's policy, or lend a key of theirs, is one.
        ("iam:CreatePolicy", theirs, &[], denied),
        ("iam:CreatePolicyVersion", theirs, &[], denied),
        ("iam:SetDefaultPolicyVersion", theirs, &[], denied),
        ("iam:DeletePolicyVersion", theirs, &[], denied),
        ("iam:DeletePolicy", theirs, &[], denied),
        ("iam:DetachUserPolicy", user, &[], denied),
        ("iam:DeleteUserPolicy", user, &[], denied),
        ("iam:DeleteUser", user, &[], denied),
        (
            "iam:DetachGroupPolicy",
            "arn:aws:iam::111111111111:group/x",
            &[],
            denied,
        ),
        ("iam:CreateServiceSpecificCredential", user, &[], denied),
        ("iam:UpdateAccessKey", user, &[], denied),
        ("iam:DeactivateMFADevice", user, &[], denied),
        ("cloudtrail:StopLogging", "*", &[], denied),
        ("kms:ScheduleKeyDeletion", "*", &[], denied),
        ("s3:PutBucketPublicAccessBlock", any, &[], denied),
        ("organizations:LeaveOrganization", "*", &[], denied),
        ("s3:GetObject", any, &[], allowed),
        ("budgets:ModifyBudget", "*", &[], silent),
    ];
    for (action, resource, keys, wanted) in cases {
        let request = Request {
            action,
            resource,
            keys,
        };
        assert_eq!(
            judge(boundary, &request),
            wanted,
            "{action} on {resource} with {keys:?}"
        );
    }
}

/// Policies know what is whose by how a name begins. What stands already goes on, so each is made, and says why it is refused to
/// what is new.
#[test]
fn nobody_is_called_so_that_another_reaches_what_is_theirs() {
    let refused = |foundations: &str, environment: &str| {
        let config: Config = toml::from_str(foundations).unwrap();
        let yaml = format!("app: shop\nenvironments: {{ {environment}: {{}} }}\n");
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let refused = made
            .stacks
            .into_iter()
            .filter_map(|own| Some((own.name, own.refused?)));
        refused.collect::<Vec<(String, String)>>()
    };
    let names = |foundations: &str| -> Vec<String> {
        let all = refused(foundations, "live").into_iter();
        all.inspect(|(_, why)| {
            assert!(
                why.contains("the roles of `production` would reach them"),
                "{why}"
            )
        })
        .map(|(name, _)| name)
        .collect()
    };
    let one = |label: &str, more: &str| {
        format!(
            "[foundations.{label}]\ndomain = 'a.example.com'\nnetwork = {{ cidr = '10.7.0.0/16' }}\n{more}\n"
        )
    };
    let here = "region = 'eu-central-1'";
    let production = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\naccount = '111111111111'\n\
                      [apps.shop]\npipeline = 'production'\n[apps.shop.environments.live]\nfoundation = 'production'\n";
    for (label, more, is_refused) in [
        ("production-eu", here, true),
        (
            "production-eu",
            "region = 'eu-central-1'\naccount = '111111111111'",
            true,
        ),
        (
            "production-eu",
            "region = 'eu-central-1'\naccount = '222222222222'",
            false,
        ),
        // Roles are of no region.
        ("production-eu", "region = 'eu-west-1'", true),
        ("productioneu", here, false),
    ] {
        // Either may be the one that is new.
        let both = ["vend-production", "vend-production-eu"];
        let wanted = if is_refused { &both[..] } else { &[] };
        assert_eq!(
            names(&format!("{}{production}", one(label, more))),
            wanted,
            "{label} {more}"
        );
    }
    let flow = refused(&one("flow-x", here), "live");
    assert!(flow[0].0 == "vend-flow-x" && flow[0].1.contains("stacks of pipelines are called so"));
    // What builds read lies beside what environments read.
    let build = refused(&one("own", here), "build");
    assert!(build[0].0 == "vend-own-shop-build" && build[0].1.contains("the app's builds read"));
    assert_eq!((flow.len(), build.len()), (1, 1));
    assert_eq!(refused(&one("own", here), "builds"), []);
}
