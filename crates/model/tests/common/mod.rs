//! Where the recorded cases are, when they are there.

use std::path::{Path, PathBuf};

/// The folder of recorded cases, or `None` after saying that the test is skipped.
pub fn conformance(part: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/conformance")
        .join(part);
    if !folder.is_dir() {
        println!("skipped: there are no recorded cases at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// Every file of a folder whose name ends so, sorted.
#[allow(dead_code, reason = "each test file uses a part")]
pub fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            endings.iter().any(|ending| name.ends_with(ending))
        })
        .collect();
    files.sort();
    files
}

#[allow(dead_code, reason = "each test file uses a part")]
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
