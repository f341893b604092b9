//! <https://docs.gitlab.com/user/project/integrations/webhook_events/>

use serde_json::Value;

use super::{
    Event, Refusal,
    body::{Pushed, ignored, json, text},
    header,
};

pub(super) const EVENT: &str = "X-Gitlab-Event";

pub(super) fn read(headers: &[(String, String)], body: &[u8]) -> Result<Event, Refusal> {
    let kind = header(headers, EVENT)?
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| Refusal::NoEvent(EVENT.to_owned()))?;
    let payload = json(headers, body)?;
    // A system hook says in the body what it is about.
    let object = match text(&payload, "/object_kind") {
        "" => text(&payload, "/event_name"),
        object => object,
    };
    match (kind, object) {
        ("Push Hook" | "System Hook", "push")
        | ("Push Hook" | "Tag Push Hook" | "System Hook", "tag_push") => pushed(&payload).event(kind),
        ("Push Hook" | "Tag Push Hook", _) => Err(Refusal::Malformed("object_kind".to_owned())),
        _ => Ok(ignored(kind, "not a push")),
    }
}

fn pushed(payload: &Value) -> Pushed<'_> {
    let after = text(payload, "/after");
    let checkout = text(payload, "/checkout_sha");
    Pushed {
        reference: text(payload, "/ref"),
        before: text(payload, "/before"),
        after,
        commit: checkout,
        repository: text(payload, "/project/path_with_namespace"),
        clone_url: match text(payload, "/project/git_http_url") {
            "" => text(payload, "/project/git_ssh_url"),
            url => url,
        },
        sender: match text(payload, "/user_username") {
            "" => text(payload, "/user_name"),
            login => login,
        },
        account: payload.pointer("/user_id").and_then(Value::as_u64),
        commits: payload
            .pointer("/commits")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect(),
    }
}
