//! Signature v4 of a POST to `/`.
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
    pub region: String,
}

/// The headers that sign a request of `service` with these `headers`, which are lower-case and sorted by name, at this
/// time: `x-amz-date` and `authorization`.
pub fn sign(
    credentials: &Credentials,
    service: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    at: Timestamp,
) -> [(&'static str, String); 2] {
    let stamp = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &stamp[..8];
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    all.push(("x-amz-date", &stamp));
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let canonical = format!("POST\n{path}\n\n{lines}\n{names}\n{}", digest(body));
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
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    [("x-amz-date", stamp), ("authorization", authorization)]
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `post-vanilla` of the test suite that AWS publishes.
    #[test]
    fn signs_as_aws_does() {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            region: "us-east-1".into(),
        };
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().expect("a time");
        let headers = [("host", "example.amazonaws.com")];
        let [_, (_, signed)] = sign(&credentials, "service", "/", &headers, b"", at);
        assert!(
            signed.ends_with("Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            "{signed}"
        );
    }
}
