//! Keys of caches that need a shell: all that the runner does when its job has some.

use std::io::{self, Write};

use super::{Runner, complaint::Complaint};
use crate::build::{console::bounded, protocol::Event};

/// No key is longer, in characters: who asked has its own, smaller limit.
const KEY: usize = 4096;

impl<W: Write> Runner<W> {
    /// Expands each key in a shell of its own and tells what came of it.
    pub(super) fn expand_keys(mut self) -> io::Result<()> {
        let keys = std::mem::take(&mut self.job.keys);
        let expanded = keys.iter().map(|key| self.key(key)).collect();
        self.frames.event(&Event::Expanded(expanded))
    }

    /// How a command within a text ended is known to nobody. One that complains has failed: a key that lacks a part would
    /// name another cache, for ever.
    fn key(&mut self, key: &str) -> Result<String, String> {
        let mut complaint = Complaint::new(&self.mask);
        self.shell = None;
        let expanded = self.expand(key, &mut |bytes| {
            complaint.hear(bytes);
            Ok(())
        });
        let expanded = expanded.map_err(|error| format!("cannot be read by a shell: {error}"))?;
        match (expanded, complaint.told().as_str()) {
            (Some(key), "") => Ok(bounded(key, KEY)),
            (None, "") => Err("ends the shell that reads it".to_owned()),
            (_, complaint) => Err(format!("has a command that complains: {complaint}")),
        }
    }
}
