//! One agent takes over from another in the same process, while everything that it supervises goes on: the new program
//! is executed over the old one, and finds what it must know in a file that is only in memory.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
};

use super::services::Legacy;

/// Names the file's number for the next agent.
const VARIABLE: &str = "VEND_AGENT_LEGACY";

/// Longest legacy that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Executes the next agent, with these arguments. Comes back only when that failed, and then nothing has changed.
pub fn execute(program: &Path, arguments: &[OsString], legacy: &Legacy) -> io::Error {
    match prepare(legacy) {
        Ok(file) => {
            let number = file.as_raw_fd().to_string();
            let error = Command::new(program).args(arguments).env(VARIABLE, number).exec();
            for output in legacy.outputs() {
                // They close again with the next program, as all others.
                let _ = keep_open(output, false);
            }
            error
        }
        Err(error) => error,
    }
}

fn prepare(legacy: &Legacy) -> io::Result<File> {
    let mut file = File::from(memfd_create("vend-agent-legacy", MemfdFlags::empty())?);
    file.write_all(&serde_json::to_vec(legacy)?)?;
    file.rewind()?;
    for output in legacy.outputs() {
        keep_open(output, true)?;
    }
    Ok(file)
}

/// What the agent before this one left, if there was one.
pub fn legacy() -> Option<Legacy> {
    let number: i32 = env::var(VARIABLE).ok()?.parse().ok()?;
    let mut text = Vec::new();
    let file = File::from(taken(number)?);
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[allow(unsafe_code)]
fn keep_open(number: i32, open: bool) -> io::Result<()> {
    // SAFETY: the number is of a file that a service's supervisor holds open while this runs.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = if open { FdFlags::empty() } else { FdFlags::CLOEXEC };
    Ok(fcntl_setfd(file, flags)?)
}

/// An open file that was left under a number. It closes with the next program unless it is left again.
#[allow(unsafe_code)]
pub fn taken(number: i32) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: only looked at: a number that is of no open file is refused by the kernel.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).ok()?;
    // What this process opened itself closes on execution: only what was left for it does not.
    if flags.contains(FdFlags::CLOEXEC) {
        return None;
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it was left open for this process, which takes each number once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
