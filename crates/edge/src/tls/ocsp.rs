//! Answers of OCSP (RFC 6960) that are shown with a certificate. They are read as far as it takes to see that clients
//! will take them: a client may end the handshake for one that is not good, where it would have gone on without any.

use aws_lc_rs::digest::{self, Algorithm};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    der::{BIT_STRING, GENERALIZED_TIME, INTEGER, Parts, Reader, SEQUENCE, parts, time},
    provider,
};

/// Why an answer is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is no answer of OCSP")]
    Unreadable,
    #[error("the responder had none (its status is {0})")]
    None(u8),
    #[error("it is of another certificate")]
    Other,
    #[error("the certificate is revoked")]
    Revoked,
    #[error("the responder does not know the certificate")]
    Unknown,
    #[error("it holds from {0} on")]
    Early(Timestamp),
    #[error("it held until {0}")]
    Late(Timestamp),
    #[error("it is not signed by the issuer, nor by one whom the issuer lets answer")]
    Unsigned,
}

const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const FIRST: u8 = 0xa0;
/// id-pkix-ocsp-basic.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// id-kp-OCSPSigning.
const SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// Certificates of responders that are looked at.
const SIGNERS: usize = 4;

/// An answer, as it stands there.
struct Answer<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    singles: Reader<'a>,
    signers: Reader<'a>,
}

/// What it says of one certificate.
struct Single<'a> {
    hash: &'a [u8],
    issuer: &'a [u8],
    key: &'a [u8],
    serial: &'a [u8],
    state: u8,
    from: Timestamp,
    until: Option<Timestamp>,
}

/// Until when an answer may be shown with the first certificate of this chain, if it says.
///
/// # Errors
/// When it is not to be shown.
pub fn check(
    answer: &[u8],
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<Option<Timestamp>, Unfit> {
    let answer = read(answer)?;
    let leaf = chain.first().and_then(|leaf| parts(leaf)).ok_or(Unfit::Other)?;
    let issuer = chain.get(1);
    let mut singles = Reader(answer.singles.0);
    let single = loop {
        if singles.0.is_empty() {
            return Err(Unfit::Other);
        }
        let single = single(&mut singles).ok_or(Unfit::Unreadable)?;
        if single.is_of(&leaf, issuer) {
            break single;
        }
    };
    match single.state {
        0x80 => {}
        0xa1 => return Err(Unfit::Revoked),
        _ => return Err(Unfit::Unknown),
    }
    if single.from > now {
        return Err(Unfit::Early(single.from));
    }
    if let Some(until) = single.until.filter(|until| *until <= now) {
        return Err(Unfit::Late(until));
    }
    match issuer.is_none_or(|issuer| answer.is_signed(issuer, now)) {
        true => Ok(single.until),
        false => Err(Unfit::Unsigned),
    }
}

fn read(bytes: &[u8]) -> Result<Answer<'_>, Unfit> {
    let mut response = alone(bytes, SEQUENCE).ok_or(Unfit::Unreadable)?;
    match response.expect(ENUMERATED) {
        Some([0]) => {}
        Some([status]) => return Err(Unfit::None(*status)),
        _ => return Err(Unfit::Unreadable),
    }
    basic(&mut response).ok_or(Unfit::Unreadable)
}

/// The one value of which all of this consists.
fn alone(bytes: &[u8], tag: u8) -> Option<Reader<'_>> {
    let mut outer = Reader(bytes);
    let inner = outer.expect(tag)?;
    outer.0.is_empty().then_some(Reader(inner))
}

fn basic<'a>(response: &mut Reader<'a>) -> Option<Answer<'a>> {
    let mut bytes = alone(response.expect(FIRST)?, SEQUENCE)?;
    if bytes.expect(OID)? != BASIC {
        return None;
    }
    let mut basic = alone(bytes.expect(OCTETS)?, SEQUENCE)?;
    let signed = basic.whole()?;
    let algorithm = basic.expect(SEQUENCE)?;
    let signature = basic.expect(BIT_STRING)?.get(1..)?;
    let signers = match basic.next() {
        Some((FIRST, signers)) => alone(signers, SEQUENCE)?,
        _ => Reader(&[]),
    };
    let mut data = alone(signed, SEQUENCE)?;
    // Its version, which is not written where it is the first; then who answers.
    if data.next()?.0 == FIRST {
        data.next()?;
    }
    data.expect(GENERALIZED_TIME)?;
    let singles = Reader(data.expect(SEQUENCE)?);
    Some(Answer {
        signed,
        algorithm,
        signature,
        singles,
        signers,
    })
}

fn single<'a>(singles: &mut Reader<'a>) -> Option<Single<'a>> {
    let mut single = Reader(singles.expect(SEQUENCE)?);
    let mut id = Reader(single.expect(SEQUENCE)?);
    let hash = Reader(id.expect(SEQUENCE)?).expect(OID)?;
    let (issuer, key, serial) = (id.expect(OCTETS)?, id.expect(OCTETS)?, id.expect(INTEGER)?);
    let state = single.next()?.0;
    let from = time(single.next()?)?;
    let until = match single.next() {
        Some((FIRST, until)) => Some(time(Reader(until).next()?)?),
        _ => None,
    };
    Some(Single {
        hash,
        issuer,
        key,
        serial,
        state,
        from,
        until,
    })
}

impl Single<'_> {
    fn is_of(&self, leaf: &Parts<'_>, issuer: Option<&CertificateDer<'_>>) -> bool {
        let algorithm: &Algorithm = match self.hash {
            [0x2b, 0x0e, 3, 2, 0x1a] => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => &digest::SHA256,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => &digest::SHA384,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => &digest::SHA512,
            _ => return false,
        };
        let is = |hash: &[u8], of: &[u8]| digest::digest(algorithm, of).as_ref() == hash;
        let signed_by = |issuer: &CertificateDer<'_>| {
            parts(issuer)
                .and_then(|issuer| issuer.key())
                .is_some_and(|key| is(self.key, key))
        };
        self.serial == leaf.serial && is(self.issuer, leaf.issuer) && issuer.is_none_or(signed_by)
    }
}

impl Answer<'_> {
    /// By the issuer of the certificate itself, or by one whom it lets answer (RFC 6960, section 4.2.2.2).
    fn is_signed(&self, issuer: &CertificateDer<'_>, now: Timestamp) -> bool {
        if self.is_signed_by(issuer) {
            return true;
        }
        let Ok(anchor) = anchor_from_trusted_cert(issuer) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()));
        let algorithms = provider().signature_verification_algorithms.all;
        let lets = |signer: &CertificateDer<'_>| {
            let usage = KeyUsage::required(SIGNING);
            EndEntityCert::try_from(signer).is_ok_and(|signer| {
                let anchors = std::slice::from_ref(&anchor);
                signer
                    .verify_for_usage(algorithms, anchors, &[], now, usage, None, None)
                    .is_ok()
            })
        };
        let mut signers = Reader(self.signers.0);
        std::iter::from_fn(|| signers.whole().map(CertificateDer::from))
            .take(SIGNERS)
            .any(|signer| self.is_signed_by(&signer) && lets(&signer))
    }

    fn is_signed_by(&self, signer: &CertificateDer<'_>) -> bool {
        let Ok(signer) = EndEntityCert::try_from(signer) else {
            return false;
        };
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.signature_alg_id().as_ref() == self.algorithm
        };
        let algorithms = provider().signature_verification_algorithms.all;
        algorithms.iter().filter(fits).any(|algorithm| {
            signer
                .verify_signature(*algorithm, self.signed, self.signature)
                .is_ok()
        })
    }
}

#[cfg(test)]
pub mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SigningKey,
    };

    use super::*;

    /// One value of DER.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let length = value.len();
        let head = match length {
            0..=0x7f => vec![tag, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, value].concat()
    }

    /// An authority, a certificate of it, and another's.
    pub struct World {
        authority: Issuer<'static, KeyPair>,
        pub chain: Vec<CertificateDer<'static>>,
        pub pem: String,
        other: Vec<CertificateDer<'static>>,
    }

    pub fn world() -> World {
        let (key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let other = params.self_signed(&other_key).unwrap();
        let own = KeyPair::generate().unwrap();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
        params.serial_number = Some(vec![0x2a, 0x01].into());
        let leaf = params.signed_by(&own, &issuer).unwrap();
        World {
            authority: issuer,
            pem: leaf.pem() + &authority.pem() + &own.serialize_pem(),
            chain: vec![leaf.der().clone(), authority.der().clone()],
            other: vec![leaf.der().clone(), other.der().clone()],
        }
    }

    /// What an answer says.
    pub struct Says<'a> {
        pub serial: &'a [u8],
        pub state: Vec<u8>,
        pub from: &'a str,
        pub until: &'a str,
        /// Its certificate, where somebody else than the authority signs.
        pub signer: Option<(&'a KeyPair, Vec<u8>)>,
    }

    impl Default for Says<'_> {
        fn default() -> Self {
            Self {
                serial: &[0x2a, 0x01],
                state: vec![0x80, 0],
                from: "20260101000000Z",
                until: "20260108000000Z",
                signer: None,
            }
        }
    }

    impl World {
        pub fn answer(&self, says: &Says<'_>) -> Vec<u8> {
            let issuer = parts(&self.chain[1]).unwrap();
            let leaf = parts(&self.chain[0]).unwrap();
            let hash = |of| {
                digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, of)
                    .as_ref()
                    .to_vec()
            };
            let algorithm = der(SEQUENCE, &[&der(OID, &[&[0x2b, 0x0e, 3, 2, 0x1a]]), &[5, 0]]);
            let (name, key) = (hash(leaf.issuer), hash(issuer.key().unwrap()));
            let (name, key) = (der(OCTETS, &[&name]), der(OCTETS, &[&key]));
            let id = der(
                SEQUENCE,
                &[&algorithm, &name, &key, &der(INTEGER, &[says.serial])],
            );
            let at = |time: &str| der(GENERALIZED_TIME, &[time.as_bytes()]);
            let until = der(FIRST, &[&at(says.until)]);
            let single = der(SEQUENCE, &[&id, &says.state, &at(says.from), &until]);
            let who = der(0xa2, &[&der(OCTETS, &[&[0; 20]])]);
            let data = der(SEQUENCE, &[&who, &at(says.from), &der(SEQUENCE, &[&single])]);
            let (key, more) = match &says.signer {
                Some((key, signer)) => (*key, der(FIRST, &[&der(SEQUENCE, &[signer])])),
                None => (self.authority.key(), Vec::new()),
            };
            let ecdsa = der(
                SEQUENCE,
                &[&der(OID, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])],
            );
            let signature = der(BIT_STRING, &[&[0], &key.sign(&data).unwrap()]);
            let basic = der(SEQUENCE, &[&data, &ecdsa, &signature, &more]);
            let bytes = der(SEQUENCE, &[&der(OID, &[BASIC]), &der(OCTETS, &[&basic])]);
            der(SEQUENCE, &[&[ENUMERATED, 1, 0], &der(FIRST, &[&bytes])])
        }

        /// Somebody else's certificate by the authority.
        fn signer(&self, key: &KeyPair, usage: ExtendedKeyUsagePurpose) -> Vec<u8> {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.extended_key_usages = vec![usage];
            params.signed_by(key, &self.authority).unwrap().der().to_vec()
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_clients_take_is_shown() {
        let world = world();
        let now = at("2026-01-02T00:00:00Z");
        let with = |says: Says<'_>| check(&world.answer(&says), &world.chain, now);
        let until = at("2026-01-08T00:00:00Z");
        assert_eq!(with(Says::default()), Ok(Some(until)));
        let revoked = der(0xa1, &[&der(GENERALIZED_TIME, &[b"20260101000000Z"])]);
        for (says, why) in [
            (
                Says {
                    state: revoked,
                    ..Says::default()
                },
                Unfit::Revoked,
            ),
            (
                Says {
                    state: vec![0x82, 0],
                    ..Says::default()
                },
                Unfit::Unknown,
            ),
            (
                Says {
                    serial: &[0x2a, 0x02],
                    ..Says::default()
                },
                Unfit::Other,
            ),
            (
                Says {
                    from: "20260103000000Z",
                    ..Says::default()
                },
                Unfit::Early(at("2026-01-03T00:00:00Z")),
            ),
            (
                Says {
                    until: "20260102000000Z",
                    ..Says::default()
                },
                Unfit::Late(now),
            ),
        ] {
            assert_eq!(with(says), Err(why));
        }
        let good = world.answer(&Says::default());
        assert_eq!(
            check(&good, &world.other, now),
            Err(Unfit::Other),
            "of another authority"
        );
        assert_eq!(
            check(&good, &world.chain[..1], now),
            Ok(Some(until)),
            "nobody knows who signs"
        );
        assert_eq!(
            check(&[0x30, 3, ENUMERATED, 1, 3], &world.chain, now),
            Err(Unfit::None(3))
        );
        assert_eq!(
            check(b"an answer of OCSP", &world.chain, now),
            Err(Unfit::Unreadable)
        );
        for cut in 0..good.len() {
            assert_eq!(
                check(&good[..cut], &world.chain, now),
                Err(Unfit::Unreadable),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_answer_is_signed_by_the_authority_or_by_whom_it_lets() {
        let world = world();
        let now = at("2026-01-02T00:00:00Z");
        let key = KeyPair::generate().unwrap();
        for (usage, expected) in [
            (ExtendedKeyUsagePurpose::OcspSigning, true),
            (ExtendedKeyUsagePurpose::ServerAuth, false),
        ] {
            let signer = Some((&key, world.signer(&key, usage)));
            let answer = world.answer(&Says {
                signer,
                ..Says::default()
            });
            assert_eq!(check(&answer, &world.chain, now).is_ok(), expected);
        }
        let mut forged = world.answer(&Says::default());
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(check(&forged, &world.chain, now), Err(Unfit::Unsigned));
    }
}
