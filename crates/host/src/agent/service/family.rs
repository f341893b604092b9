//! The processes of one service: what its main process started, and what carries the mark of its start. Programs may
//! wipe their environment, or leave their parent; seldom both, and their session stays.

use std::{collections::HashSet, fs};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process, as `/proc` shows it.
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    /// In ticks since the machine began: tells two processes of one number apart.
    started: u64,
}

/// A process that was seen, and is signalled only while it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub pid: i32,
    started: u64,
}

impl Member {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let started = look(pid)?.started;
        Some(Self { pid, started })
    }

    /// Has another process its number?
    pub fn is_another(self) -> bool {
        look(self.pid).is_some_and(|process| process.started != self.started)
    }

    #[cfg(test)]
    pub fn earlier(self) -> Self {
        Self {
            started: self.started - 1,
            ..self
        }
    }

    pub fn lives(self) -> bool {
        look(self.pid).is_some_and(|process| process.started == self.started)
    }

    pub fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The family of processes that live or lived, of the sessions that they led and joined, and of an invocation.
pub fn family(roots: &[i32], sessions: &[i32], invocation: &str) -> Vec<Member> {
    let own = std::process::id().cast_signed();
    let all: Vec<Process> = all();
    let foreign = |session: i32| session <= 1 || session == look(own).map_or(0, |own| own.session);
    let is_own = |session: i32| sessions.contains(&session) && !foreign(session);
    let mut inside: HashSet<i32> = all
        .iter()
        .filter(|process| {
            roots.contains(&process.pid)
                || roots.contains(&process.session)
                || is_own(process.session)
                || carries(process.pid, invocation)
        })
        .map(|process| process.pid)
        .collect();
    loop {
        let before = inside.len();
        for process in &all {
            if process.parent > 1 && process.parent != own && inside.contains(&process.parent) {
                inside.insert(process.pid);
            }
        }
        if inside.len() == before {
            break;
        }
    }
    all.iter()
        .filter(|process| process.pid > 1 && process.pid != own && inside.contains(&process.pid))
        .map(|process| Member {
            pid: process.pid,
            started: process.started,
        })
        .collect()
}

/// Processes that lost their parent after this moment, and that no invocation claims: the daemons that a program left.
pub fn orphans_since(moment: u64) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let mut found: Vec<i32> = all()
        .iter()
        .filter(|process| process.started >= moment && process.pid != own)
        .filter(|process| process.parent == own || process.parent == 1)
        .filter(|process| !environment(process.pid).starts_with(b"INVOCATION_ID=") && !marked(process.pid))
        .map(|process| process.pid)
        .collect();
    found.sort_unstable();
    found
}

/// Now, in ticks since the machine began.
pub fn ticks() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    // A hundred a second, on every Linux that programs can see.
    (seconds * 100.0) as u64
}

pub fn session_of(pid: i32) -> Option<i32> {
    look(pid).map(|process| process.session)
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn look(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let is_dead = matches!(fields.first(), Some(&"Z" | &"X"));
    let process = Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    };
    (!is_dead).then_some(process)
}

fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

fn marked(pid: i32) -> bool {
    environment(pid)
        .split(|byte| *byte == 0)
        .any(|variable| variable.starts_with(b"INVOCATION_ID="))
}

fn carries(pid: i32, invocation: &str) -> bool {
    let mark = format!("INVOCATION_ID={invocation}");
    environment(pid)
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_family_is_found_by_its_mark_and_its_children() {
        let mut child = Command::new("sh")
            .args(["-c", "env -i sleep 1000 & wait"])
            .env("INVOCATION_ID", "of-this-test")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let found = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let found = family(&[], &[], "of-this-test");
            (found.len() == 2).then_some(found)
        });
        let found = found.expect("the shell and its child");
        assert!(family(&[], &[], "of-another").is_empty());
        found.iter().for_each(|member| member.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(
            found
                .iter()
                .all(|member| member.pid != child.id().cast_signed() || !member.lives())
        );
    }
}
