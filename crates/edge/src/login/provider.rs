//! What is asked of a provider, behind the browser's back: tokens for a code or for an older token, and who somebody is.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use form_urlencoded::{Serializer, byte_serialize};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::session::Session;
use crate::call::{Failure, call};

use model::route::Authenticate;

/// For one answer of a provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of what a provider says of somebody, as with ALB.
const CLAIMS: usize = 11 * 1024;
/// Seconds by which two clocks may differ.
const SKEW: i64 = 60;

/// Why somebody is not known after all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the provider cannot be asked")]
    Unreachable(#[source] Failure),
    #[error("the provider answers {0}")]
    Refused(StatusCode),
    #[error("the provider's answer cannot be used: {0}")]
    Useless(&'static str),
    #[error("the client's secret `{name}` cannot be read")]
    Secret {
        name: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The same in ALB's words, for the log. Which of the provider's two addresses it was is not told apart.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "AuthTokenEpRequestTimeout",
            Self::Refused(_) => "AuthTokenEpRequestFailed",
            Self::Useless(_) => "AuthInvalidTokenResponse",
            Self::Secret { .. } => "AuthUnhandledException",
        }
    }
}

/// What is needed to ask.
pub struct Provider<'a> {
    pub spec: &'a Authenticate,
    pub secret: String,
    pub client: Arc<ClientConfig>,
}

/// Why tokens are given.
pub enum Grant<'a> {
    /// A browser has brought this code, for a request with this number.
    Code {
        code: &'a str,
        redirect: &'a str,
        nonce: &'a str,
    },
    /// They were given before.
    Refresh(&'a Session),
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    token_type: String,
    expires_in: Option<i64>,
    refresh_token: Option<String>,
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    exp: i64,
    nonce: Option<String>,
}

impl Provider<'_> {
    /// Somebody who is known now, and has been since then.
    pub async fn session(&self, grant: Grant<'_>, now: i64, since: i64) -> Result<Session, Error> {
        let tokens = self.tokens(&grant).await?;
        if !tokens.token_type.eq_ignore_ascii_case("bearer") || !is_visible(&tokens.access_token) {
            return Err(Error::Useless("its token is not one for HTTP"));
        }
        let subject = match &grant {
            Grant::Code { nonce, .. } => {
                let token = tokens.id_token.as_deref();
                let token = token.ok_or(Error::Useless("there is no id_token"))?;
                self.subject(token, nonce, now)?
            }
            Grant::Refresh(before) => before.subject.clone(),
        };
        let claims = self.claims(&tokens.access_token).await?;
        // OpenID Connect Core, section 5.3.2: else one token would be used for somebody else.
        if claims.get("sub").and_then(Value::as_str) != Some(&*subject) {
            return Err(Error::Useless("it speaks of two different people"));
        }
        let refresh = match grant {
            Grant::Refresh(before) => tokens.refresh_token.or_else(|| before.refresh.clone()),
            Grant::Code { .. } => tokens.refresh_token,
        };
        Ok(Session {
            subject,
            claims,
            access: tokens.access_token,
            refresh,
            fresh: tokens
                .expires_in
                .map_or(i64::MAX, |seconds| now.saturating_add(seconds)),
            since,
        })
    }

    async fn tokens(&self, grant: &Grant<'_>) -> Result<Tokens, Error> {
        let mut form = Serializer::new(String::new());
        match grant {
            Grant::Code { code, redirect, .. } => {
                form.append_pair("grant_type", "authorization_code");
                form.append_pair("code", code);
                form.append_pair("redirect_uri", redirect);
            }
            Grant::Refresh(before) => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("refresh_token", before.refresh.as_deref().unwrap_or_default());
            }
        }
        // RFC 6749, section 2.3.1: each half as in a form.
        let half = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, secret) = (half(&self.spec.client_id), half(&self.secret));
        let basic = STANDARD.encode(format!("{id}:{secret}"));
        let request = Request::post(&self.spec.token_endpoint)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Basic {basic}"))
            .body(Full::new(Bytes::from(form.finish())));
        let answer = self.ask(request).await?;
        serde_json::from_slice(answer.body()).map_err(|_| Error::Useless("it gives no tokens"))
    }

    /// Who an id token is about. Its signature is not looked at: it came from the token endpoint itself, over TLS (OpenID
    /// Connect Core, section 3.1.3.7).
    fn subject(&self, token: &str, nonce: &str, now: i64) -> Result<String, Error> {
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Claims = claims
            .and_then(|claims| serde_json::from_slice(&claims).ok())
            .ok_or(Error::Useless("its id_token cannot be read"))?;
        let ours = |name: &Value| name.as_str() == Some(&*self.spec.client_id);
        let audience = match &claims.aud {
            Value::Array(all) => all.iter().any(ours),
            one => ours(one),
        };
        if claims.iss != self.spec.issuer {
            Err(Error::Useless("its id_token is of another issuer"))
        } else if !audience {
            Err(Error::Useless("its id_token is for another client"))
        } else if claims.exp.saturating_add(SKEW) < now {
            Err(Error::Useless("its id_token is too old"))
        } else if claims.nonce.as_deref() != Some(nonce) {
            Err(Error::Useless("its id_token is for another request"))
        } else if claims.sub.is_empty() || !is_visible(&claims.sub) {
            Err(Error::Useless("its name for somebody is not one for HTTP"))
        } else {
            Ok(claims.sub)
        }
    }

    async fn claims(&self, access: &str) -> Result<Map<String, Value>, Error> {
        let request = Request::get(&self.spec.user_info_endpoint)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {access}"))
            .body(Full::new(Bytes::new()));
        let answer = self.ask(request).await?;
        if answer.body().len() > CLAIMS {
            return Err(Error::Useless("it says more than 11 KiB of somebody"));
        }
        serde_json::from_slice(answer.body()).map_err(|_| Error::Useless("it does not say who somebody is"))
    }

    async fn ask(
        &self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Response<Bytes>, Error> {
        let request = request.map_err(|error| Error::Unreachable(error.into()))?;
        let answer = call(Arc::clone(&self.client), request, PATIENCE)
            .await
            .map_err(Error::Unreachable)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(Error::Refused(status)),
        }
    }
}

/// What may stand in a header.
fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}
