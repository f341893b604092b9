//! Who has the end of a pipe open that a script left behind.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::Path,
};

/// So many are named.
const NAMED: usize = 3;

/// Characters of a command that are shown.
const COMMAND: usize = 120;

/// A pipe, by its device and inode: both of its ends have the same.
pub type Pipe = (u64, u64);

/// `None` of what is not open any more.
pub fn identity(pipe: &impl AsFd) -> Option<Pipe> {
    let stat = rustix::fs::fstat(pipe).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The first processes that have it open, beside this one, with their commands: `pid 7 (sleep 1000)`.
pub fn of(pipe: Pipe) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = numbers.filter(|pid| *pid != std::process::id());
    let holders = others.filter(|pid| has(Path::new(&format!("/proc/{pid}/fd")), pipe));
    holders
        .take(NAMED)
        .map(|pid| format!("pid {pid} ({})", command(pid)))
        .collect()
}

fn has(files: &Path, pipe: Pipe) -> bool {
    let files = fs::read_dir(files).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::metadata(file.path()).ok())
        .any(|metadata| (metadata.dev(), metadata.ino()) == pipe)
}

/// The words of its command line on one line, or its name where it has none.
fn command(pid: u32) -> String {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let words = Some(read("cmdline")).filter(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| read("comm"));
    let text = String::from_utf8_lossy(&words).replace(|c: char| c.is_control(), " ");
    text.trim().chars().take(COMMAND).collect()
}
