//! Buildspecs of CodeBuild's user guide: accepted, or refused only for what is not built yet.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use model::spec::{Buildspec, is_later};

#[test]
fn agrees_with_the_user_guide() {
    let Some(folder) = common::conformance("buildspec/docs") else {
        return;
    };
    let (mut accepted, mut later, mut wrong) = (0, Vec::new(), Vec::new());
    for path in common::files(&folder, &[".yml"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = common::json(&folder.join(format!("{name}.expected.json")));
        let text = std::fs::read_to_string(&path).unwrap();
        match (
            Buildspec::parse(&text, &name),
            expected["expect"].as_str().unwrap(),
        ) {
            (Ok(_), "accept") => accepted += 1,
            (Err(problems), "accept") if problems.iter().filter(|p| p.is_error()).all(is_later) => {
                later.push(name)
            }
            (Err(_), "reject") => accepted += 1,
            (result, expect) => wrong.push(format!("{name}: expected {expect}, got {result:?}")),
        }
    }
    println!(
        "{accepted} agree, {} need what is not built yet: {later:?}",
        later.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 20);
}

/// Every problem of a buildspec, one a line.
fn check(text: &str, expected: &[&str]) {
    let problems = match Buildspec::parse(text, "b") {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    let found: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
        .collect();
    assert_eq!(found, expected, "{text}");
}

const BUILD: &str = "phases: { build: { commands: [make] } }\n";

#[test]
fn messages() {
    check("", &["0:0: the file is empty"]);
    check(
        "version: 0.3\nphases: {}",
        &["1:10: `version` must be 0.1 or 0.2, not `0.3`"],
    );
    check("version: 0.2", &["1:1: `phases` is missing"]);
    check(
        "version: 0.2\nphases: { biuld: { commands: [x] } }",
        &["2:11: Invalid buildspec phase name: `biuld`. Expecting: build,install,post_build,pre_build"],
    );
    check(
        "version: 0.2\nphases: { build: { commands: [echo a: b, [x]] } }",
        &[
            "2:31: Expected Commands[0] to be of string type: found subkeys instead",
            "2:42: Expected Commands[1] to be of string type: found a list",
        ],
    );
    check(
        "version: 0.2\nphases: { build: { on-failure: RETRY-3, commands: [x] } }",
        &["2:32: `RETRY-3` is not available yet"],
    );
    for (rest, expected) in [
        (
            "env: { variables: { CODEBUILD_X: 1 } }",
            "3:21: `CODEBUILD_X`: names that start with `CODEBUILD_` are reserved",
        ),
        (
            "env: { git-credential-helper: yes }",
            "3:31: `git-credential-helper` is not available yet",
        ),
        (
            "env: { shell: powershell.exe }",
            "3:15: `powershell.exe` is not available yet",
        ),
        (
            "env: { shell: zsh }",
            "3:15: `env.shell` must be `bash` or `/bin/sh`, not `zsh`",
        ),
        (
            "env: { exported-variables: [AWS_X] }",
            "3:29: `AWS_X`: variables that start with `AWS_` cannot be exported",
        ),
        ("artifacts: { name: x }", "3:12: `artifacts.files` is missing"),
        (
            "artifacts: { files: x, discard-paths: maybe }",
            "3:39: `artifacts.discard-paths` must be true or false, not `maybe`",
        ),
        (
            "artifacts: { files: x, secondary-artifacts: { a: { files: y } } }",
            "3:24: `secondary-artifacts` is not available yet",
        ),
        (
            "artifacts: { files: x, s3-prefix: y }",
            "3:24: `s3-prefix` is not available yet: artifacts are addressed by their content",
        ),
        (
            "reports: { r: { files: x, file-format: JaCoCoXML } }",
            "3:40: `JACOCOXML` is not available yet",
        ),
        (
            "reports: { r: { files: x, file-format: JUNIT } }",
            "3:40: `JUNIT` is not a format of reports",
        ),
        (
            "reports: { r: { file-format: JUNITXML } }",
            "3:12: `reports.r` names no files",
        ),
        (
            "cache: { paths: x, key: y }",
            "3:20: `cache.key` is not available yet: the app has one cache, restored before and saved after each build",
        ),
        (
            "batch: { build-list: [] }",
            "3:1: `batch` is not available yet: this is run as one build, as `start-build` does on AWS",
        ),
        (
            "artefacts: { files: x }",
            "3:1: `artefacts` is not a known key: AWS ignores it without a word, and so does a push",
        ),
        (
            "environment_variables: { plaintext: { A: b } }",
            "3:1: `environment_variables` belongs to version 0.1: it is ignored",
        ),
    ] {
        check(&format!("version: 0.2\n{BUILD}{rest}\n"), &[expected]);
    }
}

#[test]
fn what_a_build_needs() {
    let text = "version: 0.2\nrun-as: builder\nenv: { shell: bash, variables: { A: 010, B: true, C: }, secrets-manager: { S: \"x:y\" }, exported-variables: A }\n\
                phases:\n  build: { run-as: root, on-failure: CONTINUE, commands: make, finally: [true, 2] }\n  install: { runtime-versions: { python: 3.10, nodejs: 12, java: corretto11 }, commands: [] }\n\
                artifacts: { files: ['**/*'], discard-paths: yes, exclude-paths: x }\nreports: { junit: { files: [r.xml], discard-paths: off } }\ncache: { paths: /root/.m2 }\n";
    let (spec, warnings) = Buildspec::parse(text, "b").unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].message, "YAML reads `3.10` as the number 3.1");
    let [install, build] = spec.phases.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!(install.runtime_versions["python"], "3.1");
    assert_eq!(install.runtime_versions["nodejs"], "12");
    assert_eq!(
        (install.run_as.as_deref(), build.run_as.as_deref()),
        (Some("builder"), Some("root"))
    );
    assert_eq!(
        (build.commands.as_slice(), build.finally.as_slice()),
        (&["make".to_owned()][..], &["true".to_owned(), "2".to_owned()][..])
    );
    assert_eq!(
        (
            spec.env.variables["A"].as_str(),
            spec.env.variables["B"].as_str(),
            spec.env.variables["C"].as_str()
        ),
        ("010", "true", "")
    );
    let artifacts = spec.artifacts.unwrap();
    assert!(artifacts.discard_paths && !spec.reports[0].discard_paths);
    assert_eq!(spec.cache_paths, ["/root/.m2"]);
    let old = "version: 0.1\nenvironment_variables:\n  plaintext: { A: b }\nphases: { build: { commands: [x] } }\nartifacts: { type: zip, files: [a] }\n";
    let (old, warnings) = Buildspec::parse(old, "b").unwrap();
    assert_eq!((old.env.variables["A"].as_str(), warnings.len()), ("b", 0));
}
