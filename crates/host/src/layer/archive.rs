//! A layer as a tar: the same bytes for the same files, whatever disk they lie on.
//!
//! Members are in the order of their names, with numeric owners, whole seconds and the extended attributes that mean
//! something elsewhere. What an overlay says with devices and attributes is said as the OCI image specification does
//! ("Whiteouts"). The digest of these bytes is the layer's `diff_id`, and so what an image is.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use camino::Utf8Path;
use model::Digest;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{Error, copy, io_error};

/// Before the name of what is deleted.
pub(crate) const WHITEOUT: &str = ".wh.";
/// In a directory that hides the one below it.
pub(crate) const OPAQUE: &str = ".wh..wh..opq";
/// Before the name of an extended attribute, in a pax record.
pub(crate) const XATTR: &str = "SCHILY.xattr.";

/// What the tar of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub digest: Digest,
    pub bytes: u64,
}

/// The digest of a layer's tar, which is written nowhere.
pub(crate) fn seal(root: &Utf8Path) -> Result<Sealed, Error> {
    let mut sink = Sink {
        hash: Sha256::new(),
        bytes: 0,
    };
    write(root, &mut sink)?;
    Ok(Sealed {
        digest: Digest::from_bytes(sink.hash.finalize().into()),
        bytes: sink.bytes,
    })
}

/// Writes the tar of a layer.
pub(crate) fn write(root: &Utf8Path, to: impl Write) -> Result<(), Error> {
    let mut writer = Writer {
        root,
        tar: tar::Builder::new(io::BufWriter::with_capacity(1 << 18, to)),
        links: HashMap::new(),
    };
    writer.directory(Path::new(""))?;
    let mut to = writer.tar.into_inner().map_err(io_error("pack", root))?;
    to.flush().map_err(io_error("pack", root))
}

struct Sink {
    hash: Sha256,
    bytes: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<'a, W: Write> {
    root: &'a Utf8Path,
    tar: tar::Builder<W>,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    /// What is in a directory. Its own member was written before.
    fn directory(&mut self, name: &Path) -> Result<(), Error> {
        let path = self.root.as_std_path().join(name);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(self.failed(name))?;
        let mut names: Vec<OsString> = entries.iter().map(fs::DirEntry::file_name).collect();
        names.sort_unstable();
        for last in names {
            self.member(&name.join(last))?;
        }
        Ok(())
    }

    fn member(&mut self, name: &Path) -> Result<(), Error> {
        let path = self.root.as_std_path().join(name);
        let metadata = fs::symlink_metadata(&path).map_err(self.failed(name))?;
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            return self.mark(&deleted(name));
        }
        // It would have the bytes of a deletion, and another's image that deletes the digest of this one.
        let last = name.file_name().unwrap_or_default();
        if last.as_encoded_bytes().starts_with(WHITEOUT.as_bytes()) {
            return Err(Error::Marked(name.to_string_lossy().into_owned().into()));
        }
        let linked = (metadata.dev(), metadata.ino());
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&linked).cloned() {
                let mut header = header(&metadata, EntryType::Link);
                return self.link(&mut header, name, &first);
            }
            self.links.insert(linked, name.to_owned());
        }
        self.attributes(name, &path)?;
        if kind.is_dir() {
            let mut header = header(&metadata, EntryType::Directory);
            self.append(&mut header, name, io::empty())?;
            if copy::opaque(&path) {
                self.mark(&name.join(OPAQUE))?;
            }
            self.directory(name)
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(self.failed(name))?;
            let mut header = header(&metadata, EntryType::Symlink);
            self.link(&mut header, name, &target)
        } else if kind.is_fifo() {
            let mut header = header(&metadata, EntryType::Fifo);
            self.append(&mut header, name, io::empty())
        } else if kind.is_file() {
            let mut header = header(&metadata, EntryType::Regular);
            header.set_size(metadata.len());
            let file = fs::File::open(&path).map_err(self.failed(name))?;
            // One that grew meanwhile would break the tar; one that shrank is found by tar itself.
            self.append(&mut header, name, file.take(metadata.len()))
        } else {
            Ok(())
        }
    }

    fn append(&mut self, header: &mut tar::Header, name: &Path, bytes: impl io::Read) -> Result<(), Error> {
        let appended = self.tar.append_data(header, name, bytes);
        appended.map_err(self.failed(name))
    }

    fn link(&mut self, header: &mut tar::Header, name: &Path, target: &Path) -> Result<(), Error> {
        let appended = self.tar.append_link(header, name, target);
        appended.map_err(self.failed(name))
    }

    /// An empty file whose name says what is not there.
    fn mark(&mut self, name: &Path) -> Result<(), Error> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.append(&mut header, name, io::empty())
    }

    fn attributes(&mut self, name: &Path, path: &Path) -> Result<(), Error> {
        let path = Utf8Path::from_path(path).ok_or_else(|| super::not_text(path))?;
        let mut records = Vec::new();
        for attribute in copy::names(path)? {
            let text = attribute.to_string_lossy();
            if is_kept(&text) {
                records.push((format!("{XATTR}{text}"), copy::value(path, &attribute)?));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        records.sort_unstable();
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        let appended = self.tar.append_pax_extensions(records);
        appended.map_err(self.failed(name))
    }

    fn failed(&self, name: &Path) -> impl FnOnce(io::Error) -> Error + use<W> {
        let path = self.root.as_std_path().join(name);
        io_error("pack", Utf8Path::new(&*path.to_string_lossy()))
    }
}

/// Attributes that mean the same on another machine.
pub(crate) fn is_kept(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.") || name.starts_with("system.posix_acl_")
}

fn header(metadata: &fs::Metadata, kind: EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Symlink {
        0o777
    } else {
        metadata.mode() & 0o7777
    });
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// The name that says that `name` is deleted.
fn deleted(name: &Path) -> PathBuf {
    let mut last = OsString::from(WHITEOUT);
    last.push(name.file_name().unwrap_or_default());
    name.with_file_name(last)
}

/// Gives everything in a tree whole seconds, and none later than `epoch`: when a thing was made is not a part of what it
/// is. Links are not followed.
pub(crate) fn settle_times(root: &Utf8Path, epoch: i64) -> Result<(), Error> {
    let entries = fs::read_dir(root).map_err(io_error("read", root))?;
    for entry in entries {
        let entry = entry.map_err(io_error("read", root))?;
        let path = entry.path();
        let path = Utf8Path::from_path(&path).ok_or_else(|| super::not_text(&path))?;
        if entry.file_type().map_err(io_error("read", path))?.is_dir() {
            settle_times(path, epoch)?;
        } else {
            settle_time(path, epoch)?;
        }
    }
    settle_time(root, epoch)
}

fn settle_time(path: &Utf8Path, epoch: i64) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(io_error("read", path))?;
    copy::set_time(path, metadata.mtime().min(epoch))
}

/// The latest time of anything in a tree that is older than `begun`, both in seconds since 1970.
pub(crate) fn latest(root: &Utf8Path, begun: i64) -> Result<i64, Error> {
    let mut latest = 0;
    for entry in fs::read_dir(root).map_err(io_error("read", root))? {
        let entry = entry.map_err(io_error("read", root))?;
        let metadata = entry.metadata().map_err(io_error("read", root))?;
        if metadata.mtime() < begun {
            latest = latest.max(metadata.mtime());
        }
        if metadata.is_dir() {
            let path = entry.path();
            let path = Utf8Path::from_path(&path).ok_or_else(|| super::not_text(&path))?;
            latest = latest.max(self::latest(path, begun)?);
        }
    }
    Ok(latest)
}
