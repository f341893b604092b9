//! Signature v4: who signed a request, and whether they did.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use axum::http::{HeaderMap, Uri, request::Parts};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest as _, Sha256};

/// How far the caller's clock may be from ours.
const SKEW: SignedDuration = SignedDuration::from_mins(15);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Headers that a signature must cover.
const COVERED: [&str; 3] = ["host", "x-amz-date", "x-amz-target"];

/// What the Authorization header of a signed request says.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    pub key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

/// `None`: it is not signed in this way. The words are not checked yet.
pub fn read(headers: &HeaderMap) -> Option<Signed<'_>> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let rest = value.strip_prefix(ALGORITHM)?.trim_start();
    let member = |name: &str| {
        let mut parts = rest.split(',').map(str::trim);
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    let mut scope = member("Credential")?.rsplitn(5, '/');
    let (end, service, region, date) = (scope.next()?, scope.next()?, scope.next()?, scope.next()?);
    let key_id = scope.next()?;
    (end == "aws4_request").then_some(Signed {
        key_id,
        date,
        region,
        service,
        headers: member("SignedHeaders")?.split(';').collect(),
        signature: member("Signature")?,
    })
}

impl Signed<'_> {
    /// Was the request signed with this key, lately? Says why not.
    pub fn verify(
        &self,
        secret: &[u8],
        parts: &Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let stamp = parts
            .headers
            .get("x-amz-date")
            .and_then(|value| value.to_str().ok());
        let stamp = stamp.ok_or("there is no X-Amz-Date header")?;
        let at = time(stamp).ok_or("the X-Amz-Date header is no date")?;
        if now.duration_since(at).abs() > SKEW {
            return Err("Signature expired or not yet current: the clocks differ by more than 15 minutes");
        }
        if !stamp.starts_with(self.date) || self.service != "states" {
            return Err("Credential should be scoped to the day of the request and to the service: 'states'");
        }
        if COVERED.iter().any(|name| !self.headers.contains(name)) {
            return Err("the signature does not cover host, x-amz-date and x-amz-target");
        }
        let canonical = self
            .canonical(parts, body)
            .ok_or("a signed header is not there")?;
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let text = format!(
            "{ALGORITHM}\n{stamp}\n{scope}\n{}",
            hex::encode(Sha256::digest(canonical))
        );
        let key = [self.date, self.region, self.service, "aws4_request"]
            .iter()
            .fold(secret.to_vec(), |key, part| mac(&key, part.as_bytes()));
        let shown = hex::decode(self.signature).map_err(|_| "the signature is not hexadecimal")?;
        let mut check = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        check.update(text.as_bytes());
        check
            .verify_slice(&shown)
            .map_err(|_| "The request signature we calculated does not match the signature you provided.")
    }

    fn canonical(&self, parts: &Parts, body: &[u8]) -> Option<String> {
        let mut headers = String::new();
        for name in &self.headers {
            let mut values = Vec::new();
            for value in parts.headers.get_all(*name) {
                values.push(
                    value
                        .to_str()
                        .ok()?
                        .split_whitespace()
                        .collect::<Vec<_>>()
                        .join(" "),
                );
            }
            if values.is_empty() && *name == "host" {
                // HTTP/2 has it in the request line.
                values.push(parts.uri.authority()?.as_str().to_owned());
            }
            if values.is_empty() {
                return None;
            }
            headers.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let (path, query) = (path(&parts.uri), query(&parts.uri));
        let (method, names) = (&parts.method, self.headers.join(";"));
        let digest = hex::encode(Sha256::digest(body));
        Some(format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{digest}"))
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Every byte but the unreserved ones of RFC 3986 is encoded, once more where it was encoded already.
fn path(uri: &Uri) -> String {
    let mut out = String::new();
    for byte in uri.path().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte.into())
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn query(uri: &Uri) -> String {
    let mut pairs: Vec<String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.contains('=') {
            true => pair.to_owned(),
            false => format!("{pair}="),
        })
        .collect();
    pairs.sort();
    pairs.join("&")
}

/// `20261121T031500Z`
fn time(stamp: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    at.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use model::Secret;

    use super::*;

    const BODY: &[u8] = b"{}";

    /// A request that a client has signed with the secret `secret`, with headers of these names.
    fn signed(names: &[&'static str]) -> (Parts, Timestamp) {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        (parts.method, parts.uri) = (Method::POST, "/states".parse().unwrap());
        let all = [
            ("host", "127.0.0.1:7070"),
            ("x-amz-target", "AWSStepFunctions.ListActivities"),
        ];
        let headers: Vec<_> = all.into_iter().filter(|(name, _)| names.contains(name)).collect();
        let credentials = aws::Credentials {
            key_id: "VEND7".into(),
            secret: Secret::new("secret".into()),
            token: None,
            region: "local".into(),
        };
        let at: Timestamp = "2026-11-21T03:15:00Z".parse().unwrap();
        let request = aws::Signed {
            method: "POST",
            path: "/states",
            query: "",
            headers: &headers,
            body: BODY,
        };
        let made = aws::sign(&credentials, "states", &request, at);
        let made = made.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in all.into_iter().chain(made) {
            parts.headers.insert(name, value.parse().unwrap());
        }
        (parts, at)
    }

    fn verify(parts: &Parts, secret: &[u8], body: &[u8], now: Timestamp) -> Result<(), &'static str> {
        read(&parts.headers).unwrap().verify(secret, parts, body, now)
    }

    #[test]
    fn a_signature_holds_for_one_request_and_a_short_time() {
        let (parts, at) = signed(&["host", "x-amz-target"]);
        assert_eq!(read(&parts.headers).unwrap().key_id, "VEND7");
        assert_eq!(verify(&parts, b"AWS4secret", BODY, at), Ok(()));
        assert!(verify(&parts, b"AWS4other", BODY, at).is_err());
        assert!(verify(&parts, b"AWS4secret", b"{ }", at).is_err());
        for minutes in [-16, 16] {
            let other = at + SignedDuration::from_mins(minutes);
            assert!(verify(&parts, b"AWS4secret", BODY, other).is_err());
        }
        let changes: [(&str, &str); 3] = [
            ("host", "other"),
            ("x-amz-date", "20261121T031501Z"),
            ("x-amz-target", "AWSStepFunctions.DeleteActivity"),
        ];
        for (name, value) in changes {
            let (mut parts, at) = signed(&["host", "x-amz-target"]);
            parts.headers.insert(name, value.parse().unwrap());
            assert!(verify(&parts, b"AWS4secret", BODY, at).is_err(), "{name}");
        }
    }

    /// What HMAC takes for a long key is its digest: the platform keeps that of `AWS4` and a token's text.
    #[test]
    fn the_digest_of_a_long_secret_is_as_good() {
        let long = [b'x'; 80];
        assert_eq!(mac(&long, b"text"), mac(&Sha256::digest(long), b"text"));
    }

    #[test]
    fn a_signature_that_leaves_out_what_matters_is_refused() {
        let (parts, at) = signed(&["host"]);
        let refused = verify(&parts, b"AWS4secret", BODY, at).unwrap_err();
        assert!(refused.contains("cover"), "{refused}");
    }

    #[test]
    fn other_headers_are_not_signatures() {
        for value in [
            "Bearer x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=a/b/c",
            "",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            assert_eq!(read(&headers), None, "{value}");
        }
    }
}
