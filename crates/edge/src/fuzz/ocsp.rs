//! Answers of OCSP.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::tls::check_staple;

/// Reads an answer of OCSP from any bytes, and looks whether it is of the certificates that stand behind it in them.
pub fn ocsp(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(bytes.len());
    let (answer, leaf) = bytes.split_at(length);
    for chain in [vec![leaf], vec![leaf, leaf]] {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let _ = check_staple(answer, &chain, Timestamp::UNIX_EPOCH);
    }
}
