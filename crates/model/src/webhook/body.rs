//! What the providers' payloads have in common: JSON, references, commits.

use jiff::Timestamp;
use serde_json::Value;

use super::{Event, MAX_BODY_BYTES, Push, Refusal, header, is_clone_url};
use crate::{port::Commit, spec::is_branch};

/// The JSON of a body, which GitHub may send as the field `payload` of a form.
pub(super) fn json(headers: &[(String, String)], body: &[u8]) -> Result<Value, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refusal::TooLarge(body.len()));
    }
    let form = header(headers, "Content-Type")?.is_some_and(|kind| {
        kind.to_ascii_lowercase()
            .starts_with("application/x-www-form-urlencoded")
    });
    let parse =
        |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| Refusal::NotJson(error.to_string()));
    let value: Value = if form || body.starts_with(b"payload=") {
        let field = body
            .split(|b| *b == b'&')
            .find_map(|field| field.strip_prefix(b"payload="))
            .ok_or_else(|| Refusal::NotJson("the form has no field `payload`".to_owned()))?;
        parse(&unescape(field))?
    } else {
        parse(body)?
    };
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(Refusal::NotJson("it is not an object".to_owned())),
    }
}

/// `application/x-www-form-urlencoded`: `+` is a blank, `%2B` a plus.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        let escaped = field
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                at += 3;
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        at += 1;
    }
    bytes
}

/// A text of the payload by JSON pointer; empty when it is not there.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An object's id: 40 or 64 hex digits.
pub(super) fn is_object(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The id that stands for nothing.
pub(super) fn is_zero(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|b| b == b'0')
}

/// What a push payload says, whoever the provider is.
pub(super) struct Pushed<'v> {
    pub reference: &'v str,
    pub before: &'v str,
    pub after: &'v str,
    /// The commit itself where `after` may be an annotated tag.
    pub commit: &'v str,
    pub repository: &'v str,
    pub clone_url: &'v str,
    pub sender: &'v str,
    pub account: Option<u64>,
    pub commits: Vec<&'v Value>,
}

impl Pushed<'_> {
    pub(super) fn event(&self, kind: &str) -> Result<Event, Refusal> {
        let malformed = |what: &str| Err(Refusal::Malformed(what.to_owned()));
        let branch = self.reference.strip_prefix("refs/heads/");
        let tag = self.reference.strip_prefix("refs/tags/");
        let Some(name) = branch.or(tag) else {
            return match self.reference.starts_with("refs/") {
                true => Ok(ignored(kind, "neither a branch nor a tag")),
                false => malformed("ref"),
            };
        };
        if !is_branch(name) {
            return malformed("ref");
        }
        if self.repository.is_empty() || self.repository.len() > 500 {
            return malformed("repository");
        }
        if is_zero(self.after) {
            return Ok(Event::Delete {
                reference: self.reference.to_owned(),
                repository: clean(self.repository),
                commit: (is_object(self.before) && !is_zero(self.before)).then(|| self.before.to_owned()),
            });
        }
        let id = if tag.is_some() && is_object(self.commit) {
            self.commit
        } else {
            self.after
        };
        if !is_object(id) {
            return malformed("after");
        }
        if !is_object(self.before) {
            return malformed("before");
        }
        if !is_clone_url(self.clone_url) {
            return Err(Refusal::CloneUrl(clean(self.clone_url)));
        }
        Ok(Event::Push(Push {
            reference: self.reference.to_owned(),
            branch: branch.map(str::to_owned),
            before: self.before.to_owned(),
            commit: self.commit_of(id, branch.unwrap_or_default()),
            clone_url: self.clone_url.to_owned(),
            sender: clean(self.sender),
            account: self.account,
        }))
    }

    /// What the payload says about the commit. A push of old commits to a new branch says nothing: then author is the
    /// one who pushed, message empty, and the time 1970, until the clone tells.
    fn commit_of(&self, id: &str, branch: &str) -> Commit {
        let found = self.commits.iter().find(|commit| text(commit, "/id") == id);
        let (author, message, at) = match found {
            Some(commit) => {
                let (name, email) = (text(commit, "/author/name"), text(commit, "/author/email"));
                let author = match email {
                    "" => clean(name),
                    email => format!("{} <{}>", clean(name), clean(email)),
                };
                (author, text(commit, "/message"), text(commit, "/timestamp"))
            }
            None => (clean(self.sender), "", ""),
        };
        Commit {
            id: id.to_owned(),
            author,
            message: message.to_owned(),
            branch: branch.to_owned(),
            repository: clean(self.repository),
            committed_at: at.parse().unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }
}

/// One line of a payload, for a line of ours.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

pub(super) fn ignored(kind: &str, reason: &str) -> Event {
    Event::Ignored {
        kind: clean(kind),
        reason: reason.to_owned(),
    }
}
