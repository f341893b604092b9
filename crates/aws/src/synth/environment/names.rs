//! The names by which an environment is reached: rules, records, certificates.

use model::route::Unauthenticated;
use serde_json::{Value, json};

use super::{Scope, traffic::forward};
use crate::synth::{
    Error, Priorities,
    config::Custom,
    template::{Resource, Template, att, listed, re},
};

pub(super) fn add(
    template: &mut Template,
    scope: &Scope<'_>,
    priorities: &mut Priorities,
) -> Result<(), Error> {
    let own = own(scope);
    if own
        .iter()
        .any(|name| name.split('.').next().is_some_and(|label| label.len() > 63))
    {
        let why = format!(
            "`{}` has a label of more than 63 characters: shorten the app's or the environment's name",
            own[0]
        );
        return Err(Error::config(format!("apps.{}", scope.app), why));
    }
    if scope.wave().is_some() {
        return Ok(());
    }
    if scope.options.dedicated_balancer {
        certificate(template, scope, &own);
    }
    rules(template, scope, priorities, "Rule", &own[0], &own)?;
    records(template, scope, &own);
    let mut customs: Vec<&Custom> = scope.options.domains.iter().collect();
    customs.sort_by(|a, b| a.host.cmp(&b.host));
    if let Some(pair) = customs.windows(2).find(|pair| pair[0].host == pair[1].host) {
        return Err(Error::config(
            scope.at("domains"),
            format!("`{}` is named twice", pair[0].host),
        ));
    }
    for custom in customs {
        self::custom(template, scope, priorities, custom)?;
    }
    template.output(
        "Url",
        "Where it answers",
        json!(format!("https://{}", own[own.len() - 1])),
    );
    Ok(())
}

/// `shop-staging.DOMAIN`, and `shop.DOMAIN` for the environment that has the app's bare name.
pub(super) fn own(scope: &Scope<'_>) -> Vec<String> {
    let domain = &scope.foundation.domain;
    let mut names = vec![format!("{}-{}.{domain}", scope.app, scope.spec.name)];
    if scope
        .options
        .bare
        .unwrap_or(scope.spec.name.as_str() == scope.label.as_str())
    {
        names.push(format!("{}.{domain}", scope.app));
    }
    names
}

/// The rule on port 443, and that on port 80 where it is asked for.
fn rules(
    template: &mut Template,
    scope: &Scope<'_>,
    priorities: &mut Priorities,
    id: &str,
    key: &str,
    hosts: &[String],
) -> Result<(), Error> {
    let mut listeners = vec![("https", "HttpsListener", String::new())];
    if scope.options.plain_http {
        listeners.push(("http", "HttpListener", "Plain".to_owned()));
    }
    for (port, listener, prefix) in listeners {
        let (place, listener) = match scope.options.dedicated_balancer {
            true => (format!("{}/{port}", scope.name), re(listener)),
            false => (format!("{}/{port}", scope.label), scope.shared(listener)),
        };
        let properties = json!({
            "ListenerArn": listener,
            "Priority": priority(scope, priorities, &place, key)?,
            "Conditions": [{ "Field": "host-header", "HostHeaderConfig": { "Values": hosts } }],
            "Actions": actions(scope),
        });
        let about = format!("{} goes to this environment.", hosts.join(" or "));
        let rule = Resource::new(
            format!("{prefix}{id}"),
            "AWS::ElasticLoadBalancingV2::ListenerRule",
            about,
            properties,
        );
        template.add(rule);
    }
    Ok(())
}

/// What happens to a request: who asks is known first, if the environment wants it, and then a half answers.
/// Source: "Authenticate users using an Application Load Balancer".
fn actions(scope: &Scope<'_>) -> Value {
    let forward = forward(scope, scope.targets());
    let Some(login) = &scope.spec.authenticate else {
        return json!([forward]);
    };
    // CloudFormation reads the secret when it makes the rule; no template holds it.
    let secret = format!(
        "{{{{resolve:secretsmanager:{}/{}:SecretString}}}}",
        scope.secrets(),
        login.client_secret
    );
    let mut provider = json!({
        "Issuer": login.issuer,
        "AuthorizationEndpoint": login.authorization_endpoint,
        "TokenEndpoint": login.token_endpoint,
        "UserInfoEndpoint": login.user_info_endpoint,
        "ClientId": login.client_id,
        "ClientSecret": secret,
        "Scope": login.scope,
        "SessionCookieName": login.session_cookie,
        "SessionTimeout": login.session_timeout.as_secs(),
        "OnUnauthenticatedRequest": match login.on_unauthenticated {
            Unauthenticated::Authenticate => "authenticate",
            Unauthenticated::Allow => "allow",
            Unauthenticated::Deny => "deny",
        },
    });
    if !login.extra_parameters.is_empty() {
        provider["AuthenticationRequestExtraParams"] = json!(login.extra_parameters);
    }
    let ask = json!({ "Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": provider });
    let mut forward = forward;
    forward["Order"] = json!(2);
    json!([ask, forward])
}

/// The rule's priority: written down, or for what comes and goes with a branch made from the name.
fn priority(scope: &Scope<'_>, priorities: &mut Priorities, place: &str, key: &str) -> Result<u32, Error> {
    let owner = format!("{}/{}", scope.app, scope.spec.name);
    match scope.spec.preview {
        Some(_) => Ok(Priorities::of_branch(&owner, key)),
        None => priorities.of(place, &owner, key),
    }
}

fn alias(scope: &Scope<'_>) -> Value {
    match scope.options.dedicated_balancer {
        true => {
            json!({ "DNSName": att("Balancer.DNSName"), "HostedZoneId": att("Balancer.CanonicalHostedZoneID") })
        }
        false => {
            json!({ "DNSName": scope.shared("BalancerDns"), "HostedZoneId": scope.shared("BalancerZone") })
        }
    }
}

fn records(template: &mut Template, scope: &Scope<'_>, own: &[String]) {
    for (name, id) in own.iter().zip(["Record", "BareRecord"]) {
        template.add(record(scope, id, name, scope.shared("Zone")));
    }
}

fn record(scope: &Scope<'_>, id: &str, name: &str, zone: Value) -> Resource {
    let properties = json!({ "HostedZoneId": zone, "Name": name, "Type": "A", "AliasTarget": alias(scope) });
    let record = Resource::new(
        id,
        "AWS::Route53::RecordSet",
        format!("{name} is the load balancer."),
        properties,
    );
    // Visitors come to another load balancer when hosts are behind it. Services are not always there to wait for.
    if scope.is_container() {
        return record.after("Rule");
    }
    let halves = scope.halves().iter();
    halves.fold(record, |record, half| record.after(half.id("Group")))
}

fn certificate(template: &mut Template, scope: &Scope<'_>, own: &[String]) {
    let proofs: Vec<Value> = own
        .iter()
        .map(|name| json!({ "DomainName": name, "HostedZoneId": scope.shared("Zone") }))
        .collect();
    let mut properties =
        json!({ "DomainName": own[0], "ValidationMethod": "DNS", "DomainValidationOptions": proofs });
    if own.len() > 1 {
        properties["SubjectAlternativeNames"] = json!(own[1..]);
    }
    let about = "For this environment's names; renews itself.";
    template.add(Resource::new(
        "Certificate",
        "AWS::CertificateManager::Certificate",
        about,
        properties,
    ));
}

fn custom(
    template: &mut Template,
    scope: &Scope<'_>,
    priorities: &mut Priorities,
    custom: &Custom,
) -> Result<(), Error> {
    let host = custom.host.as_str();
    let id = |prefix: &str| listed(prefix, host);
    let certificate = match (&custom.certificate, &custom.zone) {
        (Some(certificate), _) => json!(certificate.as_str()),
        (None, Some(zone)) => {
            let properties = json!({
                "DomainName": host,
                "ValidationMethod": "DNS",
                "DomainValidationOptions": [{ "DomainName": host, "HostedZoneId": zone.as_str() }],
            });
            let about = format!("For {host}; renews itself.");
            template.add(Resource::new(
                id("CustomCertificate"),
                "AWS::CertificateManager::Certificate",
                about,
                properties,
            ));
            re(id("CustomCertificate"))
        }
        (None, None) => {
            let why = format!(
                "`{host}` has neither `zone`, where its certificate could be proved, nor `certificate`"
            );
            return Err(Error::config(scope.at("domains"), why));
        }
    };
    let listener = match scope.options.dedicated_balancer {
        true => re("HttpsListener"),
        false => scope.shared("HttpsListener"),
    };
    let properties = json!({ "ListenerArn": listener, "Certificates": [{ "CertificateArn": certificate }] });
    let about = format!("The load balancer shows it when {host} is asked for.");
    template.add(Resource::new(
        id("CustomName"),
        "AWS::ElasticLoadBalancingV2::ListenerCertificate",
        about,
        properties,
    ));
    rules(
        template,
        scope,
        priorities,
        &id("CustomRule"),
        host,
        &[host.to_owned()],
    )?;
    if let Some(zone) = &custom.zone {
        template.add(record(scope, &id("CustomRecord"), host, json!(zone.as_str())));
    }
    Ok(())
}
