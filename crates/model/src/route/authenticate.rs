//! Who must have signed in before a rule does what it does: ALB's `authenticate-oidc`.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Parameters that are added to the first request to the provider.
const EXTRA: usize = 10;
/// Characters of one of them, of an endpoint, and of the other texts.
const TEXT: usize = 2048;

/// An OpenID Connect provider, and what becomes of those whom it does not know. Names and meaning are ALB's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Authenticate {
    /// The provider as it names itself: `https://id.example.com`.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    /// Where a code is exchanged for tokens.
    pub token_endpoint: String,
    /// Who says who somebody is.
    pub user_info_endpoint: String,
    /// As the provider knows the edge.
    pub client_id: String,
    /// The name of the client's secret among those that the edge holds. The secret itself is never in a table.
    pub client_secret: String,
    /// What browsers keep it in; `-0` and on are added.
    #[serde(default = "session_cookie")]
    #[schema(default = session_cookie)]
    pub session_cookie: String,
    /// What the provider is asked for.
    #[serde(default = "scope")]
    #[schema(default = scope)]
    pub scope: String,
    /// For how long somebody stays signed in, whatever the provider says: 1 s to 7 days.
    #[serde(default = "session_timeout")]
    #[schema(value_type = String, default = "168h")]
    pub session_timeout: SignedDuration,
    /// Added to the request for authorization: `prompt: login`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_parameters: BTreeMap<String, String>,
    /// What becomes of a request of somebody who has not signed in.
    #[serde(default)]
    pub on_unauthenticated: Unauthenticated,
}

/// `authenticate`: they are sent to the provider. `allow`: it goes on, without a word about who it is. `deny`: 401.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unauthenticated {
    /// They are sent to the provider.
    #[default]
    Authenticate,
    /// It goes on, without a word about who it is.
    Allow,
    /// 401.
    Deny,
}

fn session_cookie() -> String {
    "AWSELBAuthSessionCookie".into()
}

fn scope() -> String {
    "openid".into()
}

fn session_timeout() -> SignedDuration {
    SignedDuration::from_hours(7 * 24)
}

impl Authenticate {
    /// With all else as ALB has it, and no endpoints yet.
    pub fn of(issuer: String, client_id: String, client_secret: String) -> Self {
        Self {
            issuer,
            authorization_endpoint: String::new(),
            token_endpoint: String::new(),
            user_info_endpoint: String::new(),
            client_id,
            client_secret,
            session_cookie: session_cookie(),
            scope: scope(),
            session_timeout: session_timeout(),
            extra_parameters: BTreeMap::new(),
            on_unauthenticated: Unauthenticated::default(),
        }
    }

    /// Why it cannot be used, if so.
    pub fn wrong(&self) -> Option<&'static str> {
        let visible = |text: &str| !text.is_empty() && text.len() <= TEXT && is_visible(text);
        let endpoints = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.user_info_endpoint,
        ];
        let cookie = &self.session_cookie;
        let timeout = SignedDuration::from_secs(1)..=SignedDuration::from_hours(7 * 24);
        if !visible(&self.issuer) || !visible(&self.client_id) {
            Some("the issuer and the client's id must be visible text without spaces")
        } else if !endpoints.into_iter().all(|endpoint| is_endpoint(endpoint)) {
            Some("an endpoint must be an `https://` address without `#` and user")
        } else if !is_secret(&self.client_secret) {
            Some(
                "the name of the client's secret must be letters, digits, `-`, `_` and `.`, and begin with none of the last",
            )
        } else if cookie.is_empty() || cookie.len() > 64 || !cookie.bytes().all(super::check::is_token) {
            Some("the name of the session's cookie is not one")
        } else if !self.scope.split(' ').all(visible) || !self.scope.split(' ').any(|word| word == "openid") {
            Some("the scope must be words with one space between them, `openid` among them")
        } else if !timeout.contains(&self.session_timeout) {
            Some("a session lasts 1 s to 7 days")
        } else if self.extra_parameters.len() > EXTRA
            || self
                .extra_parameters
                .iter()
                .any(|(name, value)| !visible(name) || value.len() > TEXT)
        {
            Some("there may be 10 extra parameters, each with a name")
        } else if self.extra_parameters.keys().any(|name| OWN.contains(&&**name)) {
            Some("an extra parameter has a name that the sign-in itself needs")
        } else {
            None
        }
    }
}

/// What the request for authorization has anyway.
const OWN: [&str; 6] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "nonce",
];

fn is_visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    text.len() <= TEXT
        && is_visible(text)
        && !text.contains('#')
        && !host.is_empty()
        && host.bytes().all(good)
}

/// It is the name of a file, too.
fn is_secret(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Authenticate {
        serde_json::from_value(serde_json::json!({
            "issuer": "https://id.test", "authorization_endpoint": "https://id.test/auth",
            "token_endpoint": "https://id.test/token?tenant=1", "user_info_endpoint": "https://[::1]:8443/me",
            "client_id": "shop", "client_secret": "acme.shop",
        }))
        .unwrap()
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert_eq!(good().wrong(), None);
        type Edit = fn(&mut Authenticate);
        let bad: [(Edit, &str); 13] = [
            (|a| a.issuer = "a b".into(), "issuer"),
            (|a| a.token_endpoint = "http://id.test/token".into(), "endpoint"),
            (|a| a.token_endpoint = "https:///token".into(), "endpoint"),
            (
                |a| a.token_endpoint = "https://a@id.test/token".into(),
                "endpoint",
            ),
            (
                |a| a.authorization_endpoint = "https://id.test/a\r\nx: y".into(),
                "endpoint",
            ),
            (|a| a.client_secret = "../key".into(), "secret"),
            (|a| a.client_secret = ".session".into(), "secret"),
            (|a| a.session_cookie = "a;b".into(), "cookie"),
            (|a| a.scope = "email".into(), "scope"),
            (|a| a.scope = "openid  email".into(), "scope"),
            (|a| a.session_timeout = SignedDuration::from_hours(169), "7 days"),
            (
                |a| _ = a.extra_parameters.insert("state".into(), "x".into()),
                "extra",
            ),
            (
                |a| a.extra_parameters = (0..11).map(|n| (n.to_string(), String::new())).collect(),
                "extra",
            ),
        ];
        for (edit, word) in bad {
            let mut authenticate = good();
            edit(&mut authenticate);
            let why = authenticate.wrong();
            assert!(why.is_some_and(|why| why.contains(word)), "{word}: {why:?}");
        }
    }
}
