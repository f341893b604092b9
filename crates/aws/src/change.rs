//! What a change of a stack would do, as a change set says it: what is replaced, and what would be lost.

use serde::Serialize;

use crate::{
    call,
    client::{Client, Error, Form, Node},
    stack,
};

/// What would happen to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub id: String,
    pub kind: String,
    pub deed: Deed,
    /// What of it changes: properties, or `Metadata`, `Tags` and the like.
    pub properties: Vec<String>,
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    Add,
    Modify,
    /// A new one is made, and the old one goes.
    Replace,
    /// CloudFormation knows only when it does it.
    MayReplace,
    Remove,
    Import,
}

/// What becomes of data, or of who is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// It goes.
    Lost,
    /// It goes, and a snapshot stays.
    Snapshot,
    /// It stays, and no stack holds it any more.
    Left,
    /// It serves, and what it serves goes to nobody.
    Traffic,
}

/// Types that hold what nobody can make again.
const DATA: [&str; 15] = [
    "AWS::RDS::DBInstance",
    "AWS::RDS::DBCluster",
    "AWS::S3::Bucket",
    "AWS::DynamoDB::Table",
    "AWS::DynamoDB::GlobalTable",
    "AWS::EC2::Volume",
    "AWS::EFS::FileSystem",
    "AWS::KMS::Key",
    "AWS::ECR::Repository",
    "AWS::SecretsManager::Secret",
    "AWS::Logs::LogGroup",
    "AWS::SQS::Queue",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::Route53::HostedZone",
    "AWS::CloudTrail::Trail",
];

/// What changes of hosts that go while containers come in their place, and the other way round.
const RUNTIME: &str = "runtime";

impl Change {
    /// What to do first, where that keeps its loss from being one.
    pub fn first(&self) -> Option<&'static str> {
        let is_green = self.id.starts_with("Green");
        match self.loss {
            // Neither half stays: a release into the other one would be no way out.
            Some(Loss::Traffic) if self.properties == [RUNTIME] => Some(
                "hosts and containers start from different images, so what serves cannot become the other: have another environment, or \
                 stop this half first (\"Another runtime\" in docs/aws.md)",
            ),
            Some(Loss::Traffic) if is_green => Some("make a release first, so that blue serves"),
            _ => None,
        }
    }

    /// A resource of a stack that is not there yet.
    pub fn add(id: &str, kind: &str) -> Self {
        Self {
            id: id.to_owned(),
            kind: kind.to_owned(),
            deed: Deed::Add,
            properties: Vec::new(),
            loss: None,
        }
    }

    /// A change as a change set has it.
    fn read(node: &Node) -> Option<Self> {
        let node = node.get("ResourceChange")?;
        let (id, kind) = (node.text("LogicalResourceId"), node.text("ResourceType"));
        let deed = match (node.text("Action"), node.text("Replacement")) {
            ("Add", _) => Deed::Add,
            ("Remove", _) => Deed::Remove,
            ("Import", _) => Deed::Import,
            (_, "True") => Deed::Replace,
            (_, "Conditional") => Deed::MayReplace,
            _ => Deed::Modify,
        };
        let mut properties: Vec<String> = node
            .list("Details")
            .filter_map(|detail| detail.get("Target"))
            .filter_map(|target| target.maybe("Name").or_else(|| target.maybe("Attribute")))
            .collect();
        properties.sort();
        properties.dedup();
        Some(Self {
            id: id.to_owned(),
            kind: kind.to_owned(),
            deed,
            properties,
            loss: loss(kind, deed, node.text("PolicyAction")),
        })
    }
}

/// Without a word of CloudFormation about it, data counts as lost.
fn loss(kind: &str, deed: Deed, policy: &str) -> Option<Loss> {
    let goes = matches!(deed, Deed::Replace | Deed::MayReplace | Deed::Remove);
    match policy {
        _ if !goes || !DATA.contains(&kind) => None,
        "Retain" | "RetainExceptOnCreate" | "ReplaceAndRetain" => Some(Loss::Left),
        "Snapshot" | "ReplaceAndSnapshot" => Some(Loss::Snapshot),
        _ => Some(Loss::Lost),
    }
}

/// How a template gets to CloudFormation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Inline(String),
    /// In S3.
    At(String),
}

impl Body {
    pub(crate) fn fill(&self, form: &mut Form) {
        match self {
            Self::Inline(text) => form.add("TemplateBody", text),
            Self::At(url) => form.add("TemplateURL", url),
        };
    }
}

/// What is asked for.
pub struct Order<'a> {
    pub stack: &'a str,
    /// Name of the change set, and its token: a repeat is the same.
    pub ticket: &'a str,
    pub body: &'a Body,
    /// Parameters that keep their values.
    pub kept: Vec<&'a str>,
    /// One that gets another.
    pub given: Option<(&'a str, &'a str)>,
    /// The role that CloudFormation takes.
    pub role: Option<&'a str>,
    /// All that the stack has from then on, which everything in it gets too.
    pub tags: &'a [(&'a str, String)],
}

/// Where a change set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Making,
    Ready(Vec<Change>),
    /// There is nothing to change.
    Empty,
    Failed(String),
}

/// Asks for a change set.
pub async fn ask(client: &Client, order: &Order<'_>) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", order.stack)
        .add("ChangeSetName", order.ticket);
    form.add("ChangeSetType", "UPDATE");
    form.add("ClientToken", order.ticket).maybe("RoleARN", order.role);
    form.list("Capabilities.member", ["CAPABILITY_NAMED_IAM"]);
    order.body.fill(&mut form);
    form.pairs("Tags.member", order.tags);
    for (index, id) in order.kept.iter().enumerate() {
        let name = format!("Parameters.member.{}", index + 1);
        form.add(&format!("{name}.ParameterKey"), id);
        form.add(&format!("{name}.UsePreviousValue"), "true");
    }
    if let Some((id, value)) = order.given {
        let name = format!("Parameters.member.{}", order.kept.len() + 1);
        form.add(&format!("{name}.ParameterKey"), id);
        form.add(&format!("{name}.ParameterValue"), value);
    }
    match client.query(&call::CREATE_CHANGE_SET, form).await {
        Err(error) if error.code() == "AlreadyExistsException" => Ok(()),
        other => other.map(drop),
    }
}

/// Where the change set is.
pub async fn state(client: &Client, stack: &str, ticket: &str) -> Result<State, Error> {
    let mut changes = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut form = Form::default();
        form.add("StackName", stack).add("ChangeSetName", ticket);
        form.maybe("NextToken", next.as_deref());
        let page = client.query(&call::DESCRIBE_CHANGE_SET, form).await?;
        match page.text("Status") {
            "FAILED" => {
                return Ok(match failed(page.text("StatusReason")) {
                    State::Failed(why) => {
                        State::Failed(validated(client, page.text("ChangeSetId"), why).await)
                    }
                    other => other,
                });
            }
            "CREATE_COMPLETE" => {}
            _ => return Ok(State::Making),
        }
        changes.extend(page.list("Changes").filter_map(Change::read));
        next = page.maybe("NextToken");
        if next.is_none() {
            turned(&mut changes);
            return Ok(State::Ready(changes));
        }
    }
}

/// Says of a half that goes what changes of it, where one of the other runtime comes.
fn turned(changes: &mut [Change]) {
    for half in ["Blue", "Green"] {
        let (group, service) = (format!("{half}Group"), format!("{half}Service"));
        for (old, new) in [(&group, &service), (&service, &group)] {
            let mut all = changes.iter();
            let comes = all.any(|own| own.id == *new && own.deed == Deed::Add);
            let goes = |own: &&mut Change| own.id == *old && own.deed == Deed::Remove;
            if let Some(gone) = changes.iter_mut().find(goes).filter(|_| comes) {
                gone.properties = vec![RUNTIME.to_owned()];
            }
        }
    }
}

fn failed(why: &str) -> State {
    const NOTHING: [&str; 2] = ["didn't contain changes", "No updates are to be performed"];
    match NOTHING.iter().any(|text| why.contains(text)) {
        true => State::Empty,
        false => State::Failed(why.to_owned()),
    }
}

/// Why a change set failed, where CloudFormation's own sentence says only that its validation did: of each resource what is wrong
/// with it. Source: the API's reference, DescribeEvents.
async fn validated(client: &Client, id: &str, why: String) -> String {
    if !why.contains("DescribeEvents") && !why.contains("EarlyValidation") {
        return why;
    }
    let mut form = Form::default();
    form.add("ChangeSetName", id).add("Filters.FailedEvents", "true");
    let pages = match stack::pages(client, &call::DESCRIBE_EVENTS, &form).await {
        Ok(pages) => pages,
        Err(error) => return format!("{why} ({error})"),
    };
    let mut said: Vec<String> = Vec::new();
    for event in pages.iter().flat_map(|page| page.list("OperationEvents")) {
        said.extend(finding(event).filter(|own| !said.contains(own)));
    }
    match said.is_empty() {
        true => why,
        false => said.join("; "),
    }
}

/// What one event says of a resource.
fn finding(event: &Node) -> Option<String> {
    let mut reasons = [
        "ValidationStatusReason",
        "ResourceStatusReason",
        "HookStatusReason",
    ]
    .into_iter();
    let why = reasons.find_map(|name| event.maybe(name))?;
    let id = event.maybe("LogicalResourceId").unwrap_or_default();
    let physical = event.maybe("PhysicalResourceId").filter(|own| *own != id);
    let path = event
        .maybe("ValidationPath")
        .filter(|own| own.trim_matches('/') != format!("Resources/{id}"));
    let beside: Vec<String> = physical.into_iter().chain(path).collect();
    let beside = match beside.is_empty() {
        true => String::new(),
        false => format!(" ({})", beside.join(", ")),
    };
    Some(match id.as_str() {
        "" => format!("{why}{beside}"),
        id => format!("{id}{beside}: {why}"),
    })
}

/// Does what a change set says.
pub async fn execute(client: &Client, stack: &str, ticket: &str) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", stack).add("ChangeSetName", ticket);
    form.add("ClientRequestToken", ticket);
    client.query(&call::EXECUTE_CHANGE_SET, form).await.map(drop)
}

/// Leaves nothing of a change set.
pub async fn forget(client: &Client, stack: &str, ticket: &str) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", stack).add("ChangeSetName", ticket);
    client.query(&call::DELETE_CHANGE_SET, form).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// The shape of a change as AWS gives it: moto says `Add` for everything.
    fn read(action: &str, replacement: &str, kind: &str, policy: &str) -> Change {
        let text = format!(
            "<member><Type>Resource</Type><ResourceChange><Action>{action}</Action><Replacement>{replacement}</Replacement>\
             <LogicalResourceId>D</LogicalResourceId><ResourceType>{kind}</ResourceType><PolicyAction>{policy}</PolicyAction>\
             <Details><member><Target><Attribute>Properties</Attribute><Name>Engine</Name></Target></member>\
             <member><Target><Attribute>Tags</Attribute></Target></member></Details></ResourceChange></member>"
        );
        Change::read(&Node::parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn what_is_lost_is_seen() {
        let database = "AWS::RDS::DBInstance";
        let replaced = read("Modify", "True", database, "ReplaceAndSnapshot");
        assert_eq!(
            (replaced.deed, replaced.loss),
            (Deed::Replace, Some(Loss::Snapshot))
        );
        assert_eq!(replaced.properties, ["Engine", "Tags"]);
        assert_eq!(read("Modify", "Conditional", database, "").loss, Some(Loss::Lost));
        assert_eq!(read("Modify", "False", database, "").loss, None);
        assert_eq!(
            read("Remove", "", "AWS::S3::Bucket", "Delete").loss,
            Some(Loss::Lost)
        );
        assert_eq!(
            read("Remove", "", "AWS::S3::Bucket", "Retain").loss,
            Some(Loss::Left)
        );
        assert_eq!(read("Remove", "", "AWS::EC2::VPC", "Delete").loss, None);
    }

    /// With another runtime both halves go, and a release into the other one would not help.
    #[test]
    fn what_serves_and_gets_another_runtime_is_not_told_to_release_first() {
        let change = |id: &str, deed| Change {
            deed,
            loss: (deed == Deed::Remove).then_some(Loss::Traffic),
            ..Change::add(id, "AWS::X::Y")
        };
        for (old, new) in [("Group", "Service"), ("Service", "Group")] {
            let mut all: Vec<Change> = ["Blue", "Green"]
                .into_iter()
                .flat_map(|half| {
                    [
                        change(&format!("{half}{old}"), Deed::Remove),
                        change(&format!("{half}{new}"), Deed::Add),
                    ]
                })
                .collect();
            turned(&mut all);
            for gone in all.iter().filter(|own| own.deed == Deed::Remove) {
                assert!(gone.first().unwrap().contains("different images"), "{}", gone.id);
            }
            assert!(
                all.iter()
                    .all(|own| own.deed != Deed::Add || own.first().is_none())
            );
        }
        // In place there is only blue, and it stays.
        let mut alone = [
            change("GreenGroup", Deed::Remove),
            change("BlueGroup", Deed::Modify),
        ];
        turned(&mut alone);
        assert_eq!(
            alone[0].first(),
            Some("make a release first, so that blue serves")
        );
    }

    /// A change set whose validation failed, and its events, in the shapes of the API's reference.
    #[tokio::test]
    async fn what_validation_finds_is_said_by_resources() {
        const WHY: &str = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early \
            Validation errors, use the DescribeEvents API for detailed failure information.";
        fn answer(asked: &str, _: &[String]) -> String {
            let event = |id: &str, rest: &str| {
                format!(
                    "<member><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>{id}</LogicalResourceId>\
                     <PhysicalResourceId>vend-logs</PhysicalResourceId><ResourceType>AWS::S3::Bucket</ResourceType>{rest}</member>"
                )
            };
            match asked {
                "DescribeChangeSet" => format!(
                    "<ChangeSetId>arn:of:it</ChangeSetId><Status>FAILED</Status><StatusReason>{WHY}</StatusReason>"
                ),
                _ => format!(
                    "<OperationEvents>{}{}</OperationEvents>",
                    event(
                        "LogsBucket",
                        "<ValidationName>NAME_CONFLICT_VALIDATION</ValidationName><ValidationStatus>FAILED</ValidationStatus>\
                         <ValidationStatusReason>Resource of type 'AWS::S3::Bucket' with identifier 'vend-logs' already exists.\
                         </ValidationStatusReason><ValidationPath>/Resources/LogsBucket</ValidationPath>"
                    ),
                    event("LogsBucket", "<ValidationStatus>FAILED</ValidationStatus>"),
                ),
            }
        }
        let (address, forms) = fixtures::service(answer);
        let found = state(&Client::at(address), "s", "t").await.unwrap();
        let said = "LogsBucket (vend-logs): Resource of type 'AWS::S3::Bucket' with identifier 'vend-logs' already exists.";
        assert_eq!(found, State::Failed(said.into()));
        let asked = forms.lock().unwrap().last().unwrap().clone();
        assert!(
            asked.contains("ChangeSetName=arn%3Aof%3Ait") && asked.contains("Filters.FailedEvents=true"),
            "{asked}"
        );
        // Who may not ask gets what there is, and why it is not more.
        fn denied(asked: &str, before: &[String]) -> String {
            match asked {
                "DescribeEvents" => {
                    "<Error><Code>AccessDenied</Code><Message>not you</Message></Error>".to_owned()
                }
                _ => answer(asked, before),
            }
        }
        let (address, _) = fixtures::service(denied);
        let State::Failed(why) = state(&Client::at(address), "s", "t").await.unwrap() else {
            panic!("it failed");
        };
        assert!(why.starts_with(WHY) && why.contains("not you"), "{why}");
    }

    #[test]
    fn a_change_set_without_changes_is_no_failure() {
        assert_eq!(
            failed("The submitted information didn't contain changes. Submit…"),
            State::Empty
        );
        assert_eq!(failed("Template error"), State::Failed("Template error".into()));
    }
}
