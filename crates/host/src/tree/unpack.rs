//! Writes an archive's members under one directory. Every path is resolved by the kernel beneath that directory and
//! without following a link (`openat2`), so that no member can use one that came before it, nor a race.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use camino::Utf8Path;
use flate2::read::MultiGzDecoder;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat,
        mkdirat, openat, openat2, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    Error, Kind, Limits, Member, Totals,
    archive::{GZIP, OUT, ZIP, other_than_tar},
    io_error,
    links::Links,
    visit, zip,
};

/// Unpacks a tar into an existing directory. What was unpacked before a failure is left for the caller to remove.
pub fn unpack(reader: impl Read, into: &Utf8Path, limits: &Limits) -> Result<Totals, Error> {
    unpack_some(reader, into, limits, |_| true)
}

/// The same for the members that are chosen; all are checked.
pub fn unpack_some(
    reader: impl Read,
    into: &Utf8Path,
    limits: &Limits,
    chosen: impl Fn(&Member) -> bool,
) -> Result<Totals, Error> {
    unpack_members(into, |each| {
        visit(reader, limits, |member, bytes| match chosen(member) {
            true => each(member, bytes),
            false => Ok(()),
        })
    })
}

/// What an archive is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Whatever of these it is.
    Any,
    /// Compressed or not, as GNU tar takes it.
    Tar,
    Tgz,
    Zip,
}

impl Format {
    /// What a file is by its first bytes; `None` when it is nothing that can be unpacked.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        // A tar's own word is in its first header (`ustar` at 257, POSIX pax).
        let mut start = [0; 262];
        let length = read_start(&mut File::open(path)?, &mut start)?;
        Ok(match other_than_tar(&start[..length]) {
            Some(GZIP) => Some(Self::Tgz),
            Some(ZIP) => Some(Self::Zip),
            None if start.ends_with(b"ustar") => Some(Self::Tar),
            _ => None,
        })
    }
}

/// Unpacks an archive of any of these formats into an existing directory.
pub fn unpack_file(
    mut file: File,
    format: Format,
    into: &Utf8Path,
    limits: &Limits,
) -> Result<Totals, Error> {
    let mut start = [0; 6];
    let length = read_start(&mut file, &mut start).map_err(Error::Archive)?;
    match (other_than_tar(&start[..length]), format) {
        (None, Format::Any | Format::Tar) => unpack(file, into, limits),
        (Some(GZIP), Format::Any | Format::Tar | Format::Tgz) => {
            // What is no member is not counted by the limits: names of one member after the other, for one.
            let most = limits
                .total_bytes
                .saturating_add(limits.entries.saturating_mul(BETWEEN));
            unpack(MultiGzDecoder::new(file).take(most), into, limits)
        }
        (Some(ZIP), Format::Any | Format::Zip) => unpack_members(into, |each| zip::visit(file, limits, each)),
        (other, _) => Err(Error::Other(
            other.unwrap_or("no archive of the kind that it is said to be"),
        )),
    }
}

/// Bytes of headers and padding that a member of a compressed tar may bring.
const BETWEEN: u64 = 4096;

fn read_start(file: &mut File, start: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(&mut start[length..])? {
            0 => break,
            read => length += read,
        }
    }
    file.rewind()?;
    Ok(length)
}

type Each<'a> = &'a mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), Error>;

fn unpack_members(
    into: &Utf8Path,
    visit: impl FnOnce(Each<'_>) -> Result<Totals, Error>,
) -> Result<Totals, Error> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, into.as_std_path(), flags, Mode::empty())
        .map_err(io_error("open", into.as_std_path()))?;
    let mut tree = Tree {
        root: Arc::new(root),
        directories: HashMap::new(),
        links: Links::default(),
    };
    let totals = visit(&mut |member, bytes| tree.add(member, bytes))?;
    match tree.links.out_of(&tree.root).next() {
        Some(path) => Err(Error::Refused {
            path: path.display().to_string(),
            reason: OUT,
        }),
        None => Ok(totals),
    }
}

/// Opens a plain file of a tree that was unpacked, through no link.
pub fn open_beneath(root: &Utf8Path, path: &Utf8Path) -> Result<File, Error> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, root.as_std_path(), flags, Mode::empty())
        .map_err(io_error("open", root.as_std_path()))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat2(&directory, path.as_std_path(), flags, Mode::empty(), BENEATH) {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP | Errno::XDEV) => Err(Error::Refused {
            path: path.to_string(),
            reason: "it is reached through a link",
        }),
        Err(errno) => Err(io_error("open", path.as_std_path())(errno)),
    }
}

struct Tree {
    root: Arc<OwnedFd>,
    /// Open directories of the last members. Bounded by [`OPEN`].
    directories: HashMap<PathBuf, Arc<OwnedFd>>,
    links: Links,
}

const OPEN: usize = 64;
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    fn add(&mut self, member: &Member, bytes: &mut dyn Read) -> Result<(), Error> {
        let path = member.path.as_path();
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        match &member.kind {
            Kind::Directory => self.add_directory(&parent, name, member),
            Kind::File => {
                self.make_room(&parent, name, path)?;
                write_file(&parent, name, member, bytes)
            }
            Kind::Symlink(target) => {
                self.make_room(&parent, name, path)?;
                self.links.insert(path.to_owned(), target.clone());
                symlinkat(target, &parent, name).map_err(io_error("create", path))
            }
            Kind::Hardlink(target) => {
                let from = self.hardlink_source(target, path)?;
                self.make_room(&parent, name, path)?;
                let source = target.file_name().expect("the source of a hard link has a name");
                linkat(&from, source, &parent, name, AtFlags::empty()).map_err(io_error("create", path))
            }
        }
    }

    fn add_directory(&mut self, parent: &OwnedFd, name: &OsStr, member: &Member) -> Result<(), Error> {
        let path = member.path.as_path();
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io_error("create", path)(errno)),
        }
        let directory = self.directory(path)?;
        // The owner can always go on unpacking into it.
        let mode = Mode::from_raw_mode(member.mode) | Mode::RWXU;
        fchmod(&directory, mode).map_err(io_error("change", path))
    }

    /// A later member replaces an earlier one, as in tar, but never a directory.
    fn make_room(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
        self.links.remove(path);
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(Error::Refused {
                path: path.display().to_string(),
                reason: "it would replace a directory",
            }),
            Err(errno) => Err(io_error("replace", path)(errno)),
        }
    }

    /// The directory of the file that a hard link names: a regular file of this tree.
    fn hardlink_source(&mut self, target: &Path, path: &Path) -> Result<Arc<OwnedFd>, Error> {
        let refuse = || Error::Refused {
            path: path.display().to_string(),
            reason: "it is a hard link to what is no file of the archive",
        };
        let name = target.file_name().ok_or_else(refuse)?;
        let parent = target.parent().unwrap_or(Path::new(""));
        let directory = self.open(parent).map_err(|_| refuse())?;
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refuse())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if target != path => Ok(directory),
            _ => Err(refuse()),
        }
    }

    /// The directory at `path`, made when it is missing.
    fn directory(&mut self, path: &Path) -> Result<Arc<OwnedFd>, Error> {
        match self.open(path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(not_a_directory(path, errno)),
        }
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let name = path
            .file_name()
            .expect("the root is there, so what is missing has a name");
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io_error("create", path)(errno)),
        }
        self.open(path).map_err(|errno| not_a_directory(path, errno))
    }

    fn open(&mut self, path: &Path) -> Result<Arc<OwnedFd>, Errno> {
        if path.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(directory) = self.directories.get(path) {
            return Ok(Arc::clone(directory));
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = Arc::new(openat2(&self.root, path, flags, Mode::empty(), BENEATH)?);
        if self.directories.len() >= OPEN {
            self.directories.clear();
        }
        self.directories.insert(path.to_owned(), Arc::clone(&directory));
        Ok(directory)
    }
}

fn not_a_directory(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Error::Refused {
            path: path.display().to_string(),
            reason: "it is used as a directory and is none",
        },
        errno => io_error("open", path)(errno),
    }
}

fn write_file(parent: &OwnedFd, name: &OsStr, member: &Member, bytes: &mut dyn Read) -> Result<(), Error> {
    let path = member.path.as_path();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(io_error("create", path))?;
    let mut buffer = [0; 1 << 16];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => io::Write::write_all(&mut file, &buffer[..read]).map_err(io_error("write", path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Archive(error)),
        }
    }
    fchmod(&file, Mode::from_raw_mode(member.mode)).map_err(io_error("change", path))?;
    let time = Timespec {
        tv_sec: i64::try_from(member.mtime).unwrap_or(0).min(i64::from(u32::MAX)),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    futimens(&file, &times).map_err(io_error("change", path))
}
