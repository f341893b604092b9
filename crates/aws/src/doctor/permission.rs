//! May the caller do all that the commands do?

use super::{Check, Verdict};
use crate::{
    call,
    client::{Error, Form, Node},
    permit,
    site::{Caller, Site},
    synth::Template,
};

/// Actions in one simulation.
const BATCH: usize = 50;

/// Has IAM simulate every action that the commands need.
pub(super) async fn permissions(site: &Site, caller: &Caller, templates: &[&Template]) -> Check {
    const WHAT: &str = "permissions";
    let Some(principal) = principal(&caller.arn) else {
        return Check::new(
            WHAT,
            Verdict::Good,
            "the account's root user may do everything; use a role instead",
        );
    };
    let (principal, doubt) = match role(&caller.arn) {
        Some(name) => with_path(site, name, principal).await,
        None => (principal, String::new()),
    };
    let actions: Vec<String> = permit::actions(templates.iter().copied()).into_iter().collect();
    let (mut denied, mut open) = (Vec::new(), Vec::new());
    for some in actions.chunks(BATCH) {
        let mut form = Form::default();
        form.add("PolicySourceArn", &principal);
        form.list("ActionNames.member", some.iter().map(String::as_str));
        let answers = match simulated(site, &form).await {
            Ok(answers) => answers,
            Err(error) => return Check::new(WHAT, Verdict::Unknown, format!("{error}{doubt}")),
        };
        for answer in &answers {
            let (own, rest) = refused(answer);
            denied.extend(own);
            open.extend(rest);
        }
    }
    match (denied.as_slice(), open.as_slice()) {
        ([], []) => Check::new(
            WHAT,
            Verdict::Good,
            format!("all {} actions are allowed", actions.len()),
        ),
        ([], open) => Check::new(
            WHAT,
            Verdict::Unknown,
            format!(
                "{principal} may not do these with all that there is, and whether with what is the platform's was not asked: {}",
                open.join(", ")
            ),
        ),
        (denied, _) => Check::new(
            WHAT,
            Verdict::Bad,
            format!("{principal} may not {}", denied.join(", ")),
        ),
    }
}

/// All pages of a simulation: IAM may say less on one than it was asked for.
async fn simulated(site: &Site, form: &Form) -> Result<Vec<Node>, Error> {
    let (mut pages, mut marker) = (Vec::new(), None);
    loop {
        let mut form = form.clone();
        form.maybe("Marker", marker.as_deref());
        let page = site.client.query(&call::SIMULATE, form).await?;
        marker = page.maybe("Marker");
        pages.push(page);
        if marker.is_none() {
            return Ok(pages);
        }
    }
}

/// What is refused, and what is not allowed with everything. The simulation is asked for all resources: who is allowed an action with
/// some, such as roles below the platform's path, is not told apart from who is not allowed it at all.
fn refused(answer: &Node) -> (Vec<String>, Vec<String>) {
    let all = answer.list("EvaluationResults");
    let refused = all.filter(|result| result.text("EvalDecision") != "allowed");
    let is_open = |result: &&Node| {
        result.text("EvalDecision") == "implicitDeny" && permit::is_scoped(result.text("EvalActionName"))
    };
    let (open, denied): (Vec<&Node>, Vec<&Node>) = refused.partition(is_open);
    let names = |all: Vec<&Node>| -> Vec<String> {
        let names = all
            .into_iter()
            .map(|result| result.text("EvalActionName").to_owned());
        names.collect()
    };
    (names(denied), names(open))
}

/// Whose policies are simulated: a session's are its role's. None for the root user.
fn principal(arn: &str) -> Option<String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, partition, _, _, account, rest] = parts.as_slice() else {
        return Some(arn.to_owned());
    };
    if *rest == "root" {
        return None;
    }
    match role(arn) {
        Some(role) => Some(format!("arn:{partition}:iam::{account}:role/{role}")),
        None => Some(arn.to_owned()),
    }
}

/// The name of a session's role.
fn role(arn: &str) -> Option<&str> {
    let session = arn.splitn(6, ':').nth(5)?.strip_prefix("assumed-role/")?;
    session.split('/').next()
}

/// The ARN of a role, whose path no session tells: those of Identity Center have one. Where it is not to be had, that without a
/// path, and what to say when there is no such role.
async fn with_path(site: &Site, name: &str, pathless: String) -> (String, String) {
    let mut form = Form::default();
    form.add("RoleName", name);
    let why = match site.client.query(&call::ROLE, form).await {
        Ok(answer) => match answer.get("Role").and_then(|role| role.maybe("Arn")) {
            Some(arn) => return (arn, String::new()),
            None => "iam:GetRole does not say it".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    let doubt = format!("; asked was for {pathless}, because the role's path is not known: {why}");
    (pathless, doubt)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Client, fixtures};

    #[test]
    fn sessions_are_simulated_as_their_role() {
        let role = principal("arn:aws:sts::123456789012:assumed-role/ops/me");
        assert_eq!(role.as_deref(), Some("arn:aws:iam::123456789012:role/ops"));
        let user = "arn:aws:iam::123456789012:user/path/me";
        assert_eq!(principal(user).as_deref(), Some(user));
        assert_eq!(principal("arn:aws:iam::123456789012:root"), None);
    }

    /// Who calls is a session of Identity Center; IAM knows its role by its path only.
    #[tokio::test]
    async fn a_role_with_a_path_is_simulated_as_what_it_is() {
        const PATH: &str =
            "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_ops_0";
        fn simulated(asked: &str, before: &[String]) -> String {
            let has_path = before
                .iter()
                .any(|own| own.contains("RoleName=AWSReservedSSO_ops_0"));
            match asked {
                "GetRole" => {
                    format!("<Role><Path>/aws-reserved/sso.amazonaws.com/</Path><Arn>{PATH}</Arn></Role>")
                }
                "SimulatePrincipalPolicy" if has_path => "<EvaluationResults/>".to_owned(),
                _ => String::new(),
            }
        }
        fn denied(asked: &str, _: &[String]) -> String {
            match asked {
                "GetRole" => "<Error><Code>AccessDenied</Code><Message>not to be asked</Message></Error>",
                _ => "<Error><Code>NoSuchEntity</Code><Message>no such role</Message></Error>",
            }
            .to_owned()
        }
        let arn = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_ops_0/me@example.com";
        let checked = async |answer, arn: &str| {
            let (address, asked) = fixtures::service(answer);
            let site = Site::new(Client::at(address));
            let caller = Caller {
                account: "123456789012".to_owned(),
                arn: arn.to_owned(),
            };
            let check = permissions(&site, &caller, &[]).await;
            let asked = asked.lock().unwrap().clone();
            (check, asked)
        };
        let sources = |asked: &[String]| -> BTreeSet<String> {
            let parts = asked.iter().flat_map(|own| own.split('&'));
            let own = parts.filter_map(|part| part.strip_prefix("PolicySourceArn="));
            own.map(|own| own.replace("%3A", ":").replace("%2F", "/"))
                .collect()
        };
        let (check, asked) = checked(simulated, arn).await;
        assert_eq!(check.verdict, Verdict::Good, "{check:?}");
        assert_eq!(sources(&asked), BTreeSet::from([PATH.to_owned()]));
        // Who may not ask for the role gets what could be asked before, and hears why it says nothing.
        let (check, asked) = checked(denied, arn).await;
        assert_eq!(check.verdict, Verdict::Unknown);
        assert!(
            check.said.contains("the role's path is not known") && check.said.contains("not to be asked"),
            "{}",
            check.said
        );
        assert_eq!(
            sources(&asked),
            BTreeSet::from(["arn:aws:iam::123456789012:role/AWSReservedSSO_ops_0".to_owned()])
        );
        // A user's ARN has its path.
        let (_, asked) = checked(simulated, "arn:aws:iam::123456789012:user/path/me").await;
        assert!(
            asked.iter().all(|own| fixtures::action(own) != "GetRole"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_refusal_on_the_second_page_counts() {
        fn simulated(_: &str, before: &[String]) -> String {
            match before.len() {
                0 => "<EvaluationResults/><IsTruncated>true</IsTruncated><Marker>more</Marker>",
                1 => {
                    "<EvaluationResults><member><EvalActionName>ec2:CreateVpc</EvalActionName>\
                     <EvalDecision>explicitDeny</EvalDecision></member></EvaluationResults>"
                }
                _ => "<EvaluationResults/>",
            }
            .to_owned()
        }
        let (address, asked) = fixtures::service(simulated);
        let caller = Caller {
            account: "123456789012".to_owned(),
            arn: "arn:aws:iam::123456789012:user/me".to_owned(),
        };
        let check = permissions(&Site::new(Client::at(address)), &caller, &[]).await;
        assert_eq!(check.verdict, Verdict::Bad, "{check:?}");
        assert!(check.said.contains("ec2:CreateVpc"), "{}", check.said);
        let asked = asked.lock().unwrap();
        assert!(
            asked[1].contains("Marker=more") && !asked[0].contains("Marker"),
            "{asked:?}"
        );
    }

    /// The shape of a simulation's answer as AWS gives it: moto has none.
    #[test]
    fn what_is_denied_is_named() {
        let answer = Node::parse(
            b"<R><EvaluationResults><member><EvalActionName>ec2:CreateVpc</EvalActionName><EvalDecision>explicitDeny\
              </EvalDecision></member><member><EvalActionName>kms:CreateKey</EvalActionName><EvalDecision>allowed</EvalDecision>\
              </member><member><EvalActionName>iam:CreateRole</EvalActionName><EvalDecision>implicitDeny</EvalDecision></member>\
              <member><EvalActionName>ec2:DescribeVpcs</EvalActionName><EvalDecision>implicitDeny</EvalDecision></member>\
              </EvaluationResults></R>",
        );
        // A policy may allow making roles below a path; what is asked for all there are it allows or not.
        let (denied, open) = refused(&answer.unwrap());
        assert_eq!(denied, ["ec2:CreateVpc", "ec2:DescribeVpcs"]);
        assert_eq!(open, ["iam:CreateRole"]);
    }
}
