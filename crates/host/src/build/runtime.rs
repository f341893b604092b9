//! `runtime-versions`: which runtimes the build image has, and whether they are what a buildspec wants.

use std::{collections::BTreeMap, process::Command};

/// CodeBuild's name of a runtime, how it tells its version, and how many parts of the version name it.
const RUNTIMES: [(&str, &[&str], usize); 7] = [
    ("python", &["python3", "--version"], 2),
    ("nodejs", &["node", "--version"], 1),
    ("golang", &["go", "version"], 2),
    ("java", &["java", "-version"], 1),
    ("ruby", &["ruby", "--version"], 2),
    ("php", &["php", "--version"], 2),
    ("dotnet", &["dotnet", "--version"], 2),
];

/// The names of the programs that a command runs, as far as they can be seen without running it.
pub(super) fn called(command: &str) -> impl Iterator<Item = &str> {
    const BEFORE: [&str; 14] = [
        "sudo", "exec", "time", "env", "if", "then", "else", "elif", "do", "while", "until", "!", "{",
        "nohup",
    ];
    let parts = command.split(['\n', ';', '&', '|', '(', ')', '`']);
    parts.filter_map(|part| {
        let assigns = |word: &&str| word.split_once('=').is_some_and(|(name, _)| is_name(name));
        let mut words = part
            .split_whitespace()
            .skip_while(|word| BEFORE.contains(word) || assigns(word));
        let word = words.next()?.trim_matches(['"', '\'']);
        Some(word.rsplit('/').next().unwrap_or(word))
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The runtimes of this system that a buildspec asks for, with their versions: `python` → `3.11`.
pub fn installed<'a>(wanted: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, String> {
    wanted
        .into_iter()
        .filter_map(|name| {
            let (_, command, parts) = RUNTIMES.iter().find(|(known, ..)| known == name)?;
            let mut asked = Command::new(command[0]);
            let output = asked.args(&command[1..]).env("HOME", "/root").output().ok()?;
            // Java tells its version on standard error.
            let said = [output.stdout, output.stderr].concat();
            let version = version(&String::from_utf8_lossy(&said), *parts)?;
            Some((name.clone(), version))
        })
        .collect()
}

/// What is wrong with the wanted versions, in CodeBuild's words.
pub fn check(
    wanted: &BTreeMap<String, String>,
    installed: &BTreeMap<String, String>,
    variables: &BTreeMap<String, String>,
) -> Result<(), String> {
    for (name, version) in wanted {
        let version = variable(version).map_or(version.as_str(), |variable| {
            variables.get(variable).map_or("", String::as_str)
        });
        match installed.get(name) {
            None if RUNTIMES.iter().any(|(known, ..)| known == name) => {
                return Err(format!(
                    "YAML_FILE_ERROR: Unknown runtime version named '{version}' of {name}. This build image has no {name}; \
                     install it with a command of the install phase"
                ));
            }
            None => return Err(unknown(name)),
            Some(have) if !matches(version, have) => {
                return Err(format!(
                    "YAML_FILE_ERROR: Unknown runtime version named '{version}' of {name}. This build image has the \
                     following versions: {have}"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What is wrong with a runtime's name.
pub(super) fn unknown(name: &str) -> String {
    let names: Vec<&str> = RUNTIMES.iter().map(|(name, ..)| *name).collect();
    format!(
        "YAML_FILE_ERROR: Unknown runtime named '{name}'. Runtimes are called {}",
        names.join(", ")
    )
}

/// `$NAME` and `${NAME}`.
pub(super) fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    Some(
        name.strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
            .unwrap_or(name),
    )
}

/// `latest`, `3.x`, `3` and `3.11` are what 3.11 is; `3.1` is not. `corretto17` is a Java 17.
pub(super) fn matches(wanted: &str, have: &str) -> bool {
    if wanted == "latest" {
        return true;
    }
    let wanted = ["corretto", "openjdk"]
        .iter()
        .find_map(|vendor| wanted.strip_prefix(vendor))
        .unwrap_or(wanted);
    let mut have = have.split('.');
    wanted.split('.').all(|part| {
        let actual = have.next();
        part == "x" || Some(part) == actual
    })
}

/// The first `parts` numbers of the first version in a text.
fn version(text: &str, parts: usize) -> Option<String> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let end = text[start..]
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .map_or(text.len(), |end| start + end);
    // Java 8 calls itself 1.8.
    let old = text[start..end].strip_prefix("1.").filter(|_| parts == 1);
    let numbers: Vec<&str> = old.unwrap_or(&text[start..end]).split('.').take(parts).collect();
    Some(numbers.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn versions_are_matched_as_codebuild_does() {
        let have = map(&[("python", "3.11"), ("nodejs", "18")]);
        let variables = map(&[("V", "3.11")]);
        for good in ["3.11", "3.x", "3", "latest", "$V", "${V}"] {
            assert_eq!(
                check(&map(&[("python", good)]), &have, &variables),
                Ok(()),
                "{good}"
            );
        }
        for (name, version, message) in [
            (
                "nodejs",
                "12",
                "Unknown runtime version named '12' of nodejs. This build image has the following versions: 18",
            ),
            ("python", "3.1", "named '3.1' of python"),
            ("python", "$W", "named '' of python"),
            ("golang", "1.20", "has no golang"),
            ("cobol", "latest", "Unknown runtime named 'cobol'"),
        ] {
            let error = check(&map(&[(name, version)]), &have, &variables).unwrap_err();
            assert!(
                error.starts_with("YAML_FILE_ERROR: ") && error.contains(message),
                "{error}"
            );
        }
    }

    #[test]
    fn programs_are_seen_in_commands() {
        let seen = |command: &'static str| called(command).collect::<Vec<_>>();
        assert_eq!(seen("mvn install"), ["mvn"]);
        assert_eq!(
            seen("cd app && CGO_ENABLED=0 go build ./... | tee log"),
            ["cd", "go", "tee"]
        );
        assert_eq!(
            seen("if ! ./mvnw -q test; then\n  sudo ant\nfi"),
            ["mvnw", "ant", "fi"]
        );
        assert_eq!(seen("echo go"), ["echo"]);
        assert_eq!(seen("V=$(php -v)"), ["php"]);
        assert!(seen("").is_empty());
    }

    #[test]
    fn java_is_java_whoever_built_it() {
        assert!(matches("corretto17", "17") && matches("openjdk17", "17") && matches("corretto17.0", "17.0"));
        assert!(!matches("corretto11", "17") && !matches("corretto", "17"));
    }

    #[test]
    fn versions_are_read_from_what_tools_print() {
        for (text, parts, found) in [
            ("Python 3.11.2\n", 2, "3.11"),
            ("v18.20.4\n", 1, "18"),
            ("go version go1.19.8 linux/amd64", 2, "1.19"),
            ("openjdk version \"17.0.15\" 2025-04-15", 1, "17"),
            ("openjdk version \"1.8.0_512\"", 1, "8"),
        ] {
            assert_eq!(version(text, parts).as_deref(), Some(found));
        }
        assert_eq!(version("none", 2), None);
    }
}
