//! TLS 1.3 between machines and the platform, with certificates of the platform's authority and no others.

use std::sync::Arc;

use model::Digest;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};

use super::{Error, JOINING, SERVING, authority::PLATFORM};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn only(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

pub fn platform() -> ServerName<'static> {
    ServerName::try_from(PLATFORM).expect("it is a name")
}

/// The listener's: a machine without a certificate may only join.
pub fn listener(
    authority: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(only(authority)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Told(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate, authority.clone()], key)?;
    config.alpn_protocols = vec![SERVING.to_vec(), JOINING.to_vec()];
    // Each connection shows its certificate: a removed machine must not come back on a ticket.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A machine's that joins: it knows the authority by its digest only.
pub fn joining(authority: Digest) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(authority)))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOINING.to_vec()];
    Ok(Arc::new(config))
}

/// A machine's that is known.
pub fn serving(
    authority: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(only(authority)?)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![SERVING.to_vec()];
    Ok(Arc::new(config))
}

/// Of the key in a certificate that was verified.
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<Digest, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Digest::of(parsed.subject_public_key_info()))
}

/// Trusts whoever the authority of this digest has signed for.
#[derive(Debug)]
struct Pinned(Digest);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other =
            || rustls::Error::General("it is not the platform that the invitation is from".to_owned());
        let authority = intermediates.iter().find(|shown| Digest::of(shown) == self.0);
        let mut roots = RootCertStore::empty();
        roots.add(authority.ok_or_else(other)?.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
