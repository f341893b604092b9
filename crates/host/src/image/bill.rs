//! What an image is made of: its packages, as SPDX.

mod files;
mod rpm;
mod search;
mod sqlite;

pub use files::{cargo, composer, gem, go, npm, wheel};
pub use rpm::rpm;

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _};

use camino::Utf8Path;
use jiff::Timestamp;
use model::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::view::View;
use crate::layer::{Error, io_error};

/// The largest list of packages that is read.
const LIST_BYTES: u64 = 64 << 20;
const METADATA_BYTES: u64 = 1 << 20;
/// Where rpm keeps its database: of today, of yesterday, and of the years before, which is not read.
const RPM: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
const RPM_UNREAD: [&str; 2] = ["Packages", "Packages.db"];
const RPM_BYTES: u64 = 256 << 20;
/// Programs that no package manager put there. More of them in one directory are not looked into.
const PROGRAMS: [&str; 4] = ["usr/local/bin", "root/go/bin", "go/bin", "app"];
const LOOKED_INTO: usize = 200;
/// Go's programs are smaller.
const PROGRAM_BYTES: u64 = 512 << 20;

/// More packages than any image has: a list of many takes little room in an image, and much of a node's memory.
const PACKAGES: usize = 100_000;

/// One thing that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    pub kind: Kind,
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Deb,
    Apk,
    Pypi,
    Npm,
    Rpm,
    Gem,
    Cargo,
    Golang,
    Composer,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Rpm => "rpm",
            Self::Gem => "gem",
            Self::Cargo => "cargo",
            Self::Golang => "golang",
            Self::Composer => "composer",
        }
    }
}

/// What an image is made of, as far as it says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Sorted.
    pub packages: BTreeSet<Package>,
    /// Lists of packages that are there and were not read, or where such lists may be: the packages in them are missing
    /// above.
    pub unread: Vec<String>,
}

impl Contents {
    /// Adds what a list says; what is not added is said.
    fn add(&mut self, list: &str, more: impl IntoIterator<Item = Package>) {
        for package in more {
            if self.packages.len() >= PACKAGES {
                let unread = format!("{list}, after {PACKAGES} packages");
                if self.unread.last() != Some(&unread) {
                    self.unread.push(unread);
                }
                return;
            }
            self.packages.insert(package);
        }
    }
}

/// The packages of an image.
pub(crate) fn contents(view: &View) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let status = "var/lib/dpkg/status";
    contents.add(status, dpkg(&text(view, status, LIST_BYTES)?));
    // Images without a package manager say it file by file.
    for name in view.list(Utf8Path::new("var/lib/dpkg/status.d"))? {
        let one = text(view, &format!("var/lib/dpkg/status.d/{name}"), METADATA_BYTES)?;
        let packages = stanzas(&one).filter_map(|stanza| deb(&stanza));
        contents.add("var/lib/dpkg/status.d", packages);
    }
    let installed = "lib/apk/db/installed";
    contents.add(installed, apk(&text(view, installed, LIST_BYTES)?));
    programs(view, &mut contents)?;
    rpms(view, &mut contents)?;
    search::all(view, &search::Limits::IMAGE, &mut contents)?;
    Ok(contents)
}

fn text(view: &View, path: &str, most: u64) -> Result<String, Error> {
    let bytes = view.read(Utf8Path::new(path), most)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn programs(view: &View, contents: &mut Contents) -> Result<(), Error> {
    for home in PROGRAMS {
        for name in view.list(Utf8Path::new(home))?.iter().take(LOOKED_INTO) {
            let Some(found) = view.find(&Utf8Path::new(home).join(name))? else {
                continue;
            };
            let metadata = &found.metadata;
            if metadata.is_file() && metadata.mode() & 0o111 != 0 && metadata.len() <= PROGRAM_BYTES {
                let mut file = fs::File::open(&found.path).map_err(io_error("read", &found.path))?;
                let packages = go(&mut file).map_err(io_error("read", &found.path))?;
                contents.add(home, packages);
            }
        }
    }
    Ok(())
}

fn rpms(view: &View, contents: &mut Contents) -> Result<(), Error> {
    for home in RPM {
        let path = Utf8Path::new(home).join("rpmdb.sqlite");
        if view.find(&path)?.is_some_and(|found| found.metadata.is_file()) {
            match view.read(&path, RPM_BYTES)?.and_then(|bytes| rpm(&bytes)) {
                Some(packages) => contents.add(path.as_str(), packages),
                None => contents.unread.push(path.to_string()),
            }
            continue;
        }
        for old in RPM_UNREAD {
            let path = Utf8Path::new(home).join(old);
            if view.find(&path)?.is_some_and(|found| found.metadata.is_file()) {
                contents.unread.push(path.to_string());
            }
        }
    }
    Ok(())
}

/// The fields of one paragraph (deb-control(5)); continued lines are left out.
type Stanza<'a> = Vec<(&'a str, &'a str)>;

fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    text.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect()
    })
}

fn field<'a>(stanza: &Stanza<'a>, name: &str) -> Option<&'a str> {
    let found = stanza.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).filter(|value| !value.is_empty())
}

fn deb(stanza: &Stanza<'_>) -> Option<Package> {
    Some(Package {
        kind: Kind::Deb,
        name: field(stanza, "Package")?.to_owned(),
        version: field(stanza, "Version")?.to_owned(),
        architecture: field(stanza, "Architecture").unwrap_or_default().to_owned(),
    })
}

/// The installed packages of dpkg's status file.
pub fn dpkg(text: &str) -> impl Iterator<Item = Package> {
    stanzas(text)
        .filter(|stanza| field(stanza, "Status").is_some_and(|status| status.ends_with(" installed")))
        .filter_map(|stanza| deb(&stanza))
}

/// Packages that dpkg began and did not finish with, and in what state they are.
pub(crate) fn unfinished(text: &str) -> Vec<String> {
    let done = [" installed", " not-installed", " config-files"];
    stanzas(text)
        .filter_map(|stanza| Some((field(&stanza, "Package")?, field(&stanza, "Status")?)))
        .filter(|(_, status)| !done.iter().any(|done| status.ends_with(done)))
        .map(|(name, status)| format!("{name} ({status})"))
        .collect()
}

/// The packages of Alpine's database of what is installed.
pub fn apk(text: &str) -> impl Iterator<Item = Package> {
    text.split("\n\n").filter_map(|paragraph| {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .filter(|value| !value.is_empty())
        };
        Some(Package {
            kind: Kind::Apk,
            name: field("P:")?.to_owned(),
            version: field("V:")?.to_owned(),
            architecture: field("A:").unwrap_or_default().to_owned(),
        })
    })
}

impl Package {
    /// Its package URL (github.com/package-url/purl-spec).
    fn purl(&self, distribution: &str) -> String {
        let space = match self.kind {
            Kind::Deb | Kind::Apk | Kind::Rpm => format!("{distribution}/"),
            Kind::Pypi | Kind::Npm | Kind::Gem | Kind::Cargo | Kind::Golang | Kind::Composer => String::new(),
        };
        // Of rpm's versions the epoch stands apart, of Debian's it does not.
        let (epoch, version) = match (self.kind, self.version.split_once(':')) {
            (Kind::Rpm, Some((epoch, version))) => (Some(epoch), version),
            _ => (None, self.version.as_str()),
        };
        let name = self.name.split('/').map(escaped).collect::<Vec<_>>().join("/");
        let mut purl = format!("pkg:{}/{space}{name}@{}", self.kind.word(), escaped(version));
        if !self.architecture.is_empty() {
            purl.push_str(&format!("?arch={}", escaped(&self.architecture)));
        }
        if let Some(epoch) = epoch {
            let mark = if self.architecture.is_empty() { '?' } else { '&' };
            purl.push_str(&format!("{mark}epoch={}", escaped(epoch)));
        }
        purl
    }
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| {
        if plain(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    text.bytes().map(one).collect()
}

/// The bill of an image as SPDX 2.3. The same image has the same bill.
pub(crate) fn spdx(image: &Digest, distribution: &str, created: Timestamp, contents: &Contents) -> Value {
    let packages = &contents.packages;
    let id = |number: usize| format!("SPDXRef-Package-{number}");
    let listed: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(number, package)| {
            json!({
                "SPDXID": id(number),
                "name": package.name,
                "versionInfo": package.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package.purl(distribution),
                }],
            })
        })
        .collect();
    let root = json!({
        "SPDXID": "SPDXRef-Image",
        "name": image.to_string(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": image.hex() }],
    });
    let describes = json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-Image",
    });
    let contains = (0..packages.len()).map(|number| {
        json!({ "spdxElementId": "SPDXRef-Image", "relationshipType": "CONTAINS", "relatedSpdxElement": id(number) })
    });
    let packages: Vec<Value> = std::iter::once(root).chain(listed).collect();
    let relationships: Vec<Value> = std::iter::once(describes).chain(contains).collect();
    let mut bill = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("image-{}", image.short()),
        "documentNamespace": format!("urn:vend:image:{}", image.hex()),
        "creationInfo": { "created": created.to_string(), "creators": ["Tool: vend"] },
        "documentDescribes": ["SPDXRef-Image"],
        "packages": packages,
        "relationships": relationships,
    });
    if !contents.unread.is_empty() {
        let unread = contents.unread.join(", ");
        bill["comment"] = format!("Not all packages are listed. Not read: {unread}.").into();
    }
    bill
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: adduser\nStatus: install ok installed\nArchitecture: all\nVersion: 3.134\nDescription: x\n Package: fake\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: half\nStatus: install ok half-configured\nVersion: 2\n";

    #[test]
    fn only_what_is_installed_counts() {
        let found: Vec<Package> = dpkg(STATUS).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].purl("debian"), "pkg:deb/debian/adduser@3.134?arch=all");
        assert_eq!(unfinished(STATUS), ["half (install ok half-configured)"]);
        assert_eq!(dpkg("").count() + dpkg("Package\n\n:\n").count(), 0);
    }

    #[test]
    fn other_kinds_are_read() {
        let alpine: Vec<Package> =
            apk("C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:broken\n\nP:\nV:1\n").collect();
        assert_eq!(
            alpine[0].purl("alpine"),
            "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64"
        );
        assert_eq!(alpine.len(), 1);
        let wheel = wheel("Metadata-Version: 2.1\nName: Flask\nVersion: 3.0\n\nName: no\n").unwrap();
        assert_eq!(wheel.purl(""), "pkg:pypi/flask@3.0");
        let npm = npm(br#"{"name":"@a/b","version":"1.0.0+x"}"#).unwrap();
        assert_eq!(npm.purl(""), "pkg:npm/%40a/b@1.0.0%2Bx");
    }

    #[test]
    fn a_bill_names_every_package_once() {
        let mut contents = Contents {
            packages: dpkg(STATUS).collect(),
            unread: Vec::new(),
        };
        let bill = spdx(&Digest::of("x"), "debian", Timestamp::UNIX_EPOCH, &contents);
        assert_eq!(bill["packages"].as_array().unwrap().len(), 2);
        assert_eq!(
            bill["relationships"][1]["relatedSpdxElement"],
            "SPDXRef-Package-0"
        );
        assert_eq!(
            bill,
            spdx(&Digest::of("x"), "debian", Timestamp::UNIX_EPOCH, &contents)
        );
        assert!(bill.get("comment").is_none());
        contents.unread.push("var/lib/rpm/Packages".to_owned());
        let bill = spdx(&Digest::of("x"), "debian", Timestamp::UNIX_EPOCH, &contents);
        assert!(bill["comment"].as_str().unwrap().contains("var/lib/rpm/Packages"));
    }
}
