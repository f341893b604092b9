//! Who signs in, and which certificate a name has.

use super::*;

#[test]
fn people_sign_in_and_certificates_come_from_the_vault() {
    let whole = format!(
        "app: a\nauthenticate:{LOGIN}\n  client_secret: '{{{{secret:oidc}}}}'\n  on_unauthenticated: deny
  session_timeout: 8h\n  extra_parameters: {{ prompt: login }}
domains: [{{ host: shop.example.com, certificate: {{ chain: '{{{{secret:c}}}}', key: '{{{{secret:k}}}}' }} }}]
environments: {{ dev: {{ authenticate: ~ }}, production: {{}} }}"
    );
    let app = good(&whole);
    let [dev, production] = app.environments.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(dev.authenticate, None);
    let login = production.authenticate.as_ref().unwrap();
    assert_eq!(login.client_secret, "oidc");
    assert_eq!(
        (login.scope.as_str(), login.session_timeout),
        ("openid", SignedDuration::from_hours(8))
    );
    assert_eq!(login.on_unauthenticated, model::route::Unauthenticated::Deny);
    assert_eq!(login.extra_parameters["prompt"], "login");
    assert_eq!(
        production.secrets_of_the_edge().collect::<Vec<_>>(),
        ["oidc", "c", "k"]
    );
    assert_eq!(dev.secrets_of_the_edge().collect::<Vec<_>>(), ["c", "k"]);
}

#[test]
fn what_is_wrong_with_sign_in_and_certificates_is_said() {
    let login = |rest: &str| format!("app: a\nauthenticate:{LOGIN}\n{rest}");
    let domain =
        |certificate: &str| format!("app: a\ndomains: [{{ host: a.b, certificate: {certificate} }}]");
    for (text, said) in [
        (login(""), "`authenticate` needs `client_secret`"),
        (
            login("  client_secret: abc"),
            "`authenticate.client_secret` must be the name of a secret",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  scope: email"),
            "`authenticate` cannot be used: the scope",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  session_timeout: 8d"),
            "`authenticate.session_timeout`",
        ),
        (
            login("  client_secret: '{{secret:x}}'\n  on_unauthenticated: maybe"),
            "`on_unauthenticated`",
        ),
        (
            login("  secret: x"),
            "`secret` is not a known key of `authenticate`",
        ),
        (
            "app: a\nauthenticate: { client_id: a }".to_owned(),
            "`authenticate` needs `issuer`",
        ),
        (domain("vault"), "`certificate`"),
        (
            domain("{ chain: '{{secret:c}}' }"),
            "a certificate of the vault needs `key`",
        ),
        (
            domain("{ chain: x, key: '{{secret:k}}' }"),
            "`certificate.chain` must be the name of a secret",
        ),
        (
            domain("{ pem: x }"),
            "`pem` is not a known key of `domains.certificate`",
        ),
    ] {
        let problems = read(&text).expect_err(&text);
        assert!(
            problems.iter().any(|problem| problem.message.contains(said)),
            "{text}: {problems:?}"
        );
    }
}
