//! Logs that have ended, compressed, and still read by offset.
//!
//! The file is zstd's seekable format: frames that stand alone, and behind them a table of their sizes in a frame that other
//! tools skip. `zstd -dc` shows the whole; here only the frame is read that an offset is in.
//! <https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};

/// What the name of a log ends with when it is compressed. No log's own name has a tilde.
pub(super) const SUFFIX: &str = "~.zst";
/// So much of a log is one frame.
const FRAME_BYTES: usize = 256 << 10;
/// A log that is shorter stays as it is: a file takes a block in any case.
const SHORT_BYTES: u64 = 4096;
const LEVEL: i32 = 3;
const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
/// The number of frames, a byte of flags, the magic number.
const FOOTER: u64 = 9;
const ENTRY: u64 = 8;
/// A table of more frames is none of ours.
const FRAMES: u64 = 1 << 20;

pub(super) fn path(plain: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{plain}{SUFFIX}"))
}

/// Puts the compressed log in the place of the plain one. Whoever reads meanwhile reads one or the other.
pub(super) fn compress(plain: &Utf8Path) -> io::Result<()> {
    let mut from = File::open(plain)?;
    let metadata = from.metadata()?;
    if metadata.len() < SHORT_BYTES {
        return Ok(());
    }
    let new = beside(plain);
    let mut to = io::BufWriter::new(File::create(&new)?);
    let mut table = Vec::new();
    let mut block = Vec::with_capacity(FRAME_BYTES);
    loop {
        block.clear();
        if (&mut from).take(FRAME_BYTES as u64).read_to_end(&mut block)? == 0 {
            break;
        }
        let frame = zstd::bulk::compress(&block, LEVEL)?;
        to.write_all(&frame)?;
        table.push((frame.len() as u32, block.len() as u32));
    }
    let size = ENTRY * table.len() as u64 + FOOTER;
    to.write_all(&SKIPPABLE.to_le_bytes())?;
    to.write_all(&u32::try_from(size).map_err(io::Error::other)?.to_le_bytes())?;
    for (compressed, whole) in &table {
        to.write_all(&compressed.to_le_bytes())?;
        to.write_all(&whole.to_le_bytes())?;
    }
    to.write_all(&(table.len() as u32).to_le_bytes())?;
    to.write_all(&[0])?;
    to.write_all(&SEEKABLE.to_le_bytes())?;
    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.set_modified(metadata.modified()?)?;
    file.set_permissions(fs::Permissions::from_mode(0o400))?;
    fs::rename(&new, path(plain))?;
    fs::remove_file(plain)
}

/// Makes a compressed log plain again, for who goes on with it. Nothing to do when it is not compressed.
pub(super) fn expand(plain: &Utf8Path) -> io::Result<()> {
    let kept = match Kept::open(plain) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let new = beside(plain);
    let mut to = File::create(&new)?;
    let mut offset = 0;
    while offset < kept.length {
        let bytes = kept.read(offset, FRAME_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        to.write_all(&bytes)?;
    }
    fs::rename(&new, plain)?;
    fs::remove_file(path(plain))
}

/// Where a file is made that is not there before it is whole. A log's own name does not begin with a dot.
fn beside(plain: &Utf8Path) -> Utf8PathBuf {
    plain.with_file_name(format!(".{}.new", plain.file_name().unwrap_or_default()))
}

/// An open compressed log.
#[derive(Debug)]
pub(super) struct Kept {
    file: File,
    /// Of the plain log, in bytes.
    pub length: u64,
    /// Of each frame: where it begins in the file and in the log, and how long it is in both.
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    at: u64,
    offset: u64,
    compressed: u32,
    whole: u32,
}

impl Kept {
    pub fn open(plain: &Utf8Path) -> io::Result<Self> {
        Self::read_table(File::open(path(plain))?)
    }

    fn read_table(mut file: File) -> io::Result<Self> {
        let foreign = || io::Error::new(io::ErrorKind::InvalidData, "not a compressed log");
        let total = file.metadata()?.len();
        let footer = total.checked_sub(FOOTER).ok_or_else(foreign)?;
        file.seek(SeekFrom::Start(footer))?;
        let mut bytes = [0; FOOTER as usize];
        file.read_exact(&mut bytes)?;
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes are a number"));
        let count = u64::from(number(&bytes[..4]));
        if number(&bytes[5..]) != SEEKABLE || bytes[4] != 0 || count > FRAMES {
            return Err(foreign());
        }
        let start = footer.checked_sub(count * ENTRY).ok_or_else(foreign)?;
        file.seek(SeekFrom::Start(start))?;
        let mut table = vec![0; (count * ENTRY) as usize];
        file.read_exact(&mut table)?;
        let (mut at, mut offset) = (0, 0);
        let mut frames = Vec::new();
        for entry in table.chunks_exact(ENTRY as usize) {
            let (compressed, whole) = (number(&entry[..4]), number(&entry[4..]));
            if whole as usize > FRAME_BYTES || at + u64::from(compressed) > start {
                return Err(foreign());
            }
            frames.push(Frame {
                at,
                offset,
                compressed,
                whole,
            });
            at += u64::from(compressed);
            offset += u64::from(whole);
        }
        Ok(Self {
            file,
            length: offset,
            frames,
        })
    }

    /// Up to `most` bytes from an offset, as far as one frame holds them; nothing at the end.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let next = self
            .frames
            .partition_point(|frame| frame.offset + u64::from(frame.whole) <= offset);
        let Some(frame) = self.frames.get(next) else {
            return Ok(Vec::new());
        };
        let mut compressed = vec![0; frame.compressed as usize];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(frame.at))?;
        file.read_exact(&mut compressed)?;
        let mut bytes = zstd::bulk::decompress(&compressed, frame.whole as usize)?;
        let skip = usize::try_from(offset - frame.offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        bytes.drain(..skip);
        bytes.truncate(most);
        Ok(bytes)
    }
}

/// Reads bytes that claim to be a compressed log, to its end. For the fuzzer.
#[doc(hidden)]
pub fn probe(file: File) -> io::Result<u64> {
    let kept = Kept::read_table(file)?;
    let mut offset = 0;
    loop {
        let bytes = kept.read(offset, FRAME_BYTES)?;
        if bytes.is_empty() {
            return Ok(offset);
        }
        offset += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_log_is_read_by_offset() {
        let directory = tempfile::tempdir().unwrap();
        let plain = Utf8Path::from_path(directory.path()).unwrap().join("t-1");
        let text: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&plain, &text).unwrap();
        compress(&plain).unwrap();
        assert!(!plain.exists() && path(&plain).metadata().unwrap().len() < text.len() as u64 / 3);
        let kept = Kept::open(&plain).unwrap();
        assert_eq!(kept.length, text.len() as u64);
        for offset in [
            0,
            1,
            FRAME_BYTES - 1,
            FRAME_BYTES,
            FRAME_BYTES + 1,
            text.len() - 1,
        ] {
            let bytes = kept.read(offset as u64, 10).unwrap();
            assert!(
                !bytes.is_empty() && text.as_bytes()[offset..].starts_with(&bytes),
                "{offset}"
            );
        }
        assert!(kept.read(text.len() as u64, 10).unwrap().is_empty());
        assert!(kept.read(u64::MAX, 10).unwrap().is_empty());
        expand(&plain).unwrap();
        assert_eq!(fs::read_to_string(&plain).unwrap(), text);
        assert!(!path(&plain).exists());
        expand(&plain).unwrap();
    }

    #[test]
    fn what_others_wrote_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let plain = Utf8Path::from_path(directory.path()).unwrap().join("t-1");
        for bytes in [&b""[..], b"short", &[0; 64], &[0xFF; 64]] {
            fs::write(path(&plain), bytes).unwrap();
            assert!(Kept::open(&plain).is_err(), "{bytes:?}");
        }
        let mut forged = vec![0; 100];
        forged.extend(1_000_000u32.to_le_bytes());
        forged.push(0);
        forged.extend(SEEKABLE.to_le_bytes());
        fs::write(path(&plain), forged).unwrap();
        assert!(Kept::open(&plain).is_err());
    }
}
