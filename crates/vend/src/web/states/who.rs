//! Who calls: by a signature, by a token, by the local socket; or, where the operator allows it, by being on loopback.

use axum::{extract::FromRequestParts as _, http::request::Parts};
use model::policy::{Principal, Role};

use super::{fault::Fault, sign};
use crate::web::{auth::Caller, listen::Peer, state::State};

/// What an access key of ours starts with; the rest is the number of the token, whose text is the secret.
const KEY: &str = "VEND";

pub async fn caller(state: &State, peer: Peer, parts: &Parts, body: &[u8]) -> Result<Principal, Fault> {
    let Some(signed) = sign::read(&parts.headers) else {
        if parts.headers.contains_key("authorization") || matches!(peer, Peer::Local { .. }) {
            return by_token(state, parts).await;
        }
        return unsigned(state, peer).ok_or_else(|| {
            Fault::new(
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            )
        });
    };
    let now = state.now();
    let number = signed
        .key_id
        .strip_prefix(KEY)
        .and_then(|number| number.parse().ok());
    let found = match number {
        Some(number) => state.store.read(move |db| db.signing_key(number, now)).await?,
        None => None,
    };
    match found {
        Some((token, key)) => match signed.verify(key.expose(), parts, body, now) {
            Ok(()) => Ok(token.principal),
            Err(why) => Err(Fault::new("InvalidSignatureException", why)),
        },
        // Whoever claims one of our keys must have it.
        None if signed.key_id.starts_with(KEY) => Err(unknown()),
        None => unsigned(state, peer).ok_or_else(unknown),
    }
}

fn unknown() -> Fault {
    Fault::new(
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )
}

async fn by_token(state: &State, parts: &Parts) -> Result<Principal, Fault> {
    let mut parts = parts.clone();
    let caller = Caller::from_request_parts(&mut parts, state).await;
    caller.map(|Caller(principal)| principal).map_err(|_| unknown())
}

/// A developer of the tenant that the operator has opened to loopback.
fn unsigned(state: &State, peer: Peer) -> Option<Principal> {
    let tenant = state.states.unsigned.clone()?;
    let Peer::Remote(address) = peer else { return None };
    address.ip().is_loopback().then(|| Principal {
        actor: "loopback".into(),
        role: Role::Developer,
        tenant: Some(tenant),
    })
}
