//! What a bake says while it goes on.

use std::io::Write as _;

use model::port::{Baked, Fault, LogRef};

use super::Error;
use crate::{
    base::{passwords, proxies},
    logs::{self, Mask},
};

const LOG_BYTES: u64 = 32 << 20;

/// The log of a bake: begun with its first line.
pub(super) struct Journal {
    pub logs: logs::Directory,
    pub name: LogRef,
    pub writer: Option<logs::Writer>,
}

impl Journal {
    pub fn new(logs: &logs::Directory, name: LogRef) -> Self {
        Self {
            logs: logs.clone(),
            name,
            writer: None,
        }
    }

    pub fn writer(&mut self) -> Result<&mut logs::Writer, Error> {
        if self.writer.is_none() {
            self.writer = Some(self.logs.append(&self.name, Self::mask(), LOG_BYTES)?);
        }
        Ok(self.writer.as_mut().expect("it was just opened"))
    }

    /// Scripts see the machine's proxies with their logins, and `env` in one says them.
    fn mask() -> Mask {
        let passwords = passwords(&proxies());
        Mask::new(passwords.iter().map(String::as_str))
    }

    pub fn line(&mut self, text: &str) {
        // A log that cannot be written does not stop what it is about.
        let _ = self.writer().map(|writer| writeln!(writer, "[vend] {text}"));
    }

    /// Its name when anything was written.
    pub fn end(self) -> Option<LogRef> {
        let writer = self.writer?;
        if let Err(error) = writer.end() {
            tracing::warn!(log = %self.name, error = logs::chain(&error), "the end of a log is not marked");
        }
        Some(self.name)
    }
}

/// The answer to a bake, with its log where anything was said.
pub(super) fn finish(baked: Result<Baked, Error>, mut journal: Journal) -> Result<Baked, Fault> {
    match baked {
        Ok(mut baked) => {
            if journal.writer.is_some() {
                journal.line(&format!("the image is {}", baked.image.short()));
            }
            baked.log = journal.end();
            Ok(baked)
        }
        Err(error) => {
            journal.line(&logs::chain(&error));
            let fault = Fault::from(error);
            Err(match journal.end() {
                Some(log) => fault.evidence(log),
                None => fault,
            })
        }
    }
}
