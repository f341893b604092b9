//! What a client and the edge have agreed on, in ALB's words, for the log.

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::Certificates;

/// Of one connection.
pub struct Agreed {
    /// As OpenSSL names it.
    pub cipher: &'static str,
    pub protocol: &'static str,
    /// The host that the client named, when there is a certificate for it.
    pub name: Option<String>,
    /// The certificate's, or `session-reused`.
    pub certificate: Option<String>,
}

impl Agreed {
    pub fn of(session: &ServerConnection, certificates: &Certificates) -> Self {
        let cipher = session.negotiated_cipher_suite();
        let named = session.server_name();
        let (shown, is_for_name) = certificates.shown(named);
        let reused = session.handshake_kind() == Some(HandshakeKind::Resumed);
        Self {
            cipher: cipher
                .and_then(|cipher| cipher.suite().as_str())
                .map_or("-", openssl),
            protocol: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "-",
            },
            name: named.filter(|_| is_for_name).map(str::to_owned),
            certificate: if reused {
                Some("session-reused".to_owned())
            } else {
                shown
            },
        }
    }
}

/// The names of IANA, as rustls has them, are other ones.
fn openssl(suite: &'static str) -> &'static str {
    match suite {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_the_name_of_openssl() {
        for suite in super::super::provider().cipher_suites.iter() {
            let name = suite.suite().as_str().unwrap();
            let words = openssl(name);
            assert_ne!(words, name);
            assert!(!words.contains("WITH") && !words.contains("TLS13"), "{words}");
        }
    }
}
