//! Reading is total: whatever the bytes are, there is an answer, and soon.

use model::{
    spec::{
        App, Appspec, Buildspec, CheckReport, Checks, Files, check_appspec, check_buildspec, check_checks,
        check_tree, decode, procfile,
    },
    webhook::{Provider, explain},
};
use proptest::prelude::*;

fn all(bytes: &[u8]) {
    if let Ok(text) = decode("f", bytes) {
        let _ = App::parse(text, "f", &|_| true);
        let _ = Buildspec::parse(text, "f");
        let _ = Appspec::parse(text, "f");
        let _ = Checks::parse(text, "f");
        let _ = procfile(text, "f");
    }
    for provider in [Provider::Github, Provider::Gitlab] {
        for (name, event) in [("X-GitHub-Event", "push"), ("X-Gitlab-Event", "Push Hook")] {
            let headers = [(name.to_owned(), event.to_owned())];
            let _ = explain(provider, &headers, bytes, None);
        }
    }
}

/// Pieces of the files' own language, so that random files get past the first line.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("app: x\n"),
        Just("host:\n"),
        Just("  "),
        Just("    "),
        Just("- "),
        Just(": "),
        Just("env: "),
        Just("phases:\n"),
        Just("version: 0.2\n"),
        Just("version: 0.0\nos: linux\n"),
        Just("hooks:\n"),
        Just("permissions:\n"),
        Just("mode: 0755\n"),
        Just("acls: ['u:a:7', ':::']\n"),
        Just("range: s0-s1:c0.c3,c1\n"),
        Just("context: {type: t, "),
        Just("}"),
        Just("{"),
        Just("["),
        Just("]"),
        Just("|\n"),
        Just(">-\n"),
        Just("\""),
        Just("'"),
        Just("&a "),
        Just("*a"),
        Just("!!str "),
        Just("? "),
        Just("# c\n"),
        Just("\t"),
        Just("\r\n"),
        Just("---\n"),
        Just("...\n"),
        Just("%YAML 1.1\n"),
        Just("é"),
        Just("\u{feff}"),
        Just("1h30m"),
        Just("{{secret:x}}"),
        Just("environments:\n"),
        Just("scaling: {min: 1}\n"),
        Just("port: 99\n"),
        Just("tcp:80:\n"),
        Just("~\n"),
        Just("2024-01-01"),
        Just("1:30:00"),
        Just("0x"),
        Just("-"),
        Just("."),
        Just(","),
        Just("\u{0}"),
        Just("\u{2028}"),
    ]
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        all(&bytes);
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        all(text.as_bytes());
    }

    #[test]
    fn any_pieces(pieces in proptest::collection::vec(piece(), 0..60)) {
        all(pieces.concat().as_bytes());
    }
}

#[test]
fn hostile_files_get_one_clear_answer() {
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x]\n");
        for i in 1..50 {
            text += &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1);
        }
        text
    };
    let keys = |count: usize| (0..count).map(|i| format!("k{i}: v\n")).collect::<String>();
    let cases: Vec<(String, &str)> = vec![
        (bomb, "alias"),
        ("[".repeat(500_000), "nests deeper"),
        ("{a: ".repeat(200_000), "nests deeper"),
        ("- ".repeat(500_000), "nests deeper"),
        ("? ".repeat(500_000), ""),
        ("a: ".repeat(300_000), ""),
        (format!("app: {}", "x".repeat(10 << 20)), "too large"),
        (format!("app: {}", "x".repeat(1_000_000)), "not a name"),
        (format!("app: \"{}", "\\x41".repeat(250_000)), ""),
        (
            "[a, ".repeat(10) + &"a, ".repeat(340_000),
            "more than 100000 values",
        ),
        (keys(60_000), ""),
        (
            "app: x\nhost:\n".to_owned() + &"\t".repeat(100_000) + "port: 1",
            "a tab",
        ),
        ("&a ".repeat(300_000), ""),
        ("!a ".repeat(300_000), ""),
        ("# ".repeat(500_000), ""),
        ("\n".repeat(1_000_000), ""),
        ("a\n".repeat(500_000), ""),
        ("'".repeat(1_000_000), ""),
        (format!("app: |\n{}", " \n".repeat(500_000)), ""),
        (
            "version: 0.0\nos: linux\nhooks:\n".to_owned()
                + &(0..40_000)
                    .map(|i| format!(" e{i}: [{{location: x}}]\n"))
                    .collect::<String>()
                    .chars()
                    .take(1_000_000)
                    .collect::<String>(),
            "",
        ),
        (
            "version: 0.0\nos: linux\npermissions: [{object: a, context: {type: t, range: 's0:".to_owned()
                + &"c0.c1023,".repeat(100_000)
                + "'}}]",
            "",
        ),
    ];
    for (text, expected) in cases {
        let start = &text[..text.floor_char_boundary(40)];
        let problems = App::parse(&text, "vend.yaml", &|_| true).unwrap_err();
        assert!(problems.len() <= 101, "{start}: {}", problems.len());
        assert!(
            problems.iter().any(|problem| problem.message.contains(expected)),
            "{start}: {:?}",
            &problems[..1]
        );
        assert!(problems[0].to_string().len() < 2_000, "{start}");
        let _ = Buildspec::parse(&text, "b");
        let _ = Appspec::parse(&text, "a");
        let _ = Checks::parse(&text, "c");
    }
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let report = check_buildspec("b.yml", b"version: 0.2\nphases: \xff\xfe\n");
    assert_eq!(
        report.problems[0].to_string(),
        "b.yml:2:9: the file is not UTF-8: byte 0xff (save it as UTF-8)"
    );
    let twins: [fn(&str, &[u8]) -> CheckReport; 3] = [check_buildspec, check_appspec, check_checks];
    for check in twins {
        assert!(!check("f", b"\xff").ok);
        assert_eq!(check("f", b"\xff").problems.len(), 1);
    }
}

struct Tree(Vec<(&'static str, &'static str)>);

impl Files for Tree {
    fn exists(&self, path: &camino::Utf8Path) -> bool {
        self.0
            .iter()
            .any(|(name, _)| *name == path || name.starts_with(&format!("{path}/")))
    }

    fn read(&self, path: &camino::Utf8Path) -> Option<Vec<u8>> {
        self.0
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| text.as_bytes().to_vec())
    }
}

#[test]
fn scripts_with_lines_of_windows_are_named() {
    let report = check_tree(&Tree(vec![
        (
            "vend.yaml",
            "app: shop\nimage: { scripts: [bake.sh, good.sh] }\ndeploy: { migrate: { script: migrate.py } }\n",
        ),
        (
            "appspec.yml",
            "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: ops/a.sh\n    - location: good.sh\n  ApplicationStart:\n    - location: ops/a.sh\n    - location: plain.sh\n",
        ),
        ("bake.sh", "#!/bin/sh\r\n"),
        ("good.sh", "#!/bin/sh\necho\r\n"),
        ("migrate.py", "#!/usr/bin/env python3\r\n"),
        ("ops/a.sh", "#!/bin/bash\r\necho\r\n"),
        ("plain.sh", "echo\n"),
    ]));
    let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let told = |file: &str| {
        format!(
            "{file}:1:1: its first line ends with a carriage return, as lines do on Windows, which is taken for a part of the \
             interpreter's name (run `dos2unix` on it, and say `*.sh text eol=lf` in .gitattributes)"
        )
    };
    assert_eq!(found, ["bake.sh", "migrate.py", "ops/a.sh"].map(told));
    assert!(report.ok, "a build may write them anew");
}

#[test]
fn a_buildspec_of_a_batch_alone_is_run_as_one() {
    const BATCH: &str = "version: 0.2\nbatch: { build-list: [{ identifier: a, buildspec: ci/a.yml }] }\n";
    const OWN: &str = "version: 0.2\nphases: { build: { commands: [make] } }\n";
    let idle = "it has a `batch` and no `phases`: as one build it has nothing to run";
    const ONE: &str = "app: shop\n";
    const DIVIDED: &str = "app: shop\nbuild: { batch: true }\n";
    for (vend_yaml, own, expected) in [
        (DIVIDED, OWN, None),
        (
            ONE,
            OWN,
            Some(
                "buildspec.yml: IDLE (write `build: { batch: true }` in vend.yaml, or `phases` in the buildspec)",
            ),
        ),
        (
            DIVIDED,
            BATCH,
            Some(
                "ci/a.yml: IDLE (a build of a batch is not divided again: write `phases`, or name another buildspec for it)",
            ),
        ),
    ] {
        let report = check_tree(&Tree(vec![
            ("vend.yaml", vend_yaml),
            ("Procfile", "web: make\n"),
            ("buildspec.yml", BATCH),
            ("ci/a.yml", own),
        ]));
        let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let expected: Vec<String> = expected.iter().map(|said| said.replace("IDLE", idle)).collect();
        assert_eq!((report.ok, found), (expected.is_empty(), expected));
    }
}

#[test]
fn a_tree_is_checked_whole() {
    let report = check_tree(&Tree(vec![
        ("vend.yaml", "app: shop\nchecks: checks.yml\n"),
        (
            "buildspec.yml",
            "version: 0.2\nphases: { build: { commands: [make] } }\nartifacts: { files: [bin/shop] }\n",
        ),
        (
            "appspec.yml",
            "version: 0.0\nos: linux\nfiles:\n  - { source: /, destination: /srv }\nhooks:\n  ApplicationStart:\n    - location: start.sh\n",
        ),
        ("checks.yml", "port:\n  tcp:8080: { listening: true }\n"),
    ]));
    let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "appspec.yml:7:17: `start.sh` is not in the repository (the build must make it, and its artifacts must hold it)",
            "buildspec.yml: the artifacts do not hold `appspec.yml`, so the revision has no appspec (add `appspec.yml` to `artifacts.files`)",
        ]
    );
    assert!(report.ok);
    assert_eq!(report.spec["app"], "shop");
    assert_eq!(report.spec["buildspec"]["buildspec.yml"]["version"], "0.2");
    assert_eq!(report.spec["appspec"]["appspec.yml"]["os"], "linux");
    assert_eq!(
        report.spec["checks"]["checks.yml"]["port"]["tcp:8080"]["listening"],
        true
    );
    let empty = check_tree(&Tree(vec![]));
    assert_eq!(
        empty.problems[0].to_string(),
        "vend.yaml: there is no `vend.yaml` (write one with at least `app: NAME`)"
    );
    assert!(!empty.ok);
}

#[test]
fn lines_of_a_procfile_are_told_where_it_counts() {
    let told = |more: &[(&'static str, &'static str)]| {
        let mut files = vec![
            ("vend.yaml", "app: shop\n"),
            ("Procfile", "web: run\nworker run\n"),
        ];
        files.extend(more);
        let report = check_tree(&Tree(files));
        assert!(report.ok, "{report:#?}");
        report
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&[]),
        [
            "Procfile:2:1: `worker run` is passed over: it has no `:` after a name \
          (a process is a line such as `web: ./start.sh`; a comment begins with `#`)"
        ]
    );
    // Nobody reads it where there is an appspec.
    let none: [String; 0] = [];
    assert_eq!(told(&[("appspec.yml", "version: 0.0\nos: linux\n")]), none);
}

#[test]
fn hooks_around_traffic_that_no_machine_ever_gets_are_told() {
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: run.sh\n  AfterAllowTraffic:\n    - location: run.sh\n";
    let told = |placement: &'static str| {
        let report = check_tree(&Tree(vec![
            ("vend.yaml", placement),
            ("appspec.yml", appspec),
            ("run.sh", ""),
        ]));
        assert!(report.ok, "{report:#?}");
        let all = report.problems.iter().map(ToString::to_string);
        all.collect::<Vec<_>>()
    };
    assert_eq!(
        told(
            "app: shop\nplacement: { registered: { role: web } }\nenvironments: { dev: { branch: dev }, next: { branch: next } }\n"
        ),
        [
            "appspec.yml:6:3: AfterAllowTraffic never runs on registered machines: the platform's load balancer sends them \
             nothing (tell a load balancer of yours in ApplicationStop and ValidateService)"
        ]
    );
    assert_eq!(told("app: shop\n"), [""; 0]);
}
