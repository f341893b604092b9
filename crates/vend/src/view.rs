//! What an unprivileged role sees of the machine's files, and what it may do that others may not.
//!
//! A data directory may lie below a directory that only root may enter: root's home, or one of `mktemp -d`. The role's
//! own user could not reach it. Nothing of the machine is changed for that: the role gets a mount namespace in which
//! the closed directory holds the data directory and nothing else, under its own path.

use std::{
    ffi::CString,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode},
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
    process::{Gid, Uid},
    thread::{CapabilitySet, CapabilitySets, UnshareFlags},
};

/// Who a role is, and how it comes to see its data directory. Everything that needs memory is made before the fork.
pub struct View {
    user: Uid,
    group: Gid,
    around: Option<Around>,
    /// It may bind ports below 1024.
    binds: bool,
}

/// A way around a closed directory.
struct Around {
    closed: CString,
    data: CString,
    /// Directories from below the closed one to the data directory itself, outermost first.
    between: Vec<CString>,
}

impl View {
    /// `data` is an absolute path without links.
    ///
    /// # Errors
    ///
    /// A directory above `data` cannot be looked at.
    pub fn new(data: &Path, user: u32, group: u32) -> io::Result<Self> {
        let around = match closed(data, user, group)? {
            Some(closed) => Some(Around::new(&closed, data)?),
            None => None,
        };
        Ok(Self {
            user: Uid::from_raw(user),
            group: Gid::from_raw(group),
            around,
            binds: false,
        })
    }

    /// The same, of one that may bind any port, and has no other right of root's: rules may have sockets of their own.
    pub fn binding(self) -> Self {
        Self { binds: true, ..self }
    }

    /// Makes the calling process, which is root and has one thread, that user with that view. Allocates nothing, so
    /// that it may run between fork and exec.
    pub fn enter(&self) -> io::Result<()> {
        if let Some(around) = &self.around {
            around.enter()?;
        }
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(self.group, self.group, self.group)?;
        rustix::thread::set_keep_capabilities(self.binds)?;
        rustix::thread::set_thread_res_uid(self.user, self.user, self.user)?;
        match self.binds {
            true => keep_binding(),
            false => Ok(()),
        }
    }
}

/// Of what was kept only that stays, through execve(2) too (capabilities(7)).
fn keep_binding() -> io::Result<()> {
    let binding = CapabilitySet::NET_BIND_SERVICE;
    let only = CapabilitySets {
        effective: binding,
        permitted: binding,
        inheritable: binding,
    };
    rustix::thread::set_capabilities(None, only)?;
    rustix::thread::configure_capability_in_ambient_set(binding, true)?;
    Ok(())
}

impl Around {
    fn new(closed: &Path, data: &Path) -> io::Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::from);
        let mut between: Vec<PathBuf> = data
            .ancestors()
            .take_while(|path| *path != closed)
            .map(Path::to_owned)
            .collect();
        between.reverse();
        Ok(Self {
            closed: text(closed)?,
            data: text(data)?,
            between: between.iter().map(|path| text(path)).collect::<io::Result<_>>()?,
        })
    }

    #[allow(unsafe_code)]
    fn enter(&self) -> io::Result<()> {
        // SAFETY: the calling process has one thread and shares neither its descriptors nor its working directory.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        // What the machine unmounts later goes here too, and nothing that is done here goes to the machine.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", downstream)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let data = rustix::mount::open_tree(CWD, &*self.data, flags)?;
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount(c"none", &*self.closed, c"tmpfs", plain, c"mode=0755,size=64k")?;
        for directory in &self.between {
            rustix::fs::mkdir(&**directory, Mode::from_raw_mode(0o755))?;
        }
        let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&data, c"", CWD, &*self.data, onto)?;
        Ok(())
    }
}

/// The outermost directory above `data` that this user may not search.
fn closed(data: &Path, user: u32, group: u32) -> io::Result<Option<PathBuf>> {
    let mut above: Vec<&Path> = data.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let found = std::fs::metadata(directory)?;
        let search = match found {
            _ if found.uid() == user => 0o100,
            _ if found.gid() == group => 0o010,
            _ => 0o001,
        };
        if found.mode() & search == 0 {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{Permissions, set_permissions},
        os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
        process::Command,
    };

    use super::*;

    fn below_a_closed_directory() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let data = top.path().join("a/b/data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(top.path().join("a/neighbour"), "n").unwrap();
        std::fs::write(data.join("own"), "o").unwrap();
        set_permissions(top.path(), Permissions::from_mode(0o700)).unwrap();
        (top, data)
    }

    #[test]
    #[allow(unsafe_code)]
    fn who_may_bind_any_port_may_do_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may become another user");
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let sets = |binds: bool| {
            let view = View::new(data.path(), 64_200, 64_200).unwrap();
            let view = if binds { view.binding() } else { view };
            let mut command = Command::new("/bin/grep");
            command.args(["^Cap[IPEA]", "/proc/self/status"]).current_dir("/");
            // SAFETY: `enter` allocates nothing and takes no lock.
            unsafe { command.pre_exec(move || view.enter()) };
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let sets = text.lines().filter_map(|line| line.split_once(":\t"));
            sets.map(|(_, bits)| u64::from_str_radix(bits, 16).unwrap())
                .collect::<Vec<_>>()
        };
        // CAP_NET_BIND_SERVICE.
        assert_eq!(sets(true), [1 << 10; 4]);
        assert_eq!(sets(false), [0; 4]);
    }

    #[test]
    fn the_outermost_closed_directory_is_found() {
        let (top, data) = below_a_closed_directory();
        let of = |user| closed(&data, user, 64_200).unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(of(64_200).as_deref(), Some(top.path()));
        assert_eq!(of(me), None);
        set_permissions(top.path(), Permissions::from_mode(0o701)).unwrap();
        assert_eq!(of(64_200), None);
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_role_reaches_its_directory_and_nothing_beside_it() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may make a mount namespace");
            return;
        }
        let (top, data) = below_a_closed_directory();
        let view = View::new(&data, 64_200, 64_200).unwrap();
        let script = format!(
            "cd {}/a && id -u && id -G && cat b/data/own && ls",
            top.path().display()
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).current_dir("/");
        // SAFETY: `enter` allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || view.enter()) };
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((text.as_str(), wrong.as_str()), ("64200\n64200\nob\n", ""));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(top.path().to_str().unwrap()), "{mounts}");
    }
}
