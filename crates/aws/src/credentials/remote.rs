//! Keys that somebody else gives out: STS, a container's metadata, an instance's.

use std::time::Duration;

use hyper::{Method, body::Bytes};
use model::Secret;
use serde_json::Value;

use super::{Error, Keys, Machine, Role};
use crate::{
    call,
    client::{Client, Form, Node, http},
};

/// Metadata is on the same machine; where there is none, its address answers nothing.
const METADATA: Duration = Duration::from_secs(2);
pub(super) const PROCESS: Duration = Duration::from_secs(60);
const CONTAINER: &str = "http://169.254.170.2";
const INSTANCE: &str = "http://169.254.169.254";

/// The keys of a role, for who has `with`, or the client's own keys.
pub(super) async fn assume(client: &Client, role: &Role, with: Option<Keys>) -> Result<Keys, Error> {
    let answer = Box::pin(client.query_as(&call::ASSUME_ROLE, asked(role), with)).await;
    session(role, answer)
}

/// The same with a token of somebody else, unsigned.
pub(super) async fn assume_with_token(client: &Client, role: &Role, token: &str) -> Result<Keys, Error> {
    let mut form = form(role);
    form.add("WebIdentityToken", token);
    let answer = Box::pin(client.query_unsigned(&call::ASSUME_ROLE_WITH_WEB_IDENTITY, form)).await;
    session(role, answer)
}

/// What STS is asked for a role, with what its owner wants to hear.
fn asked(role: &Role) -> Form {
    let mut form = form(role);
    form.maybe("ExternalId", role.external_id.as_deref());
    form
}

fn form(role: &Role) -> Form {
    let mut form = Form::default();
    form.add("RoleArn", &role.arn);
    form.add("RoleSessionName", role.session.as_deref().unwrap_or("vend"));
    form.maybe(
        "DurationSeconds",
        role.duration.map(|seconds| seconds.to_string()).as_deref(),
    );
    form
}

fn session(role: &Role, answer: Result<Node, crate::client::Error>) -> Result<Keys, Error> {
    let answer = answer.map_err(|source| Error::Role {
        role: role.arn.clone(),
        source: Box::new(source),
    })?;
    let none = || Error::Answer {
        from: "STS".into(),
        why: "the answer holds none".into(),
    };
    let keys = answer.get("Credentials").ok_or_else(none)?;
    let text = |name: &str| keys.maybe(name).ok_or_else(none);
    Ok(Keys {
        id: text("AccessKeyId")?,
        secret: Secret::new(text("SecretAccessKey")?),
        token: Some(Secret::new(text("SessionToken")?)),
        expires: text("Expiration")?.parse().ok(),
    })
}

pub(super) fn has_container(machine: &Machine) -> bool {
    [
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ]
    .iter()
    .any(|name| machine.get(name).is_some())
}

/// What ECS, EKS and CodeBuild give to a container.
pub(super) async fn container(machine: &Machine) -> Result<Keys, Error> {
    let failed = |why: String| Error::Answer {
        from: "the container's metadata".into(),
        why,
    };
    let (address, path) = match machine.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) => (CONTAINER.to_owned(), path),
        None => {
            let full = machine
                .get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
                .unwrap_or_default();
            let start = full.find("://").map_or(0, |at| at + 3);
            let path = full[start..].find('/').map_or(full.len(), |at| start + at);
            (full[..path].to_owned(), full[path..].to_owned())
        }
    };
    let endpoint =
        http::Endpoint::parse(&address).ok_or_else(|| failed(format!("{address} is no address")))?;
    let token = match machine.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => std::fs::read_to_string(&file)
            .map(Some)
            .map_err(|source| Error::File { path: file, source })?,
        None => machine.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let headers = token.map(|token| ("authorization".to_owned(), token.trim().to_owned()));
    let body = metadata(&endpoint, Method::GET, &path, headers)
        .await
        .map_err(failed)?;
    keys(&body, ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"]).map_err(failed)
}

/// What an instance's role gives, by the metadata service's second version only.
pub(super) async fn instance(machine: &Machine) -> Result<Keys, Error> {
    let failed = |why: String| Error::Answer {
        from: "the instance's metadata".into(),
        why,
    };
    if machine
        .get("AWS_EC2_METADATA_DISABLED")
        .is_some_and(|value| value == "true")
    {
        return Err(failed("AWS_EC2_METADATA_DISABLED is set".into()));
    }
    let address = machine.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let address = address.as_deref().unwrap_or(INSTANCE);
    let endpoint =
        http::Endpoint::parse(address).ok_or_else(|| failed(format!("{address} is no address")))?;
    let ttl = (
        "x-aws-ec2-metadata-token-ttl-seconds".to_owned(),
        "300".to_owned(),
    );
    let token = metadata(&endpoint, Method::PUT, "/latest/api/token", Some(ttl))
        .await
        .map_err(failed)?;
    let token = String::from_utf8_lossy(&token).trim().to_owned();
    let signed = || Some(("x-aws-ec2-metadata-token".to_owned(), token.clone()));
    let path = "/latest/meta-data/iam/security-credentials/";
    let role = metadata(&endpoint, Method::GET, path, signed())
        .await
        .map_err(failed)?;
    let role = String::from_utf8_lossy(&role);
    let role = role.lines().next().unwrap_or_default().trim();
    let path = format!("{path}{}", crate::sign::encoded(role, ""));
    let body = metadata(&endpoint, Method::GET, &path, signed())
        .await
        .map_err(failed)?;
    keys(&body, ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"]).map_err(failed)
}

async fn metadata(
    endpoint: &http::Endpoint,
    method: Method,
    path: &str,
    header: Option<(String, String)>,
) -> Result<Bytes, String> {
    let call = http::Call {
        method,
        target: format!("{}{path}", endpoint.prefix),
        headers: header.into_iter().collect(),
        body: Bytes::new(),
    };
    let answer = http::exchange(endpoint, call, METADATA).await?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("{path} answers {status}")),
    }
}

/// Keys in JSON, under these names: id, secret, token, end.
pub(super) fn keys(body: &[u8], names: [&str; 4]) -> Result<Keys, String> {
    // An error of the parser may quote what it read.
    let answer: Value = serde_json::from_slice(body).map_err(|_| "what it says is not JSON".to_owned())?;
    let text = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
    let [id, secret, token, end] = names;
    let need = |name: &str| text(name).ok_or_else(|| format!("it says no {name}"));
    Ok(Keys {
        id: need(id)?.to_owned(),
        secret: Secret::new(need(secret)?.to_owned()),
        token: text(token).map(|token| Secret::new(token.to_owned())),
        expires: text(end).and_then(|end| end.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_owner_hears_the_external_id() {
        let role = |external_id: Option<&str>| Role {
            arn: "arn:aws:iam::222222222222:role/deploy".into(),
            external_id: external_id.map(str::to_owned),
            session: None,
            duration: None,
        };
        let said = asked(&role(Some("only-us")));
        assert!(said.text().contains("ExternalId=only-us"), "{}", said.text());
        assert!(!asked(&role(None)).text().contains("ExternalId"));
    }

    #[test]
    fn keys_are_read_and_never_quoted() {
        let names = ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"];
        let body =
            br#"{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-01T00:00:00Z"}"#;
        let found = keys(body, names).ok().unwrap();
        assert_eq!((found.id.as_str(), found.expires.is_some()), ("A", true));
        let said = keys(br#"{"AccessKeyId":"A","SecretAccessKey": hidden"#, names)
            .err()
            .unwrap();
        assert!(!said.contains("hidden"));
        assert!(keys(br#"{"Code":"Failed"}"#, names).is_err());
    }
}
