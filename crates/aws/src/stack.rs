//! Stacks as CloudFormation tells of them: what there is, what happens, what would change. One function a call; pages are
//! read to their end.

use serde::Serialize;

use crate::{
    call,
    change::Body,
    client::{Client, Error, Form, Node},
    sign::digest,
};

/// A stack that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    pub name: String,
    pub id: String,
    pub status: Status,
    pub why: Option<String>,
    pub outputs: Vec<Output>,
    /// Its parameters: id and value.
    pub parameters: Vec<(String, String)>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
    pub is_protected: bool,
    /// When it was made or changed last, as AWS writes it.
    pub at: String,
    /// `IN_SYNC`, `DRIFTED`, `NOT_CHECKED`.
    pub drift: String,
}

impl Stack {
    /// One of tests that holds nothing.
    #[cfg(test)]
    pub(crate) fn fixture(status: &str) -> Self {
        Self {
            name: "vend-production".into(),
            id: "arn".into(),
            status: Status(status.into()),
            why: None,
            outputs: Vec::new(),
            parameters: Vec::new(),
            tags: Vec::new(),
            is_protected: false,
            at: "t".into(),
            drift: String::new(),
        }
    }

    /// The value of a parameter.
    pub fn value(&self, id: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(own, _)| own == id).map(|(_, value)| value.as_str())
    }

    /// Says it of itself, by tags, that it is a branch's? One that was made before stacks had tags does not, and the role of the
    /// build that makes stacks of branches asks for it.
    pub fn is_tagged(&self) -> bool {
        ["vend:app", "vend:preview"]
            .iter()
            .all(|key| self.tags.iter().any(|(own, _)| own == key))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    pub id: String,
    pub value: String,
    pub about: String,
}

/// The status of a stack or of a resource, in CloudFormation's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Status(pub String);

impl Status {
    pub fn is_moving(&self) -> bool {
        self.0.ends_with("_IN_PROGRESS") && !self.is_review()
    }

    /// Named by a change set, and never made.
    pub fn is_review(&self) -> bool {
        self.0 == "REVIEW_IN_PROGRESS"
    }

    /// As it was asked for.
    pub fn is_good(&self) -> bool {
        ["CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"].contains(&self.0.as_str())
    }

    /// Whole, although perhaps not as it was asked for the last time.
    pub fn is_usable(&self) -> bool {
        self.is_good() || ["UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"].contains(&self.0.as_str())
    }

    /// Its creation failed: nothing can be done with it but to delete it.
    pub fn is_stillborn(&self) -> bool {
        ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"].contains(&self.0.as_str())
    }

    /// All that it holds is being taken away.
    pub fn is_ending(&self) -> bool {
        ["DELETE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"].contains(&self.0.as_str())
    }

    pub fn is_gone(&self) -> bool {
        self.0 == "DELETE_COMPLETE"
    }

    /// Of a resource: its stack does not hold it any more.
    pub fn is_out(&self) -> bool {
        ["DELETE_COMPLETE", "DELETE_SKIPPED"].contains(&self.0.as_str())
    }

    pub fn is_failure(&self) -> bool {
        self.0.ends_with("_FAILED")
    }
}

/// Something that happened to a resource, or to the stack itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// As AWS writes it.
    pub at: String,
    pub resource: String,
    pub kind: String,
    pub physical: String,
    pub status: Status,
    pub why: Option<String>,
}

/// A resource of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: String,
    pub kind: String,
    pub physical: String,
    pub status: Status,
}

/// A resource that is not as its template says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub id: String,
    pub kind: String,
    /// `MODIFIED` or `DELETED`.
    pub status: String,
    /// Path of the property, what the template says, what is.
    pub differences: Vec<(String, String, String)>,
}

fn texts(node: &Node, name: &str) -> String {
    node.text(name).to_owned()
}

fn stack(node: &Node) -> Stack {
    let output = |node: &Node| Output {
        id: texts(node, "OutputKey"),
        value: texts(node, "OutputValue"),
        about: texts(node, "Description"),
    };
    let updated = node.maybe("LastUpdatedTime");
    Stack {
        name: texts(node, "StackName"),
        id: texts(node, "StackId"),
        status: Status(texts(node, "StackStatus")),
        why: node.maybe("StackStatusReason"),
        outputs: node.list("Outputs").map(output).collect(),
        parameters: node
            .list("Parameters")
            .map(|node| (texts(node, "ParameterKey"), texts(node, "ParameterValue")))
            .collect(),
        tags: node
            .list("Tags")
            .map(|node| (texts(node, "Key"), texts(node, "Value")))
            .collect(),
        is_protected: node.text("EnableTerminationProtection") == "true",
        at: updated.unwrap_or_else(|| texts(node, "CreationTime")),
        drift: node
            .at(&["DriftInformation", "StackDriftStatus"])
            .map_or_else(|| "NOT_CHECKED".into(), |node| node.text.clone()),
    }
}

/// All stacks of the region that are there.
pub async fn all(client: &Client) -> Result<Vec<Stack>, Error> {
    let pages = pages(client, &call::DESCRIBE_STACKS, &Form::default()).await?;
    Ok(pages
        .iter()
        .flat_map(|page| page.list("Stacks"))
        .map(stack)
        .collect())
}

/// One stack by name or id; by its id it is found after its end too.
pub async fn one(client: &Client, name: &str) -> Result<Option<Stack>, Error> {
    let mut form = Form::default();
    form.add("StackName", name);
    match client.query(&call::DESCRIBE_STACKS, form).await {
        Ok(answer) => Ok(answer.list("Stacks").map(stack).next()),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// AWS has no code of its own for a stack that is not there.
pub fn is_missing(error: &Error) -> bool {
    error.code() == "ValidationError" && error.message().contains("does not exist")
}

/// What happened after the event `mark`, oldest first; all of it without a mark.
pub async fn events(client: &Client, stack: &str, mark: Option<&str>) -> Result<Vec<Event>, Error> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let mut form = Form::default();
        form.add("StackName", stack).maybe("NextToken", next.as_deref());
        let page = client.query(&call::DESCRIBE_STACK_EVENTS, form).await?;
        for node in page.list("StackEvents") {
            let event = event(node);
            if Some(event.id.as_str()) == mark {
                found.reverse();
                return Ok(found);
            }
            found.push(event);
        }
        next = page.maybe("NextToken");
        if next.is_none() {
            found.reverse();
            return Ok(found);
        }
    }
}

fn event(node: &Node) -> Event {
    Event {
        id: texts(node, "EventId"),
        at: texts(node, "Timestamp"),
        resource: texts(node, "LogicalResourceId"),
        kind: texts(node, "ResourceType"),
        physical: texts(node, "PhysicalResourceId"),
        status: Status(texts(node, "ResourceStatus")),
        why: node.maybe("ResourceStatusReason"),
    }
}

/// What a stack holds.
pub async fn resources(client: &Client, stack: &str) -> Result<Vec<Held>, Error> {
    let mut form = Form::default();
    form.add("StackName", stack);
    let pages = pages(client, &call::LIST_STACK_RESOURCES, &form).await?;
    let held = |node: &Node| Held {
        id: texts(node, "LogicalResourceId"),
        kind: texts(node, "ResourceType"),
        physical: texts(node, "PhysicalResourceId"),
        status: Status(texts(node, "ResourceStatus")),
    };
    let all = pages.iter().flat_map(|page| page.list("StackResourceSummaries"));
    Ok(all.map(held).collect())
}

/// Names and ids of the destroyed stacks of these names; CloudFormation remembers them for 90 days.
pub async fn destroyed(client: &Client, names: &[&str]) -> Result<Vec<(String, String)>, Error> {
    let mut form = Form::default();
    form.list("StackStatusFilter.member", ["DELETE_COMPLETE"]);
    let pages = pages(client, &call::LIST_STACKS, &form).await?;
    let all = pages.iter().flat_map(|page| page.list("StackSummaries"));
    let ours = all.filter(|node| names.contains(&node.text("StackName")));
    Ok(ours
        .map(|node| (texts(node, "StackName"), texts(node, "StackId")))
        .collect())
}

/// Makes a stack that is not there; it is rolled back when it fails. `token`: a repeat is the same stack.
pub async fn create(
    client: &Client,
    name: &str,
    (body, tags): (&Body, &[(&str, String)]),
    role: Option<&str>,
    (protects, values): (bool, &[(&str, &str)]),
    token: &str,
) -> Result<(), Error> {
    let mut form = Form::default();
    form.pairs("Tags.member", tags);
    form.add("StackName", name).maybe("RoleARN", role);
    for (index, (id, value)) in values.iter().enumerate() {
        let name = format!("Parameters.member.{}", index + 1);
        form.add(&format!("{name}.ParameterKey"), id);
        form.add(&format!("{name}.ParameterValue"), value);
    }
    form.list("Capabilities.member", ["CAPABILITY_NAMED_IAM"]);
    form.add("OnFailure", "ROLLBACK").add("ClientRequestToken", token);
    form.add(
        "EnableTerminationProtection",
        if protects { "true" } else { "false" },
    );
    body.fill(&mut form);
    client.query(&call::CREATE_STACK, form).await.map(drop)
}

/// Gives parameters other values, and changes nothing else; the role that made the stack changes it. False: they have these
/// values. A repeat, before anything else has changed the stack, is the same change.
pub async fn turn(client: &Client, stack: &Stack, values: &[(String, String)]) -> Result<bool, Error> {
    let token = digest(format!("{}|{}|{values:?}", stack.id, stack.at).as_bytes());
    let mut form = Form::default();
    form.add("StackName", &stack.name)
        .add("UsePreviousTemplate", "true");
    form.list("Capabilities.member", ["CAPABILITY_NAMED_IAM"]);
    form.add("ClientRequestToken", &format!("vend-{}", &token[..32]));
    for (index, (id, _)) in stack.parameters.iter().enumerate() {
        let name = format!("Parameters.member.{}", index + 1);
        form.add(&format!("{name}.ParameterKey"), id);
        match values.iter().find(|(own, _)| own == id) {
            Some((_, value)) => form.add(&format!("{name}.ParameterValue"), value),
            None => form.add(&format!("{name}.UsePreviousValue"), "true"),
        };
    }
    match client.query(&call::UPDATE_STACK, form).await {
        Err(error) if error.message().contains("No updates are to be performed") => Ok(false),
        other => other.map(|_| true),
    }
}

/// Deletes; with the role that made it, where there is one. `token`: a repeat is the same deletion.
pub async fn delete(
    client: &Client,
    stack: &str,
    role: Option<&str>,
    keep: &[String],
    token: &str,
) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", stack).maybe("RoleARN", role);
    form.list("RetainResources.member", keep.iter().map(String::as_str));
    form.add("ClientRequestToken", token);
    client.query(&call::DELETE_STACK, form).await.map(drop)
}

/// Whether the stack can be deleted.
pub async fn protect(client: &Client, stack: &str, on: bool) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", stack);
    form.add("EnableTerminationProtection", if on { "true" } else { "false" });
    client.query(&call::PROTECT_STACK, form).await.map(drop)
}

/// Leaves UPDATE_ROLLBACK_FAILED; what is in `skip` is left as it is.
pub async fn carry_on(
    client: &Client,
    stack: &str,
    role: Option<&str>,
    skip: &[String],
    token: &str,
) -> Result<(), Error> {
    let mut form = Form::default();
    form.add("StackName", stack).maybe("RoleARN", role);
    form.list("ResourcesToSkip.member", skip.iter().map(String::as_str));
    form.add("ClientRequestToken", token);
    client.query(&call::CONTINUE, form).await.map(drop)
}

/// Begins to compare; gives what to ask with.
pub async fn detect(client: &Client, stack: &str) -> Result<String, Error> {
    let mut form = Form::default();
    form.add("StackName", stack);
    let answer = client.query(&call::DETECT_DRIFT, form).await?;
    Ok(texts(&answer, "StackDriftDetectionId"))
}

/// The state of a comparison: `DETECTION_IN_PROGRESS`, `DETECTION_COMPLETE`, `DETECTION_FAILED`; the stack's drift; why.
pub async fn detected(client: &Client, id: &str) -> Result<(String, String, Option<String>), Error> {
    let mut form = Form::default();
    form.add("StackDriftDetectionId", id);
    let answer = client.query(&call::DRIFT_STATUS, form).await?;
    let why = answer.maybe("DetectionStatusReason");
    Ok((
        texts(&answer, "DetectionStatus"),
        texts(&answer, "StackDriftStatus"),
        why,
    ))
}

/// What is not as the template says.
pub async fn drifts(client: &Client, stack: &str) -> Result<Vec<Drift>, Error> {
    let mut form = Form::default();
    form.add("StackName", stack);
    form.list("StackResourceDriftStatusFilters.member", ["MODIFIED", "DELETED"]);
    let pages = pages(client, &call::RESOURCE_DRIFTS, &form).await?;
    let all = pages.iter().flat_map(|page| page.list("StackResourceDrifts"));
    Ok(all.map(drift).collect())
}

fn drift(node: &Node) -> Drift {
    let difference = |node: &Node| {
        let [path, expected, actual] =
            ["PropertyPath", "ExpectedValue", "ActualValue"].map(|name| texts(node, name));
        (path, expected, actual)
    };
    Drift {
        id: texts(node, "LogicalResourceId"),
        kind: texts(node, "ResourceType"),
        status: texts(node, "StackResourceDriftStatus"),
        differences: node.list("PropertyDifferences").map(difference).collect(),
    }
}

/// All pages of a list.
pub(crate) async fn pages(client: &Client, call: &call::Call, form: &Form) -> Result<Vec<Node>, Error> {
    let mut pages = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut form = form.clone();
        form.maybe("NextToken", next.as_deref());
        let page = client.query(call, form).await?;
        next = page.maybe("NextToken");
        pages.push(page);
        if next.is_none() {
            return Ok(pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_told_apart() {
        let status = |text: &str| Status(text.into());
        assert!(status("UPDATE_ROLLBACK_IN_PROGRESS").is_moving());
        assert!(!status("REVIEW_IN_PROGRESS").is_moving());
        assert!(status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS").is_moving());
        assert!(
            status("UPDATE_ROLLBACK_COMPLETE").is_usable() && !status("UPDATE_ROLLBACK_COMPLETE").is_good()
        );
        assert!(status("ROLLBACK_COMPLETE").is_stillborn() && !status("ROLLBACK_COMPLETE").is_usable());
        assert!(status("DELETE_FAILED").is_failure());
        assert!(status("ROLLBACK_IN_PROGRESS").is_ending() && status("DELETE_IN_PROGRESS").is_ending());
        assert!(!status("UPDATE_ROLLBACK_IN_PROGRESS").is_ending());
    }

    /// The shape of an answer as AWS gives it, which moto does not fill in.
    #[test]
    fn a_drift_is_read() {
        let node = Node::parse(
            b"<m><LogicalResourceId>Key</LogicalResourceId><StackResourceDriftStatus>MODIFIED</StackResourceDriftStatus>\
              <PropertyDifferences><member><PropertyPath>/EnableKeyRotation</PropertyPath><ExpectedValue>true</ExpectedValue>\
              <ActualValue>false</ActualValue></member></PropertyDifferences></m>",
        );
        let drift = drift(&node.unwrap());
        assert_eq!(
            drift.differences,
            [("/EnableKeyRotation".into(), "true".into(), "false".into())]
        );
    }
}
