//! The packages of Fedora, Red Hat and SUSE: rpm's database ("Package Format" of rpm.org, "Header Structure").

use super::{Kind, Package, sqlite};

/// `RPMTAG_*` and `RPM_*_TYPE` of rpm's `rpmtag.h`.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const INT32: u32 = 4;
const STRING: u32 = 6;

/// The packages of an `rpmdb.sqlite`. `None`: it could not be read to its end.
pub fn rpm(database: &[u8]) -> Option<Vec<Package>> {
    let mut packages = Vec::new();
    sqlite::blobs(database, "Packages", &mut |header| {
        packages.extend(package(header))
    })?;
    Some(packages)
}

/// One package's header, as the database keeps it: how many entries, how many bytes, the entries, the bytes.
fn package(header: &[u8]) -> Option<Package> {
    let word = |at: usize| -> Option<u32> {
        let found = header.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(found.try_into().ok()?))
    };
    let entries = usize::try_from(word(0)?).ok()?;
    let data = header.get(entries.checked_mul(16)?.checked_add(8)?..)?;
    let find = |tag: u32, kind: u32| -> Option<&[u8]> {
        let at = (0..entries)
            .map(|entry| 8 + 16 * entry)
            .take_while(|at| *at < header.len())
            .find(|at| word(*at) == Some(tag) && word(at + 4) == Some(kind))?;
        data.get(usize::try_from(word(at + 8)?).ok()?..)
    };
    let text = |tag: u32| -> Option<String> {
        let bytes = find(tag, STRING)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let epoch = find(EPOCH, INT32).and_then(|bytes| bytes.first_chunk::<4>());
    let epoch = epoch.map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let mut version = format!("{}-{}", text(VERSION)?, text(RELEASE)?);
    if epoch > 0 {
        version = format!("{epoch}:{version}");
    }
    Some(Package {
        kind: Kind::Rpm,
        name: text(NAME)?,
        version,
        // Keys that rpm trusts are kept as packages without one.
        architecture: text(ARCHITECTURE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Debian's rpm 4.18 of two packages, one of which has 400 files, and so a header on several pages.
    const DATABASE: &[u8] = include_bytes!("rpmdb.sqlite.zst");

    #[test]
    fn rpm_s_own_database_is_read() {
        let database = zstd::decode_all(DATABASE).unwrap();
        let mut packages = rpm(&database).unwrap();
        packages.sort();
        let shown: Vec<String> = packages.iter().map(|package| package.purl("fedora")).collect();
        assert_eq!(
            shown,
            [
                "pkg:rpm/fedora/many-files@2.4-7.fc40?arch=noarch&epoch=3",
                "pkg:rpm/fedora/tiny@1.0~rc1-1?arch=x86_64",
            ]
        );
        assert_eq!(packages[0].version, "3:2.4-7.fc40");
    }

    #[test]
    fn a_database_that_is_cut_or_none_is_said_to_be_unread() {
        let database = zstd::decode_all(DATABASE).unwrap();
        assert_eq!(rpm(b""), None);
        assert_eq!(rpm(&database[..database.len() / 4]), None);
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_database_is_read_or_refused(damage in proptest::collection::vec((0..60_000_usize, proptest::num::u8::ANY), 1..40)) {
            let mut database = zstd::decode_all(DATABASE).unwrap();
            for (at, byte) in damage {
                database[at] = byte;
            }
            for package in rpm(&database).into_iter().flatten() {
                assert!(!package.name.is_empty() && !package.version.is_empty());
            }
        }
    }
}
