//! How large an image may be. Its manifest says only how large its layers are packed.

use super::Error;

/// The most that an image may hold, all its layers together, as they are unpacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub entries: u64,
    pub bytes: u64,
}

impl Limits {
    pub const IMAGE: Self = Self {
        entries: 1_000_000,
        bytes: 16 << 30,
    };

    /// All of it is left.
    pub fn whole(self) -> Left {
        Left {
            of: self,
            entries: self.entries,
            bytes: self.bytes,
        }
    }
}

/// What the layers of an image that were not looked at yet may hold, whether they are here already or not.
#[derive(Debug)]
pub(crate) struct Left {
    of: Limits,
    entries: u64,
    bytes: u64,
}

impl Left {
    pub(crate) fn take(&mut self, entries: u64, bytes: u64) -> Result<(), Error> {
        let left = self
            .entries
            .checked_sub(entries)
            .zip(self.bytes.checked_sub(bytes));
        let Some((entries, bytes)) = left else {
            return Err(Error::TooLarge(format!(
                "it has more than {} files or {} GiB when it is unpacked",
                self.of.entries,
                self.of.bytes >> 30
            )));
        };
        (self.entries, self.bytes) = (entries, bytes);
        Ok(())
    }
}
