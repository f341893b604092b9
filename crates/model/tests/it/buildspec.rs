//! Buildspecs of CodeBuild's user guide: accepted, or refused only for what is not built yet.

use model::spec::{
    Buildspec,
    build::{OnFailure, PhaseName, ReportFormat, Task},
    is_later,
};

use crate::common;

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
    for (value, expected) in [
        (
            "NEVER",
            "`phases.build.on-failure` must be ABORT, CONTINUE or RETRY, not `NEVER`",
        ),
        (
            "RETRY-101",
            "`phases.build.on-failure` tries again 0 to 100 times, not `101`",
        ),
        ("RETRY-2-", "`` is not a regular expression: it is empty"),
        (
            "'RETRY-(x'",
            "`(x` is not a regular expression: error: unclosed group",
        ),
    ] {
        check(
            &format!("version: 0.2\nphases: {{ build: {{ on-failure: {value}, commands: [x] }} }}"),
            &[&format!("2:32: {expected}")],
        );
    }
    for (rest, expected) in [
        (
            "env: { variables: { CODEBUILD_X: 1 } }",
            "3:21: `CODEBUILD_X`: names that start with `CODEBUILD_` are reserved",
        ),
        (
            "env: { git-credential-helper: maybe }",
            "3:31: `env.git-credential-helper` must be true or false, not `maybe`",
        ),
        (
            "env: { shell: powershell.exe }",
            "3:15: the shell is one of Windows: the build needs a builder with the label `os: windows`",
        ),
        (
            "env: { secrets-manager: { A: 'a:b:c:d:e' } }",
            "3:30: `a:b:c:d:e` must be `secret-id:json-key:version-stage:version-id`, of which the first is needed",
        ),
        (
            "env: { secrets-manager: { A: ':b' } }",
            "3:30: `:b` must be `secret-id:json-key:version-stage:version-id`, of which the first is needed",
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
            "artifacts: { secondary-artifacts: { a: { files: y } } }",
            "3:12: `artifacts.files` is missing: there is no artifact but the secondary ones",
        ),
        (
            "artifacts: { files: x, secondary-artifacts: { a: { name: y } } }",
            "3:50: `artifacts.secondary-artifacts.a.files` is missing",
        ),
        (
            "artifacts: { files: x, secondary-artifacts: { a-b: { files: y } } }",
            "3:47: `a-b` must be letters, digits and underscores, as an identifier is",
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
            "cache: { paths: x, fallback-keys: [y] }",
            "3:35: `cache.fallback-keys` is ignored without `cache.key`",
        ),
        (
            "cache: { paths: x, key: k, fallback-keys: [1, 2, 3, 4, 5, 6] }",
            "3:43: `cache.fallback-keys` has at most 5 keys",
        ),
        (
            "cache: { paths: x, action: keep }",
            "3:28: `cache.action` must be `restore` or `save`, not `keep`",
        ),
        (
            "cache: { key: k }",
            "3:8: `cache.paths` is missing: nothing is kept",
        ),
        (
            "cache: { paths: [/root/.cache/pip, 'node_modules/**/*', '**/*'] }",
            "3:57: the cache keeps nothing of `**/*`: it is the whole source tree",
        ),
        (
            "cache: { paths: ['/**/*'] }",
            "3:18: the cache keeps nothing of `/**/*`: it is the whole disk",
        ),
        (
            "cache: { paths: '~/.npm' }",
            "3:17: the cache keeps nothing of `~/.npm`: `~` is no directory there, and HOME is `/root`",
        ),
        (
            "cache: { paths: $HOME/.npm }",
            "3:17: the cache keeps nothing of `$HOME/.npm`: no variable is read there",
        ),
        (
            "cache: { paths: ../other }",
            "3:17: the cache keeps nothing of `../other`: it leads out of where it begins",
        ),
        (
            "reports: { a: { files: x }, b: { files: x }, c: { files: x }, d: { files: x }, e: { files: x }, f: { files: x } }",
            "3:97: a build has at most 5 report groups",
        ),
        (
            "proxy: { upload-artifacts: yes, logs: yes, other: yes }",
            "3:44: `other` is not a known key of `proxy`: AWS ignores it without a word, and so does a push",
        ),
        (
            "proxy: { upload-artifacts: yes, logs: sometimes }",
            "3:39: `proxy.logs` must be true or false, not `sometimes`",
        ),
        (
            "batch: { build-list: [{ identifier: a, env: { privileged-mode: yes } }, { identifier: b, env: { privileged-mode: no } }] }",
            "3:64: `privileged-mode` has no effect: no build is privileged, and there is no Docker in it",
        ),
        (
            "batch: { build-list: [] }",
            "3:10: `batch.build-list` names no builds",
        ),
        (
            "batch: { fast-fail: true }",
            "3:8: `batch` must have one of `build-list`, `build-graph`, `build-matrix` and `build-fanout`",
        ),
        (
            "batch: { build-list: [{ identifier: a }], build-fanout: { parallelism: 2 } }",
            "3:43: `batch` must have one of `build-list`, `build-graph`, `build-matrix` and `build-fanout`",
        ),
        (
            "batch: { build-list: [{ identifier: a }, { identifier: a }] }",
            "3:42: two builds are called `a`",
        ),
        (
            "batch: { build-list: [{ env: {} }] }",
            "3:23: a build of `batch.build-list` has no `identifier`",
        ),
        (
            "batch: { build-graph: [{ identifier: a, depend-on: [b] }] }",
            "3:24: `a` depends on `b`, and no build is called so",
        ),
        (
            "batch: { build-graph: [{ identifier: a, depend-on: b }, { identifier: b, depend-on: [a] }] }",
            "3:23: `a` depends on itself, by way of others or at once",
        ),
        (
            "batch: { build-fanout: { parallelism: 101 } }",
            "3:39: `batch.build-fanout.parallelism` must be a number from 1 to 100, not `101`",
        ),
        (
            "batch: { build-matrix: { dynamic: { buildspec: [a, b, c, d, e, f, g, h, i, j, k], env: { image: [a, b, c, d, e, f, g, h, i, j] } } } }",
            "3:35: the matrix has too many combinations: a batch has at most 100 builds",
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
    assert_eq!(spec.cache.paths, ["/root/.m2"]);
    assert!(spec.cache.restore && spec.cache.save);
    assert_eq!(spec.env.secrets_manager["S"].json_key.as_deref(), Some("y"));
    assert_eq!(install.on_failure, OnFailure::Transition);
    let old = "version: 0.1\nenvironment_variables:\n  plaintext: { A: b }\nphases: { build: { commands: [x] } }\nartifacts: { type: zip, files: [a] }\n";
    let (old, warnings) = Buildspec::parse(old, "b").unwrap();
    assert_eq!((old.env.variables["A"].as_str(), warnings.len()), ("b", 0));
}

/// A buildspec that holds, with these lines after its phases.
fn spec(rest: &str) -> Buildspec {
    let text = format!("version: 0.2\n{BUILD}{rest}\n");
    Buildspec::parse(&text, "b")
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .0
}

#[test]
fn failures_are_followed_by_what_the_file_says() {
    let retry = |times, pattern: Option<&str>| OnFailure::Retry {
        times,
        pattern: pattern.map(str::to_owned),
    };
    for (text, expected) in [
        ("ABORT", OnFailure::Abort),
        ("CONTINUE", OnFailure::Continue),
        ("RETRY", retry(3, None)),
        ("RETRY-0", retry(0, None)),
        ("RETRY-100", retry(100, None)),
        ("RETRY-.*timed out.*", retry(3, Some(".*timed out.*"))),
        ("RETRY-7-.*timed-out", retry(7, Some(".*timed-out"))),
        ("RETRY-7up", retry(3, Some("7up"))),
        ("Retry", retry(3, None)),
        (
            "Retry-.*Error: Unable to connect to database.*",
            retry(3, Some(".*Error: Unable to connect to database.*")),
        ),
        (
            "Retry-3-.*connection timed out.*",
            retry(3, Some(".*connection timed out.*")),
        ),
        ("RETRY-8-invalid+", retry(8, Some("invalid+"))),
    ] {
        let text =
            format!("version: 0.2\nphases: {{ post_build: {{ on-failure: '{text}', commands: [x] }} }}");
        let (spec, _) = Buildspec::parse(&text, "b").unwrap();
        assert_eq!(
            (spec.phases[0].name, &spec.phases[0].on_failure),
            (PhaseName::PostBuild, &expected),
            "{text}"
        );
    }
}

#[test]
fn secrets_are_named_by_parts_or_arns() {
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-a1B2c3";
    for (text, name, parts) in [
        ("db", "db", [None, None, None]),
        ("/prod/db:user", "prod/db", [Some("user"), None, None]),
        (
            "db:user:AWSPREVIOUS:7",
            "db",
            [Some("user"), Some("AWSPREVIOUS"), Some("7")],
        ),
        ("db:::7", "db", [None, None, Some("7")]),
        (arn, "prod/db", [None, None, None]),
        (
            &format!("{arn}:user::7"),
            "prod/db",
            [Some("user"), None, Some("7")],
        ),
        (
            "arn:aws:secretsmanager:x:1:secret:short-name",
            "short-name",
            [None, None, None],
        ),
    ] {
        let spec = spec(&format!("env: {{ secrets-manager: {{ A: '{text}' }} }}"));
        let secret = &spec.env.secrets_manager["A"];
        let found = [&secret.json_key, &secret.stage, &secret.version].map(|part| part.as_deref());
        assert_eq!((secret.name(), found), (name, parts), "{text}");
    }
}

#[test]
fn artifacts_caches_and_reports_in_full() {
    let spec = spec(
        "artifacts: { files: a, name: 'n-$(date)', s3-prefix: p, enable-symlinks: yes, secondary-artifacts: { one: { files: [b], base-directory: 'dist*', discard-paths: yes, exclude-paths: 'c/**' } } }\n\
         cache: { paths: [node_modules/**/*], key: 'k-$(codebuild-hash-files p.json)', fallback-keys: [k-], action: restore }\n\
         reports: { a: { files: x, file-format: junitxml }, b: { files: x, file-format: SimpleCov }, c: { files: x, file-format: VISUALSTUDIOTRX } }",
    );
    let artifacts = spec.artifacts.unwrap();
    assert_eq!(
        (artifacts.name.as_deref(), artifacts.s3_prefix.as_deref()),
        (Some("n-$(date)"), Some("p"))
    );
    let one = &artifacts.secondary["one"];
    assert_eq!(
        (one.base_directory.as_deref(), one.discard_paths),
        (Some("dist*"), true)
    );
    assert_eq!(
        (one.exclude_paths.as_slice(), one.files.as_slice()),
        (&["c/**".to_owned()][..], &["b".to_owned()][..])
    );
    let cache = spec.cache;
    assert_eq!(
        (cache.key.as_deref(), cache.restore, cache.save),
        (Some("k-$(codebuild-hash-files p.json)"), true, false)
    );
    assert_eq!(cache.fallback_keys, ["k-"]);
    let formats: Vec<ReportFormat> = spec.reports.iter().map(|report| report.format).collect();
    assert_eq!(
        formats,
        [
            ReportFormat::JunitXml,
            ReportFormat::SimpleCov,
            ReportFormat::VisualStudioTrx
        ]
    );
    for (name, format) in ReportFormat::ALL {
        assert_eq!(ReportFormat::named(&name.to_lowercase()), Some(format));
    }
}

/// The builds of a batch: identifier, buildspec, what it waits for, variables, labels.
fn tasks(batch: &str, expected: &[&str]) -> Vec<Task> {
    let tasks = spec(&format!("batch: {batch}")).batch.unwrap().tasks;
    let found: Vec<String> = tasks
        .iter()
        .map(|task| {
            let pairs = |all: &std::collections::BTreeMap<String, String>| {
                all.iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let own = task.buildspec.as_deref().unwrap_or("-");
            let (after, variables, labels) = (
                task.depend_on.join(","),
                pairs(&task.variables),
                pairs(&task.labels),
            );
            format!("{} {own} <{after}> {variables} [{labels}]", task.identifier)
        })
        .collect();
    assert_eq!(found, expected, "{batch}");
    tasks
}

#[test]
fn batches_come_to_builds() {
    tasks(
        "{ fast-fail: yes, build-list: [{ identifier: a, buildspec: a.yml, debug-session: true }, { identifier: b, env: { type: ARM_CONTAINER, compute-type: BUILD_GENERAL1_SMALL, variables: { X: 1 } } }] }",
        &["a a.yml <>  []", "b - <> X=1 [arch=arm64]"],
    );
    tasks(
        "{ build-graph: [{ identifier: c, depend-on: [a, b] }, { identifier: b, depend-on: a, env: { fleet: big } }, { identifier: a }] }",
        &["a - <>  []", "b - <a>  [fleet=big]", "c - <a,b>  []"],
    );
    let matrix = tasks(
        "{ build-matrix: { static: { ignore-failure: true, env: { type: LINUX_CONTAINER, variables: { S: s } } }, dynamic: { buildspec: [x.yml, y.yml], env: { image: [i, 'aws/codebuild/amazonlinux-aarch64-standard:3.0'], variables: { V: [1, 2] } } } } }",
        &[
            "build1 x.yml <> S=s,V=1 [arch=amd64]",
            "build2 x.yml <> S=s,V=2 [arch=amd64]",
            "build3 x.yml <> S=s,V=1 [arch=arm64]",
            "build4 x.yml <> S=s,V=2 [arch=arm64]",
            "build5 y.yml <> S=s,V=1 [arch=amd64]",
            "build6 y.yml <> S=s,V=2 [arch=amd64]",
            "build7 y.yml <> S=s,V=1 [arch=arm64]",
            "build8 y.yml <> S=s,V=2 [arch=arm64]",
        ],
    );
    assert!(matrix.iter().all(|task| task.ignore_failure) && matrix[0].image.as_deref() == Some("i"));
    let shards = tasks(
        "{ build-fanout: { parallelism: 2 } }",
        &["shard1 - <>  []", "shard2 - <>  []"],
    );
    assert_eq!((shards[0].shard, shards[1].shard), (Some((0, 2)), Some((1, 2))));
}

#[test]
fn a_batch_whose_builds_have_buildspecs_needs_no_phases() {
    let none = "1:1: `phases` is missing";
    let idle = |name: &str| {
        format!(
            "2:1: `phases` is missing, and the build `{name}` of the batch names no `buildspec` of its own: it has nothing to run"
        )
    };
    let (a, second, shard) = (idle("a"), idle("build1"), idle("shard1"));
    for (rest, expected) in [
        (
            "batch: { build-list: [{ identifier: a, buildspec: a.yml }] }",
            None,
        ),
        (
            "batch: { build-graph: [{ identifier: a, buildspec: a.yml }, { identifier: b, buildspec: b.yml, depend-on: [a] }] }",
            None,
        ),
        (
            "batch: { build-matrix: { dynamic: { buildspec: [a.yml, b.yml] } } }",
            None,
        ),
        // Of these each says as much.
        (
            "batch: { build-list: [{ identifier: a, buildspec: a.yml }] }\nphases: {}",
            None,
        ),
        (
            "batch: { build-list: [{ identifier: a, buildspec: a.yml }] }\nphases:",
            None,
        ),
        ("batch:", Some(none)),
        (
            "batch: { build-list: [{ identifier: b, buildspec: b.yml }, { identifier: a }] }",
            Some(a.as_str()),
        ),
        (
            "batch: { build-matrix: { dynamic: { env: { image: [i] } } } }",
            Some(second.as_str()),
        ),
        (
            "batch: { build-fanout: { parallelism: 2 } }",
            Some(shard.as_str()),
        ),
        // What is wrong already is said once.
        (
            "batch: { build-list: [] }",
            Some("2:10: `batch.build-list` names no builds"),
        ),
    ] {
        let text = format!("version: 0.2\n{rest}\n");
        check(&text, &expected.into_iter().collect::<Vec<_>>());
        if expected.is_none() {
            assert!(Buildspec::parse(&text, "b").unwrap().0.is_batch_only(), "{text}");
        }
    }
    let both = format!("version: 0.2\n{BUILD}batch: {{ build-list: [{{ identifier: a }}] }}\n");
    assert!(!Buildspec::parse(&both, "b").unwrap().0.is_batch_only());
}

#[test]
fn aliases_are_written_out_within_bounds() {
    let text = "version: 0.2\nx-common: &common\n  commands: &list [one, two]\n  on-failure: CONTINUE\nphases:\n  pre_build: { commands: *list }\n  build:\n    <<: *common\n    on-failure: ABORT\n    finally: *list\n";
    let (spec, warnings) = Buildspec::parse(text, "b").unwrap();
    assert_eq!(warnings.len(), 1, "AWS ignores the key: {warnings:?}");
    let [pre, build] = spec.phases.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!(
        (pre.commands.as_slice(), build.commands.as_slice()),
        (
            &["one".to_owned(), "two".to_owned()][..],
            &["one".to_owned(), "two".to_owned()][..]
        )
    );
    assert_eq!((&build.on_failure, build.finally.len()), (&OnFailure::Abort, 2));
    check("a: &a [*a]", &["1:8: the alias stands for what it is in itself"]);
    let bomb: String = (1..12)
        .map(|level| {
            format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{}", level - 1); 10].join(", ")
            )
        })
        .collect();
    let Err(problems) = Buildspec::parse(&format!("a0: &a0 [lol]\n{bomb}"), "b") else {
        panic!("it is too large")
    };
    assert!(
        problems[0].message.contains("too large with its aliases"),
        "{problems:?}"
    );
    let long = "x".repeat(300_000);
    let Err(problems) = Buildspec::parse(&format!("a: &a {long}\nb: [*a, *a, *a, *a]\n"), "b") else {
        panic!("it is too large")
    };
    assert!(
        problems[0].message.contains("too large with its aliases"),
        "{problems:?}"
    );
}
