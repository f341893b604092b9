//! What the guide prints is what a reader gets: its commands are run in a copy of the example that it names.

use std::{path::Path, process::Command};

const GUIDE: &str = include_str!("../../../../docs/guides/state-machines.md");

/// A fenced block: its language and its lines.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let (mut found, mut open) = (Vec::new(), None::<(&str, String)>);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => open = Some((language, String::new())),
            (None, Some((_, inside))) => {
                inside.push_str(line);
                inside.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

fn copied(from: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}

/// Runs a block as a shell would; gives what it prints.
fn run(script: &str, directory: &Path) -> String {
    let own = Path::new(env!("CARGO_BIN_EXE_vend")).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(directory)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_guide_prints_what_a_reader_gets() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/order");
    let directory = copied(&example);
    // What comes after needs a platform.
    let (own, _) = GUIDE.split_once("\n## On a platform").unwrap();
    let blocks = blocks(own);
    let (mut commands, mut compared) = (0, 0);
    for (at, (language, script)) in blocks.iter().enumerate() {
        match *language {
            "sh" => {
                let printed = run(script, directory.path());
                commands += 1;
                if let Some(("text", wanted)) = blocks.get(at + 1).map(|(kind, text)| (*kind, text)) {
                    assert_eq!(&printed, wanted, "{script}");
                    compared += 1;
                }
            }
            "json" => {
                let mocks = std::fs::read_to_string(example.join("mocks.json")).unwrap();
                assert_eq!(&mocks, script, "mocks.json");
            }
            _ => {}
        }
    }
    assert!(
        commands >= 4 && compared >= 3,
        "{commands} commands, {compared} compared"
    );
    assert!(directory.path().join("order.svg").exists());
}
