//! Digests by the names that Step Functions gives them.

use sha2::Digest;

/// The digest in lower-case hexadecimal; none for an unknown algorithm.
pub fn hex(data: &[u8], algorithm: &str) -> Option<String> {
    let bytes = match algorithm {
        "MD5" => md5::Md5::digest(data).to_vec(),
        "SHA-1" => sha1::Sha1::digest(data).to_vec(),
        "SHA-256" => sha2::Sha256::digest(data).to_vec(),
        "SHA-384" => sha2::Sha384::digest(data).to_vec(),
        "SHA-512" => sha2::Sha512::digest(data).to_vec(),
        _ => return None,
    };
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
