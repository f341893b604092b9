//! Who looks. A browser keeps the token in a cookie that no script can read.

use axum::{
    Form,
    extract::{FromRequestParts, State as Held},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::html;
use model::Secret;
use serde::Deserialize;

use super::frame;
use crate::web::{
    auth::{self, Caller},
    state::State,
};

const COOKIE: &str = "vend";
/// How long a browser keeps a token; the token itself may end or be revoked before.
const KEPT_SECONDS: u32 = 12 * 3600;

/// Somebody who may look. Whoever may not is asked to sign in.
pub struct Viewer(pub Caller);

impl FromRequestParts<State> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let known = match cookie(&parts.headers) {
            Some(token) => auth::bearer(state, token).await,
            None => Caller::from_request_parts(parts, state).await,
        };
        known
            .map(Self)
            .map_err(|_| Redirect::to("/console/sign-in").into_response())
    }
}

fn cookie(headers: &HeaderMap) -> Option<Secret> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE && !value.is_empty())
        .map(|(_, value)| Secret::new(value.to_owned()))
}

pub async fn page() -> Response {
    form(StatusCode::OK, None)
}

fn form(status: StatusCode, wrong: Option<&str>) -> Response {
    let body = html! {
        h1 { "Sign in" }
        @if let Some(wrong) = wrong { p.bad role="alert" { (wrong) } }
        form method="post" action="/console/sign-in" {
            label for="token" { "Token" }
            input #token name="token" type="password" autocomplete="current-password" required autofocus;
            button type="submit" { "Sign in" }
        }
        p {
            "On the platform's own machine " code { "vend console" } " prints a link that fills this in. Others \
             ask an operator for a token (" code { "vend tokens create" } ")."
        }
    };
    (status, frame::whole("Sign in", None, &body, false)).into_response()
}

#[derive(Deserialize)]
pub struct Credentials {
    token: Secret,
}

pub async fn sign_in(
    Held(state): Held<State>,
    headers: HeaderMap,
    Form(Credentials { token }): Form<Credentials>,
) -> Response {
    if !from_here(&headers) {
        return form(
            StatusCode::FORBIDDEN,
            Some("Another site sent this form; nothing was done."),
        );
    }
    let token = Secret::new(token.expose().trim().to_owned());
    let plain = token
        .expose()
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-~+/".contains(&byte));
    if !plain || auth::bearer(&state, token.clone()).await.is_err() {
        return form(
            StatusCode::UNAUTHORIZED,
            Some("The token is not known, was revoked, or has ended."),
        );
    }
    let secure = if state.url.starts_with("https:") {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{COOKIE}={}; Path=/console; Max-Age={KEPT_SECONDS}; HttpOnly; SameSite=Lax{secure}",
        token.expose()
    );
    ([(header::SET_COOKIE, cookie)], Redirect::to("/console/")).into_response()
}

pub async fn sign_out(headers: HeaderMap) -> Response {
    if !from_here(&headers) {
        return form(
            StatusCode::FORBIDDEN,
            Some("Another site sent this form; nothing was done."),
        );
    }
    let gone = format!("{COOKIE}=; Path=/console; Max-Age=0; HttpOnly; SameSite=Lax");
    ([(header::SET_COOKIE, gone)], Redirect::to("/console/sign-in")).into_response()
}

/// Browsers say where a request comes from (Fetch Metadata, section 2.3); others do not carry cookies unasked.
fn from_here(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin" || site == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().unwrap());
            cookie(&headers).map(|token| token.expose().to_owned())
        };
        assert_eq!(token("a=b; vend=vend_x; c=d").as_deref(), Some("vend_x"));
        assert_eq!(token("vend="), None);
        assert_eq!(token("xvend=1"), None);
    }
}
