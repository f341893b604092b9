//! The section `authenticate`: who must have signed in before a request reaches the app.

use jiff::SignedDuration;

use super::environment::{Fields, section, value};
use crate::{
    route::{Authenticate, Unauthenticated},
    spec::{
        read::{Reader, quoted},
        yaml::{Node, Value},
    },
};

pub(super) const ON_UNAUTHENTICATED: &[&str] = &["authenticate", "allow", "deny"];

pub(super) fn authenticate(reader: &mut Reader<'_>, fields: Fields<'_>) -> Option<Box<Authenticate>> {
    let at = value(fields, "authenticate").filter(|node| matches!(node.value, Value::Mapping(_)))?;
    let fields = section(fields, "authenticate");
    let mut needed = |name: &str| match value(fields, name) {
        Some(node) => reader.text(node, &format!("authenticate.{name}")),
        None => {
            reader.error(at, format!("`authenticate` needs `{name}`"));
            None
        }
    };
    let texts = [
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "user_info_endpoint",
        "client_id",
    ]
    .map(&mut needed);
    let secret = match value(fields, "client_secret") {
        Some(node) => super::environment::secret(reader, node, "authenticate.client_secret"),
        None => {
            reader.error(at, "`authenticate` needs `client_secret`").help =
                Some("write `client_secret: \"{{secret:NAME}}\"`".to_owned());
            None
        }
    };
    let [
        Some(issuer),
        Some(authorization_endpoint),
        Some(token_endpoint),
        Some(user_info_endpoint),
        Some(client_id),
    ] = texts
    else {
        return None;
    };
    let mut usual = Authenticate::of(issuer, client_id, secret?);
    usual.authorization_endpoint = authorization_endpoint;
    usual.token_endpoint = token_endpoint;
    usual.user_info_endpoint = user_info_endpoint;
    let mut optional =
        |name: &str| value(fields, name).and_then(|node| reader.text(node, &format!("authenticate.{name}")));
    if let Some(cookie) = optional("session_cookie") {
        usual.session_cookie = cookie;
    }
    if let Some(scope) = optional("scope") {
        usual.scope = scope;
    }
    if let Some(node) = value(fields, "session_timeout") {
        let range = SignedDuration::from_secs(1)..=SignedDuration::from_hours(7 * 24);
        usual.session_timeout = reader.duration(node, "authenticate.session_timeout", range)?;
    }
    if let Some(node) = value(fields, "on_unauthenticated") {
        usual.on_unauthenticated = match reader.word(node, "on_unauthenticated", ON_UNAUTHENTICATED)? {
            "allow" => Unauthenticated::Allow,
            "deny" => Unauthenticated::Deny,
            _ => Unauthenticated::Authenticate,
        };
    }
    for (name, extra) in parameters(reader, fields) {
        let name = name.text().unwrap_or_default();
        match extra.text() {
            Some(text) => drop(usual.extra_parameters.insert(name.to_owned(), text.to_owned())),
            None => drop(reader.error(extra, format!("{} is not a text", quoted(name)))),
        }
    }
    if let Some(why) = usual.wrong() {
        reader.error(at, format!("`authenticate` cannot be used: {why}"));
        return None;
    }
    Some(Box::new(usual))
}

fn parameters<'n>(reader: &mut Reader<'_>, fields: Fields<'n>) -> &'n [(Node, Node)] {
    match value(fields, "extra_parameters") {
        Some(node) => reader.mapping(node, "authenticate.extra_parameters"),
        None => &[],
    }
}
