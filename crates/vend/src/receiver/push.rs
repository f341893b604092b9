//! A delivery of a git host: verified, and every environment that follows its branch gets an execution.

use aws::{
    call, client,
    lambda::{Request, Response},
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
            let id = webhook::delivery_id(provider, &request.headers, &request.body);
            start(receiver, &push, &id).await
        }
        (DeliveryVerdict::Accepted, Some(event)) if event.gone().is_some() => {
            let branch = event.gone().unwrap_or_default();
            Ok(ignored(&format!(
                "{branch} is gone: vend aws destroy --branch {branch}, if it had an environment of its own"
            )))
        }
        _ => Ok(ignored(&reason.unwrap_or_default())),
    }
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

async fn start(receiver: &Receiver, push: &Push, delivery: &str) -> Result<Response, Error> {
    let branch = push.branch.as_deref().unwrap_or_default();
    let own = receiver.own(branch);
    let Some(environments) = receiver.branches.get(branch).or(own.as_ref()) else {
        return Ok(ignored(&format!("no environment follows {branch}")));
    };
    let input = input(receiver, push, branch);
    let mut started = Vec::new();
    for environment in environments {
        let ask = json!({
            "stateMachineArn": format!("{}{environment}", receiver.flow),
            "name": name(push, delivery, environment),
            "input": input.to_string(),
        });
        match receiver.client.json(&call::START_EXECUTION, ask).await {
            Ok(answer) => {
                let execution = answer["executionArn"].as_str().unwrap_or_default();
                say(
                    "info",
                    &format!("{environment} gets {}: {execution}", push.commit.id),
                );
                started.push(environment);
            }
            // It was started before, and has ended.
            Err(client::Error::Refused { code, .. }) if code == "ExecutionAlreadyExists" => {}
            Err(client::Error::Refused { code, .. })
                if code == "StateMachineDoesNotExist" && own.is_some() =>
            {
                let why = format!("{branch} has no environment yet: vend aws apply --branch {branch}");
                return Ok(ignored(&why));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(match started.is_empty() {
        true => Response::new(200, json!({ "status": "duplicate" })),
        false => Response::new(202, json!({ "status": "accepted", "environments": started })),
    })
}

/// What a flow is given. The same delivery says the same, or Step Functions would not know it again.
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

/// The commit for people, and the delivery for Step Functions: 80 characters at most.
fn name(push: &Push, delivery: &str, environment: &EnvironmentName) -> String {
    let digest = Digest::of_parts([environment.as_str(), delivery]).hex();
    let commit: String = push
        .commit
        .id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    format!("{commit}-{}", &digest[..32])
}
