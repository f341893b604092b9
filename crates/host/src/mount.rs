//! Mounts that the standard tools cannot make: id-mapped layers, overlays, sparse disks, a private namespace.
//!
//! All of them are made in a mount namespace that nobody else sees and that ends with this process; a container keeps
//! those that it uses. Knows nothing of containers.

mod raw;

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt as _},
    },
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::{
    fs::{AtFlags, CWD, Gid, Uid},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
        move_mount, open_tree, unmount,
    },
};

#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct Error {
    pub doing: &'static str,
    pub path: Utf8PathBuf,
    #[source]
    pub source: io::Error,
}

/// Names what failed and where.
pub(crate) fn context<E: Into<io::Error>>(
    doing: &'static str,
    path: impl Into<Utf8PathBuf>,
) -> impl FnOnce(E) -> Error {
    let path = path.into();
    move |source| Error {
        doing,
        path,
        source: source.into(),
    }
}

/// Gives the calling thread, and the threads that it starts later, a mount namespace in which mounts of the machine
/// still appear and from which none leaves, without the unified hierarchy of hybrid control groups, which crun refuses.
pub fn enter_private() -> Result<(), Error> {
    raw::unshare_mounts().map_err(context("unshare the mounts of", "/"))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(context("make private the mounts under", "/"))?;
    if let Some(unified) = crate::cgroup::hybrid_mount() {
        unmount(unified.as_str(), UnmountFlags::DETACH).map_err(context("unmount", unified.as_str()))?;
        // crun still makes directories there: nobody else shall see them.
        cover(&unified)?;
    }
    Ok(())
}

/// Covers a directory with an empty one that only this process sees.
fn cover(path: &Utf8Path) -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("vend", path.as_str(), "tmpfs", flags, c"mode=0700,size=1m")
        .map_err(context("mount a tmpfs at", path))
}

/// An empty directory that only this process sees, that any user may pass but only root may list: mapped users
/// must pass it to reach their root file system, and they could not pass a data directory of mode 0700.
pub fn stage(path: &Utf8Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(context("create", path))?;
    mount(
        "vend",
        path.as_str(),
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0711,size=16m",
    )
    .map_err(context("mount a tmpfs at", path))
}

/// User namespaces by their first id, each made once: what id-mapped mounts take their mapping from.
#[derive(Debug, Default)]
pub struct Mappings {
    made: Mutex<HashMap<u32, Arc<OwnedFd>>>,
}

impl Mappings {
    /// Mounts `source` at `target` so that its ids 0 to 65535 are those from `uid_base`.
    pub fn bind(&self, source: &Utf8Path, target: &Utf8Path, uid_base: u32) -> Result<(), Error> {
        let tree = open_tree(
            CWD,
            source.as_str(),
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .map_err(context("open as a mount", source))?;
        let mapping = self
            .get(uid_base)
            .map_err(context("make a user namespace for", source))?;
        raw::id_map(&tree, &*mapping).map_err(context("map the ids of", source))?;
        move_mount(
            &tree,
            "",
            CWD,
            target.as_str(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(context("mount at", target))
    }

    fn get(&self, uid_base: u32) -> io::Result<Arc<OwnedFd>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = made.get(&uid_base) {
            return Ok(mapping.clone());
        }
        let mapping = Arc::new(raw::user_namespace(uid_base)?);
        made.insert(uid_base, mapping.clone());
        Ok(mapping)
    }
}

/// Stacks `lowers` (top first) under `upper`. Nothing about the overlay survives a power cut when it is `volatile`.
pub fn overlay(
    lowers: &[Utf8PathBuf],
    upper: &Utf8Path,
    work: &Utf8Path,
    target: &Utf8Path,
    volatile: bool,
) -> Result<(), Error> {
    let more = if volatile { ",volatile" } else { "" };
    stack(lowers, upper, work, target, more, MountFlags::NODEV)
}

/// Shows `upper` at `target` so that nothing that is written there is flushed to the disk, whatever the writer asks for,
/// and devices work. The writing of thousands of small files that each are flushed takes many times as long. `lower` is
/// an empty directory.
pub fn unflushed(
    lower: &Utf8Path,
    upper: &Utf8Path,
    work: &Utf8Path,
    target: &Utf8Path,
) -> Result<(), Error> {
    stack(
        &[lower.to_owned()],
        upper,
        work,
        target,
        ",volatile",
        MountFlags::empty(),
    )
}

fn stack(
    lowers: &[Utf8PathBuf],
    upper: &Utf8Path,
    work: &Utf8Path,
    target: &Utf8Path,
    more: &str,
    flags: MountFlags,
) -> Result<(), Error> {
    let lowers: Vec<&str> = lowers.iter().map(|lower| lower.as_str()).collect();
    // A layer must stand alone once it is committed: no entry may only point at the layer below.
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off{more}",
        lowers.join(":"),
    );
    let options = std::ffi::CString::new(options)
        .map_err(io::Error::from)
        .map_err(context("name the layers of", target))?;
    mount("overlay", target.as_str(), "overlay", flags, options.as_c_str())
        .map_err(context("mount the overlay at", target))
}

/// Makes `file` a sparse ext4 file system of `mib` and mounts it at `target`. It has no journal: nothing on it is
/// used again after a power cut.
///
/// An empty file system is always the same: one of each size is kept among `blanks`, and what it holds is copied.
pub fn disk(file: &Utf8Path, mib: u64, blanks: &Utf8Path, target: &Utf8Path) -> Result<(), Error> {
    let blank = blanks.join(format!("1-{mib}.ext4"));
    let image = empty(file, mib)?;
    match fs::File::open(&blank) {
        Ok(from) => copy_data(&from, &image).map_err(context("copy a blank disk to", file))?,
        Err(_) => {
            format(file)?;
            keep_blank(&image, file, &blank)?;
        }
    }
    mount_disk(&image, file, target)
}

/// A sparse file.
fn empty(file: &Utf8Path, mib: u64) -> Result<fs::File, Error> {
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .map_err(context("create", file))?;
    image.set_len(mib * 1024 * 1024).map_err(context("size", file))?;
    Ok(image)
}

/// Keeps a copy of a disk that is empty still.
fn keep_blank(image: &fs::File, file: &Utf8Path, blank: &Utf8Path) -> Result<(), Error> {
    let dir = blank.parent().expect("a blank disk is in a directory");
    fs::create_dir_all(dir).map_err(context("create", dir))?;
    // Two may come here at once, with files of their own.
    let fresh = dir.join(format!(".{}", model::Digest::of(file.as_str()).hex()));
    let length = image.metadata().map_err(context("look at", file))?.len();
    let copy = empty(&fresh, length >> 20)?;
    copy_data(image, &copy).map_err(context("copy a blank disk to", &fresh))?;
    // It outlives a power cut by its name, so it must by what it holds: all later disks are its copies.
    copy.sync_all().map_err(context("write", &fresh))?;
    fs::rename(&fresh, blank).map_err(context("rename", &fresh))
}

/// Copies what a sparse file holds to the same places of another.
fn copy_data(from: &fs::File, to: &fs::File) -> io::Result<()> {
    use rustix::fs::SeekFrom;
    use std::os::unix::fs::FileExt as _;
    let length = from.metadata()?.len();
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data from here on.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(length);
        while at < end {
            let most = buffer
                .len()
                .min(usize::try_from(end - at).unwrap_or(buffer.len()));
            let count = from.read_at(&mut buffer[..most], at)?;
            if count == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..count], at)?;
            at += count as u64;
        }
    }
}

fn format(file: &Utf8Path) -> Result<(), Error> {
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode"])
        .args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", file.as_str()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(context("run mkfs.ext4 on", file))?;
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(context("format", file)(io::Error::other(why)));
    }
    Ok(())
}

/// Mounts a disk that [`disk`] made before, be it in use or not. A file must never be behind two loop devices, each of
/// which would write without knowing of the other: the one that it is behind is looked for first.
pub fn disk_again(file: &Utf8Path, target: &Utf8Path) -> Result<(), Error> {
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .map_err(context("open", file))?;
    match device_of(file) {
        Some(device) => mount_device(&device, target),
        None => mount_disk(&image, file, target),
    }
}

fn mount_disk(image: &fs::File, file: &Utf8Path, target: &Utf8Path) -> Result<(), Error> {
    let device = attach(image).map_err(context("attach a loop device to", file))?;
    mount_device(device.as_str(), target)
}

fn mount_device(device: &str, target: &Utf8Path) -> Result<(), Error> {
    let flags = MountFlags::NODEV | MountFlags::NOATIME;
    mount(device, target.as_str(), "ext4", flags, c"discard").map_err(context("mount the disk at", target))
}

/// The loop device that a file is behind.
fn device_of(file: &Utf8Path) -> Option<String> {
    let devices = Utf8Path::new("/sys/block").read_dir_utf8().ok()?.flatten();
    let backs = |name: &str| {
        let backing = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap_or_default();
        backing.trim_end() == file.as_str()
    };
    let mut names = devices
        .map(|device| device.file_name().to_owned())
        .filter(|name| name.starts_with("loop"));
    names.find(|name| backs(name)).map(|name| format!("/dev/{name}"))
}

/// Takes a free loop device. Others take them too, hence the repetition.
fn attach(image: &fs::File) -> io::Result<LoopDevice> {
    let control = fs::File::open("/dev/loop-control")?;
    let mut last = io::Error::other("no loop device is free");
    for _ in 0..50 {
        let path = format!("/dev/loop{}", raw::loop_free(&control)?);
        let device = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        match raw::loop_configure(&device, image) {
            Ok(()) => return Ok(LoopDevice { path, _open: device }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Open until it is mounted, or it would let go of its file.
struct LoopDevice {
    path: String,
    _open: fs::File,
}

impl LoopDevice {
    fn as_str(&self) -> &str {
        &self.path
    }
}

/// Unmounts whatever is mounted there. Nothing mounted, or no such path, is unmounted.
pub fn detach(target: &Utf8Path) -> Result<(), Error> {
    loop {
        match unmount(target.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(context("unmount", target)(error)),
        }
    }
}

/// Is something mounted there?
pub fn is_mounted(target: &Utf8Path) -> bool {
    points().iter().any(|point| point == target)
}

/// Unmounts whatever is mounted below a directory.
pub fn detach_below(directory: &Utf8Path) -> Result<(), Error> {
    let below = |point: &&Utf8PathBuf| point.starts_with(directory) && point != &directory;
    // What was mounted last lies on top.
    points()
        .iter()
        .rev()
        .filter(below)
        .try_for_each(|point| detach(point))
}

/// Where something is mounted, in the order of mounting (`proc_pid_mountinfo(5)`).
fn points() -> Vec<Utf8PathBuf> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    // Spaces and the like are written in octal.
    let plain = |point: &str| point.replace("\\040", " ").replace("\\134", "\\");
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| plain(point).into()).collect()
}

/// Removes a directory with all that is in it, or a file. One that is not there is removed.
pub fn remove(path: &Utf8Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(context("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Moves the owners of everything under `dir` that are in the 65,536 ids from `from` to those from `to`, and keeps the
/// set-id bits and file capabilities that changing an owner takes away. Owners outside of the range stay.
pub fn shift(dir: &Utf8Path, from: u32, to: u32) -> Result<(), Error> {
    let meta = fs::symlink_metadata(dir).map_err(context("look at", dir))?;
    shift_one(dir.as_std_path(), &meta, from, to).map_err(context("change the owner of", dir))?;
    if !meta.is_dir() {
        return Ok(());
    }
    for entry in dir.read_dir_utf8().map_err(context("list", dir))? {
        shift(entry.map_err(context("list", dir))?.path(), from, to)?;
    }
    Ok(())
}

fn shift_one(path: &Path, meta: &fs::Metadata, from: u32, to: u32) -> io::Result<()> {
    let moved = |id: u32| match id.checked_sub(from) {
        Some(inner) if inner < 65_536 => Some(to + inner),
        _ => None,
    };
    let (uid, gid) = (moved(meta.uid()), moved(meta.gid()));
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let capability = if meta.is_file() { capability_of(path) } else { None };
    let owner = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if !meta.is_symlink() && meta.mode() & 0o6000 != 0 {
        rustix::fs::chmodat(
            CWD,
            path,
            rustix::fs::Mode::from_raw_mode(meta.mode() & 0o7777),
            AtFlags::empty(),
        )?;
    }
    if let Some(capability) = capability {
        rustix::fs::lsetxattr(
            path,
            CAPABILITY,
            &rooted(capability, to),
            rustix::fs::XattrFlags::empty(),
        )?;
    }
    Ok(())
}

const CAPABILITY: &str = "security.capability";

fn capability_of(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::lgetxattr(path, CAPABILITY, &mut value).ok()?;
    value.truncate(length);
    (length >= 20).then_some(value)
}

/// `struct vfs_ns_cap_data` for the root of the ids from `to`: version 2 for the machine's own, version 3 for others.
fn rooted(mut capability: Vec<u8>, to: u32) -> Vec<u8> {
    const VERSION_2: u8 = 2;
    const VERSION_3: u8 = 3;
    capability.truncate(20);
    capability[3] = if to == 0 { VERSION_2 } else { VERSION_3 };
    if to != 0 {
        capability.extend(to.to_le_bytes());
    }
    capability
}

/// Gives one path, which is not followed, to mapped root.
pub fn give(path: &Utf8Path, uid_base: u32) -> Result<(), Error> {
    let owner = (Some(Uid::from_raw(uid_base)), Some(Gid::from_raw(uid_base)));
    rustix::fs::chownat(CWD, path.as_str(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(context("change the owner of", path))
}

/// Is this kernel able to map the ids of the file system that `dir` is on?
pub fn maps_ids(dir: &Utf8Path) -> io::Result<()> {
    let tree = open_tree(
        CWD,
        dir.as_str(),
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    raw::id_map(tree.as_fd(), raw::user_namespace(100_000)?)
}

/// Does this machine lend loop devices?
pub fn has_loops() -> io::Result<()> {
    raw::loop_free(fs::File::open("/dev/loop-control")?).map(drop)
}
