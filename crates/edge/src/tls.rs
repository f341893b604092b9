//! TLS to clients: which certificate, which versions, who is let in. rustls does the work.
//!
//! The settings of a listener are fixed while it runs; certificates are not: `certificates` watches their folder, `server` the
//! files of who is let in, and connections that are open keep what they began with.

mod agreed;
mod certificates;
mod der;
mod failure;
mod name;
mod ocsp;
mod server;

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use camino::{Utf8Path, Utf8PathBuf};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

pub use agreed::Agreed;
pub use certificates::{Certificates, Good, Seen};
pub use der::{Facts, facts};
pub use failure::{Failure, Failures};
pub use ocsp::check as check_staple;
pub use server::Server;

/// How a listener speaks TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where the certificates are: `NAME.pem` with chain and key, or `NAME.crt` and `NAME.key`; `NAME.ocsp` beside them.
    pub certificates: Utf8PathBuf,
    pub minimum: Version,
    /// Names of cipher suites as rustls has them; empty means its own choice.
    pub ciphers: Vec<String>,
    /// Clients must show a certificate.
    pub clients: Option<Clients>,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Tls12,
    Tls13,
}

/// Which clients are let in.
#[derive(Debug, Clone)]
pub struct Clients {
    /// PEM: who may have signed a client's certificate.
    pub trust: Utf8PathBuf,
    /// PEM: what has been revoked; the lists must be in date.
    pub revoked: Option<Utf8PathBuf>,
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not PEM: {why}")]
    Pem { path: Utf8PathBuf, why: String },
    #[error("{path} holds nothing of use: {why}")]
    Useless { path: Utf8PathBuf, why: String },
    #[error("there is no cipher suite `{0}`")]
    Cipher(String),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What is a protocol of ACME's own (RFC 8737): a handshake that answers a challenge, and nothing after it.
pub const CHALLENGE: &[u8] = b"acme-tls/1";

/// The cryptography of this room.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The settings of one listener, as the files are now.
fn settings(tls: &Tls, certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let provider = with_ciphers(&tls.ciphers)?;
    let versions: &[&SupportedProtocolVersion] = match tls.minimum {
        Version::Tls12 => &[&TLS13, &TLS12],
        Version::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(Error::Setup)?;
    let verifier = match &tls.clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(roots(&clients.trust)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if let Some(path) = &clients.revoked {
                verifier = verifier.with_crls(revoked(path)?).enforce_revocation_expiration();
                verifier = verifier.only_check_end_entity_revocation();
            }
            verifier.build().map_err(|error| Error::Useless {
                path: clients.trust.clone(),
                why: error.to_string(),
            })?
        }
    };
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", CHALLENGE].map(<[u8]>::to_vec).into();
    // Tickets: sessions go on at any worker, and cost no memory here.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(Error::Setup)?;
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// Names of all cipher suites that a listener may be told.
pub fn ciphers() -> Vec<String> {
    aws_lc_rs::default_provider()
        .cipher_suites
        .iter()
        .map(named)
        .collect()
}

fn named(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

fn with_ciphers(names: &[String]) -> Result<Arc<CryptoProvider>, Error> {
    let mut provider = aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(Arc::new(provider));
    }
    let known: Vec<String> = provider.cipher_suites.iter().map(named).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(Error::Cipher(unknown.clone()));
    }
    provider
        .cipher_suites
        .retain(|suite| names.contains(&named(suite)));
    Ok(Arc::new(provider))
}

/// How often files are looked at that may change while a listener runs.
const EVERY: Duration = Duration::from_secs(2);

/// What changes when a file does: which it is, its length and time. Another of the same length may take its place within one
/// tick of the file system's clock. None where there is no file.
type Stamp = (u64, u64, Option<SystemTime>);

fn stamp(path: &Utf8Path) -> Option<Stamp> {
    let about = path.metadata().ok()?;
    Some((about.ino(), about.len(), about.modified().ok()))
}

fn read(path: &Utf8Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Roots to trust, from a PEM file.
pub fn roots(path: &Utf8Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in all::<CertificateDer<'static>>(path)? {
        roots.add(certificate).map_err(|error| Error::Useless {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn revoked(path: &Utf8Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    all(path)
}

/// Everything of one kind in a PEM file.
fn all<T: PemObject>(path: &Utf8Path) -> Result<Vec<T>, Error> {
    let bytes = read(path)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::Useless {
            path: path.to_owned(),
            why: "nothing of the kind is in it".into(),
        }),
        Err(error) => Err(Error::Pem {
            path: path.to_owned(),
            why: error.to_string(),
        }),
    }
}
