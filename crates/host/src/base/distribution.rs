//! The distributions that the platform makes bases of.

use super::Mirror;

/// One that `mmdebstrap` makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Of [`model::spec::Base::NAMES`].
    pub name: &'static str,
    suite: &'static str,
    components: &'static str,
    vendor: Vendor,
    /// When it came out, in seconds since 1970: what is made later is dated back to this, so that the same packages make
    /// the same base whenever they are installed.
    pub epoch: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Debian,
    Ubuntu,
}

static ALL: [Distribution; 3] = [
    Distribution {
        name: "debian-12",
        suite: "bookworm",
        components: "main",
        vendor: Vendor::Debian,
        epoch: 1_686_355_200,
    },
    Distribution {
        name: "debian-13",
        suite: "trixie",
        components: "main",
        vendor: Vendor::Debian,
        epoch: 1_754_697_600,
    },
    Distribution {
        name: "ubuntu-24.04",
        suite: "noble",
        components: "main universe",
        vendor: Vendor::Ubuntu,
        epoch: 1_714_003_200,
    },
];

/// The archive key of Ubuntu (F6EC B376 2474 EDA9 D21B 7022 8719 20D1 991B C93C), which Debian has no package of.
const UBUNTU_KEY: &[u8] = include_bytes!("ubuntu.gpg");

impl Distribution {
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|known| known.name == name)
    }

    /// Where its packages come from, for people.
    pub fn archive<'m>(&self, mirror: &'m Mirror) -> &'m str {
        match self.vendor {
            Vendor::Debian => &mirror.debian,
            Vendor::Ubuntu => &mirror.ubuntu,
        }
    }

    /// The key that its archive is signed with, when the machine's own keyring has none.
    pub fn key(&self) -> Option<&'static [u8]> {
        (self.vendor == Vendor::Ubuntu).then_some(UBUNTU_KEY)
    }

    /// The suite and lines of a `sources.list`, as the last arguments of mmdebstrap.
    pub fn sources(&self, mirror: &Mirror) -> (&'static str, Vec<String>) {
        let (archive, security) = match self.vendor {
            Vendor::Debian => (&mirror.debian, &mirror.security),
            Vendor::Ubuntu => (&mirror.ubuntu, &mirror.ubuntu_security),
        };
        let line =
            |address: &str, suffix: &str| format!("deb {address} {}{suffix} {}", self.suite, self.components);
        let lines = vec![
            line(archive, ""),
            line(archive, "-updates"),
            line(security, "-security"),
        ];
        (self.suite, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_distribution() {
        for name in model::spec::Base::NAMES {
            assert_eq!(Distribution::find(name).map(|found| found.name), Some(*name));
        }
        assert_eq!(Distribution::find("oci:debian"), None);
    }

    #[test]
    fn sources_are_of_the_right_archive() {
        let ubuntu = Distribution::find("ubuntu-24.04").unwrap();
        let (suite, lines) = ubuntu.sources(&Mirror::default());
        assert_eq!(suite, "noble");
        assert_eq!(
            lines[0],
            "deb http://archive.ubuntu.com/ubuntu noble main universe"
        );
        assert_eq!(
            lines[2],
            "deb http://security.ubuntu.com/ubuntu noble-security main universe"
        );
        let debian = Distribution::find("debian-13").unwrap();
        let (_, lines) = debian.sources(&Mirror::default());
        assert_eq!(
            lines[2],
            "deb http://deb.debian.org/debian-security trixie-security main"
        );
        assert!(debian.key().is_none() && ubuntu.key().is_some());
    }
}
