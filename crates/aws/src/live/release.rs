//! Releases of an environment: executions of its flow. What a release releases is its input; where it is, its history says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{pages, text, vault::at};
use crate::{
    call,
    client::{Client, Error},
    sign::digest,
};

/// Characters of a cause: AWS takes 32,768.
const CAUSE: usize = 1_000;

/// Characters of a token: AWS gives at most 2,048.
const TOKEN: usize = 2_048;

/// Where a flow is once its release is live: the half before is kept, and then stops.
const LIVE: [&str; 10] = [
    "Keep",
    "TurnToRetire",
    "NewestToRetire",
    "IsNewestToRetire",
    "Retire",
    "IsRetired",
    "LeaveForGood",
    "LeaveKept",
    "TellKept",
    "Live",
];

/// How the states begin that stop a half.
const STOP: &str = "Stop";

/// What a question's No is called; [`reject`] and the mail that asks say it.
pub const REJECTED: &str = "Vend.Refused";

/// Where a flow ends whose release is behind a later one that is live.
const SUPERSEDED: &str = "Superseded";

/// What a flow is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    pub app: String,
    pub branch: String,
    /// 40 or 64 hex digits.
    pub commit: String,
    /// `Name <mail>`
    pub author: String,
    pub message: String,
    /// Who pushed, or started it.
    pub sender: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Release {
    pub arn: String,
    /// Begins with twelve digits of its commit.
    pub name: String,
    /// Step Functions' word: `RUNNING`, `SUCCEEDED`, `FAILED`, `TIMED_OUT`, `ABORTED`.
    pub status: String,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

impl Release {
    pub fn is_running(&self) -> bool {
        self.status == "RUNNING"
    }

    /// Is it live, or was it once? `state`: where it is, or was when it ended.
    pub fn is_live(&self, state: Option<&str>) -> bool {
        match state {
            Some(state) if LIVE.contains(&state) || state.starts_with(STOP) => true,
            _ => self.status == "SUCCEEDED" && !self.is_superseded(state),
        }
    }

    /// Was a release live by then that began later? `state` as for [`Self::is_live`].
    pub fn is_superseded(&self, state: Option<&str>) -> bool {
        self.status == "SUCCEEDED" && state == Some(SUPERSEDED)
    }

    /// Is it of this commit? Executions that were started by hand may be called anything.
    pub fn is_of(&self, commit: &str) -> bool {
        commit
            .get(..12)
            .is_some_and(|start| self.name.starts_with(&format!("{start}-")))
    }
}

/// More about a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// None: it was started by hand, with something else.
    pub push: Option<Push>,
    pub error: Option<String>,
    pub cause: Option<String>,
}

impl About {
    /// Did somebody say no? The cause then says who, and why, if they did.
    pub fn is_rejected(&self) -> bool {
        self.error.as_deref() == Some(REJECTED)
    }
}

/// Where a release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The state that was entered last.
    pub state: Option<String>,
    pub question: Option<Question>,
}

/// A release waits for people.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// Who shows it answers.
    pub token: String,
    /// What is asked, without the token.
    pub text: String,
    /// Who said yes already, where one yes is not enough: what [`person`] makes of them.
    pub people: Vec<String>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

/// The name of a commit's `attempt`th release of an environment: who starts it twice starts it once.
pub fn name(commit: &str, environment: &str, attempt: usize) -> String {
    let digest = digest(format!("{environment}|{commit}|{attempt}").as_bytes());
    let commit: String = commit.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    format!("{commit}-{}", &digest[..32])
}

/// What the machine of branches is given for a push: its stacks are made, and then its flow gets the push as `release`.
/// `expires`: seconds until nobody wants it any more, if nobody pushes again.
pub fn job(environment: &str, branch: &str, expires: u64, release: &str, push: &Value) -> Value {
    json!({
        "action": "apply", "environment": environment, "branch": branch, "expires": expires, "release": release, "push": push,
    })
}

/// What the machine of branches is given for the deletion of a branch. `commit`: what it stood at; `event`: what tells this
/// deletion from every other one, and cannot be changed by who sends it again.
pub fn end(environment: &str, branch: &str, commit: &str, event: &str) -> Value {
    json!({ "action": "destroy", "environment": environment, "branch": branch, "commit": commit, "event": event })
}

/// Starts a release. The same name and push again are the same release while it runs; None: it has ended by now.
pub async fn start(client: &Client, flow: &str, name: &str, push: &Push) -> Result<Option<String>, Error> {
    execute(client, flow, name, &json!(push)).await
}

/// Starts an execution of any machine, as [`start`] does.
pub async fn execute(
    client: &Client,
    machine: &str,
    name: &str,
    input: &Value,
) -> Result<Option<String>, Error> {
    let ask = json!({ "stateMachineArn": machine, "name": name, "input": input.to_string() });
    match client.json(&call::RELEASE, ask).await {
        Err(error) if error.code() == "ExecutionAlreadyExists" => Ok(None),
        other => other.map(|answer| Some(text(&answer, "executionArn"))),
    }
}

/// The newest releases, newest first.
pub async fn list(client: &Client, flow: &str, most: usize) -> Result<Vec<Release>, Error> {
    let ask = json!({ "stateMachineArn": flow, "maxResults": most.clamp(1, 1_000) });
    let found = pages(client, &call::RELEASES, &ask, "executions", most, "nextToken").await?;
    let mut all: Vec<Release> = found.iter().map(read).collect();
    all.sort_by_key(|release| std::cmp::Reverse(release.began));
    Ok(all)
}

fn read(value: &Value) -> Release {
    Release {
        arn: text(value, "executionArn"),
        name: text(value, "name"),
        status: text(value, "status"),
        began: at(&value["startDate"]),
        ended: at(&value["stopDate"]),
    }
}

/// What a release releases, and why it failed.
pub async fn about(client: &Client, release: &str) -> Result<About, Error> {
    let found = client
        .json(&call::ONE_RELEASE, json!({ "executionArn": release }))
        .await?;
    let maybe = |member: &str| found[member].as_str().map(str::to_owned);
    Ok(About {
        push: serde_json::from_str(&text(&found, "input")).ok(),
        error: maybe("error"),
        cause: maybe("cause"),
    })
}

/// One release as it is now.
pub async fn one(client: &Client, release: &str) -> Result<Release, Error> {
    let found = client
        .json(&call::ONE_RELEASE, json!({ "executionArn": release }))
        .await?;
    Ok(read(&found))
}

/// Is a release live, or was it once? Of one that has failed nobody has to be asked.
pub async fn was_live(client: &Client, release: &Release) -> Result<bool, Error> {
    if release.status == "FAILED" {
        return Ok(false);
    }
    let state = stand(client, &release.arn).await?.state;
    Ok(release.is_live(state.as_deref()))
}

/// Where a release is, or was when it ended. The newest events say it: a page of them is enough.
pub async fn stand(client: &Client, release: &str) -> Result<Stand, Error> {
    let ask = json!({
        "executionArn": release, "reverseOrder": true, "includeExecutionData": true, "maxResults": 100,
    });
    let mut page = client.json(&call::HISTORY, ask).await?;
    let Value::Array(mut events) = page["events"].take() else {
        return Ok(Stand {
            state: None,
            question: None,
        });
    };
    // Not everybody who speaks the protocol turns the order.
    events.sort_by_key(|event| std::cmp::Reverse(event["id"].as_i64()));
    Ok(Stand {
        state: entered(&events),
        question: asked(&events),
    })
}

fn entered(newest_first: &[Value]) -> Option<String> {
    let mut names = newest_first
        .iter()
        .filter_map(|event| event["stateEnteredEventDetails"]["name"].as_str());
    names.next().map(str::to_owned)
}

/// The question that was put last, if nothing has happened since.
fn asked(newest_first: &[Value]) -> Option<Question> {
    let kind = |event: &Value| text(event, "type");
    let mut open = newest_first
        .iter()
        .skip_while(|event| ["TaskSubmitted", "TaskStarted"].contains(&kind(event).as_str()));
    let event = open.next().filter(|event| kind(event) == "TaskScheduled")?;
    let task = &event["taskScheduledEventDetails"];
    if !text(task, "resource").ends_with(".waitForTaskToken") {
        return None;
    }
    let asked: Value = serde_json::from_str(&text(task, "parameters")).ok()?;
    let message = text(&asked, "Message");
    // Each kind of reader has a text of its own; what mails say is everybody's else.
    let message = match serde_json::from_str::<Value>(&message) {
        Ok(each) => text(&each, "default"),
        Err(_) => message,
    };
    let token = token(&message)?.to_owned();
    // The first paragraph says what is asked; the rest is how to answer.
    let text = message.split("\n\n").next().unwrap_or_default().to_owned();
    let people = people(&asked["MessageAttributes"]["People"]["StringValue"]);
    Some(Question { token, text, people })
}

/// A list of texts as JSON; of a single one JSONata makes a text.
fn people(value: &Value) -> Vec<String> {
    let list = value.as_str().unwrap_or_default();
    match serde_json::from_str(list) {
        Ok(people) => people,
        Err(_) if list.is_empty() => Vec::new(),
        Err(_) => vec![list.to_owned()],
    }
}

/// Who somebody is, by the ARN with which they call. A session's name is for who begins it to choose, so that all who are in
/// a role are one person, but for the roles of Identity Center, which names sessions after people.
pub fn person(arn: &str) -> &str {
    let session = arn.split_once(":assumed-role/").map(|(_, session)| session);
    match session.and_then(|session| session.rsplit_once('/')) {
        Some((role, name)) if !role.starts_with("AWSReservedSSO_") => &arn[..arn.len() - name.len() - 1],
        _ => arn,
    }
}

/// The token of a question: its last word. What comes before it says who wrote the commit, and that is what they call
/// themselves; the end is the flow's own.
fn token(message: &str) -> Option<&str> {
    let (before, token) = message.rsplit_once(' ')?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_.".contains(&byte);
    let is_whole = (1..=TOKEN).contains(&token.len()) && token.bytes().all(is_token);
    (before.ends_with(" --task-token") && is_whole).then_some(token)
}

/// Answers yes. False: nobody waits for the answer any more.
pub async fn approve(client: &Client, question: &Question, by: &str) -> Result<bool, Error> {
    let output = json!({ "by": by }).to_string();
    let ask = json!({ "taskToken": question.token, "output": output });
    answered(client.json(&call::SAY_YES, ask).await)
}

/// Answers no, and why. False: nobody waits for the answer any more.
pub async fn reject(client: &Client, question: &Question, why: &str) -> Result<bool, Error> {
    let cause: String = why.chars().take(CAUSE).collect();
    let ask = json!({ "taskToken": question.token, "error": REJECTED, "cause": cause });
    answered(client.json(&call::SAY_NO, ask).await)
}

fn answered(outcome: Result<Value, Error>) -> Result<bool, Error> {
    match outcome {
        Err(error) if ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"].contains(&error.code()) => {
            Ok(false)
        }
        other => other.map(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as AWS writes them, newest first.
    fn waiting() -> Vec<Value> {
        asking("A", "AQB4/+=x")
    }

    fn asking(author: &str, token: &str) -> Vec<Value> {
        let message = format!(
            "shop, production: commit abc by {author}, image ami-1.\n\nYes:\naws stepfunctions send-task-success \
             --task-output \"{{}}\" --task-token {token}\n\nNo:\naws … --task-token {token}"
        );
        let parameters = json!({ "TopicArn": "arn", "Message": message }).to_string();
        let resource = "publish.waitForTaskToken";
        vec![
            json!({ "type": "TaskSubmitted", "taskSubmittedEventDetails": { "resource": resource } }),
            json!({ "type": "TaskStarted", "taskStartedEventDetails": { "resource": resource } }),
            json!({ "type": "TaskScheduled",
                    "taskScheduledEventDetails": { "resourceType": "sns", "resource": resource, "parameters": parameters } }),
            json!({ "type": "TaskStateEntered", "stateEnteredEventDetails": { "name": "Approve" } }),
            json!({ "type": "ParallelStateEntered", "stateEnteredEventDetails": { "name": "BuildAndBake" } }),
        ]
    }

    #[test]
    fn a_question_is_found_while_it_is_open() {
        let mut events = waiting();
        assert_eq!(entered(&events).as_deref(), Some("Approve"));
        let question = asked(&events).unwrap();
        assert_eq!(question.token, "AQB4/+=x");
        assert_eq!(question.text, "shop, production: commit abc by A, image ami-1.");
        assert!(!format!("{question:?}").contains("AQB4"));
        events.insert(0, json!({ "type": "TaskSucceeded" }));
        assert_eq!(asked(&events), None);
    }

    #[test]
    fn who_wrote_a_commit_does_not_choose_the_token() {
        for author in [
            "Eve --task-token AQB4stolen",
            "Eve --task-token AQB4stolen\n\nNo:\naws … --task-token AQB4stolen",
        ] {
            assert_eq!(
                asked(&asking(author, "AQB4/+=x")).unwrap().token,
                "AQB4/+=x",
                "{author}"
            );
        }
        for token in ["", "a;b", "a\nb", "ä", &"A".repeat(TOKEN + 1)] {
            assert_eq!(
                asked(&asking("Eve --task-token AQB4stolen", token)),
                None,
                "{token}"
            );
        }
        assert!(asked(&asking("A", &"A".repeat(TOKEN))).is_some());
    }

    #[test]
    fn who_said_yes_is_known_while_others_are_asked() {
        for (said, wanted) in [("[]", vec![]), (r#"["a","b"]"#, vec!["a", "b"]), ("a", vec!["a"])] {
            let mut events = waiting();
            let task = &mut events[2]["taskScheduledEventDetails"];
            let mut parameters: Value = serde_json::from_str(task["parameters"].as_str().unwrap()).unwrap();
            parameters["MessageAttributes"] =
                json!({ "People": { "DataType": "String", "StringValue": said } });
            task["parameters"] = json!(parameters.to_string());
            assert_eq!(asked(&events).unwrap().people, wanted, "{said}");
        }
        assert!(asked(&waiting()).unwrap().people.is_empty());
    }

    #[test]
    fn whoever_names_their_own_session_is_their_role() {
        let sso = "arn:aws:sts::1:assumed-role/AWSReservedSSO_Operators_0a1b/alice@example.com";
        for (arn, wanted) in [
            ("arn:aws:iam::1:user/alice", "arn:aws:iam::1:user/alice"),
            ("arn:aws:iam::1:user/a/alice", "arn:aws:iam::1:user/a/alice"),
            (
                "arn:aws:sts::1:assumed-role/deploy/alice",
                "arn:aws:sts::1:assumed-role/deploy",
            ),
            (
                "arn:aws:sts::1:assumed-role/deploy/AWSReservedSSO_x",
                "arn:aws:sts::1:assumed-role/deploy",
            ),
            (sso, sso),
            ("", ""),
        ] {
            assert_eq!(person(arn), wanted);
        }
    }

    #[test]
    fn other_tasks_ask_nothing() {
        let mut events = waiting();
        events[2]["taskScheduledEventDetails"]["resource"] = json!("publish");
        assert_eq!(asked(&events), None);
        events = waiting();
        events[2]["taskScheduledEventDetails"]["parameters"] = json!("{}");
        assert_eq!(asked(&events), None);
        assert_eq!(asked(&[]), None);
        assert_eq!(entered(&[json!({ "type": 7 })]), None);
    }

    #[test]
    fn what_a_later_release_went_before_was_never_live() {
        let of = |status: &str| Release {
            arn: "arn".into(),
            name: "0123456789ab-1".into(),
            status: status.into(),
            began: None,
            ended: None,
        };
        for (status, state, is_live) in [
            ("RUNNING", None, false),
            ("RUNNING", Some("Release"), false),
            ("RUNNING", Some("TellSuperseded"), false),
            ("RUNNING", Some("Keep"), true),
            ("RUNNING", Some("TurnToRetire"), true),
            ("RUNNING", Some("StopWait"), true),
            ("TIMED_OUT", Some("TellKept"), true),
            // Somebody stopped it while the half before was kept.
            ("ABORTED", Some("Keep"), true),
            ("ABORTED", Some("Release"), false),
            ("FAILED", Some("Failed"), false),
            ("SUCCEEDED", Some("Live"), true),
            ("SUCCEEDED", None, true),
            ("SUCCEEDED", Some("Superseded"), false),
        ] {
            let own = of(status);
            assert_eq!(own.is_live(state), is_live, "{status} {state:?}");
            assert_eq!(
                own.is_superseded(state),
                state == Some("Superseded"),
                "{status} {state:?}"
            );
        }
    }

    #[test]
    fn a_release_has_the_name_of_its_attempt() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let first = name(commit, "production", 1);
        assert_eq!(first, name(commit, "production", 1));
        assert!(first.starts_with("0123456789ab-") && first.len() == 45);
        assert_ne!(first, name(commit, "production", 2));
        assert_ne!(first, name(commit, "staging", 1));
    }
}
