//! A delivery of a git host: verified, and every environment that follows its branch gets an execution.

use aws::{
    call, client,
    lambda::{Request, Response},
    live::release,
};
use model::{
    Digest, EnvironmentName,
    webhook::{self, Event, Provider, Push},
};
use serde_json::{Value, json};
use store::DeliveryVerdict;

use super::{Error, Receiver, say};
use crate::web::hooks;

/// Characters of a commit's message that go on; an execution's input has an end.
const MESSAGE: usize = 1_000;

pub(super) async fn receive(receiver: &mut Receiver, request: &Request) -> Result<Response, Error> {
    let Some(provider) = provider(&request.headers) else {
        return Ok(refused("it is of no git host that is known, or of two"));
    };
    let now = crate::clock::now();
    let secret = receiver.secret(now).await?;
    let (verdict, reason, event) =
        hooks::verify(provider, &request.headers, &request.body, Some(&secret), now);
    match (verdict, event) {
        (DeliveryVerdict::Refused, _) => Ok(refused(&reason.unwrap_or_default())),
        (DeliveryVerdict::Accepted, Some(Event::Push(push))) => {
            start(receiver, &push, &signed(provider, request)).await
        }
        (DeliveryVerdict::Accepted, Some(event)) => match event.deletion() {
            Some((branch, commit)) => end(receiver, branch, commit, &signed(provider, request)).await,
            None => Ok(ignored(&reason.unwrap_or_default())),
        },
        _ => Ok(ignored(&reason.unwrap_or_default())),
    }
}

/// What tells one event from another by what is signed. GitHub signs the body alone, and the id in the header is whatever
/// somebody writes who sends it again; of two pushes that bring a branch to the same commit, the bodies differ by when the
/// repository was pushed to. GitLab signs id and time, or nothing, and what it sends about two deletions may be the same.
fn signed(provider: Provider, request: &Request) -> String {
    let id = match provider {
        Provider::Github => String::new(),
        Provider::Gitlab => webhook::delivery_id(provider, &request.headers, &request.body),
    };
    Digest::of_parts([&request.body[..], id.as_bytes()]).hex()
}

/// Whose delivery it says to be: both sign in ways of their own.
fn provider(headers: &[(String, String)]) -> Option<Provider> {
    let has = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    match (has("x-github-event"), has("x-gitlab-event")) {
        (true, false) => Some(Provider::Github),
        (false, true) => Some(Provider::Gitlab),
        _ => None,
    }
}

/// The same words whatever was wrong; the log knows more.
fn refused(why: &str) -> Response {
    say("warn", &format!("a delivery is refused: {why}"));
    Response::new(403, json!({ "status": "refused" }))
}

fn ignored(why: &str) -> Response {
    say("info", &format!("a delivery is of no interest: {why}"));
    Response::new(200, json!({ "status": "ignored" }))
}

async fn start(receiver: &Receiver, push: &Push, event: &str) -> Result<Response, Error> {
    let branch = push.branch.as_deref().unwrap_or_default();
    let input = input(receiver, push, branch);
    let own = receiver.own(branch);
    if let Some((preview, environment)) = own.as_ref().filter(|(preview, _)| preview.made) {
        let name = name(&push.commit.id, event, environment);
        let job = release::job(environment.as_str(), branch, preview.expires, &name, &input);
        let started = execute(receiver, &receiver.branch_machine, &name, &job).await?;
        return Ok(told(started.iter().map(|_| environment).collect()));
    }
    let of_own = own.as_ref().map(|(_, environment)| vec![environment.clone()]);
    let Some(environments) = receiver.branches.get(branch).or(of_own.as_ref()) else {
        return Ok(ignored(&format!("no environment follows {branch}")));
    };
    let mut started = Vec::new();
    for environment in environments {
        let flow = format!("{}{environment}", receiver.flow);
        match execute(
            receiver,
            &flow,
            &name(&push.commit.id, event, environment),
            &input,
        )
        .await
        {
            Ok(execution) => started.extend(execution.map(|_| environment)),
            Err(Error::Client(client::Error::Refused { code, .. }))
                if code == "StateMachineDoesNotExist" && own.is_some() =>
            {
                let why = format!("{branch} has no environment yet: vend aws apply --branch {branch}");
                return Ok(ignored(&why));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told(started))
}

/// A branch is gone, and its environment goes with it, if nobody has pushed since: so it must say what the branch stood at.
async fn end(
    receiver: &Receiver,
    branch: &str,
    commit: Option<&str>,
    event: &str,
) -> Result<Response, Error> {
    let Some((preview, environment)) = receiver.own(branch) else {
        return Ok(ignored(&format!(
            "{branch} is gone, and had no environment of its own"
        )));
    };
    if !preview.made {
        return Ok(ignored(&format!(
            "{branch} is gone: vend aws destroy --branch {branch}"
        )));
    }
    let Some(commit) = commit else {
        return Ok(ignored(&format!(
            "{branch} is gone: the push event of the same says at which commit"
        )));
    };
    let name = name("gone", event, &environment);
    let job = release::end(environment.as_str(), branch, commit, event);
    let started = execute(receiver, &receiver.branch_machine, &name, &job).await?;
    Ok(told(started.iter().map(|_| &environment).collect()))
}

/// Starts an execution. None: it was started before, and has ended.
async fn execute(
    receiver: &Receiver,
    machine: &str,
    name: &str,
    input: &Value,
) -> Result<Option<String>, Error> {
    let ask = json!({ "stateMachineArn": machine, "name": name, "input": input.to_string() });
    match receiver.client.json(&call::START_EXECUTION, ask).await {
        Ok(answer) => {
            let execution = answer["executionArn"].as_str().unwrap_or_default().to_owned();
            say("info", &format!("started: {execution}"));
            Ok(Some(execution))
        }
        Err(client::Error::Refused { code, .. }) if code == "ExecutionAlreadyExists" => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn told(started: Vec<&EnvironmentName>) -> Response {
    match started.is_empty() {
        true => Response::new(200, json!({ "status": "duplicate" })),
        false => Response::new(202, json!({ "status": "accepted", "environments": started })),
    }
}

/// What a flow is given. The same event says the same, or Step Functions would not know it again.
fn input(receiver: &Receiver, push: &Push, branch: &str) -> Value {
    let message: String = push.commit.message.chars().take(MESSAGE).collect();
    json!({
        "app": receiver.app,
        "branch": branch,
        "commit": push.commit.id,
        "author": push.commit.author,
        "message": message,
        "sender": push.sender,
    })
}

/// The commit for people, and the event for Step Functions: 80 characters at most.
fn name(commit: &str, event: &str, environment: &EnvironmentName) -> String {
    let digest = Digest::of_parts([environment.as_str(), event]).hex();
    let commit: String = commit
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect();
    format!("{commit}-{}", &digest[..32])
}
