//! Copies what a container wrote, and gives every file the id that it has inside of the container.
//!
//! A container's ids 0 to 65535 are the machine's `uid_base` to `uid_base + 65535`. A layer holds the former, so that it
//! can be shown to any container through an id-mapped mount. Ids are in four places: owners, access lists, the root id
//! of file capabilities; and changing an owner takes set-user-id bits and capabilities away, so they are set after it.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};

use super::{Error, io_error};

/// How a tree is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy<'a> {
    /// Taken from every id.
    pub uid_base: u32,
    /// Paths relative to the tree that are left out, with all below them.
    pub skip: &'a [&'a str],
    pub deletions: Deletions,
    /// No time is later than this, in seconds since 1970, and all are whole: what was written when makes no other layer.
    pub epoch: Option<i64>,
    /// The most bytes of files. Holes count: a container's disk limit does not see them, and what is copied has none.
    pub most: u64,
}

/// What is done with the marks that an overlay leaves for what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletions {
    /// They are copied: the copy is a layer.
    Mark,
    /// The target holds an older state of the tree: it is deleted there.
    Apply,
    /// The target holds an older state of the tree, and only what is new counts.
    Ignore,
}

impl Copy<'_> {
    /// Copies what is in `from` into the existing directory `to`. Trees that are copied one after the other have their most
    /// bytes together, and what has a name in two of them is copied once. No tree is within another of them.
    pub fn further(&self, so_far: &mut Copied, from: &Utf8Path, to: &Utf8Path) -> Result<(), Error> {
        let mut walk = Walk { copy: self, so_far };
        walk.directory(from, to, Utf8Path::new(""))
    }
}

/// What was copied of trees that belong together.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), Utf8PathBuf>,
    /// Of their files.
    pub bytes: u64,
}

/// Directories in each other: more than any software makes, and few enough for the stack of a thread.
const DEPTH: usize = 256;

struct Walk<'a> {
    copy: &'a Copy<'a>,
    so_far: &'a mut Copied,
}

impl Walk<'_> {
    fn directory(&mut self, from: &Utf8Path, to: &Utf8Path, name: &Utf8Path) -> Result<(), Error> {
        if name.as_str().bytes().filter(|byte| *byte == b'/').count() > DEPTH {
            return Err(Error::Deep(name.to_owned()));
        }
        let entries: Result<Vec<Utf8PathBuf>, io::Error> = from.read_dir_utf8().and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.into_path()))
                .collect()
        });
        for path in entries.map_err(io_error("read", from))? {
            let last = path.file_name().expect("an entry of a directory has a name");
            let name = name.join(last);
            if !self.copy.skip.contains(&name.as_str()) {
                self.entry(&path, &to.join(last), &name)?;
            }
        }
        self.attributes(from, to)
    }

    fn entry(&mut self, from: &Utf8Path, to: &Utf8Path, name: &Utf8Path) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(from).map_err(io_error("read", from))?;
        let kind = metadata.file_type();
        let deletions = self.copy.deletions;
        let merging = deletions != Deletions::Mark;
        if kind.is_dir() {
            let replaced = deletions == Deletions::Apply && opaque(from);
            // A link that an earlier state left there is not a directory, whatever it points to.
            if merging && (replaced || !is_directory(to)) {
                remove(to)?;
            }
            match fs::create_dir(to) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", to)(error));
                }
                _ => return self.directory(from, to, name),
            }
        }
        if kind.is_char_device() && metadata.rdev() == 0 {
            return match deletions {
                Deletions::Mark => self.node(to, FileType::CharacterDevice, &metadata),
                Deletions::Apply => remove(to),
                Deletions::Ignore => Ok(()),
            };
        }
        if merging {
            remove(to)?;
        }
        if kind.is_fifo() {
            self.node(to, FileType::Fifo, &metadata)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(from).map_err(io_error("read", from))?;
            symlink(target, to).map_err(io_error("create", to))?;
        } else if kind.is_file() {
            if self.linked(&metadata, to)? {
                return Ok(());
            }
            self.so_far.bytes = self.so_far.bytes.saturating_add(metadata.len());
            if self.so_far.bytes > self.copy.most {
                return Err(Error::Large {
                    path: name.to_owned(),
                    most: self.copy.most,
                });
            }
            fs::copy(from, to).map_err(io_error("copy", from))?;
        } else {
            // Sockets and devices mean nothing without the process or the machine that made them.
            return Ok(());
        }
        self.attributes(from, to)
    }

    /// Whether the file was copied under another name before.
    fn linked(&mut self, metadata: &fs::Metadata, to: &Utf8Path) -> Result<bool, Error> {
        if metadata.nlink() < 2 {
            return Ok(false);
        }
        let links = &mut self.so_far.links;
        match links.insert((metadata.dev(), metadata.ino()), to.to_owned()) {
            None => Ok(false),
            Some(first) => fs::hard_link(&first, to)
                .map(|()| true)
                .map_err(io_error("link", to)),
        }
    }

    fn node(&self, to: &Utf8Path, kind: FileType, metadata: &fs::Metadata) -> Result<(), Error> {
        mknodat(
            CWD,
            to.as_std_path(),
            kind,
            Mode::from_raw_mode(metadata.mode() & 0o7777),
            0,
        )
        .map_err(|errno| io_error("create", to)(errno.into()))
    }

    /// Owner, then what a change of owner takes away, then times.
    fn attributes(&self, from: &Utf8Path, to: &Utf8Path) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(from).map_err(io_error("read", from))?;
        let fail = |errno: rustix::io::Errno| io_error("change", to)(errno.into());
        let uid = self.inner(from, metadata.uid())?;
        let gid = self.inner(from, metadata.gid())?;
        let path = to.as_std_path();
        chownat(
            CWD,
            path,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(fail)?;
        if !metadata.is_symlink() {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(metadata.mode() & 0o7777);
            fs::set_permissions(to, mode).map_err(io_error("change", to))?;
        }
        self.extended(from, to)?;
        let time = |seconds, nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        if let Some(epoch) = self.copy.epoch {
            return set_time(to, metadata.mtime().min(epoch));
        }
        let times = Timestamps {
            last_access: time(metadata.atime(), metadata.atime_nsec()),
            last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
        };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
    }

    fn extended(&self, from: &Utf8Path, to: &Utf8Path) -> Result<(), Error> {
        for name in names(from)? {
            let mut value = value(from, &name)?;
            match name.to_bytes() {
                b"trusted.overlay.opaque" if self.copy.deletions != Deletions::Mark => continue,
                b"trusted.overlay.opaque" => {}
                // How one overlay found its lower files: of no use to another.
                other if other.starts_with(b"trusted.overlay.") => continue,
                b"security.capability" => capability(&mut value),
                b"system.posix_acl_access" | b"system.posix_acl_default" => {
                    self.access_list(from, &mut value)?
                }
                other if other.starts_with(b"security.") || other.starts_with(b"user.") => {}
                _ => continue,
            }
            lsetxattr(to.as_std_path(), &name, &value, XattrFlags::empty())
                .map_err(|errno| io_error("change", to)(errno.into()))?;
        }
        Ok(())
    }

    /// `acl_xattr(5)`: a version of 4 bytes, then tag (2), permissions (2) and id (4) of each entry, little-endian.
    fn access_list(&self, from: &Utf8Path, value: &mut [u8]) -> Result<(), Error> {
        const USER: u16 = 0x02;
        const GROUP: u16 = 0x08;
        let entries = value.get_mut(4..).unwrap_or_default();
        for entry in entries.chunks_exact_mut(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            if tag == USER || tag == GROUP {
                let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                entry[4..].copy_from_slice(&self.inner(from, id)?.to_le_bytes());
            }
        }
        Ok(())
    }

    fn inner(&self, path: &Utf8Path, id: u32) -> Result<u32, Error> {
        id.checked_sub(self.copy.uid_base)
            .filter(|inner| *inner < 65_536)
            .ok_or_else(|| Error::Stranger {
                path: path.to_owned(),
                id,
            })
    }
}

/// `vfs_ns_cap_data` of `linux/capability.h`: revision 3 names the root of a user namespace, in which alone the
/// capabilities hold. A layer has revision 2: they hold wherever it is mounted.
fn capability(value: &mut Vec<u8>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    if value.len() == 24 && value[3] == REVISION_3 {
        value.truncate(20);
        value[3] = REVISION_2;
    }
}

/// Is a directory there, and not a link to one?
pub(crate) fn is_directory(path: &Utf8Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Both times of what is there, a link included, in seconds since 1970.
pub(crate) fn set_time(path: &Utf8Path, seconds: i64) -> Result<(), Error> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path.as_std_path(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| io_error("change", path)(errno.into()))
}

/// Does a directory hide the one below it?
pub(crate) fn opaque(path: impl AsRef<std::path::Path>) -> bool {
    let mut answer = [0; 1];
    lgetxattr(path.as_ref(), "trusted.overlay.opaque", &mut answer[..]).is_ok_and(|_| answer == *b"y")
}

pub(crate) fn names(path: &Utf8Path) -> Result<Vec<CString>, Error> {
    let mut bytes = vec![0_u8; 1 << 16];
    let length = match llistxattr(path.as_std_path(), &mut bytes[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(errno) => return Err(io_error("read", path)(errno.into())),
    };
    let names = bytes[..length].split_inclusive(|byte| *byte == 0);
    Ok(names
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect())
}

pub(crate) fn value(path: &Utf8Path, name: &CStr) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0_u8; 1 << 16];
    let length = lgetxattr(path.as_std_path(), name, &mut bytes[..])
        .map_err(|errno| io_error("read", path)(errno.into()))?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Removes what is there, be it nothing. Links are not followed.
pub(crate) fn remove(path: &Utf8Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).map_err(io_error("remove", path)),
        _ => fs::remove_file(path).map_err(io_error("remove", path)),
    }
}

#[cfg(test)]
mod tests;
