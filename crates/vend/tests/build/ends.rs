//! Ends that a build does not choose: it is killed, or comes to a limit.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use camino::Utf8Path;

use crate::{has, home, place, said, tree, vend};

pub fn entries(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What there is of builds in a home: processes with this word, directories, control groups, network links.
fn left(word: &str) -> Vec<String> {
    let home = home();
    let tag = host::container::tag_of(Utf8Path::from_path(&home.canonicalize().unwrap()).unwrap());
    let mut found = Vec::new();
    for process in entries("/proc") {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()) {
            found.push(format!("process {}", process.display()));
        }
    }
    for directory in ["containers", "builds"] {
        found.extend(
            entries(home.join(directory))
                .iter()
                .map(|path| format!("directory {}", path.display())),
        );
    }
    let groups = entries("/sys/fs/cgroup");
    for group in groups.iter().chain([&PathBuf::from("/sys/fs/cgroup")]) {
        let own = group.join(format!("vend-{tag}"));
        if own.is_dir() && entries(&own).iter().any(|path| path.is_dir()) {
            found.push(format!("group {}", own.display()));
        }
    }
    for link in entries("/sys/class/net") {
        let name = link.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(&format!("vend{tag}")) {
            found.push(format!("link {name}"));
        }
    }
    found
}

#[test]
fn a_build_that_is_killed_leaves_nothing() {
    let Some(_one) = place() else { return };
    let seconds = "7654321";
    let spec = format!("version: 0.2\nphases: {{ build: {{ commands: [sleep {seconds}] }} }}\n");
    let tree = tree(&[("buildspec.yml", &spec)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vend"))
        .args(["build", "--local"])
        .arg(tree.path())
        .arg("--home")
        .arg(home())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let began = lines
        .map_while(Result::ok)
        .any(|line| line.contains("Running command sleep"));
    assert!(began);
    let wait = |done: &dyn Fn() -> bool| {
        (0..600).any(|_| {
            done() || {
                thread::sleep(Duration::from_millis(100));
                false
            }
        })
    };
    assert!(wait(&|| left(seconds)
        .iter()
        .any(|what| what.starts_with("process"))));
    let there = left(seconds).join("\n");
    has(&there, &["process ", "directory ", "group ", "link "]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait(&|| left(seconds).is_empty()), "{:?}", left(seconds));
}

#[test]
fn a_build_ends_at_its_limits() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2
phases: { build: { commands: ['head -c 400m /dev/zero | tail -c 400m > /dev/null'] } }
";
    let tree = tree(&[("buildspec.yml", spec)]);
    let output = vend(tree.path(), &["--memory", "128"]);
    assert_eq!(output.status.code(), Some(1));
    has(
        &said(&output),
        &["used more than the 128 MiB of memory", "--memory"],
    );
    let output = vend(tree.path(), &["--memory", "1024"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for (arguments, fragment) in [
        (["--memory", "1"], "--memory must be 64 MiB or more"),
        (["--disk", "0"], "--disk must be 64 MiB or more"),
    ] {
        let output = vend(tree.path(), &arguments);
        assert_eq!(output.status.code(), Some(2));
        has(&said(&output), &[fragment]);
    }
}

const FAILS: &str = "version: 0.2
phases:
  build:
    commands:
      - mkdir out && echo seen > out/seen.txt
      - echo '<testsuite><testcase name=\"t\"><failure message=\"no\"/></testcase></testsuite>' > t.xml
      - $END
artifacts: { base-directory: out, files: ['**/*'], secondary-artifacts: { tests: { files: [t.xml] } } }
reports: { unit: { files: t.xml } }
";

#[test]
fn a_failed_build_leaves_its_artifacts_and_a_summary() {
    let Some(_one) = place() else { return };
    let tree = tree(&[("buildspec.yml", FAILS)]);
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("new");
    let given = ["--env", "END=false", "--artifacts", to.to_str().unwrap()];
    let output = vend(tree.path(), &given);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    has(
        &text,
        &[
            "  BUILD  ",
            " s  failed",
            "unit  0 of 1 passed",
            "artifacts of the failed build",
        ],
    );
    assert_eq!(fs::read_to_string(to.join("seen.txt")).unwrap(), "seen\n");
    assert!(to.join("tests/t.xml").exists());

    let output = vend(tree.path(), &["--env", "END=true", "--pass-rate", "100"]);
    assert_eq!(output.status.code(), Some(1));
    has(
        &said(&output),
        &[
            "less than the 100 % that `pass_rate` asks for",
            "--pass-rate PERCENT",
            "unit  0 of 1 passed",
        ],
    );
    let output = vend(tree.path(), &["--env", "END=true"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    has(&said(&output), &["unit  0 of 1 passed"]);
}
