//! Reads the members of a tar, one after the other, and refuses what no honest tree holds.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use tar::EntryType;

use super::{Error, Limits, Totals};

/// Long names and extended headers are read into memory: no honest one is longer.
const HEADER_BYTES: u64 = 64 * 1024;
pub(super) const PATH_BYTES: usize = 4096;
const NAME_BYTES: usize = 255;
const DEPTH: usize = 128;

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Relative, without `.` and `..`; empty for the root itself.
    pub path: PathBuf,
    pub kind: Kind,
    /// Permission bits only: no set-user-id, set-group-id or sticky bit.
    pub mode: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// The target stays in the tree, as far as its text tells, or it is absolute: of the root where the tree will be used,
    /// which is never that of who unpacks it.
    Symlink(PathBuf),
    /// Another member's path.
    Hardlink(PathBuf),
}

/// Calls `each` with every member and a reader of its bytes. Nothing of a member is given out before it is checked.
pub fn visit(
    reader: impl Read,
    limits: &Limits,
    mut each: impl FnMut(&Member, &mut dyn Read) -> Result<(), Error>,
) -> Result<Totals, Error> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    if let Some(other) = other_than_tar(reader.fill_buf().map_err(Error::Archive)?) {
        return Err(Error::Format(other));
    }
    let mut archive = tar::Archive::new(reader);
    let mut names = Names::default();
    let mut totals = Totals::default();
    for entry in archive.entries().map_err(Error::Archive)?.raw(true) {
        let mut entry = entry.map_err(Error::Archive)?;
        if names.take(&mut entry)? {
            continue;
        }
        let member = member(entry.header(), std::mem::take(&mut names))?;
        totals.entries += 1;
        totals.bytes = totals.bytes.saturating_add(member.size);
        within(limits, &totals, &member)?;
        each(&member, &mut entry)?;
    }
    Ok(totals)
}

/// What an archive is by its first bytes, where that is not a tar.
pub(super) fn other_than_tar(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x1f, 0x8b, ..] => Some(GZIP),
        [b'P', b'K', 3 | 5, ..] => Some(ZIP),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed with zstd"),
        [b'B', b'Z', b'h', ..] => Some("compressed with bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("compressed with xz"),
        _ => None,
    }
}

pub(super) const GZIP: &str = "compressed with gzip";
pub(super) const ZIP: &str = "a zip file";

pub(super) fn within(limits: &Limits, totals: &Totals, member: &Member) -> Result<(), Error> {
    let complain = |text| Err(Error::TooLarge(text));
    if totals.entries > limits.entries {
        return complain(format!("more than {} files", limits.entries));
    }
    if member.size > limits.file_bytes {
        let path = member.path.display();
        return complain(format!(
            "`{path}` has {} bytes, the most is {}",
            member.size, limits.file_bytes
        ));
    }
    if totals.bytes > limits.total_bytes {
        return complain(format!("its files have more than {} bytes", limits.total_bytes));
    }
    Ok(())
}

/// What stands before a member: GNU long names and pax records.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Names {
    /// Whether the entry was only about the next one.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Error> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(without_nul(bounded(entry)?)),
            EntryType::GNULongLink => self.target = Some(without_nul(bounded(entry)?)),
            EntryType::XHeader => self.records(&bounded(entry)?)?,
            // Of an archive as a whole: git writes the commit here.
            EntryType::XGlobalHeader => drop(bounded(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn records(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for record in tar::PaxExtensions::new(bytes) {
            let record = record.map_err(Error::Archive)?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.target = Some(record.value_bytes().to_vec()),
                b"size" => return Err(refused(&self.path, "it has more than 8 GiB")),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(refused(&self.path, "it is a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn refused(path: &Option<Vec<u8>>, reason: &'static str) -> Error {
    Error::Refused {
        path: shown(path.as_deref().unwrap_or_default()),
        reason,
    }
}

fn bounded(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Error> {
    if entry.size() > HEADER_BYTES {
        return Err(Error::TooLarge(format!("a file name of {} bytes", entry.size())));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(Error::Archive)?;
    Ok(bytes)
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn member(header: &tar::Header, names: Names) -> Result<Member, Error> {
    let raw = names.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let refuse = |reason| Error::Refused {
        path: shown(&raw),
        reason,
    };
    let path = clean(&raw).map_err(refuse)?;
    let target = || {
        names
            .target
            .clone()
            .or_else(|| header.link_name_bytes().map(|bytes| bytes.into_owned()))
            .filter(|target| !target.is_empty())
            .ok_or_else(|| refuse("it is a link to nothing"))
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if raw.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(inside(&path, &target()?).map_err(refuse)?),
        EntryType::Link => Kind::Hardlink(clean(&target()?).map_err(refuse)?),
        EntryType::Char | EntryType::Block => return Err(refuse("it is a device")),
        EntryType::Fifo => return Err(refuse("it is a pipe")),
        EntryType::GNUSparse => return Err(refuse("it is a sparse file")),
        _ => return Err(refuse("it is of a kind that is not known")),
    };
    if path.as_os_str().is_empty() && kind != Kind::Directory {
        return Err(refuse("it has no name"));
    }
    let size = match kind {
        Kind::File => header.entry_size().map_err(Error::Archive)?,
        _ => 0,
    };
    Ok(Member {
        path,
        kind,
        mode: header.mode().map_err(Error::Archive)? & 0o777,
        size,
        mtime: header.mtime().unwrap_or(0),
    })
}

pub(super) fn clean(raw: &[u8]) -> Result<PathBuf, &'static str> {
    if raw.contains(&0) {
        return Err("its name has a zero byte");
    }
    if raw.len() > PATH_BYTES {
        return Err("its name is too long");
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) if name.len() > NAME_BYTES => return Err("its name is too long"),
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("its name leads out of the tree"),
            Component::RootDir | Component::Prefix(_) => return Err("its name is absolute"),
        }
    }
    match path.components().count() > DEPTH {
        true => Err("it lies too deep"),
        false => Ok(path),
    }
}

pub(super) const OUT: &str = "it is a link out of the tree";

/// The target of a symbolic link at `path`, when it is absolute or does not lead out of the tree.
pub(super) fn inside(path: &Path, raw: &[u8]) -> Result<PathBuf, &'static str> {
    if raw.contains(&0) || raw.len() > PATH_BYTES {
        return Err("its target is not a path");
    }
    let target = Path::new(OsStr::from_bytes(raw));
    if target.is_absolute() {
        return Ok(target.to_owned());
    }
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).ok_or(OUT)?,
            Component::RootDir | Component::Prefix(_) => return Err(OUT),
        }
    }
    Ok(target.to_owned())
}

/// Whether a symbolic link at `path` with this target is absolute or stays in its tree, as far as the text tells.
pub fn stays_inside(path: &Path, target: &Path) -> bool {
    inside(path, target.as_os_str().as_bytes()).is_ok()
}

pub(super) fn shown(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let text: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    text
}
