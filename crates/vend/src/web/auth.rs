//! Who is asking: by a token, or by what the kernel says about a local caller.

use axum::{
    extract::{Extension, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use model::{
    Secret, TenantName,
    policy::{self, Action, Principal, Role},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    listen::Peer,
    refusal::{Kind, Refusal},
    state::State,
    tokens,
};

/// How long a session's token is good: the time of one push.
const SESSION: SignedDuration = SignedDuration::from_mins(30);
/// How a session's token starts; a kept token starts otherwise.
const SESSION_PREFIX: &str = "vends_";
/// No token is longer.
const MAX_TOKEN_BYTES: usize = 512;

/// An authenticated caller. A handler that has one knows who asks.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl Caller {
    /// May the caller do this to what belongs to `tenant`? What belongs to another tenant is not there for them;
    /// `what` is how that is said.
    pub fn may(&self, action: Action, tenant: Option<&TenantName>, what: &str) -> Result<(), Refusal> {
        let Self(principal) = self;
        if policy::decide(principal, action, tenant) {
            return Ok(());
        }
        if principal.tenant.is_some() && tenant.is_some() && principal.tenant.as_ref() != tenant {
            return Err(Refusal::not_found(what));
        }
        let role = role_name(principal.role);
        let of = match &principal.tenant {
            Some(tenant) => format!("tenant {tenant}"),
            None => "the platform".to_owned(),
        };
        let needs = match (action, tenant) {
            (Action::View, None) => "this is the platform's own",
            (Action::View, Some(_)) => "this needs a role that may look",
            (Action::Develop, _) => "this needs a developer or an operator",
            (Action::Approve, _) => "this needs an approver or an operator",
            (Action::Alarm, _) => "this needs a monitor, a developer or an operator",
            (Action::Audit, _) => "this needs an auditor or an operator",
            (Action::Administer, _) => "this needs an operator",
            (Action::Operate, _) => "this needs an operator of the platform",
        };
        Err(
            Refusal::forbidden(format!("{} is {role} of {of}; {needs}", principal.actor))
                .next("vend whoami, and ask an operator for a token with that role"),
        )
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Operator => "operator",
        Role::Developer => "developer",
        Role::Approver => "approver",
        Role::Auditor => "auditor",
        Role::Monitor => "monitor",
    }
}

impl FromRequestParts<State> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Refusal> {
        let Extension(peer) = Extension::<Peer>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::new(Kind::Unauthenticated, "the connection has no caller"))?;
        if let Some(token) = token(&parts.headers)? {
            return bearer(state, token).await;
        }
        match peer {
            Peer::Local { uid } => local(uid, state),
            Peer::Remote(_) => Err(Refusal::new(Kind::Unauthenticated, "a token is needed")
                .next("vend login, or set VEND_TOKEN; on the platform's own machine use the local socket")),
        }
    }
}

/// Who bears this token.
pub async fn bearer(state: &State, token: Secret) -> Result<Caller, Refusal> {
    let found = match token.expose().starts_with(SESSION_PREFIX) {
        true => state.sessions.open(&token, state.now()),
        false => tokens::find(state, token).await?,
    };
    found.map(Caller).ok_or_else(|| {
        Refusal::new(
            Kind::Unauthenticated,
            "the token is not known, was revoked, or has ended",
        )
        .next("ask an operator for a token, and set VEND_TOKEN")
    })
}

/// Root and the platform's owner are operators on the local socket; nobody else is anybody.
fn local(uid: u32, state: &State) -> Result<Caller, Refusal> {
    if uid != 0 && uid != state.owner {
        return Err(Refusal::forbidden(format!(
            "the user with the number {uid} is neither root nor the owner of this platform"
        ))
        .next("ask an operator for a token, and set VEND_TOKEN"));
    }
    Ok(Caller(Principal {
        actor: format!("person:{}", user(uid)),
        role: Role::Operator,
        tenant: None,
    }))
}

/// The name of a user of this machine, or its number.
fn user(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid-{uid}"))
}

/// The token of a request: `Bearer`, or the password of `Basic`, which is what git can send.
fn token(headers: &HeaderMap) -> Result<Option<Secret>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let wrong = || {
        Refusal::new(
            Kind::Unauthenticated,
            "the Authorization header holds neither a Bearer token nor Basic credentials",
        )
    };
    let (scheme, rest) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(wrong)?;
    if rest.len() > 2 * MAX_TOKEN_BYTES {
        return Err(wrong());
    }
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::prelude::BASE64_STANDARD
            .decode(rest.trim())
            .map_err(|_| wrong())?;
        let decoded = Secret::new(String::from_utf8(decoded).map_err(|_| wrong())?);
        let (_, password) = decoded.expose().split_once(':').ok_or_else(wrong)?;
        password.to_owned()
    } else {
        return Err(wrong());
    };
    Ok(Some(Secret::new(token)))
}

/// Tokens of some minutes that nothing keeps: what they say is sealed with a key that lives as long as this process.
pub struct Sessions {
    key: [u8; 32],
}

impl Sessions {
    pub fn new() -> Result<Self, store::Error> {
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&store::random_bits()?.to_le_bytes());
        }
        Ok(Self { key })
    }

    /// A token with the rights of `principal`.
    pub fn make(&self, principal: &Principal, now: Timestamp) -> (Secret, Timestamp) {
        let ends = now + SESSION;
        let claim = (principal, ends.as_second());
        let claim = serde_json::to_vec(&claim).expect("a principal is plain data");
        let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&claim);
        let token = format!("{SESSION_PREFIX}{text}.{}", hex::encode(self.seal(&claim)));
        (Secret::new(token), ends)
    }

    fn open(&self, token: &Secret, now: Timestamp) -> Option<Principal> {
        let (claim, seal) = token.expose().strip_prefix(SESSION_PREFIX)?.split_once('.')?;
        let claim = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claim).ok()?;
        let seal = hex::decode(seal).ok()?;
        if !bool::from(self.seal(&claim).as_slice().ct_eq(&seal)) {
            return None;
        }
        let (principal, ends): (Principal, i64) = serde_json::from_slice(&claim).ok()?;
        (now.as_second() < ends).then_some(principal)
    }

    /// HMAC-SHA-256 (RFC 2104) with a key of less than one block.
    fn seal(&self, claim: &[u8]) -> [u8; 32] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            block
                .iter_mut()
                .zip(self.key)
                .for_each(|(byte, key)| *byte ^= key);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(claim)
            .finalize();
        Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn tokens_come_as_bearer_or_as_gits_password() {
        let expose =
            |value: &str| token(&headers(value)).map(|token| token.map(|token| token.expose().to_owned()));
        assert_eq!(expose("Bearer abc").unwrap().as_deref(), Some("abc"));
        assert_eq!(expose("basic eDphYmM=").unwrap().as_deref(), Some("abc"));
        assert!(token(&HeaderMap::new()).unwrap().is_none());
        for bad in [
            "abc",
            "Digest abc",
            "Basic ???",
            "Basic eA==",
            &format!("Bearer {}", "a".repeat(2000)),
        ] {
            assert!(expose(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_ends_and_cannot_be_changed() {
        let sessions = Sessions::new().unwrap();
        let principal = Principal {
            actor: "person:x".into(),
            role: Role::Developer,
            tenant: Some("acme".parse().unwrap()),
        };
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let (token, ends) = sessions.make(&principal, now);
        assert_eq!(sessions.open(&token, now), Some(principal));
        assert_eq!(sessions.open(&token, ends), None);
        assert_eq!(Sessions::new().unwrap().open(&token, now), None);
        let text = token.expose();
        for at in SESSION_PREFIX.len()..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(sessions.open(&Secret::new(changed), now).is_none(), "byte {at}");
        }
    }
}
