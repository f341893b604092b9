//! The key of a buildspec's cache, expanded before the build: the cache is below the container's files when it starts.
//!
//! CodeBuild gives keys to a shell. Most hold only variables and `$(codebuild-hash-files PATTERN…)`: those are read here, at
//! once. Whatever else a shell knows is left to one (`ask`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use model::Digest;

use super::tools;
use crate::tree;

/// No key is longer.
const BYTES: usize = 1024;
/// A key up to here is the name of its cache, in hexadecimal digits: no file's name has more than 255.
const NAME_BYTES: usize = 120;
/// A longer one's is its digest after this, in which no text has its digits.
const DIGEST: &str = "sha256-";
/// The note beside a cache that says its key, where the name does not.
pub(super) const NOTE: &str = "key";

/// What a key is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
    /// `$(codebuild-hash-files PATTERN…)`
    Hash(Vec<String>),
}

/// Why a key is not read here.
#[derive(Debug, PartialEq, Eq)]
enum Not {
    /// It takes a shell.
    Plain,
    Complete(&'static str),
}

/// Does it take a shell to read a key?
pub fn needs_shell(key: &str) -> bool {
    parts(key) == Err(Not::Plain)
}

/// The text of a key that needs no shell.
pub fn expand(
    key: &str,
    variables: &BTreeMap<String, String>,
    hash: &dyn Fn(&[String]) -> Result<String, String>,
) -> Result<String, String> {
    let parts = parts(key).map_err(|not| match not {
        Not::Plain => "takes a shell to be read".to_owned(),
        Not::Complete(lacks) => format!("lacks {lacks}"),
    })?;
    let texts: Result<String, String> = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => Ok((*text).to_owned()),
            Part::Variable(name) => Ok(variables.get(*name).cloned().unwrap_or_default()),
            Part::Hash(patterns) => hash(patterns).map_err(|why| format!("cannot be read: {why}")),
        })
        .collect();
    checked(&texts?)
}

/// A key that can be one.
pub fn checked(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text if text.len() > BYTES => Err(format!("has more than {BYTES} bytes")),
        text => Ok(text.to_owned()),
    }
}

/// The name of a key's cache.
pub(super) fn name(key: &str) -> String {
    match key.len() {
        ..=NAME_BYTES => hex::encode(key),
        _ => format!("{DIGEST}{}", Digest::of(key).hex()),
    }
}

/// Is a key written beside its cache?
pub(super) fn is_noted(key: &str) -> bool {
    key.len() > NAME_BYTES
}

/// The key of a cache, whose note `note` reads.
pub(super) fn of_name(own: &str, note: impl FnOnce(usize) -> Option<Vec<u8>>) -> Option<String> {
    let bytes = match own.starts_with(DIGEST) {
        true => note(BYTES)?,
        false => hex::decode(own).ok()?,
    };
    String::from_utf8(bytes).ok().filter(|key| name(key) == own)
}

fn parts(key: &str) -> Result<Vec<Part<'_>>, Not> {
    if key.contains(['`', '\\']) {
        return Err(Not::Plain);
    }
    let mut parts = Vec::new();
    let mut rest = key;
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('(') {
            let (command, after) = inner.split_once(')').ok_or(Not::Complete("a `)`"))?;
            parts.push(Part::Hash(hashed(command).ok_or(Not::Plain)?));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or(Not::Complete("a `}`"))?;
            let plain = !name.is_empty() && name.chars().all(is_of_a_name);
            parts.push(plain.then_some(Part::Variable(name)).ok_or(Not::Plain)?);
            rest = after;
        } else {
            let (name, after) = rest.split_at(rest.find(|c| !is_of_a_name(c)).unwrap_or(rest.len()));
            parts.push(match name {
                "" => Part::Text("$"),
                name => Part::Variable(name),
            });
            rest = after;
        }
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The patterns of a plain call of `codebuild-hash-files`; `None` of another command, and of one in which a shell would find
/// more than words.
fn hashed(command: &str) -> Option<Vec<String>> {
    let plain = !command.contains(['$', '|', '&', ';', '<', '>', '(', '#', '~', '\n']);
    let mut words = command
        .split_whitespace()
        .map(|word| word.trim_matches(['\'', '"']).to_owned());
    (plain && words.next()? == "codebuild-hash-files").then(|| words.collect())
}

/// What `codebuild-hash-files` says of a source tree that a customer wrote: no link in it is followed.
pub(super) fn hash_files(source: &Path, patterns: &[String]) -> Result<String, String> {
    let patterns: Vec<String> = patterns
        .iter()
        .map(|pattern| pattern.trim_start_matches("./").to_owned())
        .collect();
    let wanted = tree::globs(&patterns)?;
    let mut found: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut waiting = vec![source.to_owned()];
    while let Some(directory) = waiting.pop() {
        for path in children(&directory).map_err(|error| error.to_string())? {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let name = path.strip_prefix(source).unwrap_or(&path);
            if metadata.is_dir() {
                waiting.push(path);
            } else if metadata.is_file() && wanted.is_match(name) {
                found.insert(name.to_owned(), path);
            }
        }
    }
    match found.is_empty() {
        true => Err(format!("no file matches {}", patterns.join(" "))),
        false => tools::hash(&found),
    }
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_variables_and_hashes() {
        let variables = BTreeMap::from([("V".to_owned(), "7".to_owned())]);
        let hash = |patterns: &[String]| match patterns {
            [] => Err("a pattern is missing".to_owned()),
            patterns => Ok(format!("<{}>", patterns.join("|"))),
        };
        for (key, expected) in [
            ("npm", Ok("npm")),
            ("npm-$V-${V}x$W", Ok("npm-7-7x")),
            (
                "k-$(codebuild-hash-files 'a.lock' b/**/c)",
                Ok("k-<a.lock|b/**/c>"),
            ),
            ("costs 5$", Ok("costs 5$")),
            ("", Err("is empty")),
            (
                "$(codebuild-hash-files)",
                Err("cannot be read: a pattern is missing"),
            ),
            ("$(codebuild-hash-files x", Err("lacks a `)`")),
            ("${V", Err("lacks a `}`")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expand(key, &variables, &hash), expected, "{key}");
            assert!(!needs_shell(key), "{key}");
        }
        for key in [
            "$(date +%s)",
            "k-$(codebuild-hash-files *.lock | cut -c1-8)",
            "$(codebuild-hash-files $FILES)",
            "$(echo \"$(cat a)\")",
            "${V:-none}",
            "$((1 + 1))",
            "`cat a`",
            "5\\$V",
        ] {
            assert!(needs_shell(key), "{key}");
        }
        assert!(expand(&"x".repeat(BYTES + 1), &variables, &hash).is_err());
    }

    #[test]
    fn keys_have_names_of_their_own() {
        let long = "x".repeat(NAME_BYTES + 1);
        for key in ["npm-1", "sha256-ab", &long[1..], &long, &"ä".repeat(BYTES / 2)] {
            let own = name(key);
            assert!(own.len() <= 255 && !own.contains('/'), "{own}");
            let noted = |key: &str| is_noted(key).then(|| key.as_bytes().to_vec());
            assert_eq!(of_name(&own, |_| noted(key)).as_deref(), Some(key));
            // However a key is written, it is not another's name.
            assert_ne!(name(&own), own);
            assert_eq!(own.starts_with(DIGEST), is_noted(key));
        }
        assert_eq!(of_name(&name(&long), |_| None), None);
        assert_eq!(of_name(&name(&long), |_| Some(b"x".to_vec())), None);
        assert_eq!(of_name("no key", |_| None), None);
    }

    #[test]
    fn no_link_of_a_source_tree_is_followed() {
        let (machine, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(machine.path().join("x.lock"), "secret").unwrap();
        std::os::unix::fs::symlink(machine.path(), source.path().join("out")).unwrap();
        std::os::unix::fs::symlink(machine.path().join("x.lock"), source.path().join("x.lock")).unwrap();
        for pattern in ["**/*.lock", "out/x.lock", "../*/x.lock"] {
            let found = hash_files(source.path(), &[pattern.to_owned()]);
            assert_eq!(found, Err(format!("no file matches {pattern}")));
        }
        fs::write(source.path().join("y.lock"), "1").unwrap();
        assert_eq!(
            hash_files(source.path(), &["**/*.lock".to_owned()])
                .unwrap()
                .len(),
            64
        );
    }
}
