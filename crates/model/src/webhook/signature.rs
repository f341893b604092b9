//! Is a delivery from somebody who knows the secret? In constant time wherever the secret takes part.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{MAX_BODY_BYTES, Provider, Refusal, header};
use crate::{Digest, Secret};

pub(super) const GITHUB: &str = "X-Hub-Signature-256";
pub(super) const GITHUB_OLD: &str = "X-Hub-Signature";
pub(super) const GITLAB: &str = "X-Gitlab-Token";
pub(super) const STANDARD_WEBHOOKS: &str = "webhook-signature";

/// How a signing secret of Standard Webhooks starts; the rest is the key in base64.
const SIGNING: &str = "whsec_";

/// Checks the delivery against the secret. `Ok` means that the sender knows it.
///
/// GitHub: HMAC-SHA-256 of the raw body, which for a form is the form. GitLab: the secret token, or the signature of
/// the [Standard Webhooks](https://www.standardwebhooks.com) specification when the secret is a signing one (`whsec_…`);
/// with a plain secret, a signature that is there must fit as well. How old a delivery may be is the caller's
/// business: it has the clock.
pub fn verify(
    provider: Provider,
    headers: &[(String, String)],
    body: &[u8],
    secret: &Secret,
) -> Result<(), Refusal> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refusal::TooLarge(body.len()));
    }
    if secret.expose().is_empty() || secret.expose() == SIGNING {
        return Err(Refusal::NoSecret);
    }
    match provider {
        Provider::Github => github(headers, body, secret),
        Provider::Gitlab => gitlab(headers, body, secret),
    }
}

fn github(headers: &[(String, String)], body: &[u8], secret: &Secret) -> Result<(), Refusal> {
    let Some(signature) = header(headers, GITHUB)? else {
        return Err(match header(headers, GITHUB_OLD)? {
            Some(old) if fits_old(old, body, secret) => Refusal::OldSignature,
            Some(_) => Refusal::Forged(GITHUB_OLD.to_owned()),
            None => Refusal::Unsigned(GITHUB.to_owned()),
        });
    };
    let forged = || Refusal::Forged(GITHUB.to_owned());
    let digits = signature.strip_prefix("sha256=").ok_or_else(forged)?;
    let signature = hex::decode(digits).map_err(|_| forged())?;
    sha256(secret.expose().as_bytes(), [body])
        .verify_slice(&signature)
        .map_err(|_| forged())
}

/// Does the SHA-1 signature of old GitHub servers fit? Only for telling what is wrong with a delivery.
pub(super) fn fits_old(signature: &str, body: &[u8], secret: &Secret) -> bool {
    let mut mac: Hmac<Sha1> =
        Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    signature
        .strip_prefix("sha1=")
        .and_then(|digits| hex::decode(digits).ok())
        .is_some_and(|signature| mac.verify_slice(&signature).is_ok())
}

fn gitlab(headers: &[(String, String)], body: &[u8], secret: &Secret) -> Result<(), Refusal> {
    let signature = header(headers, STANDARD_WEBHOOKS)?.filter(|text| !text.is_empty());
    if let Some(key) = secret.expose().strip_prefix(SIGNING) {
        let key = zeroize::Zeroizing::new(STANDARD.decode(key).map_err(|_| Refusal::NoSecret)?);
        let signature = signature.ok_or_else(|| Refusal::Unsigned(STANDARD_WEBHOOKS.to_owned()))?;
        return standard(headers, body, &key, signature);
    }
    let Some(token) = header(headers, GITLAB)? else {
        return Err(Refusal::Unsigned(GITLAB.to_owned()));
    };
    // Digests have one length: the comparison tells nothing about the secret's.
    let (token, own) = (Digest::of(token), Digest::of(secret.expose().trim()));
    if !bool::from(token.as_bytes().ct_eq(own.as_bytes())) {
        return Err(Refusal::Forged(GITLAB.to_owned()));
    }
    match signature {
        Some(signature) => standard(headers, body, secret.expose().as_bytes(), signature),
        None => Ok(()),
    }
}

/// `v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`; several may stand there, one must fit.
fn standard(headers: &[(String, String)], body: &[u8], key: &[u8], signatures: &str) -> Result<(), Refusal> {
    let part = |name: &str| header(headers, name)?.ok_or_else(|| Refusal::Unsigned(name.to_owned()));
    let (id, timestamp) = (part("webhook-id")?, part("webhook-timestamp")?);
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let fits = signatures
        .split_ascii_whitespace()
        .take(16)
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|signature| STANDARD.decode(signature).ok())
        .any(|signature| sha256(key, signed).verify_slice(&signature).is_ok());
    match fits {
        true => Ok(()),
        false => Err(Refusal::Forged(STANDARD_WEBHOOKS.to_owned())),
    }
}

fn sha256<'p>(key: &[u8], parts: impl IntoIterator<Item = &'p [u8]>) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
    parts
        .into_iter()
        .for_each(|part| Hmac::<Sha256>::update(&mut mac, part));
    mac
}
