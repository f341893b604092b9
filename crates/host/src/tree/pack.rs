//! Writes a tar that depends on nothing but the files: no owners, no order of a disk, one time for all.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use camino::Utf8Path;

use super::{Error, Totals, io_error};

/// A tar in the making. The caller adds members in an order of its own that is always the same.
pub struct Packer<W: Write> {
    builder: tar::Builder<W>,
    mtime: u64,
    totals: Totals,
}

impl<W: Write> Packer<W> {
    /// `mtime` is given to every member. A constant would do for the digest, but web servers tell two versions of a
    /// file of one size by it: the time of the commit is both stable and different.
    pub fn new(to: W, mtime: u64) -> Self {
        Self {
            builder: tar::Builder::new(to),
            mtime,
            totals: Totals::default(),
        }
    }

    pub fn directory(&mut self, name: &Path, mode: u32) -> Result<(), Error> {
        let mut header = self.header(tar::EntryType::Directory, mode, 0);
        self.builder
            .append_data(&mut header, name, io::empty())
            .map_err(io_error("pack", name))
    }

    /// The file at `path`, under the name `name`. A link is not followed.
    pub fn file(&mut self, name: &Path, path: &Path) -> Result<(), Error> {
        let file = File::options()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32)
            .open(path)
            .map_err(io_error("open", path))?;
        self.open_file(name, file)
    }

    /// An open file, under the name `name`.
    pub fn open_file(&mut self, name: &Path, file: File) -> Result<(), Error> {
        let metadata = file.metadata().map_err(io_error("read", name))?;
        let mut header = self.header(tar::EntryType::Regular, metadata.mode(), metadata.len());
        let mut counted = Exactly {
            file,
            left: metadata.len(),
        };
        self.totals.bytes += metadata.len();
        self.builder
            .append_data(&mut header, name, &mut counted)
            .map_err(io_error("pack", name))
    }

    pub fn symlink(&mut self, name: &Path, target: &Path) -> Result<(), Error> {
        let mut header = self.header(tar::EntryType::Symlink, 0o777, 0);
        self.builder
            .append_link(&mut header, name, target)
            .map_err(io_error("pack", name))
    }

    pub fn finish(self) -> Result<(W, Totals), Error> {
        let totals = self.totals;
        let to = self.builder.into_inner().map_err(Error::Archive)?;
        Ok((to, totals))
    }

    fn header(&mut self, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        self.totals.entries += 1;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode & 0o777);
        header.set_size(size);
        header.set_mtime(self.mtime);
        header.set_uid(0);
        header.set_gid(0);
        header
    }
}

/// Packs all of a directory: what is neither file, directory nor link (sockets, pipes) is left out.
pub fn pack(directory: &Utf8Path, mtime: u64, to: impl Write) -> Result<Totals, Error> {
    let mut packer = Packer::new(to, mtime);
    let mut waiting = sorted(directory.as_std_path(), Path::new(""))?;
    while let Some(name) = waiting.pop() {
        let path = directory.as_std_path().join(&name);
        let metadata = fs::symlink_metadata(&path).map_err(io_error("read", &path))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            packer.directory(&name, metadata.mode())?;
            waiting.extend(sorted(directory.as_std_path(), &name)?);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(io_error("read", &path))?;
            packer.symlink(&name, &target)?;
        } else if kind.is_file() {
            packer.file(&name, &path)?;
        }
    }
    let (mut to, totals) = packer.finish()?;
    to.flush().map_err(Error::Archive)?;
    Ok(totals)
}

/// The names in a directory, relative to `root`, last first.
fn sorted(root: &Path, directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = root.join(directory);
    let mut names = fs::read_dir(&path)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| directory.join(entry.file_name())))
                .collect()
        })
        .map_err(io_error::<io::Error>("read", &path))
        .map(|names: Vec<PathBuf>| names)?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// A file that ends where it ended when its header was written. One that became shorter is an error.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..wanted])? {
            0 => Err(io::Error::other("it became shorter while it was packed")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}
