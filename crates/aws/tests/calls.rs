//! The list of calls is what the code can do, and no more; and the page for operators says all of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path};

use aws::call::{ALL, RECEIVER};

/// The text of all sources but the list itself.
fn sources(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.file_name().is_some_and(|name| name != "call.rs") {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_call_of_the_list_is_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    let receiver = root.join("../vend/src/receiver");
    sources(&receiver, &mut code);
    code.push_str(&fs::read_to_string(receiver.with_extension("rs")).unwrap());
    let list = fs::read_to_string(root.join("src/call.rs")).unwrap();
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter_map(|line| line.split_once(" ="))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    assert_eq!(names.len(), ALL.len() + RECEIVER.len());
    for name in names {
        assert!(
            code.contains(&format!("call::{name}")),
            "{name} is in the list, and nobody calls it"
        );
    }
}

#[test]
fn the_page_for_operators_has_every_action() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/aws.md")).unwrap();
    let table = page.split("## What the commands call").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let said: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(action, _)| action.to_owned())
        .collect();
    let made: BTreeSet<String> = ALL.iter().filter_map(|call| call.action()).collect();
    assert_eq!(said, made, "the table would be:\n{}", expected());
}

/// The table as the list has it.
fn expected() -> String {
    let mut rows: Vec<String> = ALL
        .iter()
        .filter_map(|call| Some(format!("| `{}` | {} |", call.action()?, call.why)))
        .collect();
    rows.sort();
    rows.dedup();
    rows.join("\n")
}
