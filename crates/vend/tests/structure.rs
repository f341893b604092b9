//! The arrows between crates, the licences of what we depend on, and the size of files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, process::Command};

use serde_json::Value;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().unwrap()
}

/// What each crate of ours may depend on, tests included.
const ARROWS: [(&str, &[&str]); 10] = [
    ("jsonata", &[]),
    ("asl", &["jsonata"]),
    ("model", &[]),
    ("store", &["model"]),
    ("host", &["model"]),
    ("edge", &["model"]),
    ("aws", &["asl", "jsonata", "model"]),
    ("engine", &["asl", "model", "store"]),
    (
        "vend",
        &[
            "asl", "jsonata", "model", "store", "engine", "host", "edge", "aws",
        ],
    ),
    ("xtask", &[]),
];

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let metadata = metadata();
    let ours: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for package in packages(&metadata)
        .iter()
        .filter(|package| package["source"].is_null())
    {
        let name = package["name"].as_str().unwrap();
        let allowed = ARROWS.iter().find(|(own, _)| *own == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} is not in the architecture"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let forbidden = ours.contains(&dependency) && !allowed.contains(&dependency);
            assert!(!forbidden, "{name} must not know {dependency}");
        }
    }
}

#[test]
fn the_pure_crates_have_no_effects_to_call() {
    let metadata = metadata();
    for package in packages(&metadata)
        .iter()
        .filter(|package| package["source"].is_null())
    {
        if !["jsonata", "asl", "model"].contains(&package["name"].as_str().unwrap()) {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let effectful = [
                "tokio",
                "rusqlite",
                "hyper",
                "axum",
                "rustix",
                "libc",
                "getrandom",
            ]
            .contains(&name);
            let is_test = dependency["kind"] == "dev";
            assert!(
                is_test || !effectful,
                "{} is pure and must not know {name}",
                package["name"]
            );
        }
    }
}

#[test]
fn every_licence_goes_with_apache_2() {
    const ALLOWED: [&str; 12] = [
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "MIT",
        "MIT-0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "Unlicense",
        "CC0-1.0",
        "BSL-1.0",
    ];
    let metadata = metadata();
    for package in packages(&metadata) {
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        let satisfied = licence.split(" AND ").all(|part| {
            let part = part.trim_matches(['(', ')', ' ']);
            part.split(" OR ")
                .any(|one| ALLOWED.contains(&one.trim_matches(['(', ')', ' '])))
        });
        assert!(satisfied, "{} has the licence {licence}", package["name"]);
    }
}

#[test]
fn files_are_rooms_not_halls() {
    let mut large = Vec::new();
    visit(&root().join("crates"), &mut |path, text| {
        let lines = text.lines().count();
        if lines > 600 {
            large.push(format!("{} ({lines} lines)", path.display()));
        }
    });
    assert!(large.is_empty(), "over 600 lines: {large:?}");
}

fn visit(directory: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
