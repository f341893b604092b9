//! The key of a buildspec's cache, expanded before the build: the cache is below the container's files when it starts.
//!
//! CodeBuild gives keys to a shell. Here a key may hold variables and `$(codebuild-hash-files PATTERN…)`, which is what
//! keys are made of; another command is an error that says so.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::tools;
use crate::tree;

/// A key is the name of a directory, in hexadecimal digits.
const BYTES: usize = 120;

/// The text of a key.
pub fn expand(
    key: &str,
    variables: &BTreeMap<String, String>,
    hash: &dyn Fn(&[String]) -> Result<String, String>,
) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = key;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('(') {
            let (command, after) = inner.split_once(')').ok_or("a `)` is missing")?;
            text.push_str(&run(command, hash)?);
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or("a `}` is missing")?,
            None => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                rest.split_at(rest.find(|c| !plain(c)).unwrap_or(rest.len()))
            }
        };
        match name {
            "" => text.push('$'),
            name => text.push_str(variables.get(name).map_or("", String::as_str)),
        }
        rest = after;
    }
    text.push_str(rest);
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text if text.len() > BYTES => Err(format!("it has more than {BYTES} bytes")),
        text => Ok(text.to_owned()),
    }
}

fn run(command: &str, hash: &dyn Fn(&[String]) -> Result<String, String>) -> Result<String, String> {
    let mut words = command
        .split_whitespace()
        .map(|word| word.trim_matches(['\'', '"']).to_owned());
    match words.next().as_deref() {
        Some("codebuild-hash-files") => hash(&words.collect::<Vec<_>>()),
        other => Err(format!(
            "`{}` cannot be run before the build: a key may hold variables and `$(codebuild-hash-files …)`",
            other.unwrap_or_default()
        )),
    }
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
            ("", Err("it is empty")),
            ("$(codebuild-hash-files)", Err("a pattern is missing")),
            ("$(codebuild-hash-files x", Err("a `)` is missing")),
            ("${V", Err("a `}` is missing")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expand(key, &variables, &hash), expected, "{key}");
        }
        let date = expand("$(date +%s)", &variables, &hash).unwrap_err();
        assert!(
            date.starts_with("`date` cannot be run before the build"),
            "{date}"
        );
        assert!(expand(&"x".repeat(121), &variables, &hash).is_err());
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
