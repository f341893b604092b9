//! Waiting for a stack, and saying in one sentence why it failed.

use std::time::Duration;

use serde::Serialize;

use crate::{
    call,
    client::{Client, Error, Form},
    stack::{self, Event, Stack, Status},
};

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(5);
/// CloudFormation answers before it has begun: so long the first event may take, and a status to be as the events say.
const BEGIN: Duration = Duration::from_secs(60);
/// CloudFormation gives up a resource after three hours at the latest.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// Pauses between two looks: short at first, because much is done at once.
pub(crate) struct Pace {
    next: Duration,
    rested: Duration,
    /// Since something new was heard.
    quiet: Duration,
}

impl Pace {
    pub fn new() -> Self {
        Self {
            next: FIRST,
            rested: Duration::ZERO,
            quiet: Duration::ZERO,
        }
    }

    pub async fn rest(&mut self) {
        tokio::time::sleep(self.next).await;
        self.rested += self.next;
        self.quiet += self.next;
        self.next = (self.next * 3 / 2).min(MOST);
    }

    fn is_news(&mut self) {
        self.quiet = Duration::ZERO;
    }

    /// Has nothing been heard for longer than CloudFormation takes to begin, and to tell?
    fn is_late(&self) -> bool {
        self.quiet > BEGIN
    }

    /// Has it been waited for longer than anything takes?
    fn is_over(&self) -> bool {
        self.rested > PATIENCE
    }
}

/// Waits until the stack stands still, four hours at most, and tells what happens after the event `mark`. `id` is the stack's id, by which it
/// is found after its end too. None: there is no such stack.
pub async fn wait(
    client: &Client,
    id: &str,
    mark: Option<String>,
    tell: &mut dyn FnMut(&Event),
) -> Result<(Option<Stack>, Vec<Event>), Error> {
    let mut mark = mark;
    let mut seen = Vec::new();
    let mut pace = Pace::new();
    loop {
        // The status first: what happens after it is told in the next round.
        let now = stack::one(client, id).await?;
        let new = match stack::events(client, id, mark.as_deref()).await {
            Err(error) if stack::is_missing(&error) => Vec::new(),
            other => other?,
        };
        if !new.is_empty() {
            pace.is_news();
        }
        for event in new {
            tell(&event);
            mark = Some(event.id.clone());
            seen.push(event);
        }
        match now {
            Some(stack) if stack.status.is_gone() => return Ok((Some(stack), seen)),
            Some(stack) if stack.status.is_moving() && !pace.is_over() => pace.rest().await,
            Some(stack) if !is_told(&stack, &seen) && !pace.is_late() => pace.rest().await,
            None if seen.is_empty() && !pace.is_late() => pace.rest().await,
            other => return Ok((other, seen)),
        }
    }
}

/// Do the events end with this status? Statuses and events are answered from different places: right after something was begun
/// the status may still be that of before, and the events may end with a failure that the status does not have yet.
fn is_told(stack: &Stack, seen: &[Event]) -> bool {
    let is_own = |event: &&Event| event.physical == stack.id || event.resource == stack.name;
    seen.iter()
        .rev()
        .find(is_own)
        .is_some_and(|event| event.status == stack.status)
}

/// The newest event, after which something is done.
pub async fn mark(client: &Client, stack: &str) -> Result<Option<String>, Error> {
    let mut form = Form::default();
    form.add("StackName", stack);
    match client.query(&call::DESCRIBE_STACK_EVENTS, form).await {
        Ok(page) => Ok(page
            .list("StackEvents")
            .next()
            .and_then(|event| event.maybe("EventId"))),
        Err(error) if stack::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a stack failed: the first resource that did, and what its service said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub resource: String,
    pub kind: String,
    pub physical: String,
    pub why: String,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.resource, self.kind, self.why)
    }
}

/// The cause among events, oldest first. What was only cancelled because of another is none.
pub fn cause(stack: &str, events: &[Event]) -> Option<Cause> {
    let failures = || events.iter().filter(|event| event.status.is_failure());
    let is_first = |event: &&Event| {
        let why = event.why.as_deref().unwrap_or_default();
        event.resource != stack && !why.is_empty() && !why.contains("cancelled")
    };
    let rollback = |event: &&Event| event.status.0.contains("ROLLBACK") && event.why.is_some();
    let found = failures()
        .find(is_first)
        .or_else(|| failures().find(|event| event.why.is_some()));
    let event = found.or_else(|| events.iter().find(rollback))?;
    Some(Cause {
        resource: event.resource.clone(),
        kind: event.kind.clone(),
        physical: event.physical.clone(),
        why: raced(&event.kind, sentence(event.why.as_deref().unwrap_or_default())),
    })
}

/// Whoever made a rule at the same moment has the priority that was free when it was asked for.
fn raced(kind: &str, why: String) -> String {
    let is_taken = kind == "AWS::ElasticLoadBalancingV2::ListenerRule"
        && why.contains("Priority")
        && why.contains("in use");
    match is_taken {
        true => format!("{why}: taken by another stack meanwhile; type it again, and another is chosen"),
        false => why,
    }
}

/// What could not be deleted, and was not after all, although its stack came to a good end: it stays, and nobody holds it.
pub fn left(events: &[Event]) -> Vec<Cause> {
    let is_gone = |own: &Event| {
        let mut later = events.iter();
        later.any(|event| event.physical == own.physical && event.status == Status("DELETE_COMPLETE".into()))
    };
    let mut left: Vec<Cause> = Vec::new();
    let failed = events
        .iter()
        .filter(|event| event.status == Status("DELETE_FAILED".into()));
    for event in failed.filter(|event| !event.physical.is_empty() && !is_gone(event)) {
        if !left.iter().any(|own| own.physical == event.physical) {
            left.push(Cause {
                resource: event.resource.clone(),
                kind: event.kind.clone(),
                physical: event.physical.clone(),
                why: sentence(event.why.as_deref().unwrap_or_default()),
            });
        }
    }
    left
}

/// What a service said, without the numbers that only its support reads.
fn sentence(why: &str) -> String {
    let mut text = why.split("(Service:").next().unwrap_or_default().trim();
    for start in [
        "Resource handler returned message:",
        "Properties validation failed for resource",
    ] {
        if let Some(rest) = text.strip_prefix(start) {
            text = rest.trim();
        }
    }
    let text = text.trim_matches(['"', ' ']);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The cause, asked of the failed resource itself where its event says only that something did not come in time.
pub async fn asked(client: &Client, cause: Cause) -> Cause {
    if cause.kind != "AWS::AutoScaling::AutoScalingGroup" || cause.physical.is_empty() {
        return cause;
    }
    let mut form = Form::default();
    form.add("AutoScalingGroupName", &cause.physical)
        .add("MaxRecords", "20");
    // The event's own words are better than an error about them.
    let Ok(answer) = client.query(&call::SCALING_ACTIVITIES, form).await else {
        return cause;
    };
    let failed = answer
        .list("Activities")
        .find(|activity| activity.text("StatusCode") == "Failed");
    match failed.and_then(|activity| activity.maybe("StatusMessage")) {
        Some(why) => Cause {
            why: format!("{}: {}", cause.why, sentence(&why)),
            ..cause
        },
        None => cause,
    }
}

/// Resources whose rollback failed: what UPDATE_ROLLBACK_FAILED hangs on.
pub fn stuck(stack: &str, events: &[Event]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for event in events.iter().rev() {
        if event.resource == stack && event.status == Status("UPDATE_ROLLBACK_IN_PROGRESS".into()) {
            break;
        }
        let failed = event.status == Status("UPDATE_FAILED".into()) && event.resource != stack;
        if failed && !found.contains(&event.resource) {
            found.push(event.resource.clone());
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, action};

    fn event(resource: &str, status: &str, why: &str) -> Event {
        Event {
            id: format!("{resource}{status}"),
            at: String::new(),
            resource: resource.into(),
            kind: "AWS::X::Y".into(),
            physical: String::new(),
            status: Status(status.into()),
            why: Some(why.to_owned()).filter(|why| !why.is_empty()),
        }
    }

    #[test]
    fn the_first_failure_is_the_cause() {
        let events = [
            event("s", "CREATE_IN_PROGRESS", "User Initiated"),
            event("A", "CREATE_FAILED", "Resource creation cancelled"),
            event(
                "B",
                "CREATE_FAILED",
                "Resource handler returned message: \"You have attempted to create more buckets than allowed (Service: S3, \
                 Status Code: 400, Request ID: X)\" (RequestToken: y)",
            ),
            event(
                "s",
                "ROLLBACK_IN_PROGRESS",
                "The following resource(s) failed to create: [B].",
            ),
        ];
        let cause = cause("s", &events).unwrap();
        assert_eq!(
            cause.to_string(),
            "B (AWS::X::Y): You have attempted to create more buckets than allowed"
        );
        assert!(
            super::cause("s", &events[3..])
                .unwrap()
                .why
                .contains("failed to create: [B]")
        );
        assert_eq!(super::cause("s", &events[..1]), None);
    }

    /// Two who apply at one moment are told the same number, and the second is refused.
    #[test]
    fn who_comes_second_for_a_priority_is_told_to_come_again() {
        let taken = |kind: &str| {
            let why = "Priority '7' is currently in use (Service: ElasticLoadBalancingV2, Status Code: 400, Request ID: X)";
            let event = Event {
                kind: kind.into(),
                ..event("Rule", "CREATE_FAILED", why)
            };
            cause("s", &[event]).unwrap().why
        };
        assert_eq!(
            taken("AWS::ElasticLoadBalancingV2::ListenerRule"),
            "Priority '7' is currently in use: taken by another stack meanwhile; type it again, and another is chosen"
        );
        assert_eq!(taken("AWS::X::Y"), "Priority '7' is currently in use");
    }

    /// The status is that of before, and the events are of now.
    #[tokio::test]
    async fn an_old_status_is_not_the_end() {
        fn answer(asked: &str, before: &[String]) -> String {
            let rounds = before
                .iter()
                .filter(|own| action(own) == "DescribeStackEvents")
                .count();
            let event = |status: &str| {
                format!(
                    "<member><EventId>{status}</EventId><LogicalResourceId>s</LogicalResourceId><PhysicalResourceId>arn\
                     </PhysicalResourceId><ResourceStatus>{status}</ResourceStatus></member>"
                )
            };
            let (status, events) = match rounds {
                0 => ("UPDATE_COMPLETE", vec![]),
                1 => ("UPDATE_COMPLETE", vec!["UPDATE_IN_PROGRESS"]),
                2 => (
                    "UPDATE_COMPLETE",
                    vec!["UPDATE_ROLLBACK_COMPLETE", "UPDATE_IN_PROGRESS"],
                ),
                _ => (
                    "UPDATE_ROLLBACK_COMPLETE",
                    vec!["UPDATE_ROLLBACK_COMPLETE", "UPDATE_IN_PROGRESS"],
                ),
            };
            match asked {
                "DescribeStacks" => format!(
                    "<Stacks><member><StackName>s</StackName><StackId>arn</StackId><StackStatus>{status}</StackStatus></member></Stacks>"
                ),
                _ => {
                    let events: String = events.into_iter().map(event).collect();
                    format!("<StackEvents>{events}{}</StackEvents>", event("CREATE_COMPLETE"))
                }
            }
        }
        let (address, _) = fixtures::service(answer);
        let mark = Some("CREATE_COMPLETE".to_owned());
        let mut told = Vec::new();
        let mut tell = |event: &Event| told.push(event.status.0.clone());
        let (now, events) = wait(&Client::at(address), "arn", mark, &mut tell).await.unwrap();
        assert_eq!(now.unwrap().status.0, "UPDATE_ROLLBACK_COMPLETE");
        assert_eq!(events.len(), 2);
        assert_eq!(told, ["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]);
    }

    #[test]
    fn what_holds_a_rollback_up_is_named() {
        let events = [
            event("Old", "UPDATE_FAILED", "x"),
            event("s", "UPDATE_ROLLBACK_IN_PROGRESS", "x"),
            event("B", "UPDATE_FAILED", "x"),
            event("s", "UPDATE_ROLLBACK_FAILED", "x"),
        ];
        assert_eq!(stuck("s", &events), ["B"]);
    }
}
