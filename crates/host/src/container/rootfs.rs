//! The root file system of one container: layers with mapped ids, a limited place to write, files of the machine.

use std::{fs, os::unix::fs::PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use model::Digest;
use tracing::warn;

use super::{Bind, Error, Preset, Rootfs, io};
use crate::mount::{self, Mappings};

/// What a root file system is put together from and where.
#[derive(Debug)]
pub struct Builder {
    /// A place that only this process sees, where mounts are made.
    pub stage: Utf8PathBuf,
    /// Copies of layers for kernels that cannot map ids.
    pub shifted: Utf8PathBuf,
    /// Empty disks, one of each size.
    pub blanks: Utf8PathBuf,
    /// Files of the machine, under all layers.
    pub machine: Utf8PathBuf,
    pub mappings: Mappings,
    pub maps_ids: bool,
    pub has_loops: bool,
}

/// A root file system that is mounted.
#[derive(Debug)]
pub struct Mounted {
    pub root: Utf8PathBuf,
    pub binds: Vec<Bind>,
}

impl Builder {
    /// Mounts it. What was mounted stays after an error: [`Builder::unmount`] takes it away.
    pub fn mount(
        &self,
        id: &str,
        rootfs: &Rootfs,
        binds: &[Bind],
        uid_base: u32,
        preset: Preset,
    ) -> Result<Mounted, Error> {
        let stage = self.stage.join(id);
        let root = stage.join("root");
        fs::create_dir_all(&root).map_err(io("create", &root))?;
        self.scratch(rootfs, uid_base)?;
        let mut lowers = Vec::new();
        for (number, lower) in rootfs.lowers.iter().chain([&self.machine]).enumerate() {
            lowers.push(self.mapped(lower, &stage.join(format!("l{number}")), uid_base)?);
        }
        let volatile = preset != Preset::Host;
        mount::overlay(
            &lowers,
            &rootfs.upper(),
            &rootfs.scratch.join("work"),
            &root,
            volatile,
        )?;
        // The overlay holds its layers by itself from now on.
        for lower in lowers.iter().filter(|lower| lower.starts_with(&stage)) {
            mount::detach(lower)?;
        }
        let mut staged = Vec::new();
        for (number, bind) in binds.iter().enumerate() {
            let source = match (bind.source.is_relative(), bind.id_mapped) {
                (true, _) => own(&rootfs.scratch.join(&bind.source), uid_base)?,
                (false, true) if !self.maps_ids && !bind.read_only => {
                    mount::shift(&bind.source, 0, uid_base)?;
                    bind.source.clone()
                }
                (false, true) => self.mapped(&bind.source, &stage.join(format!("b{number}")), uid_base)?,
                (false, false) => bind.source.clone(),
            };
            staged.push(Bind {
                source,
                ..bind.clone()
            });
        }
        Ok(Mounted { root, binds: staged })
    }

    /// What of the isolation asked for this machine cannot give.
    pub fn fallbacks(&self, limits_disk: bool) -> Vec<String> {
        let mut all = Vec::new();
        if !self.maps_ids {
            all.push("no id-mapped mounts: layers are copied for each tenant".into());
        }
        if limits_disk && !self.has_loops {
            all.push("no loop devices: what a container writes to its disk is not limited".into());
        }
        all
    }

    /// Lets go of the root file system, which a container that runs keeps.
    pub fn unmount(&self, id: &str) -> Result<(), Error> {
        let stage = self.stage.join(id);
        let Ok(entries) = stage.read_dir_utf8() else {
            return Ok(());
        };
        for entry in entries.flatten() {
            mount::detach(entry.path())?;
        }
        Ok(mount::remove(&stage)?)
    }

    /// Mounts what a container wrote or writes, after another process did so before.
    pub fn mount_scratch(&self, scratch: &Utf8Path) -> Result<(), Error> {
        let disk = disk_of(scratch);
        if !disk.exists() || mount::is_mounted(scratch) {
            return Ok(());
        }
        Ok(mount::disk_again(&disk, scratch)?)
    }

    /// Removes what a container wrote.
    pub fn remove_scratch(&self, scratch: &Utf8Path) -> Result<(), Error> {
        mount::detach(scratch)?;
        mount::remove(scratch)?;
        Ok(mount::remove(&disk_of(scratch))?)
    }

    fn scratch(&self, rootfs: &Rootfs, uid_base: u32) -> Result<(), Error> {
        let scratch = &rootfs.scratch;
        self.remove_scratch(scratch)?;
        fs::create_dir_all(scratch).map_err(io("create", scratch))?;
        if let Some(mib) = rootfs.disk_mib.filter(|_| self.has_loops) {
            mount::disk(&disk_of(scratch), mib, &self.blanks, scratch)?;
        }
        for dir in [rootfs.upper(), scratch.join("work")] {
            fs::create_dir(&dir).map_err(io("create", &dir))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
                .map_err(io("set the mode of", &dir))?;
        }
        Ok(mount::give(&rootfs.upper(), uid_base)?)
    }

    fn mapped(&self, source: &Utf8Path, target: &Utf8Path, uid_base: u32) -> Result<Utf8PathBuf, Error> {
        if !self.maps_ids {
            return self.shifted_copy(source, uid_base);
        }
        let meta = fs::metadata(source).map_err(io("look at", source))?;
        if meta.is_dir() {
            fs::create_dir_all(target).map_err(io("create", target))?;
        } else {
            fs::write(target, "").map_err(io("create", target))?;
        }
        self.mappings.bind(source, target, uid_base)?;
        Ok(target.to_owned())
    }

    /// A copy of a layer with the owners that a mapping would show, made once and named by what it is a copy of.
    fn shifted_copy(&self, source: &Utf8Path, uid_base: u32) -> Result<Utf8PathBuf, Error> {
        let name = Digest::of_parts([source.as_str(), &uid_base.to_string()]).hex();
        let (done, fresh) = (self.shifted.join(&name), self.shifted.join(format!(".{name}")));
        if done.exists() {
            return Ok(done);
        }
        warn!(%source, uid_base, "copying a layer because this kernel cannot map its ids");
        fs::create_dir_all(&self.shifted).map_err(io("create", &self.shifted))?;
        mount::remove(&fresh)?;
        let copied = std::process::Command::new("cp")
            .args(["--archive", "--reflink=auto", source.as_str(), fresh.as_str()])
            .status()
            .map_err(io("copy", source))?;
        if !copied.success() {
            return Err(io("copy", source)(std::io::Error::other(copied.to_string())));
        }
        mount::shift(&fresh, 0, uid_base)?;
        fs::rename(&fresh, &done).map_err(io("rename", &fresh))?;
        Ok(done)
    }
}

/// A directory that only the container's root and the machine's see.
fn own(path: &Utf8Path, uid_base: u32) -> Result<Utf8PathBuf, Error> {
    fs::create_dir(path).map_err(io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("set the mode of", path))?;
    mount::give(path, uid_base)?;
    Ok(path.to_owned())
}

fn disk_of(scratch: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{scratch}.disk"))
}

/// The certificates that this machine trusts, as a layer under all others: an image without a bundle sees that of the
/// machine, and one that makes a bundle of its own finds the machine's private authorities where Debian looks for them.
/// A change makes another directory, because layers in use must not change.
pub fn machine_layer(dir: &Utf8Path) -> Result<Utf8PathBuf, Error> {
    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    const PRIVATE: &str = "usr/local/share/ca-certificates";
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    if let Ok(bundle) = fs::read(format!("/{BUNDLE}")) {
        files.push((BUNDLE.to_owned(), bundle));
    }
    let private = Utf8Path::new("/").join(PRIVATE);
    for entry in private.read_dir_utf8().into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let (true, Ok(certificate)) = (name.ends_with(".crt"), fs::read(entry.path())) {
            files.push((format!("{PRIVATE}/{name}"), certificate));
        }
    }
    files.sort();
    let parts = files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]);
    let done = dir.join(Digest::of_parts(parts).short());
    if done.exists() {
        return Ok(done);
    }
    let fresh = dir.join(".fresh");
    mount::remove(&fresh)?;
    fs::create_dir_all(&fresh).map_err(io("create", &fresh))?;
    for (name, bytes) in &files {
        let path = fresh.join(name);
        let parent = path.parent().expect("the path has several parts");
        fs::create_dir_all(parent).map_err(io("create", parent))?;
        fs::write(&path, bytes).map_err(io("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .map_err(io("set the mode of", &path))?;
    }
    open_all(&fresh)?;
    fs::rename(&fresh, &done).map_err(io("rename", &fresh))?;
    Ok(done)
}

/// Directories under `dir`, itself included, may be entered by everybody whatever the umask was.
fn open_all(dir: &Utf8Path) -> Result<(), Error> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(io("set the mode of", dir))?;
    for entry in dir.read_dir_utf8().map_err(io("list", dir))?.flatten() {
        if entry.path().is_dir() {
            open_all(entry.path())?;
        }
    }
    Ok(())
}
