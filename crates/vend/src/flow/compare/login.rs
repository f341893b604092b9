//! What a plan says of the section `authenticate`.

use model::{
    route::{Authenticate, Unauthenticated},
    spec::written,
};

/// Every key with its value.
pub fn told(login: &Authenticate) -> [(&'static str, String); 11] {
    let Authenticate {
        issuer,
        authorization_endpoint,
        token_endpoint,
        user_info_endpoint,
        client_id,
        client_secret,
        session_cookie,
        scope,
        session_timeout,
        extra_parameters,
        on_unauthenticated,
    } = login;
    let extra: Vec<String> = extra_parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let otherwise = match on_unauthenticated {
        Unauthenticated::Authenticate => "authenticate",
        Unauthenticated::Allow => "allow",
        Unauthenticated::Deny => "deny",
    };
    [
        ("authenticate.issuer", issuer.clone()),
        (
            "authenticate.authorization_endpoint",
            authorization_endpoint.clone(),
        ),
        ("authenticate.token_endpoint", token_endpoint.clone()),
        ("authenticate.user_info_endpoint", user_info_endpoint.clone()),
        ("authenticate.client_id", client_id.clone()),
        (
            "authenticate.client_secret",
            format!("{{{{secret:{client_secret}}}}}"),
        ),
        ("authenticate.session_cookie", session_cookie.clone()),
        ("authenticate.scope", scope.clone()),
        ("authenticate.session_timeout", written(*session_timeout)),
        ("authenticate.extra_parameters", extra.join(", ")),
        ("authenticate.on_unauthenticated", otherwise.to_owned()),
    ]
}
