//! One stack against a CloudFormation that says what moto does not.

mod cut_off;

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
            format!("<StackEvents>{new}{}</StackEvents>", event("e1", "UPDATE_COMPLETE"))
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
    let agreed = Agreed {
        lost: &agreed,
        shared: false,
    };
    let done = apply(&site, wanted, found, agreed, "t", &mut |_| {}).await;
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
    assert!(done.unwrap().is_done());
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
        assert!(done.unwrap().is_done());
    }
    // One that only waits may go.
    let (done, _) = applied_at(rests, &wanted(), None, &[]).await;
    assert!(done.unwrap().is_done());
}

/// Its group shrinks without asking ECS from now on, and would keep those for ever.
#[tokio::test]
async fn hosts_of_containers_that_were_protected_may_go_when_their_stack_is_changed() {
    let mut wanted = wanted();
    wanted.template.resources[0].id = protect::HOSTS.to_owned();
    let (done, forms) = applied_of(&wanted, &["Table"]).await;
    assert!(done.unwrap().is_done());
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
    assert!(done.unwrap().is_done());
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
    assert!(done.unwrap().is_done());
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
    assert!(done.unwrap().is_done());
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

/// A stack that protects a database. `Guarded` is what was last asked for; each call that changes the stack has its event.
fn guarded() -> Wanted {
    let mut wanted = wanted();
    let protection = wanted.template.guard(true, false);
    let properties = serde_json::json!({ "DeletionProtection": protection });
    let database = synth::Resource::new("Database", "AWS::RDS::DBInstance", "", properties);
    wanted.template.add(database);
    wanted
}

fn parameters(form: &str) -> Vec<(&str, &str)> {
    let own = |part: &'static str| {
        let parts = form
            .split('&')
            .filter(|own| own.starts_with("Parameters.member."));
        parts
            .filter_map(move |own| own.split_once(part))
            .map(|(_, value)| value)
    };
    own("ParameterKey=").zip(own("Value=")).collect()
}

/// The stack's status after these calls, oldest first.
fn statuses(before: &[String], first: &'static str) -> Vec<&'static str> {
    let next = before.iter().filter_map(|own| match action(own) {
        "DeleteStack" => Some("DELETE_COMPLETE"),
        "CreateStack" => Some("CREATE_COMPLETE"),
        "ExecuteChangeSet" | "UpdateStack" => Some("UPDATE_COMPLETE"),
        _ => None,
    });
    std::iter::once(first).chain(next).collect()
}

fn answered(asked: &str, before: &[String], first: &'static str, changes: &str) -> String {
    let statuses = statuses(before, first);
    let last = statuses[statuses.len() - 1];
    match asked {
        "DescribeStacks" => {
            let is_sent =
                |own: &&String| ["CreateStack", "CreateChangeSet", "UpdateStack"].contains(&action(own));
            let given = before.iter().filter(is_sent).flat_map(|own| parameters(own));
            let given = given.filter(|(key, value)| *key == GUARD && *value != "true");
            let guards = given.map(|(_, value)| value).next_back().unwrap_or("yes");
            format!(
                "<Stacks><member><StackName>s</StackName><StackId>arn</StackId><StackStatus>{last}</StackStatus>\
                 <CreationTime>2026-01-01T00:00:00Z</CreationTime><Parameters><member><ParameterKey>{GUARD}</ParameterKey>\
                 <ParameterValue>{guards}</ParameterValue></member></Parameters></member></Stacks>"
            )
        }
        "DescribeStackEvents" => {
            let event = |(n, status): (usize, &&str)| {
                format!(
                    "<member><EventId>e{n}</EventId><LogicalResourceId>s</LogicalResourceId><PhysicalResourceId>arn\
                     </PhysicalResourceId><ResourceStatus>{status}</ResourceStatus></member>"
                )
            };
            let events: Vec<String> = statuses.iter().enumerate().map(event).rev().collect();
            format!("<StackEvents>{}</StackEvents>", events.concat())
        }
        "DescribeChangeSet" => format!("<Status>CREATE_COMPLETE</Status><Changes>{changes}</Changes>"),
        "DescribeDBInstances" => PROTECTED.to_owned(),
        "ListStackResources" => {
            "<StackResourceSummaries><member><LogicalResourceId>Database</LogicalResourceId>\
             <PhysicalResourceId>db-1</PhysicalResourceId><ResourceType>AWS::RDS::DBInstance</ResourceType>\
             <ResourceStatus>CREATE_COMPLETE</ResourceStatus></member></StackResourceSummaries>"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// As the API's reference shows it.
const PROTECTED: &str = "<DBInstances><DBInstance><DBInstanceIdentifier>db-1</DBInstanceIdentifier>\
    <DeletionProtection>true</DeletionProtection></DBInstance></DBInstances>";

fn database(deed: &str, id: &str) -> String {
    format!(
        "<member><ResourceChange>{deed}<LogicalResourceId>{id}</LogicalResourceId><ResourceType>AWS::RDS::DBInstance\
         </ResourceType><PolicyAction>Snapshot</PolicyAction></ResourceChange></member>"
    )
}

/// The calls that change something, each with the protection that it asks for.
fn deeds(forms: &[String]) -> Vec<String> {
    let deeds = forms.iter().filter_map(|form| {
        let name = action(form);
        let guards = parameters(form).into_iter().find(|(key, _)| *key == GUARD);
        let guards = guards.map(|(_, value)| value.to_owned());
        let protection = form
            .split('&')
            .find_map(|own| own.strip_prefix("DeletionProtection="));
        let word = guards.or(protection.map(str::to_owned)).unwrap_or_default();
        let is_deed = !name.starts_with("Describe") && !name.starts_with("List");
        is_deed.then(|| format!("{name} {word}").trim_end().to_owned())
    });
    deeds.collect()
}

/// CloudFormation could not take back what is protected: what is new is protected when all of it is made.
#[tokio::test]
async fn a_new_stack_is_protected_when_it_is_made() {
    fn failed(asked: &str, before: &[String]) -> String {
        answered(asked, before, "ROLLBACK_FAILED", "")
    }
    let (done, forms) = applied_at(failed, &guarded(), None, &[]).await;
    assert_eq!(done.unwrap(), Outcome::Done { left: Vec::new() });
    let wanted = [
        // What an earlier version made protected, and could not take back.
        "ModifyDBInstance false",
        "DeleteStack",
        "CreateStack no",
        "UpdateStack yes",
    ];
    assert_eq!(deeds(&forms), wanted);
}

#[tokio::test]
async fn what_a_change_adds_is_protected_after_it_and_its_stack_too() {
    fn adds(asked: &str, before: &[String]) -> String {
        answered(
            asked,
            before,
            "UPDATE_COMPLETE",
            &database("<Action>Add</Action>", "Database"),
        )
    }
    let (done, forms) = applied_at(adds, &guarded(), None, &[]).await;
    assert!(done.unwrap().is_done());
    let wanted = [
        "CreateChangeSet true",
        "DeleteChangeSet",
        "CreateChangeSet no",
        "ExecuteChangeSet",
        // First: an apply that is broken off here closes the stack the next time, and asks no more what was made.
        "UpdateTerminationProtection",
        "UpdateStack yes",
    ];
    assert_eq!(deeds(&forms), wanted);
    // One that only changes what is there costs one change, and who took a protection away keeps it so.
    fn changes(asked: &str, before: &[String]) -> String {
        answered(
            asked,
            before,
            "UPDATE_COMPLETE",
            &database("<Action>Modify</Action>", "Database"),
        )
    }
    let (done, forms) = applied_at(changes, &guarded(), None, &[]).await;
    assert!(done.unwrap().is_done());
    assert_eq!(deeds(&forms), ["CreateChangeSet true", "ExecuteChangeSet"]);
}

/// An apply was broken off between the two changes.
#[tokio::test]
async fn what_was_not_protected_yet_is_at_the_next_apply() {
    fn open(asked: &str, before: &[String]) -> String {
        match asked {
            "DescribeChangeSet" => {
                "<Status>FAILED</Status><StatusReason>The submitted information didn't contain changes.</StatusReason>".to_owned()
            }
            "DescribeStacks" if !has(before, "UpdateStack") => {
                answered(asked, before, "CREATE_COMPLETE", "").replace("yes", "no")
            }
            _ => answered(asked, before, "CREATE_COMPLETE", ""),
        }
    }
    let wanted = guarded();
    let (done, forms) = applied_at(open, &wanted, Some(wanted.mark.clone()), &[]).await;
    assert!(done.unwrap().is_done());
    assert_eq!(
        deeds(&forms),
        ["CreateChangeSet true", "DeleteChangeSet", "UpdateStack yes"]
    );
}

/// What goes by agreement goes: protected, it would stay outside every stack.
#[tokio::test]
async fn what_leaves_is_not_protected_any_more() {
    fn removes(asked: &str, before: &[String]) -> String {
        answered(
            asked,
            before,
            "UPDATE_COMPLETE",
            &database("<Action>Remove</Action>", "Database"),
        )
    }
    let (done, forms) = applied_at(removes, &wanted(), None, &["Database"]).await;
    assert!(done.unwrap().is_done());
    assert_eq!(
        deeds(&forms),
        ["CreateChangeSet", "ModifyDBInstance false", "ExecuteChangeSet"]
    );
    // Where the change is taken back, it stays, and is protected as before.
    fn fails(asked: &str, before: &[String]) -> String {
        let answer = removes(asked, before);
        match asked {
            "DescribeStacks" | "DescribeStackEvents" if has(before, "ExecuteChangeSet") => {
                answer.replacen("UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", 1)
            }
            _ => answer,
        }
    }
    let (done, forms) = applied_at(fails, &wanted(), None, &["Database"]).await;
    assert!(matches!(done.unwrap(), Outcome::Failed { .. }));
    assert_eq!(deeds(&forms).last().unwrap(), "ModifyDBInstance true");
    // One that had none gets none.
    fn bare(asked: &str, before: &[String]) -> String {
        match asked {
            "DescribeDBInstances" => PROTECTED.replace("true", "false"),
            _ => fails(asked, before),
        }
    }
    let (done, forms) = applied_at(bare, &wanted(), None, &["Database"]).await;
    assert!(matches!(done.unwrap(), Outcome::Failed { .. }) && !has(&forms, "ModifyDBInstance"));
    // A branch's has none, and its build may not switch it.
    let mut preview = wanted();
    preview.mark.preview = Some("preview".into());
    let (done, forms) = applied_at(removes, &preview, None, &["Database"]).await;
    assert!(done.unwrap().is_done() && !has(&forms, "ModifyDBInstance"));
}

/// CloudFormation replaces a database for some values of a property only, and somebody has protected this one by hand.
#[tokio::test]
async fn what_might_have_been_replaced_is_as_protected_as_before() {
    fn changes(asked: &str, before: &[String]) -> String {
        let may = "<Action>Modify</Action><Replacement>Conditional</Replacement>";
        answered(asked, before, "UPDATE_COMPLETE", &database(may, "Database"))
    }
    let mut plain = guarded();
    let properties = serde_json::json!({ "Engine": "postgres" });
    plain.template.resources.pop();
    let database = synth::Resource::new("Database", "AWS::RDS::DBInstance", "", properties);
    plain.template.add(database);
    let (done, forms) = applied_at(changes, &plain, None, &["Database"]).await;
    assert!(done.unwrap().is_done());
    let wanted = [
        "CreateChangeSet true",
        "ModifyDBInstance false",
        "ExecuteChangeSet",
        "ModifyDBInstance true",
    ];
    assert_eq!(deeds(&forms), wanted);
}

/// Releases change the same stack, and take no notice of who applies.
#[tokio::test]
async fn a_release_that_changes_the_stack_meanwhile_is_waited_for() {
    fn moved(asked: &str, before: &[String]) -> String {
        match asked {
            "UpdateStack" if !has(before, "UpdateStack") => {
                "<Error><Code>ValidationError</Code><Message>Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated.\
                 </Message></Error>"
                    .to_owned()
            }
            _ => answered(asked, before, "UPDATE_COMPLETE", &database("<Action>Add</Action>", "Database"))
                .replace("<ParameterValue>yes", "<ParameterValue>no"),
        }
    }
    let (done, forms) = applied_at(moved, &guarded(), None, &[]).await;
    assert!(done.unwrap().is_done());
    let closed = deeds(&forms);
    assert_eq!(closed[closed.len() - 2..], ["UpdateStack yes", "UpdateStack yes"]);
}

/// Its stack is as it was asked to be, and the load balancer costs on.
#[tokio::test]
async fn what_could_not_be_deleted_is_named() {
    fn leaves(asked: &str, before: &[String]) -> String {
        let answer = answered(
            asked,
            before,
            "UPDATE_COMPLETE",
            &database("<Action>Modify</Action>", "Database"),
        );
        let event = |id: &str, physical: &str, status: &str| {
            format!(
                "<member><EventId>{id}</EventId><LogicalResourceId>Old</LogicalResourceId><PhysicalResourceId>{physical}\
                 </PhysicalResourceId><ResourceType>AWS::X::Y</ResourceType><ResourceStatus>{status}</ResourceStatus>\
                 <ResourceStatusReason>it is protected</ResourceStatusReason></member>"
            )
        };
        match asked {
            "DescribeStackEvents" if has(before, "ExecuteChangeSet") => {
                let all = [
                    event("x4", "went", "DELETE_COMPLETE"),
                    event("x3", "stays", "DELETE_FAILED"),
                    event("x2", "went", "DELETE_FAILED"),
                    event("x1", "stays", "DELETE_FAILED"),
                ];
                let newest = answer.find("</member>").unwrap() + "</member>".len();
                format!("{}{}{}", &answer[..newest], all.concat(), &answer[newest..])
            }
            _ => answer,
        }
    }
    let (done, _) = applied_at(leaves, &guarded(), None, &[]).await;
    let Outcome::Done { left } = done.unwrap() else {
        panic!("it is done");
    };
    let left: Vec<String> = left.iter().map(|own| format!("{} {own}", own.physical)).collect();
    assert_eq!(left, ["stays Old (AWS::X::Y): it is protected"]);
}
