//! Tokens, and who their bearers are.

use axum::{
    Json,
    extract::State as Held,
    http::{HeaderMap, StatusCode, header},
};
use jiff::SignedDuration;
use model::{
    Secret, TenantName,
    policy::{Action, Principal, Role, decide},
    wire::{CreatedToken, NewToken, Page, Session, Token, Whoami},
};

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    listen::Peer,
    refusal::Refusal,
    scope::keyed,
    state::State,
};

/// How exact `used_at` is: a token that is used all the time is not written all the time.
const USE_NOTED: SignedDuration = SignedDuration::from_mins(10);
/// Of a token that ends.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 366 * 5);

/// Whose token it is.
pub async fn find(state: &State, shown: Secret) -> Result<Option<Principal>, Refusal> {
    let now = state.now();
    let text = shown.clone();
    let found = state.store.read(move |db| db.find_token(&text, now)).await?;
    let Some(token) = found else { return Ok(None) };
    let noted = |used| now.duration_since(used) <= USE_NOTED;
    if !(token.signs && token.used_at.is_some_and(noted)) {
        state.store.write(move |tx| tx.use_token(&shown, now)).await?;
    }
    Ok(Some(token.principal))
}

fn wire(token: store::Token) -> Token {
    Token {
        id: token.id,
        name: token.name,
        actor: token.principal.actor,
        role: token.principal.role,
        tenant: token.principal.tenant,
        created_at: token.created_at,
        expires_at: token.expires_at,
        used_at: token.used_at,
    }
}

/// What a caller must be allowed to make or revoke a token of this tenant, or of the platform.
fn needed(tenant: Option<&TenantName>) -> Action {
    match tenant {
        Some(_) => Action::Administer,
        None => Action::Operate,
    }
}

/// Makes a token. Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "tokens.create", tag = "access", request_body = NewToken,
    responses((status = 201, body = CreatedToken), Refusal))]
pub async fn create(
    Held(state): Held<State>,
    caller: Caller,
    input::Json(new): input::Json<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Refusal> {
    let tenant = new.tenant.as_ref();
    caller.may(needed(tenant), tenant, "tenant")?;
    if new.role == Role::Monitor && tenant.is_none() {
        return Err(
            Refusal::invalid("a monitor tells the alarms of one tenant, and none was named").next(format!(
                "vend tokens create {} --role monitor --tenant TENANT",
                new.name
            )),
        );
    }
    let actor = actor(&new.name)?;
    let by = state.by(&caller.0);
    let expires_at = match new
        .expires_in
        .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
    {
        None => None,
        Some(seconds) if (1..=LONGEST.as_secs()).contains(&seconds) => {
            Some(by.at + SignedDuration::from_secs(seconds))
        }
        Some(_) => {
            return Err(Refusal::invalid(
                "a token ends after 1 second to 5 years, or never",
            ));
        }
    };
    let new = store::NewToken {
        name: new.name,
        principal: Principal {
            actor,
            role: new.role,
            tenant: new.tenant,
        },
        expires_at,
    };
    let (token, text) = state.store.write(move |tx| tx.create_token(&new, &by)).await?;
    let created = CreatedToken {
        token: wire(token),
        text,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// As the ledger writes whoever bears a token of this name.
fn actor(name: &str) -> Result<String, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    let shape = match name.split_once('@') {
        Some((local, domain)) => {
            !local.is_empty() && !domain.is_empty() && local.chars().chain(domain.chars()).all(plain)
        }
        None => !name.is_empty() && name.chars().all(plain),
    };
    match (shape && name.len() <= 100, name.contains('@')) {
        (true, true) => Ok(format!("person:{}", name.to_lowercase())),
        (true, false) => Ok(format!("token:{name}")),
        (false, _) => Err(Refusal::invalid(
            "a token's name is a mail address, or letters, digits, `.`, `_`, `-` and `+`, at most 100 of them",
        )),
    }
}

/// Tokens that the caller may revoke, without their texts.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "tokens.list", tag = "access", params(Paging),
    responses((status = 200, body = Page<Token>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Token>>, Refusal> {
    let own = caller.0.tenant.clone();
    caller.may(Action::Administer, own.as_ref(), "tenant")?;
    let mut tokens = state.store.read(move |db| db.tokens(own.as_ref())).await?;
    tokens.retain(|token| {
        let tenant = token.principal.tenant.as_ref();
        decide(&caller.0, needed(tenant), tenant)
    });
    let tokens = tokens.into_iter().map(wire).collect();
    let key = |token: &Token| format!("{:020}", token.id);
    Ok(Json(keyed(tokens, paging.cursor.as_deref(), paging.limit(), key)))
}

/// Revokes a token, at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "tokens.revoke", tag = "access",
    params(("id" = u64, Path)),
    responses((status = 200, body = ()), Refusal))]
pub async fn revoke(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Result<Json<()>, Refusal> {
    let found = state.store.read(move |db| db.token(id)).await?;
    let tenant = found.principal.tenant.as_ref();
    if tenant.is_none() && caller.0.tenant.is_some() {
        return Err(Refusal::not_found(format_args!("token `{id}`")));
    }
    caller.may(needed(tenant), tenant, &format!("token `{id}`"))?;
    let by = state.by(&caller.0);
    state.store.write(move |tx| tx.revoke_token(id, &by)).await?;
    Ok(Json(()))
}

/// A token of some minutes with the caller's own rights, for a program such as git. On the local socket only: who
/// has a token gives that.
#[utoipa::path(post, path = "/v1/session", operation_id = "session.create", tag = "access",
    responses((status = 201, body = Session), Refusal))]
pub async fn session(
    Held(state): Held<State>,
    axum::Extension(peer): axum::Extension<Peer>,
    headers: HeaderMap,
    caller: Caller,
) -> Result<(StatusCode, Json<Session>), Refusal> {
    // Otherwise a token that was revoked could live on in its sessions.
    let by_kernel = matches!(peer, Peer::Local { .. }) && !headers.contains_key(header::AUTHORIZATION);
    if !by_kernel {
        return Err(
            Refusal::forbidden("a session is given on the local socket only").next("use the token itself")
        );
    }
    let (text, expires_at) = state.sessions.make(&caller.0, state.now());
    Ok((StatusCode::CREATED, Json(Session { text, expires_at })))
}

/// Who the platform takes the caller for.
#[utoipa::path(get, path = "/v1/whoami", operation_id = "whoami", tag = "access",
    responses((status = 200, body = Whoami), Refusal))]
pub async fn whoami(caller: Caller) -> Json<Whoami> {
    let Caller(principal) = caller;
    Json(Whoami {
        actor: principal.actor,
        role: principal.role,
        tenant: principal.tenant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_actors() {
        assert_eq!(actor("ci").unwrap(), "token:ci");
        assert_eq!(actor("Ops@Acme.example").unwrap(), "person:ops@acme.example");
        for bad in ["", "a b", "person:x", "a@b@c", "@b", "a@", "ä", &"a".repeat(101)] {
            assert!(actor(bad).is_err(), "{bad}");
        }
    }
}
