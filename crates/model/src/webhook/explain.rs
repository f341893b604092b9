//! What to make of a stored delivery, for people: offline, without a platform.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Event, Provider, Refusal, delivery_id, github, gitlab, header, read, signature, verify};
use crate::Secret;

/// All that can be said about one delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub provider: Provider,
    /// As the provider calls it: `push`, `Merge Request Hook`.
    pub kind: Option<String>,
    pub delivery: String,
    pub signature: Signature,
    /// What the delivery says, normalised; absent when it is refused.
    pub event: Option<Event>,
    /// Why it would not be taken.
    pub refusal: Option<String>,
    /// What the platform would do with it.
    pub action: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    pub verdict: Verdict,
    /// Why it is so.
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Valid,
    Invalid,
    /// No secret was given to check it with.
    NotChecked,
}

/// Explains a delivery. Without a secret the signature is not checked.
pub fn explain(
    provider: Provider,
    headers: &[(String, String)],
    body: &[u8],
    secret: Option<&Secret>,
) -> Explanation {
    let name = match provider {
        Provider::Github => github::EVENT,
        Provider::Gitlab => gitlab::EVENT,
    };
    let read = read(provider, headers, body);
    let checked = secret.map(|secret| verify(provider, headers, body, secret));
    let refusal = match (&checked, &read) {
        (Some(Err(refusal)), _) | (_, Err(refusal)) => Some(refusal.clone()),
        _ => None,
    };
    Explanation {
        provider,
        kind: header(headers, name).ok().flatten().map(str::to_owned),
        delivery: delivery_id(provider, headers, body),
        signature: verdict(provider, checked.as_ref()),
        action: match (&refusal, &read) {
            (Some(_), _) => "refuse it: kept in the inbox with the reason, nothing else happens".to_owned(),
            (None, Ok(event)) => action(event),
            (None, Err(_)) => String::new(),
        },
        event: read.ok(),
        refusal: refusal.map(|refusal| refusal.to_string()),
    }
}

fn verdict(provider: Provider, checked: Option<&Result<(), Refusal>>) -> Signature {
    let name = match provider {
        Provider::Github => signature::GITHUB,
        Provider::Gitlab => signature::GITLAB,
    };
    let (verdict, why) = match checked {
        None => (Verdict::NotChecked, "no secret was given".to_owned()),
        Some(Ok(())) => (Verdict::Valid, format!("`{name}` fits the secret")),
        // The signature is right, and yet it is not enough.
        Some(Err(refusal @ Refusal::OldSignature)) => (Verdict::Valid, refusal.to_string()),
        Some(Err(refusal)) => (Verdict::Invalid, refusal.to_string()),
    };
    Signature { verdict, why }
}

fn action(event: &Event) -> String {
    match event {
        Event::Push(push) => match &push.branch {
            Some(branch) => {
                let short = &push.commit.id[..12.min(push.commit.id.len())];
                format!("release commit {short} to each environment of the app whose branch is `{branch}`")
            }
            None => "nothing: a tag releases nothing".to_owned(),
        },
        Event::Delete { .. } => match event.gone() {
            Some(branch) => {
                format!(
                    "take down what came with the branch `{branch}`; environments that vend.yaml names stay"
                )
            }
            None => "nothing: a tag releases nothing".to_owned(),
        },
        Event::Ignored { reason, .. } => format!("nothing: {reason}"),
        Event::Ping => "answer that it is there".to_owned(),
    }
}
