//! What an image stands on, as `image.base` names it.

use std::{fmt, str::FromStr};

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// A base: of the platform, of a registry, or of the source tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// One that the platform makes itself, of [`Base::NAMES`].
    Named(&'static str),
    /// `oci:REGISTRY/NAME:TAG`, of a registry.
    Oci(Reference),
    /// `layout:PATH` or `layout:PATH:TAG`: a directory of the source tree in the form of the OCI image layout.
    Layout { path: Utf8PathBuf, tag: Option<String> },
    /// `tar:PATH`: a tar of a root file system in the source tree, plain or compressed with gzip or zstd.
    Tar(Utf8PathBuf),
}

/// A text that names no base; says what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotABase(String);

/// The longest text of a base.
const CHARS: usize = 500;

impl Base {
    /// The bases that the platform makes itself; the first is the default.
    pub const NAMES: &'static [&'static str] = &["debian-12", "debian-13", "ubuntu-24.04"];

    /// What the image of builds means. CodeBuild names those of registries as Docker does, without `oci:`; `None` is
    /// `standard`, which stands for all of CodeBuild's own, too.
    pub fn of_builds(image: &str) -> Option<Result<Self, NotABase>> {
        if matches!(image, "" | "standard") || image.starts_with("aws/codebuild/") {
            return None;
        }
        Some(match image.parse() {
            Ok(Self::Layout { .. } | Self::Tar(_)) => Err(NotABase(
                "builds run in a base of the platform or an image of a registry".to_owned(),
            )),
            Err(_) if image.contains(['/', ':']) => image.parse().map(Self::Oci),
            other => other,
        })
    }

    /// Whether what it names may be another thing tomorrow: then it is looked at again from time to time.
    pub fn moves(&self) -> bool {
        match self {
            Self::Named(_) => true,
            Self::Oci(reference) => reference.digest.is_none(),
            Self::Layout { .. } | Self::Tar(_) => false,
        }
    }
}

impl FromStr for Base {
    type Err = NotABase;

    fn from_str(text: &str) -> Result<Self, NotABase> {
        if text.len() > CHARS || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(NotABase("it is too long or has spaces".to_owned()));
        }
        if let Some(name) = Self::NAMES.iter().find(|name| **name == text) {
            return Ok(Self::Named(name));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return rest.parse().map(Self::Oci);
        }
        if let Some(rest) = text.strip_prefix("tar:") {
            return inside(rest).map(Self::Tar);
        }
        if let Some(rest) = text.strip_prefix("layout:") {
            let (path, tag) = match rest.rsplit_once(':') {
                Some((path, tag)) => (path, Some(tag)),
                None => (rest, None),
            };
            if tag.is_some_and(|tag| !is_tag(tag)) {
                return Err(NotABase("what follows the last `:` is not a tag".to_owned()));
            }
            let tag = tag.map(str::to_owned);
            return inside(path).map(|path| Self::Layout { path, tag });
        }
        let names = Self::NAMES.join(", ");
        Err(NotABase(format!(
            "there is {names}, `oci:REGISTRY/NAME:TAG`, `layout:PATH` and `tar:PATH`"
        )))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Oci(reference) => write!(f, "oci:{reference}"),
            Self::Layout { path, tag: None } => write!(f, "layout:{path}"),
            Self::Layout { path, tag: Some(tag) } => write!(f, "layout:{path}:{tag}"),
            Self::Tar(path) => write!(f, "tar:{path}"),
        }
    }
}

fn inside(text: &str) -> Result<Utf8PathBuf, NotABase> {
    let path = Utf8Path::new(text);
    let plain = |part| matches!(part, Utf8Component::Normal(_));
    match !text.is_empty() && path.components().all(plain) {
        true => Ok(path.to_owned()),
        false => Err(NotABase("its path must lie in the source tree".to_owned())),
    }
}

/// An image of a registry: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as Docker and its successors read it: without a host it
/// is Docker Hub's, and a name of one part there is one of `library`. Names and tags: OCI distribution specification,
/// "Pulling manifests".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// `docker.io`, `registry.example:5000`, `[::1]:5000`.
    pub registry: String,
    pub name: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// What is asked for: the digest, or the tag, which is `latest` when there is neither.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

/// Registries take names of so many characters.
const NAME_BYTES: usize = 255;

impl FromStr for Reference {
    type Err = NotABase;

    fn from_str(text: &str) -> Result<Self, NotABase> {
        const HUB: &str = "docker.io";
        let wrong = |why: &str| NotABase(why.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| wrong("what follows `@` is not a digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (HUB, rest),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if !is_host(registry) {
            return Err(wrong(
                "its registry is not a host with a port, such as `registry.example:5000`",
            ));
        }
        let registry = match registry {
            "index.docker.io" => HUB,
            other => other,
        };
        let whole = match registry == HUB && !name.contains('/') {
            true => format!("library/{name}"),
            false => name.to_owned(),
        };
        if name.is_empty() || !name.split('/').all(is_part) {
            return Err(wrong(
                "its name must be lower-case letters, digits and `._-` between slashes",
            ));
        }
        if whole.len() > NAME_BYTES {
            return Err(wrong(
                "its name has more than 255 characters, those of `library/` too",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag must be letters, digits and `._-`, at most 128"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            name: whole,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = NotABase;

    fn try_from(text: String) -> Result<Self, NotABase> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            host.len() <= 253 && host.split('.').all(label)
        }
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_part(part: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_read_and_written() {
        let digest = Digest::of("x");
        for (text, written) in [
            ("debian-12", "debian-12".to_owned()),
            ("ubuntu-24.04", "ubuntu-24.04".to_owned()),
            ("oci:debian", "oci:docker.io/library/debian".to_owned()),
            ("oci:index.docker.io/a/b:1", "oci:docker.io/a/b:1".to_owned()),
            ("oci:localhost:5000/a:b", "oci:localhost:5000/a:b".to_owned()),
            (
                "oci:127.0.0.1:5000/a/b.c-d",
                "oci:127.0.0.1:5000/a/b.c-d".to_owned(),
            ),
            ("oci:[::1]:5000/a", "oci:[::1]:5000/a".to_owned()),
            (
                &format!("oci:quay.io/a/b:t@{digest}"),
                format!("oci:quay.io/a/b:t@{digest}"),
            ),
            ("tar:images/base.tar.gz", "tar:images/base.tar.gz".to_owned()),
            ("layout:images/base:v1", "layout:images/base:v1".to_owned()),
            ("layout:images/base", "layout:images/base".to_owned()),
        ] {
            let base: Base = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(base.to_string(), written);
            assert_eq!(written.parse::<Base>().as_ref(), Ok(&base));
        }
    }

    #[test]
    fn what_names_no_base_is_refused() {
        let long = format!("oci:x/{}", "a".repeat(600));
        // With `library/` before it, as it is written, it would have one character too many.
        let longer = format!("oci:{}", "a".repeat(248));
        assert!(longer[..longer.len() - 1].parse::<Base>().is_ok());
        for text in [
            longer.as_str(),
            "",
            "debian",
            "windows-95",
            "oci:",
            "oci:/a",
            "oci:a.b:0/c",
            "oci:a.b:99999/c",
            "oci:A/B",
            "oci:x//y",
            "oci:a/b:",
            "oci:a/b:.t",
            "oci:a@sha256:00",
            "oci:a b",
            "oci:-a.b/c",
            "oci:[::g]:1/a",
            "oci:a_/b",
            "tar:",
            "tar:/etc/passwd",
            "tar:../x",
            "tar:a/../../x",
            "layout:",
            "layout:/x",
            "layout:x:",
            "layout:x:a/b",
            &long,
        ] {
            assert!(text.parse::<Base>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_digest_stays() {
        let moves = |text: &str| text.parse::<Base>().unwrap().moves();
        let pinned = format!("oci:a/b:1@{}", Digest::of("x"));
        assert!(moves("debian-13") && moves("oci:a/b:1") && !moves(&pinned) && !moves("tar:x"));
    }
}
