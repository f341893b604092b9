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

/// Programs that run another one: their options with a value of its own, and how many operands stand before the other.
const WRAPPERS: [(&str, &[&str], usize); 18] = [
    ("chronic", &[], 0),
    ("command", &[], 0),
    ("doas", &["-u", "-C"], 0),
    ("env", &["-u", "-C", "--unset", "--chdir"], 0),
    ("eval", &[], 0),
    ("exec", &["-a"], 0),
    ("flock", &["-w", "-E", "--timeout"], 1),
    ("ionice", &["-c", "-n"], 0),
    ("nice", &["-n", "--adjustment"], 0),
    ("nohup", &[], 0),
    ("setsid", &[], 0),
    ("stdbuf", &["-i", "-o", "-e"], 0),
    (
        "sudo",
        &[
            "-u", "-g", "-h", "-p", "-C", "-D", "-r", "-t", "-T", "--user", "--group",
        ],
        0,
    ),
    ("taskset", &[], 1),
    ("time", &["-f", "-o"], 0),
    ("timeout", &["-k", "-s", "--kill-after", "--signal"], 1),
    ("xargs", &["-a", "-d", "-E", "-I", "-L", "-n", "-P", "-s"], 0),
    ("xvfb-run", &["-n", "-s", "-f", "-e", "-p"], 0),
];

/// Shells, which run what stands after `-c`, or a script.
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "ash", "zsh"];

/// A program that a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called<'c> {
    /// By its name.
    Program(&'c str),
    /// A file of the source, by its name, or one that a shell reads: what it runs is not seen.
    Script(&'c str),
}

impl<'c> Called<'c> {
    pub fn name(self) -> &'c str {
        match self {
            Self::Program(name) | Self::Script(name) => name,
        }
    }
}

/// The programs that a command runs, as far as they can be seen without running it.
pub(super) fn called(command: &str) -> impl Iterator<Item = Called<'_>> {
    let parts = command.split(['\n', ';', '&', '|', '(', ')', '`']);
    parts.filter_map(|part| program(&mut part.split_whitespace()))
}

/// The program that the first of these words runs, through those that only run another.
fn program<'c>(words: &mut impl Iterator<Item = &'c str>) -> Option<Called<'c>> {
    const BEFORE: [&str; 10] = [
        "if", "then", "else", "elif", "do", "while", "until", "!", "{", "\\",
    ];
    let bare = |word: &'c str| word.trim_matches(['"', '\'']);
    // Operands to pass over; after `sh`, whether its command is to come.
    let (mut options, mut over, mut is_shell): (&[&str], usize, bool) = (&[], 0, false);
    let mut is_asking = false;
    while let Some(word) = words.next() {
        let own = bare(word);
        if BEFORE.contains(&own) || own.split_once('=').is_some_and(|(name, _)| is_name(name)) {
            continue;
        }
        if own.starts_with('-') && own != "-" {
            // `command -v go` asks where it is.
            if is_asking && matches!(own, "-v" | "-V") {
                return None;
            }
            // Of a shell several stand together: `-eo pipefail`, `-ec COMMAND`.
            let letters = own
                .strip_prefix('-')
                .filter(|rest| is_shell && !rest.starts_with('-'));
            let takes = letters.is_some_and(|letters| letters.ends_with(['o', 'O']));
            if takes || options.contains(&own) {
                words.next();
            }
            is_shell &= !letters.is_some_and(|letters| letters.contains('c'));
            continue;
        }
        if over > 0 {
            over -= 1;
            continue;
        }
        let name = own.rsplit('/').next().unwrap_or(own);
        let is_system = ["/bin/", "/sbin/", "/usr/"]
            .iter()
            .any(|start| own.starts_with(start));
        if is_shell {
            return Some(Called::Script(name));
        }
        if let Some((_, own, operands)) = WRAPPERS.iter().find(|(wrapper, ..)| *wrapper == name) {
            (options, over, is_asking) = (own, *operands, name == "command");
        } else if SHELLS.contains(&name) {
            (options, is_shell) = (&[], true);
        } else if name == "codebuild-tests-run" {
            words.find(|word| *word == "--test-command");
        } else if name == "." || name == "source" {
            return words.next().map(|word| Called::Script(bare(word)));
        } else {
            let is_script = name.ends_with(".sh") || own.contains('/') && !is_system;
            return Some(match is_script {
                true => Called::Script(name),
                false => Called::Program(name),
            });
        }
    }
    None
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
        let seen = |command: &'static str| called(command).map(Called::name).collect::<Vec<_>>();
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
    fn programs_are_seen_through_those_that_run_them() {
        for (command, expected) in [
            ("timeout 600 mvn -q test", "mvn"),
            ("timeout -k 5 --signal=KILL 10m mvn", "mvn"),
            ("sudo -E go test", "go"),
            ("sudo -u ada -E A=b go test", "go"),
            ("nice mvn", "mvn"),
            ("nice -n 5 mvn", "mvn"),
            ("nice -5 mvn", "mvn"),
            ("env A=b mvn", "mvn"),
            ("env -i -u A B=c mvn", "mvn"),
            ("xargs -n 1 -0 go vet", "go"),
            ("time -p go test", "go"),
            ("exec -a x go", "go"),
            ("command go test", "go"),
            ("\\ go", "go"),
            ("bash -c \"go test\"", "go"),
            ("sh -ec 'A=b go test'", "go"),
            ("/bin/bash -eo pipefail -c \"timeout 5 mvn\"", "mvn"),
            ("sudo nice -n 5 sh -c 'mvn test'", "mvn"),
            ("eval \"go test\"", "go"),
            (
                "codebuild-tests-run --files-search 'x' --test-command 'go test'",
                "go",
            ),
        ] {
            assert_eq!(
                called(command).collect::<Vec<_>>(),
                [Called::Program(expected)],
                "{command}"
            );
        }
        let last = |command: &'static str| called(command).last();
        assert_eq!(last("go list ./... | xargs go vet"), Some(Called::Program("go")));
        assert_eq!(last("bash -c 'cd app && mvn test'"), Some(Called::Program("mvn")));
        for (command, script) in [
            ("./build.sh all", "build.sh"),
            ("bash -e ci/build", "build"),
            ("sudo ci/test", "test"),
            (". ./env", "./env"),
            ("build.sh", "build.sh"),
        ] {
            assert_eq!(last(command), Some(Called::Script(script)), "{command}");
        }
        assert_eq!(last("/usr/bin/go test"), Some(Called::Program("go")));
        assert_eq!(last("timeout 5"), None);
        assert_eq!(last("command -v cargo"), None);
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
