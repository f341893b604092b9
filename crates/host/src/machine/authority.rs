//! The platform's own authority: it signs the listener's certificate and those of machines, and nothing else. Its key
//! comes in from whoever keeps it; the time comes in as a value.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{Digest, HostId, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Error;

/// What the listener is called in its certificate, wherever it is reached.
pub(super) const PLATFORM: &str = "platform.vend.internal";

/// Clocks of machines may be this far behind.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// What is kept of an authority: its certificate, and its key in the vault. Both in DER, in hex.
pub struct Kept {
    pub certificate: String,
    pub key: Secret,
}

impl Authority {
    /// Makes one, good for twenty years.
    pub fn make(now: Timestamp) -> Result<Kept, Error> {
        let key = KeyPair::generate()?;
        let mut params = own();
        lasts(&mut params, now, YEAR * 20);
        Ok(Kept {
            certificate: hex::encode(params.self_signed(&key)?.der()),
            key: Secret::new(hex::encode(key.serialize_der())),
        })
    }

    pub fn open(kept: &Kept) -> Result<Self, Error> {
        let der = |text: &str| hex::decode(text).map_err(|_| Error::Told("the authority is damaged".into()));
        let key = der(kept.key.expose())?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key))?;
        Ok(Self {
            issuer: Issuer::new(own(), key),
            certificate: der(&kept.certificate)?.into(),
        })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What an invitation names it by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// Signs a machine's key.
    pub fn sign(
        &self,
        machine: &HostId,
        key: &Point,
        from: Timestamp,
        lasting: SignedDuration,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, machine.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        lasts(&mut params, from, lasting);
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A key and a certificate for the listener, good for a year.
    pub(super) fn listener(
        &self,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![PLATFORM.to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lasts(&mut params, now, YEAR);
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok((certificate, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

/// The same each time: what it signs must name it.
fn own() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Vend machines");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn lasts(params: &mut CertificateParams, from: Timestamp, lasting: SignedDuration) {
    let at = |time: Timestamp| {
        let since = u64::try_from(time.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since)
    };
    params.not_before = at(from - SLACK);
    params.not_after = at(from + lasting);
}

/// A public key as machines send it: a point of P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point(Vec<u8>);

impl Point {
    /// From hex. A point that is on no curve verifies nothing later.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = hex::decode(text).ok()?;
        (bytes.len() == 65 && bytes[0] == 4).then_some(Self(bytes))
    }

    pub fn of(key: &KeyPair) -> Self {
        Self(key.der_bytes().to_vec())
    }

    pub fn text(&self) -> String {
        hex::encode(&self.0)
    }

    /// What a machine is known by, whatever its certificate.
    pub fn digest(&self) -> Digest {
        Digest::of(self.subject_public_key_info())
    }
}

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// What lets one machine in, once: a secret, and the authority that the machine must find.
pub struct Invitation {
    pub secret: Secret,
    pub authority: Digest,
}

const PREFIX: &str = "vendjoin_";

impl Invitation {
    pub fn make(authority: Digest) -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        Self {
            secret: Secret::new(hex::encode(bytes)),
            authority,
        }
    }

    pub fn text(&self) -> Secret {
        Secret::new(format!(
            "{PREFIX}{}_{}",
            self.secret.expose(),
            self.authority.hex()
        ))
    }

    pub fn read(text: &str) -> Option<Self> {
        let (secret, authority) = text.trim().strip_prefix(PREFIX)?.split_once('_')?;
        let authority: [u8; 32] = hex::decode(authority).ok()?.try_into().ok()?;
        (secret.len() == 64).then(|| Self {
            secret: Secret::new(secret.to_owned()),
            authority: Digest::from_bytes(authority),
        })
    }
}
