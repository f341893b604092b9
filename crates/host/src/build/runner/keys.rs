//! Keys of caches that need a shell: all that the runner does when its job has some.

use std::io::{self, Write};

use super::Runner;
use crate::build::{console::bounded, protocol::Event};

/// So much of what commands complain about is told, in bytes.
const COMPLAINT: usize = 400;
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
        let mut complaint = Vec::new();
        self.shell = None;
        let expanded = self.expand(key, &mut |bytes| {
            let most = COMPLAINT.saturating_sub(complaint.len());
            complaint.extend_from_slice(&bytes[..bytes.len().min(most)]);
            Ok(())
        });
        let expanded = expanded.map_err(|error| format!("cannot be read by a shell: {error}"))?;
        let complaint = String::from_utf8_lossy(&complaint);
        match (expanded, complaint.trim()) {
            (Some(key), "") => Ok(bounded(key, KEY)),
            (None, "") => Err("ends the shell that reads it".to_owned()),
            (_, complaint) => Err(format!("has a command that complains: {complaint}")),
        }
    }
}
