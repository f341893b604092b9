//! The recordings, as the tests that use them read them.

#![allow(dead_code, reason = "each test uses its part")]

use asl::{Flavour, Machine};
use serde_json::Value;
use std::path::PathBuf;

/// What is in a folder of the recordings; `None`, said aloud, where they are not.
pub fn cases(folder: &str) -> Option<Vec<Value>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance/asl");
    let folder = PathBuf::from(root).join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return None;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Some(paths.iter().map(read).collect())
}

/// The machine of a recorded execution, or what is wrong with it.
pub fn machine(case: &Value) -> Result<Machine, String> {
    let flavour = match case["type"].as_str() {
        Some("EXPRESS") => Flavour::Express,
        _ => Flavour::Standard,
    };
    Machine::parse_as(flavour, &case["definition"].to_string()).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}
