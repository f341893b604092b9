//! The receiver's program: this one, unless another is named, packed as Lambda takes it.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use ::aws::synth;
use memchr::memmem;
use model::Digest;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::Failure;

/// Bytes of a function that Lambda takes, unpacked.
const MAX_BYTES: usize = 250 << 20;

/// A program for Linux.
pub struct Program {
    path: PathBuf,
    bytes: Vec<u8>,
    /// As Lambda calls it.
    architecture: &'static str,
}

impl Program {
    /// Reads the program, or this one.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let own = |path: &Path| path.to_path_buf();
        let path = match path {
            Some(path) => own(path),
            None => std::env::current_exe().map_err(|error| {
                Failure::failed("this program does not know where it lies").cause(error.to_string())
            })?,
        };
        let bytes = fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
        let architecture = architecture(&bytes);
        let refuse = |why: String| {
            Failure::refused(format!("{} cannot be the receiver", path.display()))
                .cause(why)
                .next("the same with --receiver FILE, a release build of vend for Linux")
        };
        if bytes.len() > MAX_BYTES {
            return Err(refuse(format!(
                "it has {} bytes, and Lambda takes {MAX_BYTES}",
                bytes.len()
            )));
        }
        let architecture = architecture
            .ok_or_else(|| refuse("it is no program for Linux on x86-64 or 64-bit ARM".to_owned()))?;
        if !is_vend(&bytes) {
            return Err(refuse("it is not vend".to_owned()));
        }
        Ok(Self {
            path,
            bytes,
            architecture,
        })
    }

    /// Where it goes in the bucket of templates: another program is another function.
    pub fn key(&self) -> String {
        let digest = Digest::of(&self.bytes).hex();
        format!("receiver/{}-{}.zip", &digest[..16], self.architecture)
    }

    /// Says in the pipeline's template which program it is, and from which files it makes stacks of branches.
    pub fn stand_in(&self, made: &mut synth::Output, files: &str) {
        made.receive(&self.key(), self.architecture, files);
    }

    /// The archive; the same program gives the same bytes.
    pub fn zip(&self) -> Result<Vec<u8>, Failure> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o755);
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let packed = (|| {
            archive.start_file(crate::receiver::NAME, options)?;
            archive.write_all(&self.bytes)?;
            archive.finish()
        })();
        let failed = |error: zip::result::ZipError| {
            Failure::failed(format!("{} cannot be packed", self.path.display())).cause(error.to_string())
        };
        packed.map(Cursor::into_inner).map_err(failed)
    }
}

/// Does the program ask for what only the receiver is given? No other handler could answer what comes to it.
fn is_vend(bytes: &[u8]) -> bool {
    memmem::find(bytes, crate::receiver::PREVIEWS.as_bytes()).is_some()
}

/// What a program runs on, by its ELF header: `e_machine` of the System V ABI.
fn architecture(bytes: &[u8]) -> Option<&'static str> {
    let header = bytes
        .get(..20)
        .filter(|header| header.starts_with(b"\x7fELF\x02\x01"))?;
    match u16::from_le_bytes([header[18], header[19]]) {
        0x3e => Some("x86_64"),
        0xb7 => Some("arm64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_for_other_machines_are_not_taken() {
        let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
        assert_eq!(architecture(&header), Some("x86_64"));
        header[18] = 0xb7;
        assert_eq!(architecture(&header), Some("arm64"));
        header[18] = 0x03;
        assert_eq!(architecture(&header), None);
        assert_eq!(architecture(b"#!/bin/sh\necho 1\necho 2\n"), None);
        assert_eq!(architecture(b"\x7fELF"), None);
    }

    #[test]
    fn another_program_is_not_the_receiver() {
        assert!(!is_vend(&fs::read("/bin/true").unwrap()));
    }
}
