//! Signature v4 of a request.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{Timestamp, tz::TimeZone};
use model::Secret;
use sha2::{Digest as _, Sha256};

/// Who signs.
#[derive(Clone)]
pub struct Credentials {
    pub key_id: String,
    pub secret: Secret,
    /// What temporary credentials come with.
    pub token: Option<Secret>,
    pub region: String,
}

/// What is signed. `path` is already written as it goes over the line; `query` has its pairs in order of their names,
/// encoded; `headers` are lower-case.
pub struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The headers that sign a request of `service` at this time: `x-amz-date`, `authorization`, and for temporary
/// credentials `x-amz-security-token`.
pub fn sign(
    credentials: &Credentials,
    service: &str,
    request: &Signed<'_>,
    at: Timestamp,
) -> Vec<(&'static str, String)> {
    let stamp = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let token = credentials.token.as_ref().map(|token| token.expose().to_owned());
    let mut all: Vec<(&str, &str)> = request.headers.to_vec();
    all.push(("x-amz-date", &stamp));
    all.extend(token.as_deref().map(|token| ("x-amz-security-token", token)));
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let Signed {
        method, path, query, ..
    } = request;
    let canonical = format!(
        "{method}\n{path}\n{query}\n{lines}\n{names}\n{}",
        digest(request.body)
    );
    let authorization = authorization(credentials, service, &names, &canonical, &stamp);
    let mut made = vec![("x-amz-date", stamp), ("authorization", authorization)];
    made.extend(token.map(|token| ("x-amz-security-token", token)));
    made
}

fn authorization(
    credentials: &Credentials,
    service: &str,
    names: &str,
    canonical: &str,
    stamp: &str,
) -> String {
    let date = &stamp[..8];
    let region = &credentials.region;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        digest(canonical.as_bytes())
    );
    let secret = format!("AWS4{}", credentials.secret.expose()).into_bytes();
    let key = [date, region, service, "aws4_request"]
        .iter()
        .fold(secret, |key, part| mac(&key, part.as_bytes()));
    let signature = hex::encode(mac(&key, text.as_bytes()));
    let id = &credentials.key_id;
    format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
}

/// The SHA-256 of some bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The SHA-256 of some bytes, in base64.
pub fn checksum(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(bytes))
}

/// Percent-encoded as Signature v4 wants it: all but letters, digits, `-._~`, and `keep`.
pub fn encoded(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || keep.as_bytes().contains(&b) => {
                out.push(char::from(b));
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(
        method: &str,
        query: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            token: token.map(|token| Secret::new(token.into())),
            region: "us-east-1".into(),
        };
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().expect("a time");
        let request = Signed {
            method,
            path: "/",
            query,
            headers,
            body,
        };
        let made = sign(&credentials, "service", &request, at);
        made[1].1.rsplit('=').next().expect("a signature").to_owned()
    }

    const HOST: (&str, &str) = ("host", "example.amazonaws.com");

    /// `post-vanilla`, `get-vanilla-query-order-key-case` and `post-x-www-form-urlencoded` of the test suite that AWS
    /// publishes.
    #[test]
    fn signs_as_aws_does() {
        let post = signature("POST", "", None, &[HOST], b"");
        assert_eq!(
            post,
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let get = signature("GET", "Param1=value1&Param2=value2", None, &[HOST], b"");
        assert_eq!(
            get,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
        let form = [("content-type", "application/x-www-form-urlencoded"), HOST];
        let form = signature("POST", "", None, &form, b"Param1=value1");
        assert_eq!(
            form,
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
    }

    #[test]
    fn a_token_is_signed_too() {
        let with = signature("POST", "", Some("t"), &[HOST], b"");
        assert_ne!(with, signature("POST", "", None, &[HOST], b""));
    }

    #[test]
    fn encodes_as_the_signature_wants() {
        assert_eq!(encoded("a b/c~ü+", "/"), "a%20b/c~%C3%BC%2B");
        assert_eq!(encoded("a/b", ""), "a%2Fb");
    }
}
