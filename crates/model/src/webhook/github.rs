//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads>

use serde_json::Value;

use super::{
    Event, Refusal,
    body::{Pushed, clean, ignored, json, text},
    header,
};
use crate::spec::is_branch;

pub(super) const EVENT: &str = "X-GitHub-Event";

pub(super) fn read(headers: &[(String, String)], body: &[u8]) -> Result<Event, Refusal> {
    let kind = header(headers, EVENT)?
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| Refusal::NoEvent(EVENT.to_owned()))?;
    let payload = json(headers, body)?;
    match kind {
        "ping" => Ok(Event::Ping),
        "push" => pushed(&payload).event(kind),
        "delete" => deleted(&payload),
        "create" => Ok(ignored(
            kind,
            "the push event of the same branch or tag says more",
        )),
        _ => Ok(ignored(kind, "not a push")),
    }
}

fn pushed(payload: &Value) -> Pushed<'_> {
    let mut commits: Vec<&Value> = payload.pointer("/head_commit").into_iter().collect();
    commits.extend(
        payload
            .pointer("/commits")
            .and_then(Value::as_array)
            .into_iter()
            .flatten(),
    );
    Pushed {
        reference: text(payload, "/ref"),
        before: text(payload, "/before"),
        after: text(payload, "/after"),
        commit: text(payload, "/head_commit/id"),
        repository: text(payload, "/repository/full_name"),
        clone_url: text(payload, "/repository/clone_url"),
        sender: match text(payload, "/sender/login") {
            "" => text(payload, "/pusher/name"),
            login => login,
        },
        account: payload.pointer("/sender/id").and_then(Value::as_u64),
        commits,
    }
}

/// The `delete` event names the branch or tag without `refs/`.
fn deleted(payload: &Value) -> Result<Event, Refusal> {
    let name = text(payload, "/ref");
    let folder = match text(payload, "/ref_type") {
        "branch" => "heads",
        "tag" => "tags",
        _ => return Err(Refusal::Malformed("ref_type".to_owned())),
    };
    let repository = text(payload, "/repository/full_name");
    if !is_branch(name) || repository.is_empty() {
        return Err(Refusal::Malformed("ref".to_owned()));
    }
    Ok(Event::Delete {
        reference: format!("refs/{folder}/{name}"),
        repository: clean(repository),
        commit: None,
    })
}
