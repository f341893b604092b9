//! The commands that CodeBuild adds to its build images, which buildspecs call: `codebuild-breakpoint`,
//! `codebuild-hash-files`, `codebuild-glob-search` and `codebuild-tests-run`. One program under four names.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use sha2::{Digest as _, Sha256};

use super::artifact::{self, Content, Wanted};

/// Where the commands are in a build's container.
const BIN: &str = "/usr/local/bin";
const NAMES: [&str; 4] = [
    "codebuild-breakpoint",
    "codebuild-hash-files",
    "codebuild-glob-search",
    "codebuild-tests-run",
];

/// Whether a program of this name is one of these commands.
pub fn is_tool(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Puts the commands where commands find them. An image that has its own keeps them.
pub(super) fn install() -> io::Result<()> {
    let own = std::env::current_exe()?;
    fs::create_dir_all(BIN)?;
    for name in NAMES {
        match symlink(&own, Path::new(BIN).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Runs the command of a name.
pub fn main(name: &str, arguments: &[String]) -> ExitCode {
    let done = match name {
        "codebuild-breakpoint" => {
            warn("codebuild-breakpoint is ignored: a build cannot be entered while it runs");
            Ok(())
        }
        "codebuild-hash-files" => hash_files(Path::new("."), arguments).and_then(print),
        "codebuild-glob-search" => {
            glob_search(Path::new("."), arguments).and_then(|names| print(names.join("\n")))
        }
        _ => tests_run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            warn(&format!("{name}: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn print(text: String) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}

fn find(directory: &Path, patterns: &[String]) -> Result<artifact::Found, String> {
    if patterns.is_empty() {
        return Err("a pattern is missing".to_owned());
    }
    let wanted = Wanted {
        files: patterns,
        ..Wanted::default()
    };
    artifact::find(directory, &wanted)
}

fn hash_files(directory: &Path, patterns: &[String]) -> Result<String, String> {
    let found = find(directory, patterns)?;
    let files = found
        .files
        .into_iter()
        .filter_map(|(name, content)| match content {
            Content::File(path) => Some((name, path)),
            Content::Link(_) => None,
        });
    let files: BTreeMap<PathBuf, PathBuf> = files.collect();
    match files.is_empty() {
        true => Err(format!("no file matches {}", patterns.join(" "))),
        false => hash(&files),
    }
}

/// The SHA-256 of files' names and contents, in the order of their names. Each name has the path where the file is.
pub(super) fn hash(files: &BTreeMap<PathBuf, PathBuf>) -> Result<String, String> {
    let mut all = Sha256::new();
    for (name, path) in files {
        let mut own = Sha256::new();
        let hashed = fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut Hashing(&mut own)));
        hashed.map_err(|error| format!("cannot read {}: {error}", name.display()))?;
        all.update(name.as_os_str().as_encoded_bytes());
        all.update([0]);
        all.update(own.finalize());
    }
    Ok(hex::encode(all.finalize()))
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn glob_search(directory: &Path, patterns: &[String]) -> Result<Vec<String>, String> {
    let found = find(directory, patterns)?;
    Ok(found
        .files
        .keys()
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

/// The arguments of `codebuild-tests-run`.
#[derive(Debug, Default, PartialEq)]
struct Split {
    test_command: String,
    files_search: String,
    stable: bool,
}

/// The variable that holds the shard's files, a line each.
const FILES: &str = "CODEBUILD_CURRENT_SHARD_FILES";

/// Runs the shard's own part of the tests: the files that the search names, after the command. A command that takes them
/// from the variable, for a runner of tests that wants them otherwise, gets them by that alone.
fn tests_run(arguments: &[String]) -> Result<(), String> {
    let split = parse(arguments)?;
    let searched = Command::new("/bin/sh").args(["-c", &split.files_search]).output();
    let searched = searched.map_err(|error| format!("the search cannot be started: {error}"))?;
    if !searched.status.success() {
        let _ = io::stderr().write_all(&searched.stderr);
        return Err(format!("the search failed: {}", split.files_search));
    }
    let files = String::from_utf8_lossy(&searched.stdout);
    let files: Vec<&str> = files
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let number = |name: &str, missing: usize| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(missing)
    };
    let (shard, of) = (
        number("CODEBUILD_CURRENT_SHARD", 0),
        number("CODEBUILD_TOTAL_SHARDS", 1),
    );
    let own = part(&files, shard, of.max(1), split.stable);
    if own.is_empty() {
        return print(format!("No test files for shard {} of {of}", shard + 1));
    }
    let line = line(&split.test_command, &own);
    print(format!(
        "Shard {} of {of} runs {} of {} files",
        shard + 1,
        own.len(),
        files.len()
    ))?;
    let error = Command::new("/bin/sh")
        .args(["-c", &line])
        .env(FILES, own.join("\n"))
        .exec();
    Err(format!("the tests cannot be started: {error}"))
}

fn line(command: &str, files: &[&str]) -> String {
    if command.contains(FILES) {
        return command.to_owned();
    }
    let quoted: Vec<String> = files.iter().map(|file| super::shell::quoted(file)).collect();
    format!("{command} {}", quoted.join(" "))
}

fn parse(arguments: &[String]) -> Result<Split, String> {
    let mut split = Split::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), rest.next().cloned()),
        };
        let value = value.ok_or_else(|| format!("{name} has no value"))?;
        match name {
            "--test-command" => split.test_command = value,
            "--files-search" => split.files_search = value,
            "--sharding-strategy" if value == "stability" => split.stable = true,
            "--sharding-strategy" if value == "equal-distribution" => split.stable = false,
            "--sharding-strategy" => return Err(format!("there is no strategy {value}")),
            _ => return Err(format!("{name} is not known")),
        }
    }
    if split.test_command.is_empty() || split.files_search.is_empty() {
        return Err("--test-command and --files-search are needed".to_owned());
    }
    Ok(split)
}

/// The files of one shard. Evenly: sorted, and cut into pieces of which none has two files more than another, so that what
/// is named alike stays together. Stably: by each file's own hash, so that a new file moves no other.
fn part<'a>(files: &[&'a str], shard: usize, of: usize, stable: bool) -> Vec<&'a str> {
    let mut sorted = files.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if stable {
        sorted.retain(|file| heaviest(file, of) == shard);
        return sorted;
    }
    let (each, more) = (sorted.len() / of, sorted.len() % of);
    let before = |shard: usize| (shard * each + shard.min(more)).min(sorted.len());
    sorted[before(shard)..before(shard + 1)].to_vec()
}

/// Of all shards the one that file and shard hash highest together: with one shard more, only what moves there moves.
fn heaviest(file: &str, of: usize) -> usize {
    let weight = |shard: &usize| Sha256::digest(format!("{shard} {file}")).to_vec();
    (0..of).max_by_key(weight).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn every_file_is_in_one_shard() {
        let names: Vec<String> = (0..50).map(|number| format!("test_{number:02}.py")).collect();
        let files: Vec<&str> = names.iter().map(String::as_str).rev().collect();
        for stable in [false, true] {
            let mut all: Vec<&str> = (0..4).flat_map(|shard| part(&files, shard, 4, stable)).collect();
            all.sort_unstable();
            assert_eq!(all, names);
        }
        let evenly = part(&files, 0, 4, false);
        assert_eq!((evenly.len(), evenly[1]), (13, "test_01.py"));
        let lengths = [0, 1, 2, 3].map(|shard| part(&files, shard, 4, false).len());
        assert_eq!(lengths, [13, 13, 12, 12]);
        assert_eq!(part(&["a", "b"], 2, 4, false), Vec::<&str>::new());
        let before = part(&files, 0, 4, true);
        let more: Vec<&str> = files.iter().copied().chain(["a_new_one.py"]).collect();
        let after = part(&more, 0, 4, true);
        assert!(
            before.iter().all(|file| after.contains(file)),
            "a new file moves no other"
        );
        let fifth: Vec<&str> = part(&files, 0, 5, true);
        assert!(
            fifth.iter().all(|file| before.contains(file)),
            "a new shard only takes"
        );
        assert_eq!(part(&[], 0, 1, false), Vec::<&str>::new());
    }

    #[test]
    fn files_come_after_a_command_that_does_not_take_them_itself() {
        assert_eq!(
            line("pytest -x", &["a.py", "b c.py"]),
            "pytest -x 'a.py' 'b c.py'"
        );
        let own = "mvn test -Dtest=$(echo \"$CODEBUILD_CURRENT_SHARD_FILES\" | paste -sd,)";
        assert_eq!(line(own, &["ATest.java"]), own);
    }

    #[test]
    fn arguments_are_read_in_both_ways() {
        let split = parse(&texts(&[
            "--files-search=find .",
            "--test-command",
            "pytest -x",
            "--sharding-strategy",
            "stability",
        ]));
        let expected = Split {
            test_command: "pytest -x".to_owned(),
            files_search: "find .".to_owned(),
            stable: true,
        };
        assert_eq!(split, Ok(expected));
        for bad in [
            &["--test-command"][..],
            &["--test-command", "x"],
            &["--x", "y"],
            &["--sharding-strategy", "z"],
        ] {
            assert!(parse(&texts(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hashes_follow_names_and_contents() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let hash = || hash_files(directory.path(), &texts(&["*.lock"]));
        assert_eq!(hash(), Err("no file matches *.lock".to_owned()));
        write("a.lock", "one");
        let one = hash().unwrap();
        write("b.txt", "other");
        assert_eq!((hash().unwrap(), one.len()), (one.clone(), 64));
        write("a.lock", "two");
        assert_ne!(hash().unwrap(), one);
        let found = glob_search(directory.path(), &texts(&["*"])).unwrap();
        assert_eq!(found, ["a.lock", "b.txt"]);
    }
}
