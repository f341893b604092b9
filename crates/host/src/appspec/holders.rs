//! Who has the end of a pipe open that a script left behind.

use std::{fs, os::fd::AsFd, path::Path};

use crate::logs::Mask;

/// So many are named.
const NAMED: usize = 3;

/// Characters of a command that are shown.
const COMMAND: usize = 120;

/// A pipe as its open files are called in `/proc` (proc_pid_fd(5)): both of its ends have the same name.
pub type Pipe = String;

/// `None` of what is not open any more.
pub fn identity(pipe: &impl AsFd) -> Option<Pipe> {
    let stat = rustix::fs::fstat(pipe).ok()?;
    Some(format!("pipe:[{}]", stat.st_ino))
}

/// The first processes that have it open, beside this one, with their commands: `pid 7 (sleep 1000)`.
pub fn of(pipe: &Pipe, mask: &Mask) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = numbers.filter(|pid| *pid != std::process::id());
    let holders = others.filter(|pid| has(Path::new(&format!("/proc/{pid}/fd")), pipe));
    holders
        .take(NAMED)
        .map(|pid| format!("pid {pid} ({})", command(pid, mask)))
        .collect()
}

/// By their names: to look at what they lead to may take for ever, where that is on a server that is away.
fn has(files: &Path, pipe: &Pipe) -> bool {
    let files = fs::read_dir(files).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|name| name == Path::new(pipe))
}

/// The words of its command line on one line, or its name where it has none. Masked as a whole: half a secret is not known as one.
fn command(pid: u32, mask: &Mask) -> String {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let words = Some(read("cmdline")).filter(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| read("comm"));
    let text = mask
        .conceal(&String::from_utf8_lossy(&words))
        .replace(|c: char| c.is_control(), " ");
    text.trim().chars().take(COMMAND).collect()
}
