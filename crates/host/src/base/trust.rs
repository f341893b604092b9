//! Certificate authorities that this machine trusts and Debian does not: those of a company's own proxy, mostly. Builds
//! and hosts have to trust them too, or nothing can be downloaded.

use std::{collections::BTreeSet, fs, process::Command};

use camino::Utf8Path;
use model::Digest;

use crate::layer::{Error, io_error};

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Puts the machine's own authorities where Debian's tool looks for private ones, and makes the bundle anew. Gives what
/// was put there, for the base's key.
pub(super) fn install(files: &Utf8Path) -> Result<Vec<String>, Error> {
    let read = |path: &Utf8Path| fs::read_to_string(path).unwrap_or_default();
    let known = read(&files.join(BUNDLE));
    let known: BTreeSet<String> = certificates(&known).collect();
    let machine = read(&Utf8Path::new("/").join(BUNDLE));
    let private: BTreeSet<String> = certificates(&machine)
        .filter(|certificate| !known.contains(certificate))
        .collect();
    if private.is_empty() {
        return Ok(Vec::new());
    }
    let directory = files.join("usr/local/share/ca-certificates");
    fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
    for certificate in &private {
        let path = directory.join(format!("machine-{}.crt", Digest::of(certificate).short()));
        fs::write(&path, certificate).map_err(io_error("write", &path))?;
    }
    let made = Command::new("chroot")
        .args([files.as_str(), "update-ca-certificates"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(io_error("make the certificates of", files))?;
    match made.status.success() {
        true => Ok(private.into_iter().collect()),
        false => {
            let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            Err(io_error("make the certificates of", files)(
                std::io::Error::other(why),
            ))
        }
    }
}

/// The certificates of a bundle, each with one line end at its end.
fn certificates(bundle: &str) -> impl Iterator<Item = String> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).filter_map(|part| {
        let start = part.find("-----BEGIN CERTIFICATE-----")?;
        part.ends_with(END).then(|| format!("{}\n", &part[start..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_taken_apart() {
        let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
        let two = "-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n";
        let bundle = format!("# one\n{one}\n{two}-----BEGIN CERTIFICATE-----\ncut");
        assert_eq!(certificates(&bundle).collect::<Vec<_>>(), [one, two]);
        assert_eq!(certificates("").count(), 0);
    }
}
