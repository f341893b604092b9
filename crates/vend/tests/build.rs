//! `vend build --local`: the real binary, real containers, no platform.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "build/ends.rs"]
mod ends;
#[path = "build/kill.rs"]
mod kill;
#[path = "build/languages.rs"]
mod languages;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

static ONE: Mutex<()> = Mutex::new(());

/// One build at a time: they share a directory, so that the image is made once. `None` where no container can be.
fn place() -> Option<MutexGuard<'static, ()>> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: containers need root");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("local-builds")
}

fn vend(tree: &Path, arguments: &[&str]) -> Output {
    vend_in(&home(), tree, arguments)
}

fn vend_in(home: &Path, tree: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vend"))
        .arg("build")
        .arg("--local")
        .arg(tree)
        .arg("--home")
        .arg(home)
        .args(arguments)
        .output()
        .unwrap()
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

#[track_caller]
fn has(text: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(text.contains(fragment), "no `{fragment}` in:\n{text}");
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const WHOLE: &str = "version: 0.2
env:
  parameter-store: { TOKEN: /shop/token }
  exported-variables: [VERSION]
phases:
  pre_build: { commands: ['echo token $TOKEN', 'VERSION=1.$WORD'] }
  build: { commands: [mkdir -p out, cp src/app.txt out, echo '<testsuite><testcase name=\"t\"/></testsuite>' > t.xml] }
artifacts:
  base-directory: out
  files: ['**/*']
  secondary-artifacts: { reports: { files: [t.xml] } }
reports: { unit: { files: t.xml } }
";

#[test]
fn a_working_tree_is_built() {
    let Some(_one) = place() else { return };
    let tree = tree(&[("buildspec.yml", WHOLE), ("src/app.txt", "hello")]);
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("new");
    let artifacts = to.to_str().unwrap();
    let given = [
        "--env",
        "TOKEN=tigers-in-the-night",
        "--env",
        "WORD=7",
        "--artifacts",
        artifacts,
    ];
    let output = vend(tree.path(), &given);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    has(
        &text,
        &[
            "BUILD            Running command mkdir -p out",
            "token ***",
            "unit  1 of 1 passed",
            "VERSION=1.7",
            "built in ",
        ],
    );
    assert!(!text.contains("tigers"), "{text}");
    assert_eq!(fs::read_to_string(to.join("app.txt")).unwrap(), "hello");
    assert!(to.join("reports/t.xml").exists());
    // A second time the directory is in the way, and nothing is built.
    let output = vend(tree.path(), &given);
    assert_eq!(output.status.code(), Some(1));
    has(&said(&output), &["is not empty", "--force"]);
    fs::write(to.join("app.txt"), "older").unwrap();
    fs::write(to.join("mine.txt"), "mine").unwrap();
    let output = vend(tree.path(), &[&given[..], &["--force"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(fs::read_to_string(to.join("app.txt")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(to.join("mine.txt")).unwrap(), "mine");
    let mut names: Vec<_> = to
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["app.txt", "mine.txt", "reports"], "nothing else is left");

    let output = vend(tree.path(), &["--env", "TOKEN=tigers-in-the-night", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            answer["ok"].as_bool(),
            answer["built"]["reports"][0]["passed"].as_u64()
        ),
        (Some(true), Some(1))
    );
}

#[test]
fn a_failure_says_what_failed() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2\nphases: { build: { commands: ['echo the last words; exit 7'] } }\n";
    let tree = tree(&[("ci/build.yml", spec)]);
    let output = vend(tree.path(), &["--buildspec", "ci/build.yml"]);
    assert_eq!(output.status.code(), Some(1));
    has(
        &said(&output),
        &[
            "error: the build failed",
            "echo the last words; exit 7",
            "exit status 7",
            "its last lines",
            "the last words",
        ],
    );
    let output = vend(tree.path(), &["--buildspec", "ci/build.yml", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = ["ok", "status", "phase", "command", "exit_code", "last_lines"].map(|name| &answer[name]);
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!([
            false,
            "FAILED",
            "BUILD",
            "echo the last words; exit 7",
            7,
            ["the last words"]
        ])
    );
    // Nobody pushes here, and the log is a file.
    assert_eq!(answer["fault"]["next"], serde_json::Value::Null);
    for log in [&answer["log"], &answer["fault"]["evidence"]] {
        let log = fs::read_to_string(log.as_str().unwrap()).unwrap();
        has(&log, &["the last words"]);
    }
    let late = "version: 0.2\nphases: { build: { commands: ['echo begun; sleep 100'] } }\n";
    fs::write(tree.path().join("late.yml"), late).unwrap();
    let output = vend(
        tree.path(),
        &["--buildspec", "late.yml", "--timeout", "3s", "--json"],
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = ["status", "phase", "command", "exit_code", "last_lines"].map(|name| &answer[name]);
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!(["TIMED_OUT", "BUILD", "echo begun; sleep 100", null, ["begun"]])
    );
    let lacks = "version: 0.2\nenv: { parameter-store: { A: b } }\nphases: { build: { commands: [x] } }\n";
    fs::write(tree.path().join("lacks.yml"), lacks).unwrap();
    let output = vend(tree.path(), &["--buildspec", "lacks.yml", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let next = format!("vend build --local {} --env A=…", tree.path().display());
    assert_eq!(
        (output.status.code(), &answer["status"], &answer["fault"]["next"]),
        (Some(2), &"FAILED".into(), &next.into())
    );
    assert!(output.stderr.is_empty(), "nothing ran: {}", said(&output));
    let output = vend(tree.path(), &["--buildspec", "ci/none.yml"]);
    assert_eq!(output.status.code(), Some(1));
    has(
        &said(&output),
        &[
            "YAML_FILE_ERROR: YAML file does not exist: ",
            "No such file",
            "next:  --buildspec FILE names a file",
        ],
    );
    let bogus = ["--buildspec", "ci/build.yml", "--image", "bogus"];
    has(
        &said(&vend(tree.path(), &bogus)),
        &[&format!(
            "next:  vend build --local {} --image",
            tree.path().display()
        )],
    );
    for (arguments, fragment) in [
        (
            &[][..],
            "YAML_FILE_ERROR: YAML file does not exist: there is no buildspec.yml",
        ),
        (
            &["--buildspec", "ci/build.yml", "--env", "X"],
            "a variable is NAME=VALUE",
        ),
        (&["--buildspec", "ci/build.yml", "--batch"], "has no `batch`"),
        (&["--at-once", "0"], "a number from 1 on"),
        (
            &["--buildspec", "ci/build.yml", "--timeout", "0s"],
            "a time such as 90s",
        ),
    ] {
        let output = vend(tree.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        has(&said(&output), &[fragment]);
    }
}

#[test]
fn tests_that_failed_are_named_whatever_failed_the_build() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2
phases:
  build:
    commands:
      - >-
        echo '<testsuite><testcase classname=\"shop.cart\" name=\"adds\"/><testcase classname=\"shop.cart\" name=\"removes\">
        <failure message=\"1 is not 2\"/></testcase></testsuite>' > t.xml
      - exit $CODE
reports: { unit: { files: t.xml } }
";
    let tree = tree(&[("buildspec.yml", spec)]);
    for (code, rate, exit, message) in [
        ("3", "100", 1, "exit status 3"),
        ("0", "100", 1, "1 of 2 tests passed"),
        ("0", "50", 0, "built in "),
    ] {
        let code = format!("CODE={code}");
        let output = vend(tree.path(), &["--env", &code, "--pass-rate", rate]);
        assert_eq!(output.status.code(), Some(exit), "{}", said(&output));
        has(&said(&output), &[message, "shop.cart", "removes"]);
        let output = vend(tree.path(), &["--env", &code, "--pass-rate", rate, "--json"]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let report = match exit {
            0 => &answer["built"]["reports"][0],
            _ => &answer["reports"][0],
        };
        assert!(report["failures"].to_string().contains("removes"), "{answer:#}");
    }
}

#[test]
fn a_batch_follows_its_graph() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2
phases: { build: { commands: ['echo \"from $NAME\" > out.txt', '[ \"$NAME\" != bad ]'] } }
artifacts: { files: [out.txt] }
batch:
  build-graph:
    - { identifier: last, env: { variables: { NAME: last } }, depend-on: [Linux_first, bad] }
    - { identifier: Linux_first, env: { variables: { NAME: first } } }
    - { identifier: bad, env: { variables: { NAME: bad } }, ignore-failure: true }
";
    let tree = tree(&[("buildspec.yml", spec)]);
    let to = tempfile::tempdir().unwrap();
    let output = vend(
        tree.path(),
        &["--batch", "--artifacts", to.path().to_str().unwrap()],
    );
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    has(
        &text,
        &[
            "failed (ignored) bad (NAME=bad)",
            "succeeded Linux_first",
            "succeeded last",
        ],
    );
    let names: BTreeSet<String> = fs::read_dir(to.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Also what the failed one left, as on CodeBuild.
    let all = ["bad", "Linux_first", "last"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(all));
    assert_eq!(
        fs::read_to_string(to.path().join("last/out.txt")).unwrap(),
        "from last\n"
    );
}

#[test]
fn a_batch_that_fails_leaves_what_its_builds_made() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2
phases: { build: { commands: ['echo $NAME > out.txt', '[ $NAME != bad ]'] } }
artifacts: { files: [out.txt] }
batch:
  fast-fail: false
  build-list:
    - { identifier: bad, env: { variables: { NAME: bad } } }
    - { identifier: good, env: { variables: { NAME: good } } }
    - { identifier: fine, env: { variables: { NAME: fine } } }
";
    let (code, text, left) = batch(spec, &[], &[]);
    assert_eq!(code, Some(1), "{text}");
    let all = ["bad", "fine", "good"].map(|name| format!("{name}/out.txt={name}"));
    assert_eq!(left, BTreeSet::from(all), "{text}");
    let list: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with("BUILD "))
        .take(4)
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (number, (name, status)) in [("bad", "failed"), ("good", "succeeded"), ("fine", "succeeded")]
        .into_iter()
        .enumerate()
    {
        let line = &list[number + 1];
        assert_eq!(line[..2], [name, status], "{text}");
        assert!(line.last().unwrap().ends_with(name), "{text}");
    }
    let tree = tree(&[("buildspec.yml", spec)]);
    let output = vend(tree.path(), &["--batch", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let builds = answer["builds"].as_array().unwrap();
    let told: Vec<[&serde_json::Value; 3]> = builds
        .iter()
        .map(|build| [&build["identifier"], &build["status"], &build["command"]])
        .collect();
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!([
            ["bad", "FAILED", "[ $NAME != bad ]"],
            ["good", "SUCCEEDED", null],
            ["fine", "SUCCEEDED", null]
        ])
    );
    for build in builds {
        assert!(build["duration_ms"].as_u64().is_some(), "{build:#}");
        assert!(Path::new(build["log"].as_str().unwrap()).is_file(), "{build:#}");
    }
}

/// Builds a batch and gives what it said and the files that it left.
fn batch(spec: &str, files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, BTreeSet<String>) {
    let mut all = vec![("buildspec.yml", spec)];
    all.extend(files);
    let tree = tree(&all);
    let to = tempfile::tempdir().unwrap();
    let own = ["--batch", "--artifacts", to.path().to_str().unwrap()];
    let output = vend(tree.path(), &[&own, arguments].concat());
    let mut left = BTreeSet::new();
    let mut directories = vec![to.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name = path.strip_prefix(to.path()).unwrap().display().to_string();
                    left.insert(format!("{name}={}", fs::read_to_string(&path).unwrap().trim()));
                }
            }
        }
    }
    (output.status.code(), said(&output), left)
}

#[track_caller]
fn leaves(found: (Option<i32>, String, BTreeSet<String>), expected: &[&str]) {
    let (code, text, left) = found;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        left,
        expected.iter().map(|name| (*name).to_owned()).collect(),
        "{text}"
    );
}

#[test]
fn batches_of_every_kind_leave_what_their_builds_do() {
    let Some(_one) = place() else { return };
    let phases = "version: 0.2
phases: { build: { commands: ['mkdir out; echo $CODEBUILD_BATCH_BUILD_IDENTIFIER $OS-$DB > out/$OS-$DB.txt; echo all > out/same.txt'] } }
artifacts: { base-directory: out, files: ['**/*'] }
";
    let matrix = format!(
        "{phases}batch: {{ build-matrix: {{ static: {{ env: {{ variables: {{ OS: deb }} }} }}, dynamic: {{ env: {{ variables: {{ DB: [pg, my] }} }} }} }} }}\n"
    );
    let found = batch(&matrix, &[], &["--combine-artifacts"]);
    let names: Vec<String> = found
        .2
        .iter()
        .map(|line| line.split('=').next().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["deb-my.txt", "deb-pg.txt", "same.txt"], "{}", found.1);
    let list = format!(
        "{phases}batch: {{ build-list: [{{ identifier: one, env: {{ variables: {{ OS: a, DB: x }} }} }}, {{ identifier: two, env: {{ variables: {{ OS: b, DB: x }} }} }}] }}\n"
    );
    leaves(
        batch(&list, &[], &[]),
        &[
            "one/a-x.txt=one a-x",
            "one/same.txt=all",
            "two/b-x.txt=two b-x",
            "two/same.txt=all",
        ],
    );
    let clash = list.replace("OS: b", "OS: a");
    let (code, text, left) = batch(&clash, &[], &["--combine-artifacts"]);
    assert_eq!((code, left.len()), (Some(1), 0), "{text}");
    has(
        &text,
        &["the builds `one` and `two` of the batch both leave `a-x.txt`, and not the same"],
    );
    let arm = list.replace(
        "identifier: two, env: {",
        "identifier: two, env: { labels: { arch: arm64 },",
    );
    let (code, text, _) = batch(&arm, &[], &[]);
    assert_eq!(code, Some(1), "{text}");
    has(
        &text,
        &["the build two of the batch: no builder has the label `arch: arm64`"],
    );
    assert!(
        !text.contains("Running command"),
        "known before any build runs: {text}"
    );
    // Whoever does not mind is not kept from the rest.
    let minds = arm.replace("identifier: two,", "identifier: two, ignore-failure: true,");
    let (code, text, _) = batch(&minds, &[], &[]);
    assert_eq!(code, Some(0), "{text}");
    has(&text, &["failed (ignored) two"]);
}

#[test]
fn a_fan_out_runs_each_test_once() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2
phases: { build: { commands: ['mkdir out', \"codebuild-tests-run --test-command 'cp -t out' --files-search \\\"codebuild-glob-search 'tests/*.py'\\\"\"] } }
artifacts: { base-directory: out, files: ['**/*'] }
batch: { build-fanout: { parallelism: 3 } }
";
    let files = ["a", "b", "c", "d", "e"].map(|name| (format!("tests/{name}.py"), name));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, name)| (path.as_str(), *name)).collect();
    let (_, text, apart) = batch(spec, &files, &[]);
    assert_eq!(apart.len(), 5, "{text}");
    let of = |shard: &str| apart.iter().filter(|name| name.starts_with(shard)).count();
    assert_eq!(
        (of("shard1/"), of("shard2/"), of("shard3/")),
        (2, 2, 1),
        "{apart:?}"
    );
    leaves(
        batch(spec, &files, &["--combine-artifacts"]),
        &["a.py=a", "b.py=b", "c.py=c", "d.py=d", "e.py=e"],
    );
}
