//! Certificates.

use crate::tls::facts;

/// Reads a certificate from any bytes.
pub fn certificate(bytes: &[u8]) {
    let _ = facts(bytes);
}
