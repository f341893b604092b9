//! A layer's tar into a directory, with owners, modes, attributes and deletions: what a root file system is made of.
//!
//! The tar is somebody's. Every path is resolved by the kernel with the directory as its root (`openat2`,
//! `RESOLVE_IN_ROOT`), so that a link of the image leads where it leads in a container and never to the machine.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, chmodat, chownat, linkat,
        lsetxattr, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    },
    io::Errno,
};
use tar::EntryType;

use super::{Error, limits::Left, manifest::Packing, refused};
use crate::layer::{
    archive::{OPAQUE, WHITEOUT, XATTR, is_kept},
    copy,
};

/// What becomes of a layer's deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletions {
    /// They are done to what is in the directory: it holds the layers below.
    Apply,
    /// They are marked as an overlay does: the directory is a layer.
    Mark,
}

/// Names and extended headers are read into memory: no honest one is longer.
const HEADER_BYTES: u64 = 1 << 20;
const PATH_BYTES: usize = 4096;
const DEPTH: usize = 128;
/// Owners beyond are none of a container's.
const IDS: u64 = 65_536;

/// Reads what is packed in this way.
pub(crate) fn unpacked<'a>(packing: Packing, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Packing::Plain => Box::new(from),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(from)),
        Packing::Zstd => Box::new(zstd::Decoder::new(from)?),
    })
}

/// How bytes are packed, by how they begin.
pub(crate) fn guess(start: &[u8]) -> Packing {
    match start {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

/// Unpacks a plain tar into an existing directory. What was unpacked before a failure is left for the caller to remove.
pub(crate) fn unpack(
    tar: impl Read,
    into: &Utf8Path,
    deletions: Deletions,
    left: &mut Left,
) -> Result<(), Error> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, into.as_std_path(), flags, Mode::empty()).map_err(failed(Path::new("")))?;
    let mut layer = Layer {
        root,
        deletions,
        added: HashSet::new(),
        times: Vec::new(),
    };
    let mut archive = tar::Archive::new(tar);
    let mut about = About::default();
    for entry in archive.entries().map_err(Error::Archive)?.raw(true) {
        let mut entry = entry.map_err(Error::Archive)?;
        left.take(1, 0)?;
        if about.take(&mut entry)? {
            continue;
        }
        left.take(0, entry.size())?;
        layer.add(std::mem::take(&mut about), &mut entry)?;
    }
    layer.finish()
}

/// What stands before a member: GNU long names and pax records.
#[derive(Default)]
struct About {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    mtime: Option<i64>,
    uid: Option<u64>,
    gid: Option<u64>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl About {
    /// Whether the entry was only about the next one.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Error> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(without_nul(bounded(entry)?)),
            EntryType::GNULongLink => self.target = Some(without_nul(bounded(entry)?)),
            EntryType::XHeader => self.records(&bounded(entry)?)?,
            EntryType::XGlobalHeader => drop(bounded(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn records(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for record in tar::PaxExtensions::new(bytes) {
            let record = record.map_err(Error::Archive)?;
            let (Ok(key), value) = (record.key(), record.value_bytes()) else {
                continue;
            };
            let text = std::str::from_utf8(value).unwrap_or_default();
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.target = Some(value.to_vec()),
                "uid" => self.uid = text.parse().ok(),
                "gid" => self.gid = text.parse().ok(),
                "mtime" => self.mtime = text.split('.').next().and_then(|whole| whole.parse().ok()),
                "size" => return Err(refused("a layer", "it has a file of more than 8 GiB")),
                _ if key.starts_with("GNU.sparse") => return Err(refused("a layer", "it has a sparse file")),
                _ => {
                    let attribute = key.strip_prefix(XATTR).filter(|name| is_kept(name));
                    self.attributes
                        .extend(attribute.map(|name| (name.to_owned(), value.to_vec())));
                }
            }
        }
        Ok(())
    }
}

fn bounded(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Error> {
    if entry.size() > HEADER_BYTES {
        return Err(Error::TooLarge(format!(
            "a name or attribute of {} bytes",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(Error::Archive)?;
    Ok(bytes)
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// One member, read from its header.
struct Member {
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
    attributes: Vec<(String, Vec<u8>)>,
}

struct Layer {
    root: OwnedFd,
    deletions: Deletions,
    /// What this layer brought, with the directories above it: it stays when the layer hides the rest of a directory.
    added: HashSet<PathBuf>,
    /// Of directories, which change while files are put into them.
    times: Vec<(PathBuf, i64)>,
}

impl Layer {
    fn add(&mut self, about: About, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Error> {
        let header = entry.header();
        let path = plain(about.path.as_deref().unwrap_or(&entry.path_bytes()))?;
        let id = |own: Option<u64>, header: io::Result<u64>| match own.map_or(header, Ok) {
            Ok(id) if id < IDS => Ok(id as u32),
            Ok(_) => Err(refused(
                "a layer",
                &format!("`{}` has an owner beyond 65535", path.display()),
            )),
            Err(error) => Err(Error::Archive(error)),
        };
        let member = Member {
            uid: id(about.uid, header.uid())?,
            gid: id(about.gid, header.gid())?,
            mode: header.mode().map_err(Error::Archive)? & 0o7777,
            mtime: match about.mtime {
                Some(mtime) => mtime,
                None => i64::try_from(header.mtime().map_err(Error::Archive)?).unwrap_or(0),
            },
            attributes: about.attributes,
            path,
        };
        let Some(name) = member.path.file_name().map(OsStr::to_owned) else {
            return Ok(());
        };
        let parent = self.directory(member.path.parent().unwrap_or(Path::new("")))?;
        if name.as_bytes().starts_with(WHITEOUT.as_bytes()) {
            return self.delete(&parent, &name, &member.path);
        }
        let kind = header.entry_type();
        match kind {
            EntryType::Directory => self.add_directory(&parent, &name, &member)?,
            EntryType::Regular | EntryType::Continuous => {
                self.clear(&parent, &name)?;
                write(&parent, &name, &member, entry)?;
            }
            EntryType::Symlink => {
                let target = target(about.target, entry)?;
                self.clear(&parent, &name)?;
                symlinkat(&target, &parent, &name).map_err(failed(&member.path))?;
            }
            EntryType::Link => {
                let target = plain(target(about.target, entry)?.as_bytes())?;
                self.link(&target, &parent, &name, &member.path)?;
                self.note(&member.path);
                return Ok(());
            }
            EntryType::Fifo => {
                self.clear(&parent, &name)?;
                let mode = Mode::from_raw_mode(member.mode);
                mknodat(&parent, &name, FileType::Fifo, mode, 0).map_err(failed(&member.path))?;
            }
            EntryType::GNUSparse => return Err(refused("a layer", "it has a sparse file")),
            // Devices mean nothing: a container has its own.
            _ => return Ok(()),
        }
        attributes(&parent, &name, &member, kind == EntryType::Symlink)?;
        if kind == EntryType::Directory {
            self.times.push((member.path.clone(), member.mtime));
        } else {
            copy::set_time(&beneath(&parent, &name, &member.path)?, member.mtime)?;
        }
        self.note(&member.path);
        Ok(())
    }

    fn note(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.added.insert(path.to_owned()) {
                break;
            }
        }
    }

    fn add_directory(&self, parent: &OwnedFd, name: &OsStr, member: &Member) -> Result<(), Error> {
        if let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        {
            self.clear(parent, name)?;
        }
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed(&member.path)(errno)),
        }
    }

    /// A hard link to a file of the image.
    fn link(&mut self, target: &Path, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
        let refuse = || {
            refused(
                "a layer",
                &format!("`{}` is a hard link to no file of it", path.display()),
            )
        };
        let last = target.file_name().ok_or_else(refuse)?;
        let from = self
            .open(target.parent().unwrap_or(Path::new("")))
            .map_err(|_| refuse())?;
        let stat = statat(&from, last, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refuse())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || target == path {
            return Err(refuse());
        }
        self.clear(parent, name)?;
        linkat(&from, last, parent, name, AtFlags::empty()).map_err(failed(path))
    }

    /// What `.wh.NAME` says: NAME is not there, or the directory shows nothing of those below.
    fn delete(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        if name == OPAQUE {
            return match self.deletions {
                Deletions::Apply => self.hide(parent, &directory),
                Deletions::Mark => {
                    let at = PathBuf::from(format!("/proc/self/fd/{}/.", parent.as_raw_fd()));
                    lsetxattr(&at, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(failed(path))
                }
            };
        }
        let own = &name.as_bytes()[WHITEOUT.len()..];
        // Other marks of this kind are bookkeeping of one storage driver.
        if own.is_empty() || own == b"." || own == b".." || own.starts_with(WHITEOUT.as_bytes()) {
            return Ok(());
        }
        let own = OsStr::from_bytes(own);
        if self.added.contains(&directory.join(own)) {
            return Ok(());
        }
        self.clear(parent, own)?;
        match self.deletions {
            Deletions::Apply => Ok(()),
            Deletions::Mark => {
                mknodat(parent, own, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed(path))
            }
        }
    }

    /// Removes from a directory all that this layer did not bring.
    fn hide(&self, parent: &OwnedFd, directory: &Path) -> Result<(), Error> {
        let listed = PathBuf::from(format!("/proc/self/fd/{}/.", parent.as_raw_fd()));
        for entry in std::fs::read_dir(&listed).map_err(super::io_error("read", directory))? {
            let name = entry.map_err(super::io_error("read", directory))?.file_name();
            let path = directory.join(&name);
            if !self.added.contains(&path) {
                self.clear(parent, &name)?;
            }
        }
        Ok(())
    }

    fn clear(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Error> {
        let path = beneath(parent, name, Path::new(name))?;
        Ok(copy::remove(&path)?)
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// The directory at a path, made when it is missing.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed(path)),
        }
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            return Err(failed(path)(Errno::NOENT));
        };
        let parent = self.directory(above)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // A link to nowhere.
            Err(errno) => return Err(failed(path)(errno)),
        }
        self.open(path).map_err(failed(path))
    }

    fn finish(self) -> Result<(), Error> {
        for (path, mtime) in self.times.iter().rev() {
            let Ok(directory) = self.open(path) else { continue };
            let at = Utf8PathBuf::from(format!("/proc/self/fd/{}/.", directory.as_raw_fd()));
            copy::set_time(&at, *mtime)?;
        }
        Ok(())
    }
}

/// A path beneath an open directory, for calls that take no descriptor. Its last part is never followed by who gets it.
fn beneath(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<Utf8PathBuf, Error> {
    let name = name.to_str().ok_or_else(|| {
        refused(
            "a layer",
            &format!("the name `{}` is not UTF-8 text", path.display()),
        )
    })?;
    Ok(Utf8PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        parent.as_raw_fd()
    )))
}

/// A member's path, relative to the root, without `.` and `..`.
fn plain(bytes: &[u8]) -> Result<PathBuf, Error> {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let text = Path::new(OsStr::from_bytes(bytes));
    let mut path = PathBuf::new();
    for component in text.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => {
                return Err(refused(
                    "a layer",
                    &format!("its path `{}` leaves the root", shown()),
                ));
            }
        }
    }
    let fits = bytes.len() <= PATH_BYTES && !bytes.contains(&0) && path.components().count() <= DEPTH;
    match fits {
        true => Ok(path),
        false => Err(refused("a layer", &format!("its path `{}` is too long", shown()))),
    }
}

fn target(own: Option<Vec<u8>>, entry: &tar::Entry<'_, impl Read>) -> Result<OsString, Error> {
    let bytes = own.or_else(|| entry.link_name_bytes().map(|bytes| bytes.into_owned()));
    match bytes {
        Some(bytes) if !bytes.is_empty() && bytes.len() <= PATH_BYTES && !bytes.contains(&0) => {
            Ok(OsString::from_vec(bytes))
        }
        _ => Err(refused("a layer", "it has a link to nothing")),
    }
}

fn write(parent: &OwnedFd, name: &OsStr, member: &Member, bytes: &mut impl Read) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat(parent, name, flags, mode).map_err(failed(&member.path))?;
    let mut file = File::from(file);
    let copied = io::copy(bytes, &mut file);
    copied.map(drop).map_err(super::io_error("unpack", &member.path))
}

/// Owner, then what a change of owner takes away.
fn attributes(parent: &OwnedFd, name: &OsStr, member: &Member, link: bool) -> Result<(), Error> {
    let owner = (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)));
    chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&member.path))?;
    if !link {
        let mode = Mode::from_raw_mode(member.mode);
        chmodat(parent, name, mode, AtFlags::empty()).map_err(failed(&member.path))?;
    }
    for (attribute, value) in &member.attributes {
        let path = beneath(parent, name, &member.path)?;
        lsetxattr(path.as_std_path(), attribute.as_str(), value, XattrFlags::empty())
            .map_err(failed(&member.path))?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> Error + use<> {
    let path = path.to_owned();
    move |errno| match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::NAMETOOLONG => refused(
            "a layer",
            &format!("`{}` cannot be put in place ({errno})", path.display()),
        ),
        errno => Error::Io {
            doing: "unpack",
            path,
            source: errno.into(),
        },
    }
}
