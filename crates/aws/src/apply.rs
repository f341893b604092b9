//! Makes one stack as it shall be. What was begun by somebody who is gone is waited for; what a failed creation left goes
//! first; everything else goes by change set, so that nothing is done that could not have been shown.

use serde::Serialize;

use crate::{
    change::{self, Change, Deed, State},
    client,
    plan::{self, Doing, Wanted, asked, body, dangers, role, ticket},
    protect,
    site::{Found, Site},
    stack::{self, Event, Held, Stack, Status},
    synth::{Kind, MAX_INLINE_BYTES, Template},
    watch::{self, Cause},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("CloudFormation cannot change {stack}: {why}")]
    ChangeSet { stack: String, why: String },
    #[error("{stack} is {}, and can be neither changed nor made", .status.0)]
    Stuck { stack: String, status: Status },
    #[error("{stack} is not there, and is not made: {why}")]
    Refused { stack: String, why: String },
    #[error("{stack} would lose what nobody agreed to lose: {lost}")]
    Loss { stack: String, lost: String },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done,
    Unchanged,
    /// It was rolled back, or waits for somebody to roll it back.
    Failed {
        status: Status,
        cause: Option<Cause>,
    },
}

/// Makes the stack as it shall be. `agreed`: the data that may be lost, by the ids of resources; `start` names this attempt.
pub async fn apply(
    site: &Site,
    wanted: &Wanted,
    found: Option<Found>,
    agreed: &[String],
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let mut found = found;
    if let Some(Found { stack, .. }) = &found
        && stack.status.is_moving()
    {
        let now = begun(site, wanted, stack).await?;
        found = now.filter(|stack| !stack.status.is_gone()).map(Found::from);
    }
    match (plan::doing(wanted, found.as_ref()), found) {
        (Doing::Nothing, _) => unchanged(site, wanted).await,
        (Doing::Change, Some(found)) => update(site, wanted, &found.stack, agreed, tell).await,
        (Doing::CreateAgain, Some(found)) => {
            clear(site, wanted, &found.stack, start, tell).await?;
            create(site, wanted, agreed, start, tell).await
        }
        (Doing::Create, _) => create(site, wanted, agreed, start, tell).await,
        (Doing::Refused { why }, _) => Err(Error::Refused {
            stack: wanted.name.clone(),
            why,
        }),
        (_, found) => Err(Error::Stuck {
            stack: wanted.name.clone(),
            status: found.map_or_else(|| Status("gone".into()), |found| found.stack.status),
        }),
    }
}

/// Waits for what somebody began who is gone. Hosts of containers that leave with it do not hold it up.
async fn begun(site: &Site, wanted: &Wanted, stack: &Stack) -> Result<Option<Stack>, client::Error> {
    let leaves = wanted.template.resource(protect::HOSTS).is_none() || stack.status.is_ending();
    let leaving = match leaves {
        true => stack::resources(&site.client, &stack.id).await?,
        false => Vec::new(),
    };
    protect::release(&site.client, &leaving).await?;
    let (now, _) = protect::wait(&site.client, &stack.id, None, &leaving, &mut |_| {}).await?;
    Ok(now)
}

/// Takes away what a failed creation left.
async fn clear(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<(), Error> {
    let role = role(site, wanted).await?;
    // It was protected when it was begun, and holds nothing, or what could not be rolled back.
    if stack.is_protected {
        stack::protect(&site.client, &stack.name, false).await?;
    }
    let held = stack::resources(&site.client, &stack.id).await?;
    protect::release(&site.client, &held).await?;
    let mark = watch::mark(&site.client, &stack.id).await?;
    stack::delete(
        &site.client,
        &stack.id,
        role.as_deref(),
        &[],
        &token("clear", start),
    )
    .await?;
    let (now, _) = protect::wait(&site.client, &stack.id, mark, &held, tell).await?;
    match now {
        Some(stack) if !stack.status.is_gone() => Err(Error::Stuck {
            stack: stack.name,
            status: stack.status,
        }),
        _ => Ok(()),
    }
}

fn token(what: &str, start: &str) -> String {
    format!(
        "vend-{}",
        &crate::sign::digest(format!("{what}|{start}").as_bytes())[..24]
    )
}

async fn create(
    site: &Site,
    wanted: &Wanted,
    agreed: &[String],
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let is_large = wanted.template.yaml().len() > MAX_INLINE_BYTES;
    if !(is_large && wanted.mark.kind == Kind::Foundation) {
        return begin(site, wanted, &wanted.template, start, tell).await;
    }
    // The bucket that such a template must lie in is the foundation's own: it begins with that.
    let seed = seed(&wanted.template);
    match begin(site, wanted, &seed, start, tell).await? {
        Outcome::Done => {}
        other => return Ok(other),
    }
    match stack::one(&site.client, &wanted.name).await? {
        Some(stack) => update(site, wanted, &stack, agreed, tell).await,
        None => Err(Error::Stuck {
            stack: wanted.name.clone(),
            status: Status("gone".into()),
        }),
    }
}

/// What must be there before a large template can be: the bucket of templates, all that it needs, and its policy.
fn seed(template: &Template) -> Template {
    let mut seed = template.part(&["TemplatesBucket", "TemplatesBucketPolicy", "LogsBucketPolicy"]);
    // Without the mark: it is not what it shall be yet.
    seed.outputs.clear();
    seed
}

async fn begin(
    site: &Site,
    wanted: &Wanted,
    template: &Template,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let body = body(site, wanted, template).await?;
    let role = role(site, wanted).await?;
    let guards = wanted.is_guarded();
    let token = token(&wanted.name, start);
    let what = (&body, wanted.tags.as_slice());
    stack::create(&site.client, &wanted.name, what, role.as_deref(), guards, &token).await?;
    settle(site, wanted, None, &[], tell).await
}

async fn update(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    agreed: &[String],
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let ticket = ticket(wanted, &stack.at);
    let changes = match asked(site, wanted, stack).await? {
        State::Ready(changes) => changes,
        State::Empty | State::Making => {
            change::forget(&site.client, &wanted.name, &ticket).await?;
            return unchanged(site, wanted).await;
        }
        State::Failed(why) => {
            change::forget(&site.client, &wanted.name, &ticket).await?;
            let stack = wanted.name.clone();
            return Err(Error::ChangeSet { stack, why });
        }
    };
    let lost: Vec<&Change> = dangers(&changes)
        .filter(|change| !agreed.contains(&change.id))
        .collect();
    if !lost.is_empty() {
        change::forget(&site.client, &wanted.name, &ticket).await?;
        let said = |change: &&Change| {
            let first = change
                .first()
                .map(|first| format!(": {first}"))
                .unwrap_or_default();
            format!("{} ({}){first}", change.id, change.kind)
        };
        let lost: Vec<String> = lost.iter().map(said).collect();
        return Err(Error::Loss {
            stack: wanted.name.clone(),
            lost: lost.join(", "),
        });
    }
    let leaving = leaving(site, wanted, &changes).await?;
    // First: who may not do that would change a stack that then waits for ever.
    protect::release(&site.client, &leaving).await?;
    let mark = watch::mark(&site.client, &wanted.name).await?;
    change::execute(&site.client, &wanted.name, &ticket).await?;
    let outcome = settle(site, wanted, mark, &leaving, tell).await?;
    if outcome == Outcome::Done {
        let_go(site, wanted).await?;
    }
    Ok(outcome)
}

/// What the stack holds, where its hosts of containers leave with these changes.
async fn leaving(site: &Site, wanted: &Wanted, changes: &[Change]) -> Result<Vec<Held>, client::Error> {
    let leaves = |change: &Change| {
        change.id == protect::HOSTS && matches!(change.deed, Deed::Remove | Deed::Replace | Deed::MayReplace)
    };
    match changes.iter().any(leaves) {
        true => stack::resources(&site.client, &wanted.name).await,
        false => Ok(Vec::new()),
    }
}

/// Nothing was to be done but what the last change may have been kept from.
async fn unchanged(site: &Site, wanted: &Wanted) -> Result<Outcome, Error> {
    let_go(site, wanted).await?;
    Ok(Outcome::Unchanged)
}

/// From now on a group of hosts of containers shrinks without ECS asking for each host.
async fn let_go(site: &Site, wanted: &Wanted) -> Result<(), client::Error> {
    if wanted.template.resource(protect::HOSTS).is_none() {
        return Ok(());
    }
    let held = stack::resources(&site.client, &wanted.name).await?;
    protect::release(&site.client, &held).await
}

/// Waits for what was begun, and says how it ended. Of what is `leaving` the hosts of containers are let go meanwhile.
async fn settle(
    site: &Site,
    wanted: &Wanted,
    mark: Option<String>,
    leaving: &[Held],
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let (now, events) = protect::wait(&site.client, &wanted.name, mark, leaving, tell).await?;
    let status = now.map_or_else(|| Status("DELETE_COMPLETE".into()), |stack| stack.status);
    if status.is_good() {
        return Ok(Outcome::Done);
    }
    let cause = match watch::cause(&wanted.name, &events) {
        Some(cause) => Some(watch::asked(&site.client, cause).await),
        None => None,
    };
    Ok(Outcome::Failed { status, cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Client,
        fixtures::{self, action},
        mark::Mark,
        price::List,
        synth,
    };

    /// CloudFormation, of which a change set takes a table away: moto says `Add` for everything. In the shapes of the API's reference.
    fn answer(asked: &str, before: &[String]) -> String {
        let is_done = before.iter().any(|own| action(own) == "ExecuteChangeSet");
        let event = |id: &str, status: &str| {
            format!(
                "<member><EventId>{id}</EventId><LogicalResourceId>s</LogicalResourceId><ResourceType>AWS::CloudFormation::Stack\
                 </ResourceType><ResourceStatus>{status}</ResourceStatus></member>"
            )
        };
        match asked {
            "DescribeStacks" => "<Stacks><member><StackName>s</StackName><StackId>arn</StackId>\
                 <StackStatus>UPDATE_COMPLETE</StackStatus><CreationTime>2026-01-01T00:00:00Z</CreationTime></member></Stacks>"
                .to_owned(),
            "DescribeStackEvents" => {
                let new = if is_done { event("e2", "UPDATE_COMPLETE") } else { String::new() };
                format!("<StackEvents>{new}{}</StackEvents>", event("e1", "CREATE_COMPLETE"))
            }
            "DescribeChangeSet" => "<Status>CREATE_COMPLETE</Status><Changes><member><Type>Resource</Type><ResourceChange>\
                 <Action>Remove</Action><LogicalResourceId>Table</LogicalResourceId><ResourceType>AWS::DynamoDB::Table</ResourceType>\
                 <PolicyAction>Delete</PolicyAction></ResourceChange></member></Changes>"
                .to_owned(),
            "ListStackResources" => fixtures::GROUP_HELD.to_owned(),
            "DescribeAutoScalingGroups" => fixtures::GROUP.to_owned(),
            _ => String::new(),
        }
    }

    fn wanted() -> Wanted {
        let config: synth::Config =
            toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
                .unwrap();
        let text = "app: shop\nenvironments: { live: {} }\n";
        let (app, _) = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap();
        let made = synth::all(&config, &app, &mut synth::Priorities::default()).unwrap();
        let flow = made.stacks.iter().find(|stack| stack.kind == Kind::Flow).unwrap();
        let mut wanted = Wanted::new("vend", flow, List::shipped(), "");
        // Short enough to go with the call.
        wanted.template.resources.truncate(1);
        wanted
    }

    async fn applied(agreed: &[&str]) -> (Result<Outcome, Error>, Vec<String>) {
        let (done, forms) = applied_of(&wanted(), agreed).await;
        (done, forms.iter().map(|own| action(own).to_owned()).collect())
    }

    async fn applied_of(wanted: &Wanted, agreed: &[&str]) -> (Result<Outcome, Error>, Vec<String>) {
        applied_at(answer, wanted, None, agreed).await
    }

    async fn applied_at(
        answer: fn(&str, &[String]) -> String,
        wanted: &Wanted,
        mark: Option<Mark>,
        agreed: &[&str],
    ) -> (Result<Outcome, Error>, Vec<String>) {
        let (address, asked) = fixtures::service(answer);
        let site = Site::new(Client::at(address));
        let stack = stack::one(&site.client, &wanted.name).await.unwrap().unwrap();
        let agreed: Vec<String> = agreed.iter().map(|id| (*id).to_owned()).collect();
        let found = Some(Found { stack, mark });
        let done = apply(&site, wanted, found, &agreed, "t", &mut |_| {}).await;
        let asked = asked.lock().unwrap().clone();
        (done, asked)
    }

    /// What is found when the change is made, and not only when it was planned, is refused too.
    #[tokio::test]
    async fn nothing_is_lost_that_nobody_named() {
        for agreed in [&[][..], &["Database"]] {
            let (done, asked) = applied(agreed).await;
            let Err(Error::Loss { lost, .. }) = done else {
                panic!("{done:?}");
            };
            assert_eq!(lost, "Table (AWS::DynamoDB::Table)");
            assert_eq!(asked.last().unwrap(), "DeleteChangeSet", "nothing is left of it");
            assert!(!asked.contains(&"ExecuteChangeSet".to_owned()), "{asked:?}");
        }
        let (done, asked) = applied(&["Table"]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        assert!(asked.contains(&"ExecuteChangeSet".to_owned()), "{asked:?}");
    }

    /// An environment whose green half serves is changed in place from now on.
    #[tokio::test]
    async fn a_half_that_serves_goes_by_name_only() {
        fn with(weights: (u32, u32), asked: &str, before: &[String]) -> String {
            let parameter = |key: &str, value: &str| {
                format!(
                    "<member><ParameterKey>{key}</ParameterKey><ParameterValue>{value}</ParameterValue></member>"
                )
            };
            let runs = |weight: u32| if weight > 0 { "yes" } else { "no" };
            match asked {
                "DescribeStacks" => {
                    let all = [
                        parameter("BlueRuns", runs(weights.0)),
                        parameter("BlueWeight", &weights.0.to_string()),
                        parameter("GreenRuns", "yes"),
                        parameter("GreenWeight", &weights.1.to_string()),
                    ];
                    let all = format!("<Parameters>{}</Parameters></member>", all.concat());
                    answer(asked, before).replace("</member>", &all)
                }
                "DescribeChangeSet" => answer(asked, before)
                    .replace("AWS::DynamoDB::Table", "AWS::AutoScaling::AutoScalingGroup")
                    .replace("Table", "GreenGroup"),
                _ => answer(asked, before),
            }
        }
        let serves = |asked: &str, before: &[String]| with((0, 100), asked, before);
        let shares = |asked: &str, before: &[String]| with((90, 10), asked, before);
        let rests = |asked: &str, before: &[String]| with((100, 0), asked, before);
        for answer in [serves, shares] {
            let (done, forms) = applied_at(answer, &wanted(), None, &["Table"]).await;
            let Err(Error::Loss { lost, .. }) = done else {
                panic!("{done:?}");
            };
            assert_eq!(
                lost,
                "GreenGroup (AWS::AutoScaling::AutoScalingGroup): make a release first, so that blue serves"
            );
            assert!(!has(&forms, "ExecuteChangeSet"), "{forms:?}");
            let (done, _) = applied_at(answer, &wanted(), None, &["GreenGroup"]).await;
            assert_eq!(done.unwrap(), Outcome::Done);
        }
        // One that only waits may go.
        let (done, _) = applied_at(rests, &wanted(), None, &[]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
    }

    /// Its group shrinks without asking ECS from now on, and would keep those for ever.
    #[tokio::test]
    async fn hosts_of_containers_that_were_protected_may_go_when_their_stack_is_changed() {
        let mut wanted = wanted();
        wanted.template.resources[0].id = protect::HOSTS.to_owned();
        let (done, forms) = applied_of(&wanted, &["Table"]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        assert_eq!(fixtures::released(&forms), ["i-1"]);
        let at = |name: &str| forms.iter().position(|own| action(own) == name);
        assert!(at("ExecuteChangeSet") < at("SetInstanceProtection"), "{forms:?}");
        // One without such hosts costs no call.
        let (_, asked) = applied(&["Table"]).await;
        assert!(
            !asked.contains(&"DescribeAutoScalingGroups".to_owned()),
            "{asked:?}"
        );
    }

    fn has(before: &[String], name: &str) -> bool {
        before.iter().any(|own| action(own) == name)
    }

    /// The first of these that is asked.
    fn at(forms: &[String], name: &str) -> usize {
        let found = forms.iter().position(|own| action(own) == name);
        found.unwrap_or_else(|| panic!("{name} is not in {forms:?}"))
    }

    /// Letting them go may have been refused, or cut short, when their stack was changed the last time.
    #[tokio::test]
    async fn hosts_of_containers_that_stayed_protected_may_go_where_nothing_changes() {
        let empty = |asked: &str, before: &[String]| match asked {
            "DescribeChangeSet" => {
                let why = "The submitted information didn't contain changes.";
                format!("<Status>FAILED</Status><StatusReason>{why}</StatusReason>")
            }
            _ => answer(asked, before),
        };
        let mut wanted = wanted();
        // Nothing is asked of a stack without such hosts.
        let (done, forms) = applied_at(answer, &wanted, Some(wanted.mark.clone()), &[]).await;
        assert_eq!((done.unwrap(), forms.len()), (Outcome::Unchanged, 1));
        wanted.template.resources[0].id = protect::HOSTS.to_owned();
        for mark in [Some(wanted.mark.clone()), None] {
            let (done, forms) = applied_at(empty, &wanted, mark, &[]).await;
            assert_eq!(done.unwrap(), Outcome::Unchanged);
            assert_eq!(fixtures::released(&forms), ["i-1"]);
        }
    }

    #[tokio::test]
    async fn hosts_of_containers_that_leave_their_stack_do_not_hold_it_up() {
        let removes = |asked: &str, before: &[String]| match asked {
            "DescribeChangeSet" => answer(asked, before)
                .replace("AWS::DynamoDB::Table", "AWS::AutoScaling::AutoScalingGroup")
                .replace("Table", protect::HOSTS),
            _ => answer(asked, before),
        };
        let (done, forms) = applied_at(removes, &wanted(), None, &[]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        assert_eq!(fixtures::released(&forms), ["i-1"]);
        assert!(
            at(&forms, "SetInstanceProtection") < at(&forms, "ExecuteChangeSet"),
            "{forms:?}"
        );
    }

    /// An earlier attempt began that, and was cut short.
    #[tokio::test]
    async fn hosts_of_containers_that_are_leaving_their_stack_do_not_hold_it_up() {
        let cleans = |asked: &str, before: &[String]| match asked {
            "DescribeStacks" if !has(before, "SetInstanceProtection") => {
                answer(asked, before).replace("UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            }
            _ => answer(asked, before),
        };
        let (done, forms) = applied_at(cleans, &wanted(), None, &["Table"]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        assert_eq!(fixtures::released(&forms), ["i-1"]);
    }

    #[tokio::test]
    async fn hosts_of_containers_that_a_failed_creation_left_do_not_hold_it_up() {
        let left = |asked: &str, before: &[String]| {
            let status = match (has(before, "CreateStack"), has(before, "DeleteStack")) {
                (true, _) => "CREATE_COMPLETE",
                (_, true) => "DELETE_COMPLETE",
                _ => "ROLLBACK_FAILED",
            };
            match asked {
                "DescribeStacks" => answer(asked, before).replace("UPDATE_COMPLETE", status),
                "DescribeStackEvents" => format!(
                    "<StackEvents><member><EventId>{status}</EventId><LogicalResourceId>s</LogicalResourceId>\
                     <ResourceStatus>{status}</ResourceStatus></member></StackEvents>"
                ),
                _ => answer(asked, before),
            }
        };
        let (done, forms) = applied_at(left, &wanted(), None, &[]).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        assert_eq!(fixtures::released(&forms), ["i-1"]);
        assert!(
            at(&forms, "SetInstanceProtection") < at(&forms, "DeleteStack"),
            "{forms:?}"
        );
    }

    #[test]
    fn a_seed_is_small_and_whole() {
        let config: synth::Config = toml::from_str(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nfirewall = true\n\
             network = { zones = '3', nat = 'per-zone' }\n",
        )
        .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        let seed = seed(&stack.template);
        assert!(seed.yaml().len() < MAX_INLINE_BYTES / 2);
        for id in [
            "Key",
            "LogsBucket",
            "TemplatesBucket",
            "TemplatesBucketPolicy",
            "LogsBucketPolicy",
        ] {
            assert!(seed.resource(id).is_some(), "{id}");
        }
        assert!(seed.resource("Vpc").is_none() && seed.resource("Balancer").is_none());
    }
}
