//! One agent at a time works in a directory. Who comes second is told who was first, and waits for nobody.

use std::{
    fs::{self, File, TryLockError},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Error;

/// A directory is this process's for as long as this is there.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "the lock goes with the file")] File);

/// Takes the directory of a machine's agent for this process.
///
/// # Errors
///
/// Another process has it, or it cannot be written to.
pub fn take(state: &Path) -> Result<Hold, Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path(state))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let (state, holder) = (state.to_owned(), said(state));
            return Err(Error::Held { state, holder });
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(Hold(file))
}

/// Whoever has a directory: its process's id, once it has said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

impl Holder {
    /// What ends it.
    pub fn end(self) -> String {
        match self.0 {
            Some(pid) => format!("kill {pid}, or stop the service that runs it"),
            None => "stop the service that runs it".to_owned(),
        }
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("agent.lock")
}

fn said(state: &Path) -> Holder {
    let text = fs::read_to_string(path(state)).unwrap_or_default();
    Holder(text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_of_a_directory_is_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("builder");
        let first = take(&state).unwrap();
        let own = Holder(Some(std::process::id()));
        let refused = take(&state).unwrap_err();
        assert!(
            matches!(&refused, Error::Held { holder, .. } if *holder == own),
            "{refused:?}"
        );
        let said = refused.to_string();
        assert!(said.contains(&std::process::id().to_string()), "{said}");
        drop(first);
        take(&state).unwrap();
    }
}
